package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"isthmus/mesh"
)

// lintServices says how the localities of a ServiceEntry's endpoints count.
func (c *checker) lintServices() {
	for _, s := range c.config.Services {
		places := map[mesh.Locality]bool{}
		for _, w := range s.Endpoints {
			if w.Locality != (mesh.Locality{}) {
				places[w.Locality] = true
			}
		}
		if len(places) < 2 || s.Resolution == mesh.ResolveDNSRoundRobin {
			continue
		}
		outliers := false
		for _, h := range s.Hosts {
			for _, p := range s.Ports {
				outliers = outliers || c.rules.Find(h, s.Namespace, p.Number, "").OutlierDetection != nil
			}
		}
		if !outliers {
			c.find(Info, ISM0047, s.Meta, "endpoints", "the nearest locality that can serve is preferred, and failures to connect move traffic to the next; in Istio that needs outlierDetection in a DestinationRule, and all localities would be used alike")
		}
	}
}

// lintNames names addresses of DNS that are names of services which no file defines.
func (c *checker) lintNames() {
	for _, s := range c.config.Services {
		if s.Resolution == mesh.ResolveStatic {
			continue
		}
		look := func(host, field string, from mesh.Source) {
			svc, _, full := mesh.ServiceOf(strings.ToLower(strings.TrimSuffix(host, ".")))
			if !full || c.services[svc] != nil {
				return
			}
			c.find(Warning, ISM0014, at(s.Meta, from), field, fmt.Sprintf("no file defines the service %s of %q%s, and DNS is not asked for names of services: it has no endpoints unless gossip brings them", svc, host, c.suggestHost(host)))
		}
		for i, w := range s.Endpoints {
			field := "spec.externalName"
			if s.IsEntry() {
				field = index("endpoints", i) + ".address"
			}
			look(w.Address, field, w.Source)
		}
		if len(s.Endpoints) > 0 || s.Selector != nil {
			continue
		}
		for i, h := range s.Hosts {
			look(h, index("hosts", i), s.Source)
		}
	}
}

// lintWorkloads looks at WorkloadEntries and WorkloadGroups.
func (c *checker) lintWorkloads() {
	byPair := selectors{}
	for _, s := range c.config.Services {
		for k, v := range s.Selector {
			byPair[[3]string{s.Namespace, k, v}] = append(byPair[[3]string{s.Namespace, k, v}], s)
			break // whoever fits bears any one pair
		}
	}
	// different calls what when a workload's own port is not the target port of a service.
	different := func(w *mesh.Workload, s *mesh.Service, what func(name string, own, target uint32)) {
		for _, p := range s.Ports {
			if own := w.Ports[p.Name]; own != 0 && p.TargetName == "" && own != mesh.TargetPort(p, nil) {
				what(p.Name, own, mesh.TargetPort(p, nil))
			}
		}
	}
	for _, g := range c.config.WorkloadGroups {
		w := g.Template
		w.Labels = g.GroupLabels
		for _, s := range byPair.of(&w) {
			different(&w, s, func(name string, own, target uint32) {
				c.find(Warning, ISM0003, g.Meta, "template.ports."+name, fmt.Sprintf("%d has no effect yet: the targetPort %d of Service %s (%s) says where the application listens; write ports of a WorkloadEntry, which win over that", own, target, s.Name, s.Source))
			})
		}
	}
	sliced, entered := map[string][]*mesh.Workload{}, map[*mesh.Service]bool{}
	for _, w := range c.config.Workloads {
		if w.Service != "" {
			c.lintSlice(w)
			sliced[w.Service] = append(sliced[w.Service], w)
		}
		if w.Service != "" || w.Kind != "WorkloadEntry" {
			continue
		}
		selected := false
		for _, s := range byPair.of(w) {
			selected, entered[s] = true, true
			different(w, s, func(name string, own, target uint32) {
				c.find(Info, ISM0053, w.Meta, "ports."+name, fmt.Sprintf("%d wins over the targetPort %d of Service %s (%s)", own, target, s.Name, s.Source))
			})
		}
		if !selected {
			c.find(Warning, ISM0059, w.Meta, "labels", fmt.Sprintf("no Service or ServiceEntry of namespace %s selects it, so it gets no traffic: check its labels against their selectors", w.Namespace))
			continue
		}
		c.lintMTLS(w)
	}
	for _, key := range slices.Sorted(maps.Keys(sliced)) {
		if c.services[key] == nil {
			c.lintOrphans(key, sliced[key])
		}
	}
	for _, s := range c.config.Services {
		if !s.IsEntry() && len(s.Endpoints) == 0 && !entered[s] { // a WorkloadEntry serves every port
			c.lintUnserved(s, sliced[s.Key()])
		}
	}
}

