package proxy

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"isthmus/balancer"
	"isthmus/http1"
	"isthmus/mesh"
)

// A proxy of another cluster that wants to know whether requests for a service
// would be served behind this one asks the inbound listener, by a request with
// x-isthmus-probe beside x-isthmus-destination. The answer is the proxy's own,
// 200 or 503 with the reason, and is counted nowhere; the application sees
// nothing of it. Other listeners take the field off and know no such requests.

// isProbe reports whether a request is such a question.
func (x *exchange) isProbe() bool {
	_, ok := x.req.Get(http1.IsthmusProbe)
	return ok
}

// serveProbe answers one.
func (x *exchange) serveProbe() {
	x.start = now()
	x.clock = x.start
	x.table = x.conn.proxy.table.Load()
	x.keep = !x.req.Close
	status, reason := 200, ""
	vh, err := x.findHost()
	switch {
	case err != NoError:
		status, reason = answers[err].status, "not served here"
	case x.conn.proxy.draining.Load():
		status, reason = 503, "draining"
	default:
		if reason = x.conn.proxy.unservable(x.table, vh); reason != "" {
			status = 503
		}
	}
	x.local(status, []byte(reason), "x-isthmus-probe", "1")
}

// unservable says why what a virtual host of the inbound listener stands for
// would not be served; "" if it would, as far as one knows without a request.
func (p *Proxy) unservable(t *table, vh *virtualHost) string {
	target := vh.routes[0].destinations[0].target // it has one of each
	if a := t.snapshot.Application; target.key.inbound && a != nil {
		return a.Unready
	}
	endpoints := target.resolve().endpoints
	reason := "no endpoint"
	var ready []netip.AddrPort
	for _, e := range endpoints {
		if e.Unready != "" {
			reason = e.Unready
		} else if target.usable(e) {
			ready = append(ready, e.Address)
		}
	}
	if len(ready) == 0 {
		return reason
	}
	c, _ := p.reached.LoadOrStore(target.key, &reach{})
	return c.(*reach).ask(ready)
}

// usable reports whether this proxy knows nothing against an endpoint.
func (t *target) usable(e *mesh.Endpoint) bool {
	u := t.upstream.Load()
	if u == nil || t.key.inbound {
		return true
	}
	for _, m := range u.members {
		if m.address == e.Address {
			state, _ := m.host.State()
			return state == balancer.Usable
		}
	}
	return true
}

// How long it is known whether endpoints can be connected to, whoever asks;
// how long one may take, being near; and how long all of them, so that who asks
// hears before its own time-out, 1 s.
const (
	reachKnown   = instant(time.Second)
	reachTimeout = 200 * time.Millisecond
	reachInTotal = instant(600 * time.Millisecond)
)

// reach is what connecting has found out of a target.
type reach struct {
	mu      sync.Mutex // guards what is below; held while it is found out
	until   instant    // it is known
	failure string     // "": one of the endpoints could be connected to
}

// ask connects to endpoints until one answers, unless somebody has just done
// that.
func (r *reach) ask(endpoints []netip.AddrPort) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	start := now()
	if start < r.until {
		return r.failure
	}
	d := net.Dialer{Timeout: reachTimeout, KeepAlive: -1}
	first := rand.IntN(len(endpoints))
	for i := range endpoints {
		c, err := d.Dial("tcp", endpoints[(first+i)%len(endpoints)].String())
		if err == nil {
			c.Close()
			r.failure = ""
			break
		}
		r.failure = dialFailure(err)
		if now()-start > reachInTotal {
			break
		}
	}
	r.until = now() + reachKnown
	return r.failure
}

// dialFailure says why a connection could not be made, in words that do not
// vary: others announce them.
func dialFailure(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return "no answer in time"
}

// forgetReach drops what was found out of targets that are gone.
func (p *Proxy) forgetReach(t *table) {
	p.reached.Range(func(k, _ any) bool {
		if t.targets[k.(upstreamKey)] == nil {
			p.reached.Delete(k)
		}
		return true
	})
}
