package telemetry

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Upstream counts what happens between this proxy and an upstream, try by try,
// under Envoy's names. Its fields may be written by any goroutine.
type Upstream struct {
	Tries            atomic.Uint64
	Classes          [6]atomic.Uint64 // of replies, by the hundreds of their status
	Retries          atomic.Uint64
	RetriesSucceeded atomic.Uint64
	RetriesRefused   atomic.Uint64 // for want of budget
	Failovers        atomic.Uint64 // to another endpoint, outside the policy
	Overflows        atomic.Uint64 // of connections, the line for them, or requests
	Timeouts         atomic.Uint64 // of requests
	TryTimeouts      atomic.Uint64
	Resets           atomic.Uint64 // connections lost with a request on them
	Connects         atomic.Uint64
	ConnectFailures  atomic.Uint64
	ConnectTimeouts  atomic.Uint64
}

// Replied counts a try's reply.
func (u *Upstream) Replied(status int) {
	if status < 100*len(u.Classes) {
		u.Classes[status/100].Add(1)
	}
}

// UpstreamState is an upstream as it is now.
type UpstreamState struct {
	Name                           string // "outbound|80|v1|reviews.prod.svc.cluster.local"
	Counters                       *Upstream
	Hosts, Healthy, Degraded       int
	Ejected                        int
	Ejections, EjectionsRefused    uint64 // in all; for maxEjectionPercent
	Requests, Connections, Pending int    // under way, open, waiting for one
	RequestsOpen, ConnectionsOpen  bool   // the limit is reached ("the breaker is open")
	PendingOpen, RetriesOpen       bool
	LinksBroken                    int // remote clusters that cannot be dialled
}

// UpstreamsCollector shows upstreams under Envoy's names, as list says when it is
// gathered.
func UpstreamsCollector(list func() []UpstreamState) prometheus.Collector {
	return upstreamsCollector{list}
}

type upstreamsCollector struct{ list func() []UpstreamState }

const clusterLabel = "envoy_cluster_name"

func upstreamDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("envoy_cluster_"+name, help, append([]string{clusterLabel}, labels...), nil)
}

