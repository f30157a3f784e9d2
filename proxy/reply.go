package proxy

import (
	"slices"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
)

// maxInterim is how many 1xx replies an upstream may send before the final
// one; net/http's transport allows five.
const maxInterim = 5

// clientCheck is how often somebody who waits for an upstream looks whether
// the client is still there.
const clientCheck = instant(time.Second)

// readReply reads the head of the final reply. deadline is that of this try.
func (x *exchange) readReply(c *upstreamConn, deadline instant) Kind {
	interim := 0
	for {
		x.res.Reset()
		if kind := x.readReplyHead(c, deadline); kind != NoError {
			return kind
		}
		if x.switches(c) {
			return x.agree(c)
		}
		if x.res.Status >= 200 {
			return NoError
		}
		if x.res.Status == 101 {
			return BadReply // nobody has asked for another protocol
		}
		if interim++; interim > maxInterim {
			return BadReply
		}
		if kind := x.passInterim(); kind != NoError {
			return kind
		}
	}
}

// readReplyHead reads one head, of an interim reply or the final one.
func (x *exchange) readReplyHead(c *upstreamConn, deadline instant) Kind {
	if c.h2 != nil {
		return x.readStreamHead(c, deadline)
	}
	for {
		n, err := x.res.Parse(c.in.bytes(), http1.Limits{}, x.req.Method)
		switch {
		case err != nil:
			x.trail.cause = err
			return BadReply
		case n > 0:
			c.in.r += n
			return NoError
		}
		if c.in.w == len(c.in.data) && c.in.data != nil {
			c.in.compact()
			if c.in.w == len(c.in.data) && !c.in.grow() {
				return BadReply
			}
		}
		if kind := x.fillReply(c, deadline, nil, 0); kind != NoError {
			return kind
		}
	}
}

// passInterim sends a 1xx reply on, unless the client is of HTTP/1.0, or it is
// a 100 that the client does not wait for.
func (x *exchange) passInterim() Kind {
	if x.res.Status == 100 && !x.body.awaited || x.req.Minor == 0 {
		return NoError
	}
	to := x.conn.format()
	out := to.status(x.interim[:0], x.res.Status, x.res.Reason)
	for i := range x.res.Fields {
		if f := &x.res.Fields[i]; !hopByHop(f.ID) {
			out = to.field(out, f.Name, f.Value)
		}
	}
	x.interim = to.end(out)
	if x.conn.writeHead(x.interim, x.clock) != nil {
		return ClientGone
	}
	if x.res.Status == 100 && x.pumping.active {
		x.pumping.continued.Store(int64(now()))
		x.conn.interrupt() // who waits for the body shall wait for as long as for others
	}
	return NoError
}

// fillReply reads from the upstream until bytes come, the try's deadline
// passes, or the client turns out to be gone. The bytes go into p if there is
// one, n of them at most.
func (x *exchange) fillReply(c *upstreamConn, deadline instant, p *pipe, n int64) Kind {
	asked, check := x.clock, x.clock+clientCheck
	if x.movable {
		check = asked + stallCheck
	}
	for {
		c.limit = sooner(deadline, check)
		var err error
		if p == nil {
			_, err = c.fill()
		} else {
			err = c.fillPipe(p, n)
		}
		x.clock = now()
		switch {
		case err == nil:
			return NoError
		case err == errStale:
			return stale
		case err == errInterrupted:
			// The goroutine that sends the body has failed on the client's side.
			if x.pumping.active {
				if kind := <-x.pumping.outcome; kind != NoError {
					x.pumping.active, x.keep = false, false
					if kind == RequestTimeout && x.late() {
						return Timeout
					}
					return kind
				}
				x.pumping.active = false
			}
			continue
		case err == errTimeout && deadline != 0 && x.clock >= deadline:
			k := x.deadlineKind(Timeout)
			if k == TryTimeout && x.movable {
				if stalled, _ := c.stalled(asked, x.clock, true); stalled {
					return Stalled
				}
			}
			return k
		case err == errTimeout:
			check = x.clock + clientCheck
			if x.movable {
				var stalled bool
				if stalled, check = c.stalled(asked, x.clock, false); stalled {
					return Stalled
				}
			}
			if x.conn.gone() {
				return ClientGone
			}
			continue
		}
		x.trail.cause = err
		if x.late() {
			return Timeout
		}
		return Terminated
	}
}

