package proxy

import (
	"time"

	"isthmus/balancer"
	"isthmus/tracing"
)

// trail is what an exchange notes on its way for [Proxy.Why]. One that goes well
// writes two instants.
type trail struct {
	began   instant     // of the try under way
	replied instant     // when the head of its reply had come; 0: not yet
	dropped int         // the status of the reply that was thrown away last; see meaning
	cause   error       // of what failed last; nil: its kind says all
	failed  []failedTry // tries that failed
}

// failedTry is one that led to no reply for the client.
type failedTry struct {
	member       *member
	began, ended instant
	kind         Kind
	status       int // of a reply that was thrown away
	cause        error
	span         tracing.SpanID
}

// failed notes that the try under way has failed.
func (x *exchange) failed(k Kind) {
	f := failedTry{member: x.member, began: x.trail.began, ended: now(), kind: k, cause: x.trail.cause, span: x.traced.try}
	if k == retriableStatus {
		f.status, f.cause = x.trail.dropped, nil
	}
	x.trail.failed = append(x.trail.failed, f)
	x.member.live.countFailure(k)
	x.trail.cause, x.trail.replied = nil, 0
	x.clock = f.ended
}

// maxToldEndpoints bounds how many endpoints are told of that cannot serve.
const maxToldEndpoints = 8

// nobody tells why no endpoint of the route's destinations can serve.
func (x *exchange) nobody() (out []string) {
	for i := range x.route.destinations {
		u := x.upstream(x.route.destinations[i].target)
		for _, m := range u.members {
			if len(out) == maxToldEndpoints {
				return append(out, "and others")
			}
			e := m.host.Endpoint()
			reason := e.Unready
			if state, why := m.host.State(); state != balancer.Usable {
				reason = why
			}
			if reason == "" {
				reason = "had been tried"
			}
			out = append(out, m.address.String()+" in "+e.Cluster+": "+reason)
		}
	}
	return out
}

// why is the error of the try that failed last; nil: none has, or its kind says
// all.
func (t *trail) why() error {
	if t.cause == nil && t.replied == 0 && len(t.failed) > 0 {
		return t.failed[len(t.failed)-1].cause
	}
	return t.cause
}

// forget makes the trail that of no exchange.
func (t *trail) forget() {
	t.began, t.replied = 0, 0
	if t.cause != nil || t.failed != nil {
		*t = trail{}
	}
}

// troubled reports whether the exchange, which is over, may be one to remember. How
// a client ends a tunnel is its own business.
func (x *exchange) troubled() bool {
	return x.kind != NoError && (!x.upgrade.agreed || x.kind == Terminated) || x.meant() >= 400 || x.trail.waited(x) > x.conn.proxy.slow
}

// waited is how long the client waited for the reply to begin; for as long as the
// exchange took where none came from an upstream.
func (t *trail) waited(x *exchange) time.Duration {
	if t.replied != 0 {
		return time.Duration(t.replied - x.start)
	}
	return time.Duration(x.clock - x.start)
}
