// Package tls holds what a proxy shows and whom it believes: its own identity
// and the credentials that Gateways and DestinationRules name, from files in PEM,
// the way cert-manager and Kubernetes lay Secrets out. All are read anew when
// they change.
//
// An identity is the SPIFFE ID in the certificate and nothing else
// (spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT). Whatever is missing,
// garbled or out of date is an error: there is no degraded mode. What was good
// before stays in force when files change into something that is not.
//
// Start with [Identity], who a proxy is; [Own] is the one of this proxy over
// time, [Identity.Server] and [Identity.Client] are how proxies speak to each
// other, and [Store] has the credentials.
package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Identity is who a proxy is, and whom it believes. It does not change.
type Identity struct {
	Certificate stdtls.Certificate // with its chain and key
	ID          string             // "spiffe://cluster.local/ns/production/sa/user-service"
	NotBefore   time.Time
	NotAfter    time.Time // the earliest end of the certificate and its chain

	root    *x509.Certificate      // that vouches for it; the one that ends last, if several do
	roots   []*x509.Certificate    // never empty
	domains []spiffeid.TrustDomain // whose identities the roots vouch for, the own one first
	server  atomic.Pointer[stdtls.Config]
}

// Load reads an identity from files: a certificate with its chain, its key, and
// one or more roots. aliases are trust domains, besides the certificate's, whose
// identities the same roots vouch for.
func Load(certFile, keyFile, caFile string, aliases ...string) (*Identity, error) {
	for _, f := range []struct{ name, path string }{{"cert", certFile}, {"key", keyFile}, {"ca", caFile}} {
		if f.path == "" {
			return nil, fmt.Errorf("%s is missing: cert, key and ca belong together", f.name)
		}
	}
	id := &Identity{}
	var err error
	if id.Certificate, err = stdtls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	if id.roots, err = readRoots(caFile); err != nil {
		return nil, err
	}
	chain, err := chainOf(&id.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	if id.NotAfter, err = endOf(&id.Certificate); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	leaf := chain[0]
	id.NotBefore = leaf.NotBefore
	own, err := workloadID(leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w: issue it with spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT as its only URI name", certFile, err)
	}
	id.ID, id.domains = own.String(), []spiffeid.TrustDomain{own.TrustDomain()}
	for _, alias := range aliases {
		d, err := spiffeid.TrustDomainFromString(alias)
		if err != nil {
			return nil, fmt.Errorf("trust domain %q: %w", alias, err)
		}
		id.domains = append(id.domains, d)
	}
	// Our own roots must believe us, or no other proxy will.
	_, ways, err := x509svid.Verify(chain, id)
	if err != nil {
		return nil, fmt.Errorf("certificate %s is not one that %s vouches for: %w", certFile, caFile, err)
	}
	for _, way := range ways {
		if root := way[len(way)-1]; id.root == nil || root.NotAfter.After(id.root.NotAfter) {
			id.root = root
		}
	}
	return id, nil
}

// Claims reports whether a SPIFFE ID is of the trust domains that the roots are
// for.
func (id *Identity) Claims(peer string) bool {
	p, err := spiffeid.FromString(peer)
	return err == nil && slices.Contains(id.domains, p.TrustDomain())
}

// Vouches reports whether the roots vouch for a chain as an identity, now.
func (id *Identity) Vouches(chain []*x509.Certificate) bool {
	_, err := id.verify(chain)
	return err == nil
}

func chainOf(c *stdtls.Certificate) (chain []*x509.Certificate, err error) {
	for _, der := range c.Certificate {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, parsed)
	}
	return chain, nil
}

// endOf is the earliest end of a certificate and its chain.
func endOf(c *stdtls.Certificate) (end time.Time, err error) {
	chain, err := chainOf(c)
	for _, parsed := range chain {
		if end.IsZero() || parsed.NotAfter.Before(end) {
			end = parsed.NotAfter
		}
	}
	return end, err
}

// GetX509BundleForTrustDomain returns the roots for the identities of a trust
// domain: those of the own one and its aliases.
func (id *Identity) GetX509BundleForTrustDomain(d spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if !slices.Contains(id.domains, d) {
		return nil, fmt.Errorf("trust domain %s is foreign", d)
	}
	return x509bundle.FromX509Authorities(d, id.roots), nil
}

// SPIFFE returns the SPIFFE ID of a certificate: its only URI name (X.509-SVID
// 2), which must name a workload of a trust domain.
func SPIFFE(c *x509.Certificate) (string, error) {
	id, err := workloadID(c)
	return id.String(), err
}

func workloadID(c *x509.Certificate) (spiffeid.ID, error) {
	id, err := x509svid.IDFromCert(c)
	if err == nil && id.Path() == "" {
		err = fmt.Errorf("%s names a trust domain and no workload", id)
	}
	return id, err
}

// verify returns the SPIFFE ID of a chain that the roots vouch for, now.
func (id *Identity) verify(chain []*x509.Certificate) (string, error) {
	if _, _, err := x509svid.Verify(chain, id); err != nil {
		return "", err
	}
	return SPIFFE(chain[0])
}

// loadRoots reads every certificate of a file into a pool.
func loadRoots(file string) (*x509.CertPool, error) {
	roots, err := readRoots(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	return pool, nil
}

// readRoots reads every certificate of a file. One that cannot be read spoils
// all: a root that is silently left out would be found out by an outage.
func readRoots(file string) (roots []*x509.Certificate, err error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("roots: %s holds a %s that is no certificate: %w", file, block.Type, errors.Join(err))
		}
		roots = append(roots, c)
	}
	if len(roots) == 0 || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("roots: %s is not all certificates in PEM", file)
	}
	return roots, nil
}
