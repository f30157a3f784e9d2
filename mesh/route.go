package mesh

import (
	"regexp"
	"slices"
	"time"
)

// Gateway is Istio's Gateway: the ports that gateway proxies open, and the
// hosts that may be served there.
type Gateway struct {
	Meta
	Selector map[string]string // labels of the gateway proxies; empty: all
	Servers  []GatewayServer
}

// GatewayServer is one server of a Gateway.
type GatewayServer struct {
	Name  string
	Port  Port
	Bind  string
	Hosts []GatewayHost
	TLS   bool // the port speaks TLS

	// Passthrough does not terminate TLS: connections are told apart by SNI (tls
	// mode PASSTHROUGH).
	Passthrough bool

	// AutoPassthrough passes mTLS between proxies on to the services of the own
	// cluster that its server name says, without a VirtualService.
	AutoPassthrough bool

	Terminate *ServerTLS // nil: TLS is not terminated

	Source Source

	// HTTPSRedirect answers every plain HTTP request with a 301 to https
	// (Server.tls.httpsRedirect).
	HTTPSRedirect bool
}

// Serves reports whether a host name lies under one of the server's hosts.
func (s *GatewayServer) Serves(name string) bool {
	return slices.ContainsFunc(s.Hosts, func(h GatewayHost) bool { return MatchHost(h.Host, name) })
}

// GatewayHost is one "[namespace/]host" of a server. Namespace is "*" where
// the file gave none; "." has been replaced by the Gateway's namespace.
type GatewayHost struct {
	Namespace string
	Host      string // exact, "*.suffix" or "*"
}

// MeshGateway is the reserved name in VirtualService.gateways that means the
// sidecars of the mesh.
const MeshGateway = "mesh"

// VirtualService is Istio's VirtualService.
type VirtualService struct {
	Meta
	Hosts    []string // lower case, short names made full; none for a delegate
	Gateways []string // "mesh" or "namespace/name"; never empty
	HTTP     []*HTTPRoute
	TLS, TCP []*TCPRoute
	ExportTo []string

	// Standby is the annotation isthmus.io/standby: whether destinations of
	// weight 0 serve when no other can. Nil: only those on another cluster's name
	// of the same service.
	Standby *bool

	// Priority is the annotation isthmus.io/priority: how important its requests
	// are where there is no room for all.
	Priority Priority
}

// HTTPRoute is one rule: if any of Match fits (or there is none), the rule
// decides. Exactly one of Route, Redirect, DirectResponse, Delegate is set.
type HTTPRoute struct {
	Name   string
	Source Source
	Match  []*HTTPMatch

	Route          []RouteDestination
	Redirect       *Redirect
	DirectResponse *DirectResponse
	Delegate       *Delegate

	Rewrite *Rewrite
	Timeout time.Duration // of the whole exchange, retries included; 0: none
	Timed   bool          // the rule says Timeout itself
	Retries *Retries      // nil: [DefaultRetries]
	Headers HeaderRules
	Fault   *Fault // nil: none
	CORS    *CORS  // nil: none
	Mirrors []Mirror
}

// HTTPMatch is one set of conditions, all of which must hold.
type HTTPMatch struct {
	Name           string
	Source         Source
	URI            *StringMatch // of the path, without the query
	Scheme         *StringMatch
	Method         *StringMatch
	Authority      *StringMatch
	Headers        []NamedMatch
	WithoutHeaders []NamedMatch
	QueryParams    []NamedMatch
	IgnoreURICase  bool // URI exact and prefix only
	ProxyMatch
}

// ProxyMatch is conditions on the proxy rather than on what it gets.
type ProxyMatch struct {
	Port            uint32 // of the listener; 0: any
	SourceLabels    map[string]string
	SourceNamespace string
	Gateways        []string // wins over VirtualService.Gateways; SourceLabels are then not looked at
}

// MatchKind is how a [StringMatch] compares.
type MatchKind uint8

// The kinds of StringMatch. MatchPresent is the empty StringMatch.
const (
	MatchExact MatchKind = iota
	MatchPrefix
	MatchRegex
	MatchPresent
)

// StringMatch is Istio's StringMatch. Regex is RE2 and matches in full, not
// anywhere within the text.
type StringMatch struct {
	Kind  MatchKind
	Value string
	Regex *Pattern // only of MatchRegex
}

// NamedMatch is a StringMatch on a header (name in lower case), a query parameter, or,
// where headers stand, on what a request's token says: then one of the claim's texts
// has to fit (Istio: routing by claims of a JWT, at gateways).
type NamedMatch struct {
	Name  string
	Claim []string // the path of names that leads to the claim; nil: it is on none
	StringMatch
}

// Destination names where a request may go.
type Destination struct {
	Host   string // lower case, short names made full
	Subset string
	Port   uint32 // 0: the service's port of the listener's protocol, or its only one
}

// RouteDestination is a destination with its share.
type RouteDestination struct {
	Destination
	Weight  uint32
	Headers HeaderRules
	Source  Source
}

// HeaderRules are the header operations of a route or a destination.
type HeaderRules struct {
	Request, Response HeaderOps
}

// Empty reports whether the rules do nothing.
func (r *HeaderRules) Empty() bool { return r.Request.Empty() && r.Response.Empty() }

// HeaderOps change headers: Remove first, then Set, then Add. Names are in
// lower case. Set of "host" or ":authority" on a request rewrites the
// authority.
type HeaderOps struct {
	Set, Add []NameValue // sorted by name
	Remove   []string
}

// Empty reports whether there is nothing to do.
func (o *HeaderOps) Empty() bool { return len(o.Set) == 0 && len(o.Add) == 0 && len(o.Remove) == 0 }

// NameValue is a header to set or add.
type NameValue struct{ Name, Value string }

// Redirect is Istio's HTTPRedirect.
type Redirect struct {
	URI          string // replaces path; "" keeps it
	PrefixURI    string // replaces the matched prefix ("%PREFIX()%" form); "" if unused
	Authority    string
	Scheme       string
	Port         uint32 // 0: none named
	RequestPort  bool   // derivePort FROM_REQUEST_PORT
	ProtocolPort bool   // derivePort FROM_PROTOCOL_DEFAULT
	Code         int    // 301, 302, 303, 307, 308; default 301
}

// Rewrite is Istio's HTTPRewrite. URI replaces the matched prefix, which is "/"
// where the match asks for no path, or the whole path where the match was exact or
// a regular expression.
type Rewrite struct {
	URI          string
	HasURI       bool
	Authority    string
	Regex        *regexp.Regexp // uriRegexRewrite.match, searched in the path
	Substitution string         // in Go's form, "${1}" for "\1"
}

// Path reports whether it is about the path.
func (r *Rewrite) Path() bool { return r.HasURI || r.Regex != nil }

// DirectResponse is Istio's HTTPDirectResponse.
type DirectResponse struct {
	Status int
	Body   []byte
}
