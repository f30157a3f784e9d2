package proxy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"isthmus/auth"
	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// access is what the policies for this proxy ask of requests on its inbound
// listener and its gateways. Nil: nothing.
type access struct {
	tokens *auth.Tokens // nil: none are read
	rules  *auth.Rules  // nil: everything is allowed
	askers map[string]*auth.Asker

	needs auth.Needs
}

// compileAccess makes what a snapshot asks for. Key sets, verified tokens and
// connections to authorization services live on; the latter are entered in kept.
// The caller holds mu.
func (p *Proxy) compileAccess(s *mesh.Snapshot, kept map[string]*auth.Asker) *access {
	policies := mesh.AuthorizationOf(s.Node, s.Config.AuthorizationPolicies)
	a := &access{
		tokens: auth.NewTokens(mesh.TokenRulesOf(s.Node, s.Config.RequestAuthentications), p.keys),
		rules:  auth.NewRules(policies, append([]string{s.Node.TrustDomain}, s.Node.TrustAliases...), p.tallies.of),
		askers: map[string]*auth.Asker{},
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
			asker = auth.NewAsker(provider, p.dialHelper(provider.Service, provider.Port))
		}
		kept[k], a.askers[provider.Name] = asker, asker
	}
	if a.tokens == nil && a.rules == nil {
		return nil
	}
	return a
}

// tallies count what policies have matched, for as long as there are such and some time
// more.
type tallies struct {
	mu       sync.Mutex // guards byPolicy
	byPolicy map[telemetry.Policy]*keptTally
}

type keptTally struct {
	auth.Tally
	gone time.Time // since when it was found to be of no policy; zero: it was not
}

func tallied(p *mesh.AuthorizationPolicy) telemetry.Policy {
	return telemetry.Policy{Name: p.Namespace + "/" + p.Name, Action: p.Action.String(), DryRun: p.DryRun}
}

func (t *tallies) of(p *mesh.AuthorizationPolicy) *auth.Tally {
	k := tallied(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byPolicy == nil {
		t.byPolicy = map[telemetry.Policy]*keptTally{}
	}
	if t.byPolicy[k] == nil {
		t.byPolicy[k] = &keptTally{}
	}
	t.byPolicy[k].gone = time.Time{} // whoever asks is about to use it
	return &t.byPolicy[k].Tally
}

// list returns what has been counted, and forgets those of policies that have been gone
// for long.
func (t *tallies) list(inUse map[telemetry.Policy]bool) map[telemetry.Policy]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, out := time.Now(), map[telemetry.Policy]uint64{}
	for k, kept := range t.byPolicy {
		switch {
		case inUse[k]:
			kept.gone = time.Time{}
		case kept.gone.IsZero():
			kept.gone = at
		case at.Sub(kept.gone) > telemetry.KeptFor:
			delete(t.byPolicy, k)
			continue
		}
		out[k] = kept.Matched.Load()
	}
	return out
}

// PolicyMatches returns how many requests each AuthorizationPolicy has matched.
func (p *Proxy) PolicyMatches() map[telemetry.Policy]uint64 {
	inUse := map[telemetry.Policy]bool{}
	t := p.table.Load()
	for _, t := range []*table{t, t.trialTable()} {
		if t != nil {
			for _, policy := range mesh.AuthorizationOf(t.snapshot.Node, t.snapshot.Config.AuthorizationPolicies) {
				inUse[tallied(policy)] = true
			}
		}
	}
	return p.tallies.list(inUse)
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

// remoteAddress is the client's: at a gateway by x-forwarded-for as far as the
// proxies before it are believed (Envoy: xff_num_trusted_hops); at a sidecar what
// the proxy says that has called, if it has proved to be one. Whoever is on the
// loopback of that one is its own application: the client is where it is.
func (x *exchange) remoteAddress() netip.Addr {
	c, believed := x.conn, 0
	switch {
	case c.kind == gateway:
		believed = c.proxy.trusted
	case c.kind == inbound && c.identity != "":
		believed = 1
	}
	if believed == 0 {
		return c.address
	}
	told := x.forwardedFor(believed)
	if told == nil {
		return c.address
	}
	a := parseAddress(string(bytes.TrimSpace(told)))
	if c.kind == inbound && a.IsLoopback() {
		return c.address
	}
	return a
}

// forwardedFor returns the n-th address of x-forwarded-for from its end, or the first
// where there are fewer; nil: there is none.
func (x *exchange) forwardedFor(n int) (address []byte) {
	for i := len(x.req.Fields) - 1; i >= 0; i-- {
		if x.req.Fields[i].ID != http1.XForwardedFor {
			continue
		}
		for list := x.req.Fields[i].Value; ; n-- {
			at := bytes.LastIndexByte(list, ',')
			address = list[at+1:]
			if n == 1 {
				return address
			}
			if at < 0 {
				break
			}
			list = list[:at]
		}
		n--
	}
	return address
}

// parseAddress reads an address with or without a port. What is neither is
// nobody's: it is in no block.
func parseAddress(text string) netip.Addr {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a.Addr().Unmap()
	}
	a, _ := netip.ParseAddr(text)
	return a.Unmap()
}

