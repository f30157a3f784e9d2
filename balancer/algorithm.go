package balancer

import (
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
	n := rand.Uint64N(g.weight)
	i := sort.Search(len(g.candidates), func(i int) bool { return n < g.candidates[i].until })
	return &g.candidates[i]
}

// roundRobin takes one host after the other, by weight.
func (g *group) roundRobin(rotation *atomic.Uint32) *candidate {
	n := rotation.Add(1)
	if g.schedule != nil {
		return &g.candidates[g.schedule[n%uint32(len(g.schedule))]]
	}
	return &g.candidates[n%uint32(len(g.candidates))]
}

// maxSchedule bounds the length of a schedule; weights are scaled to fit.
const maxSchedule = 1 << 14

// stride makes a round in which each host comes as often as it weighs, evenly
// spread: always the host that is furthest behind (smooth weighted round
// robin, as nginx does it).
func stride(hosts []candidate) []uint16 {
	if len(hosts) > maxSchedule {
		return nil
	}
	var total uint64
	divisor := uint64(0)
	for _, c := range hosts {
		total += c.weight
		divisor = gcd(c.weight, divisor)
	}
	divisor = max(divisor, (total+maxSchedule-1)/maxSchedule)
	weights := make([]int64, len(hosts))
	sum := int64(0)
	for i, c := range hosts {
		weights[i] = int64(max(c.weight/divisor, 1))
		sum += weights[i]
	}
	current := make([]int64, len(hosts))
	schedule := make([]uint16, 0, sum)
	for range sum {
		best := 0
		for i := range current {
			current[i] += weights[i]
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= sum
		schedule = append(schedule, uint16(best))
	}
	return schedule
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
