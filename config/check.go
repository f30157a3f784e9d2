package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"isthmus/mesh"
)

// check looks at the set as a whole. node is nil if what depends on one proxy
// is not to be judged.
func (r *reader) check(node *mesh.Node) {
	judged := node != nil
	if !judged {
		node = &mesh.Node{Cluster: "default", Namespace: "default", RootNamespace: "istio-system"}
	}
	c := &checker{
		reader:   r,
		rules:    mesh.NewRules(node, everywhere(r.config.DestinationRules)),
		services: map[string]*mesh.Service{},
		gateways: map[string]*mesh.Gateway{},
		kinds:    map[*mesh.Gateway]string{},
		entries:  map[string][]*mesh.Service{},
	}
	for _, s := range r.config.Services {
		if !s.IsEntry() {
			c.services[s.Key()] = s
		}
		for _, h := range s.Hosts {
			if c.entries[h] == nil && strings.HasPrefix(h, "*") {
				c.patterns = append(c.patterns, h)
			}
			c.entries[h] = append(c.entries[h], s)
		}
	}
	c.known = mesh.NewRegistry(mesh.Known{Node: node, Config: r.config, Now: time.Unix(0, 0)})
	c.bearers, c.modes = c.newBearers(), newPeerModes(node.RootNamespace, r.config.PeerAuthentications)
	for _, g := range r.config.Gateways {
		c.gateways[g.Namespace+"/"+g.Name] = g
	}
	c.checkEntries()
	c.checkGateways()
	c.checkDelegates()
	for _, v := range r.virtualServices {
		c.checkVirtualService(v.value, v.doc)
	}
	c.checkSharedHosts()
	c.checkConflicts()
	c.checkProbes(node)
	if judged {
		c.checkOwnPorts(node)
	}
	c.checkPeerAuthentications(node, judged)
	c.checkTelemetries()
	c.checkClientTLS(node, judged)
	c.checkAuthorization(node)
	c.checkRateLimits()
	c.lint(node)
}

// everywhere takes rules as if they were exported to everybody: a route may be
// used by proxies of any namespace.
func everywhere(rules []*mesh.DestinationRule) []*mesh.DestinationRule {
	out := make([]*mesh.DestinationRule, len(rules))
	for i, d := range rules {
		open := *d
		open.ExportTo, open.WorkloadSelector = nil, nil
		out[i] = &open
	}
	return out
}

type checker struct {
	*reader
	rules    *mesh.Rules
	services map[string]*mesh.Service // Kubernetes Services by "name.namespace"
	gateways map[string]*mesh.Gateway
	kinds    map[*mesh.Gateway]string   // see lookedAt
	known    *mesh.Registry             // of what files say alone
	entries  map[string][]*mesh.Service // ServiceEntries by their hosts
	patterns []string                   // those of the hosts that are wildcards

	bearers   *bearers
	listeners *listeners // nil: nobody has asked yet
	modes     *peerModes
	suggested int // names that were compared with others
}

// ports returns the ports that files give a host; known is false if no file
// defines it.
func (c *checker) ports(host string) (ports []mesh.Port, known bool) {
	if svc, _, ok := mesh.ServiceOf(host); ok {
		if s := c.services[svc]; s != nil {
			ports, known = append(ports, s.Ports...), true
		}
	} else if strings.Count(host, ".") == 1 {
		if s := c.services[host]; s != nil {
			ports, known = append(ports, s.Ports...), true
		}
	}
	for _, s := range c.entriesOf(host) {
		ports, known = append(ports, s.Ports...), true
	}
	if !known {
		if v, ok := c.known.View(host); ok && v.Pod != "" {
			return v.Ports, true
		}
	}
	return ports, known
}

// full returns the full form of a service's short name, any other host as it is.
func (c *checker) full(host string) string {
	switch svc, suffix, ok := mesh.ServiceOf(host); {
	case ok && suffix == "svc":
		return svc + ".svc." + mesh.LocalDomain
	case !ok && strings.Count(host, ".") == 1 && len(c.entriesOf(host)) == 0 && !strings.HasPrefix(host, "*"):
		return host + ".svc." + mesh.LocalDomain
	}
	return host
}

// entriesOf returns the ServiceEntries that bear a host.
func (c *checker) entriesOf(host string) []*mesh.Service {
	out := c.entries[host]
	for _, p := range c.patterns {
		if p != host && mesh.MatchHost(p, host) {
			out = slices.Concat(out, c.entries[p])
		}
	}
	return out
}

