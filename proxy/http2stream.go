package proxy

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"isthmus/http1"
	"isthmus/http2"
)

// An exchange reads and writes a stream of HTTP/2 much as it does a connection:
// what is read are the bytes of a body, io.EOF being its end, and heads are
// written by calls of their own.

// unsent is how much the kernel takes, over a connection of HTTP/2, that it
// cannot send yet: what a small reply has to wait behind, where the kernel would
// keep megabytes of a large one. It is two frames. Half of them are still there
// when we are told to go on; a gigabit a second takes an eighth of a millisecond
// for that.
const unsent = 32 << 10

// keepShort has the kernel take no more than that.
func (s *stream) keepShort() {
	s.control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
	})
}

// plain reports whether bytes go to the socket as they are, and come so.
func (s *stream) plain() bool { return s.secure == nil && s.h2 == nil }

// overTLS reports whether the connection is encrypted.
func (s *stream) overTLS() bool {
	return s.secure != nil || s.under != nil && s.under.secure != nil
}

// scheme is how a request over the stream is asked for.
func (s *stream) scheme() []byte {
	if s.overTLS() {
		return schemeHTTPS
	}
	return schemeHTTP
}

// fillStream is fill for a stream of HTTP/2. It returns without any bytes when a
// head has come.
func (s *stream) fillStream() (int, error) {
	for {
		n, err := s.poll()
		switch {
		case n > 0:
			return n, nil
		case err != http2.ErrWait && s.h2.HeadWaits():
			return 0, nil // with which the stream has ended
		case err != http2.ErrWait:
			return 0, streamError(err)
		}
		s.idleBuffer()
		var limit time.Time
		if s.limit != 0 {
			limit = s.limit.time()
		}
		if err := s.h2.Wait(limit); err != nil {
			return 0, streamError(err)
		}
		if s.h2.HeadWaits() {
			return 0, nil
		}
	}
}

// poll reads what has come, without waiting. A full buffer is left as it is.
func (s *stream) poll() (int, error) {
	s.in.borrow(s.large)
	if s.in.w == len(s.in.data) && !s.in.grow() {
		return 0, nil
	}
	n, err := s.h2.Read(s.in.data[s.in.w:])
	s.in.w += n
	s.n = n
	s.ended = err == io.EOF
	return n, err
}

// streamError translates the errors of http2 into those of streams.
func streamError(err error) error {
	switch err {
	case http2.ErrTimeout:
		return errTimeout
	case http2.ErrInterrupted:
		return errInterrupted
	}
	return err
}

// writeLimit is when a write has to be done that begins at t.
func (s *stream) writeLimit(t instant) time.Time { return (t + s.stall).time() }

// writeHead sends a head that is no more than that: an interim reply.
func (s *stream) writeHead(head []byte, t instant) error {
	if s.h2 != nil {
		return s.h2.Send(head, nil, false, s.writeLimit(t))
	}
	return s.write(head, t)
}

// writeBody sends a part of a body. last says that there is no more.
func (s *stream) writeBody(p []byte, last bool, t instant) error {
	if s.h2 != nil {
		return streamError(s.h2.Write(p, last, s.writeLimit(t)))
	}
	return s.write(p, t)
}

// flushStream is flush for a client of HTTP/2: the head as HEADERS, what is
// behind it as DATA.
func (x *exchange) flushStream(end bool) Kind {
	if !x.replying {
		return x.beginStream(x.out[x.headLen:], end)
	}
	err := x.conn.h2.Write(x.out, end, x.conn.writeLimit(x.clock))
	x.out = x.out[:0]
	if err != nil {
		return ClientGone
	}
	return NoError
}

// beginStream sends the head of the reply, and the beginning of its body.
func (x *exchange) beginStream(body []byte, end bool) Kind {
	x.replying = true
	err := x.conn.h2.Send(x.out[:x.headLen], body, end, x.conn.writeLimit(x.clock))
	x.out = x.out[:0]
	if err != nil {
		return ClientGone
	}
	return NoError
}

// finishStream ends the reply with trailers.
func (x *exchange) finishStream(trailers []http1.Field) Kind {
	if kind := x.flushStream(false); kind != NoError {
		return kind
	}
	x.out = appendTrailers(x.out[:0], trailers)
	x.conclude()
	if x.conn.h2.SendTrailers(x.out, x.conn.writeLimit(x.clock)) != nil {
		return ClientGone
	}
	x.out = x.out[:0]
	return NoError
}

