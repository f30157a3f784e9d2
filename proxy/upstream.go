package proxy

import (
	"cmp"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"isthmus/balancer"
	"isthmus/breaker"
	"isthmus/health"
	"isthmus/mesh"
	"isthmus/ratelimit"
	"isthmus/telemetry"
)

// upstreamKey names an upstream over all snapshots.
type upstreamKey struct {
	inbound bool // the application beside this proxy
	through bool // an east-west gateway's way to its own cluster
	relay   bool // for connections that are passed on as they come
	host    string
	port    uint32
	subset  string
}

// String is Envoy's form, "outbound|80|v1|reviews.prod.svc.cluster.local".
func (k upstreamKey) String() string {
	direction := "outbound"
	if k.inbound || k.through {
		direction = "inbound"
	}
	return direction + "|" + strconv.FormatUint(uint64(k.port), 10) + "|" + k.subset + "|" + k.host
}

// target is a place in a table where an upstream goes. Most services that a
// proxy knows are never called, so the upstream is made when the first request
// comes for it.
type target struct {
	key upstreamKey

	// resolve finds what the configuration says of it.
	resolve func() resolved

	// upstream is written once, by Proxy.upstream, under Proxy.mu.
	upstream atomic.Pointer[upstream]
}

// resolved is what the configuration says of a target.
type resolved struct {
	known     bool // false: it has no such host, port or subset
	endpoints []*mesh.Endpoint
	policy    mesh.Policy
	wires     []wire // how each endpoint is spoken to
}

// same reports whether two say the same.
func (r *resolved) same(o *resolved) bool {
	return r.known == o.known && r.policy == o.policy && samePointers(r.endpoints, o.endpoints) && slices.Equal(r.wires, o.wires)
}

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
	relayIdle      instant             // of relayed connections; 0: none
	tunnelIdle     instant             // of what upgrades have begun; likewise
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

	name       string // of the upstream's key
	log        *slog.Logger
	complained atomic.Int64 // an instant: of the last failed handshake that was told

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

