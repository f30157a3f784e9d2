package proxy

import (
	"cmp"
	"slices"
	"strings"

	"isthmus/accesslog"
	"isthmus/auth"
	"isthmus/balancer"
	"isthmus/canary"
	"isthmus/mesh"
)

// table is a snapshot compiled for the data plane. A request loads it once and
// keeps it to its end. Only the upstreams in it are alive: they are made when
// they are first needed, and carried over to the next table.
type table struct {
	snapshot *mesh.Snapshot
	caller   balancer.Caller
	outbound *hostTable
	sni      *sniTable                // of the outbound listener
	gateways map[uint32]*gatewayTable // by the Gateway's port
	inbound  *inboundTable
	targets  map[upstreamKey]*target
	tracing  [3]*traceRule         // by listenerKind; nil: nothing is traced
	logging  [3]*accesslog.Rule    // likewise; nil: nothing is logged
	tags     [3][]*accesslog.Value // likewise; what metrics show of exchanges besides Istio's labels
	tells    [3]bool               // likewise; routes look at what we say of where requests come from: see exchange.tellOrigin
	access   *access               // nil: no policies are for this proxy

	limits map[string]*limiter   // by what they are kept by; hosts and routes have those that hold for them
	askers map[string]limitAsker // of global limits, by the cluster's name

	terminating []*tlsServer // those of gateways

	applications applications

	heirs map[uint32]uint32 // of Gateways' ports that are gone: those that have taken their sockets over

	trial     *trial      // a candidate's beside this one; nil: none
	candidate bool        // it is that of a candidate
	arm       *canary.Arm // counts the requests that it decides; nil: nobody wants to know

	asked map[*target]*upstream // see Proxy.askedUpstream; guarded by Proxy.mu
}

// gateway is what a Gateway's port does with connections, those too that were accepted for
// one whose socket it has taken over; nil: there is none.
func (t *table) gateway(port uint32) *gatewayTable {
	if g := t.gateways[port]; g != nil {
		return g
	}
	return t.gateways[t.heirs[port]]
}

// standing is the Gateway's port whose rules hold for connections that were accepted for
// one: its own, or that of who has taken its socket over.
func (t *table) standing(port uint32) uint32 {
	if t.gateways[port] == nil && t.heirs[port] != 0 {
		return t.heirs[port]
	}
	return port
}

// inherit takes over who stands for Gateways' ports that go with this table, and for those
// that went with the ones before: their connections may have a request on its way still.
func (t *table) inherit(heirs map[uint32]uint32, before *table) {
	t.heirs = heirs
	if before == nil {
		return
	}
	for port, heir := range before.heirs {
		if next, ok := heirs[heir]; ok {
			heir = next
		}
		if t.gateways[port] == nil && t.gateways[heir] != nil {
			t.heirs[port] = heir
		}
	}
}

// tokens are those that requests may come with; nil if none are read, or there is
// no table.
func (t *table) tokens() *auth.Tokens {
	if t == nil || t.access == nil {
		return nil
	}
	return t.access.tokens
}

// hostTable finds the virtual host for a request's authority.
type hostTable struct {
	exact     map[string]*hostEntry
	wildcards map[string]*hostEntry // by suffix: ".example.com"
	any       *hostEntry            // "*"
}

// hostEntry is one host name with a virtual host for each port of the service
// that bears the name.
type hostEntry struct {
	ports []portHost

	// fallback serves requests that name no port. Nil: there is no default port.
	fallback *virtualHost

	// other serves those that name a port which is not among ports, where the name
	// is no service's. Nil: such requests find nothing.
	other *virtualHost
}

type portHost struct {
	number uint32
	host   *virtualHost
}

// virtualHost is an ordered list of routes: the first that fits decides.
type virtualHost struct {
	name   string
	port   uint32
	routes []*route
	index  *routeIndex // nil: few routes

	workloadPort uint32      // of the application, on the inbound listener
	limits       *limitChain // nil: none
}

