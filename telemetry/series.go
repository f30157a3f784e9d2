package telemetry

import (
	"encoding/hex"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// bounds are the upper bounds of Istio's histograms, of milliseconds and of bytes
// (Envoy's defaults).
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// histogram counts values in buckets.
type histogram struct {
	sum     atomic.Int64
	buckets [len(bounds) + 1]atomic.Uint64 // not cumulative; their sum is the count
}

// observe counts a value; unit is how much of it is one of the bounds' units.
func (h *histogram) observe(v int64, unit float64) {
	scaled := float64(v) / unit
	i := 0
	for i < len(bounds) && scaled > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(v)
}

func (h *histogram) count() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

func (h *histogram) metric(d *prometheus.Desc, unit float64, labels []string) prometheus.Metric {
	count, buckets := uint64(0), make(map[float64]uint64, len(bounds))
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < len(bounds) {
			buckets[bounds[i]] = count
		}
	}
	return prometheus.MustNewConstHistogram(d, count, float64(h.sum.Load())/unit, buckets, labels...)
}

// series is one combination of labels: how many exchanges took how long, and how
// many bytes.
type series struct {
	took, request, reply histogram
	exemplar             atomic.Pointer[exemplar] // the last one that is traced; nil: none yet
}

func (s *series) observe(e *Exchange) {
	s.took.observe(int64(e.Took), float64(time.Millisecond))
	s.request.observe(e.RequestBytes, 1)
	s.reply.observe(e.ReplyBytes, 1)
	if e.Trace != [16]byte{} {
		s.exemplar.Store(&exemplar{trace: e.Trace, took: e.Took, at: time.Now()})
	}
}

// exemplar is an exchange that can be looked at more closely.
type exemplar struct {
	trace [16]byte
	took  time.Duration
	at    time.Time
}

// on adds the exemplar to a histogram of durations. It is shown to whoever asks
// for OpenMetrics.
func (x *exemplar) on(m prometheus.Metric) prometheus.Metric {
	with, err := prometheus.NewMetricWithExemplars(m, prometheus.Exemplar{
		Value: float64(x.took) / float64(time.Millisecond), Timestamp: x.at,
		Labels: prometheus.Labels{"trace_id": hex.EncodeToString(x.trace[:])},
	})
	if err != nil {
		return m
	}
	return with
}
