// Package telemetry counts what the data plane does, under the names and
// labels of Istio's standard metrics, so that dashboards made for Istio show
// it. Handles are made when an upstream is; to count an exchange is two atomic
// additions.
package telemetry

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Labels say between whom exchanges were. Empty ones are shown as "unknown".
type Labels struct {
	Reporter string // "source": the caller's proxy, or a gateway; "destination": the application's

	SourceWorkload, SourceNamespace, SourceCluster, SourceApp, SourceVersion string

	// DestinationService is the host name as routed; Name and Namespace are
	// those of the service it belongs to, if any.
	DestinationService, DestinationName, DestinationNamespace, DestinationCluster string
}

// commonLabelNames are those of all of Istio's metrics that are known here, in
// the order of Labels.values.
var commonLabelNames = []string{
	"reporter", "source_workload", "source_workload_namespace", "source_cluster", "source_app", "source_version",
	"destination_service", "destination_service_name", "destination_service_namespace", "destination_cluster",
	"request_protocol", "connection_security_policy",
}

// requestLabelNames are those of Istio's metrics of requests.
var requestLabelNames = append(slices.Clone(commonLabelNames), "response_code", "response_flags")

// values returns the values of the labels, with those of a kind of metrics
// behind them.
func (l *Labels) values(protocol string, more ...string) []string {
	security := "none"
	if l.Reporter == "source" {
		security = "unknown" // Istio's source reports no more
	}
	v := []string{
		l.Reporter, l.SourceWorkload, l.SourceNamespace, l.SourceCluster, l.SourceApp, l.SourceVersion,
		l.DestinationService, l.DestinationName, l.DestinationNamespace, l.DestinationCluster,
		protocol, security,
	}
	v = append(v, more...)
	for i := range v {
		if v[i] == "" {
			v[i] = "unknown"
		}
	}
	return v
}

// Requests counts the exchanges that bear the same Labels. Its methods may be
// called by any goroutine.
type Requests struct {
	labels  Labels
	classes [6]atomic.Pointer[class] // of statuses, without a flag

	mu      sync.Mutex // guards flagged, and the making of series
	flagged map[outcome]*series
}

// class holds the series of the statuses of one class, such as 2xx.
type class [100]atomic.Pointer[series]

type outcome struct {
	status int
	flag   string
}

// NewRequests makes the counters for labels.
func NewRequests(l Labels) *Requests { return &Requests{labels: l} }

// NoFlag is the response flag of an exchange that met nothing.
const NoFlag = "-"

// Record counts an exchange: its status, 0 if the client got none, Envoy's
// response flag, and how long it took.
func (r *Requests) Record(status int, flag string, took time.Duration) {
	if flag == NoFlag && status > 0 && status < 100*len(r.classes) {
		var s *series
		if c := r.classes[status/100].Load(); c != nil {
			s = c[status%100].Load()
		}
		if s == nil {
			s = r.makePlain(status)
		}
		s.observe(took)
		return
	}
	r.mu.Lock()
	k := outcome{status, flag}
	s := r.flagged[k]
	if s == nil {
		if r.flagged == nil {
			r.flagged = map[outcome]*series{}
		}
		s = &series{}
		r.flagged[k] = s
	}
	r.mu.Unlock()
	s.observe(took)
}

func (r *Requests) makePlain(status int) *series {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.classes[status/100].Load()
	if c == nil {
		c = &class{}
		r.classes[status/100].Store(c)
	}
	s := c[status%100].Load()
	if s == nil {
		s = &series{}
		c[status%100].Store(s)
	}
	return s
}

// bounds are the upper bounds of Istio's histogram of durations, in
// milliseconds (Envoy's defaults).
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// series is one combination of labels: how many exchanges took how long.
type series struct {
	nanoseconds atomic.Int64
	buckets     [len(bounds) + 1]atomic.Uint64 // not cumulative; their sum is the count
}

func (s *series) observe(took time.Duration) {
	ms := float64(took) / float64(time.Millisecond)
	i := 0
	for i < len(bounds) && ms > bounds[i] {
		i++
	}
	s.buckets[i].Add(1)
	s.nanoseconds.Add(int64(took))
}

var (
	requestsDesc = prometheus.NewDesc("istio_requests_total", "Requests by who called whom and what became of them.", requestLabelNames, nil)
	durationDesc = prometheus.NewDesc("istio_request_duration_milliseconds", "How long requests took, until the last of the reply came.", requestLabelNames, nil)
)

// Collector shows counters as metrics. list returns those that are in use:
// the series of an upstream that is gone go with it.
func Collector(list func() []*Requests) prometheus.Collector { return collector{list} }

type collector struct{ list func() []*Requests }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) { out <- requestsDesc; out <- durationDesc }

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	// Two upstreams may bear the same labels, such as two subsets of a service.
	sums := map[string]*shown{}
	var order []string
	for _, r := range c.list() {
		r.each(func(status int, flag string, s *series) {
			values := r.labels.values("http", strconv.Itoa(status), flag)
			key := joined(values)
			if sums[key] == nil {
				sums[key] = &shown{values: values}
				order = append(order, key)
			}
			sums[key].add(s)
		})
	}
	slices.Sort(order)
	for _, key := range order {
		sums[key].send(out)
	}
}

func joined(values []string) string {
	var b []byte
	for _, v := range values {
		b = append(append(b, v...), 0)
	}
	return string(b)
}

// each calls fn for every series.
func (r *Requests) each(fn func(status int, flag string, s *series)) {
	for hundreds := range r.classes {
		c := r.classes[hundreds].Load()
		if c == nil {
			continue
		}
		for i := range c {
			if s := c[i].Load(); s != nil {
				fn(100*hundreds+i, NoFlag, s)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, s := range r.flagged {
		fn(k.status, k.flag, s)
	}
}

// shown is the sum of series with the same labels.
type shown struct {
	values  []string
	millis  float64
	buckets [len(bounds) + 1]uint64
}

func (w *shown) add(s *series) {
	w.millis += float64(s.nanoseconds.Load()) / float64(time.Millisecond)
	for i := range s.buckets {
		w.buckets[i] += s.buckets[i].Load()
	}
}

func (w *shown) send(out chan<- prometheus.Metric) {
	count, buckets := uint64(0), make(map[float64]uint64, len(bounds))
	for i, n := range w.buckets {
		count += n
		if i < len(bounds) {
			buckets[bounds[i]] = count
		}
	}
	out <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(count), w.values...)
	out <- prometheus.MustNewConstHistogram(durationDesc, count, w.millis, buckets, w.values...)
}
