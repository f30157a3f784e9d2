package proxy

import (
	"cmp"
	"log/slog"
	"maps"
	"math"
	"sync/atomic"
	"time"

	"isthmus/accesslog"
	"isthmus/balancer"
	"isthmus/breaker"
	"isthmus/health"
	"isthmus/mesh"
	"isthmus/ratelimit"
	"isthmus/telemetry"
)

// upstream is a set of endpoints with one policy, as one snapshot has it. It
// does not change; what lives on from snapshot to snapshot is in its members
// and in live.
type upstream struct {
	key upstreamKey
	resolved
	members []*member
	set     *balancer.Set
	tracker *health.Tracker
	live    *live

	speaks         speaks
	alsoHTTP1      bool // where that is not HTTP/1.1, it may be
	connectTimeout instant
	idleTimeout    instant
	maxRequests    uint32  // per connection; 0: no limit
	maxDuration    instant // of a connection, after which it carries no more requests; 0: no limit
	keepAlive      *mesh.TCPKeepAlive
	keepAliveHTTP2 *mesh.HTTP2KeepAlive
	limits         limits
	retries        breaker.Limits
	relayIdle      instant             // of relayed connections, and of what upgrades have begun; 0: none
	room           *ratelimit.Gradient // how many requests may be under way, by how long they take; nil: as limits say
	begun          *breaker.Window     // of requests, for retryBudget.budgetInterval; nil: those under way count
	tls            *tlsClient          // of the policy; nil: it asks for none
	hash           *mesh.HashPolicy    // nil: requests belong nowhere
	caller         balancer.Caller
}

// limits of connectionPool; 0 means none.
type limits struct {
	connections, pending, requests int32
	streams                        int // at a time over one connection
}

// live is what an upstream counts over all snapshots.
type live struct {
	requests atomic.Int32 // under way
	budget   breaker.Budget
	queue    connQueue
	stats    telemetry.Upstream

	stores          *stores
	labels          telemetry.Labels
	inbound         bool                // it is the application beside this proxy
	identity        string              // of this proxy
	unreached       *telemetry.Requests // of those that reached no endpoint
	unreachedRelays *telemetry.Connections

	name         string                // of the upstream's key
	unreachedEnd accesslog.UpstreamEnd // of exchanges that found no endpoint
	log          *slog.Logger
	complained   atomic.Int64 // an instant: of the last failed handshake that was told

	begun *breaker.Window     // see upstream; guarded by Proxy.mu
	room  *ratelimit.Gradient // likewise
	links map[string]*link    // by remote cluster; guarded by Proxy.mu
}

// complainEvery is how often a log tells of failed handshakes with the endpoints
// of one upstream.
const complainEvery = instant(10 * time.Second)

// complain tells of a failed handshake.
func (l *live) complain(u *upstream, m *member, err error) {
	last, t := l.complained.Load(), now()
	if last != 0 && t-instant(last) < complainEvery || !l.complained.CompareAndSwap(last, int64(t)) {
		return
	}
	l.log.Warn("TLS handshake with an endpoint failed", "upstream", u.key.String(), "endpoint", m.address.String(), "error", err)
}

// Istio's defaults (DestinationRule connectionPool).
const (
	defaultConnectTimeout = 10 * time.Second
	defaultIdleTimeout    = time.Hour
)