// consult asks the authorization services that policies of action CUSTOM name, each
// once. Their answers may change the request, and the reply.
func (x *exchange) consult() Kind {
	a, kind := x.table.access, NoError
	var asked []string
	a.rules.Custom(&x.subject, func(p *mesh.AuthorizationPolicy) bool {
		if slices.Contains(asked, p.Provider) {
			return true
		}
		asked = append(asked, p.Provider)
		if kind = x.consultOne(a.askers[p.Provider]); kind == Denied {
			x.trail.cause = &deniedError{p, x.verdict.Status, x.trail.cause}
		}
		return kind == NoError
	})
	x.clock = now()
	return kind
}

func (x *exchange) consultOne(asker *auth.Asker) Kind {
	c := x.conn
	if asker == nil { // config refuses such a policy
		x.verdict = &auth.Verdict{Status: 403}
		return Denied
	}
	if n, longer := asker.BodyLimit(); n > 0 && (longer || x.req.Framing != http1.Length || x.body.length <= int64(n)) {
		if k := x.body.readAhead(x, n+1); k != NoError {
			return k
		}
	}
	if x.req.Hop {
		x.req.StripHopByHop()
	}
	x.tellOrigin()
	x.fields = x.introduceClient(append(x.fields[:0], x.req.Fields...))
	call := &auth.Call{
		Method: x.req.Method, Path: x.req.Path, Query: x.req.Query, HasQuery: x.req.HasQuery, Host: x.req.Authority, Scheme: string(x.scheme()),
		Fields: x.fields, Body: x.body.data, BodyPartial: !x.body.whole && !x.body.empty(),
		Principal: c.identity, OwnPrincipal: c.proxy.node.Identity, Source: netip.AddrPortFrom(c.address, 0), SNI: c.serverName,
	}
	if local, ok := c.localAddress(); ok {
		call.Destination = netip.AddrPortFrom(local, uint16(x.subject.Port))
	}
	if id, ok := x.req.Get(http1.XRequestID); ok {
		call.RequestID = string(id)
	}
	ctx, cancel := context.WithCancelCause(context.Background()) // Ask has a time-out of its own
	stop := c.watch(func() { cancel(errClientGone) })
	v, err := asker.Ask(ctx, call)
	stop()
	cancel(nil)
	if errors.Is(err, errClientGone) {
		return ClientGone
	}
	if err != nil {
		c.proxy.tellRefusal(c, byService, err)
		x.trail.cause = err
		v = asker.OnError()
	} else if v.Fault != nil {
		c.proxy.tellRefusal(c, byService, v.Fault)
		x.trail.cause = v.Fault
	}
	if !v.Allowed {
		x.verdict = v
		return Denied
	}
	x.req.Fields = change(x.req.Fields, &mesh.HeaderOps{Set: v.Set, Add: v.Add, Remove: v.Remove})
	x.added.Set, x.added.Add = append(x.added.Set, v.DownstreamSet...), append(x.added.Add, v.Downstream...)
	return NoError
}

// errClientGone is why a service is no longer asked.
var errClientGone = errors.New("the client has gone")

// refuser is what refuses somebody, or cannot serve him.
type refuser int

const (
	byHandshake refuser = iota
	byMode              // of PeerAuthentication
	byToken
	byPolicy
	byService      // for authorization
	byCertificate  // which a Gateway's server does not have
	byLimitService // which does not answer
	refusers
)

func (r refuser) String() string {
	return [...]string{"handshake", "peer authentication", "token", "policy", "authorization service", "certificate", "rate limit service"}[r]
}

// refusalsTold bounds how many refusals of each kind are told in the log: whoever is
// refused decides how many there are. Anybody can come in plain text: that shall not drown
// whom a policy refuses.
const refusalsTold = 10 // a second

// tellRefusal says in the log who was refused, and why.
func (p *Proxy) tellRefusal(c *conn, by refuser, err error) {
	if !p.refusals[by].Allow() {
		return
	}
	p.log.Info("refused", "by", by, "listener", c.listener.name, "peer", c.peer, "identity", c.identity, "why", err)
}

// auditsTold bounds how many requests a second the log tells of for policies of
// action AUDIT: more than people read, less than fills a disk in a day. All of them
// are counted.
const auditsTold = 100

// tellAudit says in the log which request a policy of action AUDIT fits.
func (p *Proxy) tellAudit(c *conn, q *auth.Request, more ...any) {
	if !p.audits.Allow() {
		return
	}
	p.log.Info("audited", append([]any{"by", q.Audited.Meta, "listener", c.listener.name, "peer", c.peer, "identity", c.identity}, more...)...)
}

// tellLimiter bounds how many things of a kind are told a second.
func tellLimiter(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(n), n) }
