package telemetry

import (
	"slices"
	"strings"
	"sync/atomic"
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

// Add adds what another one has counted.
func (u *Upstream) Add(o *Upstream) {
	for i := range u.Classes {
		u.Classes[i].Add(o.Classes[i].Load())
	}
	for _, n := range [...][2]*atomic.Uint64{
		{&u.Tries, &o.Tries}, {&u.Retries, &o.Retries}, {&u.RetriesSucceeded, &o.RetriesSucceeded}, {&u.RetriesRefused, &o.RetriesRefused},
		{&u.Failovers, &o.Failovers}, {&u.Overflows, &o.Overflows}, {&u.Timeouts, &o.Timeouts}, {&u.TryTimeouts, &o.TryTimeouts}, {&u.Resets, &o.Resets},
		{&u.Connects, &o.Connects}, {&u.ConnectFailures, &o.ConnectFailures}, {&u.ConnectTimeouts, &o.ConnectTimeouts},
	} {
		n[0].Add(n[1].Load())
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

// Upstreams shows upstreams under Envoy's names, as list says when the page is
// made.
func Upstreams(list func() []UpstreamState) Source { return upstreams{list} }

type upstreams struct{ list func() []UpstreamState }

// united makes one of upstreams that have one name, sorted by it. A proxy tells
// apart by what way it goes to a service's port, as requests or as bytes that are
// passed on: Envoy's names do not, and of a name there is one series.
func united(list []UpstreamState) (out []UpstreamState) {
	slices.SortFunc(list, func(a, b UpstreamState) int { return strings.Compare(a.Name, b.Name) })
	for _, u := range list {
		n := len(out) - 1
		if n < 0 || out[n].Name != u.Name {
			out = append(out, u)
			continue
		}
		all := &out[n]
		counters := &Upstream{}
		counters.Add(all.Counters)
		counters.Add(u.Counters)
		all.Counters = counters
		// The endpoints are the same, or some of them.
		all.Hosts, all.Healthy, all.Degraded = max(all.Hosts, u.Hosts), max(all.Healthy, u.Healthy), max(all.Degraded, u.Degraded)
		all.Ejected, all.LinksBroken = max(all.Ejected, u.Ejected), max(all.LinksBroken, u.LinksBroken)
		all.Ejections, all.EjectionsRefused = all.Ejections+u.Ejections, all.EjectionsRefused+u.EjectionsRefused
		all.Requests, all.Connections, all.Pending = all.Requests+u.Requests, all.Connections+u.Connections, all.Pending+u.Pending
		all.RequestsOpen, all.ConnectionsOpen = all.RequestsOpen || u.RequestsOpen, all.ConnectionsOpen || u.ConnectionsOpen
		all.PendingOpen, all.RetriesOpen = all.PendingOpen || u.PendingOpen, all.RetriesOpen || u.RetriesOpen
	}
	return out
}

var (
	upstreamClasses = family{"envoy_cluster_upstream_rq_xx", "untyped", "Replies of an upstream by the hundreds of their status."}

	// Envoy's counters have names which OpenMetrics would have end in _total if they
	// were declared for what they are.
	upstreamCounters = []struct {
		family
		of func(*UpstreamState) uint64
	}{
		{family{"envoy_cluster_upstream_rq_total", "untyped", "Tries at an upstream."}, func(u *UpstreamState) uint64 { return u.Counters.Tries.Load() }},
		{family{"envoy_cluster_upstream_rq_retry", "untyped", "Retries."}, func(u *UpstreamState) uint64 { return u.Counters.Retries.Load() }},
		{family{"envoy_cluster_upstream_rq_retry_success", "untyped", "Retries that were."}, func(u *UpstreamState) uint64 { return u.Counters.RetriesSucceeded.Load() }},
		{family{"envoy_cluster_upstream_rq_retry_overflow", "untyped", "Retries that the budget had no room for."}, func(u *UpstreamState) uint64 { return u.Counters.RetriesRefused.Load() }},
		{family{"envoy_cluster_upstream_rq_pending_overflow", "untyped", "Requests refused for want of a connection."}, func(u *UpstreamState) uint64 { return u.Counters.Overflows.Load() }},
		{family{"envoy_cluster_upstream_rq_timeout", "untyped", "Requests that took too long."}, func(u *UpstreamState) uint64 { return u.Counters.Timeouts.Load() }},
		{family{"envoy_cluster_upstream_rq_per_try_timeout", "untyped", "Tries that took too long."}, func(u *UpstreamState) uint64 { return u.Counters.TryTimeouts.Load() }},
		{family{"envoy_cluster_upstream_rq_rx_reset", "untyped", "Tries whose connection was lost."}, func(u *UpstreamState) uint64 { return u.Counters.Resets.Load() }},
		{family{"envoy_cluster_upstream_cx_total", "untyped", "Connections opened."}, func(u *UpstreamState) uint64 { return u.Counters.Connects.Load() }},
		{family{"envoy_cluster_upstream_cx_connect_fail", "untyped", "Connections that could not be opened."}, func(u *UpstreamState) uint64 {
			return u.Counters.ConnectFailures.Load() + u.Counters.ConnectTimeouts.Load()
		}},
		{family{"envoy_cluster_upstream_cx_connect_timeout", "untyped", "Those of which nothing was heard."}, func(u *UpstreamState) uint64 { return u.Counters.ConnectTimeouts.Load() }},
		{family{"envoy_cluster_outlier_detection_ejections_total", "untyped", "Ejections."}, ejections},
		{family{"envoy_cluster_outlier_detection_ejections_enforced_total", "untyped", "Ejections, all of which are enforced."}, ejections},
		{family{"envoy_cluster_outlier_detection_ejections_overflow", "untyped", "Ejections that maxEjectionPercent forbade."}, func(u *UpstreamState) uint64 { return u.EjectionsRefused }},
		{family{"isthmus_upstream_failovers_total", "counter", "Tries at another endpoint because the one before cannot have seen the request, or because it is safe to repeat."}, func(u *UpstreamState) uint64 { return u.Counters.Failovers.Load() }},
	}

	upstreamGauges = []struct {
		family
		of func(*UpstreamState) uint64
	}{
		{family{"envoy_cluster_membership_total", "gauge", "Endpoints."}, func(u *UpstreamState) uint64 { return uint64(u.Hosts) }},
		{family{"envoy_cluster_membership_healthy", "gauge", "Endpoints that may get traffic."}, func(u *UpstreamState) uint64 { return uint64(u.Healthy) }},
		{family{"envoy_cluster_membership_degraded", "gauge", "Endpoints that ask to be spared."}, func(u *UpstreamState) uint64 { return uint64(u.Degraded) }},
		{family{"envoy_cluster_outlier_detection_ejections_active", "gauge", "Endpoints that are ejected."}, func(u *UpstreamState) uint64 { return uint64(u.Ejected) }},
		{family{"envoy_cluster_upstream_rq_active", "gauge", "Requests under way."}, func(u *UpstreamState) uint64 { return uint64(u.Requests) }},
		{family{"envoy_cluster_upstream_cx_active", "gauge", "Connections open."}, func(u *UpstreamState) uint64 { return uint64(u.Connections) }},
		{family{"envoy_cluster_upstream_rq_pending_active", "gauge", "Requests that wait for a connection."}, func(u *UpstreamState) uint64 { return uint64(u.Pending) }},
		{family{"envoy_cluster_lb_healthy_panic", "gauge", "1 if no endpoint is good, so that those of which little good is known serve."}, func(u *UpstreamState) uint64 { return truth(u.Hosts > 0 && u.Healthy == 0) }},
		{family{"envoy_cluster_circuit_breakers_default_cx_open", "gauge", "1 if there are as many connections as may be."}, func(u *UpstreamState) uint64 { return truth(u.ConnectionsOpen) }},
		{family{"envoy_cluster_circuit_breakers_default_rq_open", "gauge", "1 if there are as many requests as may be."}, func(u *UpstreamState) uint64 { return truth(u.RequestsOpen) }},
		{family{"envoy_cluster_circuit_breakers_default_rq_pending_open", "gauge", "1 if as many wait as may."}, func(u *UpstreamState) uint64 { return truth(u.PendingOpen) }},
		{family{"envoy_cluster_circuit_breakers_default_rq_retry_open", "gauge", "1 if the retry budget is used up."}, func(u *UpstreamState) uint64 { return truth(u.RetriesOpen) }},
		{family{"isthmus_upstream_links_broken", "gauge", "Remote clusters that cannot be dialled one time after the other."}, func(u *UpstreamState) uint64 { return uint64(u.LinksBroken) }},
	}
)

func ejections(u *UpstreamState) uint64 { return u.Ejections }

func truth(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

var (
	upstreamLabels = newLabels("envoy_cluster_name")
	classLabels    = newLabels("envoy_cluster_name", "envoy_response_code_class")
)

// Show implements [Source].
func (u upstreams) Show(p *Page) {
	list := united(u.list())
	all := func(f *family, of func(*UpstreamState) uint64) {
		p.begin(f)
		for i := range list {
			p.set(upstreamLabels, list[i].Name)
			p.count(f, of(&list[i]))
		}
	}
	for i := range upstreamCounters {
		all(&upstreamCounters[i].family, upstreamCounters[i].of)
	}
	for i := range upstreamGauges {
		all(&upstreamGauges[i].family, upstreamGauges[i].of)
	}
	p.begin(&upstreamClasses)
	for i := range list {
		for hundreds := 1; hundreds < len(list[i].Counters.Classes); hundreds++ {
			p.set(classLabels, list[i].Name, statusText(hundreds))
			p.count(&upstreamClasses, list[i].Counters.Classes[hundreds].Load())
		}
	}
}
