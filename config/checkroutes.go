package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"isthmus/mesh"
)

// checkDelegates follows rules that delegate to other VirtualServices.
func (c *checker) checkDelegates() {
	byName := map[mesh.Delegate]*mesh.VirtualService{}
	for _, v := range c.config.VirtualServices {
		byName[mesh.Delegate{Namespace: v.Namespace, Name: v.Name}] = v
	}
	used := map[*mesh.VirtualService]bool{}
	for _, l := range c.virtualServices {
		for i, r := range l.value.HTTP {
			if r.Delegate == nil {
				continue
			}
			path := fmt.Sprintf("http[%d].delegate", i)
			target := byName[*r.Delegate]
			switch {
			case target == nil:
				l.doc.find(Warning, IST0101, path, fmt.Sprintf("there is no VirtualService %s/%s, so the rule has no effect, in Istio neither: requests that it is for go on to the rules after it", r.Delegate.Namespace, r.Delegate.Name))
			case target == l.value:
				l.doc.error(path, "a VirtualService cannot delegate to itself")
			case len(target.Hosts) > 0:
				l.doc.error(path, fmt.Sprintf("VirtualService %s/%s in %s has hosts: a delegate must have none", target.Namespace, target.Name, target.Source))
			case !mesh.VisibleTo(target.ExportTo, target.Namespace, l.value.Namespace):
				used[target] = true
				l.doc.warning(path, fmt.Sprintf("VirtualService %s/%s in %s is not exported to namespace %s, so the rule has no effect, in Istio neither: requests that it is for go on to the rules after it; write the namespace into its exportTo", target.Namespace, target.Name, target.Source, l.value.Namespace))
			default:
				used[target] = true
				c.checkMerge(l.doc, r, target, path)
			}
		}
	}
	for _, l := range c.virtualServices {
		if len(l.value.Hosts) == 0 && !used[l.value] {
			l.doc.find(Warning, ISM0012, "hosts", "is missing and no other VirtualService delegates here, so it has no effect")
		}
	}
}

// checkMerge names the rules of a delegate that ask for what the root's rule does not let
// them have.
func (c *checker) checkMerge(d *document, root *mesh.HTTPRoute, delegate *mesh.VirtualService, path string) {
	for _, inner := range delegate.HTTP {
		if _, ok := mesh.DelegatedMatches(root.Match, inner.Match); ok {
			continue
		}
		for _, m := range inner.Match {
			if slices.ContainsFunc(root.Match, func(o *mesh.HTTPMatch) bool { return m.Beyond(o) == "" }) {
				continue
			}
			var because []string
			for _, o := range root.Match[:min(len(root.Match), maxNamed)] {
				because = append(because, fmt.Sprintf("%s (%s)", m.Beyond(o), o.Source))
			}
			d.warning(path, fmt.Sprintf("the rule in %s has no effect, in Istio neither: its match in %s lets in more than this one's, by %s; write matches that lie within", inner.Source, m.Source, strings.Join(because, ", ")))
			break
		}
	}
}

