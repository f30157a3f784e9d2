package mesh

import (
	"fmt"
	"strings"
)

// Identity is a SPIFFE ID of Istio's shape,
// spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT.
type Identity struct{ TrustDomain, Namespace, ServiceAccount string }

// ParseIdentity takes a SPIFFE ID apart; ok is false if it has another shape.
func ParseIdentity(id string) (i Identity, ok bool) {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return i, false
	}
	i.TrustDomain, rest, _ = strings.Cut(rest, "/ns/")
	i.Namespace, i.ServiceAccount, ok = strings.Cut(rest, "/sa/")
	bad := func(s string) bool { return s == "" || strings.Contains(s, "/") }
	if !ok || bad(i.TrustDomain) || bad(i.Namespace) || bad(i.ServiceAccount) {
		return Identity{}, false
	}
	return i, true
}

// String returns the SPIFFE ID.
func (i Identity) String() string {
	return "spiffe://" + i.TrustDomain + "/ns/" + i.Namespace + "/sa/" + i.ServiceAccount
}

// CheckTrustDomain refuses what is none (SPIFFE ID 2.1).
func CheckTrustDomain(s string) error {
	bad := func(c rune) bool {
		return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_')
	}
	if s == "" || len(s) > 255 || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("%q is no trust domain: it has lower-case letters, digits, dots, dashes and underscores", s)
	}
	return nil
}