func (c *checker) checkEntries() {
	first := map[string]*mesh.Service{}
	for _, s := range c.config.Services {
		for _, h := range s.Hosts {
			before := first[h]
			if before == nil {
				first[h] = s
				continue
			}
			c.find(Info, ISM0010, s.Meta, "hosts", fmt.Sprintf("%q has another ServiceEntry, %s/%s in %s: the endpoints of both serve it", h, before.Namespace, before.Name, before.Source))
			for _, p := range s.Ports {
				for _, o := range before.Ports {
					if p.Number == o.Number && p.Protocol != o.Protocol {
						c.find(Warning, IST0177, s.Meta, "ports", fmt.Sprintf("port %d is %s here and %s in %s", p.Number, p.Protocol, o.Protocol, before.Source))
					}
				}
			}
		}
	}
}

func (r *reader) say(s Severity, m mesh.Meta, field, message string) {
	r.find(s, "", m, field, message)
}

// find notes a finding with a code of its own.
func (r *reader) find(s Severity, c Code, m mesh.Meta, field, message string) {
	r.findings = append(r.findings, Finding{
		File: m.Source.File, Line: m.Source.Line, Severity: s, Kind: m.Kind, Namespace: m.Namespace, Name: m.Name, Field: field, Message: message, Code: c,
	})
}

// checkGateways names servers that have something with another one before them.
func (c *checker) checkGateways() {
	type key struct {
		port uint32
		tls  bool // what is in plain text and what is not are two things, on one port too
		host string
	}
	type taken struct {
		by     *mesh.Gateway
		server *mesh.GatewayServer
	}
	first := map[key]taken{}
	for _, g := range c.config.Gateways {
		for i := range g.Servers {
			s := &g.Servers[i]
			if o, p := c.besideTCP(g, s); o != nil {
				c.find(Warning, ISM0011, at(g.Meta, s.Source), "servers", fmt.Sprintf("has no effect: port %d is of protocol %s in Gateway %s/%s in %s, and a port either looks at what comes or passes it on as TCP; take another port", s.Port.Number, p, o.Namespace, o.Name, o.Source))
				continue
			}
			for _, h := range s.Hosts {
				k := key{s.Port.Number, s.TLS, h.Host}
				if !s.TLS {
					k.host = h.Namespace + "/" + h.Host
				}
				if o := first[k]; o.by != nil && (o.by == g || labelsOverlap(o.by.Selector, g.Selector)) {
					c.find(Warning, IST0145, at(g.Meta, s.Source), "servers", fmt.Sprintf("host %q on port %d is served by Gateway %s/%s in %s too%s", h.Host, s.Port.Number, o.by.Namespace, o.by.Name, o.server.Source, besideServer(o.server, s)))
					continue
				}
				first[k] = taken{g, s}
			}
		}
	}
}

// besideServer says what becomes of a host that a server has with another one before it:
// where TLS ends, that is at one of them.
func besideServer(first, s *mesh.GatewayServer) string {
	switch {
	case first.Terminate != nil && s.Terminate != nil:
		return ", which ends TLS for it, with its own certificate and the routes bound to it: here the host has no effect, in Istio neither; name it in one of them, and bind the routes to that"
	case first.Terminate != nil:
		return ", which ends TLS for it: here tls routes for the host have no effect; take another host or port"
	case s.Terminate != nil:
		return ", which passes TLS on: only what none of its tls routes is for ends here; take another host or port"
	}
	return "; their routes are put together"
}

// besideTCP returns the Gateway that has the port of a TCP server for another
// protocol, and which; nil if none has.
func (c *checker) besideTCP(g *mesh.Gateway, s *mesh.GatewayServer) (*mesh.Gateway, mesh.Protocol) {
	if s.Port.Protocol != mesh.ProtocolTCP {
		return nil, 0
	}
	for _, o := range c.config.Gateways {
		if o != g && !labelsOverlap(o.Selector, g.Selector) {
			continue
		}
		for _, other := range o.Servers {
			if other.Port.Number == s.Port.Number && other.Port.Protocol != mesh.ProtocolTCP {
				return o, other.Port.Protocol
			}
		}
	}
	return nil, 0
}

func at(m mesh.Meta, s mesh.Source) mesh.Meta {
	m.Source = s
	return m
}

// labelsOverlap reports whether one proxy could bear the labels of both.
func labelsOverlap(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; ok && w != v {
			return false
		}
	}
	return true
}

