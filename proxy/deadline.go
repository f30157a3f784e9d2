package proxy

import (
	"strconv"
	"time"

	"isthmus/http1"
)

// timing is how long an exchange may take. Timeouts run from when the request has
// come whole (Envoy: router_filter.rst), so that clients may take the time that they
// need to send it, in which others look after them; see patience.
type timing struct {
	deadline instant // when it has to be over, as far as that is known; 0: never
	pending  bool    // it is not known yet: the client is still sending

	ends     instant // when the client's own deadline, of gRPC, passes
	timeout  instant // a duration; 0: none
	expected instant // likewise, for which the calling proxy waits
	inLine   instant // since when the request waits for a connection, and no more of it is taken; 0: it does not

	tryTimeout instant // a duration, for a try
	tryBegan   instant // when the last one began
	tryEnds    instant // when it has to be over, as far as that is known
}

// within is for how long, at most, the upstream may take with a request that is still
// to come. 0: for ever.
func (t *timing) within() instant {
	return sooner(sooner(t.timeout, t.expected), t.tryTimeout)
}

// setDeadline finds when the exchange has to be over: by the route's timeout
// (0: never), which the own application may change for a request of its own and
// which a fault's delay does not count in, and by what callers say that they wait. Nobody works for a caller who has gone.
func (x *exchange) setDeadline() {
	x.timeout, x.expected, x.ends = x.route.timeout, 0, 0
	for i := range x.req.Fields {
		f := &x.req.Fields[i]
		switch f.ID {
		case http1.EnvoyUpstreamTimeout:
			// Envoy's x-envoy-upstream-rq-timeout-ms, from internal callers.
			if d, ok := milliseconds(f.Value); ok && x.conn.kind == outbound {
				x.timeout = d
			}
		case http1.EnvoyExpectedTimeout:
			if d, ok := milliseconds(f.Value); ok && x.conn.kind == inbound {
				x.expected = sooner(x.expected, d)
			}
		case http1.GRPCTimeout:
			if d, ok := grpcTimeout(f.Value); ok {
				x.ends = sooner(x.ends, x.start+d)
			}
		}
	}
	x.settleDeadline()
}

// settleDeadline finds the deadlines, as far as the request has come.
func (x *exchange) settleDeadline() {
	at, ok := x.cameAt()
	x.pending = !ok || x.awaitsContinue() || x.inLine != 0
	x.deadline, x.tryEnds = x.ends, 0
	if !ok {
		return
	}
	x.deadline = x.deadlineFrom(at)
	if x.tryTimeout != 0 {
		x.tryEnds = max(at, x.tryBegan) + x.tryTimeout
	}
}

// deadlineFrom is the deadline of a request that has come whole at a time.
func (x *exchange) deadlineFrom(at instant) instant {
	limit := x.ends
	if x.expected != 0 {
		limit = sooner(limit, at+x.expected)
	}
	if x.timeout != 0 {
		limit = sooner(limit, at+x.delayed+x.timeout)
	}
	return limit
}

// cameAt returns when the request had come as far as its client sends it without a
// word of the upstream's. ok is false if it has not.
func (x *exchange) cameAt() (t instant, ok bool) {
	switch b := &x.body; {
	case x.req.Framing == http1.NoBody, x.awaitsContinue():
		return x.start, true
	case !b.opened:
		return 0, false
	case b.whole:
		return max(x.start, x.tally.received), true
	case x.inLine != 0:
		return x.inLine, true
	}
	t = instant(x.pumping.came.Load())
	return t, t != 0
}

// awaitsContinue reports whether the client waits for 100 (Continue), and so for the
// upstream.
func (x *exchange) awaitsContinue() bool {
	return x.body.awaited && x.pumping.continued.Load() == 0 && !x.pumping.begun.Load()
}

// standInLine has the timeouts run although the client is still sending, if it is: it
// waits for us until there is a connection.
func (x *exchange) standInLine() {
	if x.pending && x.inLine == 0 {
		x.inLine = now()
		x.settleDeadline()
	}
}

// leaveLine has them wait for the client again.
func (x *exchange) leaveLine() {
	if x.inLine != 0 {
		x.inLine = 0
		x.settleDeadline()
	}
}

// tryDeadline is when the reply to the last try has to have begun.
func (x *exchange) tryDeadline() instant { return sooner(x.deadline, x.tryEnds) }

// shortestLook is how often, at most, whoever waits for a reply looks whether the
// request has come.
const shortestLook = instant(5 * time.Millisecond)

// maxTimeout bounds what a header may ask for, so that adding to it cannot
// overflow.
const maxTimeout = instant(1000 * time.Hour)

// milliseconds reads a number of milliseconds; 0 is none.
func milliseconds(b []byte) (instant, bool) {
	n, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil || n == 0 {
		return 0, false
	}
	return min(instant(n)*instant(time.Millisecond), maxTimeout), true
}

var grpcUnits = [256]instant{
	'H': instant(time.Hour), 'M': instant(time.Minute), 'S': instant(time.Second),
	'm': instant(time.Millisecond), 'u': instant(time.Microsecond), 'n': 1,
}

// grpcTimeout reads grpc-timeout: up to eight digits and a unit (gRPC over
// HTTP/2, Requests).
func grpcTimeout(b []byte) (instant, bool) {
	last := len(b) - 1
	if last < 1 || last > 8 || grpcUnits[b[last]] == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:last]), 10, 32)
	if err != nil {
		return 0, false
	}
	return max(1, min(instant(n)*grpcUnits[b[last]], maxTimeout)), true
}

// appendDeadline tells the upstream how long we wait: all proxies in
// x-envoy-expected-rq-timeout-ms, and gRPC in its own words.
func (x *exchange) appendDeadline(out []byte, to headFormat, deadline, within instant, grpc bool) []byte {
	if deadline == 0 && within == 0 {
		return out
	}
	left := instant(0)
	if deadline != 0 {
		left = max(1, (deadline-x.clock)/instant(time.Millisecond))
	}
	out = to.number(out, nameExpectedTime, int64(max(1, sooner(within/instant(time.Millisecond), left))))
	if grpc { // whose callee counts from the beginning: what counts from the end is not for it
		var room [24]byte
		value := room[:0]
		if left > 99_999_999 { // eight digits
			value = append(strconv.AppendInt(value, int64(left/1000), 10), 'S')
		} else {
			value = append(strconv.AppendInt(value, int64(left), 10), 'm')
		}
		out = to.field(out, nameGRPCTimeout, value)
	}
	return out
}
