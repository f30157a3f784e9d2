package balancer

import (
	"sync"
	"sync/atomic"
)

// Gate is what the hosts of one cluster share on their way: while it is shut
// none of them gets traffic, and while it is on trial one request at a time
// goes through.
type Gate struct {
	state atomic.Uint32 // State
	busy  atomic.Bool   // a trial is under way

	mu       sync.Mutex // guards watchers
	watchers map[*atomic.Uint64]struct{}
}

// NewGate makes an open gate.
func NewGate() *Gate { return &Gate{watchers: map[*atomic.Uint64]struct{}{}} }

// Set changes the state of the gate: Usable, Ejected or OnTrial.
func (g *Gate) Set(s State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy.Store(false)
	g.state.Store(uint32(s))
	for c := range g.watchers {
		c.Add(1)
	}
}

// State returns the state of the gate.
func (g *Gate) State() State { return State(g.state.Load()) }

// Try says that a trial begins. It ends with Set, or with Done if it proved
// nothing.
func (g *Gate) Try() { g.busy.Store(true) }

// Done is the counterpart of Try.
func (g *Gate) Done() { g.busy.Store(false) }

func (g *Gate) good() bool { return g == nil || State(g.state.Load()) != Ejected }

func (g *Gate) free() bool {
	return g == nil || State(g.state.Load()) != OnTrial || !g.busy.Load()
}

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
