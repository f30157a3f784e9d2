package proxy

import (
	"math/rand/v2"

	"isthmus/mesh"
)

// hit draws whether a request is among a share of all.
func (p *Proxy) hit(share mesh.Fraction) bool {
	draw := p.options.draw
	if draw == nil {
		draw = rand.Uint32N
	}
	return share > 0 && draw(uint32(mesh.AllRequests)) < uint32(share)
}

// inject does to the request what the route's fault says, and reports whether
// it is to be sent on. That comes before anything of an upstream is taken, so a
// request that is delayed holds up nobody, and one that is aborted is never
// tried again. The order is Envoy's: the delay first, drawn apart from the
// abort.
func (x *exchange) inject(f *mesh.Fault) bool {
	p := x.conn.proxy
	if p.hit(f.DelayShare) {
		if kind := x.delay(instant(f.Delay)); kind != NoError {
			x.refuse(kind)
			return false
		}
	}
	if p.hit(f.AbortShare) {
		x.abort(f)
		return false
	}
	return true
}

// delay makes the request wait. The route's timeout starts anew behind it;
// callers who say how long they wait have waited all the same, and nobody works
// for one of whom that is over, nor for one who has gone.
func (x *exchange) delay(d instant) Kind {
	from := now()
	x.delayed = d
	x.setDeadline()
	err := x.conn.lookOut(sooner(from+d, x.deadline))
	x.clock = now()
	switch {
	case err != errTimeout:
		return ClientGone
	case x.deadline != 0 && x.clock >= x.deadline:
		return Timeout
	}
	x.delayed = x.clock - from
	x.setDeadline()
	return NoError
}

// abort answers in the place of the upstream. Who asked in plain HTTP gets the
// status that means the same as that of gRPC.
func (x *exchange) abort(f *mesh.Fault) {
	x.kind = FaultInjected
	body := []byte(answers[FaultInjected].body)
	switch {
	case f.AbortGRPC == 0:
		x.local(f.AbortStatus, body)
	case x.dialect != notGRPC:
		x.sendGRPC(f.AbortGRPC, body)
	default:
		x.local(abortStatus(f), body)
	}
}

// abortStatus is the status of HTTP that an abort has, or that means the same.
func abortStatus(f *mesh.Fault) int {
	if f.AbortGRPC != 0 {
		return f.AbortGRPC.HTTPStatus()
	}
	return f.AbortStatus
}
