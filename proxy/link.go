package proxy

import (
	"isthmus/balancer"
	"isthmus/breaker"
	"isthmus/mesh"
)

// link is the way from one upstream to a remote cluster. When dials to it fail
// one after the other, the breaker shuts the gate before all its endpoints, so
// that a cut link costs a trial now and then instead of a connect time-out for
// every request. It lives on from snapshot to snapshot.
type link struct {
	gate    *balancer.Gate
	breaker *breaker.Breaker
}

func newLink() *link {
	l := &link{gate: balancer.NewGate()}
	l.breaker = breaker.New(func(s breaker.State) {
		switch s {
		case breaker.Open:
			l.gate.Set(balancer.Ejected)
		case breaker.HalfOpen:
			l.gate.Set(balancer.OnTrial)
		case breaker.Closed:
			l.gate.Set(balancer.Usable)
		}
	})
	return l
}

// link returns the way to a cluster; nil for the own one. The caller holds
// Proxy.mu.
func (l *live) link(cluster string, node *mesh.Node) *link {
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
	p, ok := l.breaker.Dial()
	if ok && l.gate.State() == balancer.OnTrial {
		l.gate.Try()
	}
	return p, ok
}

// abandoned says that a dial was given up.
func (l *link) abandoned(p breaker.Permit) {
	p.Abandoned()
	if l != nil {
		l.gate.Done()
	}
}

// replied notes that the cluster lives.
func (l *link) replied() {
	if l != nil {
		l.breaker.Succeeded()
	}
}
