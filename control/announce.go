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
	var out []mesh.Endpoint
	switch c.options.Announce {
	case "own":
		out = c.ownEndpoints()
	case "direct":
		out = append(c.ownEndpoints(), c.directEndpoints()...)
	case "through":
		out = append(c.ownEndpoints(), c.throughEndpoints()...)
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

// ownEndpoints are the services whose sidecar this proxy is.
func (c *Controller) ownEndpoints() []mesh.Endpoint {
	addr, ok := c.inbound()
	if !ok {
		return nil
	}
	n := c.options.Node
	var out []mesh.Endpoint
	for _, s := range mesh.OwnServices(n, c.config) {
		for _, p := range s.Ports {
			out = append(out, mesh.Endpoint{
				Service: s.Key(), Port: p, Address: addr, Cluster: n.Cluster, Locality: n.Locality, Labels: n.Labels, Weight: 1,
				Identity: "spiffe://" + n.TrustDomain + "/ns/" + n.Namespace + "/sa/" + n.ServiceAccount,
				Via:      true, Owner: n.Member(),
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
// listener, as long as somebody serves them behind it.
func (c *Controller) throughEndpoints() []mesh.Endpoint {
	addr, ok := c.inbound()
	if !ok {
		return nil
	}
	type port struct {
		service string
		number  uint32
	}
	behind := map[port]mesh.Endpoint{}
	for _, e := range c.ownCluster() {
		if e.Unready == "" && e.Address != addr {
			k := port{e.Service, e.Port.Number}
			if have, ok := behind[k]; !ok || have.Address.Compare(e.Address) > 0 {
				behind[k] = *e
			}
		}
	}
	n := c.options.Node
	var out []mesh.Endpoint
	for _, e := range behind {
		out = append(out, mesh.Endpoint{
			Service: e.Service, Port: e.Port, Address: addr, Cluster: n.Cluster, Locality: n.Locality, Labels: e.Labels, Weight: 1,
			Via: true, Relayed: true, Owner: n.Member(),
		})
	}
	slices.SortFunc(out, func(a, b mesh.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port.Number, b.Port.Number))
	})
	return out
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
