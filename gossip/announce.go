package gossip

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"isthmus/mesh"
)

// Announced is an endpoint that somebody announced.
type Announced struct {
	mesh.Endpoint
	OwnerDead bool          // the owner has died, as far as gossip can tell
	OwnerGone time.Duration // since it was alive, if it is dead
}

// Announce replaces what this member announces. Nothing is sent if it is the
// same. An endpoint that others would refuse, and the whole record with it, is left out, and
// so are the last ones of more than a record may have.
func (g *Gossip) Announce(list []mesh.Endpoint) {
	var wrong error
	endpoints := slices.DeleteFunc(toRecord(list), func(e endpoint) bool {
		err := e.check()
		if err != nil {
			wrong = err
		}
		return err != nil
	})
	const rest = 16 << 10 // bytes for what is no endpoint
	endpoints, err := fitting(endpoints, maxRecord-rest)
	wrong = cmp.Or(err, wrong)
	if g.announce(&record{Endpoints: endpoints}) && wrong != nil {
		g.log.Error("not all endpoints are announced", "error", wrong)
	}
}

// announce reports whether it is news.
func (g *Gossip) announce(next *record) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own.Left {
		return false
	}
	next.Owner, next.Cluster, next.Version = g.name, g.options.Node.Cluster, g.own.Version
	if g.records[g.name] != nil && next.equal(g.own) {
		return false
	}
	next.Version++
	g.own, g.records[g.name] = next, next
	g.spread(next)
	return true
}

// spread queues a record for everybody. The caller holds mu.
func (g *Gossip) spread(r *record) {
	b := append([]byte{messageRecord}, encode(r)...)
	if len(b) > maxPacket {
		b = note(r)
	}
	g.queue.QueueBroadcast(&broadcast{owner: r.Owner, message: b})
}

// merge takes in a record whose owner has been gone for so long, and reports
// whether it says anything new.
func (g *Gossip) merge(r *record, gone time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Owner == g.name {
		// Nobody else speaks for us. An echo of an earlier life with a faster
		// clock is outdone.
		if r.Version >= g.own.Version && newer(r, g.own) == r && !r.equal(g.own) && string(encode(r)) != string(encode(g.own)) {
			g.outdo(r.Version)
		}
		return false
	}
	if gone >= forgetAfter {
		return false
	}
	old := g.records[r.Owner]
	if newer(old, r) == old {
		g.meet(r.Owner, gone, true)
		return false
	}
	if old == nil && !g.hasRoom(r.Owner) {
		g.dropped.Add(1)
		return false
	}
	g.records[r.Owner] = r
	g.meet(r.Owner, gone, false)
	return true
}

// outdo announces again what this member does, by a version higher than one that is not
// its own. The caller holds mu.
func (g *Gossip) outdo(version uint64) {
	next := *g.own
	next.Version = version + 1
	g.own, g.records[g.name] = &next, &next
	g.spread(&next)
}

// Endpoints returns what everybody announces, this member included, without
// the own endpoints of members that have left. Endpoints that were announced
// for others outlive their announcer, unready.
func (g *Gossip) Endpoints() []Announced {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	var out []Announced
	for owner, r := range g.records {
		state := g.stateOf(owner)
		for i := range r.Endpoints {
			e := Announced{Endpoint: r.Endpoints[i].mesh(r)}
			if state == stateDead {
				e.OwnerDead, e.OwnerGone = true, g.goneFor(owner, now)
			}
			switch {
			case state == stateAlive:
			case e.Relayed && state == stateDead:
				e.Unready = "announced by " + owner + ", which died"
			case e.Relayed:
				e.Unready = "announced by " + owner + ", which left"
			case state == stateLeft:
				continue
			}
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Announced) int { return strings.Compare(a.Owner, b.Owner) })
	return out
}
