package proxy

import (
	"math/rand/v2"
	"slices"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
)

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
	if !x.repeatable() || k == NoHealthy || k == NoDestination || k == ClientGone || k == Timeout || k == Overflow {
		return false
	}
	if x.deadline != 0 && now() >= x.deadline {
		return false
	}
	unsent := k != retriableStatus && answers[k].unsent
	// What was not sent, or is idempotent and lost its connection, goes to
	// another endpoint whatever the policy says.
	switch {
	case unsent && p.failovers < maxFailovers, k == Terminated && x.idempotent() && p.failovers == 0:
		p.failovers++
		return true
	}
	if k != retriableStatus && !p.covers(x, k) {
		return false
	}
	if !p.take(u) {
		return false
	}
	if !unsent {
		return p.backOff(x)
	}
	return true
}

// covers reports whether the policy names a failure that brought no reply.
func (p *retryPlan) covers(x *exchange, k Kind) bool {
	on := p.policy.On
	switch k {
	case ConnectFailure, ConnectTimeout:
		return on&(mesh.RetryConnectFailure|mesh.RetryGatewayError|mesh.Retry5xx|mesh.RetryReset|mesh.RetryResetBeforeRequest) != 0
	case Terminated, BadReply, TryTimeout:
		if on&(mesh.RetryReset|mesh.RetryGatewayError|mesh.Retry5xx) != 0 {
			return p.policy.Explicit || x.idempotent()
		}
	}
	return false
}

// wants reports whether the policy asks to try again instead of delivering a
// reply of this status.
func (p *retryPlan) wants(x *exchange, status int) bool {
	on := p.policy.On
	if status < 400 || p.left == 0 || !x.repeatable() || !p.policy.Explicit && !x.idempotent() {
		return false
	}
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

// allowed reports whether a retry would be made now.
func (p *retryPlan) allowed(x *exchange, u *upstream) bool {
	if x.deadline != 0 && now() >= x.deadline {
		return false
	}
	return p.left > 0 && (u.limits.retries == 0 || u.live.retries.Load() < u.limits.retries)
}

// take uses up one of the policy's tries.
func (p *retryPlan) take(u *upstream) bool {
	if p.left == 0 {
		return false
	}
	if u != nil && u.limits.retries != 0 && u.live.retries.Load() >= u.limits.retries {
		return false
	}
	p.left--
	return true
}

// defaultBackoff is the base of Envoy's back-off; its largest is ten times the
// base.
const defaultBackoff = 25 * time.Millisecond

// backOff waits before the next try: anything up to (2^n-1) times the base, at
// most ten times the base, as Envoy does. It is false if the deadline comes
// first.
func (p *retryPlan) backOff(x *exchange) bool {
	base := p.policy.Backoff
	if base == 0 {
		base = defaultBackoff
	}
	n := p.policy.Attempts - p.left
	most := min(base*time.Duration(1<<min(n, 10)-1), 10*base)
	wait := rand.N(most + 1)
	if x.deadline != 0 && now()+instant(wait) >= x.deadline {
		return false
	}
	time.Sleep(wait)
	x.clock = now()
	return true
}
