package proxy

import (
	"time"

	"isthmus/http1"
)

// forward sends the request to an endpoint and its reply back, trying other
// endpoints as far as the retry policy allows.
func (x *exchange) forward() {
	defer x.leave()
	a := &x.route.action
	x.attempts, x.tried = 0, x.tried[:0]
	plan := retryPlan{policy: a.retries, left: a.retries.Attempts}
	drawn := x.draw()
	for {
		if x.conn.h2 != nil && x.conn.h2.Err() != nil {
			x.refuse(ClientGone) // reset before its turn came: no connection is opened for that
			return
		}
		d, u, m, kind := x.pick(drawn, &plan)
		if kind == NoError {
			if kind = x.try(d, u, m, &plan); kind != NoError && !x.replying {
				x.failed(kind)
			}
		}
		if kind == NoError || x.replying {
			return
		}
		if !plan.again(x, u, kind) {
			if kind == ConnectTimeout && x.tryEnds != 0 && now() >= x.tryEnds {
				kind = TryTimeout // which was shorter than connectTimeout
			}
			x.refuse(kind)
			return
		}
	}
}

// try sends the request to one endpoint. NoError: the reply has been
// delivered. If the reply has begun, it is not for the caller to try again.
func (x *exchange) try(d *destination, u *upstream, m *member, plan *retryPlan) Kind {
	x.attempts++
	x.member, x.unwanted, x.trail.began = m, false, x.clock
	x.tally.upstream = nil
	if x.traced.rule != nil {
		x.traced.try.Draw() // of each, one that nothing is sent for too: spans without a name are no spans
	}
	x.tried = append(x.tried, m.host)
	if x.tryTimeout = instant(plan.policy.PerTryTimeout); x.tryTimeout != 0 {
		x.tryBegan = now()
	}
	if x.tryTimeout != 0 {
		x.settleDeadline()
	}
	active := x.enter(u.live)
	if limit := u.limits.requests; limit != 0 && active > limit {
		return Overflow
	}
	if u.room != nil && !u.room.Admit(active, x.priority()) {
		x.trail.cause = errCrowded
		return Overflow
	}
	u.live.stats.Tries.Add(1)
	if u.begun != nil && x.attempts == 1 {
		u.begun.Add()
	}
	defer m.host.End(m.host.Begin())

	for fresh, moves := false, 0; ; {
		if x.pumping.came.Load() != 0 { // for the last time; for this one the rest is still to be taken
			x.pumping.came.Store(0)
			x.pending = true
		}
		if x.pending {
			x.settleDeadline()
		}
		x.standInLine()
		c, err := x.lease(u, m, x.tryDeadline(), fresh, x.attempts > 1 || moves > 0)
		if err != nil {
			x.trail.cause = err.Cause
			if err.Kind == ConnectTimeout && x.deadline != 0 && now() >= x.deadline {
				return Timeout
			}
			return x.deadlineKind(err.Kind)
		}
		x.leaveLine()
		reused := c.reused // c is another's as soon as it is put back
		if !reused || c.waited || u.limits.connections != 0 {
			x.clock = now() // it may have taken a while
		}
		kind := x.exchangeOn(c, d, u, plan)
		switch {
		case kind == moved && (moves == maxMoves || !x.repeatable()):
			return Refused
		case kind == moved:
			moves++
			x.trail.cause = nil
		case !reused || x.replying:
			return x.unasked(kind, u, m)
		case kind == stale:
			// Closed by the upstream while it was idle; maybe others were not.
		case kind == Terminated && !fresh && x.repeatable() && x.idempotent():
			fresh = true // a kept connection that the upstream has just closed
		default:
			return kind
		}
	}
}

// exchangeOn sends the request over a connection and delivers the reply. The
// connection is put back or ended on every way out.
func (x *exchange) exchangeOn(c *upstreamConn, d *destination, u *upstream, plan *retryPlan) Kind {
	x.leased.begin(c, u)
	defer x.giveUp()
	if x.conn.h2 != nil && x.conn.gone() {
		x.giveBack(c, u, true) // while it waited for the connection, when clientGone had none
		return ClientGone
	}
	c.uses++
	x.pumping.unread, x.pumping.short = false, false
	x.introduce = c.member.wire.mode == wireMesh && (c.shared == nil && c.uses == 1 || c.shared != nil && c.shared.introduce())
	x.movable = c.member.link != nil && plan.failovers == 0 && x.idempotent() && x.repeatable() && x.elsewhere(u)
	sent := x.clock
	kind := x.send(c, d)
	if kind == NoError || kind == Terminated {
		// An upstream that ends its reading early may still have replied.
		before := kind
		if kind = x.readReply(c); kind == Terminated && before != NoError {
			kind = before
		}
	}
	x.movable = false
	if kind == NoError {
		x.trail.replied = x.clock
		u.live.stats.Replied(x.res.Status)
		x.tally.asked, x.tally.upstream = sent, c.told
		u.set.Observe(c.member.host, time.Duration(x.clock-sent))
		if u.room != nil {
			u.room.Observe(time.Duration(x.clock), time.Duration(x.clock-sent), u.live.requests.Load())
		}
		kind = x.judge(c, u, plan)
	}
	if kind == retriableStatus && x.dropReply(c) {
		x.giveBack(c, u, true)
		return kind
	}
	if kind != NoError {
		x.stopPump(c)
		whole := false // so that the connection may carry another exchange
		switch late := kind == Timeout || kind == TryTimeout; {
		case late && x.trail.replied != 0: // by the proxy over there
			whole = x.dropReply(c)
		case c.shared != nil && (kind == Stalled || x.inVain(c, kind, sent)):
			c.member.shared.abandon(c.shared)
		}
		x.giveBack(c, u, whole)
		if x.faultOfUpstream(kind) {
			u.tracker.Failed(x.member.record)
		}
		return kind
	}
	return x.deliver(c, d, u)
}

