package proxy

import (
	"isthmus/http1"
)

// requestBody is the body of a request. What of it was read before anything
// was sent stays in data until the exchange is over, so that it can be sent to
// another endpoint.
type requestBody struct {
	framing http1.Framing
	length  int64  // of http1.Length: as announced
	data    []byte // the beginning, decoded
	whole   bool   // data is all of it
	awaited bool   // the client waits for 100 (Continue) before it sends any
	pace    pace

	// kept is the buffer in which head and data lie, where the connection got
	// another one to read the rest of the body into.
	kept buffer
}

// replayLimit is how large a body may be to be held for another try; Envoy's
// default is 1 MiB, at the price of that much memory for every upload.
const replayLimit = largeBufferSize

// empty reports whether the request has no body at all.
func (b *requestBody) empty() bool {
	return b.framing == http1.NoBody
}

// open reads as much of the body as can be held. A body with a length is read
// whole if it fits. Of a chunked one, what has come is taken, and no more:
// its sender may want to see a reply before it goes on. Of one whose sender
// waits for 100 (Continue) nothing is: whether it is wanted is for the upstream
// to say (RFC 9110 10.1.1).
func (b *requestBody) open(x *exchange) Kind {
	*b = requestBody{framing: x.req.Framing, length: x.req.ContentLength, whole: true}
	switch {
	case b.framing == http1.NoBody || b.framing == http1.Length && b.length == 0:
		return NoError
	case x.conn.patience.maxBody != 0 && b.length > x.conn.patience.maxBody:
		return BodyTooLarge
	case x.req.Expect100 && x.conn.in.len() == 0:
		b.whole, b.awaited = false, true
		x.requestChunks.Reset()
		b.kept = x.conn.exchangeBuffer()
		return NoError
	case b.framing == http1.Chunked:
		return b.openChunked(x)
	}
	return b.openLength(x)
}

func (b *requestBody) openLength(x *exchange) Kind {
	in := &x.conn.in
	if int64(in.len()) < b.length {
		if b.length > replayLimit {
			b.data, b.whole = in.bytes(), false
			in.r = in.w
			b.kept = x.conn.exchangeBuffer()
			return NoError
		}
		if int64(len(in.data)-in.r) < b.length {
			b.kept = x.conn.exchangeBuffer()
			in.w = copy(in.data, b.kept.bytes())
		}
		for int64(in.len()) < b.length {
			if kind := x.fillBody(nil, 0); kind != NoError {
				return kind
			}
		}
		x.clock = now()
	}
	b.data = in.data[in.r : in.r+int(b.length)]
	in.r += int(b.length)
	return NoError
}

// openChunked decodes what has come, in place: a chunk's data is moved down
// over the framing before it.
func (b *requestBody) openChunked(x *exchange) Kind {
	x.requestChunks.Reset()
	in := &x.conn.in
	start, end := in.r, in.r
	for in.len() > 0 {
		data, n, done, err := x.requestChunks.Next(in.bytes())
		if err != nil {
			return BadRequest
		}
		end += copy(in.data[end:], data)
		in.r += n
		if most := x.conn.patience.maxBody; most != 0 && int64(end-start) > most {
			return BodyTooLarge
		}
		if done {
			b.data = in.data[start:end]
			return NoError
		}
		if n == 0 {
			break
		}
	}
	b.data, b.whole = in.data[start:end], false
	rest := in.bytes()
	b.kept = x.conn.exchangeBuffer()
	in.w = copy(in.data, rest)
	return NoError
}

// exchangeBuffer gives the stream an empty large buffer and returns the one it
// had.
func (s *stream) exchangeBuffer() buffer {
	old := s.in
	s.in = buffer{data: largeBuffers.Get().(*[largeBufferSize]byte)[:]}
	return old
}

// fillBody reads more of the body from the client, into p if there is one, of
// n bytes at most.
func (x *exchange) fillBody(p *pipe, n int64) Kind {
	c := x.conn
	t := now()
	c.limit = sooner(x.deadline, x.body.pace.limit(t, c.patience))
	if x.body.awaited && !x.pumping.begun.Load() {
		c.limit = sooner(x.deadline, t+c.patience.idle) // for as long as the upstream makes it wait
	}
	for {
		var err error
		if p == nil {
			_, err = c.fill()
		} else {
			err = c.fillPipe(p, n)
		}
		switch {
		case err == nil:
			x.body.pace.moved(c.n, t, c.patience)
			return NoError
		case err == errInterrupted && !x.pumping.stop.Load():
			continue // the proxy drains, which does not concern an exchange under way
		}
		return readError(err)
	}
}
