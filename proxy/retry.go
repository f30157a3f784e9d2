package proxy

import (
	"math/rand/v2"
	"slices"
	"time"

	"isthmus/balancer"
	"isthmus/http1"
	"isthmus/mesh"
)

// retryPlan counts what a request may still try.
type retryPlan struct {
	policy    *mesh.Retries
	left      int           // tries that the policy still allows
	wait      time.Duration // before the next try
	failovers int           // tries made outside the policy
	silent    bool          // an endpoint has not answered at all
	full      bool          // the last one to reply has not looked at the request, since it has enough to do
}

// retriableStatus is the outcome of a try whose reply the policy asks to throw
// away. It never reaches a client.
const retriableStatus = Kind(255)

// maxFailovers is how often a request may go to another endpoint outside the
// policy's attempts because the one before provably never saw it. Dialling
// costs an upstream little; three dead endpoints in a row are seldom met before
// they are known to be dead.
const maxFailovers = 3

// again decides whether the request is tried once more after a failure, and
// waits for the back-off if there is one.
func (p *retryPlan) again(x *exchange, u *upstream, k Kind) bool {
	if k == retriableStatus {
		if !p.full { // as with all that was not sent, another one is to be asked
			p.forget(x, u)
		}
		p.backOff(x)
		return true
	}
	if !x.repeatable() || k == NoHealthy || k == NoDestination || k == ClientGone || k == Timeout || k == Overflow || k == Shed {
		return false
	}
	if x.deadline != 0 && now() >= x.deadline {
		return false
	}
	// What was not sent, or is idempotent and lost its connection, goes to
	// another endpoint whatever the policy says.
	unsent, alone := answers[k].unsent, x.alone(k)
	switch {
	case unsent && !alone && p.failovers < maxFailovers, (k == Terminated || k == RemoteReset || k == Stalled) && x.idempotent() && p.failovers == 0:
		p.failovers++
		x.member.live.stats.Failovers.Add(1)
		p.silent = p.silent || k == Stalled || k == ConnectTimeout
		return true
	}
	pauses := !unsent || alone
	if !p.covers(x, k) || pauses && !p.hasTime(x) || !p.take(x, u) {
		return false
	}
	p.forget(x, u)
	if pauses {
		p.backOff(x)
	}
	return true
}

// alone reports whether an endpoint could not be connected to and is the only one: it is not
// asked again at once.
func (x *exchange) alone(k Kind) bool {
	return (k == ConnectFailure || k == ConnectTimeout) && !x.untried()
}

// untried reports whether the route leads to an endpoint that has not been tried, and may
// be, if only as a last resort.
func (x *exchange) untried() bool {
	for i := range x.route.destinations {
		u := x.upstream(x.route.destinations[i].target)
		if u.known && slices.ContainsFunc(u.set.Hosts(), func(h *balancer.Host) bool {
			return !slices.Contains(x.tried, h) && h.LastResort()
		}) {
			return true
		}
	}
	return false
}

// elsewhere reports whether there is another endpoint to go to.
func (x *exchange) elsewhere(u *upstream) bool {
	return len(x.route.destinations) > 1 || u.set.Several()
}

// forget lets the next try go to hosts that have been tried, if the policy
// says so: retryIgnorePreviousHosts, which is false by default where requests
// belong to a host (Istio: retry.go).
func (p *retryPlan) forget(x *exchange, u *upstream) {
	avoid := u == nil || u.hash == nil
	if p.policy.IgnorePreviousHosts != nil {
		avoid = *p.policy.IgnorePreviousHosts
	}
	if !avoid {
		x.tried = x.tried[:0]
	}
}

// beyond reports whether the next try shall go to another locality than all
// before it: after silence, since a link that swallows packets does so for all
// behind it; and with retryRemoteLocalities from the third try on (Envoy's
// previous_priorities with an update frequency of 2, which Istio sets).
func (p *retryPlan) beyond(x *exchange) bool {
	return p.silent || p.policy.RemoteLocalities && x.attempts >= 2
}

// covers reports whether the policy names a failure that brought no reply.
func (p *retryPlan) covers(x *exchange, k Kind) bool {
	on := p.policy.On
	switch k {
	case ConnectFailure, ConnectTimeout, LinkDown:
		return on&(mesh.RetryConnectFailure|mesh.RetryGatewayError|mesh.Retry5xx|mesh.RetryReset|mesh.RetryResetBeforeRequest) != 0
	case Refused:
		return on&(mesh.RetryRefusedStream|mesh.RetryReset|mesh.RetryResetBeforeRequest|mesh.RetryGatewayError|mesh.Retry5xx) != 0
	case Terminated, RemoteReset, Stalled, BadReply, TryTimeout:
		if on&(mesh.RetryReset|mesh.RetryGatewayError|mesh.Retry5xx) != 0 {
			return p.repeats(x)
		}
	}
	return false
}