// lintUnserved names ports of a Service that none of the addresses serves which
// EndpointSlices give it, because they have no port of the name.
func (c *checker) lintUnserved(s *mesh.Service, addresses []*mesh.Workload) {
	if len(addresses) == 0 {
		return // nobody is there at all, or gossip tells who
	}
	names := map[string]bool{}
	for _, w := range addresses {
		for name := range w.Ports {
			names[strconv.Quote(name)] = true
		}
	}
	for _, p := range s.Ports {
		if slices.ContainsFunc(addresses, func(w *mesh.Workload) bool { return w.Serves(p) }) {
			continue
		}
		c.find(Warning, ISM0072, s.Meta, "spec.ports", fmt.Sprintf("nobody serves port %d, so requests for it get 503 UH unless gossip brings somebody: none of the %d addresses that EndpointSlices give (the first in %s) has a port of the name %q, as a Service's port and theirs have in common; they have %s",
			p.Number, len(addresses), addresses[0].Source, p.Name, strings.Join(slices.Sorted(maps.Keys(names)), ", ")))
	}
}

// checkOwnPorts names ports of a sidecar's own services of which nobody says where the
// application has them.
func (c *checker) checkOwnPorts(node *mesh.Node) {
	for _, s := range mesh.OwnServices(node, c.config) {
		for _, p := range s.Ports {
			if target, known := mesh.ApplicationPort(node, c.config, s, p); !known {
				c.say(Warning, s.Meta, "spec.ports", fmt.Sprintf("targetPort %q of port %d is the name of a port of Pods, which are not read, so this proxy takes %d for where its application listens: write the number, or %s: NUMBER among ports of a WorkloadEntry for %s or of the template of its WorkloadGroup", p.TargetName, p.Number, target, p.TargetName, node.Address))
			}
		}
	}
}

// lintOrphans names addresses of EndpointSlices, or Endpoints, of a Service that no file
// defines.
func (c *checker) lintOrphans(service string, addresses []*mesh.Workload) {
	w := addresses[0]
	name, field, hint := strings.TrimSuffix(service, "."+w.Namespace), "metadata.labels", ""
	if w.Kind == "Endpoints" {
		field = "metadata.name"
	}
	if c.suggested++; c.suggested <= suggestions && len(c.services) <= suggestedHosts {
		var names []string
		for _, key := range slices.Sorted(maps.Keys(c.services)) {
			if s := c.services[key]; s.Namespace == w.Namespace {
				names = append(names, s.Name)
			}
		}
		hint = suggest(name, names)
	}
	c.find(Warning, ISM0059, w.Meta, field, fmt.Sprintf("no file defines a Service %s in namespace %s%s, so addresses that are given for it (%d) get no traffic", name, w.Namespace, hint, len(addresses)))
}

// lintSlice names ports of an EndpointSlice that its Service does not have, and the number
// of one without a name where the Service's have names, and say another.
func (c *checker) lintSlice(w *mesh.Workload) {
	s := c.services[w.Service]
	if s == nil {
		return
	}
	names := make([]string, 0, 2*len(s.Ports))
	for _, p := range s.Ports {
		names = append(names, p.Name, p.TargetName)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Ports)) {
		if name != "" && !slices.Contains(names, name) {
			c.find(Warning, IST0101, w.Meta, "ports", fmt.Sprintf("no port of Service %s (%s) has the name %q%s, so it has no effect", s.Name, s.Source, name, suggest(name, names)))
		}
	}
	own := w.Ports[""]
	if own == 0 || slices.ContainsFunc(s.Ports, func(p mesh.Port) bool { return p.Name == "" }) {
		return
	}
	for _, p := range s.Ports {
		if asked := mesh.TargetPort(p, w); asked != own {
			c.say(Warning, w.Meta, "ports", fmt.Sprintf("the port without a name, %d, has no effect, since those of Service %s (%s) have names: for port %d the addresses are asked at %d, as the Service says; write name: %s", own, s.Name, s.Source, p.Number, asked, p.Name))
			return
		}
	}
}

