package gossip

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// forgetAfter is how long a member that is gone is remembered, and with it its
// endpoints.
const forgetAfter = 24 * time.Hour

// A record outlives its owner's membership: who starts after an owner has died
// gets its record from the others, and memberlist tells it nothing of the
// member. So that all forget at the same time, nor bring back to each other what
// one has forgotten, a record is handed on with how long its owner is gone.

// handedOn is a record in push/pull.
type handedOn struct {
	*record
	Gone int64 `json:"gone,omitempty"` // milliseconds since its owner was alive, for all that is known; 0: it lives
}

// decodeHandedOn reads a record that somebody hands on.
func decodeHandedOn(b []byte) (r *record, gone time.Duration, err error) {
	if r, err = decode(b); err != nil {
		return nil, 0, err
	}
	var h struct {
		Gone int64 `json:"gone"`
	}
	if err := json.Unmarshal(b, &h); err != nil || h.Gone < 0 {
		return nil, 0, errRecord
	}
	return r, time.Duration(min(h.Gone, forgetAfter.Milliseconds())) * time.Millisecond, nil
}

// goneFor is how long an owner has been gone; 0: it is alive. The caller holds mu.
func (g *Gossip) goneFor(owner string, now time.Time) time.Duration {
	if owner == g.name {
		return 0
	}
	switch m := g.members[owner]; {
	case m == nil:
		return now.Sub(g.strangers[owner])
	case m.State == stateAlive:
		return 0
	default:
		return now.Sub(m.since)
	}
}

// meet notes how long the owner of a record has been gone, if it is no member.
// again: the record was known, and the longest time that anybody tells holds.
// The caller holds mu.
func (g *Gossip) meet(owner string, gone time.Duration, again bool) {
	if g.members[owner] != nil {
		return
	}
	since := time.Now().Add(-gone)
	if before, ok := g.strangers[owner]; !again || !ok || since.Before(before) {
		g.strangers[owner] = since
	}
}

// forget drops members and records that are long gone.
func (g *Gossip) forget() {
	g.mu.Lock()
	now, told := time.Now(), false
	for name := range g.members {
		if g.goneFor(name, now) > forgetAfter {
			told = told || g.records[name] != nil
			g.drop(name)
			delete(g.members, name)
		}
	}
	clusters := map[string]bool{}
	for _, m := range g.members {
		clusters[m.Cluster] = true
	}
	maps.DeleteFunc(g.distances, func(cluster string, _ Distance) bool { return !clusters[cluster] })
	for owner := range g.records {
		if g.goneFor(owner, now) > forgetAfter {
			told = true
			g.drop(owner)
		}
	}
	g.mu.Unlock()
	if told {
		g.options.OnChange()
	}
}

// drop forgets what is known of an owner. The caller holds mu.
func (g *Gossip) drop(owner string) {
	delete(g.records, owner)
	delete(g.strangers, owner)
	delete(g.asked, owner)
	delete(g.wanted, owner)
	delete(g.digests, owner)
}

// roomMade is how many records are dropped at once when there are too many.
const roomMade = maxOwners / 16

// hasRoom reports whether one more owner's record is taken. For one that lives
// those that have been gone the longest are forgotten early. The caller holds mu.
func (g *Gossip) hasRoom(owner string) bool {
	if len(g.records) < maxOwners {
		return true
	}
	now := time.Now()
	if m := g.members[owner]; m == nil || m.State != stateAlive {
		return false
	}
	type absent struct {
		owner string
		gone  time.Duration
	}
	var all []absent
	for o := range g.records {
		if gone := g.goneFor(o, now); gone > 0 {
			all = append(all, absent{o, gone})
		}
	}
	slices.SortFunc(all, func(a, b absent) int { return cmp.Compare(b.gone, a.gone) })
	for _, a := range all[:min(len(all), roomMade)] {
		g.drop(a.owner)
	}
	return len(all) > 0
}