func (c *checker) checkVirtualService(v *mesh.VirtualService, d *document) {
	for _, b := range bindings(v) {
		gw := c.gateways[b.gateway]
		if gw == nil {
			d.find(Warning, IST0101, b.field, fmt.Sprintf("there is no Gateway %s%s, so it has no effect there", b.gateway, c.suggestGateway(b.gateway)))
			continue
		}
		if len(v.Hosts) == 0 {
			continue // a delegate, which holds where another one does
		}
		if !mesh.VisibleTo(v.ExportTo, v.Namespace, gw.Namespace) {
			d.find(Warning, IST0132, "exportTo", fmt.Sprintf("leaves out namespace %s, in which Gateway %s is, so it has no effect there", gw.Namespace, b.gateway))
			continue
		}
		for i, h := range v.Hosts {
			if !servesHost(gw, v, h) {
				d.find(Warning, IST0132, fmt.Sprintf("hosts[%d]", i), fmt.Sprintf("%q is no host of Gateway %s", h, b.gateway))
			}
		}
	}
	for i, r := range v.HTTP {
		path := fmt.Sprintf("http[%d]", i)
		if i < len(v.HTTP)-1 && len(r.Match) == 0 {
			d.find(Warning, IST0130, path, "matches everything, so the rules after it are never reached")
		}
		for j, dest := range r.Route {
			c.checkDestination(v, d, r, dest, fmt.Sprintf("%s.route[%d]", path, j))
		}
		for _, m := range r.Mirrors {
			c.checkHTTPTarget(v, d, r, m.Destination, m.Field, noCopies)
		}
	}
	for i, r := range v.TLS {
		path := fmt.Sprintf("tls[%d]", i)
		c.checkTCPRoute(v, d, r, path, mesh.ProtocolTLS, mesh.ProtocolHTTPS)
		for j, m := range r.Match {
			if len(m.DestinationSubnets) > 0 && slices.Contains(gatewaysOf(v, &m.ProxyMatch), mesh.MeshGateway) {
				d.find(Warning, ISM0013, fmt.Sprintf("%s.match[%d].destinationSubnets", path, j), "never holds on a sidecar: connections are not captured, so every one is made to the sidecar's own address; leave it out, or bind the match to a Gateway")
			}
		}
	}
	for i, r := range v.TCP {
		path := fmt.Sprintf("tcp[%d]", i)
		c.checkTCPRoute(v, d, r, path, mesh.ProtocolTCP)
		if forMesh, forOthers := whereHolds(v, r); forMesh {
			where := "has no effect"
			if forOthers {
				where += " on sidecars"
			}
			d.find(Warning, ISM0013, path, where+": a sidecar that captures no connections cannot tell which of them an application means; bind the route to a Gateway alone, or name the host by tls.match.sniHosts")
		}
	}
}

// gatewaysOf are those that a match is for.
func gatewaysOf(v *mesh.VirtualService, m *mesh.ProxyMatch) []string {
	if len(m.Gateways) > 0 {
		return m.Gateways
	}
	return v.Gateways
}

// whereHolds reports whether a route is for sidecars, and whether for Gateways.
func whereHolds(v *mesh.VirtualService, r *mesh.TCPRoute) (forMesh, forOthers bool) {
	list := v.Gateways
	if len(r.Match) > 0 {
		list = nil
		for i := range r.Match {
			list = append(list, gatewaysOf(v, &r.Match[i].ProxyMatch)...)
		}
	}
	other := func(g string) bool { return g != mesh.MeshGateway }
	return slices.Contains(list, mesh.MeshGateway), slices.ContainsFunc(list, other)
}

// checkTCPRoute checks the destinations of a route, whose ports may be of these
// protocols.
func (c *checker) checkTCPRoute(v *mesh.VirtualService, d *document, r *mesh.TCPRoute, path string, protocols ...mesh.Protocol) {
	matches := make([]*mesh.ProxyMatch, len(r.Match))
	for i := range r.Match {
		matches[i] = &r.Match[i].ProxyMatch
	}
	for i, dest := range r.Route {
		at := fmt.Sprintf("%s.route[%d].destination", path, i)
		ports, known := c.ports(dest.Host)
		view := mesh.View{Ports: ports}
		if p, ok := view.RelayPort(0, protocols...); dest.Port == 0 && ok {
			dest.Port = p.Number
		} else if known && dest.Port == 0 && len(ports) > 0 {
			ports = slices.DeleteFunc(slices.Clone(ports), func(p mesh.Port) bool { return !slices.Contains(protocols, p.Protocol) })
			if by := c.without(ports, v, matches, false); by != "" {
				d.find(Warning, IST0112, at+".port", fmt.Sprintf("is missing: %s has several ports, and not one of protocol %v: connections %s end", dest.Host, protocols[0], by))
			}
		}
		c.checkTarget(d, dest.Destination, at, noConnections)
		if slices.Contains(protocols, mesh.ProtocolTLS) {
			c.lintTwice(d, dest.Destination, at)
		}
	}
}

