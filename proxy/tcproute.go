package proxy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"isthmus/mesh"
)

// tcpRoute is a compiled mesh.TCPRoute, of the tls or the tcp part of a
// VirtualService.
type tcpRoute struct {
	matches []tcpMatch // any of them; empty: everything
	route   *route     // what it does, of which only destinations are set
	port    uint32     // that policies name, on the inbound listener; a gateway's is its own

	// terminate is set instead of route where TLS ends here and HTTP follows.
	terminate *tlsServer
}

// tcpMatch are the conditions that depend on a connection.
type tcpMatch struct {
	destinations []netip.Prefix // empty: any
	source       netip.Prefix   // invalid: any
}

// fits reports whether a route is for a connection.
func (r *tcpRoute) fits(c *conn) bool {
	return len(r.matches) == 0 || slices.ContainsFunc(r.matches, func(m tcpMatch) bool { return m.fits(c) })
}

func (m *tcpMatch) fits(c *conn) bool {
	if m.source.IsValid() {
		peer, err := netip.ParseAddr(c.peer)
		if err != nil || !m.source.Contains(peer.Unmap()) {
			return false
		}
	}
	if len(m.destinations) == 0 {
		return true
	}
	local, ok := c.localAddress()
	return ok && slices.ContainsFunc(m.destinations, func(p netip.Prefix) bool { return p.Contains(local) })
}

// localAddress is the address that the peer has connected to.
func (s *stream) localAddress() (addr netip.Addr, ok bool) {
	a, ok := s.localAddrPort()
	return a.Addr(), ok
}

func (s *stream) localAddrPort() (addr netip.AddrPort, ok bool) {
	s.control(func(fd uintptr) {
		switch sa, _ := unix.Getsockname(int(fd)); sa := sa.(type) {
		case *unix.SockaddrInet4:
			addr, ok = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
		case *unix.SockaddrInet6:
			addr, ok = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), true
		}
	})
	return addr, ok
}

// sniTable finds the route for the server name of a ClientHello: an exact name
// before a wildcard, a longer one before a shorter one, as Envoy's filter chains
// match.
type sniTable struct {
	exact     map[string][]*tcpRoute
	wildcards map[string][]*tcpRoute // by suffix: ".example.com"
	any       []*tcpRoute
}

func newSNITable() *sniTable {
	return &sniTable{exact: map[string][]*tcpRoute{}, wildcards: map[string][]*tcpRoute{}}
}

// add enters a name, behind those routes that are there already.
func (t *sniTable) add(name string, r *tcpRoute) {
	switch {
	case name == "*":
		t.any = append(t.any, r)
	case strings.HasPrefix(name, "*."):
		t.wildcards[name[1:]] = append(t.wildcards[name[1:]], r)
	default:
		t.exact[name] = append(t.exact[name], r)
	}
}

// find returns the route for a connection; nil if there is none.
func (t *sniTable) find(name string, c *conn) *tcpRoute {
	if r := firstFit(t.exact[name], c); r != nil {
		return r
	}
	for i := range len(name) {
		if name[i] == '.' && i > 0 {
			if r := firstFit(t.wildcards[name[i:]], c); r != nil {
				return r
			}
		}
	}
	return firstFit(t.any, c)
}

// covers reports whether a wildcard is for every connection to a name, which may
// be a wildcard itself.
func (t *sniTable) covers(name string) bool {
	always := func(r *tcpRoute) bool { return len(r.matches) == 0 }
	for i := range len(name) {
		if name[i] == '.' && i > 0 && slices.ContainsFunc(t.wildcards[name[i:]], always) {
			return true
		}
	}
	return slices.ContainsFunc(t.any, always)
}

func firstFit(list []*tcpRoute, c *conn) *tcpRoute {
	for _, r := range list {
		if r.fits(c) {
			return r
		}
	}
	return nil
}

// overTLS and overTCP are the protocols of the ports that a route of each kind
// may mean where it names none.
var (
	overTLS = []mesh.Protocol{mesh.ProtocolTLS, mesh.ProtocolHTTPS}
	overTCP = []mesh.Protocol{mesh.ProtocolTCP}
)

// bound returns the VirtualServices that a route of this kind brings to a
// gateway, in order of their source.
func (c *compiler) withTCPRoutes(gateway string, routes func(*mesh.VirtualService) []*mesh.TCPRoute) []*mesh.VirtualService {
	var out []*mesh.VirtualService
	for _, vs := range c.snapshot.Config.VirtualServices {
		if len(routes(vs)) > 0 && (gateway != mesh.MeshGateway || mesh.VisibleTo(vs.ExportTo, vs.Namespace, c.node.Namespace)) {
			out = append(out, vs)
		}
	}
	slices.SortStableFunc(out, func(a, b *mesh.VirtualService) int {
		return cmp.Or(cmp.Compare(a.Source.File, b.Source.File), cmp.Compare(a.Source.Line, b.Source.Line))
	})
	return out
}

func tlsRoutes(vs *mesh.VirtualService) []*mesh.TCPRoute { return vs.TLS }
func tcpRoutes(vs *mesh.VirtualService) []*mesh.TCPRoute { return vs.TCP }

