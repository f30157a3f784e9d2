// Package tls reads a proxy's identity: its certificate and key, and the roots
// it trusts, as files in PEM, the way cert-manager and Kubernetes lay Secrets
// out.
//
// An identity is the SPIFFE ID in the certificate and nothing else
// (spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT). Whatever is missing,
// garbled or out of date is an error: there is no degraded mode.
package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Identity is who a proxy is, and whom it believes.
type Identity struct {
	Certificate stdtls.Certificate // with its chain and key
	Roots       *x509.CertPool     // never nil, never empty
	ID          string             // "spiffe://cluster.local/ns/production/sa/user-service"
	NotAfter    time.Time          // the earliest end of the certificate and its chain
}

// Load reads an identity from files: a certificate with its chain, its key, and
// one or more roots.
func Load(certFile, keyFile, caFile string) (*Identity, error) {
	for _, f := range []struct{ name, path string }{{"cert", certFile}, {"key", keyFile}, {"ca", caFile}} {
		if f.path == "" {
			return nil, fmt.Errorf("certificates.%s is missing: cert, key and ca belong together", f.name)
		}
	}
	var id Identity
	var err error
	if id.Certificate, err = stdtls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	if id.Roots, err = loadRoots(caFile); err != nil {
		return nil, err
	}
	intermediates := x509.NewCertPool()
	for i, der := range id.Certificate.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", certFile, err)
		}
		if i > 0 {
			intermediates.AddCert(c)
		}
		if id.NotAfter.IsZero() || c.NotAfter.Before(id.NotAfter) {
			id.NotAfter = c.NotAfter
		}
	}
	leaf := id.Certificate.Leaf
	if id.ID, err = SPIFFE(leaf); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	// Our own roots must believe us, or no other proxy will.
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: id.Roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("certificate %s is not one that %s vouches for: %w", certFile, caFile, err)
	}
	return &id, nil
}

// loadRoots reads every certificate of a file. One that cannot be read spoils
// all: a root that is silently left out would be found out by an outage.
func loadRoots(file string) (*x509.CertPool, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	pool, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("roots: %s holds a %s that is no certificate: %w", file, block.Type, errors.Join(err))
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("roots: %s is not all certificates in PEM", file)
	}
	return pool, nil
}

// SPIFFE returns the SPIFFE ID of a certificate: its only URI name (X.509-SVID
// 2), which must name a workload of a trust domain.
func SPIFFE(c *x509.Certificate) (string, error) {
	switch len(c.URIs) {
	case 0:
		return "", errors.New("it has no URI name, so no SPIFFE ID: issue it with spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")
	case 1:
	default:
		return "", fmt.Errorf("it has %d URI names: a SPIFFE ID is the only one", len(c.URIs))
	}
	u := c.URIs[0]
	if u.Scheme != "spiffe" || u.Host == "" || u.Port() != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(u.Path) < 2 {
		return "", fmt.Errorf("%q is no SPIFFE ID of a workload", u)
	}
	return u.String(), nil
}
