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
	"strings"
	"sync/atomic"

	"isthmus/mesh"
)

// Picker chooses one of a list of hosts.
type Picker interface {
	// Pick returns the index of a good host that is none of tried. ok is false
	// if there is none.
	Pick(tried []*Host) (index int, ok bool)
}

// Set is the hosts of one upstream with its policy. Close it when the upstream
// is gone.
type Set struct {
	hosts    []*Host
	kind     mesh.LoadBalancerKind
	plan     plan
	panicAt  int           // percent of healthy hosts below which health is ignored; 0: never
	version  atomic.Uint64 // bumped by hosts that change
	state    atomic.Pointer[state]
	rotation atomic.Uint32 // of round robin
}

// NewSet makes a set. from and labels are the locality and the labels of the
// proxy; lb and outlier may be nil.
func NewSet(hosts []*Host, lb *mesh.LoadBalancer, outlier *mesh.OutlierDetection, from mesh.Locality, labels map[string]string) *Set {
	s := &Set{hosts: hosts}
	if lb != nil {
		s.kind = lb.Kind
	}
	if outlier != nil {
		s.panicAt = int(outlier.MinHealthPercent)
	}
	s.plan = newPlan(lb, from, labels)
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
func (s *Set) Usable() int { return len(s.current().good) }

// Pick implements [Picker].
func (s *Set) Pick(tried []*Host) (int, bool) {
	st := s.current()
	if len(st.good) == 0 {
		return 0, false
	}
	if len(st.good) == 1 {
		c := &st.good[0]
		return c.index, c.host.free() && !contains(tried, c.host)
	}
	g := st.draw()
	if c := s.choose(g); c != nil && c.host.free() && !contains(tried, c.host) {
		return c.index, true
	}
	return s.search(st, g, tried)
}

// search looks through all good hosts, from a random one on: first those of
// the group drawn, then the others in the order of their priority, those
// without a share last.
func (s *Set) search(st *state, g *group, tried []*Host) (int, bool) {
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
	if len(list) == 0 {
		return nil
	}
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
func (s *Set) PickLastResort(tried []*Host) (int, bool) {
	if len(s.hosts) == 0 {
		return 0, false
	}
	start := rand.IntN(len(s.hosts))
	for i := range s.hosts {
		i = (start + i) % len(s.hosts)
		if h := s.hosts[i]; h.lastResort() && !contains(tried, h) {
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
		fmt.Fprintf(&b, "P%d %s %.1f%%:", g.priority, g.locality, share)
		for _, c := range g.candidates {
			fmt.Fprintf(&b, " %s", c.host.Endpoint().Address)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
