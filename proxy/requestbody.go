package proxy

import (
	"isthmus/http1"
)

// requestBody is the body of a request. What of it was read before anything
// was sent stays in data until the exchange is over, so that it can be sent to
// another endpoint, and so does what was sent on since, if it fits; see pumping.
type requestBody struct {
	framing http1.Framing
	length  int64  // of http1.Length: as announced
	data    []byte // the beginning, decoded
	whole   bool   // data is all of it
	opened  bool
	awaited bool // the client waits for 100 (Continue) before it sends any
	pace    pace

	// kept is the buffer in which head and data lie, where the connection got
	// another one to read the rest of the body into.
	kept buffer

	larger buffer // in which data lies instead, where more of the body was held than fits behind it
}

// replayLimit is how large a body may be to be held for another try; Envoy's
// default is 1 MiB, at the price of that much memory for every upload.
const replayLimit = largeBufferSize

// empty reports whether the request has no body at all.
func (b *requestBody) empty() bool {
	return b.framing == http1.NoBody
}

// open reads as much of the body as can be held, once. A body with a length is read
// whole if it fits. Of a chunked one, what has come is taken, and no more:
// its sender may want to see a reply before it goes on. Of one whose sender
// waits for 100 (Continue) nothing is: whether it is wanted is for the upstream
// to say (RFC 9110 10.1.1).
func (b *requestBody) open(x *exchange) Kind {
	if b.opened {
		return NoError
	}
	*b = requestBody{framing: x.req.Framing, length: x.req.ContentLength, whole: true, opened: true}
	in := &x.conn.in
	switch {
	case b.framing == http1.NoBody:
		return NoError
	case b.framing == http1.Length && b.length == 0:
		return x.awaitEnd()
	case x.conn.patience.maxBody != 0 && b.length > x.conn.patience.maxBody:
		return BodyTooLarge
	case b.framing == http1.Chunked:
		x.resetChunks()
	}
	switch {
	case x.req.Expect100 && in.len() == 0:
		b.whole, b.awaited = false, true
		b.kept = x.conn.setAside()
		return NoError
	case b.framing == http1.Chunked:
		return b.openChunked(x)
	case b.framing == http1.UntilClose:
		return b.openStream(x)
	}
	return b.openLength(x)
}

// readAhead reads on until n bytes of the body are held, or all of it: for somebody who is
// to judge the request by them. More than replayLimit are not held.
func (b *requestBody) readAhead(x *exchange, n int) Kind {
	c := x.conn
	if b.awaited {
		// Whether the body is wanted is no longer for the upstream to say: the request does not
		// get there without it.
		b.awaited = false
		to := c.format()
		if c.writeHead(to.end(to.status(nil, 100, nil)), now()) != nil {
			return ClientGone
		}
	}
	for !b.whole && len(b.data) < min(n, replayLimit) {
		done, kind := b.take(x)
		switch {
		case kind != NoError:
			return kind
		case done:
			b.whole = true
			continue
		case c.in.len() > 0:
			continue // more of it than is held
		}
		c.in.r, c.in.w = 0, 0
		if kind := x.fillBody(nil, 0); kind != NoError && !(c.h2 != nil && c.ended) {
			return kind
		}
	}
	return NoError
}

// take adds to what is held of the body what has come of it since, as far as there is room,
// and reports whether that was the last of it.
func (b *requestBody) take(x *exchange) (done bool, _ Kind) {
	c := x.conn
	p := c.in.bytes()
	p = p[:min(len(p), replayLimit-len(b.data))]
	data, n := p, len(p)
	switch {
	case c.h2 != nil:
	case b.framing == http1.Length:
		n = int(min(int64(n), b.length-int64(len(b.data))))
		data = p[:n]
		done = int64(len(b.data)+n) == b.length
	default:
		var err error
		if data, n, done, err = x.requestChunks.Next(p); err != nil {
			x.trail.cause = err
			return false, BadRequest
		}
	}
	b.hold(data)
	if c.in.r += n; c.h2 != nil {
		done = c.in.len() == 0 && c.h2.Ended()
	}
	if most := c.patience.maxBody; most != 0 && int64(len(b.data)) > most {
		return false, BodyTooLarge
	}
	return done, NoError
}

// hold adds to what is held of the body: behind it, where it lies, or in a larger buffer.
func (b *requestBody) hold(data []byte) {
	if n := len(b.data) + len(data); n > cap(b.data) && len(data) > 0 {
		larger := buffer{}
		larger.borrow(n > bufferSize)
		copy(larger.data, b.data)
		b.data = larger.data[:len(b.data)]
		b.larger.recycle()
		b.larger = larger
	}
	b.data = append(b.data, data...)
}

