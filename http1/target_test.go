package http1

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// TestParsePath holds targets that come alone to what a request line would have
// said of them.
func TestParsePath(t *testing.T) {
	long := strings.Repeat("x", DefaultLimits.TargetBytes)
	for _, target := range []string{"/", "/a/b?c=d", "/?", "/%41", "/%4", "/%zz?%zz", "", "x", "*", "http://a/", "//a", "/a b", "/a\r\nb", "/a#b", "/\xff",
		"/" + long, "/" + long[1:]} {
		var alone, line Request
		err := alone.ParsePath([]byte(target), Limits{})
		_, want := line.Parse([]byte("GET "+target+" HTTP/1.1\r\nHost: a\r\n\r\n"), Limits{})
		if target == "http://a/" {
			want = errTarget // it is not in origin-form
		}
		if got := err == nil; got != (want == nil) {
			t.Errorf("%.40q: %v, in a line %v", target, err, want)
		}
		if err == nil && (string(alone.Target) != target || string(alone.Path) != string(line.Path) || string(alone.Query) != string(line.Query) ||
			alone.HasQuery != line.HasQuery) {
			t.Errorf("%.40q: path %q, query %q; in a line %q, %q", target, alone.Path, alone.Query, line.Path, line.Query)
		}
	}
}

// TestValidIPv6 holds us to what netip reads.
func TestValidIPv6(t *testing.T) {
	valid := 0
	check := func(s string) {
		a, err := netip.ParseAddr(s)
		want := err == nil && a.Is6() && a.Zone() == ""
		if want {
			valid++
		}
		if got := validIPv6([]byte(s)); got != want {
			t.Errorf("validIPv6(%q) = %v, want %v (%v)", s, got, want, err)
		}
	}
	for _, s := range []string{
		"", ":", "::", ":::", "::::", "1", "1:", ":1", "::1", "1::", "1::1", "1:::1", "1::1::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
		"1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "12345::", "::g", "::1.2.3.4", "::ffff:1.2.3.4", "1.2.3.4", "1:2:3:4:5:6:1.2.3.4",
		"1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256", "::01.2.3.4", "::1.2.3.4:5", "::1.2.3.4.", "::.1.2.3", "fe80::1%eth0", "::1 ", "1:2:3:4:5:6:7:8:",
	} {
		check(s)
	}
	// The same addresses every time, long enough that many are valid.
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{":", ":", ":", "::", "0", "1", "ab", "FfFf", "12345", ".", "1.2.3.4", "255", "g"}
	for range 200_000 {
		s := ""
		for range random.IntN(18) {
			s += parts[random.IntN(len(parts))]
		}
		check(s)
	}
	if valid < 1000 {
		t.Errorf("%d valid addresses among those tried, want at least 1000", valid)
	}
}
