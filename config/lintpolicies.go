package config

import (
	"fmt"
	"slices"

	"isthmus/mesh"
)

// lintPolicies names policies that are for nobody, and tokens that nobody asks
// for.
func (c *checker) lintPolicies(node *mesh.Node) {
	for _, l := range c.authorization {
		c.lintSelector(l.value.Meta, l.value.Selector, node)
		lintOperations(l.value, l.doc)
		c.lintPolicyPorts(l.value, l.doc, l.value.Namespace == node.RootNamespace)
	}
	for _, l := range c.peers {
		c.lintSelector(l.value.Meta, l.value.Selector, node)
	}
	for _, r := range c.config.RequestAuthentications {
		c.lintSelector(r.Meta, r.Selector, node)
		c.lintTokens(r, node)
	}
	for _, r := range c.config.RateLimitFilters {
		c.lintSelector(r.Meta, r.Selector, node)
	}
	for _, s := range c.config.Sidecars {
		c.lintSelector(s.Meta, s.Selector, node)
	}
}

func (c *checker) lintSelector(m mesh.Meta, selector map[string]string, node *mesh.Node) {
	if label, hint := c.nobody(selector, m.Namespace, m.Namespace == node.RootNamespace); label != "" {
		c.find(Warning, ISM0060, m, "selector", fmt.Sprintf("selects nobody: no workload of namespace %s that files know bears %s%s", m.Namespace, label, hint))
	}
}

// lintTokens says that a request without a token passes.
func (c *checker) lintTokens(r *mesh.RequestAuthentication, node *mesh.Node) {
	asked := slices.ContainsFunc(c.authorization, func(l located[*mesh.AuthorizationPolicy]) bool {
		p := l.value
		if p.Namespace != r.Namespace && p.Namespace != node.RootNamespace && r.Namespace != node.RootNamespace || !c.forSame(p.Selector, r.Selector) {
			return false
		}
		return slices.ContainsFunc(p.Rules, func(rule *mesh.AuthorizationRule) bool {
			denies := p.Action == mesh.ActionDeny && slices.ContainsFunc(rule.From, func(f mesh.PeerMatch) bool { return len(f.RequestPrincipals.NotIn) > 0 })
			return denies || asksForToken(rule) != ""
		})
	})
	if !asked {
		c.find(Warning, ISM0061, r.Meta, "jwtRules", "tokens are checked, and a request without one passes: an AuthorizationPolicy for the same workloads has to ask for one (from: [{source: {requestPrincipals: [\"*\"]}}])")
	}
}
