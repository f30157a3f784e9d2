package proxy

import (
	"slices"
	"strings"

	"isthmus/mesh"
)

// ownGateways returns the Gateways whose proxy the node is.
func ownGateways(n *mesh.Node, c *mesh.Config) []*mesh.Gateway {
	var out []*mesh.Gateway
	for _, g := range c.Gateways {
		if mesh.MatchLabels(g.Selector, n.Labels) {
			out = append(out, g)
		}
	}
	return out
}

// gatewayPorts returns the ports that a snapshot wants open, sorted.
func gatewayPorts(s *mesh.Snapshot) []uint32 {
	var ports []uint32
	for _, g := range ownGateways(s.Node, s.Config) {
		for i := range g.Servers {
			if served(&g.Servers[i]) {
				ports = append(ports, g.Servers[i].Port.Number)
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// served reports whether a server speaks what gateways serve: plain HTTP/1.1.
func served(s *mesh.GatewayServer) bool { return !s.TLS && s.Port.Protocol.IsHTTP() }

// compileGateways makes a host table for every port of the node's Gateways.
// Servers of several Gateways on one port are served together.
func (c *compiler) compileGateways() map[uint32]*hostTable {
	tables := map[uint32]*hostTable{}
	for _, g := range ownGateways(c.node, c.snapshot.Config) {
		for i := range g.Servers {
			s := &g.Servers[i]
			if !served(s) {
				continue
			}
			t := tables[s.Port.Number]
			if t == nil {
				t = newHostTable()
				tables[s.Port.Number] = t
			}
			c.compileServer(t, g, s)
		}
	}
	return tables
}

func (c *compiler) compileServer(t *hostTable, g *mesh.Gateway, s *mesh.GatewayServer) {
	if s.HTTPSRedirect {
		redirect := []*route{{rule: &mesh.HTTPRoute{}, name: "httpsRedirect", action: action{redirect: &mesh.Redirect{Scheme: "https", Code: 301}}}}
		for _, h := range s.Hosts {
			t.add(h.Host, anyPort(h.Host, s.Port.Number, redirect))
		}
		return
	}
	bound := c.boundTo(g.Namespace + "/" + g.Name)
	done := map[string]bool{}
	for _, host := range bound.hosts {
		for _, sh := range s.Hosts {
			domain, ok := intersectHosts(host, sh.Host)
			if !ok || done[domain] {
				continue
			}
			services := slices.DeleteFunc(slices.Clone(bound.byHost[host]), func(vs *mesh.VirtualService) bool {
				return sh.Namespace != "*" && sh.Namespace != vs.Namespace || !mesh.VisibleTo(vs.ExportTo, vs.Namespace, g.Namespace)
			})
			if len(services) == 0 {
				continue
			}
			done[domain] = true
			t.add(domain, anyPort(domain, s.Port.Number, c.compileRoutes(services, g.Namespace+"/"+g.Name, s.Port.Number)))
		}
	}
}

func anyPort(name string, port uint32, routes []*route) *hostEntry {
	return &hostEntry{fallback: newVirtualHost(name, port, routes), anyPort: true}
}

// intersectHosts returns the narrower of two host patterns, if one lies under
// the other: it is what a VirtualService's host is served as on a server.
func intersectHosts(a, b string) (string, bool) {
	switch {
	case a == b || b == "*":
		return a, true
	case a == "*":
		return b, true
	case strings.HasPrefix(b, "*") && mesh.MatchHost(b, a):
		return a, true
	case strings.HasPrefix(a, "*") && mesh.MatchHost(a, b):
		return b, true
	}
	return "", false
}
