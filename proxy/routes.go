package proxy

import (
	"cmp"
	"slices"

	"isthmus/http1"
	"isthmus/mesh"
)

// route is a compiled mesh.HTTPRoute: conditions and what to do.
type route struct {
	rule    *mesh.HTTPRoute
	of      *mesh.VirtualService // nil: none says it
	nth     [2]int32             // which of its rules, and of the delegate's, if there is one, from 1
	name    string               // for logs: the route's name or its place in the file
	matches []requestMatch
	limits  *limitChain // nil: the virtual host's
	action
}

// fits reports whether any of the route's matches does, and which path prefix
// it matched, for a rewrite.
func (r *route) fits(x *exchange) bool {
	if len(r.matches) == 0 {
		x.matched = nil
		return true
	}
	for i := range r.matches {
		if r.matches[i].match(x) {
			x.matched = &r.matches[i]
			return true
		}
	}
	return false
}

// action is what a route does: redirect, answer, or send to destinations.
type action struct {
	redirect *mesh.Redirect
	direct   *mesh.DirectResponse

	destinations []destination
	totalWeight  uint32 // of those that are no standby
	rewrite      *mesh.Rewrite
	timeout      instant // duration in nanoseconds; 0: none
	retries      *mesh.Retries
	headers      *headerRules // nil: none
	fault        *mesh.Fault  // nil: none
	cors         *mesh.CORS   // nil: none
	mirrors      []mirror
}

// destination is one place that a route sends to.
type destination struct {
	target  *target
	weight  uint32
	standby bool // weight 0, but serves when no other destination can
	headers *headerRules
	rule    mesh.Destination
}

// noRule is what routes stand for that no file says.
var noRule = &mesh.HTTPRoute{}

// compileRoutes puts the rules of several VirtualServices for one host into
// one list, in order of their source.
func (c *compiler) compileRoutes(services []*mesh.VirtualService, gateway string, port uint32) []*route {
	var lists [][]*route
	for _, vs := range services {
		var routes []*route
		for i, rule := range vs.HTTP {
			begin := len(routes)
			if rule.Delegate != nil {
				routes = append(routes, c.compileDelegate(vs, rule, gateway, port)...)
			} else if r := c.compileRoute(vs, rule, gateway, port); r != nil {
				routes = append(routes, r)
			}
			for _, r := range routes[begin:] {
				r.nth[0] = int32(i) + 1
			}
		}
		lists = append(lists, routes)
	}
	return together(lists)
}

// compileRoute returns nil if the rule cannot hold on this proxy, gateway and
// port.
func (c *compiler) compileRoute(vs *mesh.VirtualService, rule *mesh.HTTPRoute, gateway string, port uint32) *route {
	r := &route{rule: rule, of: vs, name: cmp.Or(rule.Name, rule.Source.String())}
	for _, m := range rule.Match {
		if !c.holdsHere(vs, &m.ProxyMatch, gateway, port) {
			continue
		}
		r.matches = append(r.matches, requestMatch{
			uri: m.URI, scheme: m.Scheme, method: m.Method, authority: m.Authority,
			foldURI: m.IgnoreURICase,
			headers: m.Headers, withoutHeaders: m.WithoutHeaders, queryParams: m.QueryParams,
			route: nameBy(rule, m),
		})
		if slices.ContainsFunc(slices.Concat(m.Headers, m.WithoutHeaders), aboutOrigin) {
			c.tells[kindOf(gateway)] = true
		}
	}
	switch {
	case len(rule.Match) > 0 && len(r.matches) == 0:
		return nil
	case len(rule.Match) == 0 && !slices.Contains(vs.Gateways, gateway):
		return nil
	}
	r.action = c.compileAction(vs, rule, port)
	r.mirrors = c.compileMirrors(r, rule, port)
	return r
}