func newVirtualHost(name string, port uint32, routes []*route) *virtualHost {
	return &virtualHost{name: name, port: port, routes: routes, index: newRouteIndex(routes)}
}

// find returns the first route that fits the request, or nil.
func (vh *virtualHost) find(x *exchange) *route {
	if vh.index != nil {
		return vh.index.find(vh.routes, x)
	}
	for _, r := range vh.routes {
		if r.fits(x) {
			return r
		}
	}
	return nil
}

// find returns the virtual host for a name in lower case and a port, 0 if the
// request named none.
func (t *hostTable) find(host []byte, port uint32) *virtualHost {
	if e := t.entry(host); e != nil {
		return e.find(port)
	}
	return nil
}

// entry returns what there is for a name in lower case, whatever the port; nil: nothing.
func (t *hostTable) entry(host []byte) *hostEntry {
	if e := t.exact[string(host)]; e != nil {
		return e
	}
	if len(t.wildcards) > 0 {
		// The longest suffix first: from the left, label by label.
		for i, c := range host {
			if c == '.' && i > 0 {
				if e := t.wildcards[string(host[i:])]; e != nil {
					return e
				}
			}
		}
	}
	return t.any
}

func (e *hostEntry) find(port uint32) *virtualHost {
	if port == 0 {
		return e.fallback
	}
	for i := range e.ports {
		if e.ports[i].number == port {
			return e.ports[i].host
		}
	}
	return e.other
}

// add enters a host name; the first entry of a name stays.
func (t *hostTable) add(name string, e *hostEntry) {
	switch {
	case name == "*":
		if t.any == nil {
			t.any = e
		}
	case strings.HasPrefix(name, "*."):
		if t.wildcards[name[1:]] == nil {
			t.wildcards[name[1:]] = e
		}
	case t.exact[name] == nil:
		t.exact[name] = e
	}
}

func newHostTable() *hostTable {
	return &hostTable{exact: map[string]*hostEntry{}, wildcards: map[string]*hostEntry{}}
}

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

// compiler makes a table of a snapshot.
type compiler struct {
	*table
	node    *mesh.Node
	reg     *mesh.Registry
	options Options
	view    *mesh.View // of the name for which addService makes routes
}

// compile cannot fail on what config has accepted: a destination that nobody
// knows is a route that answers 503 NC.
func compile(s *mesh.Snapshot, o Options) *table {
	t := &table{snapshot: s, caller: callerOf(s), targets: map[upstreamKey]*target{}}
	c := &compiler{table: t, node: s.Node, reg: s.Registry, options: o}
	t.outbound = c.compileOutbound()
	t.sni = c.compileOutboundSNI()
	t.gateways = c.compileGateways()
	t.inbound = c.compileInbound()
	c.compileLogging()
	return t
}

// compileOutbound makes the virtual hosts of the mesh: one for every name of
// every service, and those that VirtualServices bring on their own.
func (c *compiler) compileOutbound() *hostTable {
	t := newHostTable()
	bound := c.boundTo(mesh.MeshGateway, isHTTP)

	for _, svc := range c.reg.Services() {
		for _, name := range c.reg.Names(svc) {
			c.addService(t, name, bound)
		}
		for _, name := range c.reg.PodNames(svc) {
			c.addService(t, name, bound)
		}
	}
	for _, host := range c.reg.EntryHosts() {
		c.addService(t, host, bound)
	}
	for _, host := range bound.hosts {
		if _, ok := c.reg.View(host); ok {
			c.addService(t, host, bound) // unless it is there: it lies under a ServiceEntry's wildcard
			continue
		}
		t.add(host, c.unborneHost(host, bound.byHost[host]))
	}
	c.addAddresses(t)
	return t
}

