package tls

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// issueInto makes an authority and a certificate in a folder.
func issueInto(t *testing.T, folder string) (*Authority, *x509.Certificate) {
	t.Helper()
	a, err := OpenAuthority(folder)
	if err != nil {
		if a, err = InitAuthority(folder, "a.test"); err != nil {
			t.Fatal(err)
		}
	}
	id, _ := SPIFFEID("a.test", "n", "s")
	leaf, err := a.Issue(Request{ID: id, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return a, leaf
}

func named(t *testing.T, s *Store, name string) Files {
	t.Helper()
	f, err := s.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestStore_Swap: a Secret as the kubelet mounts it, whose folder is swapped by
// a symbolic link, is read again; one that is gone or broken leaves the last
// good one.
func TestStore_Swap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		mount := filepath.Join(dir, "shop")
		if err := os.Mkdir(mount, 0o755); err != nil {
			t.Fatal(err)
		}
		swap := func(version string) *x509.Certificate {
			_, leaf := issueInto(t, filepath.Join(mount, version))
			link := filepath.Join(mount, "..data_tmp")
			if err := os.Symlink(version, link); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(link, filepath.Join(mount, "..data")); err != nil {
				t.Fatal(err)
			}
			return leaf
		}
		first := swap("..1")
		for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(mount, name)); err != nil {
				t.Fatal(err)
			}
		}
		s := NewStore(dir, nil)
		f := named(t, s, "shop")
		is := func(what string, want *x509.Certificate, wantErr bool) {
			t.Helper()
			c, err := s.Get(f)
			if c == nil || c.Certificate.Leaf.SerialNumber.Cmp(want.SerialNumber) != 0 || (err != nil) != wantErr || c.Roots == nil {
				t.Errorf("%s: %+v, %v", what, c, err)
			}
		}
		is("at first", first, false)
		second := swap("..2")
		is("at once", first, false)
		time.Sleep(checkEvery)
		is("after a second", second, false)
		if err := os.Remove(filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkEvery)
		is("gone", second, true)
		third := swap("..3")
		time.Sleep(checkEvery)
		is("back", third, false)
	})
}

// TestStore_Tells: what cannot be used is told once, and what is about to end; and
// the status has all that is asked for.
func TestStore_Tells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var out bytes.Buffer
		s := NewStore(dir, slog.New(slog.NewTextHandler(&out, nil)))
		told := func(when, want string) {
			t.Helper()
			if got := out.String(); strings.Count(got, "\n") != min(len(want), 1) || !strings.Contains(got, want) {
				t.Errorf("%s it tells %q, want %q", when, got, want)
			}
			out.Reset()
		}
		f := named(t, s, "shop")
		ask := func(times int) {
			for range times {
				s.Get(f)
				time.Sleep(checkEvery)
			}
		}
		status := func() CertificateStatus {
			t.Helper()
			list := s.Status()
			if len(list) != 1 || list[0].Name != f.Certificate {
				t.Fatalf("status %+v", list)
			}
			return list[0]
		}
		ask(3)
		told("of a file that is not there", "there is none before it")
		if got := status(); got.Err == nil || !got.NotAfter.IsZero() {
			t.Errorf("status of what never was: %+v", got)
		}
		_, leaf := issueInto(t, filepath.Join(dir, "shop")) // for an hour
		ask(2)
		told("that it is there", "can be used again")
		if got := status(); got.Err != nil || !got.NotAfter.Equal(leaf.NotAfter) {
			t.Errorf("status of a good one: %+v", got)
		}
		_, leaf = issueInto(t, filepath.Join(dir, "shop"))
		ask(2)
		told("of one that is renewed", "")
		key := filepath.Join(dir, "shop", "tls.key")
		good, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(key, good[:10], 0o600); err != nil {
			t.Fatal(err)
		}
		ask(1)
		told("of a key half written", "")
		ask(3)
		told("of a key that stays so", "not used")
		if got := status(); got.Err == nil || !got.NotAfter.Equal(leaf.NotAfter) {
			t.Errorf("status of one that was good: %+v", got)
		}
		if err := os.WriteFile(key, good, 0o600); err != nil {
			t.Fatal(err)
		}
		ask(1)
		told("that it can be used", "can be used again")
		time.Sleep(50 * time.Minute)
		ask(3)
		told("of the end", "about to end")
		time.Sleep(asked)
		if list := s.Status(); len(list) != 0 || len(s.known) != 0 {
			t.Errorf("status of what nobody asks for: %+v, and %d are kept", list, len(s.known))
		}
	})
}

