package proxy

import (
	"context"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"isthmus/accesslog"
	"isthmus/health"
	"isthmus/mesh"
)

// upstreamConn is a connection to an endpoint. It is leased to one exchange at
// a time and put back only when both bodies of that exchange were complete. Of
// one that speaks HTTP/2, a stream is leased.
type upstreamConn struct {
	*stream
	member *member
	shared *sharedConn            // of a stream: the connection
	told   *accesslog.UpstreamEnd // what access log lines say of it
	uses   uint32                 // requests sent so far
	opened instant
	since  instant // when it was put back
	reused bool    // this lease is not its first
	waited bool    // its request has stood in line for it
}

// connPool keeps the idle connections of one member, the youngest on top, so
// that the others can grow old.
type connPool struct {
	mu     sync.Mutex // guards what is below
	idle   []*upstreamConn
	closed bool
}

// take returns an idle connection that is younger than idleTimeout, or nil.
// t is about now.
func (p *connPool) take(idleTimeout, t instant) *upstreamConn {
	p.mu.Lock()
	n := len(p.idle)
	if n == 0 {
		p.mu.Unlock()
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	p.mu.Unlock()
	if idleTimeout != 0 && t-c.since > idleTimeout {
		c.discard()
		return nil
	}
	c.reused = true
	return c
}

// kept returns an idle connection to a member that may carry one more request, or nil. t is
// about now.
func (u *upstream) kept(m *member, t instant) *upstreamConn {
	for {
		c := m.pool.take(u.idleTimeout, t)
		if c == nil || !u.aged(c.opened, t) {
			return c
		}
		c.discard()
	}
}

// aged reports whether a connection is as old as one may be.
func (u *upstream) aged(opened, t instant) bool {
	return u.maxDuration != 0 && t-opened >= u.maxDuration
}

// put keeps a connection for the next exchange.
func (p *connPool) put(c *upstreamConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.idle = append(p.idle, c)
	return true
}

// close ends all idle connections; those under way are closed when they come
// back.
func (p *connPool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.discard()
	}
}

// sweep ends connections that have been idle for longer than idleTimeout, those that are
// as old as one may be, and those to a peer that nobody vouches for any more.
func (p *connPool) sweep(u *upstream) {
	var old []*upstreamConn
	t := now()
	p.mu.Lock()
	p.idle = slices.DeleteFunc(p.idle, func(c *upstreamConn) bool {
		gone := t-c.since > u.idleTimeout || u.aged(c.opened, t) || !c.isVouched()
		if gone {
			old = append(old, c)
		}
		return gone
	})
	p.mu.Unlock()
	for _, c := range old {
		c.discard()
	}
}

// release puts a connection back, or ends it where it may not be used again.
func (u *upstream) release(c *upstreamConn, t instant) {
	if c.shared != nil {
		c.discard()
		return
	}
	if u.maxRequests != 0 && c.uses >= u.maxRequests || u.aged(c.opened, t) || c.member.upstream.Load().surplus() > 0 { // by the table in force
		c.discard()
		return
	}
	c.since, c.large = t, false
	c.in.release()
	if !c.member.pool.put(c) {
		c.discard()
		return
	}
	u.live.queue.wake()
}

// discard ends a connection and makes room for another one. Of one that speaks
// HTTP/2, it ends the stream.
func (c *upstreamConn) discard() {
	if c.shared != nil {
		m := c.member
		m.shared.put(c)
		m.live.queue.wake()
		return
	}
	c.close()
	c.member.live.queue.leave()
}

// dial opens a connection, whose place in the queue the caller has taken,
// within a time and before a deadline. Nothing has been sent when it fails. TLS is told
// what will be spoken.
func (u *upstream) dial(m *member, within, deadline instant, speaks headFormat) (*upstreamConn, *Error) {
	if u.key.relay {
		deadline = 0 // that of the line: what is relayed has none of its own
	}
	start := now()
	conn, err := u.connect(m, start, within, deadline)
	if err != nil {
		u.live.queue.leave()
		return nil, err
	}
	return u.begin(m, conn, start, sooner(start+within, deadline), deadline != 0 && deadline < start+within, speaks)
}

// connect makes a connection of TCP, and notes what it shows of the endpoint and of the
// way to its cluster.
func (u *upstream) connect(m *member, start, within, deadline instant) (*net.TCPConn, *Error) {
	permit, ok := m.link.dial()
	if !ok {
		return nil, u.failure(m, LinkDown, nil)
	}
	d := net.Dialer{Deadline: sooner(start+within, deadline).time(), KeepAlive: -1}
	switch {
	case u.keepAlive != nil:
		d.KeepAliveConfig = keepAliveConfig(u.keepAlive)
	case m.link != nil:
		d.KeepAliveConfig = remoteKeepAlive
	}
	dials := m.dials.Load()
	conn, err := d.DialTCP(dials.ctx, "tcp", netip.AddrPort{}, m.address)
	if err == nil {
		permit.Connected()
		u.live.stats.Connects.Add(1)
		return conn, nil
	}
	if failed, ok := err.(*net.OpError); ok {
		failed.Source = nil // which nobody has chosen: ":0->10.0.0.7:80"
	}
	if dials.ctx.Err() != nil {
		permit.Abandoned()
		return nil, u.failure(m, ConnectTimeout, err) // another dial has found out
	}
	if health.IsOurs(err) {
		permit.Abandoned()
		return nil, u.failure(m, ConnectFailure, err)
	}
	kind := ConnectFailure
	if isTimeout(err) {
		kind = ConnectTimeout
		if deadline != 0 && deadline < start+within {
			permit.Abandoned()
			m.verify(silence)
			return nil, u.failure(m, kind, err)
		}
	}
	permit.Failed()
	m.countDial(u, kind, false)
	u.tracker.ConnectFailed(m.record)
	if kind == ConnectTimeout {
		m.dials.Swap(newDials()).giveUp()
	}
	return nil, u.failure(m, kind, err)
}

