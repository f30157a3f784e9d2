package proxy

import (
	"cmp"

	"isthmus/mesh"
)

// delegateOf returns the VirtualService that a rule delegates to; nil: it does not, or
// that one is not there.
func (c *compiler) delegateOf(vs *mesh.VirtualService, rule *mesh.HTTPRoute) *mesh.VirtualService {
	if rule.Delegate == nil {
		return nil
	}
	for _, d := range c.snapshot.Config.VirtualServices {
		if d.Namespace == rule.Delegate.Namespace && d.Name == rule.Delegate.Name && mesh.VisibleTo(d.ExportTo, d.Namespace, vs.Namespace) {
			return d
		}
	}
	return nil
}

// compileDelegate puts the rules of a delegate in the place of the rule that
// names it: both conditions must hold, and what the delegate does not say, the
// rule says (Istio: mergeHTTPRoute). What cannot be put together has no effect, as in
// Istio; config says so.
func (c *compiler) compileDelegate(vs *mesh.VirtualService, rule *mesh.HTTPRoute, gateway string, port uint32) []*route {
	d := c.delegateOf(vs, rule)
	if d == nil {
		return nil
	}
	var out []*route
	for i, inner := range d.HTTP {
		merged := *inner
		var ok bool
		if merged.Match, ok = mesh.DelegatedMatches(rule.Match, inner.Match); !ok {
			continue
		}
		if merged.Name = cmp.Or(inner.Name, rule.Name); inner.Name != "" && rule.Name != "" {
			merged.Name = rule.Name + "-" + inner.Name
		}
		merged.Rewrite = cmp.Or(inner.Rewrite, rule.Rewrite)
		if !inner.Timed {
			merged.Timeout, merged.Timed = rule.Timeout, rule.Timed
		}
		merged.Retries = cmp.Or(inner.Retries, rule.Retries)
		if inner.Headers.Empty() {
			merged.Headers = rule.Headers
		}
		merged.Fault = cmp.Or(inner.Fault, rule.Fault)
		merged.CORS = cmp.Or(inner.CORS, rule.CORS)
		if len(merged.Mirrors) == 0 {
			merged.Mirrors = rule.Mirrors
		}
		if r := c.compileRoute(vs, &merged, gateway, port); r != nil {
			r.nth[1] = int32(i) + 1
			out = append(out, r)
		}
	}
	return out
}
