package mesh

import (
	"reflect"
	"time"
)

// DestinationRule is Istio's DestinationRule.
type DestinationRule struct {
	Meta
	Host     string // lower case, short names made full; "*.suffix" possible
	Policy   TrafficPolicy
	Subsets  []Subset
	ExportTo []string

	// Default says that it is what the mesh configuration has for every host: it stands
	// behind all others, whosever they are.
	Default bool

	// Inbound says that the rule's connectionPool holds for the sidecars of the
	// host too, between each and its application: the annotation
	// isthmus.io/inbound.
	Inbound bool

	// Adaptive bounds how many requests the host has under way by how long they
	// take (isthmus.io/adaptive-concurrency).
	Adaptive bool

	// WorkloadSelector limits the rule to client proxies of its namespace that
	// bear these labels; nil: all.
	WorkloadSelector map[string]string
}

// Subset is a named part of a service's endpoints.
type Subset struct {
	Name   string
	Labels map[string]string
	Policy TrafficPolicy
	Source Source
}

// TrafficPolicy is Istio's TrafficPolicy: blocks, each of which is there or
// not. PortLevel replaces the blocks whole for one port of the service.
type TrafficPolicy struct {
	LoadBalancer     *LoadBalancer
	ConnectionPool   *ConnectionPool
	OutlierDetection *OutlierDetection
	TLS              *ClientTLS
	RetryBudget      *RetryBudget // not at port level
	PortLevel        map[uint32]*TrafficPolicy
}

// Sidecar is what counts here of Istio's Sidecar.
type Sidecar struct {
	Meta
	Selector  map[string]string          // workloadSelector; empty: all of the namespace
	Pool      *ConnectionPool            // inboundConnectionPool
	PortPools map[uint32]*ConnectionPool // ingress[].connectionPool, by the application's port
	Egress    []ScopePattern             // egress[].hosts; nil: its proxies know everything
}

// LoadBalancerKind is the algorithm within a locality.
type LoadBalancerKind uint8

// The algorithms.
const (
	LeastRequest LoadBalancerKind = iota // power of two choices; the default
	RoundRobin
	Random
	PeakEWMA // beyond Istio: the annotation isthmus.io/load-balancer
	RingHash // consistentHash
	Maglev   // consistentHash.maglev
)

// LoadBalancer is trafficPolicy.loadBalancer.
type LoadBalancer struct {
	Kind     LoadBalancerKind
	Hash     *HashPolicy // of RingHash and Maglev
	Warmup   *Warmup     // nil: an endpoint gets its full share at once
	Locality *LocalityLB // nil: the default priorities by locality
	Source   Source
}

// HashPolicy is consistentHash: which part of a request says where it belongs.
// One of the first four is set.
type HashPolicy struct {
	Header     string // httpHeaderName, in lower case; one of PseudoFields, too
	Cookie     *HashCookie
	SourceIP   bool
	QueryParam string

	// TableSize is ringHash.minimumRingSize (default 1024) or maglev.tableSize
	// (a prime; default 65537).
	TableSize uint64
}

// PseudoFields are what HTTP/2 has for the request line, and Envoy for that of HTTP/1.1, too:
// hosts are ":authority", and paths are with their query.
var PseudoFields = []string{":authority", ":method", ":path", ":scheme"}

// HashCookie is consistentHash.httpCookie.
type HashCookie struct {
	Name       string
	Path       string
	Generate   bool          // ttl is set: a request without the cookie gets one
	TTL        time.Duration // 0: for as long as the browser's session
	Attributes []NameValue   // of the generated cookie
}

// Warmup is loadBalancer.warmup: a host that enters service begins with
// MinPercent of its weight and gets all of it after Duration.
type Warmup struct {
	Duration   time.Duration
	MinPercent float64 // default 10
	Aggression float64 // default 1, a straight line; more is faster at first
}

// RetryBudget is trafficPolicy.retryBudget: retries under way are held to a
// part of the requests under way.
type RetryBudget struct {
	Percent        float64 // default 20
	MinConcurrency uint32  // default 3

	// Interval in which requests are counted that were begun; 0, the default: those
	// under way are what counts.
	Interval time.Duration

	Source Source
}

