package telemetry

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Mirrors counts the copies of requests that mirrors were to get, by what
// became of them. It is a [prometheus.Collector].
type Mirrors struct {
	Answered   atomic.Uint64 // with whatever status
	Failed     atomic.Uint64 // no whole reply came
	Dropped    atomic.Uint64 // never sent: too many were under way
	Unbuffered atomic.Uint64 // never sent: the body was too large to hold, or still to come
}

var mirrorsDesc = prometheus.NewDesc("isthmus_mirrored_requests_total", "Copies of requests for mirrors by what became of them.", []string{"outcome"}, nil)

// Describe implements [prometheus.Collector].
func (m *Mirrors) Describe(out chan<- *prometheus.Desc) { out <- mirrorsDesc }

// Collect implements [prometheus.Collector].
func (m *Mirrors) Collect(out chan<- prometheus.Metric) {
	for outcome, n := range map[string]*atomic.Uint64{"answered": &m.Answered, "failed": &m.Failed, "dropped": &m.Dropped, "unbuffered": &m.Unbuffered} {
		out <- prometheus.MustNewConstMetric(mirrorsDesc, prometheus.CounterValue, float64(n.Load()), outcome)
	}
}
