package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// latencyDecay is how long a latency is remembered: after so much time without
// a reply it counts for 1/e. Finagle's default for its peak EWMA balancer.
const latencyDecay = 10 * time.Second

// unknownLatency is what a host is charged that is busy and has never
// answered, so that a new host is tried, but not by everybody at once.
const unknownLatency = float64(time.Second)

// latency is a moving average of the time that a host takes to reply. A peak
// counts at once and is forgotten slowly, so that a host in trouble is left
// alone before it fails (peak EWMA, as in Finagle and Linkerd).
//
// Average and time are one word, written without a lock: of two replies at the
// same moment one may be lost, which an average can bear.
type latency struct {
	word atomic.Uint64 // float32 nanoseconds << 32 | milliseconds since the epoch, modulo 2^32
}

func pack(average float64, at time.Time) uint64 {
	return uint64(math.Float32bits(float32(average)))<<32 | uint64(uint32(at.UnixMilli()))
}

// load returns the average and its age.
func (l *latency) load(now time.Time) (average float64, age time.Duration) {
	w := l.word.Load()
	age = time.Duration(int32(uint32(now.UnixMilli())-uint32(w))) * time.Millisecond
	return float64(math.Float32frombits(uint32(w >> 32))), max(age, 0)
}

// observe takes a reply's time in.
func (l *latency) observe(d time.Duration, now time.Time) {
	average, age := l.load(now)
	if average == 0 || float64(d) > average {
		average = float64(d)
	} else {
		w := math.Exp(-float64(age) / float64(latencyDecay))
		average = average*w + float64(d)*(1-w)
	}
	l.word.Store(pack(max(average, 1), now))
}

// cost is the time that a further request would take, more or less: the
// average, forgotten with time, for each request under way and the new one.
// share is how many requests of a host of average weight one of its own is worth.
func (h *Host) cost(now time.Time, share float64) float64 {
	average, age := h.latency.load(now)
	active := float64(h.active.Load()) * share
	if average == 0 {
		return unknownLatency * active
	}
	return average * math.Exp(-float64(age)/float64(latencyDecay)) * (active + 1)
}

// Observe tells the set how long a host took to begin its reply, where the
// algorithm asks for it.
func (s *Set) Observe(h *Host, d time.Duration) {
	if s.observes {
		h.latency.observe(d, time.Now())
	}
}

// peakEWMA takes the one of lower cost of two random hosts, which are drawn by
// weight; requests under way count per weight.
func (g *group) peakEWMA() *candidate {
	if len(g.candidates) == 1 {
		return &g.candidates[0]
	}
	a, b := g.two()
	now, ofA, ofB := time.Now(), 1.0, 1.0
	if !g.equal {
		average := float64(g.weight) / float64(len(g.candidates))
		ofA, ofB = average/float64(a.weight), average/float64(b.weight)
	}
	if b.host.cost(now, ofB) < a.host.cost(now, ofA) {
		return b
	}
	return a
}
