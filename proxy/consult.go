package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"isthmus/extauthz"
	"isthmus/http1"
	"isthmus/mesh"
)

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

func (x *exchange) consultOne(asker *extauthz.Asker) Kind {
	c := x.conn
	if asker == nil { // config refuses such a policy
		x.verdict = &extauthz.Verdict{Status: 403}
		return Denied
	}
	if n, longer := asker.BodyLimit(); n > 0 && (longer || x.req.Framing != http1.Length || x.body.length <= int64(n)) {
		if k := x.body.readAhead(x, n+1); k != NoError {
			return k
		}
	}
	if x.req.Hop {
		x.req.StripListed()
	}
	x.tellOrigin()
	x.fields = x.introduceClient(append(x.fields[:0], x.req.Fields...))
	call := &extauthz.Call{
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
