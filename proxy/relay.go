package proxy

import (
	"errors"
	"time"

	"isthmus/sni"
)

// A connection whose requests nobody tells apart is relayed: its bytes go to
// one endpoint as they come, and back. Which endpoint, its server name says if it
// begins as TLS, or else the port. Until it is connected to, another endpoint may
// take its place; nothing is tried again after that.

// serveRaw relays a connection to a port of protocol TCP. The client need not
// speak first.
func (c *conn) serveRaw(t *table) {
	c.relay(t, firstFit(t.gateway(c.port).tcp, c))
}

// sniTable returns what server names mean on the connection's listener; nil if
// it does not look at them.
func (c *conn) sniTable(t *table) *sniTable {
	switch c.kind {
	case outbound:
		return t.sni
	case gateway:
		if g := t.gateway(c.port); g != nil {
			return g.sni
		}
	}
	return nil
}

// TLS alerts (RFC 8446 6) to a client whose connection goes nowhere, so that it
// can say why.
const (
	alertAccessDenied     = 49
	alertDecodeError      = 50
	alertInternalError    = 80
	alertUnrecognizedName = 112
)

// sendAlert sends a fatal alert.
func (c *conn) sendAlert(description byte) {
	c.write([]byte{21, 3, 3, 0, 2, 2, description}, now())
}

// serveTLS serves a connection that begins as TLS, of which the first bytes have
// come, by the name in its ClientHello: it relays it to its end, or shakes hands,
// so that HTTP may follow.
func (c *conn) serveTLS(t *table, names *sniTable) (http bool) {
	hello, ok := c.hello()
	if !ok {
		return false
	}
	r := names.find(hello.ServerName, c)
	if r != nil && r.terminate != nil {
		if !c.terminate(r.terminate, hello.ServerName) {
			return false
		}
		if r.terminate.hosts != nil {
			return true
		}
		c.relay(t, firstFit(r.terminate.relay, c))
		return false
	}
	c.serverName = hello.ServerName
	c.relayTLS(t, r)
	return false
}

// relayTLS passes a connection on that has begun as TLS, or says why not.
func (c *conn) relayTLS(t *table, r *tcpRoute) {
	switch kind := c.relay(t, r); kind {
	case NoRoute:
		c.sendAlert(alertUnrecognizedName)
	case Forbidden:
		c.sendAlert(alertAccessDenied)
	case NoDestination, NoHealthy, ConnectFailure, ConnectTimeout, LinkDown, Overflow:
		c.sendAlert(alertInternalError)
	}
}

// terminate shakes hands as a Gateway's server, and reports whether that went
// well. name is the one in the ClientHello.
func (c *conn) terminate(s *tlsServer, name string) bool {
	serving, err := s.serving()
	if err != nil {
		if c.proxy.refusals[byCertificate].Allow() {
			c.proxy.log.Warn("no certificate for a client", "listener", c.listener.name, "name", name, "server", s.settings.Source, "error", err)
		}
		c.sendAlert(alertInternalError)
		return false
	}
	c.serverName = name
	if err := c.acceptTLS(serving.config, now()+c.patience.head); err != nil {
		c.refuseHandshake(err)
		return false
	}
	c.https = true
	if state := c.secure.ConnectionState(); len(state.PeerCertificates) > 0 {
		c.clientCert = appendClientCert(nil, state.PeerCertificates[0])
		c.identity = s.identityOf(&state)
	}
	c.vouchAdmission(admission{s.terminator, serving, s.own.Identity()})
	return true
}

// hello reads the ClientHello of a connection that begins as TLS. Without one, the
// client is told if it could hear so, and the connection is counted as refused.
func (c *conn) hello() (h sni.Hello, ok bool) {
	h, err := c.readHello()
	switch {
	case err == nil:
		return h, true
	case errors.Is(err, sni.ErrMalformed), errors.Is(err, sni.ErrNotTLS), errors.Is(err, sni.ErrLong):
		c.sendAlert(alertDecodeError)
		c.countRefused(BadRequest)
	default:
		c.countRefused(ClientGone)
	}
	return h, false
}

