package proxy

import (
	"slices"
	"strings"
	"sync"
	"time"

	"isthmus/mesh"
	"isthmus/telemetry"
)

// record counts the exchange, which is over, and keeps in mind what is to be
// told of it.
func (x *exchange) record() {
	flag, took := x.flag(), time.Duration(x.clock-x.start)
	x.counters().Record(x.status, flag, took)
	if x.troubled() {
		x.remember()
	}
	if r := x.table.logging[x.conn.kind]; r != nil {
		x.log(r, flag, took)
	}
}

// flag is Envoy's response flag for the exchange.
func (x *exchange) flag() string {
	flag := answers[x.kind].flag
	if x.delayed != 0 {
		flag = delayedFlag(flag)
	}
	return flag
}

// delayedFlag adds that a fault has delayed the request: "DI", or "DI,FI".
func delayedFlag(flag string) string {
	if flag == telemetry.NoFlag {
		return "DI"
	}
	return "DI," + flag
}

// counters finds where the exchange is counted: with the endpoint's cluster it
// went to last, else with the upstream that it was for, else with the routes
// that answer by themselves, else with what belongs nowhere.
func (x *exchange) counters() *telemetry.Requests {
	if x.member != nil {
		return x.member.requests
	}
	if x.route != nil && len(x.route.destinations) > 0 {
		return x.upstream(x.route.destinations[0].target).live.counters.of("")
	}
	if x.route != nil {
		return x.conn.proxy.answered[x.conn.kind]
	}
	return x.conn.proxy.unrouted[x.conn.kind]
}

// counters are those of one upstream, by the cluster of the endpoints.
type counters[T any] struct {
	labels telemetry.Labels
	make   func(telemetry.Labels) *T

	mu        *sync.Mutex // guards byCluster
	byCluster map[string]*T
}

func newCounters[T any](l telemetry.Labels, make func(telemetry.Labels) *T) counters[T] {
	return counters[T]{l, make, &sync.Mutex{}, map[string]*T{}}
}

// of returns the counters for a cluster, "" where no endpoint was reached.
func (c *counters[T]) of(cluster string) *T {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.byCluster[cluster]
	if r == nil {
		l := c.labels
		l.DestinationCluster = cluster
		r = c.make(l)
		c.byCluster[cluster] = r
	}
	return r
}

// all appends every counter to list.
func (c *counters[T]) all(list []*T) []*T {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.byCluster {
		list = append(list, r)
	}
	return list
}

// Requests returns the counters of all upstreams in use, for
// [telemetry.Collector].
func (p *Proxy) Requests() []*telemetry.Requests {
	list := slices.Concat(p.unrouted[:], p.answered[:])
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.upstreams {
		list = u.live.counters.all(list)
	}
	return list
}

// Connections returns the counters of relayed connections of all upstreams in
// use, for [telemetry.ConnectionsCollector].
func (p *Proxy) Connections() []*telemetry.Connections {
	list := slices.Clone(p.unroutedConns[:])
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.upstreams {
		list = u.live.connections.all(list)
	}
	return list
}

// requestLabels are the labels of requests to a host, as this node reports
// them. Who called is known of the own application alone.
func requestLabels(n *mesh.Node, k upstreamKey) telemetry.Labels {
	l := telemetry.Labels{Reporter: "source", DestinationService: k.host}
	service, _, ok := mesh.ServiceOf(k.host)
	if k.inbound {
		service, ok = k.host, true
		l.Reporter, l.DestinationService = "destination", k.host+".svc."+mesh.LocalDomain
	}
	if ok {
		l.DestinationName, l.DestinationNamespace, _ = strings.Cut(service, ".")
	} else {
		l.DestinationName = k.host
	}
	if l.Reporter == "source" {
		fromNode(&l, n)
	}
	return l
}

// fromNode says that the node's application, or the gateway that the node is,
// has called.
func fromNode(l *telemetry.Labels, n *mesh.Node) {
	l.SourceWorkload, l.SourceNamespace, l.SourceCluster = n.Name, n.Namespace, n.Cluster
	l.SourceApp, l.SourceVersion = n.Labels["app"], n.Labels["version"]
}

// nobodyLabels are those of requests that are for no upstream: under Istio's
// name for nobody that is known, or for a destination that does not matter.
func nobodyLabels(n *mesh.Node, kind listenerKind, name string) telemetry.Labels {
	l := telemetry.Labels{Reporter: "source", DestinationName: name}
	if kind == inbound {
		l.Reporter = "destination"
		return l
	}
	fromNode(&l, n)
	return l
}
