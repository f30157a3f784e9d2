package proxy

import (
	"cmp"
	"fmt"
	"slices"

	"isthmus/auth"
	"isthmus/extauthz"
	"isthmus/mesh"
)

// access is what the policies for this proxy ask of requests on its inbound
// listener and its gateways. Nil: nothing.
type access struct {
	tokens *auth.Tokens // nil: none are read
	rules  *auth.Rules  // nil: everything is allowed
	askers map[string]*extauthz.Asker

	needs auth.Needs
}

// compileAccess makes what a snapshot asks for. Key sets, verified tokens and
// connections to authorization services live on; the latter are entered in kept.
// The caller holds mu.
func (p *Proxy) compileAccess(s *mesh.Snapshot, kept map[string]*extauthz.Asker) *access {
	policies := mesh.AuthorizationOf(s.Node, s.Config.AuthorizationPolicies)
	a := &access{
		tokens: auth.NewTokens(mesh.TokenRulesOf(s.Node, s.Config.RequestAuthentications), p.keys),
		rules:  auth.NewRules(policies, append([]string{s.Node.TrustDomain}, s.Node.TrustAliases...), p.tallies.of),
		askers: map[string]*extauthz.Asker{},
	}
	a.needs = a.rules.Needs()
	for _, provider := range s.Config.AuthorizationProviders {
		if !slices.ContainsFunc(policies, func(p *mesh.AuthorizationPolicy) bool { return p.Provider == provider.Name }) || a.askers[provider.Name] != nil {
			continue
		}
		same := *provider
		same.Source = mesh.Source{}
		k := fmt.Sprintf("%+v", same)
		asker := cmp.Or(kept[k], p.askers.find(k))
		if asker == nil {
			asker = extauthz.NewAsker(provider, p.dialHelper(provider.Service, provider.Port))
		}
		kept[k], a.askers[provider.Name] = asker, asker
	}
	if a.tokens == nil && a.rules == nil {
		return nil
	}
	return a
}

// authorize judges a request for a virtual host: what authorization services say,
// then its token, then who calls and what is asked for (Istio: CUSTOM, token,
// DENY, ALLOW). A service sees the request as it has come, and may bring the token
// with it.
func (x *exchange) authorize(vh *virtualHost) Kind {
	a, c := x.table.access, x.conn
	x.sanitize()
	if x.asked != nil {
		return x.asked.authorize(x, vh)
	}
	if a.rules.HasCustom() {
		var claims *auth.Claims
		if a.needs.EarlyClaims {
			claims = a.tokens.Look(&x.req)
		}
		x.describe(a.needs, vh, claims)
		if k := x.body.open(x); k != NoError {
			return k
		}
		if k := x.consult(); k != NoError {
			return k
		}
	}
	claims, bad := a.tokens.Check(&x.req)
	if bad != nil {
		x.badToken = bad
		c.proxy.tellRefusal(c, byToken, bad)
		return Unauthorized
	}
	x.subject.Claims = claims
	if a.rules == nil {
		return NoError
	}
	q := x.describe(a.needs, vh, claims)
	r := a.rules.Check(q)
	if q.Audited != nil {
		c.proxy.tellAudit(c, q, "method", string(x.req.Method), "path", string(x.req.Path), "allowed", r == nil)
	}
	if r != nil {
		x.refusal = r
		c.proxy.tellRefusal(c, byPolicy, r)
		if c.kind == inbound {
			x.route = vh.routes[0] // which it is counted with
		}
		return Forbidden
	}
	return NoError
}

// describe fills in what policies judge of a request.
func (x *exchange) describe(needs auth.Needs, vh *virtualHost, claims *auth.Claims) *auth.Request {
	q := &x.subject
	x.conn.describe(q, x.table, needs, vh.destinationPort())
	q.HTTP, q.Path, q.Claims = &x.req, x.req.Path, claims
	if needs.Remote {
		q.Remote = x.remoteAddress()
	}
	if needs.Forwarded && x.conn.kind == gateway {
		q.Forwarded, _ = x.fieldValue(string(nameForwardedFor))
	}
	return q
}

// authorizeConnection judges a connection whose bytes are passed on. port is as in
// tcpRoute.
func (c *conn) authorizeConnection(t *table, port uint32) Kind {
	a := t.access
	if a == nil || a.rules == nil {
		return NoError
	}
	var q auth.Request
	c.describe(&q, t, a.needs, port)
	r := a.rules.Check(&q)
	if q.Audited != nil {
		c.proxy.tellAudit(c, &q, "allowed", r == nil)
	}
	if r != nil {
		c.proxy.tellRefusal(c, byPolicy, r)
		return Forbidden
	}
	if a.rules.HasCustom() {
		denied := false
		a.rules.Custom(&q, func(*mesh.AuthorizationPolicy) bool { denied = true; return false })
		if denied {
			return Forbidden // there is no request that could be asked about
		}
	}
	return NoError
}

// describe fills in what a connection says of its requests.
func (c *conn) describe(q *auth.Request, t *table, needs auth.Needs, port uint32) {
	judged := c.judged.Load()
	if judged == nil {
		peer := auth.PeerOf(c.identity)
		judged = &peer
		c.judged.Store(judged)
	}
	*q = auth.Request{Peer: judged, Source: c.address, Remote: c.address, Port: port, SNI: c.serverName}
	if c.kind == gateway {
		q.Port = t.standing(c.port)
	}
	if needs.Destination {
		q.Destination, _ = c.localAddress()
	}
}

// destinationPort is the port that policies name: the one that the workload
// listens on.
func (vh *virtualHost) destinationPort() uint32 {
	if vh.workloadPort != 0 {
		return vh.workloadPort
	}
	return vh.port
}
