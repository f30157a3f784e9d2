package mesh

import "time"

// FilterScope says of which proxies' requests a patch of an EnvoyFilter
// speaks. Every mesh value that a patch makes embeds it.
type FilterScope struct {
	Meta
	Selector map[string]string // workloadSelector; nil: every proxy the patch is visible to

	// Which listeners: SIDECAR_INBOUND, SIDECAR_OUTBOUND, GATEWAY.
	Inbound, Outbound, Gateway bool

	Port uint32 // of the listener, as Envoy has it; 0: any
}

// AppliesTo reports whether a proxy has the patch: those of the root namespace
// are for all, others for their own (Istio: EnvoyFilter).
func (s *FilterScope) AppliesTo(n *Node) bool {
	return (s.Namespace == n.RootNamespace || s.Namespace == n.Namespace) && MatchLabels(s.Selector, n.Labels)
}

// Shares reports whether two patches speak of one kind of listener.
func (s *FilterScope) Shares(t *FilterScope) bool {
	return s.Inbound && t.Inbound || s.Outbound && t.Outbound || s.Gateway && t.Gateway
}

// RateLimitFilter is a rate limit in the chain of a listener: exactly one of
// Local and Global is set.
type RateLimitFilter struct {
	FilterScope
	Filter   string // its name in the chain, by which typed_per_filter_config speaks of it
	First    bool   // INSERT_FIRST
	Priority int32  // of the EnvoyFilter
	Local    *LocalRateLimit
	Global   *GlobalRateLimit
}

// Bucket says how a token bucket is filled.
type Bucket struct {
	MaxTokens     uint32 // also what it holds at first
	TokensPerFill uint32
	FillInterval  time.Duration // at least 50 ms
}

// LocalRateLimit is envoy.extensions.filters.http.local_ratelimit.v3, of a
// listener or of a route.
type LocalRateLimit struct {
	StatPrefix  string
	Bucket      *Bucket // nil: nothing is limited but by Descriptors
	Descriptors []BucketDescriptor
	Stage       uint32
	Status      int      // of a refusal; default 429
	Enabled     Fraction // how many requests are counted
	Enforced    Fraction // how many of those are refused when there is no token

	PerConnection     bool   // buckets of their own for each downstream connection
	Headers           bool   // x-ratelimit-limit, -remaining, -reset
	ResourceExhausted bool   // gRPC callers get RESOURCE_EXHAUSTED, not UNAVAILABLE
	DescriptorsOnly   bool   // a request that meets a descriptor takes no token of Bucket
	MaxDynamic        uint32 // how many buckets a wildcard descriptor has at most; default 20

	Response    []NameValue // fields of a refusal
	NotEnforced []NameValue // fields of a request that would have been refused

	Actions     []*RateLimitAction // descriptors of its own, in the place of the route's
	VirtualHost VirtualHostLimits
	Source      Source
}

// BucketDescriptor gives requests with a descriptor a bucket of their own. An
// empty value is a wildcard: a bucket for each value.
type BucketDescriptor struct {
	Entries []DescriptorEntry
	Bucket  Bucket
	Shadow  bool // count only
}

// DescriptorEntry is a part of what a request is counted by.
type DescriptorEntry struct{ Key, Value string }

// VirtualHostLimits says when the actions of a virtual host hold beside those
// of its routes (vh_rate_limits).
type VirtualHostLimits uint8

// The settings of vh_rate_limits.
const (
	VirtualHostOverride VirtualHostLimits = iota // where the route has none
	VirtualHostInclude                           // always
	VirtualHostIgnore                            // never
)

// GlobalRateLimit is envoy.extensions.filters.http.ratelimit.v3: what a rate
// limit service is asked.
type GlobalRateLimit struct {
	StatPrefix string
	Domain     string
	Stage      uint32
	Cluster    string // of the service, as Envoy names it
	Authority  string
	Timeout    time.Duration // of a call; 0: none
	Requests   RequestOrigin
	Enabled    Fraction // of how many requests the service is asked
	Enforced   Fraction // how many of its refusals count

	FailureDeny       Fraction // how many requests are refused when there is no answer
	StatusOnError     int      // of those; default 500
	Status            int      // of a refusal; default 429
	NoLimitedHeader   bool     // no x-envoy-ratelimited
	Headers           bool     // x-ratelimit-limit, -remaining, -reset
	ResourceExhausted bool     // gRPC callers get RESOURCE_EXHAUSTED, not UNAVAILABLE

	Response []NameValue        // fields of a refusal
	Actions  []*RateLimitAction // in the place of the routes'
	Source   Source
}

// RequestOrigin says which requests a service is asked about (request_type).
type RequestOrigin uint8

// The settings of request_type. Requests at gateways are external, others
// internal.
const (
	AllRequestOrigins RequestOrigin = iota
	InternalRequests
	ExternalRequests
)

