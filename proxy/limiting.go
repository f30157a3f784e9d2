package proxy

import (
	"cmp"
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
		x.sanitize()
		x.req.Fields = change(x.req.Fields, &mesh.HeaderOps{Add: rule.NotEnforced})
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
		x.sanitize()
		x.req.Fields = change(x.req.Fields, &mesh.HeaderOps{Add: v.Request})
	}
	x.added.Add = append(x.added.Add, fields...)
	return NoError
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

// countByDefault makes the descriptors of a filter that nothing says of what
// requests are counted by.
func (x *exchange) countByDefault(d *ratelimit.Descriptors) {
	d.Reset()
	d.Add("generic_key", defaultValue)
	d.End(1)
	if name := x.destinationCluster(d); len(name) > 0 {
		d.Add("destination_cluster", name)
		d.End(1)
	}
}

var defaultValue = []byte("default")

// countBy makes the descriptors that a limit counts the request by.
func (x *exchange) countBy(d *ratelimit.Descriptors, l *limiter) {
	if l.global != nil && l.global.byDefault {
		x.countByDefault(d)
		return
	}
	d.Reset()
	for _, a := range l.actions {
		if x.describeOne(d, a) {
			d.End(x.hitsOf(a))
		} else {
			d.Drop()
		}
	}
}

// describeOne reports whether an action makes a descriptor.
func (x *exchange) describeOne(d *ratelimit.Descriptors, a *mesh.RateLimitAction) bool {
	made := false
	for i := range a.Parts {
		p := &a.Parts[i]
		value, ok := x.partOf(d, p)
		switch {
		case ok:
			d.Add(p.Key, value)
			made = true
		case p.Default != "":
			d.Add(p.Key, inRoom(d, p.Default))
			made = true
		case !p.SkipIfAbsent:
			return false
		}
	}
	return made
}

// maxHits bounds what a request says it counts as.
const maxHits = 1_000_000

func (x *exchange) hitsOf(a *mesh.RateLimitAction) int {
	if a.HitsHeader != "" {
		if v, ok := headerValue(&x.req, a.HitsHeader); ok {
			if n, err := strconv.ParseUint(string(v), 10, 32); err == nil {
				return int(min(n, maxHits))
			}
		}
	}
	return int(a.Hits)
}

// inRoom makes a value of texts.
func inRoom(d *ratelimit.Descriptors, texts ...string) []byte {
	begin := len(d.Room)
	for _, t := range texts {
		d.Room = append(d.Room, t...)
	}
	return d.Room[begin:]
}

// partOf returns the value that a part of a descriptor has for the request.
func (x *exchange) partOf(d *ratelimit.Descriptors, p *mesh.DescriptorPart) (value []byte, ok bool) {
	switch p.Kind {
	case mesh.PartSourceCluster:
		return x.sourceCluster(d), true
	case mesh.PartDestinationCluster:
		name := x.destinationCluster(d)
		return name, len(name) > 0
	case mesh.PartHeader:
		return x.headerOrPseudo(d, p.Name)
	case mesh.PartQueryParameter:
		return queryValue(x.req.Query, p.Name)
	case mesh.PartRemoteAddress, mesh.PartMaskedAddress:
		a := x.remoteAddress()
		if !a.IsValid() {
			return nil, false
		}
		begin := len(d.Room)
		if p.Kind == mesh.PartRemoteAddress {
			d.Room = a.AppendTo(d.Room)
			return d.Room[begin:], true
		}
		bits := int(p.Bits6)
		if a.Is4() {
			bits = int(p.Bits4)
		}
		prefix, err := a.Prefix(bits)
		d.Room = prefix.AppendTo(d.Room)
		return d.Room[begin:], err == nil
	case mesh.PartGeneric:
		return inRoom(d, p.Value), true
	case mesh.PartHeaderMatch:
		return inRoom(d, p.Value), x.meetsAll(d, p.Headers) != p.ExpectNoMatch
	case mesh.PartQueryMatch:
		all := true
		for i := range p.Query {
			v, ok := queryValue(x.req.Query, p.Query[i].Name)
			all = all && ok && matchString(&p.Query[i].StringMatch, v)
		}
		return inRoom(d, p.Value), all != p.ExpectNoMatch
	case mesh.PartClaim:
		return x.claim(p.Path)
	}
	return nil, false
}

// headerOrPseudo returns a header, or what HTTP/2 has as one.
func (x *exchange) headerOrPseudo(d *ratelimit.Descriptors, name string) ([]byte, bool) {
	switch name {
	case ":path":
		if !x.req.HasQuery {
			return x.req.Path, true
		}
		begin := len(d.Room)
		d.Room = append(append(append(d.Room, x.req.Path...), '?'), x.req.Query...)
		return d.Room[begin:], true
	case ":method":
		return x.req.Method, true
	case ":authority":
		return x.req.Authority, true
	case ":scheme":
		return x.scheme(), true
	}
	return headerValue(&x.req, name)
}

func (x *exchange) meetsAll(d *ratelimit.Descriptors, list []mesh.HeaderCondition) bool {
	for i := range list {
		c := &list[i]
		if x.meets(d, c) == c.Invert {
			return false
		}
	}
	return true
}

func (x *exchange) meets(d *ratelimit.Descriptors, c *mesh.HeaderCondition) bool {
	value, ok := x.headerOrPseudo(d, c.Name)
	switch {
	case c.Absent:
		return !ok
	case c.Range != nil:
		n, err := strconv.ParseInt(string(value), 10, 64)
		return ok && err == nil && c.Range[0] <= n && n < c.Range[1]
	case !ok && (!c.AbsentIsEmpty || c.Kind == mesh.MatchPresent):
		return false
	}
	return matchString(&c.StringMatch, value)
}

// claim returns what the request's token says.
func (x *exchange) claim(path []string) ([]byte, bool) {
	if x.subject.Claims == nil || len(path) == 0 {
		return nil, false
	}
	values := x.subject.Claims.Values(path...)
	if len(values) == 0 {
		return nil, false
	}
	return []byte(values[0]), true
}

// sourceCluster is what Istio calls the workload of a proxy: its app and
// namespace (node.cluster of Envoy's bootstrap).
func (x *exchange) sourceCluster(d *ratelimit.Descriptors) []byte {
	n := x.conn.proxy.node
	return inRoom(d, cmp.Or(n.Labels["app"], n.Name), ".", n.Namespace)
}

// destinationCluster is Istio's name of the upstream that the request is for:
// of several it is drawn now, and stays. Empty: the route has none.
func (x *exchange) destinationCluster(d *ratelimit.Descriptors) []byte {
	if len(x.route.destinations) == 0 {
		return nil
	}
	begin := len(d.Room)
	if x.conn.kind == inbound {
		d.Room = append(d.Room, "inbound|"...)
		d.Room = strconv.AppendUint(d.Room, uint64(x.host.destinationPort()), 10)
		d.Room = append(d.Room, "||"...)
		return d.Room[begin:]
	}
	to := &x.route.destinations[x.draw()]
	d.Room = append(d.Room, "outbound|"...)
	d.Room = strconv.AppendUint(d.Room, uint64(cmp.Or(to.rule.Port, to.target.key.port)), 10)
	inRoom(d, "|", to.rule.Subset, "|", to.rule.Host)
	return d.Room[begin:]
}

// draw picks a destination of the route by weight, once for the request.
func (x *exchange) draw() int {
	if x.drawn == 0 {
		x.drawn = x.route.draw() + 1
	}
	return x.drawn - 1
}
