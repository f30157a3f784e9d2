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
	plain := map[uint32]*gatewayHosts{}
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
				if plain[s.Port.Number] == nil {
					plain[s.Port.Number] = newGatewayHosts(s.Port.Number)
				}
				c.addServer(plain[s.Port.Number], g, s)
			}
		}
	}
	for port, hosts := range plain {
		tables[port].hosts = c.compileHosts(hosts)
	}
	return tables
}

// gatewayHosts are the hosts that servers have together: those of one port in plain
// text, whichever Gateways they are of, or of one that terminates TLS.
type gatewayHosts struct {
	port    uint32
	domains map[string]*gatewayDomain
}

// gatewayDomain is one of the hosts.
type gatewayDomain struct {
	parts  []gatewayPart
	secure bool // requests in plain text are sent to https
}

// gatewayPart is a VirtualService that holds for a host, on a Gateway.
type gatewayPart struct {
	gateway string // namespace/name
	host    string // of the VirtualService
	of      *mesh.VirtualService
}

func newGatewayHosts(port uint32) *gatewayHosts {
	return &gatewayHosts{port: port, domains: map[string]*gatewayDomain{}}
}

// addServer enters what one server brings.
func (c *compiler) addServer(to *gatewayHosts, g *mesh.Gateway, s *mesh.GatewayServer) {
	domain := func(name string) *gatewayDomain {
		d := to.domains[name]
		if d == nil {
			d = &gatewayDomain{}
			to.domains[name] = d
		}
		d.secure = d.secure || s.HTTPSRedirect
		return d
	}
	if s.HTTPSRedirect {
		for _, h := range s.Hosts {
			domain(h.Host)
		}
	}
	name := g.Namespace + "/" + g.Name
	bound := c.boundTo(name, isHTTP)
	for _, host := range bound.hosts {
		for _, sh := range s.Hosts {
			common, ok := intersectHosts(host, sh.Host)
			if !ok {
				continue
			}
			for _, vs := range bound.byHost[host] {
				if admits(g, sh, vs) {
					domain(common).add(gatewayPart{name, host, vs})
				}
			}
		}
	}
}

// add enters a VirtualService once for each Gateway, by the narrowest of its hosts.
func (d *gatewayDomain) add(p gatewayPart) {
	for i := range d.parts {
		if o := &d.parts[i]; o.of == p.of && o.gateway == p.gateway {
			if narrower(p.host, o.host) < 0 {
				o.host = p.host
			}
			return
		}
	}
	d.parts = append(d.parts, p)
}

// narrower compares host patterns: exact ones come first, then wildcards, the longest
// first (Istio: host.MoreSpecific).
func narrower(a, b string) int {
	return cmp.Or(
		cmp.Compare(boolInt(strings.HasPrefix(a, "*")), boolInt(strings.HasPrefix(b, "*"))),
		cmp.Compare(boolInt(a == "*"), boolInt(b == "*")),
		boolInt(strings.HasPrefix(a, "*"))*cmp.Compare(len(b), len(a)),
	)
}

// compileHosts makes the virtual hosts. The rules of all VirtualServices for a host are
// put together, those of the narrower host first.
func (c *compiler) compileHosts(hosts *gatewayHosts) *hostTable {
	t := newHostTable()
	for name, d := range hosts.domains {
		slices.SortStableFunc(d.parts, func(a, b gatewayPart) int {
			x, y := a.of.Source, b.of.Source
			return cmp.Or(narrower(a.host, b.host), cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(a.gateway, b.gateway))
		})
		lists := make([][]*route, len(d.parts))
		for i, p := range d.parts {
			lists[i] = c.compileRoutes([]*mesh.VirtualService{p.of}, p.gateway, hosts.port)
		}
		routes := together(lists)
		if d.secure {
			routes = slices.Insert(routes, 0, toHTTPS())
		}
		vh := newVirtualHost(name, hosts.port, routes)
		t.add(name, &hostEntry{fallback: vh, other: vh})
	}
	return t
}

// toHTTPS is the rule of a server with httpsRedirect.
func toHTTPS() *route {
	return &route{
		rule: noRule, name: "httpsRedirect",
		matches: []requestMatch{{scheme: &mesh.StringMatch{Kind: mesh.MatchExact, Value: "http"}}},
		action:  action{redirect: &mesh.Redirect{Scheme: "https", Code: 301}},
	}
}

// compileTerminating enters the hosts of a server that terminates TLS.
func (c *compiler) compileTerminating(t *sniTable, g *mesh.Gateway, s *mesh.GatewayServer) {
	server := newTLSServer(s.Port.Number, s, &c.options)
	c.terminating = append(c.terminating, server)
	if s.Port.Protocol == mesh.ProtocolTLS {
		server.relay = c.compileTCPServer(g, s)
	} else {
		hosts := newGatewayHosts(s.Port.Number)
		c.addServer(hosts, g, s)
		server.hosts = c.compileHosts(hosts)
	}
	for _, h := range s.Hosts {
		t.add(h.Host, &tcpRoute{terminate: server})
	}
}

// admits reports whether a host of a Gateway's server is for a VirtualService.
func admits(g *mesh.Gateway, host mesh.GatewayHost, vs *mesh.VirtualService) bool {
	return (host.Namespace == "*" || host.Namespace == vs.Namespace) && mesh.VisibleTo(vs.ExportTo, vs.Namespace, g.Namespace)
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

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
