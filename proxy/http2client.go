package proxy

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

// sharedPool are the connections of one member that speak HTTP/2, and the requests that
// wait for a stream of them.
type sharedPool struct {
	mu      sync.Mutex // guards what is below
	conns   []*sharedConn
	open    int    // connections that are being opened or have not ended
	streams uint32 // that the endpoint has said it takes over one, the last of those that are gone; 0: nobody knows
	closed  bool
	streamLine
}

var upstreamStreams = sync.Pool{New: func() any { return &upstreamConn{stream: &stream{}} }}

// room leases a stream of a connection that has room for one; nil if none has. The caller
// holds mu.
func (p *sharedPool) room(u *upstream, t instant) *upstreamConn {
	for i := 0; i < len(p.conns); {
		s := p.conns[i]
		old := u.aged(s.opened, t) || u.maxRequests != 0 && s.uses >= u.maxRequests
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
		s.member.live.queue.retired.Add(1)
	}
	s.retired = true
	if s.h2.Idle() {
		s.end()
	}
	p.lookAgain()
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
	if len(p.line) > 0 {
		p.serve(s.member.upstream.Load())
	}
}

// endIdle ends a connection on which nothing is under way, if there is one that nobody in
// line can have.
func (p *sharedPool) endIdle(u *upstream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.conns {
		if s.h2.Idle() {
			p.serve(u) // the last stream may have ended since somebody was told to wait
			if s.h2.Idle() && !s.retired {
				p.retire(s)
			}
			return s.retired
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

// sweep ends connections that have been idle for longer than idleTimeout, and gives no more
// requests to those that are as old as one may be, and to a peer that nobody vouches for any
// more.
func (p *sharedPool) sweep(u *upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := now()
	for _, s := range slices.Clone(p.conns) {
		if s.h2.Idle() && t-s.since > u.idleTimeout || u.aged(s.opened, t) || !s.isVouched() {
			p.retire(s)
		}
	}
}

// wakeReaders has those who read look at http2KeepAlive anew.
func (p *sharedPool) wakeReaders() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.conns {
		s.interrupt()
	}
}

// retireSome retires so many connections at most, but for one, and returns how many.
func (p *sharedPool) retireSome(most int) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; n < most && len(p.conns) > 1; n++ {
		p.retire(p.conns[len(p.conns)-1])
	}
	return n
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
// if asked for, and those in line others: of a member that is gone meanwhile, it carries
// these and no more.
func (p *sharedPool) add(s *sharedConn, u *upstream, lease bool) (c *upstreamConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.since = now()
	if lease {
		c = s.lease(u)
	}
	p.conns = append(p.conns, s)
	p.serve(u)
	if p.closed {
		p.retire(s)
	}
	return c
}

// changed takes notice of a SETTINGS or GOAWAY that has come.
func (p *sharedPool) changed(s *sharedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.h2.TakesMore() {
		p.retire(s)
	}
	if len(p.line) > 0 {
		p.serve(s.member.upstream.Load())
		p.lookAgain()
	}
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

// share makes a connection carry many requests at a time; see add.
func (u *upstream) share(c *upstreamConn, lease bool) *upstreamConn {
	s := &sharedConn{stream: c.stream, h2: http2.NewClient(http2.Options{PeerStreams: c.member.shared.firstStreams(), Budget: c.member.live.stores.bodies}), member: c.member, opened: c.opened, told: c.told}
	leased := c.member.shared.add(s, u, lease)
	go s.serve()
	return leased
}

// serve reads what comes until the connection is over; a goroutine of its own,
// which ends with it, writes. [upstream.share] starts it.
func (s *sharedConn) serve() {
	s.large = true
	s.keepShort()
	var unsent error // written before flushed is closed
	flushed := make(chan struct{})
	go func() {
		unsent = s.h2.Flush(func(p []byte) error { return s.write(p, now()) })
		close(flushed)
		s.interrupt()
	}()
	err := s.read(flushed)
	if err == errInterrupted {
		err = nil
		if s.h2.Err() == nil { // else it is we who have ended it
			s.hearOut()
			err = unsent
		}
	}
	s.h2.Close(err)
	s.cutOff(flushed)
	p := &s.member.shared
	p.mu.Lock()
	p.retire(s)
	p.count(-1)
	p.mu.Unlock()
	s.stream.close()
	q := &s.member.live.queue
	q.leave()
	q.retired.Add(-1) // after that: one less is too many at worst, and not one more
}

// errSilent is the end of a connection whose other end has not answered a PING.
var errSilent = errors.New("no answer to a PING (http2KeepAlive)")

// hearOut takes what the peer has said before it could be told no more: of requests that it
// has not looked at it says so by GOAWAY, and may have closed the connection with them unread.
func (s *sharedConn) hearOut() {
	s.limit = now() + instant(lastWords)
	for {
		if _, err := s.fill(); err != nil {
			return
		}
		n, err := s.h2.Receive(s.in.bytes())
		s.in.r += n
		if err != nil {
			return
		}
	}
}

// lastWords is how long that may take: what has come lies in the kernel. It is how long
// our own may take, too: the kernel has room for them, or the peer does not read.
const lastWords = 100 * time.Millisecond

// cutOff waits until what is to be sent has been, or ends the write that it waits for: the
// connection is over, and its place is others'.
func (s *sharedConn) cutOff(flushed <-chan struct{}) {
	for wait := lastWords; ; wait = lastWords / 10 {
		select {
		case <-flushed:
			return
		case <-time.After(wait):
			s.stopWriting() // again, where who writes sets its own limit at the same moment
		}
	}
}

// read reads until the connection is over, and returns why. errInterrupted: nothing can be
// sent any more, or it is we who have ended it.
func (s *sharedConn) read(flushed <-chan struct{}) error {
	ends := instant(0) // when nobody waits any longer for our last words to be sent
	for changes := 0; ; {
		if s.in.len() > 0 {
			n, err := s.h2.Receive(s.in.bytes())
			s.in.r += n
			if err != nil {
				return err
			}
			if n := s.h2.Changes(); n != changes {
				changes = n
				s.member.shared.changed(s)
			}
		}
		if s.limit = ends; ends != 0 {
			// Nothing more is asked.
		} else if keep := s.member.upstream.Load().keepAliveHTTP2; keep != nil {
			wait := keep.Interval
			if s.h2.Probing() {
				wait = keep.Timeout
			}
			s.limit = now() + instant(wait)
		}
		switch _, err := s.fill(); err {
		case nil:
		case errTimeout:
			switch {
			case ends != 0:
				return errInterrupted
			case !s.h2.Probe():
				return errSilent
			}
		case errInterrupted:
			select {
			case <-flushed:
				return err
			default:
			}
			if ends == 0 && s.h2.Err() != nil {
				ends = now() + instant(lastWords)
			}
		default:
			return err
		}
	}
}
