package telemetry

import (
	"encoding/hex"
	"strconv"
	"sync/atomic"
	"time"
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
	h.buckets[bucket(float64(v)/unit)].Add(1)
	h.sum.Add(v)
}

// bucket is the place of the bucket that a value belongs to.
func bucket(v float64) int {
	i := 0
	for i < len(bounds) && v > bounds[i] {
		i++
	}
	return i
}

func (h *histogram) count() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

// series is one combination of labels: how many exchanges took how long, and how
// many bytes.
type series struct {
	took, request, reply histogram
	asks, tells          atomic.Uint64            // messages of gRPC
	exemplar             atomic.Pointer[exemplar] // one that is traced; nil: none yet
}

func (s *series) observe(e *Exchange) {
	s.took.observe(int64(e.Took), float64(time.Millisecond))
	s.request.observe(e.RequestBytes, 1)
	s.reply.observe(e.ReplyBytes, 1)
	if e.GRPC != NoGRPC {
		s.asks.Add(e.RequestMessages)
		s.tells.Add(e.ReplyMessages)
	}
	if e.Trace != [16]byte{} {
		s.keep(e)
	}
}

// exemplarFor is how long the slowest exchange is the exemplar: as Prometheus asks
// once in 15 s or less often, each that it is told is the slowest of some time.
const exemplarFor = 15 * time.Second

// keep makes a traced exchange the exemplar if it took longer than the one that is,
// or that is old.
func (s *series) keep(e *Exchange) {
	x := s.exemplar.Load()
	if x == nil || e.Took > x.took || e.End-x.end >= int64(exemplarFor) {
		s.exemplar.Store(&exemplar{trace: e.Trace, took: e.Took, end: e.End})
	}
}

// exemplar is an exchange that can be looked at more closely.
type exemplar struct {
	trace [16]byte
	took  time.Duration
	end   int64 // as Exchange.End
}

// append adds the exemplar to the line of its bucket.
func (x *exemplar) append(dst []byte, unit float64) []byte {
	dst = hex.AppendEncode(append(dst, ` # {trace_id="`...), x.trace[:])
	dst = strconv.AppendFloat(append(dst, `"} `...), float64(x.took)/unit, 'g', -1, 64)
	return strconv.AppendFloat(append(dst, ' '), float64(x.end/int64(time.Millisecond))/1e3, 'f', 3, 64)
}
