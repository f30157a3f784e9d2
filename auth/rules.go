package auth

import (
	"sync/atomic"

	"isthmus/mesh"
)

// Rules are the AuthorizationPolicies for one node, compiled. They are
// immutable. A nil one has none, and allows everything.
type Rules struct {
	custom      []*policy
	deny, allow ruleSet
	audit       []*policy
	dry         []*policy // annotation istio.io/dry-run
	hasAllow    bool      // so that what no ALLOW policy allows is refused
}

// policy is a compiled AuthorizationPolicy.
type policy struct {
	*mesh.AuthorizationPolicy
	rules []*rule
	tally *Tally
}

// Tally counts what a policy has decided since the start.
type Tally struct {
	Matched atomic.Uint64 // requests that one of its rules fits
}

// NewRules compiles the policies for a node (see [mesh.AuthorizationOf]).
// domains are the names of the own trust domain: a principal of one of them is
// one of all of them, and "cluster.local" is another word for them. tally returns
// the counters of a policy; nil: nothing is counted.
func NewRules(list []*mesh.AuthorizationPolicy, domains []string, tally func(*mesh.AuthorizationPolicy) *Tally) *Rules {
	if len(list) == 0 {
		return nil
	}
	if len(domains) == 0 {
		domains = []string{mesh.LocalDomain}
	}
	r := &Rules{}
	var deny, allow []*policy
	for _, p := range list {
		c := &policy{AuthorizationPolicy: p, tally: &Tally{}}
		if tally != nil {
			c.tally = tally(p)
		}
		for i, m := range p.Rules {
			c.rules = append(c.rules, newRule(c, i, m, domains))
		}
		switch {
		case p.DryRun:
			r.dry = append(r.dry, c)
		case p.Action == mesh.ActionDeny:
			deny = append(deny, c)
		case p.Action == mesh.ActionAllow:
			allow = append(allow, c)
		case p.Action == mesh.ActionAudit:
			r.audit = append(r.audit, c)
		case p.Action == mesh.ActionCustom:
			r.custom = append(r.custom, c)
		}
	}
	r.deny, r.allow = newRuleSet(deny), newRuleSet(allow)
	r.hasAllow = len(allow) > 0
	return r
}

// Needs says what of a Request the policies look at that is dear to find out.
type Needs struct {
	Remote, Destination bool
	EarlyClaims         bool // by policies of action CUSTOM, which come before the token is judged
	Forwarded           bool // x-forwarded-for as such
	Origin              bool // what the proxy itself writes of where a request comes from, but for addresses
}

const forwardedFor = "x-forwarded-for"

// aboutOrigin reports whether a header, named in lower case, is one that the proxy writes.
func aboutOrigin(name string) bool {
	return name == "x-forwarded-proto" || name == "x-request-id" || name == "x-forwarded-client-cert"
}

// Needs returns what the policies look at.
func (r *Rules) Needs() (n Needs) {
	if r == nil {
		return n
	}
	for i, list := range [...][]*policy{r.custom, r.deny.policies, r.allow.policies, r.audit, r.dry} {
		for _, p := range list {
			for _, m := range p.rules {
				n.EarlyClaims = n.EarlyClaims || i == 0 && m.asksForToken()
				for i := range m.from {
					n.Remote = n.Remote || !m.from[i].remote.isZero()
				}
				for i := range m.when {
					n.Remote = n.Remote || m.when[i].Key == mesh.KeyRemoteIP
					n.Destination = n.Destination || m.when[i].Key == mesh.KeyDestinationIP
					n.Forwarded = n.Forwarded || m.when[i].Key == mesh.KeyHeader && m.when[i].Name == forwardedFor
					n.Origin = n.Origin || m.when[i].Key == mesh.KeyHeader && aboutOrigin(m.when[i].Name)
				}
			}
		}
	}
	return n
}

// Custom calls ask for each policy of action CUSTOM that a request has to pass,
// in order of their source, until it returns false.
func (r *Rules) Custom(q *Request, ask func(*mesh.AuthorizationPolicy) bool) {
	if r == nil {
		return
	}
	for _, p := range r.custom {
		if p.match(q) != nil {
			p.tally.Matched.Add(1)
			if !ask(p.AuthorizationPolicy) {
				return
			}
		}
	}
}

// HasCustom reports whether there is a policy of action CUSTOM.
func (r *Rules) HasCustom() bool { return r != nil && len(r.custom) > 0 }

// Check reports, by a refusal, whether a request may be made: not if a DENY
// policy matches, and not if there are ALLOW policies and none does (Istio's
// order). AUDIT and dry-run policies decide nothing and are counted.
func (r *Rules) Check(q *Request) *Refusal {
	if r == nil {
		return nil
	}
	for i, list := range [...][]*policy{r.audit, r.dry} {
		for _, p := range list {
			if p.match(q) == nil {
				continue
			}
			p.tally.Matched.Add(1)
			if i == 0 && q.Audited == nil {
				q.Audited = p.AuthorizationPolicy
			}
		}
	}
	m, refused := r.decide(q)
	if m != nil {
		m.policy.tally.Matched.Add(1)
	}
	if !refused {
		return nil
	}
	return r.refusal(m, q)
}

// refusal says why a request is refused: by a rule, or for want of one.
func (r *Rules) refusal(by *rule, q *Request) *Refusal {
	if by == nil {
		return r.nearest(q)
	}
	return &Refusal{Policy: by.policy.AuthorizationPolicy, Rule: by.index}
}

// decide says whether a request is refused, and by which rule that is so; nil if
// it is none's doing.
func (r *Rules) decide(q *Request) (by *rule, refused bool) {
	if m := r.deny.find(q); m != nil {
		return m, true
	}
	if !r.hasAllow {
		return nil, false
	}
	m := r.allow.find(q)
	return m, m == nil
}

// match returns the first rule that fits.
func (p *policy) match(q *Request) *rule {
	for _, r := range p.rules {
		if r.match(q) {
			return r
		}
	}
	return nil
}

// nearLooks is at how many rules is looked for the nearest, so that to refuse a
// request costs about as much as to carry it, however many rules there are.
const nearLooks = 64

// nearest finds the ALLOW rule of which most fits. Of more than are looked at, those
// come first that fit in what they are looked up by.
func (r *Rules) nearest(q *Request) *Refusal {
	out, best, looks := &Refusal{Rule: -1}, -1, nearLooks
	var nearest *rule
	look := func(list []*rule) (enough bool) {
		for _, m := range list {
			if looks--; looks < 0 {
				return true
			}
			if score := m.near(q); score > best {
				best, nearest = score, m
			}
		}
		return false
	}
	policies := r.allow.policies
	if r.allow.size > nearLooks {
		r.allow.visit(q, look)
	}
	for _, p := range policies {
		if look(p.rules) {
			break
		}
	}
	switch {
	case nearest != nil:
		out.Policy, out.Rule, out.Field = nearest.policy.AuthorizationPolicy, nearest.index, nearest.misses(q)
	case len(policies) > 0:
		out.Policy = policies[0].AuthorizationPolicy
	}
	return out
}