// readHello reads until the ClientHello is whole. Its bytes stay where they are.
func (c *conn) readHello() (sni.Hello, error) {
	c.limit = now() + c.patience.head
	for {
		hello, err := sni.Parse(c.in.bytes())
		if !errors.Is(err, sni.ErrShort) {
			return hello, err
		}
		if c.in.w == len(c.in.data) {
			c.in.compact()
			if c.in.w == len(c.in.data) && !c.in.grow() {
				return hello, sni.ErrLong
			}
		}
		if _, err := c.fill(); err != nil && !errors.Is(err, errInterrupted) {
			return hello, err
		}
	}
}

// countRefused counts a connection that goes nowhere.
func (c *conn) countRefused(k Kind) {
	counts := c.proxy.unroutedConns[c.kind]
	counts.Open()
	counts.Close(answers[k].flag)
	if t := c.proxy.table.Load(); t.logging[c.kind] != nil {
		x := c.relayed(t, nil)
		x.logRelay(k)
		x.release()
	}
}

// relayed borrows an exchange for a connection that is one as a whole.
func (c *conn) relayed(t *table, r *route) *exchange {
	x := exchanges.Get().(*exchange)
	x.req.Reset()
	x.conn, x.table, x.route = c, t, r
	x.start = now()
	x.clock = x.start
	return x
}

// relay passes a connection on, if policies let it pass, and returns when it has
// ended.
func (c *conn) relay(t *table, r *tcpRoute) Kind {
	if r == nil {
		c.countRefused(NoRoute)
		return NoRoute
	}
	if c.kind != outbound && c.authorizeConnection(t, r.port) != NoError {
		c.countRefused(Forbidden)
		return Forbidden
	}
	x := c.relayed(t, r.route)
	defer x.release()
	up, u, kind := x.connect()
	if kind != NoError {
		counts := c.proxy.unroutedConns[c.kind]
		if len(r.route.destinations) > 0 {
			counts = x.upstream(r.route.destinations[0].target).live.unreachedRelays
		}
		counts.Open()
		counts.Close(answers[kind].flag)
		x.logRelay(kind)
		return kind
	}
	m := x.member
	x.tally.upstream = up.told
	defer m.host.End(m.host.Begin())
	x.leased.begin(up, u)
	defer func() {
		x.leased.set(nil)
		up.discard()
		x.leased.over()
	}()
	counts := c.relaysOf(m)
	s := &relaySession{
		client: c, upstream: up, idle: u.relayIdle, over: x.leased.end,
		sent:     func(n int) { counts.Sent(n); x.tally.replyBody += int64(n) },
		received: func(n int) { counts.Received(n); x.tally.pumped.Add(int64(n)) },
	}
	counts.Open()
	if kind = s.run(u.maxDuration); kind == ClientGone && c.proxy.ended.Load() {
		kind = CutOff
	}
	counts.Close(answers[kind].flag)
	x.logRelay(kind)
	return kind
}

// connect opens a connection to an endpoint of the route, to another one if that
// fails.
func (x *exchange) connect() (*upstreamConn, *upstream, Kind) {
	x.attempts, x.tried = 0, x.tried[:0]
	plan := retryPlan{policy: noRetries}
	drawn := x.route.draw()
	for {
		_, u, m, kind := x.pick(drawn, &plan)
		if kind != NoError {
			return nil, nil, kind
		}
		x.attempts++
		x.member, x.tried = m, append(x.tried, m.host)
		trial := m.host.Begin()
		c, err := u.lease(m, x.conn.stream, x.clock, now()+u.connectTimeout, true, false)
		m.host.End(trial)
		x.clock = now()
		if err == nil {
			u.tracker.Connected(m.record)
			x.trail.cause = nil
			return c, u, NoError
		}
		x.trail.cause = err.Cause
		switch {
		case err.Kind == Timeout:
			return nil, nil, Overflow // in line for a connection
		case !answers[err.Kind].unsent || err.Kind == Overflow || plan.failovers == maxFailovers, x.alone(err.Kind):
			return nil, nil, err.Kind
		}
		plan.failovers++
		plan.silent = plan.silent || err.Kind == ConnectTimeout
	}
}

// relayIdleDefault is how long a relayed connection may be silent, both ways;
// Istio's and Envoy's default.
const relayIdleDefault = time.Hour
