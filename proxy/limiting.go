package proxy

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"isthmus/mesh"
	"isthmus/ratelimit"
)

// limitReply is how a limit refuses.
type limitReply struct {
	kind   Kind
	status int
	grpc   int // of callers by gRPC, whose status is 200
	body   []byte
	fields []string // name, value, name, value
}

// The statuses of gRPC for a refusal.
const (
	grpcExhausted   = 8
	grpcUnavailable = 14
)

func localRefusal(r *mesh.LocalRateLimit) *limitReply {
	return newRefusal(RateLimited, r.Status, r.ResourceExhausted, false, r.Response)
}

func globalRefusal(r *mesh.GlobalRateLimit) *limitReply {
	return newRefusal(GloballyLimited, r.Status, r.ResourceExhausted, r.NoLimitedHeader, r.Response)
}

func newRefusal(k Kind, status int, exhausted, silent bool, fields []mesh.NameValue) *limitReply {
	out := &limitReply{kind: k, status: status, grpc: grpcUnavailable, body: []byte(answers[k].body)}
	if exhausted {
		out.grpc = grpcExhausted
	}
	if !silent {
		out.fields = append(out.fields, "x-envoy-ratelimited", "true")
	}
	out.fields = append(out.fields, flatten(fields)...)
	return out
}

func flatten(list []mesh.NameValue) (out []string) {
	for _, nv := range list {
		out = append(out, nv.Name, nv.Value)
	}
	return out
}

// limits are those of the request's route, else of its virtual host.
func (x *exchange) limits() *limitChain {
	if x.route.limits != nil {
		return x.route.limits
	}
	return x.host.limits
}

// limit asks the limits whether the request may pass.
func (x *exchange) limit(c *limitChain) Kind {
	for i := range c.limits {
		l := &c.limits[i]
		kind := NoError
		if l.local != nil {
			kind = x.limitLocally(l)
		} else {
			kind = x.limitGlobally(l)
		}
		if kind != NoError {
			return kind
		}
	}
	return NoError
}

var descriptorLists = sync.Pool{New: func() any { return new(ratelimit.Descriptors) }}

func (x *exchange) limitLocally(l *limiter) Kind {
	rule := l.local.Rule
	var own *ratelimit.Buckets
	if rule.PerConnection {
		own = x.conn.limits.of(l.local)
	}
	t := x.clock.time()
	var o ratelimit.Outcome
	if len(l.actions) == 0 {
		o = l.local.Take(t, nil, own)
	} else {
		d := descriptorLists.Get().(*ratelimit.Descriptors)
		x.countBy(d, l)
		o = l.local.Take(t, d, own)
		descriptorLists.Put(d)
	}
	var fields []mesh.NameValue
	if rule.Headers {
		if limit, remaining, reset, ok := o.State(t); ok {
			fields = []mesh.NameValue{
				{Name: "x-ratelimit-limit", Value: strconv.Itoa(limit)},
				{Name: "x-ratelimit-remaining", Value: strconv.Itoa(remaining)},
				{Name: "x-ratelimit-reset", Value: strconv.FormatInt(int64((reset+time.Second-1)/time.Second), 10)},
			}
		}
	}
	if o.Refused {
		x.trail.cause = &limitError{l.info}
		return x.overLimit(l.refusal, fields, nil)
	}
	if o.Limited && rule.NotEnforced != nil {
		x.addToRequest(rule.NotEnforced)
	}
	x.added.Add = append(x.added.Add, fields...)
	return NoError
}

