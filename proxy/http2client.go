package proxy

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/accesslog"
	"isthmus/http2"
)

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

// share makes a connection carry many requests at a time; see [sharedPool.add].
func (u *upstream) share(c *upstreamConn, lease bool) *upstreamConn {
	s := &sharedConn{stream: c.stream, h2: http2.NewClient(http2.Options{PeerStreams: c.member.shared.firstStreams(), Budget: c.member.live.stores.bodies}), member: c.member, opened: c.opened, told: c.told}
	leased := c.member.shared.add(s, u, lease)
	go s.serve()
	return leased
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

var upstreamStreams = sync.Pool{New: func() any { return &upstreamConn{stream: &stream{}} }}

// introduce reports whether the request about to be sent is the first one.
func (s *sharedConn) introduce() bool { return !s.introduced.Load() && !s.introduced.Swap(true) }

// streams is how many requests the endpoint takes over the connection: one at least,
// since one that takes none for now is asked again.
func (s *sharedConn) streams() uint32 { return max(s.h2.PeerStreams(), 1) }

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

// end ends a connection on which nothing is under way.
func (s *sharedConn) end() {
	s.h2.Leave()
	s.h2.Close(nil)
	s.interrupt()
}
