package admin

import (
	"math"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isthmus/canary"
)

// Metrics returns the handler of the metrics listener: the health checks of
// [Probes], and the page of the metrics at /metrics and /stats/prometheus.
func Metrics(s State, page http.Handler) http.Handler {
	mux := Probes(s)
	addMetrics(mux, page)
	return mux
}

// addMetrics adds the page of the metrics.
func addMetrics(mux *http.ServeMux, page http.Handler) {
	mux.Handle("GET /metrics", page)
	mux.Handle("GET /stats/prometheus", page)
}

// draining is the reason of a proxy that is about to end.
const draining = "draining"

// Gossip is what a proxy knows of gossip itself.
type Gossip struct {
	Own                     string // cluster of this proxy
	Records, Behind, Queued int
	Dropped                 uint64
	Health                  int
	Clusters                map[string]Distance
}

// Distance is how far a cluster is, and how long ago it was heard of.
type Distance struct{ RoundTrip, Age time.Duration }

// Collector shows the state of a proxy as metrics, read when they are
// gathered.
type Collector struct{ state State }

// NewCollector makes the collector of a proxy.
func NewCollector(s State) *Collector { return &Collector{s} }

var (
	readyDesc     = prometheus.NewDesc("isthmus_ready", "1 if the proxy is ready.", nil, nil)
	snapshotDesc  = prometheus.NewDesc("isthmus_snapshot_number", "Number of the snapshot in force, counted from 1 since the start.", nil, nil)
	ageDesc       = prometheus.NewDesc("isthmus_snapshot_age_seconds", "Time since the snapshot in force was made.", nil, nil)
	reloadDesc    = prometheus.NewDesc("isthmus_config_in_force", "1 if the files are in force as they are now, 0 if an earlier state of them is.", nil, nil)
	revisionDesc  = prometheus.NewDesc("isthmus_config_revision", "Revision of the configuration in force, as isthmus config history numbers them.", nil, nil)
	rollbackDesc  = prometheus.NewDesc("isthmus_config_rolled_back", "1 if an earlier revision was brought back and holds, 0 if the files do.", nil, nil)
	canaryDesc    = prometheus.NewDesc("isthmus_canary_state", "1 of the state in which the candidate configuration is.", []string{"state"}, nil)
	canaryPctDesc = prometheus.NewDesc("isthmus_canary_percent", "Percent of the requests that the candidate configuration decides.", nil, nil)
	canaryRqDesc  = prometheus.NewDesc("isthmus_canary_requests", "Requests in this stage of a trial by who decided them, and what became of them.", []string{"decided_by", "outcome"}, nil)
	canaryCmpDesc = prometheus.NewDesc("isthmus_canary_compared", "Requests of a trial whose decisions were compared, by whether they are alike.", []string{"alike"}, nil)
	warningsDesc  = prometheus.NewDesc("isthmus_config_warnings", "Warnings of the configuration.", nil, nil)
	membersDesc   = prometheus.NewDesc("isthmus_gossip_members", "Gossip members by state.", []string{"state"}, nil)
	endpointsDesc = prometheus.NewDesc("isthmus_endpoints", "Endpoints by cluster, and whether they may get traffic.", []string{"cluster", "healthy"}, nil)
	endsDesc      = prometheus.NewDesc("isthmus_certificate_expiration_timestamp_seconds", "When a certificate, or the first of its chain, ends: that of the proxy's identity, the root that vouches for it, and the files of credentials in use, revocation lists too.", []string{"certificate"}, nil)
	usableDesc    = prometheus.NewDesc("isthmus_certificate_in_force", "1 if a certificate is in force as its files have it now, 0 if an earlier one is, or none.", []string{"certificate"}, nil)
	renewedDesc   = prometheus.NewDesc("isthmus_identity_reloads_total", "How often the proxy's own certificate was read anew.", nil, nil)
	buildDesc     = prometheus.NewDesc("isthmus_build_info", "1, for the version of the program.", []string{"version"}, nil)
	recordsDesc   = prometheus.NewDesc("isthmus_gossip_records", "Members of whose endpoints there is a record.", nil, nil)
	behindDesc    = prometheus.NewDesc("isthmus_gossip_records_behind", "Records of which a newer version was heard of and has not come yet: 0 when gossip has converged.", nil, nil)
	queuedDesc    = prometheus.NewDesc("isthmus_gossip_queued_broadcasts", "Broadcasts to be sent.", nil, nil)
	droppedDesc   = prometheus.NewDesc("isthmus_gossip_dropped_messages_total", "Messages that were malformed or too many.", nil, nil)
	healthDesc    = prometheus.NewDesc("isthmus_gossip_health_score", "How slow this member is at gossip, as memberlist has it: 0 is well.", nil, nil)
	gossipRTTDesc = prometheus.NewDesc("isthmus_gossip_rtt_seconds", "Round trip to a member of a cluster, by the last probe.", []string{"cluster"}, nil)
	heardDesc     = prometheus.NewDesc("isthmus_gossip_last_heard_age_seconds", "Time since a member of another cluster last answered a probe.", []string{"cluster"}, nil)

	liveDesc     = prometheus.NewDesc("envoy_server_live", "1 if the proxy is not draining.", nil, nil)
	stateDesc    = prometheus.NewDesc("envoy_server_state", "0 live, 1 draining, 2 not yet ready.", nil, nil)
	daysLeftDesc = prometheus.NewDesc("envoy_server_days_until_first_cert_expiring", "Days until the first certificate ends.", nil, nil)

	probesDesc = prometheus.NewDesc("isthmus_probes_total", "Probes by whom they looked at, and their results.", []string{"of", "result"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{readyDesc, snapshotDesc, ageDesc, reloadDesc, revisionDesc, rollbackDesc, canaryDesc, canaryPctDesc, canaryRqDesc, canaryCmpDesc, warningsDesc, membersDesc, endpointsDesc, endsDesc, usableDesc, renewedDesc, buildDesc, recordsDesc, behindDesc, queuedDesc, droppedDesc, healthDesc, gossipRTTDesc, heardDesc, liveDesc, stateDesc, daysLeftDesc, probesDesc, limitsDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.state.Status()
	gauge(readyDesc, number(s.Ready))
	gauge(snapshotDesc, float64(s.Snapshot.Number))
	gauge(ageDesc, s.Snapshot.Age)
	gauge(reloadDesc, number(s.Snapshot.Error == "" && s.Snapshot.Rollback == 0))
	gauge(revisionDesc, float64(s.Snapshot.Revision))
	gauge(rollbackDesc, number(s.Snapshot.Rollback != 0))
	c.collectCanary(gauge)
	gauge(warningsDesc, float64(s.Warnings))

	gauge(buildDesc, 1, s.Version)
	gauge(liveDesc, number(s.Reason != draining))
	switch {
	case s.Ready:
		gauge(stateDesc, 0)
	case s.Reason == draining:
		gauge(stateDesc, 1)
	default:
		gauge(stateDesc, 2)
	}
	c.collectGossip(out)

	for _, p := range c.state.Probes() {
		out <- prometheus.MustNewConstMetric(probesDesc, prometheus.CounterValue, float64(p.Count), p.Of, p.Result)
	}
	collectLimits(out, c.state.Limits())
	first := time.Time{}
	for _, cert := range c.state.Certificates() {
		if !cert.Ends.IsZero() {
			if !cert.List && (first.IsZero() || cert.Ends.Before(first)) {
				first = cert.Ends
			}
			gauge(endsDesc, float64(cert.Ends.Unix()), cert.Name)
		}
		gauge(usableDesc, number(cert.Usable), cert.Name)
		if cert.Name == "identity" {
			out <- prometheus.MustNewConstMetric(renewedDesc, prometheus.CounterValue, float64(cert.Reloads))
		}
	}
	if !first.IsZero() {
		gauge(daysLeftDesc, math.Floor(max(time.Until(first), 0).Hours()/24))
	}
	members := map[string]int{"alive": 0, "dead": 0, "left": 0}
	for _, m := range c.state.Members() {
		members[m.State]++
	}
	for state, n := range members {
		gauge(membersDesc, float64(n), state)
	}
	type group struct {
		cluster string
		healthy bool
	}
	endpoints := map[group]int{}
	for _, e := range c.state.Endpoints() {
		// Both states of a cluster are shown as soon as one is: a series that
		// disappears at 0 raises no alert.
		endpoints[group{e.Cluster, !e.Healthy}] += 0
		endpoints[group{e.Cluster, e.Healthy}]++
	}
	for g, n := range endpoints {
		healthy := "false"
		if g.healthy {
			healthy = "true"
		}
		gauge(endpointsDesc, float64(n), g.cluster, healthy)
	}
}

// collectGossip shows what gossip knows of itself.
func (c *Collector) collectGossip(out chan<- prometheus.Metric) {
	g := c.state.Gossip()
	if g == nil {
		return
	}
	for d, v := range map[*prometheus.Desc]int{recordsDesc: g.Records, behindDesc: g.Behind, queuedDesc: g.Queued, healthDesc: g.Health} {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	out <- prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(g.Dropped))
	for cluster, d := range g.Clusters {
		out <- prometheus.MustNewConstMetric(gossipRTTDesc, prometheus.GaugeValue, d.RoundTrip.Seconds(), cluster)
		if cluster != g.Own { // which hears of itself, when no other hears of it
			out <- prometheus.MustNewConstMetric(heardDesc, prometheus.GaugeValue, d.Age.Seconds(), cluster)
		}
	}
}

// collectCanary shows how a trial goes, if there is one.
func (c *Collector) collectCanary(gauge func(*prometheus.Desc, float64, ...string)) {
	t := c.state.Canary()
	for _, s := range []canary.State{canary.Waiting, canary.Shadow, canary.Partial, canary.Returned, canary.Promoted, canary.Rejected} {
		gauge(canaryDesc, number(t.State == s), string(s))
	}
	gauge(canaryPctDesc, t.Percent)
	if t.State == canary.None {
		return
	}
	for by, side := range map[string]Side{"candidate": t.Candidate, "current": t.Current} {
		gauge(canaryRqDesc, float64(side.Requests-side.Failed-side.Refused), by, "served")
		gauge(canaryRqDesc, float64(side.Failed), by, "failed")
		gauge(canaryRqDesc, float64(side.Refused), by, "refused")
	}
	gauge(canaryCmpDesc, float64(t.Compared-t.Different), "true")
	gauge(canaryCmpDesc, float64(t.Different), "false")
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