// holdsHere decides the conditions of a match that are on the proxy.
func (c *compiler) holdsHere(vs *mesh.VirtualService, m *mesh.ProxyMatch, gateway string, port uint32) bool {
	if m.Port != 0 && m.Port != port {
		return false
	}
	if len(m.Gateways) > 0 {
		// Istio: if a match names gateways, source labels are not looked at.
		return slices.Contains(m.Gateways, gateway)
	}
	if !slices.Contains(vs.Gateways, gateway) {
		return false
	}
	if m.SourceNamespace != "" && m.SourceNamespace != c.node.Namespace {
		return false
	}
	return mesh.MatchLabels(m.SourceLabels, c.node.Labels)
}

// nameBy is what a rule is called where one of its matches has a name, too: both of them
// (Istio: translateRoute, which leaves the dot where the rule has none).
func nameBy(rule *mesh.HTTPRoute, m *mesh.HTTPMatch) string {
	if rule.Name == "" || m.Name == "" {
		return m.Name
	}
	return rule.Name + "." + m.Name
}

// kindOf is the kind of the listeners on which a gateway's routes hold, by its name.
func kindOf(name string) listenerKind {
	if name == mesh.MeshGateway {
		return outbound
	}
	return gateway
}

// aboutOrigin reports whether a match is on a header that tellOrigin writes or takes off.
func aboutOrigin(m mesh.NamedMatch) bool {
	f := newField(mesh.NameValue{Name: m.Name})
	switch f.ID {
	case http1.XForwardedProto, http1.XRequestID, http1.XForwardedClientCert:
		return true
	}
	return doubtful(&f, true)
}

func (c *compiler) compileAction(vs *mesh.VirtualService, rule *mesh.HTTPRoute, port uint32) action {
	a := action{
		redirect: rule.Redirect,
		direct:   rule.DirectResponse,
		rewrite:  rule.Rewrite,
		timeout:  instant(rule.Timeout),
		retries:  cmp.Or(rule.Retries, c.defaultRetries()),
		headers:  newHeaderRules(&rule.Headers),
		cors:     rule.CORS,
	}
	if !rule.Fault.Empty() {
		a.fault = rule.Fault
	}
	a.destinations, a.totalWeight = c.compileDestinations(vs, rule.Route, func(d mesh.Destination) *target { return c.target(d, port) })
	return a
}

// defaultRetries are those of routes that name none.
func (c *compiler) defaultRetries() *mesh.Retries {
	return cmp.Or(c.snapshot.Config.Retries, mesh.DefaultRetries)
}

// together puts the routes of several VirtualServices one behind another, and what has no
// condition last, as Istio does at gateways (SortVHostRoutes). What stands behind such a
// route in its own VirtualService is never reached, here neither.
func together(lists [][]*route) []*route {
	if len(lists) == 1 {
		return lists[0]
	}
	var routes, last []*route
	for _, list := range lists {
		for _, r := range list {
			i := r.catchAll()
			if i < 0 {
				routes = append(routes, r)
				continue
			}
			all := *r
			if i > 0 { // the alternatives before it stay where they are
				some := *r
				some.matches, all.matches = r.matches[:i], r.matches[i:i+1]
				routes = append(routes, &some)
			}
			last = append(last, &all)
			break
		}
	}
	return append(routes, last...)
}

// catchAll returns the place of the match by which a route takes every request; -1: it
// does not.
func (r *route) catchAll() int {
	if len(r.matches) == 0 {
		return 0
	}
	return slices.IndexFunc(r.matches, func(m requestMatch) bool { return m.catchAll() })
}

// matchedPorts returns the ports that matches of VirtualServices ask for, sorted.
func (c *compiler) matchedPorts(services []*mesh.VirtualService) (ports []uint32) {
	for _, vs := range services {
		for _, rule := range vs.HTTP {
			rules := []*mesh.HTTPRoute{rule}
			if d := c.delegateOf(vs, rule); d != nil {
				rules = append(rules, d.HTTP...)
			}
			for _, r := range rules {
				for _, m := range r.Match {
					if m.Port != 0 {
						ports = append(ports, m.Port)
					}
				}
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
