package proxy

import (
	"cmp"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// relaySession is a connection being relayed, or a tunnel that an upgrade has
// begun.
type relaySession struct {
	client         *conn
	upstream       *upstreamConn
	sent, received func(int) // count what the client is sent, and what it sends
	over           func()    // called before the client is told that nothing follows
	told           sync.Once // of over

	idle instant      // how long nothing may move either way; 0: for ever
	last atomic.Int64 // an instant: when bytes have moved

	ending sync.Once
	kind   Kind // why it has ended; written within ending

	// Of a WebSocket, which has no half: once a side has ended its own, the other
	// has closingTime to take leave.
	websocket bool
	half      atomic.Bool // one side has ended its own
	leaving   atomic.Bool // close it between two messages; see webSockets
	parted    atomic.Bool // that has been done, in one of the directions
}

// direction is one way through a relayed connection.
type direction struct {
	from, to         *stream
	count            func(int)
	fromKind, toKind Kind // what a failure of either side is

	frames frames // of a WebSocket
	client bool   // the client is the sender
	over   bool   // the receiver was told that nothing follows: what comes is dropped
}

// closingTime is how long a WebSocket may be silent of which one side has ended its
// own: for what is on its way over any distance.
const closingTime = instant(10 * time.Second)

// run moves bytes both ways until both sides have ended theirs, or longest has
// passed, unless that is 0. Of the two directions, one has a goroutine of its
// own, which ends with run.
func (s *relaySession) run(longest instant) Kind {
	c, up := s.client.stream, s.upstream.stream
	if c.raw == nil && c.register() != nil {
		return ClientGone
	}
	stall := cmp.Or(s.idle, maxTimeout)
	c.stall, up.stall = stall, stall
	s.moved()
	if longest != 0 {
		// A timer, not a limit for reading: a write to a side that takes nothing has
		// to end as well.
		timer := time.AfterFunc(time.Duration(longest), func() { s.end(DurationTimeout, false) })
		defer timer.Stop()
	}
	replies, whole := make(chan struct{}), false
	defer func() {
		if !whole { // a panic: whoever recovers from it gives back what the other direction still uses
			s.end(Terminated, true)
			<-replies
		}
	}()
	go func() {
		defer close(replies)
		defer s.recover()
		s.forward(&direction{from: up, to: c, count: s.sent, fromKind: Terminated, toKind: ClientGone})
	}()
	s.forward(&direction{from: c, to: up, count: s.received, fromKind: ClientGone, toKind: Terminated, client: true})
	<-replies
	whole = true
	s.ending.Do(func() {}) // the timer may be about to end it: not any more
	return s.kind
}

// recover keeps what one relayed connection breaks from taking the others along;
// the goroutine that serves the client has its own.
func (s *relaySession) recover() {
	if r := recover(); r != nil {
		s.client.proxy.log.Error("panic while relaying a connection", "listener", s.client.listener.name, "peer", s.client.peer, "panic", r, slog.String("stack", string(debug.Stack())))
		s.end(Terminated, true)
	}
}

func (s *relaySession) moved() { s.last.Store(int64(now())) }

// limit is when the next bytes have to come; 0: never.
func (s *relaySession) limit() instant {
	idle := s.idle
	if s.websocket && s.half.Load() {
		idle = sooner(idle, closingTime)
	}
	if idle == 0 {
		return 0
	}
	return instant(s.last.Load()) + idle
}

// end ends both directions. With a reset, as one that came from one side is
// passed on to the other.
func (s *relaySession) end(k Kind, reset bool) {
	s.ending.Do(func() {
		s.kind = k
		s.told.Do(s.over)
		s.client.kill(reset)
		s.upstream.kill(reset)
	})
}

// forward moves the bytes of one direction until its sender ends it.
func (s *relaySession) forward(d *direction) {
	from := d.from
	for {
		if from.in.len() > 0 {
			full := from.in.w == len(from.in.data)
			if err := s.pass(d); err != nil {
				s.failed(err, d.toKind)
				return
			}
			if full && from.plain() && d.to.plain() {
				fromErr, toErr := s.pour(d)
				switch {
				case fromErr != nil:
					s.failed(fromErr, d.fromKind)
					return
				case toErr != nil:
					s.failed(toErr, d.toKind)
					return
				}
			}
		}
		if err := s.part(d); err != nil {
			s.failed(err, d.toKind)
			return
		}
		from.limit = s.limit()
		switch _, err := from.fill(); {
		case err == nil, err == errInterrupted:
		case err == io.EOF:
			if s.parted.Load() && !d.over && d.frames.between() {
				// Whoever got our frame has ended its side without an answer, which would
				// have told the other.
				if err := d.to.writeBody(goingAway(d.client), false, now()); err != nil {
					s.failed(err, d.toKind)
					return
				}
			}
			if !d.client {
				s.told.Do(s.over)
			}
			d.to.closeWrite()
			if s.websocket {
				s.half.Store(true)
				d.to.interrupt() // whoever reads there has less time from now on
			}
			return
		case err == errTimeout && now() < s.limit():
			// Bytes have moved the other way meanwhile.
		default:
			s.failed(err, d.fromKind)
			return
		}
	}
}

// pass sends on what has come. Of a WebSocket that is to be closed, it looks after
// each frame whether that can be done.
func (s *relaySession) pass(d *direction) error {
	in := &d.from.in
	for in.len() > 0 && !d.over {
		p := in.bytes()
		if s.websocket {
			p = p[:d.frames.follow(p, s.leaving.Load())]
		}
		if err := d.to.writeBody(p, false, now()); err != nil {
			return err
		}
		in.r += len(p)
		d.count(len(p))
		if err := s.part(d); err != nil {
			return err
		}
	}
	in.r, in.w = 0, 0
	s.moved()
	return nil
}

// part closes a WebSocket that the proxy wants to end, if it can be done in this
// direction: whoever gets our frame answers it the other way, as if its peer had
// sent it, and both end their connections.
func (s *relaySession) part(d *direction) error {
	if !s.leaving.Load() || !d.frames.between() || !s.parted.CompareAndSwap(false, true) {
		return nil
	}
	d.over = true
	return d.to.writeBody(goingAway(d.client), false, now())
}

// failed ends both directions after a failure of one.
func (s *relaySession) failed(err error, k Kind) {
	switch {
	case (isTimeout(err) || err == errTimeout) && s.websocket && s.half.Load():
		s.end(NoError, false) // it was over
	case isTimeout(err), err == errTimeout:
		s.end(IdleTimeout, false)
	default:
		s.end(k, true)
	}
}

// pour moves bytes within the kernel, for as long as there are more at once, and of
// a WebSocket, as they belong to the frame under way. It returns the error of the
// side that has failed; the sender's, a reset say, is one that reading would not
// tell again.
func (s *relaySession) pour(d *direction) (fromErr, toErr error) {
	most := func() int {
		if s.websocket {
			return int(min(d.frames.left, pipeSize))
		}
		return pipeSize
	}
	if d.over || most() < spliceFrom {
		return nil, nil
	}
	p := takePipe()
	if p == nil {
		return nil, nil
	}
	defer p.release()
	for n := most(); n > 0; n = most() {
		n, err := d.from.tryPipe(p, n)
		if n == 0 || err != nil {
			return err, nil
		}
		if err := d.to.writePipe(p, now()); err != nil {
			return nil, err
		}
		d.frames.left -= min(d.frames.left, uint64(n))
		d.count(n)
		s.moved()
	}
	return nil, nil
}
