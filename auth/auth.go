// Package auth answers whether a request may be made: by whom it is (tokens, of
// RequestAuthentication), and by what the AuthorizationPolicies for this proxy
// say of callers and requests.
//
// [Rules] are the policies, compiled for one node; [Tokens] judge tokens, whose
// key sets [Keys] keeps. None of them knows connections: the data plane says who the
// peer is, from its certificate. Authorization services are asked by package extauthz.
package auth

import (
	"fmt"
	"net/netip"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// Peer is who a connection is from: the identity in its certificate. The zero
// value is nobody, as in plain text.
type Peer struct {
	Principal      string // the SPIFFE ID without "spiffe://", as policies name it
	Namespace      string
	ServiceAccount string // "namespace/name"
	TrustDomain    string
}

// PeerOf takes a SPIFFE ID apart; "" is nobody.
func PeerOf(id string) Peer {
	p := Peer{Principal: strings.TrimPrefix(id, "spiffe://")}
	p.TrustDomain, _, _ = strings.Cut(p.Principal, "/")
	if i, ok := mesh.ParseIdentity(id); ok {
		p.Namespace, p.ServiceAccount = i.Namespace, i.Namespace+"/"+i.ServiceAccount
	}
	return p
}

// Request is what policies judge. Its slices only have to hold while they do.
type Request struct {
	HTTP   *http1.Request // nil: a connection whose bytes are passed on
	Path   []byte         // normalised, without the query: what is sent on
	Peer   *Peer          // never nil
	Claims *Claims        // of a verified token; nil: there is none

	Source      netip.Addr // of the connection
	Remote      netip.Addr // the client, by x-forwarded-for as far as it is believed
	Destination netip.Addr
	Forwarded   []byte // x-forwarded-for, where it is not as it came; nil: it is
	Port        uint32 // of the destination: the workload's at a sidecar, the Gateway's at a gateway
	SNI         string

	Audited *mesh.AuthorizationPolicy // found by Rules.Check: one of action AUDIT that fits; nil: none does
}

// caller is whom the token is about; "" without one.
func (q *Request) caller() string {
	if q.Claims == nil {
		return ""
	}
	return q.Claims.Principal
}

// Refusal is why a request may not be made: the policy that forbids it, or the
// one that came nearest to allowing it.
type Refusal struct {
	Policy *mesh.AuthorizationPolicy // nil: nothing came near
	Rule   int                       // counted from 0; -1: the policy has none
	Field  string                    // of the rule that did not fit; "": it forbids
}

// Error says what an operator wants to know: which policy and rule, where they
// stand, and what did not fit.
func (r *Refusal) Error() string {
	switch {
	case r.Policy == nil:
		return "no AuthorizationPolicy allows it"
	case r.Rule < 0:
		return fmt.Sprintf("%s (%s) allows nothing", r.Policy.Meta, r.Policy.Source)
	}
	rule := fmt.Sprintf("%s rules[%d] (%s)", r.Policy.Meta, r.Rule, r.Policy.Rules[r.Rule].Source)
	if r.Field == "" {
		return rule + " forbids it"
	}
	return "no AuthorizationPolicy allows it; nearest is " + rule + ", but for " + r.Field
}
