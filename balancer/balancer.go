// Package balancer picks the endpoint that a request goes to.
//
// A [Set] is the hosts of one upstream in the order that a policy gives them
// as seen from one locality. What can be decided before a request comes is
// decided when a host's health changes: the set then computes a new state,
// groups of good hosts with the share of each. A pick loads that state, draws a
// group, and lets the algorithm choose within it; it takes no lock and
// allocates nothing.
package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"isthmus/mesh"
)

// Picker chooses one of a list of hosts.
type Picker interface {
	// Pick returns the index of a good host that is none of tried. hash says
	// where the request belongs, where the algorithm asks for it; 0: anywhere. ok
	// is false if there is no such host.
	Pick(tried []*Host, hash uint64) (index int, ok bool)
}

// Set is the hosts of one upstream with its policy. Close it when the upstream
// is gone.
type Set struct {
	hosts    []*Host
	kind     mesh.LoadBalancerKind
	hash     *mesh.HashPolicy // nil unless kind asks for it
	warmup   *mesh.Warmup     // nil: none
	observes bool             // the algorithm wants to know latencies
	plan     plan
	panicAt  int           // percent of healthy hosts below which health is ignored; 0: never
	version  atomic.Uint64 // bumped by hosts that change
	state    atomic.Pointer[state]
	rotation atomic.Uint32 // of round robin

	mu     sync.Mutex // held by who computes a state; guards tables
	tables map[groupKey]hashTable
}

// NewSet makes a set. lb and outlier may be nil.
func NewSet(hosts []*Host, lb *mesh.LoadBalancer, outlier *mesh.OutlierDetection, from Caller) *Set {
	s := &Set{hosts: hosts}
	if lb != nil {
		s.kind = lb.Kind
		s.observes = lb.Kind == mesh.PeakEWMA
		if lb.Kind == mesh.RingHash || lb.Kind == mesh.Maglev {
			s.hash, s.tables = lb.Hash, map[groupKey]hashTable{}
		} else {
			s.warmup = lb.Warmup
		}
	}
	if outlier != nil {
		s.panicAt = int(outlier.MinHealthPercent)
	}
	s.plan = newPlan(lb, from)
	// Not all proxies begin with the same host after a change, nor this one after each.
	s.rotation.Store(rand.Uint32())
	for _, h := range hosts {
		h.watch(&s.version)
	}
	return s
}

// Close lets go of the hosts.
func (s *Set) Close() {
	for _, h := range s.hosts {
		h.unwatch(&s.version)
	}
}

// Hosts returns the hosts in the order given to NewSet.
func (s *Set) Hosts() []*Host { return s.hosts }

// Usable returns how many hosts may get traffic.
func (s *Set) Usable() int { return s.current().usable }

// Several reports whether there is more than one of these, by what was last worked out: of
// many hosts some change all the time, and each request asks.
func (s *Set) Several() bool {
	st, _ := s.latest()
	return st.usable > 1
}

// Pick implements [Picker].
func (s *Set) Pick(tried []*Host, hash uint64) (int, bool) {
	st, holds := s.latest()
	if !holds {
		if i, ok := s.pickChanged(st, tried, hash); ok {
			return i, true
		}
		st = s.current()
	}
	if st.usable <= 1 {
		if st.usable == 0 {
			return 0, false
		}
		c := &st.groups[0].candidates[0]
		return c.index, c.host.free() && !contains(tried, c.host)
	}
	if s.hash != nil {
		return s.pickByHash(st, tried, hash)
	}
	g := st.draw()
	if c := s.choose(g); c.host.free() && !contains(tried, c.host) {
		return c.index, true
	}
	return st.search(g, tried)
}

// luck is how many hosts are chosen from a state that does not hold before it is given up.
const luck = 8

// pickChanged picks by a state from before some hosts have changed: of those that it
// chooses, one that is good now.
func (s *Set) pickChanged(st *state, tried []*Host, hash uint64) (int, bool) {
	switch {
	case st.usable == 0:
		return 0, false
	case s.hash != nil && hash == 0:
		hash = rand.Uint64() | 1
	}
	if s.hash != nil {
		return s.byHash(st.groupFor(hash), hash, tried)
	}
	g := st.draw()
	for range luck {
		if c := s.choose(g); g.takes(c.host) && c.host.free() && !contains(tried, c.host) {
			return c.index, true
		}
	}
	return 0, false
}

