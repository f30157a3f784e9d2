package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isthmus/balancer"
	"isthmus/mesh"
)

// HostState is what the proxy itself has found out of an endpoint.
type HostState struct {
	Upstream string
	Key      mesh.EndpointKey
	Address  netip.AddrPort
	Healthy  bool
	Reason   string // unless Healthy
	Active   int    // requests under way
}

// HostStates returns the hosts of all upstreams in use, sorted.
func (p *Proxy) HostStates() []HostState {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []HostState
	for _, u := range p.upstreams {
		for _, m := range u.members {
			state, reason := m.host.State()
			e := m.host.Endpoint()
			out = append(out, HostState{
				Upstream: u.key.String(), Key: e.Key(), Address: m.address,
				Healthy: state == balancer.Usable, Reason: reason, Active: int(m.host.Active()),
			})
		}
	}
	slices.SortFunc(out, func(a, b HostState) int {
		return cmp.Or(cmp.Compare(a.Upstream, b.Upstream), a.Address.Compare(b.Address))
	})
	return out
}

// RouteInfo is one route of the table, for people to read.
type RouteInfo struct {
	Listener     string            `json:"listener"`
	Host         string            `json:"host"`
	Name         string            `json:"name"`
	Match        string            `json:"match"`
	Destinations []DestinationInfo `json:"destinations"`
	Source       string            `json:"source"` // file:line; "" for the route that every service has
}

// DestinationInfo is where a route sends to.
type DestinationInfo struct {
	Host      string  `json:"host"`
	Subset    string  `json:"subset,omitempty"`
	Port      uint32  `json:"port"`
	Percent   float64 `json:"percent"`
	Standby   bool    `json:"standby,omitempty"`
	Known     bool    `json:"known"` // false: requests get 503 NC
	Endpoints int     `json:"endpoints"`
	Usable    int     `json:"usable"`
}

// Routes returns the routes of all listeners, in the order of listener, host
// and rule.
func (p *Proxy) Routes() []RouteInfo {
	t := p.table.Load()
	var out []RouteInfo
	if t == nil {
		return nil
	}
	seen := targetInfos{}
	add := func(listener string, hosts *hostTable) {
		entries := map[string]*hostEntry{}
		for name, e := range hosts.exact {
			entries[name] = e
		}
		for suffix, e := range hosts.wildcards {
			entries["*"+suffix] = e
		}
		if hosts.any != nil {
			entries["*"] = hosts.any
		}
		for name, e := range entries {
			for _, vh := range e.all() {
				if e.isAlias(name) {
					continue
				}
				for _, r := range vh.routes {
					out = append(out, routeInfo(listener, name, r, t.caller, seen))
				}
			}
		}
	}
	add("outbound", t.outbound)
	add("inbound", t.inbound.hosts)
	terminated := map[*tlsServer]bool{}
	relayed := func(listener, host string, list []*tcpRoute) {
		for _, r := range list {
			if s := r.terminate; s != nil {
				if !terminated[s] {
					terminated[s] = true
					add(listener, s.hosts)
				}
				continue
			}
			info := routeInfo(listener, host, r.route, t.caller, seen)
			info.Match = r.describe(host)
			out = append(out, info)
		}
	}
	named := func(listener string, names *sniTable) {
		if names == nil {
			return
		}
		for name, list := range names.exact {
			relayed(listener, name, list)
		}
		for suffix, list := range names.wildcards {
			relayed(listener, "*"+suffix, list)
		}
		relayed(listener, "*", names.any)
	}
	named("outbound", t.sni)
	for port, g := range t.gateways {
		if g.hosts != nil {
			add(gatewayName(port), g.hosts)
		}
		named(gatewayName(port), g.sni)
		relayed(gatewayName(port), "", g.tcp)
	}
	slices.SortStableFunc(out, func(a, b RouteInfo) int {
		return cmp.Or(cmp.Compare(a.Listener, b.Listener), cmp.Compare(a.Host, b.Host))
	})
	return out
}

// all returns the virtual hosts of an entry, one for each port, and that for all others.
func (e *hostEntry) all() []*virtualHost {
	out := make([]*virtualHost, len(e.ports), len(e.ports)+2)
	for i := range e.ports {
		out[i] = e.ports[i].host
	}
	if e.other != nil && e.other != e.fallback {
		out = append(out, e.other)
	}
	if e.fallback != nil && !slices.Contains(out, e.fallback) {
		out = append(out, e.fallback)
	}
	return out
}

// isAlias reports whether the name only leads to the virtual hosts of another,
// full one, which is listed by itself.
func (e *hostEntry) isAlias(name string) bool {
	hosts := e.all()
	return len(hosts) > 0 && hosts[0].name != name
}

