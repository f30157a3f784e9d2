package tls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"isthmus/mesh"
)

// Authority is a small certificate authority in a folder: its certificate in
// ca.crt, its key in ca.key. It is for trying things out, and for clusters
// without cert-manager; it knows neither revocation nor intermediates.
type Authority struct {
	dir         string
	certificate *x509.Certificate
	key         crypto.Signer

	// TrustDomain is what the authority may speak for.
	TrustDomain string
}

const (
	// authorityTTL is how long a new authority is good.
	authorityTTL = 10 * 365 * 24 * time.Hour

	// backdated is how much earlier certificates begin, for clocks that are slow.
	backdated = 5 * time.Minute
)

// InitAuthority makes an authority in a folder, which is made too. It refuses to
// replace one: every certificate of the old one would be worthless.
func InitAuthority(dir, trustDomain string) (*Authority, error) {
	if err := mesh.CheckTrustDomain(trustDomain); err != nil {
		return nil, err
	}
	for _, name := range []string{"ca.key", "ca.crt"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already: an authority is not replaced; name another folder, or remove it yourself", filepath.Join(dir, name))
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "isthmus authority of " + trustDomain},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(authorityTTL),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,                                              // it issues leaves alone
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}}, // X.509-SVID 3
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := writePair(dir, "ca", der, key); err != nil {
		return nil, err
	}
	return OpenAuthority(dir)
}

// OpenAuthority reads the authority of a folder.
func OpenAuthority(dir string) (*Authority, error) {
	crt, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no authority in %s: make one with isthmus certs init --dir %s", dir, dir)
	}
	pair, err := stdtls.LoadX509KeyPair(crt, key)
	if err != nil {
		return nil, fmt.Errorf("authority %s with key %s: %w", crt, key, err)
	}
	a := &Authority{dir: dir, certificate: pair.Leaf}
	var ok bool
	if a.key, ok = pair.PrivateKey.(crypto.Signer); !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is no certificate that others can be issued with", crt)
	}
	for _, u := range pair.Leaf.URIs {
		if u.Scheme == "spiffe" {
			a.TrustDomain = u.Host
		}
	}
	return a, nil
}

// Request is what a certificate is to be for.
type Request struct {
	ID         string // SPIFFE ID; "" where URIs has it, or there is to be none
	CommonName string
	DNSNames   []string
	Addresses  []net.IP
	URIs       []*url.URL
	TTL        time.Duration
}

// SPIFFEID is the ID of a service account in Istio's form.
func SPIFFEID(trustDomain, namespace, serviceAccount string) (string, error) {
	if err := mesh.CheckTrustDomain(trustDomain); err != nil {
		return "", err
	}
	for _, part := range []string{namespace, serviceAccount} {
		if strings.ContainsFunc(part, func(c rune) bool { return !pathRune(c) }) || strings.Trim(part, ".") == "" {
			return "", fmt.Errorf("%q cannot be part of a SPIFFE ID: it has letters, digits, dots, dashes and underscores", part)
		}
	}
	return "spiffe://" + trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount, nil
}

// pathRune reports whether a segment of a SPIFFE ID's path may have a rune
// (SPIFFE ID 2.2).
func pathRune(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

// Issue issues a certificate with a new key and writes both into the
// authority's folder, as tls.crt and tls.key. Each replaces the one before at
// once, the key first: a reader that gets the new key with the old certificate
// finds that they do not fit, and looks again.
func (a *Authority) Issue(r Request) (*x509.Certificate, error) {
	uris := r.URIs
	if r.ID != "" {
		u, err := url.Parse(r.ID)
		if err != nil {
			return nil, err
		}
		if a.TrustDomain != "" && u.Host != a.TrustDomain {
			return nil, fmt.Errorf("the authority in %s speaks for trust domain %s, not %s: make another one with isthmus certs init --dir DIR --trust-domain %s", a.dir, a.TrustDomain, u.Host, u.Host)
		}
		uris = append([]*url.URL{u}, uris...)
	}
	if r.TTL <= 0 {
		return nil, errors.New("--ttl must be more than 0")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	end := now.Add(r.TTL)
	if end.After(a.certificate.NotAfter) {
		end = a.certificate.NotAfter // it would be worth nothing afterwards
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: r.CommonName},
		NotBefore:             now.Add(-backdated),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              r.DNSNames,
		IPAddresses:           r.Addresses,
		URIs:                  uris,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	if err := writePair(a.dir, "tls", der, key); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newSerial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // positive, and 20 bytes at most (RFC 5280 4.1.2.2)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

// writePair writes NAME.key and NAME.crt.
func writePair(dir, name string, der []byte, key *ecdsa.PrivateKey) error {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// replaceFile writes a file that nobody ever sees in part.
func replaceFile(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err = errors.Join(f.Chmod(mode), writeAll(f, data), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeAll(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return err
}
