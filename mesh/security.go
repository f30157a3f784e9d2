package mesh

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MTLSMode says whether a workload takes plain text, mTLS or both
// (PeerAuthentication.mtls.mode).
type MTLSMode uint8

// The modes. MTLSUnset inherits; where nothing is set, MTLSPermissive holds.
const (
	MTLSUnset MTLSMode = iota
	MTLSDisable
	MTLSPermissive
	MTLSStrict
)

// String returns Istio's spelling.
func (m MTLSMode) String() string {
	return [...]string{"UNSET", "DISABLE", "PERMISSIVE", "STRICT"}[m]
}

// PeerAuthentication is Istio's PeerAuthentication.
type PeerAuthentication struct {
	Meta
	Selector map[string]string // empty: every workload of the namespace, or of the mesh
	Mode     MTLSMode
	Ports    map[uint32]MTLSMode // by the workload's port
}

// PeerMode is what holds for one workload.
type PeerMode struct {
	Mode   MTLSMode // never unset
	Source Source   // of the policy that says so; the zero value: none does
	ports  map[uint32]portMode
}

type portMode struct {
	mode   MTLSMode
	source Source
}

// Varies reports whether any port has a mode of its own.
func (m *PeerMode) Varies() bool { return len(m.ports) > 0 }

// Port returns what holds for a port of the workload, and the policy that says so.
func (m *PeerMode) Port(port uint32) (MTLSMode, Source) {
	if p, ok := m.ports[port]; ok {
		return p.mode, p.source
	}
	return m.Mode, m.Source
}

// Strict reports whether the policy at a source asks for mTLS.
func (m *PeerMode) Strict(source Source) bool {
	if m.Mode == MTLSStrict && m.Source == source {
		return true
	}
	for _, p := range m.ports {
		if p.mode == MTLSStrict && p.source == source {
			return true
		}
	}
	return false
}

// StrictEverywhere reports whether no port takes plain text.
func (m *PeerMode) StrictEverywhere() bool {
	for _, p := range m.ports {
		if p.mode != MTLSStrict {
			return false
		}
	}
	return m.Mode == MTLSStrict
}

// PeerModeOf puts the policies for a workload together: the mesh's, the
// namespace's, then the workload's, each of which wins over those before it where
// it says something (Istio: ComposePeerAuthentication). Of several of one level
// the first by source counts. A policy of the root namespace with a selector is
// for such workloads of every namespace, as Istio's documentation has it, and
// gives way to one of the workload's own namespace.
func PeerModeOf(policies []*PeerAuthentication, rootNamespace, namespace string, labels map[string]string) PeerMode {
	const levels = 4
	var chosen [levels]*PeerAuthentication
	for _, p := range policies {
		level := 0
		switch {
		case len(p.Selector) == 0 && p.Namespace == rootNamespace:
		case len(p.Selector) == 0 && p.Namespace == namespace:
			level = 1
		case len(p.Selector) == 0 || !MatchLabels(p.Selector, labels):
			continue
		case p.Namespace == namespace:
			level = 3
		case p.Namespace == rootNamespace:
			level = 2
		default:
			continue
		}
		if chosen[level] == nil || p.Source.Before(chosen[level].Source) {
			chosen[level] = p
		}
	}
	m := PeerMode{Mode: MTLSPermissive}
	for level, p := range chosen {
		if p == nil {
			continue
		}
		if p.Mode != MTLSUnset {
			m.Mode, m.Source = p.Mode, p.Source
		}
		if level < 2 {
			continue // ports are a workload's
		}
		m.ports = map[uint32]portMode{}
		for port, mode := range p.Ports {
			if mode != MTLSUnset {
				m.ports[port] = portMode{mode, p.Source}
			}
		}
	}
	return m
}

// RequestAuthentication is Istio's RequestAuthentication: which tokens are
// believed.
type RequestAuthentication struct {
	Meta
	Selector map[string]string
	Rules    []*TokenRule
}