// targetInfos are what is known of targets: thousands of routes may lead to one service.
type targetInfos map[*target]targetInfo

type targetInfo struct {
	known             bool
	endpoints, usable int
}

// of looks at a target once.
func (seen targetInfos) of(t *target, caller balancer.Caller) targetInfo {
	info, ok := seen[t]
	if ok {
		return info
	}
	if u := t.upstream.Load(); u != nil {
		info = targetInfo{u.known, len(u.members), u.set.Usable()}
	} else { // to look is not to use: thousands would be kept, and have series, that nobody calls
		said := t.resolve()
		info = targetInfo{said.known, len(said.endpoints), said.usable(caller)}
	}
	seen[t] = info
	return info
}

func routeInfo(listener, host string, r *route, caller balancer.Caller, seen targetInfos) RouteInfo {
	info := RouteInfo{Listener: listener, Host: host, Name: r.name, Match: describeMatches(r.matches), Source: r.rule.Source.String(), Destinations: []DestinationInfo{}}
	for i := range r.destinations {
		d := &r.destinations[i]
		found := seen.of(d.target, caller)
		di := DestinationInfo{Host: d.rule.Host, Subset: d.rule.Subset, Port: d.target.key.port, Standby: d.standby, Known: found.known, Endpoints: found.endpoints, Usable: found.usable}
		if r.totalWeight > 0 {
			di.Percent = 100 * float64(d.weight) / float64(r.totalWeight)
		}
		info.Destinations = append(info.Destinations, di)
	}
	switch {
	case r.redirect != nil:
		info.Name += fmt.Sprintf(" (redirect %d)", r.redirect.Code)
	case r.direct != nil:
		info.Name += fmt.Sprintf(" (answer %d)", r.direct.Status)
	}
	return info
}

// usable is how many of the endpoints may get traffic, as far as the configuration says.
func (r *resolved) usable(caller balancer.Caller) int {
	hosts := make([]*balancer.Host, len(r.endpoints))
	for i, e := range r.endpoints {
		hosts[i] = balancer.NewHost(e, nil)
	}
	lb := r.policy.LoadBalancer
	if lb != nil && lb.Hash != nil { // whose tables cost more than all the rest, and make nobody more usable
		plain := *lb
		plain.Kind, plain.Hash = mesh.LeastRequest, nil
		lb = &plain
	}
	return balancer.NewSet(hosts, lb, r.policy.OutlierDetection, caller).Usable()
}

// describe writes the conditions of a route on connections: "sni a.test", or
// "tcp", and subnets. name is the server name it is entered under; "" of TCP.
func (r *tcpRoute) describe(name string) string {
	kind := "tcp"
	if name != "" {
		kind = "sni " + name
	}
	if len(r.matches) == 0 {
		return kind
	}
	var alternatives []string
	for _, m := range r.matches {
		parts := []string{kind}
		if len(m.destinations) > 0 {
			parts = append(parts, fmt.Sprintf("to %v", m.destinations))
		}
		if m.source.IsValid() {
			parts = append(parts, fmt.Sprintf("from %v", m.source))
		}
		alternatives = append(alternatives, strings.Join(parts, ", "))
	}
	return strings.Join(alternatives, " or ")
}

// describeMatches writes conditions as "uri prefix /api, header x: exact y".
func describeMatches(list []requestMatch) string {
	if len(list) == 0 {
		return "any"
	}
	var alternatives []string
	for i := range list {
		m := &list[i]
		var parts []string
		one := func(what string, s *mesh.StringMatch) {
			if s != nil {
				parts = append(parts, what+" "+describeString(s))
			}
		}
		one("uri", m.uri)
		one("scheme", m.scheme)
		one("method", m.method)
		one("authority", m.authority)
		for _, group := range []struct {
			what string
			list []mesh.NamedMatch
		}{{"header", m.headers}, {"without header", m.withoutHeaders}, {"query", m.queryParams}} {
			for j := range group.list {
				parts = append(parts, group.what+" "+group.list[j].Name+" "+describeString(&group.list[j].StringMatch))
			}
		}
		if len(parts) == 0 {
			parts = []string{"any"}
		}
		alternatives = append(alternatives, strings.Join(parts, ", "))
	}
	return strings.Join(alternatives, " or ")
}

func describeString(m *mesh.StringMatch) string {
	switch m.Kind {
	case mesh.MatchExact:
		return "= " + m.Value
	case mesh.MatchPrefix:
		return m.Value + "*"
	case mesh.MatchRegex:
		return "~ " + m.Value
	}
	return "present"
}