// checkConflicts names the policies that several DestinationRules give one host:
// each but the first, and which that is. Of one that selects its workloads and one for
// all, the first wins by what it is.
func (c *checker) checkConflicts() {
	type place struct{ namespace, host string }
	same := map[place][]located[*mesh.DestinationRule]{}
	for _, l := range c.destinationRules {
		k := place{l.value.Namespace, c.full(l.value.Host)}
		same[k] = append(same[k], l)
	}
	for _, list := range same {
		slices.SortStableFunc(list, func(a, b located[*mesh.DestinationRule]) int {
			return cmp.Or(cmp.Compare(a.value.Source.File, b.value.Source.File), cmp.Compare(a.value.Source.Line, b.value.Source.Line))
		})
		for i, l := range list {
			c.checkConflictsOf(l, list[:i])
		}
	}
}

// checkConflictsOf compares a rule with those for its host that come before it by file
// and line.
func (c *checker) checkConflictsOf(l located[*mesh.DestinationRule], before []located[*mesh.DestinationRule]) {
	beside := false
	var rivals []*mesh.TrafficPolicy // of the same rank
	blocks, subsets := map[string]mesh.Source{}, map[string]mesh.Source{}
	for _, o := range before {
		if !labelsOverlap(o.value.WorkloadSelector, l.value.WorkloadSelector) {
			continue // no proxy has both
		}
		if !beside {
			beside = true
			l.doc.find(Info, ISM0018, "host", fmt.Sprintf("%s has another DestinationRule, %s in %s: their blocks are put together", l.value.Host, o.value.Name, o.value.Source))
		}
		if (o.value.WorkloadSelector == nil) != (l.value.WorkloadSelector == nil) {
			continue
		}
		rivals = append(rivals, &o.value.Policy)
		for _, b := range blocksOf(&o.value.Policy) {
			blocks[b.name] = cmp.Or(blocks[b.name], b.source)
		}
		for _, t := range o.value.Subsets {
			subsets[t.Name] = cmp.Or(subsets[t.Name], t.Source)
		}
	}
	for _, b := range blocksOf(&l.value.Policy) {
		if winner, ok := blocks[b.name]; ok {
			l.doc.find(Warning, ISM0017, "trafficPolicy."+b.name, fmt.Sprintf("%s sets it for %s too and wins, being first by file and line; this one has no effect", winner, l.value.Host))
		}
	}
	for _, port := range slices.Sorted(maps.Keys(l.value.Policy.PortLevel)) {
		for _, b := range blocksOf(l.value.Policy.PortLevel[port]) {
			if winner, ok := blockFor(rivals, port, b.name); ok {
				l.doc.find(Warning, ISM0017, "trafficPolicy.portLevelSettings", fmt.Sprintf("%s sets %s for %s too, port %d included, and wins, being first by file and line; that of the port has no effect", winner, b.name, l.value.Host, port))
			}
		}
	}
	for i, t := range l.value.Subsets {
		if winner, ok := subsets[t.Name]; ok {
			l.doc.find(Warning, ISM0017, fmt.Sprintf("subsets[%d].name", i), fmt.Sprintf("%q is defined in %s too, which wins", t.Name, winner))
		} else {
			subsets[t.Name] = t.Source
		}
	}
}

// blockFor returns where the first of several policies sets a block for a port.
func blockFor(policies []*mesh.TrafficPolicy, port uint32, name string) (mesh.Source, bool) {
	for _, p := range policies {
		for _, b := range blocksOf(cmp.Or(p.PortLevel[port], p)) {
			if b.name == name {
				return b.source, true
			}
		}
	}
	return mesh.Source{}, false
}

// policyBlock is a part of a policy that one DestinationRule decides.
type policyBlock struct {
	name   string
	source mesh.Source
}

func blocksOf(p *mesh.TrafficPolicy) (out []policyBlock) {
	if b := p.LoadBalancer; b != nil {
		out = append(out, policyBlock{"loadBalancer", b.Source})
	}
	if b := p.ConnectionPool; b != nil {
		out = append(out, policyBlock{"connectionPool", b.Source})
	}
	if b := p.OutlierDetection; b != nil {
		out = append(out, policyBlock{"outlierDetection", b.Source})
	}
	if b := p.RetryBudget; b != nil {
		out = append(out, policyBlock{"retryBudget", b.Source})
	}
	if b := p.TLS; b != nil {
		out = append(out, policyBlock{"tls", b.Source})
	}
	return out
}
