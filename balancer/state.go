package balancer

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"isthmus/mesh"
)

// state is what a Set has worked out of the health of its hosts. It does not
// change.
type state struct {
	version uint64
	good    []candidate
	groups  []group // by priority; some may have no share
	total   uint64  // the sum of all shares
}

// group is the good hosts of one locality, or of one priority where the
// localities within it do not matter.
type group struct {
	priority   int
	locality   string
	until      uint64 // the shares of the groups up to this one, added up
	candidates []candidate
	weight     uint64   // of all candidates
	equal      bool     // all candidates weigh the same
	schedule   []uint16 // of round robin, with unequal weights
}

// candidate is a good host.
type candidate struct {
	host   *Host
	index  int
	weight uint32
	until  uint64 // the weights up to this one, added up
}

// current returns the state for the hosts as they are, computing it anew if
// one has changed.
func (s *Set) current() *state {
	v := s.version.Load()
	if st := s.state.Load(); st != nil && st.version == v {
		return st
	}
	return s.rebuild(v)
}

// rebuild computes the state. Two callers may do it at once; both get the
// same.
func (s *Set) rebuild(v uint64) *state {
	st := &state{version: v}
	byKey := map[groupKey]*cell{}
	var cells []*cell
	for i, h := range s.hosts {
		e := h.Endpoint()
		k := groupKey{s.plan.priority(e), e.Locality}
		c := byKey[k]
		if c == nil {
			c = &cell{key: k}
			byKey[k] = c
			cells = append(cells, c)
		}
		member := candidate{host: h, index: i, weight: max(e.Weight, 1)}
		c.all = append(c.all, member)
		c.weight += uint64(member.weight)
		if h.good() {
			c.good = append(c.good, member)
			st.good = append(st.good, member)
		}
	}
	slices.SortFunc(cells, func(a, b *cell) int {
		return cmp.Or(cmp.Compare(a.key.priority, b.key.priority), cmp.Compare(a.key.locality.String(), b.key.locality.String()))
	})
	if len(s.hosts) > 0 {
		s.share(st, cells)
	}
	s.state.Store(st)
	return st
}

type groupKey struct {
	priority int
	locality mesh.Locality
}

// cell is the hosts of one locality in one priority.
type cell struct {
	key       groupKey
	all, good []candidate
	weight    uint64 // of all
}

// shareUnit is what the shares of all groups add up to, nearly.
const shareUnit = 1 << 20

// share gives each cell with somebody to serve its part of the traffic.
func (s *Set) share(st *state, cells []*cell) {
	levels := levelsOf(cells)
	var shares []float64 // of each cell
	if s.plan.distribute != nil {
		shares = s.plan.shareOut(cells)
	}
	if shares == nil {
		loads, panicking := priorityLoads(levels, s.panicAt)
		for i, l := range levels {
			if panicking[i] {
				for _, c := range l.cells {
					c.good = c.all
				}
				st.good = appendMissing(st.good, l.cells)
			}
			shares = append(shares, l.split(loads[i])...)
		}
	}
	for i, c := range cells {
		if len(c.good) == 0 {
			continue
		}
		st.add(c, uint64(math.Round(shares[i]*shareUnit)))
	}
	if st.total == 0 && len(st.groups) > 0 {
		// Nobody has a share, but somebody is good: the first serves.
		st.groups[0].until, st.total = 1, 1
		for i := range st.groups {
			st.groups[i].until = 1
		}
	}
}

func appendMissing(good []candidate, cells []*cell) []candidate {
	for _, c := range cells {
		for _, m := range c.all {
			if !slices.ContainsFunc(good, func(g candidate) bool { return g.index == m.index }) {
				good = append(good, m)
			}
		}
	}
	return good
}

// add appends a group for a cell.
func (st *state) add(c *cell, share uint64) {
	st.total += share
	g := group{
		priority:   c.key.priority,
		locality:   c.key.locality.String(),
		until:      st.total,
		candidates: slices.Clone(c.good),
		equal:      true,
	}
	for i := range g.candidates {
		m := &g.candidates[i]
		g.weight += uint64(m.weight)
		m.until = g.weight
		g.equal = g.equal && m.weight == g.candidates[0].weight
	}
	if !g.equal {
		g.schedule = stride(g.candidates)
	}
	st.groups = append(st.groups, g)
}

// draw picks a group by its share.
func (st *state) draw() *group {
	if len(st.groups) == 1 {
		return &st.groups[0]
	}
	n := rand.Uint64N(st.total)
	for i := range st.groups {
		if n < st.groups[i].until {
			return &st.groups[i]
		}
	}
	return &st.groups[len(st.groups)-1]
}
