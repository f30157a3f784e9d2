package proxy

import (
	"sync/atomic"
	"time"

	"isthmus/http1"
)

// pumping is the state of a request body that is sent on a goroutine of its
// own.
type pumping struct {
	active    bool         // the goroutine runs; only the exchange's goroutine looks
	begun     atomic.Bool  // bytes have been taken from the client that nobody keeps
	came      atomic.Int64 // an instant: when the body had come whole, or no more of it was taken; 0: it goes on
	continued atomic.Int64 // an instant: when the client was sent the 100 that it had waited for; 0: it was not
	answered  atomic.Bool  // the reply, over HTTP/2, has begun
	rest      []byte       // of what is held of the body: what has to be sent first
	held      []byte       // what is held of it, and what has been taken since; the goroutine's while it runs
	larger    buffer       // in which held lies when it has outgrown what requestBody has
	stop      atomic.Bool
	last      atomic.Bool // the end of the body has come and is being written
	unread    bool        // the goroutine has ended before the body had come whole
	short     bool        // and before the upstream had got it whole
	cause     error       // why it has failed, where its kind does not say all
	outcome   chan Kind   // one value, when the goroutine has ended
}

// startPump starts the goroutine that sends on what is left of the body, over
// a connection that has got the beginning. It ends by itself, or by stopPump.
func (x *exchange) startPump(c *upstreamConn) Kind {
	if x.conn.raw == nil && x.conn.register() != nil { // from here on there are a reader and a writer
		return ClientGone
	}
	p := &x.pumping
	p.active = true
	p.answered.Store(false)
	p.last.Store(false)
	p.held, p.cause = x.body.data, nil
	p.outcome = make(chan Kind, 1)
	go func(outcome chan<- Kind) {
		kind := x.pumpSafely(c)
		x.pumping.came.CompareAndSwap(0, int64(now()))
		if kind != NoError && kind != Terminated {
			c.interrupt() // the reply will not come: whoever waits for it shall know
		}
		outcome <- kind // from here on, c may be another exchange's
	}(p.outcome)
	return NoError
}

// pumpSafely is pump that keeps one broken request from taking the others along.
func (x *exchange) pumpSafely(c *upstreamConn) (k Kind) {
	defer func() {
		if r := recover(); r != nil {
			x.conn.logPanic(r)
			k = ClientGone
		}
	}()
	return x.pump(c)
}

// pump sends the rest of a body while the reply is awaited and read, until the
// body has been sent, either side fails, or stop is set and the client's stream
// interrupted.
func (x *exchange) pump(c *upstreamConn) Kind {
	p := &x.pumping
	if c.h2 != nil && (len(p.rest) > 0 || x.body.whole) {
		// What was read of the body, and had no room at once.
		last := x.body.whole && len(x.requestTrailers()) == 0
		if last {
			p.last.Store(true)
		}
		if c.writeBody(p.rest, last, now()) != nil {
			return Terminated
		}
		if x.body.whole {
			return x.endBody(c, x.requestTrailers())
		}
	}
	if x.body.framing == http1.Length && (x.conn.h2 == nil || c.h2 == nil) {
		return x.pumpLength(c)
	}
	return x.pumpOpen(c) // there may be trailers
}

// pumpLength sends the rest of a body of known length. Much of it is moved
// within the kernel.
func (x *exchange) pumpLength(c *upstreamConn) Kind {
	left := x.body.length - int64(len(x.body.data))
	in := &x.conn.in
	var p *pipe
	if left > spliceFrom && x.dialect == notGRPC && c.plain() && x.conn.plain() {
		if p = takePipe(); p != nil {
			defer p.release()
		}
	}
	for left > 0 {
		if in.len() == 0 {
			in.r, in.w = 0, 0
			if p != nil {
				in.release()
			}
			if kind := x.fillBody(p, left); kind != NoError {
				return kind
			}
		}
		x.pumping.begun.Store(true)
		n := min(int64(in.len()), left)
		if n == 0 {
			n = int64(p.held)
		}
		left -= n
		x.tally.pumped.Add(n)
		if left == 0 {
			x.bodyCame()
		}
		if in.len() == 0 {
			if c.writePipe(p, now()) != nil {
				return Terminated
			}
			continue
		}
		x.countAsked(in.data[in.r : in.r+int(n)])
		kind := x.writeUp(c, in.data[in.r:in.r+int(n)], left == 0)
		in.r += int(n)
		if kind != NoError {
			return kind
		}
	}
	return NoError
}

// bodyCame notes that all of the body has been taken from the client.
func (x *exchange) bodyCame() {
	x.tally.received = now()
	x.pumping.came.Store(int64(x.tally.received))
	x.pumping.last.Store(true)
}