// member is one endpoint of one upstream with its connections. It lives as
// long as snapshot after snapshot has the endpoint.
type member struct {
	host    *balancer.Host
	record  *health.Record
	address netip.AddrPort
	pool    connPool
	shared  sharedPool
	link    *link // nil: the endpoint is in the own cluster

	upstream atomic.Pointer[upstream] // of the current snapshot

	wire wire
	tls  handshaker // nil: plain text

	dials     atomic.Pointer[dials]
	verifying atomic.Bool // whether it can be reached is being found out

	// destination names the service to the proxy at address ("reviews.prod:80");
	// "" if the application itself is there, or the server name does.
	destination string
	live        *live
	requests    atomic.Pointer[telemetry.Requests]
	relays      atomic.Pointer[telemetry.Connections]
	principal   atomic.Pointer[string] // that the endpoint has shown last
	traffic     *telemetry.Link        // nil: the application is here
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
	u := &upstream{key: t.key, resolved: r, caller: caller, live: &live{name: t.key.String(), log: o.Logger, stores: o.stores, inbound: t.key.inbound, identity: node.Identity}}
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
	u.maxDuration = instant(pool.MaxDuration)
	u.keepAlive = pool.KeepAlive
	u.speaks, u.keepAliveHTTP2 = protocolOf(t.key, endpoints, pool), pool.HTTP2KeepAlive
	u.alsoHTTP1 = mayHTTP1(endpoints, pool)
	u.relayIdle, u.tunnelIdle = instant(relayIdleDefault), u.idleTimeout
	if idle := pool.TCPIdleTimeout; idle != nil {
		u.relayIdle, u.tunnelIdle = instant(*idle), instant(*idle)
	}
	u.limits = limits{
		connections: int32(pool.MaxConnections),
		pending:     int32(pool.MaxPending),
		requests:    int32(pool.MaxRequests),
		streams:     int(pool.MaxStreams),
	}
	// A connection is never used for what another policy asks for.
	sameTLS := old == nil || old.policy.TLS.Same(policy.TLS)
	if old != nil && sameTLS {
		u.tls = old.tls
	} else {
		u.tls = newTLSClient(policy.TLS, o.Credentials, t.key.host)
	}
	if policy.Adaptive {
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
		m, w := byAddress[e.Key()], r.wires[i]
		if m == nil || m.wire != w || w.mode == wirePolicy && !sameTLS {
			m = newMember(e, w, u.live, u.live.linkTo(e.Cluster, node))
			switch w.mode {
			case wirePolicy:
				m.tls = u.tls
			case wireMesh:
				m.tls = &meshClient{own: o.Identity, wire: w}
			}
			if old != nil {
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
		old.set.Close()
	}
	u.tracker = health.NewTracker(policy.OutlierDetection, len(endpoints), before)
	for _, gone := range byAddress {
		gone.close()
		u.tracker.Forget(gone.record)
	}
	u.live.join(u.members)
	u.set = balancer.NewSet(hosts, policy.LoadBalancer, policy.OutlierDetection, caller)
	for _, m := range u.members {
		m.upstream.Store(u)
	}
	warm(entered)
	return u
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
	c := balancer.Caller{Locality: n.Locality, Labels: n.Labels, Peers: balancer.Zones{}}
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
		return breaker.Limits{Percent: b.Percent, Least: int32(b.MinConcurrency)}
	}
	l := breaker.DefaultLimits
	l.Most = most
	return l
}

func newMember(e *mesh.Endpoint, w wire, l *live, way *link) *member {
	host := balancer.NewHost(e, way.hostGate())
	m := &member{host: host, record: health.NewRecord(host), address: e.Address, wire: w, link: way, live: l}
	if !l.inbound {
		m.traffic = l.stores.links.To(telemetry.Place{Cluster: e.Cluster, Locality: e.Locality.String()})
	}
	m.countAs("")
	host.Look(m.look)
	m.dials.Store(newDials())
	if e.Via && !w.named {
		service, port := destinationOf(e)
		m.destination = service + ":" + strconv.FormatUint(uint64(port), 10)
	}
	return m
}

// countAs makes exchanges with the endpoint count as those with the owner of a
// certificate; "" if it has shown none.
func (m *member) countAs(principal string) {
	l := m.live.labels
	if !m.live.inbound {
		l.Destination = partyOfEndpoint(m.host.Endpoint())
		l.Destination.Principal = principal
	}
	m.requests.Store(m.live.stores.requests.Of(l))
	m.relays.Store(m.live.stores.connections.Of(l))
}

// shown notes who an endpoint has proved to be.
func (m *member) shown(principal string) {
	if before := m.principal.Swap(&principal); before == nil || *before != principal {
		m.countAs(principal)
	}
}

// close ends the connections of a member that is gone.
func (m *member) close() {
	m.host.Close()
	m.pool.close()
	m.shared.close()
}

func samePointers(a, b []*mesh.Endpoint) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// target enters a destination of a route. port is that of the request, which
// counts where the destination names none.
func (c *compiler) target(d mesh.Destination, port uint32) *target {
	v, known := c.reg.View(d.Host)
	k := upstreamKey{host: d.Host, port: d.Port, subset: d.Subset}
	if known {
		k.host = v.Host
		if k.port == 0 {
			p, ok := v.Port(port)
			if !ok {
				p, ok = v.Port(0)
			}
			k.port, known = p.Number, ok
		} else {
			_, known = v.Port(k.port)
		}
	}
	return c.enterTarget(k, v, known)
}

// relayTarget enters a destination of a route that passes connections on. port
// is that of the listener. Endpoints at another proxy's inbound listener are left
// out where no server name tells that one what such a connection is for.
func (c *compiler) relayTarget(d mesh.Destination, port uint32, protocols []mesh.Protocol) *target {
	v, known := c.reg.View(d.Host)
	k := upstreamKey{relay: true, host: d.Host, port: d.Port, subset: d.Subset}
	if known {
		k.host = v.Host
		p, ok := v.RelayPort(k.port, protocols...)
		if q, same := v.Port(port); k.port == 0 && same && port != 0 && slices.Contains(protocols, q.Protocol) {
			p, ok = q, true
		}
		k.port, known = p.Number, ok
	}
	return c.enterTarget(k, v, known)
}

// enterTarget enters what a key names. v is the view of its host, if that is
// known.
func (c *compiler) enterTarget(k upstreamKey, v *mesh.View, known bool) *target {
	if t := c.targets[k]; t != nil {
		return t
	}
	t := &target{key: k}
	reg, rules := c.reg, c.snapshot.Rules
	t.resolve = func() resolved {
		if !known {
			return resolved{}
		}
		policy := rules.Find(v.Host, v.Namespace, k.port, k.subset)
		endpoints := reg.Endpoints(v, k.port)
		if k.subset != "" {
			if policy.Subset == nil {
				return resolved{}
			}
			endpoints = slices.DeleteFunc(endpoints, func(e *mesh.Endpoint) bool { return !e.MatchesSubset(policy.Subset.Labels) })
		}
		r := resolved{known: true, policy: policy}
		for i, w := range c.wires(k, v, endpoints, policy.TLS) {
			if k.relay && endpoints[i].Via && !w.named {
				continue
			}
			r.endpoints, r.wires = append(r.endpoints, endpoints[i]), append(r.wires, w)
		}
		return r
	}
	c.targets[k] = t
	return t
}

// addTarget enters a target with given endpoints of a view, which is nil for the
// application beside this proxy.
func (c *compiler) addTarget(k upstreamKey, v *mesh.View, endpoints []*mesh.Endpoint, policy mesh.Policy) *target {
	t := &target{key: k, resolve: func() resolved {
		return resolved{known: true, endpoints: endpoints, policy: policy, wires: c.wires(k, v, endpoints, policy.TLS)}
	}}
	c.targets[k] = t
	return t
}
