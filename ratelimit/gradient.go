package ratelimit

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/mesh"
)

// Gradient bounds how many requests an upstream has under way by how long they
// take: when they take longer than they use to, a queue has grown somewhere, and
// fewer are let through. The gradient is that of Netflix's concurrency-limits; what
// is usual is looked at now and then with few requests under way, as Envoy's
// adaptive_concurrency does, since under a load that never ends everything would
// become usual. Its methods may be called by any goroutine.
type Gradient struct {
	limit atomic.Uint64 // bits of a float64; written by whoever ends a window

	// Of the window under way.
	count atomic.Int64
	sum   atomic.Int64 // of durations, in ns
	most  atomic.Int32 // requests that were under way

	let  atomic.Uint64 // through
	shed [mesh.Priorities]atomic.Uint64

	mu      sync.Mutex    // guards what is below
	began   time.Duration // the window
	usual   float64       // how long requests take usually, in ns; 0: not known
	looked  time.Duration // when that was looked at
	looking int           // windows that the look still takes; 0: there is none
	before  float64       // the limit before the look
}

// The numbers are those of Netflix's Gradient2Limit, but for the windows, which are
// counts of requests there.
const (
	firstLimit = 20
	leastLimit = 4
	mostLimit  = 10_000

	window      = 100 * time.Millisecond // is over with
	windowCount = 10                     // so many samples at least
	tolerance   = 1.5                    // how many times longer than usual is still usual
	inertia     = 0.2                    // weight of a new limit

	lookEvery   = 30 * time.Second // at what is usual; Envoy: 60 s
	lookWindows = 2                // it takes: one for older requests to end, one that counts
	lookPart    = 4                // the limit is divided by this meanwhile
)

// NewGradient makes a Gradient that has seen nothing.
func NewGradient() *Gradient {
	g := &Gradient{}
	g.limit.Store(math.Float64bits(firstLimit))
	return g
}

// Limit returns how many requests may be under way now.
func (g *Gradient) Limit() float64 { return math.Float64frombits(g.limit.Load()) }

// shares are the parts of the limit that requests of each priority may fill: when
// there is no room for all, the least important go first.
var shares = [mesh.Priorities]float64{mesh.P1: 1, mesh.P2: 0.9, mesh.P3: 0.75, mesh.P4: 0.5}

// Admit reports whether a request may be sent, with which active are under way.
func (g *Gradient) Admit(active int32, p mesh.Priority) bool {
	if float64(active) <= max(g.Limit()*shares[p], 1) {
		g.let.Add(1)
		return true
	}
	g.shed[p].Add(1)
	return false
}

// Admitted returns how many requests were let through.
func (g *Gradient) Admitted() uint64 { return g.let.Load() }

// Shed returns how many requests of a priority were not let through.
func (g *Gradient) Shed(p mesh.Priority) uint64 { return g.shed[p].Load() }

// Inherit adds what another one, which is gone, has let through and not.
func (g *Gradient) Inherit(o *Gradient) {
	g.let.Add(o.let.Load())
	for p := range g.shed {
		g.shed[p].Add(o.shed[p].Load())
	}
}

// Observe notes how long a request took, at a moment of a monotonic clock, and how
// many were under way with it.
func (g *Gradient) Observe(now, took time.Duration, active int32) {
	g.sum.Add(int64(took))
	n := g.count.Add(1)
	for {
		most := g.most.Load()
		if active <= most || g.most.CompareAndSwap(most, active) {
			break
		}
	}
	if n < windowCount || !g.mu.TryLock() {
		return
	}
	defer g.mu.Unlock()
	if now-g.began < window {
		return
	}
	g.began = now
	if n = g.count.Swap(0); n == 0 {
		return // somebody else has ended it just now
	}
	g.adjust(now, float64(g.sum.Swap(0))/float64(n), g.most.Swap(0))
}

// adjust ends a window in which requests took so long, and so many were under way
// at most.
func (g *Gradient) adjust(now time.Duration, took float64, most int32) {
	limit := g.Limit()
	switch {
	case g.usual == 0:
		g.usual, g.looked = took, now
	case g.looking > 1:
		g.looking--
		return
	case g.looking == 1:
		g.looking, g.usual, g.looked = 0, took, now
		g.limit.Store(math.Float64bits(g.before))
		return
	case now-g.looked > lookEvery:
		g.looking, g.before = lookWindows, limit
		g.limit.Store(math.Float64bits(max(limit/lookPart, leastLimit)))
		return
	}
	g.usual = min(g.usual, took)
	if float64(most) < limit/2 {
		return // nothing can be learnt of a limit that is not reached
	}
	gradient := min(max(tolerance*g.usual/took, 0.5), 1)
	next := limit*gradient + math.Sqrt(limit) // a short queue keeps the upstream busy
	next = limit*(1-inertia) + next*inertia
	g.limit.Store(math.Float64bits(min(max(next, leastLimit), mostLimit)))
}