// without says which requests, or connections, come by a port that a destination does
// not have which names none; "" if none do.
func (c *checker) without(ports []mesh.Port, v *mesh.VirtualService, matches []*mesh.ProxyMatch, http bool) string {
	if len(v.Hosts) == 0 {
		return "by a port that it does not have" // a delegate: where it holds, others say
	}
	if len(matches) == 0 {
		matches = []*mesh.ProxyMatch{{}}
	}
	var come []uint32
	for _, m := range matches {
		if m.Port != 0 {
			come = append(come, m.Port)
			continue
		}
		for _, g := range gatewaysOf(v, m) {
			if gw := c.gateways[g]; gw != nil {
				for _, s := range gw.Servers {
					come = append(come, s.Port.Number)
				}
			}
			if g != mesh.MeshGateway {
				continue
			}
			if !http {
				return "whose match names no port" // the outbound listener is for all
			}
			for _, h := range v.Hosts {
				have, known := c.ports(h)
				if !known {
					return "for " + h // which is nobody's, and so are its ports
				}
				come = append(come, numbers(have)...)
			}
		}
	}
	come = slices.DeleteFunc(come, func(n uint32) bool { return slices.Contains(numbers(ports), n) })
	if len(come) == 0 {
		return ""
	}
	return "by port " + portText(come)
}

func servesHost(g *mesh.Gateway, v *mesh.VirtualService, host string) bool {
	return slices.ContainsFunc(g.Servers, func(s mesh.GatewayServer) bool { return serves(&s, v, host) })
}

// serves reports whether one server of a Gateway does.
func serves(s *mesh.GatewayServer, v *mesh.VirtualService, host string) bool {
	for _, h := range s.Hosts {
		if (h.Namespace == "*" || h.Namespace == v.Namespace) &&
			(h.Host == host || mesh.MatchHost(h.Host, host) || mesh.MatchHost(host, h.Host)) {
			return true
		}
	}
	return false
}

func (c *checker) checkDestination(v *mesh.VirtualService, d *document, r *mesh.HTTPRoute, dest mesh.RouteDestination, path string) {
	c.checkHTTPTarget(v, d, r, dest.Destination, path+".destination", noAnswers)
	if dest.Weight == 0 && len(r.Route) > 1 {
		c.sayStandby(v, d, r, dest, path)
	}
}

// What becomes of what goes to a destination that is not there; with a place for which.
const (
	noAnswers     = "requests%s get 503 NC"
	noConnections = "connections%s end"
	noCopies      = "no copies of requests%s are sent"
)

// checkHTTPTarget checks a destination of requests, which needs no port where that of
// the request is one.
func (c *checker) checkHTTPTarget(v *mesh.VirtualService, d *document, r *mesh.HTTPRoute, dest mesh.Destination, at, what string) {
	ports, known := c.ports(dest.Host)
	view := mesh.View{Ports: ports}
	if _, ok := view.Port(0); known && dest.Port == 0 && !ok && len(ports) > 0 {
		matches := make([]*mesh.ProxyMatch, len(r.Match))
		for i, m := range r.Match {
			matches[i] = &m.ProxyMatch
		}
		if by := c.without(ports, v, matches, true); by != "" {
			d.find(Warning, IST0112, at+".port", fmt.Sprintf("is missing: %s has several ports and none is 80: "+what, dest.Host, " "+by))
		}
	}
	c.checkTarget(d, dest, at, what)
}

// checkTarget checks that a destination is there, with its port, if it names one, and
// subset. What is not may come yet, by gossip or with another file; until then what goes
// there fails, as what says, and nothing else.
func (c *checker) checkTarget(d *document, dest mesh.Destination, at, what string) {
	ports, known := c.ports(dest.Host)
	switch {
	case !known:
		d.find(Warning, ISM0014, at+".host", fmt.Sprintf("no file defines %q%s: gossip may bring it, until then "+what, dest.Host, c.suggestHost(dest.Host), ""))
	case dest.Port != 0 && !slices.ContainsFunc(ports, func(p mesh.Port) bool { return p.Number == dest.Port }):
		d.find(Warning, IST0101, at+".port.number", fmt.Sprintf("%s has no port %d, so "+what+": it has %s", dest.Host, dest.Port, "", cmp.Or(portText(numbers(ports)), "none")))
	}
	if dest.Subset != "" {
		c.checkSubset(d, dest, at, what)
	}
}

