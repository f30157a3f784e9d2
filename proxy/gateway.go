package proxy

import (
	"cmp"
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

// served reports whether a server speaks what gateways serve: HTTP/1.1, plain or
// over TLS, and what they pass on as it comes.
func served(s *mesh.GatewayServer) bool {
	return !s.TLS && s.Port.Protocol.IsHTTP() || s.Passthrough || s.AutoPassthrough || s.Terminate != nil || s.Port.Protocol == mesh.ProtocolTCP
}

// gatewayTable is what one port of a gateway does with connections: those that
// begin as TLS go by their server name, others are HTTP. A port of protocol TCP
// does not look at what comes.
type gatewayTable struct {
	hosts *hostTable // nil: no HTTP
	sni   *sniTable  // nil: no TLS
	tcp   []*tcpRoute
}

// raw reports whether connections are passed on before the client has said
// anything.
func (t *gatewayTable) raw() bool { return t != nil && t.hosts == nil && t.sni == nil }

// compileGateways makes a table for every port of the node's Gateways. Servers
// of several Gateways on one port are served together.
func (c *compiler) compileGateways() map[uint32]*gatewayTable {
	tables := map[uint32]*gatewayTable{}
	for _, g := range ownGateways(c.node, c.snapshot.Config) {
		for i := range g.Servers {
			s := &g.Servers[i]
			if !served(s) {
				continue
			}
			t := tables[s.Port.Number]
			if t == nil {
				t = &gatewayTable{}
				tables[s.Port.Number] = t
			}
			switch {
			case s.Passthrough:
				t.sni = cmp.Or(t.sni, newSNITable())
				c.compilePassthrough(t.sni, g, s)
			case s.AutoPassthrough:
				t.sni = cmp.Or(t.sni, newSNITable())
				c.compilePassed(t.sni, s.Serves)
			case s.Terminate != nil:
				t.sni = cmp.Or(t.sni, newSNITable())
				c.compileTerminating(t.sni, g, s)
			case s.Port.Protocol == mesh.ProtocolTCP:
				t.tcp = append(t.tcp, c.compileTCPServer(g, s)...)
			default:
				t.hosts = cmp.Or(t.hosts, newHostTable())
				c.compileServer(t.hosts, g, s)
			}
		}
	}
	return tables
}

func (c *compiler) compileServer(t *hostTable, g *mesh.Gateway, s *mesh.GatewayServer) {
	if s.HTTPSRedirect {
		redirect := []*route{{rule: noRule, name: "httpsRedirect", action: action{redirect: &mesh.Redirect{Scheme: "https", Code: 301}}}}
		for _, h := range s.Hosts {
			t.add(h.Host, anyPort(h.Host, s.Port.Number, redirect))
		}
		return
	}
	bound := c.boundTo(g.Namespace+"/"+g.Name, isHTTP)
	done := map[string]bool{}
	for _, host := range bound.hosts {
		for _, sh := range s.Hosts {
			domain, ok := intersectHosts(host, sh.Host)
			if !ok || done[domain] {
				continue
			}
			services := slices.DeleteFunc(slices.Clone(bound.byHost[host]), func(vs *mesh.VirtualService) bool { return !admits(g, sh, vs) })
			if len(services) == 0 {
				continue
			}
			done[domain] = true
			t.add(domain, anyPort(domain, s.Port.Number, c.compileRoutes(services, g.Namespace+"/"+g.Name, s.Port.Number)))
		}
	}
}

// compileTerminating enters the hosts of a server that terminates TLS.
func (c *compiler) compileTerminating(t *sniTable, g *mesh.Gateway, s *mesh.GatewayServer) {
	server := newTLSServer(s.Port.Number, s, &c.options)
	c.terminating = append(c.terminating, server)
	if s.Port.Protocol == mesh.ProtocolTLS {
		server.relay = c.compileTCPServer(g, s)
	} else {
		server.hosts = newHostTable()
		c.compileServer(server.hosts, g, s)
	}
	for _, h := range s.Hosts {
		t.add(h.Host, &tcpRoute{terminate: server})
	}
}

// admits reports whether a host of a Gateway's server is for a VirtualService.
func admits(g *mesh.Gateway, host mesh.GatewayHost, vs *mesh.VirtualService) bool {
	return (host.Namespace == "*" || host.Namespace == vs.Namespace) && mesh.VisibleTo(vs.ExportTo, vs.Namespace, g.Namespace)
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
