package proxy

import "math/rand/v2"

// draw picks a destination by weight.
func (a *action) draw() int {
	if len(a.destinations) == 1 {
		return 0
	}
	if a.totalWeight == 0 {
		return 0
	}
	n := rand.Uint32N(a.totalWeight)
	for i := range a.destinations {
		w := a.destinations[i].weight
		if n < w {
			return i
		}
		n -= w
	}
	return 0
}

// pick finds an endpoint: of the destination drawn, else of another one of
// positive weight, else of a standby; one that was not tried before if there is
// any. When nobody is good, those of whom little good is known serve as a last
// resort.
func (x *exchange) pick(drawn int, plan *retryPlan) (*destination, *upstream, *member, Kind) {
	a := &x.route.action
	if len(a.destinations) == 0 {
		return nil, nil, nil, NoDestination
	}
	d := &a.destinations[drawn]
	u := x.upstream(d.target)
	if u.known && !d.standby {
		if plan.beyond(x) {
			if i, ok := u.set.PickBeyond(x.tried); ok {
				return d, u, u.members[i], NoError
			}
		}
		if i, ok := u.set.Pick(x.tried, x.hash(u)); ok {
			return d, u, u.members[i], NoError
		}
	}
	return x.pickElsewhere(drawn)
}

// pickElsewhere is pick's way when the destination drawn has no good endpoint
// that is untried.
func (x *exchange) pickElsewhere(drawn int) (*destination, *upstream, *member, Kind) {
	a := &x.route.action
	n := len(a.destinations)
	type attempt struct {
		standby, again, lastResort bool
	}
	for _, at := range []attempt{
		{},
		{standby: true},
		{again: true},
		{again: true, standby: true},
		{lastResort: true},
		{lastResort: true, standby: true},
		{lastResort: true, again: true},
		{lastResort: true, again: true, standby: true},
	} {
		if at.again && len(x.tried) == 0 {
			continue
		}
		tried := x.tried
		if at.again {
			tried = nil
		}
		for i := range n {
			d := &a.destinations[(drawn+i)%n]
			u := x.upstream(d.target)
			if d.standby != at.standby || !u.known {
				continue
			}
			pick := u.set.Pick
			if at.lastResort {
				pick = u.set.PickLastResort
			}
			if i, ok := pick(tried, x.hash(u)); ok {
				return d, u, u.members[i], NoError
			}
		}
	}
	if x.attempts > 0 {
		return nil, nil, nil, NoHealthy
	}
	if !x.upstream(a.destinations[drawn].target).known {
		return nil, nil, nil, NoDestination
	}
	return nil, nil, nil, NoHealthy
}

// upstream returns the live upstream of a target, made if need be.
func (x *exchange) upstream(t *target) *upstream {
	if u := t.upstream.Load(); u != nil {
		return u
	}
	if x.asked != nil {
		return x.conn.proxy.askedUpstream(x.table, t)
	}
	return x.conn.proxy.makeUpstream(x.table, t)
}