// deliver sends the reply whose head has been read to the client, and puts the
// upstream connection back if both bodies were complete.
func (x *exchange) deliver(c *upstreamConn, d *destination, u *upstream) Kind {
	if x.upgrade.agreed {
		return x.tunnel(c, d, u)
	}
	x.status = x.res.Status
	if x.webReply = x.bridged; x.webReply {
		x.bridgeReply()
	}
	switch {
	case !x.pumping.active:
	case x.conn.h2 != nil:
		x.pumping.answered.Store(true)
	case c.h2 != nil && !x.pumping.last.Load() && (x.res.Framing == http1.NoBody || c.h2.Ended()) && x.leftover() > maxLeftover:
		x.keep = false // nobody reads the rest of the request, of which the client shall know
	}
	reusable := c.h2 != nil || !x.res.Close && x.res.Framing != http1.UntilClose
	chunked := x.conn.h2 == nil && (x.res.Framing == http1.Chunked || x.res.Framing == http1.UntilClose)
	if chunked && x.req.Minor == 0 {
		x.keep, chunked = false, false // HTTP/1.0 reads to the end of the connection
	}
	x.buildReply(d, chunked)

	kind := NoError
	switch {
	case x.res.Framing == http1.NoBody:
		kind = x.flush(true)
	case c.h2 != nil:
		kind = x.deliverStream(c, chunked)
	case x.res.Framing == http1.Length:
		kind = x.deliverLength(c)
	case x.res.Framing == http1.Chunked:
		kind = x.deliverChunked(c, chunked)
	case x.res.Framing == http1.UntilClose:
		kind = x.deliverUntilClose(c, chunked)
	}
	sent := x.stopPump(c)
	if kind == NoError && reusable && sent && c.in.len() == 0 {
		u.release(c, x.clock)
	} else {
		c.discard()
	}
	if kind == NoError {
		return NoError
	}
	if kind == Terminated || kind == BadReply || kind == Timeout {
		u.tracker.Failed(x.member.record)
	}
	if !x.replying {
		return kind // the client has seen nothing of it
	}
	x.keep, x.kind = false, kind
	if kind == Timeout && x.endGRPC() {
		return kind
	}
	// The reply is not whole: its reader must not take it for that.
	x.conn.aborted = true
	return kind
}

