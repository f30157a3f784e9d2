package control

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"isthmus/mesh"
)

// announcements are what this proxy tells the others, as gossip.announce says.
func (c *Controller) announcements() []mesh.Endpoint {
	var application *mesh.Health
	if s := c.Snapshot(); s != nil {
		application, _ = c.probes.health(probedWorkloads(c.options.Node, s.Config))
	}
	var out []mesh.Endpoint
	switch c.options.Announce {
	case "own":
		out = c.ownEndpoints(application)
	case "direct":
		out = append(c.ownEndpoints(application), c.directEndpoints()...)
	case "through":
		out = append(c.ownEndpoints(application), c.throughEndpoints()...)
	}
	c.mu.Lock()
	draining := c.draining
	c.mu.Unlock()
	for i := range out {
		if draining {
			out[i].Unready = "draining"
		}
	}
	return out
}

// inbound is where others reach this proxy's inbound listener; ok is false if
// it has none.
func (c *Controller) inbound() (netip.AddrPort, bool) {
	_, port, err := net.SplitHostPort(c.options.Inbound)
	if err != nil {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	addr, err2 := netip.ParseAddr(c.options.Node.Address)
	return netip.AddrPortFrom(addr, uint16(n)), err == nil && err2 == nil && n != 0
}

// ownEndpoints are the services whose sidecar this proxy is. application is
// what probes have found out of it, nil if it is not probed.
func (c *Controller) ownEndpoints(application *mesh.Health) []mesh.Endpoint {
	addr, ok := c.inbound()
	if !ok {
		return nil
	}
	var h mesh.Health
	if application != nil {
		h = *application
	}
	n := c.options.Node
	var out []mesh.Endpoint
	for _, s := range mesh.OwnServices(n, c.config) {
		for _, p := range s.Ports {
			out = append(out, mesh.Endpoint{
				Service: s.Key(), Port: p, Address: addr, Cluster: n.Cluster, Locality: n.Locality, Labels: n.Labels, Weight: 1,
				Identity: n.Identity, Via: true, Owner: n.Member(), Unready: h.Unready, Degraded: h.Degraded,
			})
		}
	}
	return out
}

// directEndpoints are those that the configuration gives for the own cluster,
// at their own addresses.
func (c *Controller) directEndpoints() []mesh.Endpoint {
	var out []mesh.Endpoint
	for _, e := range c.ownCluster() {
		if e.Source == mesh.SourceFile || e.Source == mesh.SourceKubernetes {
			d := *e
			d.Relayed = true
			out = append(out, d)
		}
	}
	return out
}

// throughEndpoints are the services of the own cluster at this proxy's inbound
// listener. Each is as well as the best of those who serve it behind it.
func (c *Controller) throughEndpoints() []mesh.Endpoint {
	addr, ok := c.inbound()
	if !ok {
		return nil
	}
	type port struct {
		service string
		number  uint32
	}
	behind := map[port]*mesh.Endpoint{}
	for _, e := range c.ownCluster() {
		if e.Address != addr {
			k := port{e.Service, e.Port.Number}
			if have := behind[k]; have == nil || compareHealth(e, have) < 0 {
				behind[k] = e
			}
		}
	}
	n := c.options.Node
	var out []mesh.Endpoint
	for _, e := range behind {
		identity := n.Identity
		if e.TakesMTLS() {
			identity = e.Identity // connections are passed on to it as they come
		}
		out = append(out, mesh.Endpoint{
			Service: e.Service, Port: e.Port, Address: addr, Cluster: n.Cluster, Locality: n.Locality, Labels: e.Labels, Weight: 1,
			Identity: identity, Via: true, Relayed: true, Owner: n.Member(), Unready: e.Unready, Degraded: e.Degraded,
		})
	}
	slices.SortFunc(out, func(a, b mesh.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port.Number, b.Port.Number))
	})
	return out
}

// compareHealth orders endpoints: the ready first, those to be spared after
// them, then by address, so that the order does not depend on chance.
func compareHealth(a, b *mesh.Endpoint) int {
	rank := func(e *mesh.Endpoint) int {
		switch {
		case e.Unready != "":
			return 2
		case e.Degraded:
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Address.Compare(b.Address))
}

// ownCluster are the endpoints of Services of the own cluster, without those
// that an announcer relays.
func (c *Controller) ownCluster() []*mesh.Endpoint {
	s := c.Snapshot()
	if s == nil {
		return nil
	}
	isService := map[string]bool{}
	for _, k := range s.Registry.Services() {
		isService[k] = true
	}
	var out []*mesh.Endpoint
	for _, e := range s.Registry.All() {
		if isService[e.Service] && e.Cluster == c.options.Node.Cluster && !e.Relayed {
			out = append(out, e)
		}
	}
	return out
}
