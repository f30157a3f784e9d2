package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"isthmus/mesh"
)

// listeners are the ports at which workloads and gateways take requests, as
// policies name them, as far as files say.
type listeners struct {
	byService map[*mesh.Service]*workloadPorts
	bySelf    map[string]*workloadPorts // by namespace and selector of a policy
}

// workloadPorts are ports of workloads. Unsaid: a Service names one, and no file
// says which number that is.
type workloadPorts struct {
	listened map[uint32]bool
	services map[uint32]string // ports of Services that their workloads do not listen on, and the Service
	unsaid   bool
}

func newWorkloadPorts() *workloadPorts {
	return &workloadPorts{listened: map[uint32]bool{}, services: map[uint32]string{}}
}

// newListeners finds out at which ports the workloads of each Service listen.
func (c *checker) newListeners() *listeners {
	l := &listeners{byService: map[*mesh.Service]*workloadPorts{}, bySelf: map[string]*workloadPorts{}}
	byPair := selectors{}
	for _, s := range c.config.Services {
		if len(s.Selector) == 0 {
			continue // nobody is its sidecar
		}
		l.byService[s] = newWorkloadPorts()
		for k, v := range s.Selector {
			byPair[[3]string{s.Namespace, k, v}] = append(byPair[[3]string{s.Namespace, k, v}], s)
			break // whoever fits bears any one pair
		}
	}
	named := map[*mesh.Service]map[string]bool{} // target names that a workload has a number for
	says := func(s *mesh.Service, p mesh.Port, w *mesh.Workload) {
		l.byService[s].listened[mesh.TargetPort(p, w)] = true
		if w.Ports[p.TargetName] != 0 || w.Ports[p.Name] != 0 {
			if named[s] == nil {
				named[s] = map[string]bool{}
			}
			named[s][p.TargetName] = true
		}
	}
	for _, g := range c.config.WorkloadGroups {
		w := g.Template
		w.Labels = g.GroupLabels
		for _, s := range byPair.of(&w) {
			for _, p := range s.Ports {
				if p.TargetName != "" {
					says(s, p, &w)
				}
			}
		}
	}
	for _, w := range c.config.Workloads {
		found := byPair.of(w)
		if s := c.services[w.Service]; s != nil && l.byService[s] != nil {
			found = []*mesh.Service{s}
		}
		for _, s := range found {
			for _, p := range s.Ports {
				says(s, p, w)
			}
		}
	}
	for s, ports := range l.byService {
		for _, p := range s.Ports {
			if p.TargetName != "" {
				ports.unsaid = ports.unsaid || !named[s][p.TargetName]
				continue
			}
			ports.listened[mesh.TargetPort(p, nil)] = true
		}
		for _, p := range s.Ports {
			if !ports.listened[p.Number] {
				ports.services[p.Number] = s.Name
			}
		}
	}
	return l
}

// listened returns the ports of the workloads that a policy selects; nil where
// files do not say.
func (c *checker) listened(m mesh.Meta, selector map[string]string, root bool) *workloadPorts {
	key := m.Namespace + " " + mesh.LabelText(selector)
	if found, ok := c.listeners.bySelf[key]; ok {
		return found
	}
	out := newWorkloadPorts()
	for s, ports := range c.listeners.byService {
		if !root && s.Namespace != m.Namespace || !c.forSame(selector, s.Selector) {
			continue
		}
		maps.Copy(out.listened, ports.listened)
		for p, name := range ports.services {
			if first, ok := out.services[p]; !ok || name < first {
				out.services[p] = name
			}
		}
		out.unsaid = out.unsaid || ports.unsaid
	}
	for _, g := range c.config.Gateways {
		if !c.mayBeGateway(g, m, selector, root) {
			continue
		}
		for _, s := range g.Servers {
			out.listened[s.Port.Number] = true
		}
	}
	if out.unsaid || len(out.listened) == 0 {
		out = nil
	}
	c.listeners.bySelf[key] = out
	return out
}

// mayBeGateway reports whether a policy may be for proxies of a Gateway, which may
// be of any namespace.
func (c *checker) mayBeGateway(g *mesh.Gateway, m mesh.Meta, selector map[string]string, root bool) bool {
	if len(selector) > 0 || root || g.Namespace == m.Namespace || len(g.Selector) == 0 {
		return c.forSame(selector, g.Selector)
	}
	for k, v := range g.Selector {
		if _, ok := c.bearers.values[m.Namespace][k][v]; !ok {
			return false
		}
	}
	return true
}

// lintPolicyPorts names ports of a policy on which none of the workloads listens
// that it selects.
func (c *checker) lintPolicyPorts(p *mesh.AuthorizationPolicy, d *document, root bool) {
	for i, rule := range p.Rules {
		at := index("rules", i)
		for j, o := range rule.To {
			c.lintPortList(p, d, root, o.Ports.In, at+"."+index("to", j)+".operation.ports")
			c.lintPortList(p, d, root, o.Ports.NotIn, at+"."+index("to", j)+".operation.notPorts")
		}
		for j, w := range rule.When {
			if w.Key == mesh.KeyDestinationPort {
				c.lintPortList(p, d, root, w.Values.In, at+"."+index("when", j)+".values")
				c.lintPortList(p, d, root, w.Values.NotIn, at+"."+index("when", j)+".notValues")
			}
		}
	}
}

