package gossip

import (
	"cmp"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// A process that takes another one's place knows from the beginning who lives, beside what
// they announce. Else all others were dead to it until seeds have answered, which takes some
// round trips, and where all seeds are down, until another member turns to it: meanwhile
// what is announced for others would be a last resort, and limits that all keep together
// would be its own.

// handedMember is a member that lives, as it is handed on.
type handedMember struct {
	Name    string         `json:"name"`
	Address netip.AddrPort `json:"address"`
	Meta    []byte         `json:"meta"`
}

const (
	// trustHanded is how long a member that was handed on is believed to live: memberlist
	// takes as long to find out of one that it does not.
	trustHanded = 10 * time.Second

	// maxHanded bounds what is read of members, in bytes.
	maxHanded = 8 << 20

	// maxContacts is how many of them are asked to let us in, beside the seeds.
	maxContacts = 3
)

// toHandOn returns the other members that live.
func (g *Gossip) toHandOn() (list []handedMember) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, m := range g.members {
		address, err := netip.ParseAddrPort(m.Address)
		if name != g.name && err == nil && g.stateOf(name) == stateAlive {
			list = append(list, handedMember{name, address, m.node.Meta})
		}
	}
	return list
}

// takeOver reads the members that a process before has handed on behind its records; none
// if it was of a version that does not.
func (g *Gossip) takeOver(list *json.Decoder) {
	var handed []handedMember
	if _, err := list.Token(); err != nil || list.Decode(&handed) != nil {
		return
	}
	for _, h := range handed {
		n := &memberlist.Node{Name: h.Name, Addr: h.Address.Addr().AsSlice(), Port: h.Address.Port(), Meta: h.Meta}
		if h.Name == "" || h.Name == g.name || !h.Address.IsValid() || (delegate{g}).NotifyAlive(n) != nil {
			continue
		}
		g.noteMember(n, stateAlive)
		g.mu.Lock()
		g.members[h.Name].handed = true
		g.mu.Unlock()
	}
}

// contacts are the addresses of some members that were handed on, those of the own cluster
// first, as long as nobody else is reached.
func (g *Gossip) contacts() (out []string) {
	if g.list.NumMembers() > 1 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []*member
	for _, m := range g.members {
		if m.handed && m.State == stateAlive {
			list = append(list, m)
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b *member) int { return cmp.Compare(g.away(a), g.away(b)) })
	for _, m := range list[:min(len(list), maxContacts)] {
		out = append(out, m.Address)
	}
	return out
}

// away is 0 for a member of the own cluster, and 1 for others.
func (g *Gossip) away(m *member) int {
	if m.Cluster == g.options.Node.Cluster {
		return 0
	}
	return 1
}

// mistrust takes members for dead that were handed on and that memberlist knows nothing of
// still.
func (g *Gossip) mistrust() {
	g.mu.Lock()
	var dead []string
	for name, m := range g.members {
		if m.handed && m.State == stateAlive {
			m.State, m.since = stateDead, time.Now()
			g.living.Add(-1)
			dead = append(dead, name)
		}
	}
	g.mu.Unlock()
	if len(dead) > 0 {
		g.log.Info("gossip members dead: the process before knew them, and nobody tells of them since", "members", len(dead))
		g.options.OnChange()
	}
}