func appendTrailers(dst []byte, trailers []http1.Field) []byte {
	for i := range trailers {
		dst = http2.AppendField(dst, trailers[i].Name, trailers[i].Value)
	}
	return dst
}

// requestTrailers are those of a request whose body has been read whole. What
// reads chunks knows those of another request where there are none.
func (x *exchange) requestTrailers() []http1.Field {
	switch {
	case x.body.empty():
		return nil
	case x.conn.h2 != nil:
		return x.conn.h2.Trailers()
	case x.body.framing == http1.Chunked:
		return x.requestChunks.Trailers()
	}
	return nil
}

// sendStream sends the request over a stream of HTTP/2; see send.
func (x *exchange) sendStream(c *upstreamConn) Kind {
	b := &x.body
	whole := b.whole || b.empty()
	var trailers []http1.Field
	if whole {
		trailers = x.requestTrailers()
	}
	data := b.data
	if x.bridged && x.dialect == grpcWebText {
		x.text.held = 0
		var err error
		if data, err = x.text.next(b.data, whole); err != nil {
			x.trail.cause = err
			return BadRequest
		}
	}
	if x.upgrade.protocol != nil || string(x.req.Method) == "HEAD" {
		c.h2.Uncount()
	}
	n, err := c.h2.Start(x.out, data, whole && len(trailers) == 0 && x.upgrade.protocol == nil)
	switch {
	case errors.Is(err, http2.ErrUnprocessed):
		return stale
	case err != nil:
		return Terminated
	case whole && n == len(data) && len(trailers) == 0:
		return NoError
	}
	x.pumping.rest = data[n:]
	return x.startPump(c)
}

// readStreamHead reads one head of a reply; see readReplyHead.
func (x *exchange) readStreamHead(c *upstreamConn) Kind {
	for {
		fields, end, ok := c.h2.Head()
		if ok {
			if err := http2.ReadResponse(&x.res, fields, x.req.Method, end); err != nil {
				x.trail.cause = err
				c.h2.Reset(http2.CodeProtocol)
				return BadReply
			}
			return NoError
		}
		if c.in.len() > 0 { // nobody sends a body before its head
			return BadReply
		}
		if kind := x.fillReply(c, inHead, nil, 0); kind != NoError {
			return x.streamKind(c, kind)
		}
	}
}

// streamKind tells more closely why there was no reply over a stream.
func (x *exchange) streamKind(c *upstreamConn, k Kind) Kind {
	if k != Terminated {
		return k
	}
	var reset http2.ResetError
	err := c.h2.Err()
	x.trail.cause = err
	switch {
	case errors.Is(err, http2.ErrMoved):
		return moved
	case errors.Is(err, http2.ErrUnprocessed):
		return Refused
	case errors.Is(err, http2.ErrShed):
		return Shed
	case errors.As(err, &reset) && !reset.ByPeer, errors.Is(err, http2.ErrNotHTTP2):
		return BadReply // what came was not HTTP/2
	case errors.As(err, &reset):
		return RemoteReset
	}
	return k
}

// deliverStream copies a body that has come over a stream of HTTP/2. Its
// beginning leaves with the head, and its end with what comes last.
func (x *exchange) deliverStream(c *upstreamConn, chunked bool) Kind {
	c.large = true
	for {
		_, err := c.poll()
		if x.appendChunk(c.in.bytes(), chunked); err == io.EOF || c.h2.Ended() {
			c.in.release()
			return x.finish(chunked, c.h2.Trailers())
		}
		c.in.r, c.in.w = 0, 0
		if len(x.out) > 0 {
			if kind := x.flush(false); kind != NoError {
				return kind
			}
		}
		if kind := x.fillReply(c, inBody, nil, 0); kind != NoError {
			switch {
			case kind == Terminated && c.ended:
				x.trail.cause = nil // it is the end that a body has
				continue
			case kind == Terminated && errors.Is(c.h2.Err(), http2.ErrShed):
				return Shed
			}
			return kind
		}
	}
}

// stopWriting ends a write of another goroutine's.
func (s *stream) stopWriting() {
	if s.h2 != nil {
		s.h2.InterruptWrite()
		return
	}
	s.conn.SetWriteDeadline(epoch)
}

// lend makes the stream one of HTTP/2, until it is closed.
func (s *stream) lend(h2 *http2.Stream, under *stream, stall instant) {
	s.h2, s.under, s.stall = h2, under, stall
	s.limit, s.ended, s.large, s.pinned, s.movable = 0, false, false, false, false
}