func (c *checker) lintPortList(p *mesh.AuthorizationPolicy, d *document, root bool, list []string, path string) {
	for i, text := range list {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			continue // a pattern, or an error has been said
		}
		if c.listeners == nil {
			c.listeners = c.newListeners()
		}
		ports := c.listened(p.Meta, p.Selector, root)
		if ports == nil || ports.listened[uint32(n)] {
			continue
		}
		hint := ""
		if s := ports.services[uint32(n)]; s != "" {
			hint = fmt.Sprintf("; it is a port of Service %s, and policies name the workload's (targetPort)", s)
		}
		d.find(Warning, ISM0072, index(path, i), fmt.Sprintf("no workload that this policy selects listens on %d, as far as files say: they listen on %s%s", n, portText(slices.Collect(maps.Keys(ports.listened))), hint))
	}
}

// portText writes ports in their order, the first of them.
func portText(ports []uint32) string {
	slices.Sort(ports)
	ports = slices.Compact(ports)
	more := ""
	if n := len(ports) - maxNamed; n > 0 {
		ports, more = ports[:maxNamed], fmt.Sprintf(" and %d more", n)
	}
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = strconv.FormatUint(uint64(p), 10)
	}
	return strings.Join(out, ", ") + more
}

// lintProxyMatches looks at the conditions of a VirtualService that are on the
// proxy: where it is, and on which of its ports.
func (c *checker) lintProxyMatches(v *mesh.VirtualService, d *document) {
	if len(v.Hosts) == 0 {
		return // a delegate: where it holds, others say
	}
	for i, r := range v.HTTP {
		for j, m := range r.Match {
			path := index("http", i) + "." + index("match", j)
			c.lintMatchPort(v, d, &m.ProxyMatch, path, true)
			c.lintSources(v, d, &m.ProxyMatch, path)
		}
	}
	for _, list := range []struct {
		name  string
		rules []*mesh.TCPRoute
	}{{"tls", v.TLS}, {"tcp", v.TCP}} {
		for i, r := range list.rules {
			for j := range r.Match {
				path := index(list.name, i) + "." + index("match", j)
				c.lintMatchPort(v, d, &r.Match[j].ProxyMatch, path, false)
				c.lintSources(v, d, &r.Match[j].ProxyMatch, path)
			}
		}
	}
}

// lintMatchPort names a port on which no request for the hosts comes.
func (c *checker) lintMatchPort(v *mesh.VirtualService, d *document, m *mesh.ProxyMatch, path string, http bool) {
	if m.Port == 0 {
		return
	}
	var have []string
	for _, g := range gatewaysOf(v, m) {
		if g == mesh.MeshGateway {
			if !http {
				return // the outbound listener is for all ports, and routes of connections choose by this one
			}
			for _, h := range v.Hosts {
				ports, known := c.ports(h)
				if strings.HasPrefix(h, "*") || !known || len(ports) == 0 || slices.ContainsFunc(ports, func(p mesh.Port) bool { return p.Number == m.Port }) {
					return
				}
				have = append(have, h+" has "+portText(numbers(ports)))
			}
			continue
		}
		gw := c.gateways[g]
		if gw == nil {
			return // another finding says it
		}
		var ports []uint32
		for _, s := range gw.Servers {
			if s.Port.Number == m.Port {
				return // whether it serves the hosts is another finding
			}
			ports = append(ports, s.Port.Number)
		}
		have = append(have, "Gateway "+g+" has "+portText(ports))
	}
	if len(have) == 0 {
		return
	}
	more := ""
	if n := len(have) - maxNamed; n > 0 {
		have, more = have[:maxNamed], fmt.Sprintf("; and %d more", n)
	}
	d.find(Warning, ISM0072, path+".port", fmt.Sprintf("no request comes by port %d here, so the match never holds: %s%s; name the port of the listener, not the workload's", m.Port, strings.Join(have, "; "), more))
}

func numbers(ports []mesh.Port) []uint32 {
	out := make([]uint32, len(ports))
	for i, p := range ports {
		out[i] = p.Number
	}
	return out
}

// lintSources names conditions on callers where no caller is asked for them: they
// are compared with the proxy itself, which beside a caller bears its labels, and
// at a Gateway its own (Istio: sourceMatchHTTP).
func (c *checker) lintSources(v *mesh.VirtualService, d *document, m *mesh.ProxyMatch, path string) {
	field := path + ".sourceLabels"
	if len(m.SourceLabels) == 0 {
		field = path + ".sourceNamespace"
	}
	switch {
	case len(m.SourceLabels) == 0 && m.SourceNamespace == "":
	case len(m.Gateways) > 0:
		d.find(Warning, ISM0074, field, "has no effect, in Istio too: a match that names gateways is not asked for it, so it holds for every caller; leave gateways out of the match")
	case !slices.Contains(v.Gateways, mesh.MeshGateway) && !slices.ContainsFunc(v.Gateways, func(name string) bool { return c.bears(c.gateways[name], m) }):
		d.find(Warning, ISM0074, field, "is compared with the gateway's own proxies, in Istio too, never with who calls: the VirtualService is for gateways alone; write gateways: [mesh] for sidecars, or match what callers send, such as a header")
	}
}

// bears reports whether a Gateway's proxies are known to be what a match asks
// callers for: its author means them.
func (c *checker) bears(g *mesh.Gateway, m *mesh.ProxyMatch) bool {
	if g == nil {
		return true // another finding says it
	}
	return mesh.MatchLabels(m.SourceLabels, g.Selector) && (m.SourceNamespace == "" || m.SourceNamespace == g.Namespace)
}
