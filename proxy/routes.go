package proxy

import (
	"cmp"
	"slices"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// boundServices are the VirtualServices that hold on one gateway, or on the
// mesh, by their hosts.
type boundServices struct {
	byHost map[string][]*mesh.VirtualService // in order of their source; on the mesh by the hosts' full form
	hosts  []string                          // in the order they were met

	wildcards []string // those of hosts that begin with "*"
}

// isHTTP reports whether a VirtualService says anything of HTTP: one that does
// not takes no host from another that does.
func isHTTP(vs *mesh.VirtualService) bool { return len(vs.HTTP) > 0 || len(vs.TLS)+len(vs.TCP) == 0 }

// boundTo collects the VirtualServices of a kind that are bound to a gateway, as
// far as the node may use them.
func (c *compiler) boundTo(gateway string, ofKind func(*mesh.VirtualService) bool) *boundServices {
	b := &boundServices{byHost: map[string][]*mesh.VirtualService{}}
	for _, vs := range c.snapshot.Config.VirtualServices {
		if !ofKind(vs) {
			continue
		}
		if gateway == mesh.MeshGateway && !mesh.VisibleTo(vs.ExportTo, vs.Namespace, c.node.Namespace) {
			continue
		}
		if !bindsTo(vs, gateway) {
			continue
		}
		for _, h := range vs.Hosts {
			if gateway == mesh.MeshGateway {
				h = c.fullName(h)
			}
			if slices.Contains(b.byHost[h], vs) {
				continue // by another form of the name
			}
			if b.byHost[h] == nil {
				b.hosts = append(b.hosts, h)
				if strings.HasPrefix(h, "*") {
					b.wildcards = append(b.wildcards, h)
				}
			}
			b.byHost[h] = append(b.byHost[h], vs)
		}
	}
	for _, list := range b.byHost {
		slices.SortStableFunc(list, func(x, y *mesh.VirtualService) int {
			return cmp.Or(cmp.Compare(x.Source.File, y.Source.File), cmp.Compare(x.Source.Line, y.Source.Line))
		})
	}
	return b
}

// bindsTo reports whether a VirtualService names a gateway, for all of its
// rules or in one of their matches.
func bindsTo(vs *mesh.VirtualService, gateway string) bool {
	if slices.Contains(vs.Gateways, gateway) {
		return true
	}
	for _, r := range vs.HTTP {
		for _, m := range r.Match {
			if slices.Contains(m.Gateways, gateway) {
				return true
			}
		}
	}
	return false
}

// fullName returns the full form of a service's name, any other host as it is.
func (c *compiler) fullName(host string) string {
	if v, ok := c.reg.View(host); ok {
		return v.Host
	}
	return host
}

// find returns the VirtualServices for a host by its full name, or one by another
// name: those that name it, else those of the longest wildcard that one of the names
// lies under.
func (b *boundServices) find(full, name string) []*mesh.VirtualService {
	if list := b.byHost[full]; list != nil {
		return list
	}
	best := ""
	for _, h := range b.wildcards {
		if len(h) > len(best) && (mesh.MatchHost(h, full) || mesh.MatchHost(h, name)) {
			best = h
		}
	}
	return b.byHost[best]
}

// of returns the VirtualServices for a name of a view. Those of a service are for each of
// its Pods (Istio: generateVirtualHostDomains, of headless services), but where others
// name that Pod, or all of them by a wildcard.
func (b *boundServices) of(v *mesh.View, name string) []*mesh.VirtualService {
	if v.Pod == "" {
		return b.find(v.Host, name)
	}
	for _, h := range []string{v.Host, "*." + v.ServiceHost()} {
		if list := b.byHost[h]; list != nil {
			return list
		}
	}
	return b.find(v.ServiceHost(), strings.TrimPrefix(name, v.Pod+"."))
}

// forPod returns where a destination of weight leads whoever has asked for one Pod: to that
// one, if it is the service's; a standby in another cluster is the Pod of that name there.
func (c *compiler) forPod(d mesh.Destination, weight uint32) mesh.Destination {
	if c.view == nil || c.view.Pod == "" {
		return d
	}
	if v, ok := c.reg.View(d.Host); ok && v.Service == c.view.Service && v.Pod == "" {
		if d.Host = c.view.Host; weight == 0 {
			d.Host = c.view.Pod + "." + v.Host
		}
	}
	return d
}

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

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// catchAll returns the place of the match by which a route takes every request; -1: it
// does not.
func (r *route) catchAll() int {
	if len(r.matches) == 0 {
		return 0
	}
	return slices.IndexFunc(r.matches, func(m requestMatch) bool { return m.catchAll() })
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

// nameBy is what a rule is called where one of its matches has a name, too: both of them
// (Istio: translateRoute, which leaves the dot where the rule has none).
func nameBy(rule *mesh.HTTPRoute, m *mesh.HTTPMatch) string {
	if rule.Name == "" || m.Name == "" {
		return m.Name
	}
	return rule.Name + "." + m.Name
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

// delegateOf returns the VirtualService that a rule delegates to; nil: it does not, or
// that one is not there.
func (c *compiler) delegateOf(vs *mesh.VirtualService, rule *mesh.HTTPRoute) *mesh.VirtualService {
	if rule.Delegate == nil {
		return nil
	}
	for _, d := range c.snapshot.Config.VirtualServices {
		if d.Namespace == rule.Delegate.Namespace && d.Name == rule.Delegate.Name && mesh.VisibleTo(d.ExportTo, d.Namespace, vs.Namespace) {
			return d
		}
	}
	return nil
}

// compileDelegate puts the rules of a delegate in the place of the rule that
// names it: both conditions must hold, and what the delegate does not say, the
// rule says (Istio: mergeHTTPRoute). What cannot be put together has no effect, as in
// Istio; config says so.
func (c *compiler) compileDelegate(vs *mesh.VirtualService, rule *mesh.HTTPRoute, gateway string, port uint32) []*route {
	d := c.delegateOf(vs, rule)
	if d == nil {
		return nil
	}
	var out []*route
	for i, inner := range d.HTTP {
		merged := *inner
		var ok bool
		if merged.Match, ok = mesh.DelegatedMatches(rule.Match, inner.Match); !ok {
			continue
		}
		if merged.Name = cmp.Or(inner.Name, rule.Name); inner.Name != "" && rule.Name != "" {
			merged.Name = rule.Name + "-" + inner.Name
		}
		merged.Rewrite = cmp.Or(inner.Rewrite, rule.Rewrite)
		if !inner.Timed {
			merged.Timeout, merged.Timed = rule.Timeout, rule.Timed
		}
		merged.Retries = cmp.Or(inner.Retries, rule.Retries)
		if inner.Headers.Empty() {
			merged.Headers = rule.Headers
		}
		merged.Fault = cmp.Or(inner.Fault, rule.Fault)
		merged.CORS = cmp.Or(inner.CORS, rule.CORS)
		if len(merged.Mirrors) == 0 {
			merged.Mirrors = rule.Mirrors
		}
		if r := c.compileRoute(vs, &merged, gateway, port); r != nil {
			r.nth[1] = int32(i) + 1
			out = append(out, r)
		}
	}
	return out
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

// compileDestinations returns what of a route's destinations may get traffic,
// and the sum of their weights.
func (c *compiler) compileDestinations(vs *mesh.VirtualService, list []mesh.RouteDestination, target func(mesh.Destination) *target) (out []destination, total uint32) {
	for i := range list {
		d := &list[i]
		weight := d.Weight
		if len(list) == 1 {
			weight = 1 // Istio: the weight of a single destination is ignored
		}
		out = append(out, destination{
			target:  target(c.forPod(d.Destination, weight)),
			weight:  weight,
			headers: newHeaderRules(&d.Headers),
			rule:    d.Destination,
		})
		total += weight
	}
	// A weight of 0 on the same service in another cluster is a standby; other
	// zeros mean "off", unless the annotation decides.
	all := slices.Clone(out)
	kept := out[:0]
	for _, d := range all {
		if d.weight == 0 {
			d.standby = isStandby(vs, d, all)
			if !d.standby {
				continue
			}
		}
		kept = append(kept, d)
	}
	return kept, total
}

func isStandby(vs *mesh.VirtualService, d destination, all []destination) bool {
	if vs.Standby != nil {
		return *vs.Standby
	}
	service, _, ok := mesh.ServiceOf(d.rule.Host)
	if !ok {
		return false
	}
	return slices.ContainsFunc(all, func(o destination) bool {
		other, _, ok := mesh.ServiceOf(o.rule.Host)
		return ok && o.weight > 0 && other == service && o.rule.Host != d.rule.Host
	})
}
