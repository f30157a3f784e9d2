package mesh

import (
	"net/netip"
	"net/url"
	"time"
)

// Certificate is cert-manager's Certificate: what a certificate is to be for.
type Certificate struct {
	Meta
	CommonName string
	DNSNames   []string
	Addresses  []netip.Addr
	URIs       []*url.URL
	Duration   time.Duration // 0: as whoever issues it likes
	Authority  bool          // isCA: it issues others
}

// Identities returns how many SPIFFE IDs it names. One makes it an identity.
func (c *Certificate) Identities() (n int) {
	for _, u := range c.URIs {
		if u.Scheme == "spiffe" {
			n++
		}
	}
	return n
}
