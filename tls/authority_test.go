package tls

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAuthority_Issues: what is issued is an identity that the authority's root
// vouches for, on both sides of a connection, and no longer than the root is
// good.
func TestAuthority_Issues(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	a, err := InitAuthority(dir, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	id, err := SPIFFEID("a.test", "prod", "web")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := a.Issue(Request{ID: id, DNSNames: []string{"web.example"}, TTL: 100 * 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotAfter.Equal(a.certificate.NotAfter) {
		t.Errorf("good until %v, the root until %v", leaf.NotAfter, a.certificate.NotAfter)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	got, err := Load(file("tls.crt"), file("tls.key"), file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != "spiffe://a.test/ns/prod/sa/web" {
		t.Errorf("identity %s", got.ID)
	}
	roots, err := loadRoots(file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "web.example", KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
			t.Errorf("for use %d: %v", use, err)
		}
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		t.Error("what is issued could issue others")
	}
	for name, mode := range map[string]os.FileMode{"ca.key": 0o600, "tls.key": 0o600, "ca.crt": 0o644, "tls.crt": 0o644} {
		if i, err := os.Stat(file(name)); err != nil || i.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", name, i, err, mode)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAuthority_Refuses(t *testing.T) {
	dir := t.TempDir()
	a, err := InitAuthority(dir, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	other, _ := SPIFFEID("b.test", "n", "s")
	for name, tt := range map[string]struct {
		do   func() error
		want string
	}{
		"another domain":    {func() error { _, err := a.Issue(Request{ID: other, TTL: time.Hour}); return err }, "speaks for trust domain a.test, not b.test"},
		"no time":           {func() error { _, err := a.Issue(Request{}); return err }, "--ttl must be more than 0"},
		"a second one":      {func() error { _, err := InitAuthority(dir, "a.test"); return err }, "is there already"},
		"no domain":         {func() error { _, err := InitAuthority(t.TempDir(), ""); return err }, "is no trust domain"},
		"no folder":         {func() error { _, err := OpenAuthority(filepath.Join(dir, "none")); return err }, "there is no authority"},
		"a dot for account": {func() error { _, err := SPIFFEID("a.test", "n", ".."); return err }, "cannot be part of a SPIFFE ID"},
		"a slash":           {func() error { _, err := SPIFFEID("a.test", "n/sa/x", "s"); return err }, "cannot be part of a SPIFFE ID"},
		"no account":        {func() error { _, err := SPIFFEID("a.test", "n", ""); return err }, "cannot be part of a SPIFFE ID"},
		"a domain of none":  {func() error { _, err := SPIFFEID("a/b", "n", "s"); return err }, "is no trust domain"},
		"a broken root": {func() error {
			broken := t.TempDir()
			write(t, broken, "ca.key", "x")
			write(t, broken, "ca.crt", "x")
			_, err := OpenAuthority(broken)
			return err
		}, "ca.crt with key"},
		"a leaf for a root": {func() error {
			leaves := t.TempDir()
			id, _ := SPIFFEID("a.test", "n", "s")
			if _, err := a.Issue(Request{ID: id, TTL: time.Hour}); err != nil {
				return err
			}
			for from, to := range map[string]string{"tls.crt": "ca.crt", "tls.key": "ca.key"} {
				b, err := os.ReadFile(filepath.Join(dir, from))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(leaves, to), b, 0o600); err != nil {
					return err
				}
			}
			_, err := OpenAuthority(leaves)
			return err
		}, "is no certificate that others can be issued with"},
	} {
		if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestSPIFFEID: what names in Kubernetes and elsewhere are made of is kept.
func TestSPIFFEID(t *testing.T) {
	const parts = "azAZ09.-_"
	if got, err := SPIFFEID("a.test", parts, "b"+parts); err != nil || got != "spiffe://a.test/ns/azAZ09.-_/sa/bazAZ09.-_" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, c := range "@[`{/:% é" { // the neighbours of those, and what would be read in another way
		if got, err := SPIFFEID("a.test", "n", "a"+string(c)); err == nil {
			t.Errorf("%q is part of %s", c, got)
		}
	}
}

// TestAuthority_Foreign: an authority that was made elsewhere names no trust domain,
// or something else too, and issues for any.
func TestAuthority_Foreign(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ca.key", pemOf("PRIVATE KEY", key))
	write(t, dir, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw))
	got, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := got.Issue(Request{ID: workload, CommonName: "web", Addresses: []net.IP{net.IPv4(10, 0, 0, 7)}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := SPIFFE(leaf); err != nil || id != workload {
		t.Errorf("it is for %q, %v", id, err)
	}
	if err := leaf.VerifyHostname("10.0.0.7"); err != nil || leaf.Subject.CommonName != "web" || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("it is for %v, %v, and its use %b", leaf.Subject, err, leaf.KeyUsage)
	}
	if now := time.Now(); now.Sub(leaf.NotBefore) < backdated-time.Minute {
		t.Errorf("a clock that is slow by %v would not take it: it begins at %v", backdated, leaf.NotBefore)
	}
}
