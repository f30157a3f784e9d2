package gossip

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// Member is a proxy as gossip knows it.
type Member struct {
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	Locality string `json:"locality"`
	Address  string `json:"address"`
	State    string `json:"state"` // "alive", "dead" or "left"
	Version  string `json:"version"`
}

type member struct {
	Member
	since  time.Time // of the state
	talks  bool      // it listens to messages
	silent bool      // it could not be reached over TCP the last time
	handed bool      // a process before has known it; memberlist does not yet
	node   memberlist.Node
}

// Member states.
const (
	stateAlive = "alive"
	stateDead  = "dead"
	stateLeft  = "left"
)

func (g *Gossip) noteMember(n *memberlist.Node, state string) {
	var m meta
	if json.Unmarshal(n.Meta, &m) != nil {
		m = meta{}
	}
	g.mu.Lock()
	before, silent := "", false
	if old := g.members[n.Name]; old != nil {
		before, silent = old.State, old.silent && old.Address == n.Address()
	}
	g.members[n.Name] = &member{
		Member: Member{Name: n.Name, Cluster: m.Cluster, Locality: m.Locality, Address: n.Address(), State: state, Version: m.Version},
		since:  time.Now(),
		talks:  m.Talks, silent: silent, node: *n,
	}
	delete(g.strangers, n.Name)
	switch {
	case state == stateAlive && before != stateAlive:
		g.living.Add(1)
	case state != stateAlive && before == stateAlive:
		g.living.Add(-1)
	}
	shown := g.stateOf(n.Name)
	g.mu.Unlock()
	if before != state {
		g.log.Info("gossip member "+shown, "member", n.Name, "address", n.Address())
		g.options.OnChange()
	}
}

// Members returns all members known, those that left or died lately included,
// sorted by name.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Member, 0, len(g.members))
	for name, m := range g.members {
		shown := m.Member
		shown.State = g.stateOf(name)
		out = append(out, shown)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// stateOf tells whether a member lives, has died, or has said goodbye. The
// caller holds mu.
func (g *Gossip) stateOf(owner string) string {
	if r := g.records[owner]; r != nil && r.Left {
		return stateLeft
	}
	if m := g.members[owner]; m != nil {
		return m.State
	}
	return stateDead
}

// alive returns how many members are alive, this one included. The queues ask for that
// under their lock, so it takes none: memberlist tells of members under its own, and then
// mu is taken, under which the queues' is.
func (g *Gossip) alive() int { return max(int(g.living.Load()), 1) }

// living returns a member as memberlist has told of it last; nil: it is not alive, or memberlist
// does not know it. What memberlist's own list has is written to whenever a member says
// something new, whoever reads it. g.mu is held; m may be nil.
func (m *member) living() *memberlist.Node {
	if m == nil || m.State != stateAlive || m.handed {
		return nil
	}
	n := m.node
	return &n
}

// meta is what memberlist carries with each member, 512 bytes at most.
type meta struct {
	Cluster  string `json:"c"`
	Locality string `json:"l,omitempty"`
	Version  string `json:"v,omitempty"`
	Talks    bool   `json:"t,omitempty"` // it listens to messages
}

func (g *Gossip) meta() []byte {
	m := meta{Cluster: g.options.Node.Cluster, Locality: g.options.Node.Locality.String(), Version: g.options.Version, Talks: g.options.OnTalk != nil}
	b, _ := json.Marshal(m)
	if len(b) > memberlist.MetaMaxSize {
		m.Locality, m.Version = "", ""
		b, _ = json.Marshal(m)
	}
	return b
}