// TokenRule is how tokens of one issuer are found and judged (Istio's JWTRule).
type TokenRule struct {
	Source    Source
	Issuer    string   // exactly as in the token
	Audiences []string // one of them has to be in the token; empty: whatever is
	KeysURI   string   // of the key set; "": by discovery from Issuer, unless there are Keys
	Keys      []byte   // a key set in JSON

	// Where tokens are looked for. All empty: "Authorization: Bearer", then the
	// parameter access_token.
	Headers []TokenHeader
	Params  []string
	Cookies []string

	Forward       bool          // the token is sent on; else its header or parameter is taken off
	PayloadHeader string        // gets the payload, base64url; "": none
	ClaimHeaders  []ClaimHeader // get single claims
	Spaced        []string      // claims of words between spaces, beside scope and permission
	Timeout       time.Duration // for the key set
}

// TokenHeader is a header with a token behind a prefix.
type TokenHeader struct{ Name, Prefix string }

// ClaimHeader is a header that gets a claim, which may be nested: "a.b".
type ClaimHeader struct{ Header, Claim string }

// Action is what an AuthorizationPolicy does with what it matches.
type Action uint8

// The actions.
const (
	ActionAllow Action = iota
	ActionDeny
	ActionAudit
	ActionCustom
)

// String returns Istio's spelling.
func (a Action) String() string { return [...]string{"ALLOW", "DENY", "AUDIT", "CUSTOM"}[a] }

// AuthorizationPolicy is Istio's AuthorizationPolicy.
type AuthorizationPolicy struct {
	Meta
	Selector map[string]string
	Action   Action
	Provider string // of ActionCustom, by its name in extensionProviders
	DryRun   bool   // decides nothing; what it would have decided is counted
	Rules    []*AuthorizationRule
}

// AuthorizationRule matches a request if one of From, one of To, and all of When
// do; each of them, if empty, does.
type AuthorizationRule struct {
	Source Source
	From   []PeerMatch
	To     []OperationMatch
	When   []Condition
}

// Values is one field and its negation: one of In, if there are any, and none of
// NotIn.
type Values struct{ In, NotIn []string }

// IsZero reports whether nothing is asked for.
func (v Values) IsZero() bool { return len(v.In)+len(v.NotIn) == 0 }

// Blocks is the same for addresses.
type Blocks struct{ In, NotIn []netip.Prefix }

// IsZero reports whether nothing is asked for.
func (b Blocks) IsZero() bool { return len(b.In)+len(b.NotIn) == 0 }

// PeerMatch says who calls (Istio's Source). Every field has to fit.
type PeerMatch struct {
	Principals        Values // "td/ns/x/sa/y"; "*", "abc*" and "*abc" are possible
	RequestPrincipals Values // "issuer/subject", likewise
	Namespaces        Values // likewise
	ServiceAccounts   Values // "namespace/name", whole
	TrustDomains      Values // as Principals
	IPBlocks          Blocks // of the peer
	RemoteIPBlocks    Blocks // of the client, by x-forwarded-for as far as it is believed
}

// OperationMatch says what is asked for. Every field has to fit.
type OperationMatch struct {
	Hosts, Ports, Methods, Paths Values
}

// Condition is one of a rule's when.
type Condition struct {
	Source Source
	Key    ConditionKey
	Name   string   // of a header
	Claims []string // the path to a claim
	Values Values
	Blocks Blocks // of the keys that are about addresses
}

// ConditionKey is what a Condition is about.
type ConditionKey uint8

// The keys of conditions.
const (
	KeyHeader               ConditionKey = iota // request.headers[name]
	KeySourceIP                                 // source.ip
	KeyRemoteIP                                 // remote.ip
	KeySourceNamespace                          // source.namespace
	KeySourcePrincipal                          // source.principal
	KeySourceServiceAccount                     // source.serviceAccount
	KeySourceTrustDomain                        // source.trustDomain
	KeyRequestPrincipal                         // request.auth.principal
	KeyAudiences                                // request.auth.audiences
	KeyPresenter                                // request.auth.presenter
	KeyClaims                                   // request.auth.claims[a][b]
	KeyDestinationIP                            // destination.ip
	KeyDestinationPort                          // destination.port
	KeySNI                                      // connection.sni
)