// suggestions bounds how many names that nobody knows are compared with those
// that somebody does, and with how many: each costs microseconds.
const (
	suggestions    = 100
	suggestedHosts = 1000
)

// suggestGateway returns ` (did you mean "x"?)` if a Gateway has nearly the name.
func (c *checker) suggestGateway(name string) string {
	if c.suggested++; c.suggested > suggestions || len(c.gateways) > suggestedHosts {
		return ""
	}
	return suggest(name, slices.Sorted(maps.Keys(c.gateways)))
}

// suggestHost returns ` (did you mean "x"?)` if a service has nearly the name.
func (c *checker) suggestHost(host string) string {
	if c.suggested++; c.suggested > suggestions {
		return ""
	}
	svc, suffix, isService := mesh.ServiceOf(host)
	var names []string
	for _, s := range c.config.Services {
		switch {
		case len(names) >= suggestedHosts:
		case s.IsEntry():
			names = append(names, s.Hosts...)
		case isService && suffix == "global":
			names = append(names, s.Key()+".global")
		case isService && svc != s.Key():
			names = append(names, strings.Replace(host, svc, s.Key(), 1))
		}
	}
	return suggest(host, names)
}

// checkSubset looks a subset up as the proxy will.
func (c *checker) checkSubset(d *document, dest mesh.Destination, path, what string) {
	host := c.full(dest.Host)
	svc, _, _ := mesh.ServiceOf(host)
	_, namespace, _ := strings.Cut(svc, ".")
	for _, rule := range c.rules.Candidates(host, namespace) {
		for _, s := range rule.Subsets {
			if s.Name != dest.Subset {
				continue
			}
			if c.full(rule.Host) != host {
				d.find(Info, ISM0015, path+".subset", fmt.Sprintf("%q is defined for %s in %s and found there, since both are names of one service", dest.Subset, rule.Host, s.Source))
			}
			return
		}
	}
	var names []string
	for _, rule := range c.rules.Candidates(host, namespace) {
		for _, s := range rule.Subsets {
			names = append(names, s.Name)
		}
	}
	d.find(Warning, IST0101, path+".subset", fmt.Sprintf("no DestinationRule defines subset %q%s for %s or another name of the service, so "+what, dest.Subset, suggest(dest.Subset, names), dest.Host, ""))
}

func (c *checker) sayStandby(v *mesh.VirtualService, d *document, r *mesh.HTTPRoute, dest mesh.RouteDestination, path string) {
	if v.Standby != nil {
		return // its author has said so
	}
	standby := false
	if svc, _, ok := mesh.ServiceOf(dest.Host); ok {
		standby = slices.ContainsFunc(r.Route, func(o mesh.RouteDestination) bool {
			other, _, ok := mesh.ServiceOf(o.Host)
			return ok && o.Weight > 0 && other == svc && o.Host != dest.Host
		})
	}
	if standby {
		d.find(Info, ISM0016, path+".weight", "0 makes a standby: it serves when no destination of positive weight can")
		return
	}
	d.find(Info, ISM0016, path+".weight", `0 means no traffic, ever; the annotation isthmus.io/standby: "true" would make it a standby`)
}

// checkSharedHosts names the hosts that several VirtualServices route on one
// gateway.
func (c *checker) checkSharedHosts() {
	first := map[string]*mesh.VirtualService{}
	for _, l := range c.virtualServices {
		for _, g := range l.value.Gateways {
			for i, h := range l.value.Hosts {
				k := g + " " + h
				if g == mesh.MeshGateway {
					k = g + " " + c.full(h)
				}
				if o := first[k]; o == l.value {
					continue // by another form of the name
				} else if o != nil {
					l.doc.find(Warning, IST0109, fmt.Sprintf("hosts[%d]", i), fmt.Sprintf("%q has another VirtualService on %q, %s/%s in %s: their rules are put together in order of file and line, those without a match last", h, g, o.Namespace, o.Name, o.Source))
					continue
				}
				first[k] = l.value
			}
		}
	}
}