// limitGlobally asks who decides on a global limit. Whatever becomes of that, it
// takes no longer than the limit's time-out.
func (x *exchange) limitGlobally(l *limiter) Kind {
	g := l.global
	rule := g.rule
	if rule.Requests != mesh.AllRequestOrigins && (rule.Requests == mesh.ExternalRequests) != (x.conn.kind == gateway) {
		return NoError
	}
	if !ratelimit.Hit(rule.Enabled) {
		return NoError
	}
	d := descriptorLists.Get().(*ratelimit.Descriptors)
	defer descriptorLists.Put(d)
	x.countBy(d, l)
	if d.Len() == 0 {
		return NoError
	}
	if g.asker == nil {
		x.conn.proxy.tellLimitFailure(g.nobody)
		return x.limitUnknown(g, g.nobody)
	}
	v, err := g.asker.Ask(rule.Timeout, g.domain, d)
	x.clock = now()
	if err != nil {
		x.conn.proxy.tellLimitFailure(err)
		return x.limitUnknown(g, err)
	}
	var fields []mesh.NameValue
	if rule.Headers {
		fields = v.Fields()
	}
	fields = append(fields, v.Response...)
	if v.Over {
		g.counts.Limited.Add(1)
		if ratelimit.Hit(rule.Enforced) {
			g.counts.Enforced.Add(1)
			x.trail.cause = &limitError{l.info}
			return x.overLimit(l.refusal, fields, v.Body)
		}
	} else {
		g.counts.Allowed.Add(1)
	}
	if len(v.Request) > 0 {
		x.addToRequest(v.Request)
	}
	x.added.Add = append(x.added.Add, fields...)
	return NoError
}

// addToRequest adds what a limit tells the upstream. What the client says as if it were a proxy
// goes before, and so does what its Connection field names, which would be ours.
func (x *exchange) addToRequest(fields []mesh.NameValue) {
	x.sanitize()
	if x.req.Hop {
		x.req.StripListed()
	}
	x.req.Fields = change(x.req.Fields, &mesh.HeaderOps{Add: fields})
}

// limitUnknown does what a limit says of requests of which nobody can tell.
func (x *exchange) limitUnknown(g *globalLimit, why error) Kind {
	g.counts.Failed.Add(1)
	if !ratelimit.Hit(g.rule.FailureDeny) {
		return NoError
	}
	x.trail.cause = why
	x.limited = &limitReply{kind: LimitUnknown, status: g.rule.StatusOnError, grpc: grpcUnavailable}
	return LimitUnknown
}

// overLimit refuses the request, with more fields and perhaps another body.
func (x *exchange) overLimit(r *limitReply, fields []mesh.NameValue, body []byte) Kind {
	if len(fields) > 0 || body != nil {
		more := *r
		more.fields = slices.Concat(r.fields, flatten(fields))
		if body != nil {
			more.body = body
		}
		r = &more
	}
	x.limited = r
	return r.kind
}

// refuseLimited answers in the place of the upstream.
func (x *exchange) refuseLimited(r *limitReply) {
	if x.dialect != notGRPC {
		x.sendGRPC(mesh.GRPCCode(r.grpc), []byte(r.kind.String()), r.fields...)
		return
	}
	x.local(r.status, r.body, r.fields...)
}

// connLimits are the buckets of one connection. The zero value has none.
type connLimits struct {
	mu      sync.Mutex                               // guards buckets
	buckets map[*ratelimit.Counts]*ratelimit.Buckets // by what a limit keeps from snapshot to snapshot
}

func (c *connLimits) of(l *ratelimit.Local) *ratelimit.Buckets {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buckets[l.Counts]
	if b == nil {
		if c.buckets == nil {
			c.buckets = map[*ratelimit.Counts]*ratelimit.Buckets{}
		}
		b = l.NewBuckets()
		c.buckets[l.Counts] = b
	}
	return b
}

// tellLimitFailure says in the log, now and then, that nobody can tell whether
// requests are too many.
func (p *Proxy) tellLimitFailure(err error) {
	if p.refusals[byLimitService].Allow() {
		p.log.Warn("no answer whether requests are too many", "error", err)
	}
}

// draw picks a destination of the route by weight, once for the request.
func (x *exchange) draw() int {
	if x.drawn == 0 {
		x.drawn = x.route.draw() + 1
	}
	return x.drawn - 1
}
