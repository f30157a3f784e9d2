package proxy

import (
	"strconv"
	"time"

	"isthmus/http1"
)

// setDeadline finds when the exchange has to be over: by the route's timeout
// (0: never), which the own application may change for a request of its own and
// which a fault's delay does not count in, and by what callers say that they wait. Nobody works for a caller who has gone.
func (x *exchange) setDeadline() {
	timeout := x.route.timeout
	limit := instant(0)
	for i := range x.req.Fields {
		f := &x.req.Fields[i]
		switch f.ID {
		case http1.EnvoyUpstreamTimeout:
			// Envoy's x-envoy-upstream-rq-timeout-ms, from internal callers.
			if d, ok := milliseconds(f.Value); ok && x.conn.kind == outbound {
				timeout = d
			}
		case http1.EnvoyExpectedTimeout:
			if d, ok := milliseconds(f.Value); ok && x.conn.kind == inbound {
				limit = sooner(limit, x.start+d)
			}
		case http1.GRPCTimeout:
			if d, ok := grpcTimeout(f.Value); ok {
				limit = sooner(limit, x.start+d)
			}
		}
	}
	if timeout != 0 {
		limit = sooner(limit, x.start+x.delayed+timeout)
	}
	x.deadline = limit
}

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
func (x *exchange) appendDeadline(out []byte, to headFormat, deadline instant, grpc bool) []byte {
	if deadline == 0 {
		return out
	}
	left := max(1, (deadline-x.clock)/instant(time.Millisecond))
	out = to.number(out, nameExpectedTime, int64(left))
	if grpc {
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