var (
	upstreamClassDesc = upstreamDesc("upstream_rq_xx", "Replies of an upstream by the hundreds of their status.", "envoy_response_code_class")

	upstreamCounters = []struct {
		desc *prometheus.Desc
		of   func(*UpstreamState) uint64
	}{
		{upstreamDesc("upstream_rq_total", "Tries at an upstream."), func(u *UpstreamState) uint64 { return u.Counters.Tries.Load() }},
		{upstreamDesc("upstream_rq_retry", "Retries."), func(u *UpstreamState) uint64 { return u.Counters.Retries.Load() }},
		{upstreamDesc("upstream_rq_retry_success", "Retries that were."), func(u *UpstreamState) uint64 { return u.Counters.RetriesSucceeded.Load() }},
		{upstreamDesc("upstream_rq_retry_overflow", "Retries that the budget had no room for."), func(u *UpstreamState) uint64 { return u.Counters.RetriesRefused.Load() }},
		{upstreamDesc("upstream_rq_pending_overflow", "Requests refused for want of a connection."), func(u *UpstreamState) uint64 { return u.Counters.Overflows.Load() }},
		{upstreamDesc("upstream_rq_timeout", "Requests that took too long."), func(u *UpstreamState) uint64 { return u.Counters.Timeouts.Load() }},
		{upstreamDesc("upstream_rq_per_try_timeout", "Tries that took too long."), func(u *UpstreamState) uint64 { return u.Counters.TryTimeouts.Load() }},
		{upstreamDesc("upstream_rq_rx_reset", "Tries whose connection was lost."), func(u *UpstreamState) uint64 { return u.Counters.Resets.Load() }},
		{upstreamDesc("upstream_cx_total", "Connections opened."), func(u *UpstreamState) uint64 { return u.Counters.Connects.Load() }},
		{upstreamDesc("upstream_cx_connect_fail", "Connections that could not be opened."), func(u *UpstreamState) uint64 {
			return u.Counters.ConnectFailures.Load() + u.Counters.ConnectTimeouts.Load()
		}},
		{upstreamDesc("upstream_cx_connect_timeout", "Those of which nothing was heard."), func(u *UpstreamState) uint64 { return u.Counters.ConnectTimeouts.Load() }},
		{upstreamDesc("outlier_detection_ejections_total", "Ejections."), ejections},
		{upstreamDesc("outlier_detection_ejections_enforced_total", "Ejections, all of which are enforced."), ejections},
		{upstreamDesc("outlier_detection_ejections_overflow", "Ejections that maxEjectionPercent forbade."), func(u *UpstreamState) uint64 { return u.EjectionsRefused }},
		{prometheus.NewDesc("isthmus_upstream_failovers_total", "Tries at another endpoint because the one before cannot have seen the request, or because it is safe to repeat.", []string{clusterLabel}, nil), func(u *UpstreamState) uint64 { return u.Counters.Failovers.Load() }},
	}

	upstreamGauges = []struct {
		desc *prometheus.Desc
		of   func(*UpstreamState) float64
	}{
		{upstreamDesc("membership_total", "Endpoints."), func(u *UpstreamState) float64 { return float64(u.Hosts) }},
		{upstreamDesc("membership_healthy", "Endpoints that may get traffic."), func(u *UpstreamState) float64 { return float64(u.Healthy) }},
		{upstreamDesc("membership_degraded", "Endpoints that ask to be spared."), func(u *UpstreamState) float64 { return float64(u.Degraded) }},
		{upstreamDesc("outlier_detection_ejections_active", "Endpoints that are ejected."), func(u *UpstreamState) float64 { return float64(u.Ejected) }},
		{upstreamDesc("upstream_rq_active", "Requests under way."), func(u *UpstreamState) float64 { return float64(u.Requests) }},
		{upstreamDesc("upstream_cx_active", "Connections open."), func(u *UpstreamState) float64 { return float64(u.Connections) }},
		{upstreamDesc("upstream_rq_pending_active", "Requests that wait for a connection."), func(u *UpstreamState) float64 { return float64(u.Pending) }},
		{upstreamDesc("lb_healthy_panic", "1 if no endpoint is good, so that those of which little good is known serve."), func(u *UpstreamState) float64 { return truth(u.Hosts > 0 && u.Healthy == 0) }},
		{upstreamDesc("circuit_breakers_default_cx_open", "1 if there are as many connections as may be."), func(u *UpstreamState) float64 { return truth(u.ConnectionsOpen) }},
		{upstreamDesc("circuit_breakers_default_rq_open", "1 if there are as many requests as may be."), func(u *UpstreamState) float64 { return truth(u.RequestsOpen) }},
		{upstreamDesc("circuit_breakers_default_rq_pending_open", "1 if as many wait as may."), func(u *UpstreamState) float64 { return truth(u.PendingOpen) }},
		{upstreamDesc("circuit_breakers_default_rq_retry_open", "1 if the retry budget is used up."), func(u *UpstreamState) float64 { return truth(u.RetriesOpen) }},
		{prometheus.NewDesc("isthmus_upstream_links_broken", "Remote clusters that cannot be dialled one time after the other.", []string{clusterLabel}, nil), func(u *UpstreamState) float64 { return float64(u.LinksBroken) }},
	}
)

func ejections(u *UpstreamState) uint64 { return u.Ejections }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (upstreamsCollector) Describe(out chan<- *prometheus.Desc) {
	out <- upstreamClassDesc
	for i := range upstreamCounters {
		out <- upstreamCounters[i].desc
	}
	for i := range upstreamGauges {
		out <- upstreamGauges[i].desc
	}
}

// Collect implements prometheus.Collector.
func (c upstreamsCollector) Collect(out chan<- prometheus.Metric) {
	for _, u := range c.list() {
		for i := range upstreamCounters {
			// Envoy's names, which OpenMetrics would have end in _total if they were
			// declared for what they are.
			out <- prometheus.MustNewConstMetric(upstreamCounters[i].desc, prometheus.UntypedValue, float64(upstreamCounters[i].of(&u)), u.Name)
		}
		for i := range upstreamGauges {
			out <- gauge(upstreamGauges[i].desc, upstreamGauges[i].of(&u), u.Name)
		}
		for hundreds := 1; hundreds < len(u.Counters.Classes); hundreds++ {
			out <- prometheus.MustNewConstMetric(upstreamClassDesc, prometheus.UntypedValue, float64(u.Counters.Classes[hundreds].Load()), u.Name, strconv.Itoa(hundreds))
		}
	}
}
