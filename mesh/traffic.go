package mesh

import "time"

// DestinationRule is Istio's DestinationRule.
type DestinationRule struct {
	Meta
	Host     string // lower case, short names made full; "*.suffix" possible
	Policy   TrafficPolicy
	Subsets  []Subset
	ExportTo []string

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
	PortLevel        map[uint32]*TrafficPolicy
}

// LoadBalancerKind is the algorithm within a locality.
type LoadBalancerKind uint8

// The algorithms.
const (
	LeastRequest LoadBalancerKind = iota // power of two choices; the default
	RoundRobin
	Random
)

// LoadBalancer is trafficPolicy.loadBalancer.
type LoadBalancer struct {
	Kind     LoadBalancerKind
	Locality *LocalityLB // nil: the default priorities by locality
	Source   Source
}

// LocalityLB is localityLbSetting.
type LocalityLB struct {
	Disabled   bool // enabled: false
	Distribute []Distribute
	Failover   []Failover
	// FailoverPriority are labels, "key" or "key=value", in order.
	FailoverPriority []string
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
	Source            Source
}

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
	Source                   Source
}

// ClientTLS is trafficPolicy.tls.
type ClientTLS struct {
	Mode   string // DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL
	Source Source
}
