package proxy

import (
	"strings"
	"testing"

	"isthmus/telemetry"
)

// TestIntroducedBy: what a proxy says of itself is read as far as it may be
// shown, and cannot change who it is.
func TestIntroducedBy(t *testing.T) {
	const id = "spiffe://cluster.local/ns/shop/sa/frontend"
	who := telemetry.Party{Principal: id, Namespace: "shop"}
	full := who
	full.App, full.Cluster, full.Version, full.Workload, full.Service, full.Revision = "a", "c1", "v1", "w", "s", "r"
	for said, want := range map[string]telemetry.Party{
		"": who,
		"app=a&cluster=c1&version=v1&workload=w&service=s&revision=r": full,
		"namespace=other&principal=other":                             who,
		"app=a%0ab":                                                   who,
		"app=%zz":                                                     who,
		"app=" + strings.Repeat("a", maxName+1):                       who,
		"x=" + strings.Repeat("a", maxIntroduction) + "&app=a":        who,
	} {
		if got := introducedBy(id, []byte(said)); got != want {
			t.Errorf("%.40q: %+v, want %+v", said, got, want)
		}
	}
	n := testNode()
	if got := introducedBy(id, introduction(n)); got.App != "client" || got.Workload != "n1" || got.Cluster != "c1" {
		t.Errorf("%s is read as %+v", introduction(n), got)
	}
}

// FuzzIntroducedBy: nothing that is said breaks, or makes a label that is no name.
func FuzzIntroducedBy(f *testing.F) {
	f.Add([]byte("app=a&cluster=c1"))
	f.Add([]byte("app=%0a&%zz;=&workload=\xff"))
	f.Fuzz(func(t *testing.T, said []byte) {
		p := introducedBy("spiffe://td/ns/a/sa/b", said)
		for _, field := range introduced(&p) {
			if s := *field.value; len(s) > maxName || !isName(s) {
				t.Errorf("%q", s)
			}
		}
	})
}
