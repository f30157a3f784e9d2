package proxy

import (
	"time"

	"isthmus/http1"
)

// maxInterim is how many 1xx replies an upstream may send before the final
// one; net/http's transport allows five.
const maxInterim = 5

// clientCheck is how often somebody who waits for an upstream looks whether
// the client is still there.
const clientCheck = instant(time.Second)

// readReply reads the head of the final reply.
func (x *exchange) readReply(c *upstreamConn) Kind {
	interim := 0
	for {
		x.res.Reset()
		if kind := x.readReplyHead(c); kind != NoError {
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
func (x *exchange) readReplyHead(c *upstreamConn) Kind {
	if c.h2 != nil {
		return x.readStreamHead(c)
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
		if kind := x.fillReply(c, inHead, nil, 0); kind != NoError {
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
		if f := &x.res.Fields[i]; !x.withheld(f) {
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

// replyPart is what of a reply is awaited: the try's deadline is for its head.
type replyPart bool

const inHead, inBody replyPart = true, false

// deadlineOf is when a part of a reply has to have come, as far as that is known.
func (x *exchange) deadlineOf(part replyPart) instant {
	if x.pending {
		x.settleDeadline()
	}
	if part == inBody {
		return x.replyDeadline()
	}
	return x.tryDeadline()
}

// fillReply reads from the upstream until bytes come, the deadline passes, or the
// client turns out to be gone. The bytes go into p if there is one, n of them at
// most.
func (x *exchange) fillReply(c *upstreamConn, part replyPart, p *pipe, n int64) Kind {
	asked, check := x.clock, x.clock+clientCheck
	if x.movable {
		check = asked + stallCheck
	}
	for {
		look := check
		deadline := x.deadlineOf(part)
		if x.pending {
			if within := x.within(); within != 0 {
				look = sooner(check, now()+max(within, shortestLook)) // no timeout passes sooner
			}
		}
		c.limit = sooner(deadline, look)
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
			if x.conn.h2 != nil && x.conn.gone() {
				return ClientGone
			}
			// The goroutine that sends the body has failed on the client's side.
			if x.pumping.active {
				kind := <-x.pumping.outcome
				if x.holdTaken(); kind != NoError {
					x.pumping.active, x.keep = false, false
					x.trail.cause = x.pumping.cause
					if kind == RequestTimeout && x.late() {
						return Timeout
					}
					return kind
				}
				x.pumping.active = false
			}
			continue
		case err == errTimeout && deadline != 0 && x.clock >= deadline:
			if x.pending && x.deadlineOf(part) != deadline {
				continue // the client did not wait for the 100
			}
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
			if x.conn.gone() || part == inHead && x.conn.lost() {
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
	sent := x.stopPump(c) && !c.cut
	x.giveBack(c, u, kind == NoError && reusable && sent && c.in.len() == 0)
	if kind == NoError {
		return NoError
	}
	if x.faultOfUpstream(kind) {
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

// flushWith sends the head of the reply with the beginning of its body. HTTP/1.1
// wants to have both in one piece, for one write.
func (x *exchange) flushWith(body []byte, end bool) Kind {
	if x.conn.h2 != nil {
		if end {
			x.conclude()
		}
		return x.beginStream(body, end)
	}
	x.out = append(x.out, body...)
	return x.flush(end)
}

// flush writes out what has been built. end says that the reply ends with it,
// which HTTP/2 wants to know.
func (x *exchange) flush(end bool) Kind {
	if end {
		x.conclude()
	}
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
