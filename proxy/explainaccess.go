package proxy

import (
	"cmp"
	"fmt"

	"isthmus/auth"
	"isthmus/explain"
	"isthmus/http1"
	"isthmus/mesh"
)

// inquiry is what explaining a request gathers on its way through the exchange.
// It stands in for what would ask others, or be counted.
type inquiry struct{ access *explain.Access }

// authorize judges as exchange.authorize does, without a trace.
func (q *inquiry) authorize(x *exchange, vh *virtualHost) Kind {
	a, out := x.table.access, q.access
	out.TokenSource = tokenSources(x.table.snapshot.Node, x.table.snapshot.Config)
	if a.rules.HasCustom() {
		var early *auth.Claims
		if a.needs.EarlyClaims {
			early = a.tokens.PreviewLook(&x.req)
		}
		for _, p := range a.rules.Asked(x.describe(a.needs, vh, early)) {
			out.Asks = append(out.Asks, fmt.Sprintf("%s, by %s (%s)", p.Provider, p.Meta, p.Source))
		}
	}
	var claims *auth.Claims
	if claims, x.badToken = explainToken(out, a.tokens, &x.req); x.badToken != nil {
		return Unauthorized
	}
	x.subject.Claims = claims
	if a.rules == nil {
		out.Verdict = "allowed"
		return NoError
	}
	if x.refusal = explainOpinion(out, a.rules.Opinion(x.describe(a.needs, vh, claims))); x.refusal != nil {
		return Forbidden
	}
	return NoError
}

// explainConnection judges as conn.authorizeConnection does, without a trace.
func (x *exchange) explainConnection(e *explain.Explanation, t *table, r *tcpRoute) {
	c := x.conn
	e.Access = x.explainCaller(t)
	if t.access == nil || t.access.rules == nil {
		e.Access.Verdict = "allowed"
		return
	}
	var q auth.Request
	c.describe(&q, t, t.access.needs, r.port)
	refused := ""
	if r := explainOpinion(e.Access, t.access.rules.Opinion(&q)); r != nil {
		refused = r.Error()
	} else if asked := t.access.rules.Asked(&q); len(asked) > 0 {
		refused = fmt.Sprintf("%s (%s) asks an authorization service about requests, and nobody sees any", asked[0].Meta, asked[0].Source)
		e.Access.Verdict, e.Access.By, e.Access.Source = "refused", asked[0].Meta.String(), asked[0].Source.String()
	}
	if refused != "" {
		a := &answers[Forbidden]
		e.Outcome, e.Flag, e.Detail, e.Reason = explain.Refused, a.flag, a.detail, "the connection ends: "+refused
	}
}

// tokenSources are the places of the rules by which tokens are judged.
func tokenSources(n *mesh.Node, c *mesh.Config) (out []string) {
	for _, r := range mesh.TokenRulesOf(n, c.RequestAuthentications) {
		out = append(out, r.Source.String())
	}
	return out
}

// explainToken says what a request's token is worth.
func explainToken(out *explain.Access, tokens *auth.Tokens, r *http1.Request) (*auth.Claims, *auth.TokenError) {
	claims, unverified, bad := tokens.Preview(r)
	switch {
	case bad != nil:
		out.Token, out.TokenSays = "refused", bad.Error()
	case claims == nil && tokens == nil:
		out.Token = "not read"
	case claims == nil:
		out.Token = "none"
	default:
		out.Token, out.TokenSays = "valid", fmt.Sprintf("issuer %s, subject %s", claims.Issuer, cmp.Or(claims.Subject, "none"))
		if unverified {
			out.Token = "unverified"
		}
	}
	return claims, bad
}

// explainOpinion says what policies do, and returns their refusal.
func explainOpinion(out *explain.Access, o auth.Opinion) *auth.Refusal {
	for _, p := range o.Counts {
		out.Counts = append(out.Counts, fmt.Sprintf("%s (%s)", p.Meta, p.Source))
	}
	out.Verdict = "allowed"
	if o.By != nil {
		out.By, out.Source = o.By.Meta.String(), o.By.Source.String()
		if o.Rule >= 0 {
			out.By += fmt.Sprintf(" rules[%d]", o.Rule)
			out.Source = o.By.Rules[o.Rule].Source.String()
		}
	}
	if o.Refusal != nil {
		out.Verdict, out.Field = "refused", o.Refusal.Field
	}
	return o.Refusal
}

// explainCaller says who calls, and whether that is by mTLS where it has to.
func (x *exchange) explainCaller(t *table) *explain.Access {
	a := &explain.Access{Caller: x.conn.identity, Token: "not read", Verdict: "not asked"}
	if x.conn.kind == inbound {
		a.Mode, a.ModeFrom = t.inbound.mode.Mode.String(), t.inbound.mode.Source.String()
	}
	if t.access == nil {
		a.Verdict = "allowed"
	}
	return a
}