// selectors are Services by namespace and one pair that they select.
type selectors map[[3]string][]*mesh.Service

// of returns the Services that select a workload, in order of their source.
func (s selectors) of(w *mesh.Workload) (out []*mesh.Service) {
	for k, v := range w.Labels {
		for _, svc := range s[[3]string{w.Namespace, k, v}] {
			if mesh.MatchLabels(svc.Selector, w.Labels) {
				out = append(out, svc)
			}
		}
	}
	slices.SortFunc(out, func(a, b *mesh.Service) int {
		if a.Source.Before(b.Source) {
			return -1
		}
		return 1
	})
	return out
}

// lintMTLS names workloads that are spoken to by mTLS although nothing says that
// a proxy is there.
func (c *checker) lintMTLS(w *mesh.Workload) {
	if w.Labels["security.istio.io/tlsMode"] == "istio" || w.ServiceAccount != "" {
		return
	}
	m := c.modes.of(w.Namespace, w.Labels)
	if m.StrictEverywhere() {
		c.find(Warning, ISM0055, w.Meta, "labels", fmt.Sprintf("is spoken to by mTLS, since PeerAuthentication in %s says STRICT for it, and nothing says that a proxy is there: without one every request to it fails; write the label security.istio.io/tlsMode: istio, or a PeerAuthentication for it", m.Source))
	}
}

// bearers are the labels of workloads that files know, by each pair of them.
type bearers struct {
	byPair map[string][]map[string]string            // "key=value" -> labels
	values map[string]map[string]map[string]struct{} // namespace, "" for all -> key -> value
}

// newBearers gathers what selectors of Services and Gateways ask for, and what
// entries and groups say.
func (c *checker) newBearers() *bearers {
	out := &bearers{byPair: map[string][]map[string]string{}, values: map[string]map[string]map[string]struct{}{}}
	add := func(ns string, labels map[string]string) {
		for k, v := range labels {
			out.byPair[k+"="+v] = append(out.byPair[k+"="+v], labels)
			for _, n := range []string{"", ns} {
				if out.values[n] == nil {
					out.values[n] = map[string]map[string]struct{}{}
				}
				if out.values[n][k] == nil {
					out.values[n][k] = map[string]struct{}{}
				}
				out.values[n][k][v] = struct{}{}
			}
		}
	}
	for _, s := range c.config.Services {
		add(s.Namespace, s.Selector)
	}
	for _, w := range c.config.Workloads {
		add(w.Namespace, w.Labels)
	}
	for _, g := range c.config.WorkloadGroups {
		add(g.Namespace, g.GroupLabels)
	}
	for _, g := range c.config.Gateways {
		add(g.Namespace, g.Selector)
	}
	return out
}

// forSame reports whether two policies may be for one workload: by their
// selectors, and unless one of them is known to mean others.
func (c *checker) forSame(a, b map[string]string) bool {
	if !labelsOverlap(a, b) {
		return false
	}
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	for k, v := range a {
		if b[k] == v {
			return true
		}
	}
	selected := func(selector, besides map[string]string) (some, both bool) {
		for k, v := range selector {
			for _, w := range c.bearers.byPair[k+"="+v] {
				if mesh.MatchLabels(selector, w) {
					some = true
					if mesh.MatchLabels(besides, w) {
						return true, true
					}
				}
			}
			break // whoever fits bears any one pair
		}
		return some, false
	}
	one, both := selected(a, b)
	if both {
		return true
	}
	other, _ := selected(b, a)
	return !one || !other // each is for somebody else
}

// nobody says which label of a selector no workload can bear that files know, and
// what it may have been meant to be; "" if one may.
func (c *checker) nobody(selector map[string]string, namespace string, root bool) (label, hint string) {
	from := namespace
	if root {
		from = ""
	}
	// Files do not say which labels the proxies of a Gateway bear besides.
	edge := root || slices.ContainsFunc(c.config.Gateways, func(g *mesh.Gateway) bool { return g.Namespace == namespace })
	for k, v := range selector {
		known := c.bearers.values[from][k]
		if _, ok := known[v]; ok || len(known) == 0 {
			continue
		}
		hint := ""
		if c.suggested++; c.suggested <= suggestions && len(known) <= suggestedHosts {
			hint = suggest(v, slices.Sorted(maps.Keys(known)))
		}
		if hint != "" || !edge {
			return k + "=" + v, hint
		}
	}
	return "", ""
}
