package proxy

import (
	"cmp"
	"fmt"
	"slices"

	"isthmus/mesh"
)

// Where limits hold: which filters are this proxy's, in which order, and which virtual hosts and
// routes their patches mean.

// limitFilters returns the rate limits that a proxy has, in their order.
func limitFilters(s *mesh.Snapshot) (out []*mesh.RateLimitFilter) {
	for _, f := range s.Config.RateLimitFilters {
		if f.AppliesTo(s.Node) {
			out = append(out, f)
		}
	}
	byPlace(out, s.Node, func(f *mesh.RateLimitFilter) (*mesh.FilterScope, int32) { return &f.FilterScope, f.Priority })
	slices.SortStableFunc(out, func(a, b *mesh.RateLimitFilter) int { return cmp.Compare(boolInt(b.First), boolInt(a.First)) })
	return out
}

// byPlace sorts patches as Istio does: those of the root namespace first, then
// by priority and, in the place of the time of creation, by file and line.
func byPlace[T any](list []T, n *mesh.Node, of func(T) (*mesh.FilterScope, int32)) {
	slices.SortStableFunc(list, func(x, y T) int {
		a, priorityA := of(x)
		b, priorityB := of(y)
		return cmp.Or(
			cmp.Compare(boolInt(a.Namespace != n.RootNamespace), boolInt(b.Namespace != n.RootNamespace)),
			cmp.Compare(priorityA, priorityB),
			cmp.Compare(a.Source.File, b.Source.File), cmp.Compare(a.Source.Line, b.Source.Line))
	})
}

// eachVirtualHost calls fn for every virtual host of the table, once.
func (t *table) eachVirtualHost(fn func(kind listenerKind, vh *virtualHost)) {
	seen := map[*virtualHost]bool{}
	all := func(kind listenerKind, hosts *hostTable) {
		if hosts == nil {
			return
		}
		entries := func(e *hostEntry) {
			if e == nil {
				return
			}
			for _, vh := range append(e.all(), e.fallback) {
				if vh != nil && !seen[vh] {
					seen[vh] = true
					fn(kind, vh)
				}
			}
		}
		for _, e := range hosts.exact {
			entries(e)
		}
		for _, e := range hosts.wildcards {
			entries(e)
		}
		entries(hosts.any)
	}
	all(outbound, t.outbound)
	all(inbound, t.inbound.hosts)
	all(inbound, t.inbound.through)
	for _, s := range t.inbound.sealed {
		fn(inbound, s.secure)
		fn(inbound, s.plain)
	}
	for _, g := range t.gateways {
		all(gateway, g.hosts)
		if g.sni == nil {
			continue
		}
		terminated := func(list []*tcpRoute) {
			for _, r := range list {
				if r.terminate != nil {
					all(gateway, r.terminate.hosts)
				}
			}
		}
		for _, list := range g.sni.exact {
			terminated(list)
		}
		for _, list := range g.sni.wildcards {
			terminated(list)
		}
		terminated(g.sni.any)
	}
}

// holds reports whether a patch speaks of a kind of listener.
func holds(s *mesh.FilterScope, kind listenerKind) bool {
	return [...]bool{outbound: s.Outbound, inbound: s.Inbound, gateway: s.Gateway}[kind]
}

// atPort reports whether a patch speaks of a virtual host's port, which for the
// inbound listener is the service's or the application's.
func atPort(port uint32, vh *virtualHost) bool {
	return port == 0 || port == vh.port || vh.workloadPort != 0 && port == vh.workloadPort
}

// matchesHost reports whether a patch is for a virtual host, by the names that
// Istio gives it.
func (l *limitCompiler) matchesHost(p *mesh.RoutePatch, kind listenerKind, vh *virtualHost) bool {
	if !atPort(p.Port, vh) {
		return false
	}
	if p.Domain != "" && p.Domain != vh.name {
		return false
	}
	named := func(want string, names ...string) bool { return want == "" || slices.Contains(names, want) }
	port, target := fmt.Sprint(vh.port), fmt.Sprint(vh.workloadPort)
	switch kind {
	case inbound:
		return named(p.VirtualHost, "inbound|http|"+port, "inbound|http|"+target, vh.name) && named(p.RouteConfig, "inbound|"+port+"||", "inbound|"+target+"||")
	case outbound:
		return named(p.VirtualHost, vh.name+":"+port, vh.name) && named(p.RouteConfig, port)
	}
	if !named(p.VirtualHost, vh.name+":"+port, vh.name) {
		return false
	}
	https := "https." + port
	if !named(p.RouteConfig, "http."+port, https) && (len(p.RouteConfig) <= len(https) || p.RouteConfig[:len(https)+1] != https+".") {
		return false
	}
	return p.GatewayName == "" || slices.ContainsFunc(ownGateways(l.node, l.snapshot.Config), func(g *mesh.Gateway) bool {
		return (p.GatewayName == g.Namespace+"/"+g.Name || p.GatewayName == g.Name) &&
			slices.ContainsFunc(g.Servers, func(s mesh.GatewayServer) bool { return s.Port.Number == vh.port && s.Serves(vh.name) })
	})
}

func matchesRoute(p *mesh.RoutePatch, r *route) bool {
	if p.Route != "" && p.Route != r.rule.Name && p.Route != r.name {
		return false
	}
	switch p.Action {
	case mesh.ForwardingRoute:
		return r.redirect == nil && r.direct == nil
	case mesh.RedirectRoute:
		return r.redirect != nil
	case mesh.DirectRoute:
		return r.direct != nil
	}
	return true
}