func TestStore_Named(t *testing.T) {
	dir := t.TempDir()
	issueInto(t, filepath.Join(dir, "plain"))
	s := NewStore(dir, nil)
	if f := named(t, s, "plain"); f.Roots != filepath.Join(dir, "plain", "ca.crt") || f.Revoked != "" {
		t.Errorf("%+v", f)
	}
	issueInto(t, filepath.Join(dir, "split-cacert"))
	if f := named(t, s, "split"); f.Roots != filepath.Join(dir, "split-cacert", "ca.crt") || f.Certificate != filepath.Join(dir, "split", "tls.crt") {
		t.Errorf("roots beside: %+v", f)
	}
	if f, err := s.Roots("plain"); err != nil || f.Certificate != "" || f.Roots == "" {
		t.Errorf("roots alone: %+v, %v", f, err)
	}
	// What clients are judged by comes with the list of those who are not any longer.
	list := write(t, filepath.Join(dir, "plain"), "ca.crl", "")
	if f, err := s.Roots("plain"); err != nil || f.Revoked != list {
		t.Errorf("roots alone, with a list: %+v, %v", f, err)
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	// A credential's own come before those beside it.
	for _, name := range []string{"ca.crt", "ca.crl"} {
		write(t, filepath.Join(dir, "split-cacert"), name, "")
		if err := os.MkdirAll(filepath.Join(dir, "split"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "split"), name, "")
	}
	if f := named(t, s, "split"); f.Roots != filepath.Join(dir, "split", "ca.crt") || f.Revoked != filepath.Join(dir, "split", "ca.crl") {
		t.Errorf("roots beside and its own: %+v", f)
	}
	if _, err := s.Roots("gone"); err == nil || !strings.Contains(err.Error(), "there is no ") {
		t.Errorf("no roots: %v", err)
	}
	for _, tt := range []struct {
		name            string
		shown, verified bool
		want            Files // their names alone
		wantErr         bool
	}{
		{"plain", true, true, Files{Certificate: "tls.crt", Key: "tls.key", Roots: "ca.crt"}, false},
		{"plain", false, true, Files{Roots: "ca.crt"}, false},
		{"gone", false, true, Files{}, true}, // and not the system's roots
		{"gone", true, true, Files{}, true},
		{"gone", true, false, Files{Certificate: "tls.crt", Key: "tls.key"}, false},
	} {
		f, err := s.Peer(tt.name, tt.shown, tt.verified)
		base := func(path string) string { return strings.TrimPrefix(path, filepath.Join(dir, tt.name)+"/") }
		if got := (Files{Certificate: base(f.Certificate), Key: base(f.Key), Roots: base(f.Roots)}); (err != nil) != tt.wantErr || err == nil && got != tt.want {
			t.Errorf("%s, shown %v, verified %v: %+v, %v", tt.name, tt.shown, tt.verified, got, err)
		}
	}
	if c, err := s.Get(named(t, s, "gone")); c != nil || err == nil {
		t.Errorf("not there: %v, %v", c, err)
	}
	for _, name := range []string{"", "..", "../x", "a/b", `a\b`, ".hidden"} {
		if _, err := s.Named(name); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	if _, err := NewStore("", nil).Named("x"); err == nil || !strings.Contains(err.Error(), "credentialDir") {
		t.Errorf("without a folder: %v", err)
	}
}

// TestStore_RootsAlone: of a credential without a certificate there is no end to
// tell of, and no status but its list's.
func TestStore_RootsAlone(t *testing.T) {
	synctest.Test(t, testRootsAlone)
}

func testRootsAlone(t *testing.T) {
	dir := t.TempDir()
	a, leaf := issueInto(t, filepath.Join(dir, "a"))
	list := write(t, filepath.Join(dir, "a"), "ca.crl", string(inPEM(listOf(t, a, leaf.SerialNumber, time.Hour, time.Hour))))
	s := NewStore(dir, nil)
	f, err := s.Roots("a")
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Get(f)
	if err != nil || c.Roots == nil || len(c.Revoked) != 1 || c.Certificate.Leaf != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if status := s.Status(); len(status) != 1 || status[0].Name != list || !status[0].List || status[0].Err != nil {
		t.Errorf("status %+v", status)
	}
	roots, err := os.ReadFile(f.Roots)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a"), "ca.crt", "x") // and not the roots of the system
	time.Sleep(checkEvery)
	if again, err := s.Get(f); err == nil || again != c {
		t.Errorf("with broken roots: %+v, %v, want the one of before and an error", again, err)
	}
	if never, err := NewStore(dir, nil).Get(f); err == nil || never != nil {
		t.Errorf("with broken roots, and none before: %+v, %v", never, err)
	}
	write(t, filepath.Join(dir, "a"), "ca.crt", string(roots))
	time.Sleep(checkEvery)
	if c, err = s.Get(f); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a"), "ca.crl", "x")
	time.Sleep(checkEvery)
	if again, err := s.Get(f); err == nil || again != c {
		t.Errorf("with a broken list: %+v, %v, want the one of before and an error", again, err)
	}
	if status := s.Status(); len(status) != 1 || status[0].Err == nil || status[0].NotAfter.IsZero() {
		t.Errorf("status of a broken list: %+v", status)
	}
}
