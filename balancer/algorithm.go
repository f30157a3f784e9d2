package balancer

import (
	"math/bits"
	"math/rand/v2"
	"sort"
	"sync/atomic"
)

// leastRequest takes the less busy of two random hosts, the power of two
// choices. Where weights differ, hosts are drawn by weight, what each has under
// way is compared per weight, and the first drawn wins a tie: so parts are those
// of the weights when all are idle, and when all are busy.
func (g *group) leastRequest() *candidate {
	if len(g.candidates) == 1 {
		return &g.candidates[0]
	}
	a, b := g.two()
	if uint64(a.host.active.Load())*b.weight <= uint64(b.host.active.Load())*a.weight {
		return a
	}
	return b
}

// two draws two of at least two hosts: by weight, or where all weigh the same
// two different ones.
func (g *group) two() (a, b *candidate) {
	if !g.equal {
		return g.random(), g.random()
	}
	i := rand.IntN(len(g.candidates))
	j := rand.IntN(len(g.candidates) - 1)
	if j >= i {
		j++
	}
	return &g.candidates[i], &g.candidates[j]
}

// random draws a host by weight.
func (g *group) random() *candidate {
	if g.equal {
		return &g.candidates[rand.IntN(len(g.candidates))]
	}
	return g.at(rand.Uint64N(g.weight))
}

// at returns the candidate to whose weight a place belongs, of those added up.
func (g *group) at(place uint64) *candidate {
	i := sort.Search(len(g.candidates), func(i int) bool { return place < g.candidates[i].until })
	return &g.candidates[i]
}

// golden is the golden section of 2^64. Its multiples, modulo that, fall among those
// before them as evenly as can be, however many there are (Fibonacci hashing, Knuth 6.4).
const golden = 0x9e3779b97f4a7c15

// roundRobin takes one host after the other. Where weights differ, turns go by golden
// sections of their sum: each host's come as often as it weighs, evenly spread, and
// nothing is made for that when a host's health, or its weight, changes.
func (g *group) roundRobin(rotation *atomic.Uint32) *candidate {
	n := rotation.Add(1)
	if g.equal {
		return &g.candidates[n%uint32(len(g.candidates))]
	}
	place, _ := bits.Mul64(uint64(n)*golden, g.weight)
	return g.at(place)
}
