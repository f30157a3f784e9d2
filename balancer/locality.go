package balancer

import (
	"slices"
	"strings"

	"isthmus/mesh"
)

// plan is what a policy makes of localities, seen from one proxy.
type plan struct {
	from       mesh.Locality
	cluster    string            // of the proxy
	labels     map[string]string // likewise
	off        bool              // one priority for all
	distribute *mesh.Distribute  // the one whose From matches the proxy: what it lists is the first priority
	failover   []mesh.Failover
	byLabels   []string // failoverPriority

	leastHosts int   // of zoneAwareLbSetting; 0: zones are priorities
	peers      Zones // of the proxy
}

func newPlan(lb *mesh.LoadBalancer, caller Caller) plan {
	from := caller.Locality
	p := plan{from: from, cluster: caller.Cluster, labels: caller.Labels}
	if lb == nil || lb.Locality == nil {
		p.off = from == mesh.Locality{}
		return p
	}
	l := lb.Locality
	switch {
	case l.Disabled:
		p.off = true
	case len(l.Distribute) > 0:
		// Without a rule for this locality, Istio balances over all.
		p.off = true
		for i := range l.Distribute {
			if from.Matches(l.Distribute[i].From) {
				p.distribute, p.off = &l.Distribute[i], false
				break
			}
		}
	default:
		p.leastHosts, p.peers = int(l.LeastHosts), caller.Peers
		p.failover, p.byLabels = l.Failover, l.FailoverPriority
		p.off = from == mesh.Locality{} && len(p.byLabels) == 0
	}
	return p
}

// priority returns the priority of an endpoint, 0 the best. Gaps do no harm.
func (p *plan) priority(e *mesh.Endpoint) int {
	if p.off {
		return 0
	}
	if p.distribute != nil {
		if p.lists(e.Locality) {
			return 0
		}
		return 1 + p.localityRank(e.Locality)
	}
	rank := 0
	if len(p.byLabels) > 0 {
		rank = p.labelRank(e)
		if len(p.failover) == 0 && p.leastHosts == 0 {
			return rank
		}
	}
	return rank*5 + p.localityRank(e.Locality)
}

// localityRank is Istio's: the same subzone 0, zone 1, region 2, the region to
// fail over to 3, any other 4. Where zones are balanced, the region is one.
func (p *plan) localityRank(l mesh.Locality) int {
	if l.Region != p.from.Region {
		for _, f := range p.failover {
			if f.From == p.from.Region && f.To == l.Region {
				return 3
			}
		}
		return 4
	}
	switch {
	case l == p.from, p.leastHosts > 0:
		return 0
	case l.Zone == p.from.Zone:
		return 1
	}
	return 2
}

// labelRank counts how many labels of failoverPriority an endpoint lacks: the
// n-th counts only if all before it fit.
func (p *plan) labelRank(e *mesh.Endpoint) int {
	for i, l := range p.byLabels {
		key, want, fixed := strings.Cut(l, "=")
		if !fixed {
			want = p.ownLabel(key)
		}
		if got, ok := e.Label(key); !ok || got != want {
			return len(p.byLabels) - i
		}
	}
	return 0
}

// ownLabel is a label of the proxy itself, derived ones included.
func (p *plan) ownLabel(key string) string {
	self := mesh.Endpoint{Labels: p.labels, Locality: p.from, Cluster: p.cluster}
	v, _ := self.Label(key)
	return v
}

// shareOut divides traffic as distribute says. A locality's share is scaled by
// its health, min(1, 1.4 × healthy part), as Envoy's locality weights are
// (locality_weight.rst); the sum is then made 1. What hosts in full health
// cannot carry goes to the degraded. If nobody listed can serve, nil: the others
// get it all, by the priorities of their localities. If too few can, all listed
// get the same, whatever their health and locality, as with Envoy.
func (p *plan) shareOut(cells []*cell, panicAt int) (good, degraded []float64) {
	percent := p.percents(cells)
	var listed level
	for i, c := range cells {
		if percent[i] > 0 {
			listed.add(c)
		}
	}
	loads := priorityLoads([]level{listed}, panicAt)[0]
	switch {
	case listed.good+listed.degraded == 0, loads.good+loads.degraded == 0:
		return nil, nil
	case loads.panicking:
		all := make([]uint64, len(cells))
		for i, c := range cells {
			if percent[i] > 0 {
				c.panic()
				all[i] = weightOf(c.good)
			}
		}
		return split(1, all), make([]float64, len(cells))
	}
	part := func(load float64, of func(*cell) []candidate) []float64 {
		out := make([]float64, len(cells))
		var sum float64
		for i, c := range cells {
			if percent[i] > 0 {
				out[i] = percent[i] * min(1, overprovisioning/100.0*float64(weightOf(of(c)))/float64(c.weight))
				sum += out[i]
			}
		}
		for i := range out {
			if sum > 0 {
				out[i] *= load / sum
			}
		}
		return out
	}
	return part(loads.good, func(c *cell) []candidate { return c.good }), part(loads.degraded, func(c *cell) []candidate { return c.degraded })
}

// lists reports whether distribute gives a locality anything.
func (p *plan) lists(l mesh.Locality) bool {
	return slices.ContainsFunc(p.distribute.To, func(to mesh.LocalityShare) bool { return to.Percent > 0 && l.Matches(to.Locality) })
}

// percents returns what distribute gives each cell; a pattern's share is
// divided among the cells it matches by their weight.
func (p *plan) percents(cells []*cell) []float64 {
	out := make([]float64, len(cells))
	for _, to := range p.distribute.To {
		var weight float64
		for _, c := range cells {
			if c.key.locality.Matches(to.Locality) {
				weight += float64(c.weight)
			}
		}
		for i, c := range cells {
			if c.key.locality.Matches(to.Locality) {
				out[i] += float64(to.Percent) * float64(c.weight) / weight
			}
		}
	}
	return out
}
