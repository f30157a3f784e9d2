package proxy

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"isthmus/accesslog"
	"isthmus/http2"
	"isthmus/mesh"
)

// speaks is the protocol in which an upstream is spoken to.
type speaks uint8

const (
	speaksHTTP1 speaks = iota
	speaksHTTP2
	speaksAsClient // whatever the client does
)

// protocolOf finds the protocol of an upstream: by its port's, by
// h2UpgradePolicy and useClientProtocol (Istio: buildUpstreamClusterHttpSettings).
// Where the port does not say, the client's will do, as Istio has it.
func protocolOf(k upstreamKey, endpoints []*mesh.Endpoint, pool *mesh.ConnectionPool) speaks {
	port := portProtocol(endpoints)
	switch {
	case k.relay:
		return speaksHTTP1 // it is not asked
	case port.IsHTTP2():
		return speaksHTTP2
	case pool.UseClientProtocol:
		return speaksAsClient
	case pool.UpgradeHTTP2 && !k.inbound:
		return speaksHTTP2
	case port == mesh.ProtocolUnknown:
		return speaksAsClient
	}
	return speaksHTTP1
}

// portProtocol is what the port of an upstream says that it speaks.
func portProtocol(endpoints []*mesh.Endpoint) mesh.Protocol {
	if len(endpoints) == 0 {
		return mesh.ProtocolUnknown
	}
	return endpoints[0].Port.Protocol
}

// mayHTTP1 reports whether an upstream that is spoken to in HTTP/2 may be in
// HTTP/1.1, too: for upgrades it does not take otherwise.
func mayHTTP1(endpoints []*mesh.Endpoint, pool *mesh.ConnectionPool) bool {
	return !portProtocol(endpoints).IsHTTP2() && !pool.UseClientProtocol
}

// multiplexes reports whether a request of a client goes over HTTP/2.
func (u *upstream) multiplexes(client *stream) bool {
	return u.speaks == speaksHTTP2 || u.speaks == speaksAsClient && (client.h2 != nil || client.copied)
}

// sharedConn is a connection to an endpoint that carries many requests at a time.
type sharedConn struct {
	*stream
	h2     *http2.Conn
	member *member
	opened instant
	told   *accesslog.UpstreamEnd

	introduced atomic.Bool // a request has said who we are

	// Guarded by the pool's mu.
	uses    uint32
	since   instant // when the last request was over
	retired bool    // it gets no more
}

// sharedPool are the connections of one member that speak HTTP/2.
type sharedPool struct {
	mu      sync.Mutex // guards what is below
	conns   []*sharedConn
	dialing *sharedDial // under way; nil: none is
	streams uint32      // that the endpoint has said it takes over one, the last of those that are gone; 0: nobody knows
	closed  bool
}

// sharedDial is a connection being opened, for all who find none with room.
type sharedDial struct {
	done chan struct{} // closed when it has ended
	room chan struct{} // of capacity 1: a request over another connection has ended
	err  *Error        // of the endpoint's: nobody need try again; written before done is closed
}

var upstreamStreams = sync.Pool{New: func() any { return &upstreamConn{stream: &stream{}} }}

// take leases a stream of a connection that has room for one; nil if none has.
func (p *sharedPool) take(u *upstream, t instant) *upstreamConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 0; i < len(p.conns); {
		s := p.conns[i]
		old := u.maxDuration != 0 && t-s.opened >= u.maxDuration || u.maxRequests != 0 && s.uses >= u.maxRequests
		if old || !s.h2.TakesMore() {
			p.retire(s)
			continue
		}
		if c := s.lease(u); c != nil {
			return c
		}
		i++
	}
	return nil
}

// lease leases a stream of the connection; nil if there is no room for one. The
// caller holds the pool's mu.
func (s *sharedConn) lease(u *upstream) *upstreamConn {
	h := s.h2.Open(u.limits.streams)
	if h == nil {
		return nil
	}
	c := upstreamStreams.Get().(*upstreamConn)
	c.lend(h, s.stream, stallTimeout)
	c.member, c.shared, c.told, c.opened, c.reused = s.member, s, s.told, s.opened, s.uses > 0
	s.uses++
	return c
}

