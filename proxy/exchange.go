package proxy

import (
	"isthmus/auth"
	"isthmus/balancer"
	"isthmus/breaker"
	"isthmus/canary"
	"isthmus/extauthz"
	"isthmus/http1"
	"isthmus/mesh"
)

// listenerKind says whose requests a listener takes.
type listenerKind uint8

const (
	outbound listenerKind = iota // the application's, to the mesh
	inbound                      // the mesh's, to the application
	gateway                      // anybody's
)

// exchange is one request and its reply, with all the memory that they need.
// It is borrowed from a pool with the first byte of a request, so an idle
// connection has none.
type exchange struct {
	conn  *conn
	table *table      // pinned for the whole exchange
	arm   *canary.Arm // by which it is counted where a candidate is tried; nil: by none

	req     http1.Request
	res     http1.Response
	out     []byte // the message being built, head first
	headLen int    // how much of out is the head of a reply that has not gone out
	value   []byte // of a field being put together
	cookies []byte // of a request over HTTP/2, joined
	interim []byte // a 1xx reply, beside a request in out that is still being sent
	start   instant
	clock   instant // about now: when bytes came last

	timing
	delayed instant // for how long, by the route's fault

	dialect  dialect          // of gRPC
	bridged  bool             // a call of gRPC-Web is made one of gRPC
	webReply bool             // its reply is made one of gRPC-Web
	text     textReader       // of the body of one in text
	id       [uuidLength]byte // x-request-id where the request brought none
	hasID    bool             // id is set
	route    *route
	matched  *requestMatch // the condition by which route was found
	host     *virtualHost
	upgrade  upgrade
	body     requestBody
	pumping  pumping
	fields   []http1.Field // a changed copy of the request's, for header rules

	said      []byte // see scheme
	sanitized bool   // what a gateway does not believe has been taken off
	told      bool   // see tellOrigin

	// What has become of the reply.
	replying bool // its head has gone out
	status   int
	kind     Kind
	keep     bool // the downstream connection may carry another request

	// What policies say of the request, on a proxy that has any.
	subject  auth.Request
	asked    *inquiry // nil: somebody has sent the request
	badToken *auth.TokenError
	refusal  *auth.Refusal
	verdict  *extauthz.Verdict // of an authorization service that refuses
	added    mesh.HeaderOps    // what one that allows adds to the reply

	overloaded, unsent bool        // what a reply of our own says besides
	limited            *limitReply // how a rate limit refuses

	drawn     int              // one more than the place of the destination that was drawn; 0: none yet
	attempts  int              // tries so far
	member    *member          // of the last one
	leased    lease            // the connection of the one under way
	tried     []*balancer.Host // hosts that the request was sent to, or that refused
	counted   *live            // the upstream among whose requests this one is
	retrying  *breaker.Budget  // from which this try is
	ending    bool             // see workers.ends
	unwanted  bool             // the reply is one that the retry policy calls a failure
	introduce bool             // this try is the first of a connection to another proxy
	movable   bool             // to another endpoint, if this one no longer answers
	cookie    []byte           // Set-Cookie of the reply, for consistent hashing
	cookieOf  *mesh.HashCookie // what it was made by
	scratch   [256]byte

	trail     trail // what it met, for Why
	traced    traced
	tally     tally
	replyKept http1.Header // fields of the reply that the access log asks for
	kept      []byte       // their values

	requestChunks, replyChunks http1.ChunkReader
}

// serve carries one exchange over the connection. It returns when the reply is
// out, or when there can be none. The request's head has been read, and came at
// start.
func (x *exchange) serve(start instant) {
	defer x.record()
	x.start, x.clock = start, start
	x.table = x.conn.proxy.table.Load()
	if x.table.trial != nil {
		x.pin(x.table.trial)
		x.arm = x.table.arm
	}
	x.keep, x.conn.prods = !x.req.Close, x.req.Minor > 0
	if r := x.table.tracing[x.conn.kind]; r != nil {
		x.beginTrace(r)
	}
	x.readDialect()

	err := x.conn.proxy.judge()
	if err == NoError && x.req.Upgrade != nil {
		err = x.readUpgrade()
	}
	if err == NoError {
		err = x.decide()
	}
	if err == NoError {
		err = x.admit()
	}
	if err != NoError {
		x.refuse(err)
		return
	}
	switch a := &x.route.action; {
	case a.cors != nil && x.preflight(a.cors):
	case a.redirect != nil:
		x.redirect(a.redirect)
	case a.direct != nil && a.direct.Status < 300 && x.conn.h2 != nil && x.upgrade.protocol != nil:
		x.refuse(NoUpgrade) // a 2xx would be a tunnel (RFC 8441 5), and nobody is at its other end
	case a.direct != nil:
		x.say(a.direct.Status, a.direct.Body)
	case a.fault == nil || x.inject(a.fault):
		if a.mirrors != nil && x.upgrade.protocol == nil {
			x.mirror(a.mirrors)
		}
		x.forward()
	}
}

// decide finds out what the request is for, whether policies let it pass, and
// which route it takes. Explain walks the same way with a request that nobody has
// sent.
func (x *exchange) decide() Kind {
	vh, err := x.findHost()
	x.host = vh
	if err == NoError {
		err = x.normalize()
	}
	judged := x.table.access != nil && x.conn.kind != outbound
	if err == NoError && (x.table.tells[x.conn.kind] || judged && x.table.access.needs.Origin) {
		x.tellOrigin()
	}
	if err == NoError && judged {
		err = x.authorize(vh)
	}
	if err == NoError {
		err = x.findRoute(vh)
	}
	return err
}

