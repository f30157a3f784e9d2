package proxy

import (
	"sync/atomic"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// mirror is one place that gets copies of a route's requests.
type mirror struct {
	route *route // with the mirror as its only destination
	share mesh.Fraction
}

const (
	// maxMirrored is how many copies may be under way: with a head and a body of
	// at most 64 KiB each, that is 32 MiB. What comes on top is not copied.
	maxMirrored = 256

	// mirrorTimeout is how long a copy may take where the route has no timeout:
	// Envoy's default for routes.
	mirrorTimeout = instant(15 * time.Second)
)

// mirroring is what a proxy knows of the copies of all its routes.
type mirroring struct {
	active atomic.Int32 // copies under way
	counts telemetry.Mirrors
}

// compileMirrors makes a route of its own for every mirror that is not off. It
// changes requests as the rule does, its timeout is the rule's, and it tries
// only once what was sent.
func (c *compiler) compileMirrors(r *route, rule *mesh.HTTPRoute, port uint32) (out []mirror) {
	for i := range rule.Mirrors {
		m := &rule.Mirrors[i]
		if m.Share == 0 {
			continue
		}
		to := &route{rule: rule, name: r.name, action: action{
			destinations: []destination{{target: c.target(c.forPod(m.Destination, 1), port), weight: 1, rule: m.Destination}},
			totalWeight:  1,
			rewrite:      r.rewrite,
			timeout:      r.timeout,
			retries:      noRetries,
			headers:      r.headers,
		}}
		if to.timeout == 0 {
			to.timeout = mirrorTimeout
		}
		out = append(out, mirror{to, m.Share})
	}
	return out
}

// mirror sends copies of the request to the mirrors that the draw hits. A copy
// has its own memory and its own goroutine, which ends with the mirror's reply
// or the time-out; nobody waits for it.
func (x *exchange) mirror(to []mirror) {
	m := &x.conn.proxy.mirroring
	for i := range to {
		switch {
		case !x.conn.proxy.hit(to[i].share):
		case !x.body.whole:
			m.counts.Unbuffered.Add(1)
		case m.active.Add(1) > maxMirrored:
			m.active.Add(-1)
			m.counts.Dropped.Add(1)
		default:
			go x.copyFor(to[i].route).deliverCopy()
		}
	}
}

// deliverCopy carries the exchange of a copy.
func (x *exchange) deliverCopy() {
	m := &x.conn.proxy.mirroring
	defer m.active.Add(-1)
	defer x.conn.recover()
	x.forward()
	if x.kind == NoError {
		m.counts.Answered.Add(1)
	} else {
		m.counts.Failed.Add(1)
	}
	x.release()
}

// copyFor returns an exchange with the same request and the same id, for
// another route, whose client takes everything and says nothing.
func (x *exchange) copyFor(to *route) *exchange {
	x.requestID()
	c := exchanges.Get().(*exchange)
	c.conn = &conn{stream: sinkStream(), client: x.conn.client}
	c.conn.copied = x.conn.h2 != nil
	c.table, c.host, c.matched, c.route = x.table, x.host, x.matched, to
	c.start = now()
	c.clock, c.deadline = c.start, c.start+to.timeout
	c.id, c.hasID, c.sanitized, c.said, c.dialect = x.id, x.hasID, x.sanitized, x.said, x.dialect
	c.traced.ends = x.traced.ends

	// Parsing a head of its own gives the copy all that was found in the first.
	// What the framing was is the body's matter.
	head := append(append([]byte(nil), x.req.Method...), ' ')
	head = append(head, x.req.Path...)
	if x.req.HasQuery {
		head = append(append(head, '?'), x.req.Query...)
	}
	head = append(head, " HTTP/1.1\r\n"...)
	head = http1.AppendField(head, []byte("host"), x.req.Authority)
	for i := range x.req.Fields {
		switch f := &x.req.Fields[i]; {
		case f.ID == http1.Host, f.ID == http1.ContentLength, f.ID == http1.TransferEncoding, f.ID == http1.Expect:
		case f.ID == http1.Connection && !x.req.Hop: // what it names has been taken off, and ours put on
		default:
			head = http1.AppendField(head, f.Name, f.Value)
		}
	}
	c.req.Reset()
	head = append(head, "\r\n"...)
	if _, err := c.req.Parse(head, http1.Limits{HeadBytes: len(head), Fields: len(x.req.Fields) + 1, TargetBytes: len(head)}); err != nil {
		panic("the copy of a head is refused: " + err.Error())
	}
	c.body = requestBody{whole: true}
	if !x.body.empty() {
		c.body.framing, c.body.length = http1.Length, int64(len(x.body.data))
		c.body.data = append([]byte(nil), x.body.data...)
	}
	return c
}

// Mirrors returns the counters of copies, for the metrics.
func (p *Proxy) Mirrors() *telemetry.Mirrors { return &p.mirroring.counts }
