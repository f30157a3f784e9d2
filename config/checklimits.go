package config

import (
	"maps"
	"slices"

	"isthmus/mesh"
)

// checkRateLimits says what of rate limits means more here than its author may
// think.
func (c *checker) checkRateLimits() {
	c.checkVacant()
	for _, f := range c.config.RateLimitFilters {
		switch {
		case f.Global != nil && !c.hasActions(f):
			c.find(Info, ISM0064, at(f.Meta, f.Global.Source), "rate_limits", "no action says what requests are counted by, so Envoy would never ask: Isthmus asks with two descriptors, (generic_key, default) and (destination_cluster, outbound|PORT|SUBSET|HOST)")
		case f.Local != nil && f.Local.Bucket == nil && len(f.Local.Descriptors) == 0 && !c.hasBucket(f):
			c.find(Warning, ISM0026, at(f.Meta, f.Local.Source), "token_bucket", "is missing, for routes too (typed_per_filter_config), so nothing is limited")
		}
	}
	inserted := map[string]bool{}
	for _, f := range c.config.RateLimitFilters {
		inserted[f.Filter] = true
	}
	for _, p := range c.config.RoutePatches {
		names := slices.AppendSeq(slices.Collect(maps.Keys(p.Local)), maps.Keys(p.Global))
		for _, name := range names {
			if !inserted[name] {
				c.say(Warning, p.Meta, "typed_per_filter_config", "has no effect: no EnvoyFilter inserts a filter named "+name)
			}
		}
	}
}

// hasActions reports whether anything says what a global rate limit counts by.
func (c *checker) hasActions(f *mesh.RateLimitFilter) bool {
	if len(f.Global.Actions) > 0 {
		return true
	}
	for _, p := range c.config.RoutePatches {
		if f.Shares(&p.FilterScope) && (len(p.Actions) > 0 || p.Global[f.Filter] != nil && len(p.Global[f.Filter].Actions) > 0) {
			return true
		}
	}
	return false
}

func (c *checker) hasBucket(f *mesh.RateLimitFilter) bool {
	for _, p := range c.config.RoutePatches {
		if l := p.Local[f.Filter]; f.Shares(&p.FilterScope) && l != nil && (l.Bucket != nil || len(l.Descriptors) > 0) {
			return true
		}
	}
	return false
}