// unborneHost makes what serves a host that no service bears, on any port: which one a
// request is addressed to counts where a match asks for it, and is 80 if none is named.
func (c *compiler) unborneHost(host string, services []*mesh.VirtualService) *hostEntry {
	compiled := func(number, port uint32) *virtualHost {
		return newVirtualHost(host, number, c.compileRoutes(services, mesh.MeshGateway, port))
	}
	e := &hostEntry{fallback: compiled(80, 80)}
	e.other = e.fallback
	if asked := c.matchedPorts(services); len(asked) > 0 {
		e.other = compiled(80, 0)
		for _, port := range asked {
			vh := e.fallback
			if port != 80 {
				vh = compiled(port, port)
			}
			e.ports = append(e.ports, portHost{port, vh})
		}
	}
	return e
}

// addAddresses enters the addresses of ServiceEntries, which clients may name in the place
// of the host (Istio: generateVirtualHostDomains). Of two for one address that of the
// proxy's own namespace is meant, as of two DestinationRules for one host.
func (c *compiler) addAddresses(t *hostTable) {
	for _, s := range c.snapshot.Config.Services {
		if s.Namespace == c.node.Namespace {
			c.addAddressesOf(t, s)
		}
	}
	for _, s := range c.snapshot.Config.Services {
		c.addAddressesOf(t, s) // the first entry of a name stays
	}
}

func (c *compiler) addAddressesOf(t *hostTable, s *mesh.Service) {
	if len(s.Addresses) > 0 && mesh.VisibleTo(s.ExportTo, s.Namespace, c.node.Namespace) {
		e := t.exact[s.Hosts[0]]
		if suffix, ok := strings.CutPrefix(s.Hosts[0], "*"); ok {
			e = t.wildcards[suffix]
		}
		if e == nil {
			return // no host of the proxy's scope
		}
		for _, a := range s.Addresses {
			t.add(mesh.AddressHost(a), e)
		}
	}
}

// addService enters one name of a service.
func (c *compiler) addService(t *hostTable, name string, bound *boundServices) {
	v, ok := c.reg.View(name)
	if !ok || t.has(name) {
		return
	}
	services := bound.of(v, name)
	// Two names that mean the same share their virtual hosts.
	if v.Host != name {
		if t.exact[v.Host] == nil {
			c.addService(t, v.Host, bound)
		}
		if e := t.exact[v.Host]; e != nil && slices.Equal(services, bound.of(v, v.Host)) {
			t.add(name, e)
			return
		}
	}
	e := &hostEntry{}
	c.view = v
	for _, p := range v.Ports {
		var routes []*route
		if services != nil {
			routes = c.compileRoutes(services, mesh.MeshGateway, p.Number)
		} else {
			routes = []*route{c.defaultRoute(v.Host, p.Number)}
		}
		e.ports = append(e.ports, portHost{p.Number, newVirtualHost(v.Host, p.Number, routes)})
	}
	c.view = nil
	if p, ok := v.Port(0); ok {
		e.fallback = e.find(p.Number)
	}
	t.add(name, e)
}

func (t *hostTable) has(name string) bool {
	if strings.HasPrefix(name, "*.") {
		return t.wildcards[name[1:]] != nil
	}
	return t.exact[name] != nil
}

// noRule is what routes stand for that no file says.
var noRule = &mesh.HTTPRoute{}

// defaultRetries are those of routes that name none.
func (c *compiler) defaultRetries() *mesh.Retries {
	return cmp.Or(c.snapshot.Config.Retries, mesh.DefaultRetries)
}

// defaultRoute sends everything to one service: what holds where no
// VirtualService does.
func (c *compiler) defaultRoute(host string, port uint32) *route {
	d := destination{rule: mesh.Destination{Host: host, Port: port}, weight: 1}
	d.target = c.target(d.rule, port)
	return &route{
		rule:   noRule,
		name:   "default",
		action: action{destinations: []destination{d}, totalWeight: 1, retries: c.defaultRetries()},
	}
}