// RateLimitAction is one item of rate_limits: it makes a descriptor of a
// request, or none.
type RateLimitAction struct {
	Stage uint32
	Parts []DescriptorPart
	Hits  uint32 // how many requests one counts as; 0: it is only asked whether there is room
	// HitsHeader is the header that says how many it counts as; "": Hits does.
	HitsHeader string
	Source     Source
}

// PartKind is what a [DescriptorPart] takes of a request.
type PartKind uint8

// The kinds of parts: Envoy's RateLimit.Action.
const (
	PartSourceCluster PartKind = iota
	PartDestinationCluster
	PartHeader
	PartQueryParameter
	PartRemoteAddress
	PartMaskedAddress
	PartGeneric
	PartHeaderMatch
	PartQueryMatch
	PartClaim   // metadata of a token, as jwt_authn leaves it
	PartNothing // what no request has here
)

// DescriptorPart makes one entry of a descriptor. If it makes none the whole
// descriptor is not, unless SkipIfAbsent.
type DescriptorPart struct {
	Kind          PartKind
	Key, Value    string // of the entry; Value where the request does not say it
	Default       string // of what the request does not have; "": none
	Name          string // of the header or parameter, the header in lower case
	SkipIfAbsent  bool
	Bits4, Bits6  uint8 // of a masked address
	ExpectNoMatch bool  // the matches must not all hold
	Headers       []HeaderCondition
	Query         []NamedMatch
	Path          []string // of a claim
}

// HeaderCondition is Envoy's HeaderMatcher.
type HeaderCondition struct {
	NamedMatch
	Range         *[2]int64 // in the place of StringMatch: a whole number from, and below
	Invert        bool
	AbsentIsEmpty bool // treat_missing_header_as_empty
	Absent        bool // in the place of StringMatch: it must not be there
}

// LimitUnit is the span in which a limit counts.
type LimitUnit uint8

// The units, numbered as envoy.service.ratelimit.v3 numbers them.
const (
	UnitUnknown LimitUnit = iota
	UnitSecond
	UnitMinute
	UnitHour
	UnitDay
	UnitMonth
	UnitYear
	UnitWeek
)

var unitNames = [...]string{"unknown", "second", "minute", "hour", "day", "month", "year", "week"}

// String returns the unit in lower case.
func (u LimitUnit) String() string {
	if int(u) < len(unitNames) {
		return unitNames[u]
	}
	return unitNames[0]
}

// Span is how long the unit is; a month has 30 days, and a year 365, as in the
// rate limit service.
func (u LimitUnit) Span() time.Duration {
	const day = 24 * time.Hour
	return [...]time.Duration{0, time.Second, time.Minute, time.Hour, day, 30 * day, 365 * day, 7 * day}[u]
}

// LimitUnitOf returns a unit by its name in lower case.
func LimitUnitOf(name string) (LimitUnit, bool) {
	for i, n := range unitNames {
		if n == name && i > 0 {
			return LimitUnit(i), true
		}
	}
	return UnitUnknown, false
}

// RoutePatch is what an EnvoyFilter adds to virtual hosts or routes: actions,
// and settings of filters.
type RoutePatch struct {
	FilterScope
	Priority int32
	Routes   bool // of routes (HTTP_ROUTE), not of virtual hosts

	// Which of them; empty: any.
	RouteConfig, VirtualHost, Domain, Route, GatewayName string
	Action                                               RouteKind

	Actions            []*RateLimitAction
	IncludeVirtualHost bool                       // include_vh_rate_limits
	Local              map[string]*LocalRateLimit // by the filter's name
	Global             map[string]*GlobalOverride
}

// RouteKind says what routes do that a patch is for.
type RouteKind uint8

// The settings of RouteMatch.action.
const (
	AnyRoute RouteKind = iota
	ForwardingRoute
	RedirectRoute
	DirectRoute
)

// GlobalOverride is RateLimitPerRoute: settings of a global rate limit for a
// virtual host or a route.
type GlobalOverride struct {
	VirtualHost VirtualHostLimits
	Domain      string // "": the filter's
	Actions     []*RateLimitAction
}

// HelperCluster is a CLUSTER patch: where a helper service is.
type HelperCluster struct {
	FilterScope
	Cluster   string   // its name
	Addresses []string // host:port
	Timeout   time.Duration
}

// LimitDomain is one domain of the rate limit service's own configuration.
type LimitDomain struct {
	Domain      string
	Descriptors []*LimitRule
}

// LimitRule is a node of the tree that descriptors are looked up in.
type LimitRule struct {
	Key, Value string // a Value of "" matches any, one with a * at its end any that begins so
	Limit      *ServiceLimit
	Shadow     bool // shadow_mode: count only
	Children   []*LimitRule
	Source     Source
}

// ServiceLimit is rate_limit of the service's configuration.
type ServiceLimit struct {
	Name      string
	Unlimited bool
	Requests  uint32
	Unit      LimitUnit
}