// findHost finds the virtual host that the request's authority means on this
// listener.
func (x *exchange) findHost() (*virtualHost, Kind) {
	if x.conn.kind == inbound {
		return x.inboundHost()
	}
	host, port, ok := splitAuthority(x.scratch[:], x.req.Authority)
	if !ok {
		x.trail.cause = errAuthority
		return nil, BadRequest
	}
	if x.conn.kind == gateway {
		return x.gatewayHost(host, port)
	}
	if vh := x.table.outbound.find(host, port); vh != nil {
		return vh, NoError
	}
	return nil, NoRoute
}

// gatewayHost finds the virtual host on a Gateway's port. Over TLS, it is one of
// the server that the connection's server name has chosen.
func (x *exchange) gatewayHost(host []byte, port uint32) (vh *virtualHost, k Kind) {
	t, c := x.table.gateway(x.conn.port), x.conn
	switch {
	case t == nil:
	case !c.https:
		if t.hosts != nil {
			vh = t.hosts.find(host, port)
		}
	case t.sni != nil:
		r := t.sni.find(c.serverName, c)
		if r == nil || r.terminate == nil || r.terminate.hosts == nil {
			c.leave() // it is of another snapshot: who comes anew is served otherwise
			break
		}
		if string(host) != c.serverName {
			// A server name that is this host would have to choose the same server:
			// another one has other certificates, and lets other clients in (RFC 9110
			// 15.5.20), though a wildcard of this one may be for the host as well.
			if o := t.sni.find(string(host), c); o == nil || o.terminate != r.terminate {
				return nil, Misdirected
			}
		}
		vh = r.terminate.hosts.find(host, port)
	}
	if vh == nil {
		return nil, NoRoute
	}
	return vh, NoError
}

// normalize brings the path into the form that is judged, matched and sent on.
func (x *exchange) normalize() Kind {
	if !normalPath(x.req.Path) {
		path, err := normalizePath(x.req.Path)
		if err != nil {
			x.trail.cause = err
			return BadRequest
		}
		x.req.Path = path
	}
	if n := x.table.snapshot.Config.PathNormalization; n != mesh.PathsBase {
		x.req.Path = mergeSlashes(x.req.Path, n)
	}
	return NoError
}

// findRoute finds the first route that fits.
func (x *exchange) findRoute(vh *virtualHost) Kind {
	if x.route = vh.find(x); x.route == nil {
		return NoRoute
	}
	if rw := x.route.rewrite; rw != nil && x.climbs(rw) {
		x.trail.cause = errRewritten
		return BadRequest
	}
	return NoError
}

// admit takes the request in: limits let it pass, its deadline starts, and its
// body is read as far as it fits.
func (x *exchange) admit() Kind {
	if c := x.limits(); c != nil {
		if kind := x.limit(c); kind != NoError {
			return kind
		}
	}
	asked := x.body.opened // who was asked has seen the body, which took its time
	x.setDeadline()
	k := x.body.open(x)
	x.countAsked(x.body.data)
	if x.body.whole {
		x.tally.received = x.clock
	}
	if x.pending || asked {
		x.settleDeadline()
	}
	return k
}

// splitAuthority takes host and port apart, the host in lower case and without
// a trailing dot. dst is where it may put a changed host.
func splitAuthority(dst, authority []byte) (host []byte, port uint32, ok bool) {
	host = authority
	for i := len(host) - 1; i >= 0; i-- {
		c := host[i]
		if c == ':' {
			digits := host[i+1:]
			if len(digits) > 5 {
				return nil, 0, false
			}
			for _, d := range digits {
				port = port*10 + uint32(d-'0')
			}
			host = host[:i]
			break
		}
		if c < '0' || c > '9' {
			break
		}
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) == 0 || len(host) > len(dst) || port > 65535 {
		return nil, 0, false
	}
	for i, c := range host {
		if 'A' <= c && c <= 'Z' {
			lower := dst[:len(host)]
			copy(lower, host[:i])
			for j := i; j < len(host); j++ {
				lower[j] = lowerByte(host[j])
			}
			return lower, port, true
		}
	}
	return host, port, true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// scheme is what x-forwarded-proto and a match on the scheme say, and what redirects
// keep: how the client has asked.
func (x *exchange) scheme() []byte {
	if x.said == nil {
		x.said = x.findScheme()
	}
	return x.said
}

// findScheme finds the scheme: that of the connection, or what a trusted proxy before
// a gateway says, which may have terminated TLS (Envoy: xff_num_trusted_hops). Of
// several words the last one is that proxy's, and goes on.
func (x *exchange) findScheme() []byte {
	if x.conn.kind == gateway && x.conn.proxy.trusted > 0 {
		var proto []byte
		for i := range x.req.Fields {
			if f := &x.req.Fields[i]; f.ID == http1.XForwardedProto {
				proto = f.Value
			}
		}
		switch {
		case equalFold(proto, "https"):
			return schemeHTTPS
		case equalFold(proto, "http"):
			return schemeHTTP
		}
	}
	if x.conn.https {
		return schemeHTTPS
	}
	return schemeHTTP
}

var schemeHTTP, schemeHTTPS = []byte("http"), []byte("https")
