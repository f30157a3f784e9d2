package mesh

import "time"

// LocalRateLimit is Envoy's local_ratelimit filter, as an EnvoyFilter inserts
// it: one token bucket for all requests of a kind of listener.
type LocalRateLimit struct {
	Meta
	Selector map[string]string // workloadSelector; nil: every proxy the filter is visible to

	// Which listeners: SIDECAR_INBOUND, SIDECAR_OUTBOUND, GATEWAY.
	Inbound, Outbound, Gateway bool

	MaxTokens     uint32 // also what the bucket holds at first
	TokensPerFill uint32
	FillInterval  time.Duration // at least 50 ms
	Status        int           // of a refusal; default 429
	Enabled       float64       // part of the requests that is counted, 0 to 1
	Enforced      float64       // part of those that is refused
}

// AppliesTo reports whether a proxy has the limit: filters of the root
// namespace are for all, others for their own (Istio: EnvoyFilter).
func (l *LocalRateLimit) AppliesTo(n *Node) bool {
	return (l.Namespace == n.RootNamespace || l.Namespace == n.Namespace) && MatchLabels(l.Selector, n.Labels)
}