// LocalityLB is localityLbSetting, or zoneAwareLbSetting.
type LocalityLB struct {
	Disabled   bool // enabled: false
	Distribute []Distribute
	Failover   []Failover
	// FailoverPriority are labels, "key" or "key=value", in order.
	FailoverPriority []string

	// LeastHosts is minClusterSize of zoneAwareLbSetting: with as many endpoints
	// and more, traffic is balanced between the zones of the own region, as far as
	// it cannot stay in the own one. 0: it moves on when the own zone cannot serve.
	LeastHosts uint32
}

// Distribute says that callers in From send the shares To (percent, which sum
// to 100) to the localities that match its keys.
type Distribute struct {
	From string
	To   []LocalityShare // sorted by locality
}

// LocalityShare is one entry of a distribution.
type LocalityShare struct {
	Locality string // pattern, "us-west1/*"
	Percent  uint32
}

// Failover sends the traffic of region From to region To when From cannot
// serve.
type Failover struct{ From, To string }

// ConnectionPool is trafficPolicy.connectionPool. Zero means default
// throughout, as in Istio.
type ConnectionPool struct {
	MaxConnections    uint32        // default: no limit
	ConnectTimeout    time.Duration // default: 10 s
	KeepAlive         *TCPKeepAlive
	MaxPending        uint32 // http1MaxPendingRequests
	MaxRequests       uint32 // http2MaxRequests, active requests
	MaxRequestsPerCon uint32 // maxRequestsPerConnection
	MaxRetries        uint32 // concurrent retries
	IdleTimeout       time.Duration
	MaxDuration       time.Duration  // tcp.maxConnectionDuration: a connection is closed after it
	TCPIdleTimeout    *time.Duration // tcp.idleTimeout: of relayed connections; nil: 1 h, 0: none

	UpgradeHTTP2      bool   // h2UpgradePolicy UPGRADE: requests go over HTTP/2 to a port of HTTP
	UseClientProtocol bool   // they go over what the client speaks
	MaxStreams        uint32 // maxConcurrentStreams: requests at a time over one connection of HTTP/2
	HTTP2KeepAlive    *HTTP2KeepAlive

	Source Source
}

// HTTP2KeepAlive is connectionPool.http.http2KeepAlive: a PING goes out when
// nothing has come for Interval, and the connection ends when it is not answered
// within Timeout.
type HTTP2KeepAlive struct{ Interval, Timeout time.Duration }

// TCPKeepAlive is connectionPool.tcp.tcpKeepalive; zero fields are the
// operating system's.
type TCPKeepAlive struct {
	Probes         uint32
	Time, Interval time.Duration
}

// OutlierDetection is trafficPolicy.outlierDetection. Consecutive counters
// that are 0 are off.
type OutlierDetection struct {
	Consecutive5xx           uint32        // default 5
	ConsecutiveGatewayErrors uint32        // default off
	SplitLocalOrigin         bool          // splitExternalLocalOriginErrors
	ConsecutiveLocalOrigin   uint32        // default 5, with SplitLocalOrigin
	Interval                 time.Duration // default 10 s
	BaseEjectionTime         time.Duration // default 30 s
	MaxEjectionPercent       uint32        // default 10
	MinHealthPercent         uint32        // default 0

	// ErrorCodes are the statuses that count as errors in place of 5xx
	// (outlierDetectionHttpErrorCodes); nil: 5xx.
	ErrorCodes []int

	Source Source
}

// ClientTLS is trafficPolicy.tls: how endpoints are spoken to.
type ClientTLS struct {
	Mode TLSMode

	// Credential names a credential; else Files are its files. What is shown is of
	// TLSMutual alone; where there are no roots, the system's are believed.
	Credential string
	Files      TLSFiles

	SNI             string   // "": the host of the destination
	SubjectAltNames []string // of which the certificate bears one; none: the name is SNI
	SkipVerify      bool
	Source          Source
}

// Same reports whether two say the same, wherever they stand; nil says
// TLSDisable.
func (t *ClientTLS) Same(o *ClientTLS) bool {
	plain := func(t *ClientTLS) bool { return t == nil || t.Mode == TLSDisable }
	if plain(t) || plain(o) {
		return plain(t) == plain(o)
	}
	a, b := *t, *o
	a.Source, b.Source = Source{}, Source{}
	return reflect.DeepEqual(a, b)
}

// TLSMode is ClientTLSSettings.mode.
type TLSMode uint8

// The modes of ClientTLS.
const (
	TLSDisable TLSMode = iota
	TLSSimple
	TLSMutual
	TLSIstioMutual // with the proxy's own identity
)