// compilePassthrough enters the TLS routes bound to a Gateway for the hosts of
// one of its servers.
func (c *compiler) compilePassthrough(t *sniTable, g *mesh.Gateway, s *mesh.GatewayServer) {
	gateway := g.Namespace + "/" + g.Name
	for _, vs := range c.withTCPRoutes(gateway, tlsRoutes) {
		for _, rule := range vs.TLS {
			c.compileTLSRoute(vs, rule, gateway, s.Port.Number, func(name string, r *tcpRoute) {
				for _, h := range s.Hosts {
					if domain, ok := intersectHosts(name, h.Host); ok && admits(g, h, vs) {
						t.add(domain, r)
					}
				}
			})
		}
	}
}

// compileOutboundSNI makes the table of the outbound listener: the TLS routes of
// the mesh, and behind them every service with a port for TLS, by those of its
// names that no route is for. As with HTTP, a route for "*.example.com" is for
// the services below it, too.
func (c *compiler) compileOutboundSNI() *sniTable {
	t := newSNITable()
	for _, vs := range c.withTCPRoutes(mesh.MeshGateway, tlsRoutes) {
		for _, rule := range vs.TLS {
			c.compileTLSRoute(vs, rule, mesh.MeshGateway, 0, t.add)
		}
	}
	routed := &sniTable{wildcards: maps.Clone(t.wildcards), any: t.any}
	addService := func(name string) {
		v, ok := c.reg.View(name)
		if !ok || routed.covers(name) {
			return
		}
		if p, ok := tlsPort(v); ok {
			d := mesh.RouteDestination{Destination: mesh.Destination{Host: v.Host, Port: p.Number}, Weight: 1}
			t.add(name, &tcpRoute{route: c.relayRoute(nil, []mesh.RouteDestination{d}, mesh.Source{}, 0, overTLS)})
		}
	}
	for _, svc := range c.reg.Services() {
		for _, name := range slices.Concat(c.reg.Names(svc), c.reg.PodNames(svc)) {
			addService(name)
		}
	}
	for _, host := range c.reg.EntryHosts() {
		addService(host)
	}
	return t
}

// tlsPort returns the only port of a service that speaks TLS, or its 443.
func tlsPort(v *mesh.View) (mesh.Port, bool) {
	var found []mesh.Port
	for _, p := range v.Ports {
		if slices.Contains(overTLS, p.Protocol) {
			if p.Number == 443 {
				return p, true
			}
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return mesh.Port{}, false
	}
	return found[0], true
}

// compileTLSRoute calls add for each server name for which a rule holds here.
// port is the listener's; 0 if it is for all.
func (c *compiler) compileTLSRoute(vs *mesh.VirtualService, rule *mesh.TCPRoute, gateway string, port uint32, add func(string, *tcpRoute)) {
	byPort := map[uint32]*route{}
	for i := range rule.Match {
		m := &rule.Match[i]
		at := cmp.Or(port, m.Port) // the outbound listener is for all ports
		if !c.holdsHere(vs, &m.ProxyMatch, gateway, at) {
			continue
		}
		if byPort[at] == nil {
			byPort[at] = c.relayRoute(vs, rule.Route, rule.Source, at, overTLS)
		}
		r := &tcpRoute{route: byPort[at]}
		if len(m.DestinationSubnets) > 0 {
			r.matches = []tcpMatch{{destinations: m.DestinationSubnets}}
		}
		for _, name := range m.SNIHosts {
			add(name, r)
		}
	}
}

// compileTCPServer returns the TCP routes bound to a Gateway that hold for one
// of its servers.
func (c *compiler) compileTCPServer(g *mesh.Gateway, s *mesh.GatewayServer) (out []*tcpRoute) {
	gateway := g.Namespace + "/" + g.Name
	for _, vs := range c.withTCPRoutes(gateway, tcpRoutes) {
		served := slices.ContainsFunc(s.Hosts, func(h mesh.GatewayHost) bool {
			return admits(g, h, vs) && slices.ContainsFunc(vs.Hosts, func(host string) bool { _, ok := intersectHosts(host, h.Host); return ok })
		})
		if !served {
			continue
		}
		for _, rule := range vs.TCP {
			if r := c.compileTCPRoute(vs, rule, gateway, s.Port.Number); r != nil {
				out = append(out, r)
			}
		}
	}
	return out
}

// compileTCPRoute returns nil if the rule cannot hold here.
func (c *compiler) compileTCPRoute(vs *mesh.VirtualService, rule *mesh.TCPRoute, gateway string, port uint32) *tcpRoute {
	r := &tcpRoute{}
	for i := range rule.Match {
		if m := &rule.Match[i]; c.holdsHere(vs, &m.ProxyMatch, gateway, port) {
			r.matches = append(r.matches, tcpMatch{m.DestinationSubnets, m.SourceSubnet})
		}
	}
	switch {
	case len(rule.Match) > 0 && len(r.matches) == 0, len(rule.Match) == 0 && !slices.Contains(vs.Gateways, gateway):
		return nil
	}
	r.route = c.relayRoute(vs, rule.Route, rule.Source, port, overTCP)
	return r
}

// relayRoute is a route that passes bytes on. source is the zero value for the
// one that every service has.
func (c *compiler) relayRoute(vs *mesh.VirtualService, list []mesh.RouteDestination, source mesh.Source, port uint32, protocols []mesh.Protocol) *route {
	r := &route{rule: &mesh.HTTPRoute{Source: source}, name: cmp.Or(source.String(), "default"), action: action{retries: noRetries}}
	r.destinations, r.totalWeight = c.compileDestinations(vs, list, func(d mesh.Destination) *target { return c.relayTarget(d, port, protocols) })
	return r
}
