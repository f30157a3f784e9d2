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
// its sender may want to see a reply before it goes on.
func (b *requestBody) open(x *exchange) Kind {
	*b = requestBody{framing: x.req.Framing, length: x.req.ContentLength, whole: true}
	if b.framing == http1.NoBody || b.framing == http1.Length && b.length == 0 {
		return NoError
	}
	if x.req.Expect100 && x.conn.in.len() == 0 {
		if x.conn.write(continueLine, x.start) != nil {
			return ClientGone
		}
	}
	if b.framing == http1.Chunked {
		return b.openChunked(x)
	}
	return b.openLength(x)
}

var continueLine = []byte("HTTP/1.1 100 Continue\r\n\r\n")

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
			if kind := x.fillBody(); kind != NoError {
				return kind
			}
		}
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

// bodyTimeout is how long the next bytes of a request's body may take to come;
// Envoy's default for a stream that stands still.
const bodyTimeout = 5 * 60 * 1e9

// fillBody reads more of the body from the client.
func (x *exchange) fillBody() Kind {
	x.conn.limit = sooner(x.deadline, now()+bodyTimeout)
	for {
		_, err := x.conn.fill()
		switch {
		case err == nil:
			return NoError
		case err == errInterrupted && !x.pumping.stop.Load():
			continue // the proxy drains, which does not concern an exchange under way
		}
		return readError(err)
	}
}

// pump sends the rest of a body while the reply is awaited and read. It runs
// on a goroutine of its own, which send starts and which ends when the body has
// been sent, when either side fails, or when stop is set and the client's
// stream interrupted.
func (x *exchange) pump(c *upstreamConn) Kind {
	left := x.body.length - int64(len(x.body.data))
	in := &x.conn.in
	var frame []byte
	for {
		var data []byte
		done := false
		if x.body.framing == http1.Length {
			n := min(int64(in.len()), left)
			data = in.data[in.r : in.r+int(n)]
			in.r += int(n)
			left -= n
			done = left == 0
		} else if in.len() > 0 {
			var n int
			var err error
			data, n, done, err = x.requestChunks.Next(in.bytes())
			if err != nil {
				return BadRequest
			}
			in.r += n
		}
		frame = frame[:0]
		switch {
		case x.body.framing == http1.Length:
			frame = data
		case len(data) > 0:
			frame = http1.AppendChunkHeader(frame, len(data))
			frame = append(frame, data...)
			frame = append(frame, "\r\n"...)
		}
		if done && x.body.framing == http1.Chunked {
			frame = http1.AppendLastChunk(frame, x.requestChunks.Trailers())
		}
		if done {
			x.pumping.last.Store(true)
		}
		if len(frame) > 0 {
			if c.write(frame, now()) != nil {
				return Terminated
			}
		}
		if done {
			return NoError
		}
		if in.len() == 0 {
			in.r, in.w = 0, 0
			if kind := x.fillBody(); kind != NoError {
				return kind
			}
		}
	}
}
