package proxy

import (
	"net/netip"
	"slices"

	"isthmus/mesh"
)

// inboundTable says what of this proxy's own a request on the inbound listener
// is for.
type inboundTable struct {
	hosts *hostTable

	// only is the virtual host of the only service there is; nil if there are
	// none or several.
	only *virtualHost

	// through are the services of the own cluster that an east-west gateway
	// serves besides; nil if it is none. Connections for those whose proxies speak
	// mTLS are passed on to them by their server name, as passed has it, so that
	// caller and callee see each other's certificates. What requests for those find,
	// sealed has instead.
	through *hostTable
	passed  *sniTable
	sealed  map[*virtualHost]sealedHost

	// mode says who may come in plain text, and who by mTLS; modes say so for
	// single ports, where it is not the same for all.
	mode  mesh.PeerMode
	modes map[*virtualHost]mesh.MTLSMode

	relayed map[*virtualHost]bool // ports whose bytes mean nothing to this proxy
}

// sealedHost is a service of which there are endpoints that speak mTLS, or have to.
// The gateway's own certificate is for none of them: whoever it let in by that
// would be the gateway to them.
type sealedHost struct {
	secure *virtualHost // for requests within mTLS: the endpoints that speak none
	plain  *virtualHost // for those in plain text, which stay so: all that take it
}

// modeOf returns what PeerAuthentication has for a port.
func (t *inboundTable) modeOf(vh *virtualHost) mesh.MTLSMode {
	if m, ok := t.modes[vh]; ok {
		return m
	}
	return t.mode.Mode
}

// find returns the virtual host for the destination a request names. Host
// alone may be any name that clients know; a destination that a proxy names is
// that one or none, since its endpoints may have moved.
func (t *inboundTable) find(host []byte, port uint32, named bool) *virtualHost {
	if vh := t.hosts.find(host, port); vh != nil {
		return vh
	}
	if t.through != nil {
		if vh := t.through.find(host, port); vh != nil {
			return vh
		}
	}
	if named {
		return nil
	}
	return t.only
}

func (c *compiler) compileInbound() *inboundTable {
	t := &inboundTable{
		hosts: newHostTable(), relayed: map[*virtualHost]bool{}, modes: map[*virtualHost]mesh.MTLSMode{}, sealed: map[*virtualHost]sealedHost{},
		mode: mesh.PeerModeOf(c.snapshot.Config.PeerAuthentications, c.node.RootNamespace, c.node.Namespace, c.node.Labels),
	}
	own := mesh.OwnServices(c.node, c.snapshot.Config)
	for _, s := range own {
		e := &hostEntry{}
		for _, p := range s.Ports {
			target, _ := mesh.ApplicationPort(c.node, c.snapshot.Config, s, p)
			vh := newVirtualHost(s.Key(), p.Number, []*route{c.inboundRoute(s, p, target)})
			e.ports = append(e.ports, portHost{p.Number, vh})
			vh.workloadPort = target
			if !p.Protocol.IsHTTP() {
				t.relayed[vh] = true
			}
			if m, _ := t.mode.Port(vh.workloadPort); m != t.mode.Mode {
				t.modes[vh] = m
			}
		}
		v := mesh.View{Ports: s.Ports}
		if p, ok := v.Port(0); ok {
			e.fallback = e.find(p.Number)
		}
		for _, name := range c.reg.Names(s.Key()) {
			t.hosts.add(name, e)
		}
		t.hosts.add(s.Name, e) // whoever calls from the same namespace
		if len(own) == 1 {
			t.only = e.fallback
		}
	}
	if c.options.Through {
		t.through = c.compileThrough(t)
		t.passed = newSNITable()
		c.compilePassed(t.passed, func(string) bool { return true })
	}
	return t
}

// compileThrough makes the virtual hosts by which an east-west gateway serves
// the services of its own cluster to the others.
func (c *compiler) compileThrough(in *inboundTable) *hostTable {
	t := newHostTable()
	for _, svc := range c.reg.Services() {
		v, ok := c.reg.View(svc + ".svc." + mesh.LocalDomain)
		if !ok {
			continue
		}
		e := &hostEntry{}
		for _, p := range v.Ports {
			endpoints := c.behind(v, p.Number)
			policy := c.snapshot.Rules.Find(v.Host, v.Namespace, p.Number, "")
			host := func(callers callers, without func(*mesh.Endpoint) bool) *virtualHost {
				k := upstreamKey{through: true, callers: callers, host: v.Host, port: p.Number}
				d := destination{weight: 1, rule: mesh.Destination{Host: v.Host, Port: p.Number}}
				d.target = c.addTarget(k, v, slices.DeleteFunc(slices.Clone(endpoints), without), policy)
				r := &route{rule: noRule, name: "through", action: action{destinations: []destination{d}, totalWeight: 1, retries: c.defaultRetries()}}
				vh := newVirtualHost(v.Host, p.Number, []*route{r})
				in.relayed[vh] = !p.Protocol.IsHTTP()
				return vh
			}
			vh := host(anybody, func(*mesh.Endpoint) bool { return false })
			e.ports = append(e.ports, portHost{p.Number, vh})
			sealed := func(e *mesh.Endpoint) bool { return c.sealed(v, e, policy.TLS) }
			demands := func(e *mesh.Endpoint) bool { return c.demandsMTLS(v, e, policy.TLS) }
			if slices.ContainsFunc(endpoints, sealed) {
				s := sealedHost{secure: host(inMTLS, sealed), plain: host(inPlain, demands)}
				if !slices.ContainsFunc(endpoints, func(e *mesh.Endpoint) bool { return !demands(e) }) {
					in.modes[s.plain] = mesh.MTLSStrict
				}
				in.sealed[vh] = s
			}
		}
		if p, ok := v.Port(0); ok {
			e.fallback = e.find(p.Number)
		}
		for _, name := range c.reg.Names(svc) {
			t.add(name, e)
		}
	}
	return t
}