// introduce reports whether the request about to be sent is the first one.
func (s *sharedConn) introduce() bool { return !s.introduced.Load() && !s.introduced.Swap(true) }

// retire takes a connection out: it ends with the last of its requests. The
// caller holds mu.
func (p *sharedPool) retire(s *sharedConn) {
	if i := slices.Index(p.conns, s); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
		p.streams = s.streams()
	}
	s.retired = true
	if s.h2.Idle() {
		s.end()
	}
}

// end ends a connection on which nothing is under way.
func (s *sharedConn) end() {
	s.h2.Leave()
	s.h2.Close(nil)
	s.interrupt()
}

// put gives back a stream that is over.
func (p *sharedPool) put(c *upstreamConn) {
	s := c.shared
	c.close()
	*c = upstreamConn{stream: c.stream}
	upstreamStreams.Put(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.since = now()
	if s.retired && s.h2.Idle() {
		s.end()
	}
	p.roomMade()
}

// roomMade tells whoever is about to open a connection that one has room. The caller
// holds mu.
func (p *sharedPool) roomMade() {
	if p.dialing != nil {
		select {
		case p.dialing.room <- struct{}{}:
		default:
		}
	}
}

// endIdle ends a connection on which nothing is under way, if there is one.
func (p *sharedPool) endIdle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.conns {
		if s.h2.Idle() {
			p.retire(s)
			return true
		}
	}
	return false
}

// abandon retires a connection whose other end does not answer.
func (p *sharedPool) abandon(s *sharedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retire(s)
}

// sweep ends connections that have been idle for longer than idleTimeout, and gives
// no more requests to a peer that nobody vouches for any more.
func (p *sharedPool) sweep(idleTimeout instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := now()
	for _, s := range slices.Clone(p.conns) {
		if s.h2.Idle() && t-s.since > idleTimeout || !s.isVouched() {
			p.retire(s)
		}
	}
}

// close retires all of them.
func (p *sharedPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range slices.Clone(p.conns) {
		p.retire(s)
	}
}

// add keeps a new connection, of which who has opened it leases the first stream,
// if asked for: of a member that is gone meanwhile, it carries that and no more.
func (p *sharedPool) add(s *sharedConn, u *upstream, lease bool) (c *upstreamConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.since = now()
	if lease {
		c = s.lease(u)
	}
	if p.closed {
		p.retire(s)
		return c
	}
	p.conns = append(p.conns, s)
	if !lease {
		p.roomMade()
	}
	return c
}

// firstStreams is how many requests a new connection gets before the endpoint has said
// how many it takes: as many as over the others, so that a burst that was too much for
// one is not too much for the next one. 0: nobody knows.
func (p *sharedPool) firstStreams() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	least := p.streams
	for i, s := range p.conns {
		if n := s.streams(); i == 0 || n < least {
			least = n
		}
	}
	return least
}

// streams is how many requests the endpoint takes over the connection: one at least,
// since one that takes none for now is asked again.
func (s *sharedConn) streams() uint32 { return max(s.h2.PeerStreams(), 1) }

// dialTurn returns the dial under way to be waited for, or one for who asks to
// make: mine.
func (p *sharedPool) dialTurn() (d *sharedDial, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dialing != nil {
		return p.dialing, false
	}
	p.dialing = &sharedDial{done: make(chan struct{}), room: make(chan struct{}, 1)}
	return p.dialing, true
}

// dialed tells those who wait for a dial what has become of it.
func (p *sharedPool) dialed(err *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing.err = err
	close(p.dialing.done)
	p.dialing = nil
}