// wants reports whether the policy asks to try again instead of delivering a
// reply, of which the head has come. One by which nobody has looked at the request
// is like a stream that is refused.
func (p *retryPlan) wants(x *exchange) bool {
	named, safe := p.full && p.covers(x, Refused), p.full
	switch {
	case named:
	case x.res.Status >= 400, slices.Contains(p.policy.Codes, x.res.Status):
		named = p.names(x, x.res.Status)
	case x.dialect != notGRPC:
		named = p.namesGRPC(x)
		safe = safe || x.res.Framing == http1.NoBody
	}
	if !named {
		return false
	}
	x.unwanted = true
	return p.left > 0 && x.repeatable() && (safe || p.repeats(x))
}

// repeats reports whether what was sent may be sent once more: an upgrade never.
func (p *retryPlan) repeats(x *exchange) bool {
	return x.idempotent() || p.policy.Explicit && x.upgrade.protocol == nil
}

// repeatable reports whether the whole request can be sent once more: nothing
// of its body has gone that is not kept.
func (x *exchange) repeatable() bool {
	return x.body.whole || x.body.empty() || !x.pumping.begun.Load()
}

// idempotent reports whether doing the request twice is the same as doing it
// once (RFC 9110 9.2.2). A GET that begins something else is none of the kind.
func (x *exchange) idempotent() bool {
	if x.upgrade.protocol != nil {
		return false
	}
	switch string(x.req.Method) {
	case "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// names reports whether the policy calls a reply of this status a failure.
func (p *retryPlan) names(x *exchange, status int) bool {
	on := p.policy.On
	if _, limited := x.res.Get(http1.EnvoyRateLimited); limited {
		return on&mesh.RetryEnvoyRateLimited != 0
	}
	switch {
	case status >= 500 && on&mesh.Retry5xx != 0,
		(status == 502 || status == 503 || status == 504) && on&mesh.RetryGatewayError != 0,
		status == 409 && on&mesh.RetryRetriable4xx != 0:
		return true
	}
	return on&mesh.RetryRetriableStatusCodes != 0 && slices.Contains(p.policy.Codes, status)
}

// grpcRetries are the words for statuses of gRPC.
var grpcRetries = map[mesh.GRPCCode]mesh.RetryOn{
	mesh.GRPCCancelled:         mesh.RetryCancelled,
	mesh.GRPCDeadlineExceeded:  mesh.RetryDeadlineExceeded,
	mesh.GRPCInternal:          mesh.RetryInternal,
	mesh.GRPCResourceExhausted: mesh.RetryResourceExhausted,
	mesh.GRPCUnavailable:       mesh.RetryUnavailable,
}

// namesGRPC reports whether the policy calls the reply to a call of gRPC a
// failure. That is told by the head alone: behind messages a status comes too
// late. A server that says so without a word before has not done what it was
// asked for, so that to the default policy, too, it is safe to ask another one:
// these two statuses mean that the call may be made again.
func (p *retryPlan) namesGRPC(x *exchange) bool {
	code, ok := grpcStatusOf(x.res.Fields)
	if !ok {
		return false
	}
	if _, limited := x.res.Get(http1.EnvoyRateLimited); limited {
		return p.policy.On&mesh.RetryEnvoyRateLimited != 0
	}
	return p.policy.On&grpcRetries[code] != 0
}

// take uses up one of the policy's tries, if the budget of the upstream has
// room for it and the deadline has not passed.
func (p *retryPlan) take(x *exchange, u *upstream) bool {
	if p.left == 0 || u == nil || x.deadline != 0 && now() >= x.deadline {
		return false
	}
	x.endRetry(false) // this try's own place
	base := u.live.requests.Load()
	if u.begun != nil {
		base = max(base, u.begun.Count())
	}
	if !u.live.budget.Begin(u.retries, base) {
		u.live.stats.RetriesRefused.Add(1)
		return false
	}
	u.live.stats.Retries.Add(1)
	x.retrying = &u.live.budget
	p.left--
	return true
}

// endRetry gives back the place of a retry that is over.
func (x *exchange) endRetry(succeeded bool) {
	if x.retrying != nil {
		x.retrying.End(succeeded)
		if succeeded && x.member != nil {
			x.member.live.stats.RetriesSucceeded.Add(1)
		}
		x.retrying = nil
	}
}

// hasTime draws for how long to wait before the next try, which is anything up to the
// longest back-off, and reports whether that is over before the deadline. It comes before
// a reply is thrown away for that try: whoever cannot have another one gets this one.
func (p *retryPlan) hasTime(x *exchange) bool {
	p.wait = rand.N(p.policy.LongestBackoff(p.policy.Attempts-p.left+1) + 1)
	return x.deadline == 0 || now()+instant(p.wait) < x.deadline
}

// backOff waits before the next try.
func (p *retryPlan) backOff(x *exchange) {
	time.Sleep(p.wait)
	x.clock = now()
}
