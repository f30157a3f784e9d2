package balancer

import (
	"sync"
	"sync/atomic"
)

// Gate is what the hosts of one cluster share on their way: while it is shut
// none of them gets traffic.
type Gate struct {
	shut atomic.Bool

	mu       sync.Mutex // guards watchers
	watchers map[*atomic.Uint64]struct{}
}

// NewGate makes an open gate.
func NewGate() *Gate { return &Gate{watchers: map[*atomic.Uint64]struct{}{}} }

// Shut shuts the gate, or opens it.
func (g *Gate) Shut(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut.Swap(shut) == shut {
		return
	}
	for c := range g.watchers {
		c.Add(1)
	}
}

// IsShut reports whether none of the hosts behind the gate gets traffic.
func (g *Gate) IsShut() bool { return !g.open() }

func (g *Gate) open() bool { return g == nil || !g.shut.Load() }

func (g *Gate) watch(counter *atomic.Uint64) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers[counter] = struct{}{}
}

func (g *Gate) unwatch(counter *atomic.Uint64) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.watchers, counter)
}
