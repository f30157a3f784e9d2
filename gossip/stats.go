package gossip

import (
	"maps"
	"time"
)

// Stats are what a member knows of gossip itself.
type Stats struct {
	Records  int                 // of how many members there is a record
	Behind   int                 // records of which a newer version was heard of and has not come yet
	Queued   int                 // broadcasts to be sent
	Dropped  uint64              // messages that were malformed or too many
	Health   int                 // memberlist's score: 0 is well, more is slow
	Clusters map[string]Distance // those of whose members somebody lives, or has died without a goodbye
}

// Distance is how far a cluster is, as probes of its members found it.
type Distance struct {
	RoundTrip time.Duration // the last one
	Heard     time.Time     // when it was
}

// Stats returns what this member knows of gossip itself.
func (g *Gossip) Stats() Stats {
	s := Stats{Queued: g.queue.NumQueued(), Dropped: g.dropped.Load(), Health: g.list.GetHealthScore()}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Records, s.Clusters = len(g.records), maps.Clone(g.distances)
	expected := map[string]bool{} // to answer probes
	for name, m := range g.members {
		expected[m.Cluster] = expected[m.Cluster] || g.stateOf(name) != stateLeft
	}
	maps.DeleteFunc(s.Clusters, func(cluster string, _ Distance) bool { return !expected[cluster] })
	for owner, version := range g.wanted {
		if r := g.records[owner]; r == nil || r.Version < version {
			s.Behind++
		}
	}
	return s
}

// maxDistances bounds of how many clusters distances are kept.
const maxDistances = 1000

// measured notes that a member has answered a probe.
func (g *Gossip) measured(name string, roundTrip time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[name]
	if m == nil {
		return
	}
	if _, ok := g.distances[m.Cluster]; ok || len(g.distances) < maxDistances {
		g.distances[m.Cluster] = Distance{roundTrip, time.Now()}
	}
}
