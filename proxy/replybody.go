package proxy

import "isthmus/http1"

// deliverLength copies a body of known length. Its beginning leaves with the
// head, in one write.
func (x *exchange) deliverLength(c *upstreamConn) Kind {
	left := x.res.ContentLength
	n := min(int64(c.in.len()), left)
	x.tally.replyBody += n
	begins := c.in.data[c.in.r : c.in.r+int(n)]
	x.countTold(begins)
	c.in.r += int(n)
	left -= n
	if kind := x.flushWith(begins, left == 0); kind != NoError {
		return kind
	}
	if left > spliceFrom && x.dialect == notGRPC && c.plain() && x.conn.plain() {
		if p := takePipe(); p != nil {
			c.in.release()
			kind := x.splice(c, p, left)
			p.release()
			return kind
		}
	}
	if left > 0 {
		c.in.release()
		c.large = left > bufferSize
	}
	for left > 0 {
		c.in.r, c.in.w = 0, 0
		if kind := x.fillReply(c, inBody, nil, 0); kind != NoError {
			return kind
		}
		n := min(int64(c.in.len()), left)
		c.in.r += int(n)
		left -= n
		x.tally.replyBody += n
		x.countTold(c.in.data[:n])
		if left == 0 {
			x.conclude()
		}
		if x.conn.writeBody(c.in.data[:n], left == 0, x.clock) != nil {
			return ClientGone
		}
	}
	return NoError
}

// splice moves the rest of a body through a pipe, so that its bytes never leave
// the kernel.
func (x *exchange) splice(c *upstreamConn, p *pipe, left int64) Kind {
	for left > 0 {
		if kind := x.fillReply(c, inBody, p, left); kind != NoError {
			return kind
		}
		left -= int64(p.held)
		x.tally.replyBody += int64(p.held)
		if left == 0 {
			x.conclude()
		}
		if x.conn.writePipe(p, x.clock) != nil {
			return ClientGone
		}
	}
	return NoError
}

// deliverChunked decodes a chunked body and encodes it anew, chunk for read
// rather than chunk for chunk.
func (x *exchange) deliverChunked(c *upstreamConn, chunked bool) Kind {
	x.replyChunks.Reset()
	x.replyChunks.Drop(&x.res.Header, false)
	for {
		done := false
		for c.in.len() > 0 && !done {
			data, n, last, err := x.replyChunks.Next(c.in.bytes())
			if err != nil {
				return BadReply
			}
			c.in.r += n
			x.appendChunk(data, chunked)
			done = last
			if n == 0 {
				break
			}
		}
		if done {
			return x.finish(chunked, x.replyChunks.Trailers())
		}
		if len(x.out) > 0 {
			if kind := x.flush(false); kind != NoError {
				return kind
			}
		}
		if c.in.len() == 0 {
			c.in.r, c.in.w = 0, 0
		}
		if kind := x.fillReply(c, inBody, nil, 0); kind != NoError {
			return kind
		}
	}
}

// deliverUntilClose copies a body that ends with the connection.
func (x *exchange) deliverUntilClose(c *upstreamConn, chunked bool) Kind {
	for {
		x.appendChunk(c.in.bytes(), chunked)
		c.in.r, c.in.w = 0, 0
		if len(x.out) > 0 {
			if kind := x.flush(false); kind != NoError {
				return kind
			}
		}
		kind := x.fillReply(c, inBody, nil, 0)
		if kind == Terminated && c.ended {
			x.trail.cause = nil // it is the end that such a body has
			return x.finish(chunked, nil)
		}
		if kind != NoError {
			return kind
		}
	}
}

func (x *exchange) appendChunk(data []byte, chunked bool) {
	x.countTold(data)
	if x.webReply && x.dialect == grpcWebText {
		x.value = appendText(x.value[:0], data)
		data = x.value
	}
	x.tally.replyBody += int64(len(data))
	switch {
	case len(data) == 0:
	case chunked:
		x.out = http1.AppendChunkHeader(x.out, len(data))
		x.out = append(x.out, data...)
		x.out = append(x.out, "\r\n"...)
	default:
		x.out = append(x.out, data...)
	}
}

// finish ends the body, with its trailers if its reader may have any.
func (x *exchange) finish(chunked bool, trailers []http1.Field) Kind {
	if len(trailers) > 0 {
		x.keepTrailers(trailers)
	}
	if x.webReply {
		x.appendChunk(appendTrailerFrame(nil, trailers), chunked)
		trailers = nil
	}
	switch {
	case chunked:
		x.out = http1.AppendLastChunk(x.out, trailers)
	case x.conn.h2 != nil && len(trailers) > 0:
		return x.finishStream(trailers)
	}
	return x.flush(true)
}