// flush writes out what has been built. end says that the reply ends with it,
// which HTTP/2 wants to know.
func (x *exchange) flush(end bool) Kind {
	if x.conn.h2 != nil {
		return x.flushStream(end)
	}
	x.replying = true
	if len(x.out) > 0 && x.conn.write(x.out, x.clock) != nil {
		return ClientGone
	}
	x.out = x.out[:0]
	return NoError
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

// deliverLength copies a body of known length. Its beginning leaves with the
// head, in one write.
func (x *exchange) deliverLength(c *upstreamConn) Kind {
	left := x.res.ContentLength
	n := min(int64(c.in.len()), left)
	x.tally.replyBody += n
	x.countTold(c.in.data[c.in.r : c.in.r+int(n)])
	x.out = append(x.out, c.in.data[c.in.r:c.in.r+int(n)]...)
	c.in.r += int(n)
	left -= n
	if kind := x.flush(left == 0); kind != NoError {
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
		if kind := x.fillReply(c, x.replyDeadline(), nil, 0); kind != NoError {
			return kind
		}
		n := min(int64(c.in.len()), left)
		c.in.r += int(n)
		left -= n
		x.tally.replyBody += n
		x.countTold(c.in.data[:n])
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
		if kind := x.fillReply(c, x.replyDeadline(), p, left); kind != NoError {
			return kind
		}
		left -= int64(p.held)
		x.tally.replyBody += int64(p.held)
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
		if kind := x.fillReply(c, x.replyDeadline(), nil, 0); kind != NoError {
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
		kind := x.fillReply(c, x.replyDeadline(), nil, 0)
		if kind == Terminated && c.ended {
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

// buildReply writes the head that goes to the client into x.out.
func (x *exchange) buildReply(d *destination, chunked bool) {
	if x.body.awaited && !x.pumping.begun.Load() {
		x.keep = false // nobody knows whether the client still sends its body
	}
	fields := x.res.Fields
	if h, dh := x.route.headers, d.headers; h != nil || dh != nil {
		fields = x.changeReply(h, dh)
	}
	if p := x.route.cors; p != nil {
		fields = x.crossOrigin(p, fields)
	}
	if x.added.Set != nil || x.added.Add != nil {
		fields = applyOps(slices.Clone(fields), &x.added)
	}
	to := x.conn.format()
	out := to.status(x.out[:0], x.res.Status, x.res.Reason)
	dated := false
	for i := range fields {
		f := &fields[i]
		dated = dated || f.ID == http1.Date
		if hopByHop(f.ID) || f.ID == http1.IsthmusUnsent || f.ID == http1.WebSocketAccept && x.upgrade.websocket || x.res.Hop && x.res.Listed(f.Name) ||
			x.conn.kind == gateway && f.ID == http1.Unknown && ownWord(f.Name) || x.webReply && f.ID == http1.Trailer {
			continue
		}
		value := f.Value
		if x.webReply && f.ID == http1.ContentType {
			x.value = x.appendWebType(x.value[:0], value)
			value = x.value
		}
		out = to.field(out, f.Name, value)
	}
	switch {
	case chunked:
		out = to.field(out, nameTransfer, valueChunked)
	case x.res.ContentLength >= 0 && x.res.Status >= 200 && x.res.Status != 204:
		// With a body, or in the place of one for HEAD and 304.
		out = to.number(out, nameContentLength, x.res.ContentLength)
	}
	if x.cookie != nil {
		out = to.field(out, nameSetCookie, x.cookie)
	}
	if !dated {
		out = to.field(out, nameDate, dateOf(x.clock))
	}
	x.endHead(out, to)
	x.keepReply()
}

// endHead ends the head of a reply. HTTP/1.1 tells the client whether the
// connection is kept, where the version does not say it already.
func (x *exchange) endHead(out []byte, to headFormat) {
	if to == asHTTP1 {
		if x.conn.leaves() || x.upgrade.protocol != nil && x.overtaken() {
			x.keep = false
		}
		switch {
		case x.upgrade.agreed:
			out = x.appendSwitch(out)
		case !x.keep:
			out = to.field(out, nameConnection, valueClose)
		case x.req.Minor == 0:
			out = to.field(out, nameConnection, valueKeepAlive)
		}
	}
	x.out = to.end(out)
	x.headLen = len(x.out)
	x.tally.replyHead = x.headLen
}

// changeReply applies header rules to a copy of the reply's fields: the
// destination's first, then the route's, as Envoy does.
func (x *exchange) changeReply(route, destination *mesh.HeaderRules) []http1.Field {
	fields := append(x.fields[:0], x.res.Fields...)
	for _, r := range []*mesh.HeaderRules{destination, route} {
		if r != nil {
			fields = applyOps(fields, &r.Response)
		}
	}
	x.fields = fields
	return fields
}

// hopByHop reports whether a field is about one connection only, or about the
// framing, which is ours to write.
func hopByHop(id http1.FieldID) bool {
	switch id {
	case http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.TransferEncoding, http1.ContentLength, http1.Upgrade, http1.TE:
		return true
	}
	return false
}
