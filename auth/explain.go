package auth

import "isthmus/mesh"

// Opinion is what the policies say of a request that nobody has sent. Nothing is
// counted, and no authorization service is asked.
type Opinion struct {
	Refusal *Refusal // nil: it is allowed

	// By and Rule are the policy that decides; nil: none says anything of the
	// request, which passes as there is no ALLOW policy.
	By   *mesh.AuthorizationPolicy
	Rule int

	Counts []*mesh.AuthorizationPolicy // AUDIT and dry-run policies that fit
}

// Asked returns the policies of action CUSTOM that a request would have to pass.
func (r *Rules) Asked(q *Request) (out []*mesh.AuthorizationPolicy) {
	if r == nil {
		return nil
	}
	for _, p := range r.custom {
		if p.match(q) != nil {
			out = append(out, p.AuthorizationPolicy)
		}
	}
	return out
}

// Opinion says what Check would.
func (r *Rules) Opinion(q *Request) Opinion {
	var o Opinion
	if r == nil {
		return o
	}
	for _, list := range [...][]*policy{r.audit, r.dry} {
		for _, p := range list {
			if p.match(q) != nil {
				o.Counts = append(o.Counts, p.AuthorizationPolicy)
			}
		}
	}
	m, refused := r.decide(q)
	if refused {
		o.Refusal = r.refusal(m, q)
		o.By, o.Rule = o.Refusal.Policy, o.Refusal.Rule
	} else if m != nil {
		o.By, o.Rule = m.policy.AuthorizationPolicy, m.index
	}
	return o
}
