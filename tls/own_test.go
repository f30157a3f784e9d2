package tls

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kubernetes lays an identity out as the kubelet does: files are links to
// ..data, which is a link to a folder that is swapped.
func kubernetes(t *testing.T, dir, version string, a *authority, end time.Time, uri string) {
	t.Helper()
	folder := filepath.Join(dir, version)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	a.issue(t, folder, end, uri)
	write(t, folder, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw))
	swap := filepath.Join(dir, "..swap")
	if err := os.Symlink(version, swap); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(swap, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
}

func startOwn(t *testing.T, dir string) (*Own, *bytes.Buffer, *slog.Logger) {
	t.Helper()
	file := func(name string) string { return filepath.Join(dir, name) }
	o, err := NewOwn(file("tls.crt"), file("tls.key"), file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	return o, &out, slog.New(slog.NewTextHandler(&out, nil))
}

func TestOwn_SwappedLink(t *testing.T) {
	dir, a := t.TempDir(), newAuthority(t)
	kubernetes(t, dir, "one", a, time.Now().Add(time.Hour), workload)
	o, _, log := startOwn(t, dir)
	first := o.Identity()
	o.check(log, time.Now())
	if o.Identity() != first {
		t.Fatal("read anew without a change")
	}
	kubernetes(t, dir, "two", newAuthority(t), time.Now().Add(2*time.Hour), workload)
	o.check(log, time.Now())
	if now := o.Identity(); now == first || bytes.Equal(now.Certificate.Certificate[0], first.Certificate.Certificate[0]) {
		t.Error("the old certificate after the link was swapped")
	}
	if s, _ := o.Status(); s.Reloads != 1 || s.Err != nil {
		t.Errorf("status %+v", s)
	}
}

// TestOwn_Keeps: what cannot be used leaves what was good in force, and is tried
// again.
func TestOwn_Keeps(t *testing.T) {
	a := newAuthority(t)
	end := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name, want string
		spoil      func(t *testing.T, dir string)
	}{
		{"half a key", "key input", func(t *testing.T, dir string) { write(t, dir, "tls.key", "-----BEGIN") }},
		{"another's key", "private key", func(t *testing.T, dir string) { a.issue(t, t.TempDir(), end, workload); swapKey(t, a, dir, end) }},
		{"no roots", "no such file", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "ca.crt")) }},
		{"garbled roots", "not all certificates", func(t *testing.T, dir string) { write(t, dir, "ca.crt", "x") }},
		{"expired", "expired", func(t *testing.T, dir string) { a.issue(t, dir, time.Now().Add(-time.Minute), workload) }},
		{"somebody else", "restart only", func(t *testing.T, dir string) { a.issue(t, dir, end, workload+"-2") }},
		{"foreign roots", "vouches for", func(t *testing.T, dir string) {
			write(t, dir, "ca.crt", pemOf("CERTIFICATE", newAuthority(t).cert.Raw))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			a.issue(t, dir, end, workload)
			write(t, dir, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw))
			o, out, log := startOwn(t, dir)
			first := o.Identity()
			tt.spoil(t, dir)
			o.check(log, time.Now())
			if out.Len() > 0 {
				t.Errorf("complained of files that may be half written: %s", out)
			}
			for range 3 {
				o.check(log, time.Now())
			}
			s, _ := o.Status()
			if o.Identity() != first || s.Err == nil || !strings.Contains(s.Err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it, and the identity of before", s.Err, tt.want)
			}
			if n := strings.Count(out.String(), "not used"); n != 1 {
				t.Errorf("complained %d times: %s", n, out)
			}
			a.issue(t, dir, end.Add(time.Minute), workload)
			write(t, dir, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw))
			o.check(log, time.Now())
			if s, _ := o.Status(); o.Identity() == first || s.Err != nil {
				t.Errorf("not mended: %v", s.Err)
			}
		})
	}
}

func swapKey(t *testing.T, a *authority, dir string, end time.Time) {
	t.Helper()
	other := t.TempDir()
	_, key := a.issue(t, other, end, workload)
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "tls.key", string(text))
}

func TestOwn_WarnsOfTheEnd(t *testing.T) {
	dir, a := t.TempDir(), newAuthority(t)
	end := time.Now().Add(time.Hour)
	a.issue(t, dir, end, workload)
	write(t, dir, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw))
	o, out, log := startOwn(t, dir)
	o.check(log, end.Add(-37*time.Minute)) // of three hours
	if out.Len() > 0 {
		t.Errorf("warned too early: %s", out)
	}
	o.check(log, end.Add(-35*time.Minute))
	o.check(log, end.Add(time.Minute))
	if n := strings.Count(out.String(), "about to end"); n != 1 {
		t.Errorf("warned %d times, want once: %s", n, out)
	}
	if s, ok := o.Status(); !ok || s.ID != workload || !s.NotAfter.Equal(o.Identity().NotAfter) || s.NotAfter.Sub(end).Abs() > time.Second {
		t.Errorf("an expired identity is gone: %+v, %v", s, ok)
	}
	out.Reset()
	a.issue(t, dir, end.Add(time.Hour), workload)
	o.check(log, time.Now())
	if o.check(log, end.Add(59*time.Minute)); strings.Count(out.String(), "about to end") != 1 {
		t.Errorf("of the next one's end it tells: %s", out)
	}
}

// TestOwn_WarnsOfTheRootsEnd: of several roots, the one that vouches for the
// certificate counts.
func TestOwn_WarnsOfTheRootsEnd(t *testing.T) {
	dir, a, b := t.TempDir(), newAuthority(t), newAuthority(t)
	end := a.cert.NotAfter
	a.issue(t, dir, end.Add(-time.Minute), workload)
	write(t, dir, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw)+pemOf("CERTIFICATE", b.cert.Raw))
	if _, err := NewOwn(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")); err == nil {
		t.Fatal("a certificate that begins in days is taken")
	}
	a.issueFrom(t, dir, time.Now().Add(-time.Minute), end.Add(-time.Minute), workload)
	o, out, log := startOwn(t, dir)
	o.warned = true // of the leaf's, which is beside the point
	root := o.Identity().root
	begins := root.NotBefore
	root.NotBefore = end.Add(-10 * 365 * 24 * time.Hour) // a fifth of which is two years
	o.check(log, end.Add(-rootLeft))
	if out.Len() > 0 {
		t.Errorf("warned of an old root too early: %s", out)
	}
	root.NotBefore = begins
	o.check(log, end.Add(-49*time.Hour)) // of 241
	if out.Len() > 0 {
		t.Errorf("warned too early: %s", out)
	}
	o.check(log, end.Add(-48*time.Hour))
	o.check(log, end)
	if n := strings.Count(out.String(), "root that vouches"); n != 1 {
		t.Errorf("warned %d times, want once: %s", n, out)
	}
	if s, _ := o.Status(); !s.RootEnds.Equal(end) {
		t.Errorf("it ends at %v, want %v", s.RootEnds, end)
	}
}

func TestOwn_None(t *testing.T) {
	var o *Own
	if _, ok := o.Status(); ok || o.Identity() != nil {
		t.Error("an identity out of nowhere")
	}
}
