package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority issues certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue writes a certificate for three hours and its key.
func (a *authority) issue(t *testing.T, dir string, end time.Time, uris ...string) (cert, key string) {
	t.Helper()
	return a.issueFrom(t, dir, end.Add(-3*time.Hour), end, uris...)
}

func (a *authority) issueFrom(t *testing.T, dir string, from, end time.Time, uris ...string) (cert, key string) {
	t.Helper()
	k := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: end}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, "tls.crt", pemOf("CERTIFICATE", der)), write(t, dir, "tls.key", pemOf("PRIVATE KEY", keyDER))
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const workload = "spiffe://cluster.local/ns/production/sa/user-service"

func TestLoad(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	end := time.Now().Add(time.Hour)
	cert, key := a.issue(t, dir, end, workload)
	both := write(t, dir, "ca.crt", pemOf("CERTIFICATE", b.cert.Raw)+pemOf("CERTIFICATE", a.cert.Raw))
	id, err := Load(cert, key, both)
	if err != nil {
		t.Fatal(err)
	}
	if id.ID != workload || id.NotAfter.Sub(end).Abs() > 2*time.Second {
		t.Errorf("got %s until %v, want %s until %v", id.ID, id.NotAfter, workload, end)
	}
}

// TestLoad_Refuses: nothing is half good.
func TestLoad_Refuses(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	end := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name, want string
		end        time.Time
		uris       []string
		ca         string
	}{
		{"no URI", "no URI SAN", end, nil, pemOf("CERTIFICATE", a.cert.Raw)},
		{"two URIs", "more than one URI SAN", end, []string{workload, workload + "2"}, pemOf("CERTIFICATE", a.cert.Raw)},
		{"a web address", "scheme is missing or invalid", end, []string{"https://example.com/x"}, pemOf("CERTIFICATE", a.cert.Raw)},
		{"a trust domain alone", "no workload", end, []string{"spiffe://cluster.local"}, pemOf("CERTIFICATE", a.cert.Raw)},
		{"a foreign root", "vouches for", end, []string{workload}, pemOf("CERTIFICATE", b.cert.Raw)},
		{"expired", "expired", time.Now().Add(-time.Hour), []string{workload}, pemOf("CERTIFICATE", a.cert.Raw)},
		{"no root", "not all certificates", end, []string{workload}, ""},
		{"garbled roots", "not all certificates", end, []string{workload}, pemOf("CERTIFICATE", a.cert.Raw) + "garbage"},
		{"a broken root", "no certificate", end, []string{workload}, pemOf("CERTIFICATE", []byte("x"))},
		{"a key among the roots", "no certificate", end, []string{workload}, pemOf("PRIVATE KEY", []byte("x"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			cert, key := a.issue(t, dir, tt.end, tt.uris...)
			_, err := Load(cert, key, write(t, dir, "ca.crt", tt.ca))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
	dir := t.TempDir()
	cert, key := a.issue(t, dir, end, workload)
	other := t.TempDir()
	_, otherKey := a.issue(t, other, end, workload)
	ca := write(t, dir, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw))
	for name, files := range map[string][3]string{
		"another's key": {cert, otherKey, ca}, "no file": {cert, key, filepath.Join(dir, "nowhere")}, "no path": {cert, key, ""}, "no key": {cert, "", ca},
	} {
		if _, err := Load(files[0], files[1], files[2]); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestEndOf: a chain ends with its first part that does.
func TestEndOf(t *testing.T) {
	a := newAuthority(t) // for ten days
	leaf := func(end time.Time) []byte {
		cert, key := a.issue(t, t.TempDir(), end)
		pair, err := stdtls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Certificate[0]
	}
	sooner, later := a.cert.NotAfter.Add(-time.Hour), a.cert.NotAfter.Add(time.Hour)
	for name, tt := range map[string]struct {
		chain [][]byte
		want  time.Time
	}{
		"the leaf":             {[][]byte{leaf(sooner), a.cert.Raw}, sooner},
		"what it is issued by": {[][]byte{leaf(later), a.cert.Raw}, a.cert.NotAfter},
	} {
		if got, err := endOf(&stdtls.Certificate{Certificate: tt.chain}); err != nil || !got.Equal(tt.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tt.want)
		}
	}
	if _, err := endOf(&stdtls.Certificate{Certificate: [][]byte{leaf(sooner), []byte("x")}}); err == nil {
		t.Error("a chain of which a part cannot be read is taken")
	}
}

// TestLoad_Roots: of several ways to a root, the one that ends last counts.
func TestLoad_Roots(t *testing.T) {
	a := newAuthority(t)
	longer := *a.cert
	longer.NotAfter = a.cert.NotAfter.Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &longer, &longer, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := a.issue(t, dir, time.Now().Add(time.Hour), workload)
	for _, roots := range []string{pemOf("CERTIFICATE", der) + pemOf("CERTIFICATE", a.cert.Raw), pemOf("CERTIFICATE", a.cert.Raw) + pemOf("CERTIFICATE", der)} {
		id, err := Load(cert, key, write(t, dir, "ca.crt", roots))
		if err != nil || !id.root.NotAfter.Equal(longer.NotAfter) {
			t.Errorf("the root ends at %v, want %v; %v", id.root.NotAfter, longer.NotAfter, err)
		}
	}
}
