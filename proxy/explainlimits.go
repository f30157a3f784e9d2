package proxy

import (
	"cmp"
	"fmt"
	"time"

	"isthmus/explain"
	"isthmus/mesh"
	"isthmus/ratelimit"
)

// admitAt asks local limits as limit does, at a time of the past. Global ones are for
// others to decide, and of connections with buckets of their own nobody knows which
// it was.
func (x *exchange) admitAt(e *explain.Explanation, t time.Time) Kind {
	c := x.limits()
	if c == nil {
		return NoError
	}
	for i := range c.limits {
		l := &c.limits[i]
		if l.local == nil || l.local.Rule.PerConnection {
			continue
		}
		var d *ratelimit.Descriptors
		if len(l.actions) > 0 {
			d = new(ratelimit.Descriptors)
			x.countBy(d, l)
		}
		if l.local.Take(t, d, nil).Refused {
			e.Limits[i].Refused = true
			x.limited = l.refusal
			return l.refusal.kind
		}
	}
	return NoError
}

// explainLimits lists the rate limits that the request would be counted in, and
// by what.
func (x *exchange) explainLimits(e *explain.Explanation) {
	if x.host == nil {
		return
	}
	c := x.host.limits
	if x.route != nil {
		c = x.limits()
	}
	if c == nil {
		return
	}
	for i := range c.limits {
		l := &c.limits[i]
		says := l.explain()
		if x.route != nil && (len(l.actions) > 0 || l.global != nil) {
			var d ratelimit.Descriptors
			x.countBy(&d, l)
			says += "; counted by " + cmp.Or(d.String(), "nothing, so it does not count")
		}
		e.Limits = append(e.Limits, explain.Limit{Says: says, Source: l.info.source.String()})
	}
}

// explain says in words what a limit does.
func (l *limiter) explain() (says string) {
	if l.global != nil {
		g := l.global.rule
		says = fmt.Sprintf("domain %s, decided by %s within %v", l.global.domain, g.Cluster, g.Timeout)
		switch l.global.asker.(type) {
		case nil:
			says = fmt.Sprintf("domain %s: nobody decides, since no address is known of %s", l.global.domain, g.Cluster)
		case *ratelimit.Service:
		default:
			says = fmt.Sprintf("domain %s, kept by all proxies together", l.global.domain)
		}
		return says + fmt.Sprintf("; beyond: %d", g.Status) + explainShares(g.Enabled, g.Enforced)
	}
	r := l.local.Rule
	if b := r.Bucket; b != nil {
		says = fmt.Sprintf("%d at once, then %d every %s on this proxy", b.MaxTokens, b.TokensPerFill, b.FillInterval)
	} else {
		says = "by descriptor on this proxy"
	}
	return says + fmt.Sprintf("; beyond: %d", r.Status) + explainShares(r.Enabled, r.Enforced)
}

func explainShares(enabled, enforced mesh.Fraction) (says string) {
	if enabled < mesh.AllRequests {
		says += fmt.Sprintf("; for %s of requests", fraction(enabled))
	}
	if enforced < mesh.AllRequests {
		says += fmt.Sprintf("; enforced for %s of them", fraction(enforced))
	}
	return says
}
