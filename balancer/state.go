package balancer

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"isthmus/mesh"
)

// state is what a Set has worked out of the health of its hosts. It does not
// change.
type state struct {
	version uint64
	made    time.Time
	expires time.Time // when weights will have grown; zero: never
	usable  int       // hosts that may get traffic
	groups  []group   // by priority; some may have no share
	total   uint64    // the sum of all shares
}

// group is the hosts of one locality that can serve, or of one priority where
// the localities within it do not matter (Set.byLocality).
type group struct {
	priority   int
	locality   string
	degraded   bool
	panicking  bool    // health is ignored
	part       float64 // of the traffic
	share      uint64  // the same, of shareUnit
	until      uint64  // the shares of the groups up to this one, added up
	seed       uint64  // of what hashes are to the group
	candidates []candidate
	weight     uint64    // of all candidates
	equal      bool      // all candidates weigh the same
	table      hashTable // of consistent hashing
}

// takes reports whether a host of the group's cell is one of its candidates now.
func (g *group) takes(h *Host) bool {
	return g.panicking || h.good() && h.Endpoint().Degraded == g.degraded
}

// candidate is a host that can serve.
type candidate struct {
	host   *Host
	index  int
	weight uint64
	until  uint64 // the weights up to this one, added up
}

// current returns the state for the hosts as they are, computing it anew if
// one has changed.
func (s *Set) current() *state {
	st := s.state.Load()
	if s.holds(st) {
		return st
	}
	st, _ = s.rebuild(st)
	return st
}

// holds reports whether no host has changed since a state was computed.
func (s *Set) holds(st *state) bool {
	return st != nil && st.version == s.version.Load() && (st.expires.IsZero() || time.Now().Before(st.expires))
}

// Of many hosts there is always one that changes, where a part of them fails: computing
// the state takes 2 ms with 10,000 of them, and the request that finds it outdone does it.
// From lagFrom hosts on, requests go on with a state for lagEach for each host, and pass
// over who is no candidate any longer.
const (
	lagFrom = 1000
	lagEach = 4 * time.Microsecond
)

// latest returns a state to pick from; holds is false if hosts have changed since.
func (s *Set) latest() (st *state, holds bool) {
	st = s.state.Load()
	switch {
	case s.holds(st):
		return st, true
	case st != nil && len(s.hosts) >= lagFrom && time.Since(st.made) < time.Duration(len(s.hosts))*lagEach:
		return st, false
	}
	return s.rebuild(st)
}

// rebuild computes the state. While one caller does, the others go on with the
// one before, which does not hold.
func (s *Set) rebuild(before *state) (st *state, holds bool) {
	if before == nil {
		s.mu.Lock()
	} else if !s.mu.TryLock() {
		return before, false
	}
	defer s.mu.Unlock()
	now := time.Now()
	st = &state{version: s.version.Load(), made: now}
	cells, growing := s.cells(now)
	if growing {
		st.expires = now.Add(max(s.warmup.Duration/warmSteps, time.Millisecond))
	}
	if len(cells) > 0 {
		s.share(st, cells)
	}
	s.state.Store(st)
	return st, true
}

// byLocality reports whether the localities of one priority have shares of their
// own. Otherwise requests that belong to a host find it among all of the
// priority: if they found its locality first, the others there would lose some of
// theirs with every host that fails.
func (s *Set) byLocality() bool {
	return s.hash == nil || s.plan.distribute != nil || s.plan.leastHosts > 0
}

// cells sorts the hosts by priority and locality. growing says that one of
// them warms up.
func (s *Set) cells(now time.Time) (cells []*cell, growing bool) {
	byKey, byLocality := map[groupKey]*cell{}, s.byLocality()
	for i, h := range s.hosts {
		e := h.Endpoint()
		k := groupKey{s.plan.priority(e), e.Locality}
		if !byLocality {
			k.locality = mesh.Locality{}
		}
		c := byKey[k]
		if c == nil {
			c = &cell{key: k}
			byKey[k] = c
			cells = append(cells, c)
		}
		weight, grows := s.weigh(h, now)
		member := candidate{host: h, index: i, weight: weight}
		if s.warmup != nil {
			c.weight += uint64(min(max(e.Weight, 1), maxWeight)) * weightUnit
		} else {
			c.weight += weight
		}
		c.all = append(c.all, member)
		switch {
		case !h.good():
			continue
		case e.Degraded:
			c.degraded = append(c.degraded, member)
		default:
			c.good = append(c.good, member)
		}
		growing = growing || grows
	}
	slices.SortFunc(cells, func(a, b *cell) int {
		return cmp.Or(cmp.Compare(a.key.priority, b.key.priority), cmp.Compare(a.key.locality.String(), b.key.locality.String()))
	})
	return cells, growing
}