// pumpOpen sends the rest of a body whose end is found as it comes: a chunk, or
// a frame, for what comes at a time.
func (x *exchange) pumpOpen(c *upstreamConn) Kind {
	in := &x.conn.in
	sent := int64(len(x.body.data))
	var out []byte
	for {
		var n int
		var done bool
		var kind Kind
		if out, n, done, kind = x.takeBody(out[:0], c.format()); kind != NoError {
			return kind
		}
		sent += int64(n)
		x.tally.pumped.Add(int64(n))
		if most := x.conn.patience.maxBody; most != 0 && sent > most {
			return BodyTooLarge
		}
		if done {
			x.bodyCame()
			return x.sendLast(c, out)
		}
		if len(out) > 0 {
			if kind := x.writeUp(c, out, false); kind != NoError {
				return kind
			}
		}
		if in.len() == 0 {
			in.r, in.w = 0, 0
		}
		// Over HTTP/1.1, the end of the connection is none of the body.
		ended := func() bool { return x.conn.h2 != nil && x.conn.ended }
		if ended() {
			continue
		}
		if kind := x.fillBody(nil, 0); kind != NoError && !ended() {
			return kind
		}
	}
}

// hold keeps a part of the body that has been taken from the client for another try, as long
// as there is room and nothing of a reply has come.
func (x *exchange) hold(data []byte) {
	p, b := &x.pumping, &x.body
	if len(data) == 0 || p.begun.Load() {
		return
	}
	n := len(p.held) + len(data)
	switch {
	case n > replayLimit, b.framing == http1.Length && b.length > replayLimit, b.awaited, x.upgrade.protocol != nil, p.answered.Load():
		p.begun.Store(true)
		p.larger.release()
		p.held = nil
		return
	case n > cap(p.held): // the rest of the buffer in which it lies
		larger := buffer{}
		larger.borrow(n > bufferSize)
		copy(larger.data, p.held)
		p.held = larger.data[:len(p.held)]
		p.larger.recycle()
		p.larger = larger
	}
	p.held = append(p.held, data...)
}

// holdTaken makes what the goroutine has kept of the body, of which it has taken the last that
// it will, part of what is held.
func (x *exchange) holdTaken() {
	p, b := &x.pumping, &x.body
	if !p.begun.Load() {
		x.tally.pumped.Add(int64(len(b.data) - len(p.held)))
		b.data, b.whole = p.held, b.whole || p.last.Load()
		if p.larger.data != nil {
			b.larger.recycle()
			b.larger, p.larger = p.larger, buffer{}
		}
	}
	p.held = nil
}

// takeBody appends what has come of the body as the upstream wants it: in
// chunks, or as it is. n bytes of it are the body's; done says that these are the
// last.
func (x *exchange) takeBody(out []byte, to headFormat) (_ []byte, n int, done bool, _ Kind) {
	in := &x.conn.in
	chunk := func(data []byte) {
		n += len(data)
		x.hold(data)
		x.countAsked(data)
		if to == asHTTP2 {
			out = append(out, data...)
		} else if len(data) > 0 {
			out = http1.AppendChunkHeader(out, len(data))
			out = append(out, data...)
			out = append(out, "\r\n"...)
		}
	}
	if x.conn.h2 != nil {
		chunk(in.bytes())
		in.r = in.w
		return out, n, x.conn.h2.Ended(), NoError
	}
	for in.len() > 0 && !done {
		data, size, last, err := x.requestChunks.Next(in.bytes())
		if err != nil {
			return out, n, false, BadRequest
		}
		in.r += size
		chunk(data)
		done = last
		if size == 0 {
			break
		}
	}
	return out, n, done, NoError
}

// sendLast sends the end of the body, with what of it is left.
func (x *exchange) sendLast(c *upstreamConn, out []byte) Kind {
	trailers := x.requestTrailers()
	if c.h2 == nil {
		out = http1.AppendLastChunk(out, trailers)
	}
	if kind := x.writeUp(c, out, len(trailers) == 0); kind != NoError {
		return kind
	}
	return x.endBody(c, trailers)
}

// endBody ends a body with trailers, if there are any and the upstream has not
// got them yet.
func (x *exchange) endBody(c *upstreamConn, trailers []http1.Field) Kind {
	if c.h2 != nil && len(trailers) > 0 && c.h2.SendTrailers(appendTrailers(nil, trailers), c.writeLimit(now())) != nil {
		return Terminated
	}
	return NoError
}

// stopPump ends the goroutine that sends the body, if there is one, and
// reports whether the body has been sent whole.
func (x *exchange) stopPump(c *upstreamConn) bool {
	p := &x.pumping
	if !p.active {
		return !p.short
	}
	p.active = false
	ended := func(k Kind) bool {
		x.holdTaken()
		p.unread, p.short = k == Terminated && !p.last.Load(), k != NoError
		p.stop.Store(false) // who reads from the client from now on is not meant
		x.keep = x.keep && (k == NoError || k == Terminated)
		return k == NoError
	}
	select {
	case kind := <-p.outcome:
		return ended(kind)
	default:
	}
	if p.last.Load() && c.h2 == nil {
		// The upstream has read and answered what the goroutine is about to tell us
		// that it has written. Over HTTP/2 the stream ends either way.
		select {
		case kind := <-p.outcome:
			return ended(kind)
		case <-time.After(lastWrite):
		}
	}
	p.stop.Store(true)
	x.conn.interrupt()
	for {
		c.stopWriting() // again, where the goroutine sets its own limit at the same moment
		select {
		case <-p.outcome:
			return ended(Terminated)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lastWrite is how long the end of a request's body may take to be written
// after its reply is complete.
const lastWrite = time.Second
