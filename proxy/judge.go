package proxy

import "isthmus/http1"

// judge decides whether a reply, whose head has been read, is delivered or
// thrown away for another try.
func (x *exchange) judge(c *upstreamConn, u *upstream, plan *retryPlan) Kind {
	plan.full = false
	if v, ok := x.res.Get(http1.IsthmusUnsent); ok && len(v) > 0 && c.member.host.Endpoint().Via {
		if _, full := x.res.Get(http1.EnvoyOverloaded); !full {
			// The proxy over there could not reach its application at all.
			u.tracker.ConnectFailed(c.member.record)
			return ConnectFailure
		}
		// It has as much to do as it may. To leave it alone would give its part to the
		// others at once, and so would tries that no budget bounds.
		plan.full = true
	}
	c.member.link.replied()
	if k := x.calleeLate(c); k != NoError {
		return k
	}
	status := x.meaning()
	if status != 504 || !x.late() || !x.outOfPatience() { // a callee who knows of the deadline says so
		u.tracker.Replied(c.member.record, status)
	}
	if !plan.wants(x) {
		return NoError
	}
	// While the body is sent, more of it may be taken from the client at any moment,
	// which nobody could send again.
	x.stopPump(c)
	if x.repeatable() && plan.hasTime(x) && plan.take(x, u) {
		x.trail.dropped = status // the reply's fields go with its connection
		return retriableStatus
	}
	return NoError
}

// calleeLate is the deadline that has passed where the proxy over there, which we have told
// of it, says so a moment before we do; NoError: none. What becomes of the request must not
// hang on which of the two is the quicker.
func (x *exchange) calleeLate(c *upstreamConn) Kind {
	passed := func(deadline instant) bool { return deadline != 0 && x.clock >= deadline-calleesLead }
	switch {
	case x.res.Status != 504 || x.dialect != notGRPC || !c.member.host.Endpoint().Via:
	case passed(x.deadline):
		return Timeout
	case passed(x.tryEnds):
		return TryTimeout
	}
	return NoError
}

// faultOfUpstream reports whether a failure speaks against the endpoint.
func (x *exchange) faultOfUpstream(k Kind) bool {
	switch k {
	case Terminated, RemoteReset, BadReply, TryTimeout:
		return true
	case Timeout:
		return !x.outOfPatience()
	}
	return false
}

// outOfPatience reports whether the deadline is that of a gateway's client, who is
// anybody: an endpoint is no worse for it than for a client who goes away.
func (x *exchange) outOfPatience() bool {
	return x.conn.kind == gateway && x.ends != 0 && x.deadline == x.ends
}

// inVain reports whether a request has been given up, by whomever, whose host has not
// even acknowledged it: the others over the connection, which goes on, shall not wait in
// vain as well.
func (x *exchange) inVain(c *upstreamConn, k Kind, sent instant) bool {
	if k != Timeout && k != TryTimeout && k != ClientGone || x.clock-sent < stallCheck {
		return false
	}
	stalled, _ := c.stalled(sent, x.clock, true)
	return stalled
}

// dropReply takes a reply that is not wanted off a connection, if it has come
// whole, and reports whether the connection may carry another exchange.
func (x *exchange) dropReply(c *upstreamConn) bool {
	if c.h2 != nil {
		return true // the stream ends, and no more
	}
	n := int64(0)
	if x.res.Framing == http1.Length {
		n = x.res.ContentLength
	}
	if x.pumping.short || c.cut || x.res.Close || x.res.Framing != http1.NoBody && x.res.Framing != http1.Length || int64(c.in.len()) != n {
		return false
	}
	c.in.r += int(n)
	return true
}