type groupKey struct {
	priority int
	locality mesh.Locality
}

// cell is the hosts of one locality in one priority, or of all there.
type cell struct {
	key                 groupKey
	all, good, degraded []candidate
	weight              uint64 // of all, none of them warming up
	panicking           bool
}

// panic makes all hosts serve, whatever their health.
func (c *cell) panic() { c.panicking, c.good, c.degraded = true, c.all, nil }

// shareUnit is what the shares of all groups add up to, nearly.
const shareUnit = 1 << 20

// share gives each cell with somebody to serve its part of the traffic: those
// in full health first, then the degraded.
func (s *Set) share(st *state, cells []*cell) {
	var good, degraded []float64
	if s.plan.distribute != nil {
		good, degraded = s.plan.shareOut(cells, s.panicAt)
	}
	if good == nil {
		good, degraded = s.byPriority(cells)
	}
	for _, spared := range [...]bool{false, true} {
		for i, c := range cells {
			list, part := c.good, good[i]
			if spared {
				list, part = c.degraded, degraded[i]
			}
			if len(list) > 0 {
				st.usable += len(list)
				st.groups = append(st.groups, s.newGroup(c, list, spared))
				g := &st.groups[len(st.groups)-1]
				g.part, g.share = part, uint64(math.Round(part*shareUnit))
				st.total += g.share
				g.until = st.total
			}
		}
	}
	if st.total == 0 && len(st.groups) > 0 {
		// Nobody has a share, but somebody is good: the first serves.
		for i := range st.groups {
			st.groups[i].until = 1
		}
		st.groups[0].share, st.total = 1, 1
	}
}

// byPriority divides traffic among priorities, and that of each among its
// localities by what they can carry.
func (s *Set) byPriority(cells []*cell) (good, degraded []float64) {
	levels := levelsOf(cells)
	for i, load := range priorityLoads(levels, s.panicAt) {
		l := &levels[i]
		healthy, spared := make([]uint64, len(l.cells)), make([]uint64, len(l.cells))
		for j, c := range l.cells {
			if load.panicking {
				c.panic()
			}
			healthy[j], spared[j] = weightOf(c.good), weightOf(c.degraded)
		}
		shares := s.plan.zoneShares(load.good, l.cells, healthy)
		if shares == nil || load.panicking {
			shares = split(load.good, healthy)
		}
		good = append(good, shares...)
		degraded = append(degraded, split(load.degraded, spared)...)
	}
	return good, degraded
}

// newGroup makes a group of a cell's hosts in one state of health.
func (s *Set) newGroup(c *cell, list []candidate, degraded bool) group {
	g := group{
		priority:   c.key.priority,
		locality:   c.key.locality.String(),
		degraded:   degraded,
		panicking:  c.panicking,
		candidates: list,
		equal:      true,
	}
	if !s.byLocality() {
		g.locality = localityOf(list)
	}
	if s.hash != nil {
		g.table, g.seed = s.tableOf(c), mix(xxhash.Sum64String(c.key.locality.String())+uint64(c.key.priority)<<1)
		if degraded {
			g.seed++
		}
		return g
	}
	for i := range list {
		m := &list[i]
		g.weight += m.weight
		m.until = g.weight
		g.equal = g.equal && m.weight == list[0].weight
	}
	return g
}

// tableOf returns the hash table of a cell, which is made once: the hosts of a
// set do not change, only their health does. The caller holds mu.
func (s *Set) tableOf(c *cell) hashTable {
	t := s.tables[c.key]
	if t == nil {
		t = newHashTable(s.kind, c.all, s.hash.TableSize)
		s.tables[c.key] = t
	}
	return t
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

// groupFor returns the group that a hash belongs to.
func (st *state) groupFor(hash uint64) *group {
	if g := &st.groups[0]; g.share == st.total {
		return g
	}
	return st.drawFor(hash)
}

// drawFor picks the group that a hash belongs to, each with its share of the
// hashes. When shares change, only so many hashes move as must (weighted
// rendezvous hashing), for which shares that are rounded do not do.
func (st *state) drawFor(hash uint64) *group {
	var best *group
	most := 0.0
	for i := range st.groups {
		g := &st.groups[i]
		if g.share == st.total {
			return g
		}
		if g.share == 0 {
			continue
		}
		point := (float64(mix(hash^g.seed)>>11) + .5) / (1 << 53) // between 0 and 1
		if score := g.part / -math.Log(point); score > most {
			best, most = g, score
		}
	}
	return best
}

const severalLocalities = "*"

// localityOf is that of all hosts, if they have one.
func localityOf(list []candidate) string {
	l := list[0].host.Endpoint().Locality
	for i := range list {
		if list[i].host.Endpoint().Locality != l {
			return severalLocalities
		}
	}
	return l.String()
}
