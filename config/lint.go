package config

import (
	"maps"
	"slices"

	"isthmus/mesh"
)

// lint says what a set that can be used does otherwise than its author may
// think: what works here although it would not elsewhere, arithmetic that does
// not come out, rules that are never reached, what is about nobody.
func (c *checker) lint(node *mesh.Node) {
	for _, l := range c.destinationRules {
		c.lintDestinationRule(l.value, l.doc)
		c.lintPlain(l.value, l.doc)
		c.lintServerName(l.value, l.doc)
	}
	c.lintWildcards()
	for _, l := range c.virtualServices {
		c.lintVirtualService(l.value, l.doc)
	}
	c.lintReach()
	c.lintServices()
	c.lintNames()
	c.lintWorkloads()
	c.lintPolicies(node)
	c.lintMonitors()
	c.lintSidecars(node)
	c.lintExports(node.Namespace, node.RootNamespace)
}

// policyBlocks are the places of a DestinationRule where a policy stands.
func policyBlocks(d *mesh.DestinationRule) map[string]*mesh.TrafficPolicy {
	out := map[string]*mesh.TrafficPolicy{"trafficPolicy": &d.Policy}
	for i := range d.Subsets {
		out[index("subsets", i)+".trafficPolicy"] = &d.Subsets[i].Policy
	}
	return out
}

// eachTLS calls lint for all that a DestinationRule says of TLS, with where that stands.
func eachTLS(d *mesh.DestinationRule, lint func(t *mesh.ClientTLS, path string)) {
	at := func(t *mesh.ClientTLS, path string) {
		if t != nil {
			lint(t, path)
		}
	}
	blocks := policyBlocks(d)
	for _, path := range slices.Sorted(maps.Keys(blocks)) {
		p := blocks[path]
		at(p.TLS, path+".tls")
		for _, port := range slices.Sorted(maps.Keys(p.PortLevel)) {
			at(p.PortLevel[port].TLS, path+".portLevelSettings")
		}
	}
}