// begin makes a connection, which has its place in the queue, ready for requests until
// limit. hurried says that this is the request's own, which says nothing of the endpoint.
func (u *upstream) begin(m *member, conn *net.TCPConn, start, limit instant, hurried bool, speaks headFormat) (*upstreamConn, *Error) {
	s, err := newStream(conn)
	if err != nil {
		conn.Close()
		u.live.queue.leave()
		return nil, u.failure(m, ConnectFailure, err) // not the endpoint's fault
	}
	if m.tls != nil {
		if err := m.tls.shake(s, speaks, limit); err != nil {
			s.close()
			if hurried && err == errTimeout {
				u.live.queue.leave()
				m.verify(silence)
				return nil, u.failure(m, ConnectTimeout, err)
			}
			u.tracker.ConnectFailed(m.record)
			u.live.complain(u, m, err)
			m.countDial(u, ConnectFailure, true)
			u.live.queue.leave()
			return nil, u.failure(m, ConnectFailure, err)
		}
	}
	if m.wire.mode == wireMesh {
		m.shown(s.peerIdentity())
	}
	if m.link != nil {
		s.limitUnacknowledged()
	}
	return &upstreamConn{stream: s, member: m, told: m.told(conn.LocalAddr().(*net.TCPAddr).AddrPort()), opened: start}, nil
}

func (u *upstream) failure(m *member, k Kind, cause error) *Error {
	return &Error{Kind: k, Upstream: u.key.String(), Endpoint: m.address, Cause: cause}
}

// dials are those under way to one endpoint. When one of them has proved that
// nobody answers, the others need not wait.
type dials struct {
	ctx    context.Context
	giveUp context.CancelFunc
}

func newDials() *dials {
	ctx, giveUp := context.WithCancel(context.Background())
	return &dials{ctx, giveUp}
}

// dialAhead opens a connection that no request waits for, to see whether the
// endpoint can be reached, and keeps it for the next request if there is a place for it. While
// it is being connected it has none: where nobody answers, that would be the place of a
// request to another endpoint.
func (m *member) dialAhead(within instant) bool {
	u := m.upstream.Load()
	within = min(within, u.connectTimeout)
	start := now()
	conn, err := u.connect(m, start, within, 0)
	if err != nil {
		return false
	}
	if !u.live.queue.place(u.limits.connections) {
		conn.Close()
		return true
	}
	speaks := headFormat(u.speaks == speaksHTTP2)
	if speaks == asHTTP2 {
		m.shared.opening(1)
	}
	// TLS takes round trips of its own, and the time of a process which may have much to do.
	c, err := u.begin(m, conn, start, start+min(within+silence, u.connectTimeout), false, speaks)
	switch {
	case err != nil:
		if speaks == asHTTP2 {
			m.shared.opening(-1)
		}
		return false
	case u.key.relay:
		c.discard() // those that are relayed have connections of their own, each a new one
	case speaks == asHTTP2:
		u.share(c, false)
		u.live.queue.wake() // whoever waits for its place may have it
	default:
		u.release(c, now())
	}
	return true
}

// look is what the host asks before it gets its trial.
func (m *member) look() bool { return m.dialAhead(math.MaxInt64) }

// verify finds out, beside the requests, whether an endpoint in doubt can
// still be connected to. One goroutine at a time does, and ends with its dial.
func (m *member) verify(within instant) {
	if m.verifying.CompareAndSwap(false, true) {
		go func() {
			defer m.verifying.Store(false)
			m.dialAhead(within)
		}()
	}
}

// silence is how long the dial may take that shows whether an endpoint is
// there, after a request had less time for its own: long enough for any distance
// on earth, and too short for a first SYN that was lost (1 s).
const silence = instant(600 * time.Millisecond)

// remoteKeepAlive finds a connection to another cluster dead on which nothing
// is under way: after 15 s of silence, three probes 5 s apart.
var remoteKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// keepAliveConfig translates Istio's tcpKeepalive; -1 leaves a value to the
// operating system.
func keepAliveConfig(k *mesh.TCPKeepAlive) net.KeepAliveConfig {
	or := func(d time.Duration) time.Duration {
		if d == 0 {
			return -1
		}
		return d
	}
	count := int(k.Probes)
	if count == 0 {
		count = -1
	}
	return net.KeepAliveConfig{Enable: true, Idle: or(k.Time), Interval: or(k.Interval), Count: count}
}
