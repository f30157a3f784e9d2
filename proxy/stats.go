package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"isthmus/balancer"
	"isthmus/telemetry"
	"isthmus/tls"
)

// Requests returns the counters of exchanges, for the metrics.
func (p *Proxy) Requests() *telemetry.Store[telemetry.Requests, *telemetry.Requests] {
	return p.options.stores.requests
}

// Connections returns the counters of relayed connections, for the metrics.
func (p *Proxy) Connections() *telemetry.Store[telemetry.Connections, *telemetry.Connections] {
	return p.options.stores.connections
}

// Links returns the counters by the places that exchanges went to.
func (p *Proxy) Links() *telemetry.Links { return p.options.stores.links }

// requestsInUse finds the counters that the upstreams in use hold.
func (p *Proxy) requestsInUse(found func(*telemetry.Requests)) {
	for kind := range p.unrouted {
		found(p.unrouted[kind])
		found(p.answered[kind])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.inUse() {
		found(u.live.unreached)
		for _, m := range u.members {
			found(m.requests.Load())
		}
	}
}

// connectionsInUse does so for relayed connections.
func (p *Proxy) connectionsInUse(found func(*telemetry.Connections)) {
	for _, c := range p.unroutedConns {
		found(c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.inUse() {
		found(u.live.unreachedRelays)
		for _, m := range u.members {
			found(m.relays.Load())
		}
	}
}

// linksInUse finds the links to places where there are endpoints of upstreams in use.
func (p *Proxy) linksInUse(found func(*telemetry.Link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.inUse() {
		for _, m := range u.members {
			if m.traffic != nil {
				found(m.traffic)
			}
		}
	}
}

// relaysOf finds where a connection relayed to a member is counted.
func (c *conn) relaysOf(m *member) *telemetry.Connections {
	if c.kind != inbound || c.identity == "" || !m.live.inbound {
		return m.relays.Load()
	}
	return m.live.stores.connections.Of(m.live.calledBy(introducedBy(c.identity, nil)))
}

// Upstreams returns the upstreams in use, as they are now.
func (p *Proxy) Upstreams() []telemetry.UpstreamState {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]telemetry.UpstreamState, 0, len(p.upstreams))
	for _, u := range p.upstreams {
		if u.known {
			out = append(out, u.state())
		}
	}
	return out
}

// state is what the metrics say of an upstream. The caller holds Proxy.mu.
func (u *upstream) state() telemetry.UpstreamState {
	l := u.live
	s := telemetry.UpstreamState{
		Name: l.name, Counters: &l.stats, Hosts: len(u.members),
		Requests: int(l.requests.Load()), Connections: int(l.queue.open.Load()), Pending: int(l.queue.waiting.Load() + l.queue.follow.Load()),
	}
	s.Ejected, s.Ejections, s.EjectionsRefused = u.tracker.Ejections()
	for _, m := range u.members {
		e := m.host.Endpoint()
		if state, _ := m.host.State(); state == balancer.Usable && e.Unready == "" {
			s.Healthy++
			if e.Degraded {
				s.Degraded++
			}
		}
	}
	s.RequestsOpen = u.limits.requests != 0 && s.Requests >= int(u.limits.requests)
	s.ConnectionsOpen = u.limits.connections != 0 && s.Connections >= int(u.limits.connections)
	s.PendingOpen = u.limits.pending != 0 && s.Pending >= int(u.limits.pending)
	s.RetriesOpen = u.retries.Most != 0 && l.budget.Retries() >= u.retries.Most
	for _, way := range l.links {
		if way.gate.IsShut() {
			s.LinksBroken++
		}
	}
	return s
}

// countFailure counts a try that has failed.
func (l *live) countFailure(k Kind) {
	switch k {
	case Overflow:
		l.stats.Overflows.Add(1)
	case Timeout:
		l.stats.Timeouts.Add(1)
	case TryTimeout:
		l.stats.TryTimeouts.Add(1)
	case Terminated, Stalled:
		l.stats.Resets.Add(1)
	}
}

// countDial counts a connection that could not be opened.
func (m *member) countDial(u *upstream, k Kind, handshake bool) {
	silent := k == ConnectTimeout
	if silent {
		u.live.stats.ConnectTimeouts.Add(1)
	} else {
		u.live.stats.ConnectFailures.Add(1)
	}
	switch t := m.traffic; {
	case t == nil:
	case handshake:
		t.Handshakes.Add(1)
	case silent:
		t.Silent.Add(1)
	default:
		t.Refused.Add(1)
	}
}

// peerIdentity is who the other end has proved to be.
func (s *stream) peerIdentity() string {
	state := s.secure.ConnectionState()
	return tls.Peer(&state)
}

// measure asks the kernel how far away the member is, by a connection that is idle
// now, or by one that requests share.
func (m *member) measure() {
	m.pool.mu.Lock()
	var c *upstreamConn
	if n := len(m.pool.idle); n > 0 {
		c = m.pool.idle[n-1]
	}
	m.pool.mu.Unlock()
	if c != nil {
		m.ask(c.stream)
		return
	}
	m.shared.mu.Lock() // under which connections are taken out before they are closed
	defer m.shared.mu.Unlock()
	if n := len(m.shared.conns); n > 0 {
		m.ask(m.shared.conns[n-1].stream)
	}
}

// ask asks the kernel by a connection.
func (m *member) ask(s *stream) {
	s.control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			silent := time.Duration(info.Last_ack_recv) * time.Millisecond
			m.traffic.RoundTrip(time.Duration(info.Rtt)*time.Microsecond, time.Now().Add(-silent))
		}
	})
}
