package config

import (
	"fmt"
	"slices"
	"strings"

	"isthmus/mesh"
)

// routesOf are the kinds of routes that a Gateway's server looks at, and why: "http",
// "tls", "tcp" or "".
func routesOf(s *mesh.GatewayServer) (kind, why string) {
	switch {
	case s.Passthrough:
		return "tls", "passes TLS on (PASSTHROUGH)"
	case s.AutoPassthrough:
		return "", "passes mTLS on (AUTO_PASSTHROUGH)"
	case s.Terminate != nil && s.Port.Protocol == mesh.ProtocolTLS:
		return "tcp", "ends TLS, of protocol TLS"
	case s.Terminate != nil:
		return "http", "ends TLS, of protocol HTTPS"
	case s.Port.Protocol == mesh.ProtocolTCP:
		return "tcp", "is of protocol TCP"
	}
	return "http", "is of protocol " + s.Port.Protocol.String()
}

// lintKinds names routes of a VirtualService that no server of a Gateway looks at, though it
// serves the hosts: what Istio's users know as a TLS mismatch between the two.
func (c *checker) lintKinds(v *mesh.VirtualService, d *document) {
	var http, tls, tcp [][]*mesh.ProxyMatch // of each rule
	for _, r := range v.HTTP {
		var list []*mesh.ProxyMatch
		for _, m := range r.Match {
			list = append(list, &m.ProxyMatch)
		}
		http = append(http, list)
	}
	proxyMatches := func(rules []*mesh.TCPRoute) (out [][]*mesh.ProxyMatch) {
		for _, r := range rules {
			var list []*mesh.ProxyMatch
			for i := range r.Match {
				list = append(list, &r.Match[i].ProxyMatch)
			}
			out = append(out, list)
		}
		return out
	}
	tls, tcp = proxyMatches(v.TLS), proxyMatches(v.TCP)
	for _, name := range v.Gateways {
		gw := c.gateways[name]
		if gw == nil || !mesh.VisibleTo(v.ExportTo, v.Namespace, gw.Namespace) {
			continue
		}
		var missing []string // kinds of routes for the Gateway that no server has looked at so far
		for _, k := range []struct {
			kind  string
			rules [][]*mesh.ProxyMatch
		}{{"http", http}, {"tls", tls}, {"tcp", tcp}} {
			if slices.ContainsFunc(k.rules, func(matches []*mesh.ProxyMatch) bool {
				return len(matches) == 0 || slices.ContainsFunc(matches, func(m *mesh.ProxyMatch) bool { return slices.Contains(gatewaysOf(v, m), name) })
			}) {
				missing = append(missing, k.kind)
			}
		}
		if all := c.lookedAt(gw); len(missing) == 0 || len(missing) == 1 && missing[0] == all {
			continue // nothing is to be said, and there may be thousands of servers
		}
		var because []string
		for i := range gw.Servers {
			s := &gw.Servers[i]
			if !slices.ContainsFunc(v.Hosts, func(h string) bool { return serves(s, v, h) }) {
				continue
			}
			kind, why := routesOf(s)
			if missing = slices.DeleteFunc(missing, func(k string) bool { return k == kind }); len(missing) == 0 {
				break
			}
			if kind != "" {
				why += ", where " + kind + " routes hold"
			}
			because = append(because, fmt.Sprintf("port %d %s", s.Port.Number, why))
		}
		if len(because) == 0 {
			continue // it serves none of the hosts, which is another finding
		}
		if n := len(because); n > maxNamed {
			because = append(because[:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
		}
		for _, kind := range missing {
			d.find(Warning, ISM0078, kind, fmt.Sprintf("has no effect on Gateway %s, in Istio neither: for these hosts, %s", name, strings.Join(because, "; ")))
		}
	}
}

// lookedAt returns the kind of routes that all servers of a Gateway look at; "" if there is
// none.
func (c *checker) lookedAt(gw *mesh.Gateway) string {
	all, known := c.kinds[gw]
	if !known {
		for i := range gw.Servers {
			if kind, _ := routesOf(&gw.Servers[i]); i > 0 && kind != all {
				all = ""
				break
			} else {
				all = kind
			}
		}
		c.kinds[gw] = all
	}
	return all
}

// lintTwice says of a route that passes TLS on where TLS would be begun again.
func (c *checker) lintTwice(d *document, dest mesh.Destination, at string) {
	host := c.full(dest.Host)
	svc, _, _ := mesh.ServiceOf(host)
	_, namespace, _ := strings.Cut(svc, ".")
	t := c.rules.Find(host, namespace, dest.Port, dest.Subset).TLS
	if t == nil || t.Mode != mesh.TLSSimple && t.Mode != mesh.TLSMutual {
		return
	}
	d.find(Warning, ISM0079, at, fmt.Sprintf("is sent TLS within TLS, in Istio too: the route passes on what begins as TLS, and %s begins TLS with %s once more; leave tls out there, or route plain requests (http) to it", t.Source, dest.Host))
}

// binding is a Gateway that a VirtualService names, and where.
type binding struct{ gateway, field string }

// bindings returns each Gateway once that is named, for all rules or in a match.
func bindings(v *mesh.VirtualService) (out []binding) {
	seen := map[string]bool{mesh.MeshGateway: true}
	add := func(list []string, field string) {
		for _, g := range list {
			if !seen[g] {
				seen[g] = true
				out = append(out, binding{g, field})
			}
		}
	}
	add(v.Gateways, "gateways")
	for i, r := range v.HTTP {
		for j, m := range r.Match {
			add(m.Gateways, fmt.Sprintf("http[%d].match[%d].gateways", i, j))
		}
	}
	for k, rules := range [][]*mesh.TCPRoute{v.TLS, v.TCP} {
		for i, r := range rules {
			for j, m := range r.Match {
				add(m.Gateways, fmt.Sprintf("%s[%d].match[%d].gateways", [...]string{"tls", "tcp"}[k], i, j))
			}
		}
	}
	return out
}
