package proxy

import (
	"isthmus/mesh"
	"isthmus/ratelimit"
)

// limit is a rate limit of a kind of listener. Its bucket lives on from
// snapshot to snapshot as long as the rule stays the same.
type limit struct {
	*ratelimit.Limit
	rule   *mesh.LocalRateLimit
	status int
}

// compileLimits finds the limits that hold for this proxy.
func (c *compiler) compileLimits() {
	for _, r := range c.snapshot.Config.LocalRateLimits {
		if !r.AppliesTo(c.node) {
			continue
		}
		l := limit{rule: r, status: r.Status, Limit: ratelimit.New(r.MaxTokens, r.TokensPerFill, r.FillInterval, r.Enabled, r.Enforced)}
		for kind, holds := range map[listenerKind]bool{outbound: r.Outbound, inbound: r.Inbound, gateway: r.Gateway} {
			if holds {
				c.limits[kind] = append(c.limits[kind], l)
			}
		}
	}
}

// keepBuckets takes over the buckets of rules that have not changed, so that a
// new snapshot does not fill them.
func (t *table) keepBuckets(old *table) {
	for kind := range t.limits {
		for i := range t.limits[kind] {
			l := &t.limits[kind][i]
			for _, o := range old.limits[kind] {
				if sameLimit(l.rule, o.rule) {
					l.Limit = o.Limit
				}
			}
		}
	}
}

func sameLimit(a, b *mesh.LocalRateLimit) bool {
	return a.Namespace == b.Namespace && a.Name == b.Name && a.MaxTokens == b.MaxTokens && a.TokensPerFill == b.TokensPerFill &&
		a.FillInterval == b.FillInterval && a.Enabled == b.Enabled && a.Enforced == b.Enforced
}