// pickByHash picks the host to which a hash belongs, any if there is no hash.
func (s *Set) pickByHash(st *state, tried []*Host, hash uint64) (int, bool) {
	if hash == 0 {
		hash = rand.Uint64() | 1
	}
	g := st.groupFor(hash)
	if i, ok := s.byHash(g, hash, tried); ok {
		return i, true
	}
	return st.search(g, tried)
}

// PickBeyond picks a good host in a locality where none of tried is, in the
// order of priority.
func (s *Set) PickBeyond(tried []*Host) (int, bool) {
	st, holds := s.latest()
	i, ok := st.pickBeyond(tried)
	if !ok && !holds {
		i, ok = s.current().pickBeyond(tried)
	}
	return i, ok
}

func (st *state) pickBeyond(tried []*Host) (int, bool) {
	near := func(h *Host) bool {
		l := h.Endpoint().Locality
		return slices.ContainsFunc(tried, func(t *Host) bool { return t.Endpoint().Locality == l })
	}
	for i := range st.groups {
		g := &st.groups[i]
		list := g.candidates
		if g.locality != severalLocalities && near(list[0].host) {
			continue
		}
		start := rand.IntN(len(list))
		for j := range list {
			if c := &list[(start+j)%len(list)]; g.takes(c.host) && c.host.free() && !near(c.host) {
				return c.index, true
			}
		}
	}
	return 0, false
}

// search looks through all good hosts, from a random one on: first those of
// the group drawn, then the others in the order of their priority, those
// without a share last.
func (st *state) search(g *group, tried []*Host) (int, bool) {
	if c := scan(g.candidates, tried); c != nil {
		return c.index, true
	}
	for _, shared := range [...]bool{true, false} {
		before := uint64(0)
		for i := range st.groups {
			o := &st.groups[i]
			if (o.until > before) == shared {
				if c := scan(o.candidates, tried); c != nil {
					return c.index, true
				}
			}
			before = o.until
		}
	}
	return 0, false
}

func scan(list []candidate, tried []*Host) *candidate {
	start := rand.IntN(len(list))
	for i := range list {
		c := &list[(start+i)%len(list)]
		if c.host.free() && !contains(tried, c.host) {
			return c
		}
	}
	return nil
}

// PickLastResort picks where no good host is left: one that is not ready, or
// that was ejected because it could not be connected to. Hosts ejected for
// their replies are none (minHealthPercent 0 means 503 when all are ejected).
func (s *Set) PickLastResort(tried []*Host, hash uint64) (int, bool) {
	if len(s.hosts) == 0 {
		return 0, false
	}
	start := rand.IntN(len(s.hosts))
	for i := range s.hosts {
		i = (start + i) % len(s.hosts)
		if h := s.hosts[i]; h.LastResort() && !contains(tried, h) {
			return i, true
		}
	}
	return 0, false
}

func contains(list []*Host, h *Host) bool {
	for _, t := range list {
		if t == h {
			return true
		}
	}
	return false
}

// choose lets the algorithm pick within a group.
func (s *Set) choose(g *group) *candidate {
	switch s.kind {
	case mesh.RoundRobin:
		return g.roundRobin(&s.rotation)
	case mesh.Random:
		return g.random()
	case mesh.PeakEWMA:
		return g.peakEWMA()
	}
	return g.leastRequest()
}

// Describe prints what the set does with traffic: a line for each group, in
// the order of their priority.
func (s *Set) Describe() string {
	st := s.current()
	var b strings.Builder
	before := uint64(0)
	for i := range st.groups {
		g := &st.groups[i]
		share := 100 * float64(g.until-before) / float64(max(st.total, 1))
		before = g.until
		fmt.Fprintf(&b, "P%d %s", g.priority, g.locality)
		if g.degraded {
			b.WriteString(" degraded")
		}
		fmt.Fprintf(&b, " %.1f%%:", share)
		for _, c := range g.candidates {
			fmt.Fprintf(&b, " %s", c.host.Endpoint().Address)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