// newUpstream makes an upstream, taking over the members of the one of the
// same key in the snapshot before, if there is one.
func newUpstream(t *target, o *Options, caller balancer.Caller, old *upstream) *upstream {
	r := t.resolve()
	if old != nil && old.same(&r) && old.balancesFor(caller) {
		return old
	}
	node, endpoints, policy := o.Node, r.endpoints, &r.policy
	name := t.key.String()
	u := &upstream{key: t.key, resolved: r, caller: caller, live: &live{
		name: name, unreachedEnd: accesslog.UpstreamEnd{Name: name}, log: o.Logger, stores: o.stores, inbound: t.key.inbound, identity: node.Identity,
	}}
	byAddress := map[mesh.EndpointKey]*member{}
	if old == nil {
		l := u.live
		l.labels = labelsOf(node, t.key)
		l.unreached, l.unreachedRelays = o.stores.requests.Of(l.labels), o.stores.connections.Of(l.labels)
	} else {
		u.live = old.live
		for _, m := range old.members {
			byAddress[m.host.Endpoint().Key()] = m
		}
	}
	pool := policy.ConnectionPool
	if pool == nil {
		pool = &mesh.ConnectionPool{}
	}
	u.connectTimeout = instant(cmp.Or(pool.ConnectTimeout, defaultConnectTimeout))
	u.idleTimeout = instant(cmp.Or(pool.IdleTimeout, defaultIdleTimeout))
	u.maxRequests = pool.MaxRequestsPerCon
	if !(t.key.through && t.key.relay) { // whose ends are other proxies, which end their connections between two requests
		u.maxDuration = instant(pool.MaxDuration)
	}
	u.keepAlive = pool.KeepAlive
	u.speaks, u.keepAliveHTTP2 = protocolOf(t.key, endpoints, pool), pool.HTTP2KeepAlive
	u.alsoHTTP1 = mayHTTP1(endpoints, pool)
	u.relayIdle = instant(relayIdleDefault)
	if idle := pool.TCPIdleTimeout; idle != nil {
		u.relayIdle = instant(*idle)
	}
	u.limits = limits{
		connections: int32(pool.MaxConnections),
		pending:     int32(pool.MaxPending),
		requests:    int32(pool.MaxRequests),
		streams:     int(pool.MaxStreams),
	}
	// A connection is never used for what another policy asks for.
	sameTLS := old == nil || old.policy.TLS.Same(policy.TLS) && old.names == r.names
	if old != nil && sameTLS {
		u.tls = old.tls
	} else {
		u.tls = newTLSClient(policy.TLS, r.names, o.Credentials, t.key)
	}
	if policy.Adaptive != nil {
		if u.live.room == nil {
			u.live.room = ratelimit.NewGradient()
		}
		u.room = u.live.room
	}
	u.retries = retryLimits(policy.RetryBudget, int32(pool.MaxRetries))
	if b := policy.RetryBudget; b != nil && b.Interval > 0 {
		if u.live.begun == nil || u.live.begun.Interval() != b.Interval {
			u.live.begun = breaker.NewWindow(b.Interval)
		}
		u.begun = u.live.begun
	}
	if lb := policy.LoadBalancer; lb != nil {
		u.hash = lb.Hash
	}
	hosts := make([]*balancer.Host, len(endpoints))
	var entered []*member
	for i, e := range endpoints {
		before, w := byAddress[e.Key()], r.wires[i]
		m := before
		if m == nil || m.wire != w || w.mode == wirePolicy && !sameTLS {
			m = newMember(e, w, u.live, u.live.linkTo(e.Cluster, node))
			switch w.mode {
			case wirePolicy:
				m.tls = u.tls
			case wireMesh:
				m.tls = &meshClient{own: o.Identity, wire: w}
			}
			switch {
			case before != nil && (before.host.Endpoint().Unready == "" || e.Unready != ""): // it is spoken to otherwise, and no newer for that
				m.host.EnterAs(before.host)
				entered = append(entered, m)
			case old != nil:
				m.host.Enter()
				entered = append(entered, m)
			}
		} else {
			delete(byAddress, e.Key())
			m.host.Update(e)
		}
		u.members = append(u.members, m)
		hosts[i] = m.host
	}
	var before *health.Tracker
	if old != nil {
		before = old.tracker
	}
	u.tracker = health.NewTracker(policy.OutlierDetection, len(endpoints), before)
	for _, m := range u.members {
		u.tracker.Keep(m.record)
	}
	for _, gone := range byAddress {
		gone.close()
		u.tracker.Forget(gone.record)
	}
	u.set = balancer.NewSet(hosts, policy.LoadBalancer, policy.OutlierDetection, caller)
	if old != nil {
		// Works out now what all requests would wait for, the first ones with the new table:
		// a ring of 10,000 hosts takes 0.1 s.
		u.set.Usable()
		old.set.Close()
	}
	for _, m := range u.members {
		m.upstream.Store(u)
	}
	if old != nil && !u.asksLike(old) {
		for _, m := range u.members {
			m.shared.wakeReaders()
		}
	}
	u.serveWaiting()
	u.live.join(u.members) // last: a trial may take any of them at once
	if !u.key.relay {
		warm(entered)
	}
	return u
}

// asksLike reports whether http2KeepAlive is the same as another upstream's.
func (u *upstream) asksLike(o *upstream) bool {
	a, b := u.keepAliveHTTP2, o.keepAliveHTTP2
	return a == b || a != nil && b != nil && *a == *b
}

// warmed bounds how many connections a change opens ahead of need.
const warmed = 8

// warm opens a connection to endpoints of other clusters that have come to an
// upstream in use, so that no request waits for a handshake over the distance.
func warm(entered []*member) {
	n := 0
	for _, m := range entered {
		if m.link != nil && m.tls != nil && n < warmed {
			n++
			m.verify(math.MaxInt64)
		}
	}
}

// balancesFor reports whether the shares of zones, if that is what the policy
// asks for, are those for a caller with these peers.
func (u *upstream) balancesFor(caller balancer.Caller) bool {
	lb := u.policy.LoadBalancer
	return lb == nil || lb.Locality == nil || lb.Locality.LeastHosts == 0 || maps.Equal(u.caller.Peers, caller.Peers)
}

// callerOf is the proxy as its upstreams' balancers see it.
func callerOf(s *mesh.Snapshot) balancer.Caller {
	n := s.Node
	c := balancer.Caller{Cluster: n.Cluster, Locality: n.Locality, Labels: n.Labels, Peers: balancer.Zones{}}
	if own := mesh.OwnServices(n, s.Config); len(own) > 0 {
		for _, e := range s.Registry.All() {
			if e.Service == own[0].Key() && len(own[0].Ports) > 0 && e.Port.Number == own[0].Ports[0].Number && e.Unready == "" && e.Locality.Region == n.Locality.Region {
				c.Peers[e.Locality.Zone]++
			}
		}
	}
	return c
}

// retryLimits are those of a policy: its retryBudget, in the place of maxRetries,
// or the default budget and maxRetries beside it.
func retryLimits(b *mesh.RetryBudget, most int32) breaker.Limits {
	if b != nil {
		return breaker.Limits{Percent: b.Percent, Least: int32(min(b.MinConcurrency, math.MaxInt32))}
	}
	l := breaker.DefaultLimits
	l.Most = most
	return l
}