// leaseStream gets a stream to a member: of a connection that is open, or of a
// new one. One request at a time opens a connection; the others see what becomes
// of it.
func (u *upstream) leaseStream(m *member, client *stream, t, deadline instant) (*upstreamConn, *Error) {
	for waited := false; ; {
		if c := m.shared.take(u, t); c != nil {
			return c, nil
		}
		d, mine := m.shared.dialTurn()
		if !mine {
			if kind := u.live.queue.awaitOther(d.done, u.limits.pending, waited, deadline, client); kind != NoError {
				return nil, &Error{Kind: kind, Upstream: u.key.String()}
			}
			if d.err != nil {
				return nil, d.err
			}
			t, waited = now(), true
			continue
		}
		if c := m.shared.take(u, t); c != nil { // there is room meanwhile, of which nobody would tell
			m.shared.dialed(nil)
			return c, nil
		}
		start := now()
		c, err := u.dialShared(m, d, client, waited, deadline)
		if hurried := deadline != 0 && deadline < start+u.connectTimeout; err != nil && (hurried || !answers[err.Kind].unsent || err.Kind == Overflow) {
			m.shared.dialed(nil) // it says more of this request than of the endpoint
		} else {
			m.shared.dialed(err)
		}
		if c != nil || err != nil {
			return c, err
		}
		t, waited = now(), true
	}
}

// dialShared opens a connection, in its turn if the upstream's connections are
// limited, keeps it, and leases a stream of it. It opens none, and returns nothing,
// if there is room on another one before that.
func (u *upstream) dialShared(m *member, d *sharedDial, client *stream, waited bool, deadline instant) (*upstreamConn, *Error) {
	q := &u.live.queue
	if u.limits.connections == 0 {
		q.open.Add(1)
	} else {
		for place := -1; ; place, waited = 0, true {
			turn, err := q.enter(u, place, waited)
			if err != nil {
				return nil, err
			}
			if turn == nil {
				break
			}
			if kind := q.await(turn, d.room, deadline, client); kind != NoError {
				return nil, &Error{Kind: kind, Upstream: u.key.String()}
			}
			select {
			case <-turn:
			default:
				return nil, nil
			}
			if c := m.shared.take(u, now()); c != nil {
				q.wake() // it needs no place
				return c, nil
			}
		}
	}
	c, err := u.dial(m, u.connectTimeout, deadline, asHTTP2)
	if err != nil {
		return nil, err
	}
	return u.share(c, true), nil
}

// share makes a connection carry many requests at a time; see add.
func (u *upstream) share(c *upstreamConn, lease bool) *upstreamConn {
	s := &sharedConn{stream: c.stream, h2: http2.NewClient(http2.Options{PeerStreams: c.member.shared.firstStreams(), Budget: c.member.live.stores.bodies}), member: c.member, opened: c.opened, told: c.told}
	leased := c.member.shared.add(s, u, lease)
	go s.serve(u.keepAliveHTTP2)
	return leased
}

// serve reads what comes until the connection is over; a goroutine of its own,
// which ends with it, writes. [upstream.share] starts it.
func (s *sharedConn) serve(keep *mesh.HTTP2KeepAlive) {
	s.large = true
	s.keepShort()
	flushed := make(chan struct{})
	go func() {
		s.h2.Flush(func(p []byte) error { return s.write(p, now()) })
		close(flushed)
		s.interrupt()
	}()
	s.h2.Close(s.read(keep, flushed))
	<-flushed
	p := &s.member.shared
	p.mu.Lock()
	p.retire(s)
	p.mu.Unlock()
	s.stream.close()
	s.member.live.queue.leave()
}

// errSilent is the end of a connection whose other end has not answered a PING.
var errSilent = errors.New("no answer to a PING (http2KeepAlive)")

// read reads until the connection is over, and returns why.
func (s *sharedConn) read(keep *mesh.HTTP2KeepAlive, flushed <-chan struct{}) error {
	for {
		if s.in.len() > 0 {
			n, err := s.h2.Receive(s.in.bytes())
			s.in.r += n
			if err != nil {
				return err
			}
		}
		s.limit = 0
		if keep != nil {
			wait := keep.Interval
			if s.h2.Probing() {
				wait = keep.Timeout
			}
			s.limit = now() + instant(wait)
		}
		switch _, err := s.fill(); err {
		case nil:
		case errTimeout:
			if !s.h2.Probe() {
				return errSilent
			}
		case errInterrupted:
			select {
			case <-flushed:
				return nil
			default:
			}
		default:
			return err
		}
	}
}
