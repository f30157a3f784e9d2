package proxy

import (
	"cmp"
	"strconv"

	"isthmus/mesh"
	"isthmus/ratelimit"
)

// What a limit counts requests by: descriptors, lists of keys and values that actions make of a
// request.

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

// maxHits bounds what a request says it counts as (Envoy: RateLimit.HitsAddend).
const maxHits = 1_000_000_000

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
	return x.judgedValue(name)
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