// openStream takes what has come of a body over HTTP/2 that has told no length;
// see openChunked.
func (b *requestBody) openStream(x *exchange) Kind {
	c := x.conn
	for !c.h2.Ended() && c.in.len() < replayLimit {
		if n, _ := c.poll(); n == 0 {
			break
		}
	}
	if most := c.patience.maxBody; most != 0 && int64(c.in.len()) > most {
		return BodyTooLarge
	}
	b.whole = c.h2.Ended()
	b.data = c.in.bytes()
	c.in.r = c.in.w
	if !b.whole {
		b.kept = c.setAside()
	}
	return NoError
}

func (b *requestBody) openLength(x *exchange) Kind {
	in := &x.conn.in
	if int64(in.len()) < b.length {
		if b.length > replayLimit {
			b.data, b.whole = in.bytes(), false
			in.r = in.w
			b.kept = x.conn.setAside()
			return NoError
		}
		if int64(len(in.data)-in.r) < b.length {
			b.kept = x.conn.setAside()
			in.put(b.kept.bytes())
		}
		if kind := x.fillWhole(b.length); kind != NoError {
			b.data, b.whole = in.bytes(), false // for whoever tells how much has come
			return kind
		}
	}
	b.data = in.data[in.r : in.r+int(b.length)]
	in.r += int(b.length)
	return x.awaitEnd()
}

// awaitEnd waits for the end of a stream of HTTP/2 whose body has come as far as its
// length says: there may be trailers. What has come of it stays where it is.
func (x *exchange) awaitEnd() Kind {
	c := x.conn
	if c.h2 == nil {
		return NoError
	}
	c.pinned = true
	defer func() { c.pinned = false }()
	for !c.h2.Ended() {
		if kind := x.fillBody(nil, 0); kind != NoError && !c.ended {
			return kind
		}
		x.clock = now()
	}
	return NoError
}

// fillWhole reads until n bytes of a body have come. The head may be before
// them in the same buffer.
func (x *exchange) fillWhole(n int64) Kind {
	c := x.conn
	c.pinned = x.body.kept.data == nil
	defer func() { c.pinned = false }()
	for int64(c.in.len()) < n {
		if kind := x.fillBody(nil, 0); kind != NoError {
			return kind
		}
	}
	x.clock = now()
	return NoError
}

// openChunked decodes what has come, in place: a chunk's data is moved down
// over the framing before it.
func (b *requestBody) openChunked(x *exchange) Kind {
	in := &x.conn.in
	start, end := in.r, in.r
	for in.len() > 0 {
		data, n, done, err := x.requestChunks.Next(in.bytes())
		if err != nil {
			x.trail.cause = err
			b.data, b.whole = in.data[start:end], false
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
	b.kept = x.conn.setAside()
	in.put(rest)
	return NoError
}

// resetChunks makes the reader ready for the request's body. Trailers that the
// header would not be let in with are dropped.
func (x *exchange) resetChunks() {
	x.requestChunks.Reset()
	x.requestChunks.Drop(&x.req.Header, x.conn.kind == gateway)
}

// setAside takes the buffer, with what is in it, from the stream. The rest of a
// body goes to a large one.
func (s *stream) setAside() buffer {
	old := s.in
	s.in, s.large = buffer{}, true
	return old
}

// fillBody reads more of the body from the client, into p if there is one, of
// n bytes at most.
func (x *exchange) fillBody(p *pipe, n int64) Kind {
	c := x.conn
	t := now()
	for {
		from := t
		if x.body.awaited && !x.pumping.begun.Load() {
			from = instant(x.pumping.continued.Load())
		}
		limit := t + c.patience.idle // for as long as the upstream makes it wait for the 100
		talk := x.pumping.answered.Load()
		switch {
		case talk:
			// Who has begun to get a reply takes part in a conversation, and says
			// something when there is something to say.
		case from != 0 && x.dialect != notGRPC:
			limit = t + max(c.patience.read, instant(defaultMeshStall)) // a stream, at gateways, too
		case from != 0:
			limit = x.body.pace.limit(from, c.patience)
		}
		c.limit = sooner(x.callDeadline(), limit)
		var err error
		if p == nil {
			_, err = c.fill()
		} else {
			err = c.fillPipe(p, n)
		}
		switch {
		case err == nil:
			if from != 0 {
				x.body.pace.moved(c.n, from, c.patience)
			}
			return NoError
		case err == errInterrupted && !x.pumping.stop.Load():
			continue // by a 100; or the proxy drains, which does not concern an exchange under way
		case err == errTimeout && !talk && x.pumping.answered.Load() && now() < sooner(x.callDeadline(), t+c.patience.idle):
			continue
		}
		return readError(err)
	}
}

// readError tells why reading from the client failed.
func readError(err error) Kind {
	if err == errTimeout {
		return RequestTimeout
	}
	return ClientGone
}