// behind are the endpoints of the own cluster that serve a port, but those that
// are another gateway's way to the same place, or our own.
func (c *compiler) behind(v *mesh.View, port uint32) []*mesh.Endpoint {
	return slices.DeleteFunc(c.reg.Endpoints(v, port), func(e *mesh.Endpoint) bool { return e.Relayed })
}

// compilePassed enters the server names by which proxies call those of this
// cluster that speak mTLS, for the services' names that admit holds for: their
// connections are passed on as they come.
func (c *compiler) compilePassed(t *sniTable, admit func(name string) bool) {
	for _, svc := range c.reg.Services() {
		v, ok := c.reg.View(svc + ".svc." + mesh.LocalDomain)
		if !ok {
			continue
		}
		for _, p := range v.Ports {
			whole := c.snapshot.Rules.Find(v.Host, v.Namespace, p.Number, "")
			endpoints := slices.DeleteFunc(c.behind(v, p.Number), func(e *mesh.Endpoint) bool { return !c.sealed(v, e, whole.TLS) })
			if len(endpoints) == 0 {
				continue
			}
			for subset, labels := range c.subsetsOf(v) {
				inSubset := slices.DeleteFunc(slices.Clone(endpoints), func(e *mesh.Endpoint) bool { return !e.MatchesSubset(labels) })
				policy := c.snapshot.Rules.Find(v.Host, v.Namespace, p.Number, subset)
				k := upstreamKey{through: true, relay: true, host: v.Host, port: p.Number, subset: subset}
				d := destination{weight: 1, rule: mesh.Destination{Host: v.Host, Port: p.Number, Subset: subset}}
				d.target = c.addTarget(k, v, inSubset, policy)
				r := &tcpRoute{port: p.Number, route: &route{rule: noRule, name: "passed", action: action{destinations: []destination{d}, totalWeight: 1, retries: noRetries}}}
				for _, name := range c.reg.Names(svc) {
					if admit(name) {
						t.add(mesh.DestinationSNI(p.Number, subset, name), r)
					}
				}
			}
		}
	}
}

// subsetsOf returns the labels of a host's subsets by their names, and under ""
// those of the whole.
func (c *compiler) subsetsOf(v *mesh.View) map[string]map[string]string {
	out := map[string]map[string]string{"": nil}
	for _, d := range c.snapshot.Rules.Candidates(v.Host, v.Namespace) {
		for _, s := range d.Subsets {
			if _, ok := out[s.Name]; !ok {
				out[s.Name] = s.Labels
			}
		}
	}
	return out
}

// inboundRoute sends to the application beside this proxy, which listens on target. It keeps Istio's
// retries for that hop: a kept connection that the application closed at the
// same moment is tried anew, which the connection pool does by itself.
func (c *compiler) inboundRoute(s *mesh.Service, p mesh.Port, target uint32) *route {
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(target))
	pool := c.snapshot.Rules.FindInbound(c.snapshot.Config.Sidecars, s.Key()+".svc."+mesh.LocalDomain, s.Namespace, p.Number, target)
	k := upstreamKey{inbound: true, host: s.Key(), port: p.Number}
	d := destination{weight: 1, rule: mesh.Destination{Host: s.Key(), Port: p.Number}}
	d.target = c.addTarget(k, nil, []*mesh.Endpoint{{
		Service: s.Key(), Port: p, Address: address, Cluster: c.node.Cluster, Locality: c.node.Locality, Weight: 1,
	}}, mesh.Policy{ConnectionPool: pool, Adaptive: c.snapshot.Rules.AdaptiveInbound(s.Key()+".svc."+mesh.LocalDomain, s.Namespace)})
	return &route{
		rule:   noRule,
		name:   "inbound",
		action: action{destinations: []destination{d}, totalWeight: 1, retries: noRetries},
	}
}

var noRetries = &mesh.Retries{}
