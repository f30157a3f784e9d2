package proxy

import (
	"slices"
	"strings"

	"isthmus/mesh"
)

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
