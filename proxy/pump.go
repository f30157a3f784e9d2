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
	continued atomic.Int64 // an instant: when the client was sent the 100 that it had waited for; 0: it was not
	stop      atomic.Bool
	last      atomic.Bool // the end of the body has come and is being written
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
	p.stop.Store(false)
	p.last.Store(false)
	p.outcome = make(chan Kind, 1)
	go func(outcome chan<- Kind) {
		kind := x.pump(c)
		outcome <- kind
		if kind != NoError && kind != Terminated {
			c.interrupt() // the reply will not come: whoever waits for it shall know
		}
	}(p.outcome)
	return NoError
}

// pump sends the rest of a body while the reply is awaited and read, until the
// body has been sent, either side fails, or stop is set and the client's stream
// interrupted.
func (x *exchange) pump(c *upstreamConn) Kind {
	if x.body.framing == http1.Length {
		return x.pumpLength(c)
	}
	return x.pumpChunked(c)
}

// pumpLength sends the rest of a body of known length. Much of it is moved
// within the kernel.
func (x *exchange) pumpLength(c *upstreamConn) Kind {
	left := x.body.length - int64(len(x.body.data))
	in := &x.conn.in
	var p *pipe
	if left > spliceFrom && c.secure == nil && x.conn.secure == nil {
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
		x.tally.pumped += n
		if left == 0 {
			x.tally.received = now()
			x.pumping.last.Store(true)
		}
		var err error
		if in.len() > 0 {
			err = c.write(in.data[in.r:in.r+int(n)], now())
			in.r += int(n)
		} else {
			err = c.writePipe(p, now())
		}
		if err != nil {
			return Terminated
		}
	}
	return NoError
}

// pumpChunked sends the rest of a chunked body, encoded anew: a chunk for what
// comes at a time.
func (x *exchange) pumpChunked(c *upstreamConn) Kind {
	in := &x.conn.in
	sent := int64(len(x.body.data))
	var frames []byte
	for {
		frames = frames[:0]
		done := false
		if in.len() > 0 {
			x.pumping.begun.Store(true)
		}
		for in.len() > 0 && !done {
			data, n, last, err := x.requestChunks.Next(in.bytes())
			if err != nil {
				return BadRequest
			}
			in.r += n
			sent += int64(len(data))
			x.tally.pumped += int64(len(data))
			if most := x.conn.patience.maxBody; most != 0 && sent > most {
				return BodyTooLarge
			}
			if len(data) > 0 {
				frames = http1.AppendChunkHeader(frames, len(data))
				frames = append(frames, data...)
				frames = append(frames, "\r\n"...)
			}
			if done = last; done {
				x.tally.received = now()
				frames = http1.AppendLastChunk(frames, x.requestChunks.Trailers())
				x.pumping.last.Store(true)
			}
			if n == 0 {
				break
			}
		}
		if len(frames) > 0 && c.write(frames, now()) != nil {
			return Terminated
		}
		if done {
			return NoError
		}
		if in.len() == 0 {
			in.r, in.w = 0, 0
		}
		if kind := x.fillBody(nil, 0); kind != NoError {
			return kind
		}
	}
}

// stopPump ends the goroutine that sends the body, if there is one, and
// reports whether the body has been sent whole.
func (x *exchange) stopPump(c *upstreamConn) bool {
	if !x.pumping.active {
		return true
	}
	x.pumping.active = false
	select {
	case kind := <-x.pumping.outcome:
		x.keep = x.keep && kind == NoError
		return kind == NoError
	default:
	}
	if x.pumping.last.Load() {
		// The upstream has read and answered what the goroutine is about to tell us
		// that it has written.
		select {
		case kind := <-x.pumping.outcome:
			x.keep = x.keep && kind == NoError
			return kind == NoError
		case <-time.After(lastWrite):
		}
	}
	x.keep = false // bytes of the body are still to come, and nobody wants them
	x.pumping.stop.Store(true)
	x.conn.interrupt()
	for {
		c.conn.SetWriteDeadline(epoch) // again, where the goroutine sets its own at the same moment
		select {
		case <-x.pumping.outcome:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lastWrite is how long the end of a request's body may take to be written
// after its reply is complete.
const lastWrite = time.Second
