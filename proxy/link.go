package proxy

import (
	"math/rand/v2"
	"sync"

	"isthmus/balancer"
	"isthmus/breaker"
	"isthmus/mesh"
)

// link is the way from one upstream to a remote cluster. When dials to it fail
// one after the other, the breaker shuts the gate before all its endpoints, so
// that a cut link costs nobody a connect time-out; after a while one dial, which
// no request waits for, finds out whether it can be opened. It lives on from
// snapshot to snapshot as long as the cluster has endpoints.
type link struct {
	gate    *balancer.Gate
	breaker *breaker.Breaker

	mu      sync.Mutex // guards members
	members []*member
}

func newLink() *link {
	l := &link{gate: balancer.NewGate()}
	l.breaker = breaker.New(func(s breaker.State) {
		l.gate.Shut(s != breaker.Closed)
		if s == breaker.HalfOpen {
			go l.trial() // ends with its dial
		}
	})
	return l
}

// trial dials one of the cluster's endpoints. The breaker hears of the
// outcome by the dial itself.
func (l *link) trial() {
	l.mu.Lock()
	var m *member
	if n := len(l.members); n > 0 {
		m = l.members[rand.IntN(n)]
	}
	l.mu.Unlock()
	if m != nil {
		m.look()
	}
}

// linkTo returns the way to a cluster; nil for the own one. The caller holds
// Proxy.mu.
func (l *live) linkTo(cluster string, node *mesh.Node) *link {
	if cluster == node.Cluster {
		return nil
	}
	way := l.links[cluster]
	if way == nil {
		if l.links == nil {
			l.links = map[string]*link{}
		}
		way = newLink()
		l.links[cluster] = way
	}
	return way
}

// join tells every link its members, and forgets those that have none. The
// caller holds Proxy.mu.
func (l *live) join(members []*member) {
	byLink := map[*link][]*member{}
	for _, m := range members {
		if m.link != nil {
			byLink[m.link] = append(byLink[m.link], m)
		}
	}
	for cluster, way := range l.links {
		way.mu.Lock()
		way.members = byLink[way]
		way.mu.Unlock()
		if byLink[way] == nil {
			delete(l.links, cluster)
		}
	}
}

func (l *link) hostGate() *balancer.Gate {
	if l == nil {
		return nil
	}
	return l.gate
}

// dial asks for a permit to dial.
func (l *link) dial() (breaker.Permit, bool) {
	if l == nil {
		return breaker.Permit{}, true
	}
	return l.breaker.Dial()
}

// replied notes that the cluster lives.
func (l *link) replied() {
	if l != nil {
		l.breaker.Succeeded()
	}
}