// send writes head and body, or leaves them to the first read of the reply. A
// body that was not read whole is sent on by a second goroutine from here on.
func (x *exchange) send(c *upstreamConn, d *destination) Kind {
	x.bridged = x.bridges(c)
	x.buildRequest(c.format(), c.scheme(), c.member, d)
	if c.h2 != nil {
		return x.sendStream(c)
	}
	c.until, c.cut = x.tryDeadline(), false
	if x.body.whole || x.body.empty() {
		if !x.body.empty() {
			x.out = x.appendWholeBody(x.out)
		}
		c.ask(x.out)
		return NoError
	}
	if x.body.framing != http1.Length && len(x.body.data) > 0 {
		x.out = http1.AppendChunkHeader(x.out, len(x.body.data))
		x.out = append(x.out, x.body.data...)
		x.out = append(x.out, "\r\n"...)
	} else {
		x.out = append(x.out, x.body.data...)
	}
	if !c.asLeft() {
		return stale
	}
	if c.write(x.out, x.clock) != nil {
		return Terminated
	}
	c.until = x.ends // no other time runs while the body comes
	return x.startPump(c)
}

func (x *exchange) appendWholeBody(dst []byte) []byte {
	trailers := x.requestTrailers()
	if x.body.framing == http1.Length || len(trailers) == 0 {
		return append(dst, x.body.data...)
	}
	if len(x.body.data) > 0 {
		dst = http1.AppendChunkHeader(dst, len(x.body.data))
		dst = append(dst, x.body.data...)
		dst = append(dst, "\r\n"...)
	}
	return http1.AppendLastChunk(dst, trailers)
}

// unasked makes an upstream that hangs up or speaks before it was asked, on a
// new connection, one that cannot be connected to: it is not to be relied on, and
// has not seen the request, so that another endpoint may get it.
func (x *exchange) unasked(k Kind, u *upstream, m *member) Kind {
	if k != stale {
		return k
	}
	u.tracker.Failed(m.record)
	x.trail.cause = errStale
	return ConnectFailure
}

// deadlineKind tells the end of a try from the end of the whole exchange.
func (x *exchange) deadlineKind(k Kind) Kind {
	if k == Timeout && (x.deadline == 0 || now() < x.deadline) {
		return TryTimeout
	}
	return k
}

// stale is the outcome of a try over a connection that was not as it had been
// left: nothing was sent. It never reaches a client.
const stale = Kind(254)

// moved is the outcome of a try over a connection on which the upstream has looked at others,
// and not at this one, before it ended that. It never reaches a client.
const moved = Kind(253)

// maxMoves is how often a request goes to another connection for that, which says nothing
// of the endpoint: where connections serve no more than some requests each, that is luck,
// and with two of three sent in vain one request in 3000 is out of it.
const maxMoves = 20

// enter counts the exchange among the requests of an upstream, and returns how
// many these are. It stays counted until leave, back-offs included.
func (x *exchange) enter(l *live) int32 {
	if x.counted == l {
		return l.requests.Load()
	}
	if x.counted != nil {
		x.counted.requests.Add(-1)
	}
	x.counted = l
	return l.requests.Add(1)
}

// conclude comes before the last of the reply is written: whoever has that may send the next
// request at once, by another way, and is not to be refused for the sake of this one.
func (x *exchange) conclude() {
	x.leave()
	x.leased.end()
	if x.conn.h2 != nil {
		x.conn.proxy.workers.ends(x)
	}
}

// leave gives back what enter and a retry have taken.
func (x *exchange) leave() {
	if x.counted != nil {
		x.counted.requests.Add(-1)
		x.counted = nil
	}
	x.endRetry(x.kind == NoError && !x.unwanted)
}
