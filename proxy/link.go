package proxy

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

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

	trying atomic.Bool // a trial is under way

	mu      sync.Mutex // guards members
	members []*member
}

func newLink() *link {
	l := &link{gate: balancer.NewGate()}
	l.breaker = breaker.New(func(s breaker.State) {
		l.gate.Shut(s != breaker.Closed)
		if s == breaker.HalfOpen {
			go l.try() // ends when the breaker has heard of an outcome
		}
	})
	return l
}

// try dials the cluster's endpoints, one after the other, until the breaker knows
// whether it can be reached: nobody else comes to see that. One goroutine at a time
// does.
func (l *link) try() {
	for l.breaker.State() == breaker.HalfOpen && l.trying.CompareAndSwap(false, true) {
		m := l.any()
		if m != nil {
			m.look() // of whose outcome the breaker hears
		}
		l.trying.Store(false)
		if m == nil {
			return
		}
		if l.breaker.State() == breaker.HalfOpen { // it has proved nothing
			time.Sleep(trialAgain)
		}
	}
}

// trialAgain is when a trial is made again that has proved nothing.
const trialAgain = 100 * time.Millisecond

// any returns one of the cluster's endpoints; nil: it has none.
func (l *link) any() *member {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.members) == 0 {
		return nil
	}
	return l.members[rand.IntN(len(l.members))]
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
