package proxy

import (
	"slices"
	"sync"
)

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

// abandon retires a connection whose other end does not answer.
func (p *sharedPool) abandon(s *sharedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retire(s)
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

// retireSome retires so many connections at most, but for one, and returns how many.
func (p *sharedPool) retireSome(most int) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; n < most && len(p.conns) > 1; n++ {
		p.retire(p.conns[len(p.conns)-1])
	}
	return n
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

// close retires all of them.
func (p *sharedPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range slices.Clone(p.conns) {
		p.retire(s)
	}
}