// KeyText is the key as Istio writes it.
func (c *Condition) KeyText() string {
	switch c.Key {
	case KeyHeader:
		return "request.headers[" + c.Name + "]"
	case KeyClaims:
		return "request.auth.claims[" + strings.Join(c.Claims, "][") + "]"
	}
	for text, key := range ConditionKeys {
		if key == c.Key {
			return text
		}
	}
	return ""
}

// ConditionKeys are the keys of conditions that have no name in them.
var ConditionKeys = map[string]ConditionKey{
	"source.ip": KeySourceIP, "remote.ip": KeyRemoteIP,
	"source.namespace": KeySourceNamespace, "source.principal": KeySourcePrincipal,
	"source.serviceAccount": KeySourceServiceAccount, "source.trustDomain": KeySourceTrustDomain,
	"request.auth.principal": KeyRequestPrincipal, "request.auth.audiences": KeyAudiences, "request.auth.presenter": KeyPresenter,
	"destination.ip": KeyDestinationIP, "destination.port": KeyDestinationPort, "connection.sni": KeySNI,
}

// PathNormalization is what is done to paths before they are judged, matched and
// sent on, beyond what always is (meshConfig pathNormalization).
type PathNormalization uint8

// The choices of PathNormalization.
const (
	PathsBase        PathNormalization = iota // BASE: dot segments, backslashes
	PathsMerged                               // MERGE_SLASHES: "//" is "/"
	PathsDecodedOnce                          // DECODE_AND_MERGE_SLASHES: %2F and %5C are slashes, too
)

// AuthorizationProvider is one of the mesh configuration's extensionProviders
// that CUSTOM policies ask (Istio's EnvoyExternalAuthorizationHttpProvider and
// EnvoyExternalAuthorizationGrpcProvider).
type AuthorizationProvider struct {
	Name          string
	Source        Source
	GRPC          bool
	Service       string // host, or "namespace/host"
	Port          uint32
	Timeout       time.Duration
	FailOpen      bool
	StatusOnError int // 403 by default

	// Of HTTP alone. Names of headers may be exact, "abc*" or "*abc".
	PathPrefix        string
	RequestHeaders    []string    // of the request, that are sent along, beside authorization
	AddedHeaders      []NameValue // that are sent besides
	UpstreamOnAllow   []string    // of the answer, that the request gets
	DownstreamOnDeny  []string    // of the answer, that the client gets
	DownstreamOnAllow []string    // likewise
	Body              uint32      // how many bytes of the request's body are sent along; 0: none
	BodyPartial       bool        // a longer body is sent in part; else it is a 413
	BodyAsBytes       bool        // gRPC: in raw_body
}

// AppliesTo reports whether a policy with a selector holds for a node: one of its
// namespace, or of the root namespace.
func (n *Node) AppliesTo(m *Meta, selector map[string]string) bool {
	return (m.Namespace == n.Namespace || m.Namespace == n.RootNamespace) && MatchLabels(selector, n.Labels)
}

// AuthorizationOf returns the policies for a node, in order of their source.
func AuthorizationOf(n *Node, list []*AuthorizationPolicy) []*AuthorizationPolicy {
	var out []*AuthorizationPolicy
	for _, p := range list {
		if n.AppliesTo(&p.Meta, p.Selector) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *AuthorizationPolicy) int { return compareSource(a.Source, b.Source) })
	return out
}

// TokenRulesOf returns the rules of all RequestAuthentications for a node, in
// order of their source: they add up.
func TokenRulesOf(n *Node, list []*RequestAuthentication) []*TokenRule {
	var out []*TokenRule
	for _, r := range list {
		if n.AppliesTo(&r.Meta, r.Selector) {
			out = append(out, r.Rules...)
		}
	}
	slices.SortStableFunc(out, func(a, b *TokenRule) int {
		return cmp.Or(compareSource(a.Source, b.Source), cmp.Compare(a.Issuer, b.Issuer))
	})
	return out
}
