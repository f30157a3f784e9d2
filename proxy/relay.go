package proxy

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
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
	c.relay(t, firstFit(t.gateways[c.port].tcp, c))
}

// sniTable returns what server names mean on the connection's listener; nil if
// it does not look at them.
func (c *conn) sniTable(t *table) *sniTable {
	switch c.kind {
	case outbound:
		return t.sni
	case gateway:
		if g := t.gateways[c.port]; g != nil {
			return g.sni
		}
	}
	return nil
}

// TLS alerts (RFC 8446 6) to a client whose connection goes nowhere, so that it
// can say why.
const (
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
	hello, err := c.readHello()
	switch {
	case err == nil:
	case errors.Is(err, sni.ErrMalformed), errors.Is(err, sni.ErrNotTLS), errors.Is(err, sni.ErrLong):
		c.sendAlert(alertDecodeError)
		c.countRefused(BadRequest)
		return false
	default:
		c.countRefused(ClientGone)
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
	case NoDestination, NoHealthy, ConnectFailure, ConnectTimeout, LinkDown, Overflow:
		c.sendAlert(alertInternalError)
	}
}

// terminate shakes hands as a Gateway's server, and reports whether that went
// well. name is the one in the ClientHello.
func (c *conn) terminate(s *tlsServer, name string) bool {
	serving, err := s.serving()
	if err != nil {
		if c.proxy.refusals.Allow() {
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
		s.vouch(c.stream, serving, c.identity)
	}
	return true
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

// relay passes a connection on, and returns when it has ended.
func (c *conn) relay(t *table, r *tcpRoute) Kind {
	if r == nil {
		c.countRefused(NoRoute)
		return NoRoute
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
	x.tally.upstream = up.local
	m.host.Begin()
	defer m.host.End()
	defer up.discard()
	counts := c.relaysOf(m)
	s := &relaySession{
		client: c, upstream: up, idle: u.relayIdle,
		sent:     func(n int) { counts.Sent(n); x.tally.replyBody += int64(n) },
		received: func(n int) { counts.Received(n); x.tally.pumped.Add(int64(n)) },
	}
	counts.Open()
	kind = s.run(u.maxDuration)
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
		c, err := u.lease(m, x.conn.stream, x.clock, now()+u.connectTimeout, true)
		x.clock = now()
		if err == nil {
			x.trail.cause = nil
			return c, u, NoError
		}
		x.trail.cause = err.Cause
		switch {
		case err.Kind == Timeout:
			return nil, nil, Overflow // in line for a connection
		case !answers[err.Kind].unsent || err.Kind == Overflow || plan.failovers == maxFailovers:
			return nil, nil, err.Kind
		}
		plan.failovers++
		plan.silent = plan.silent || err.Kind == ConnectTimeout
	}
}

// relaySession is a connection being relayed, or a tunnel that an upgrade has
// begun.
type relaySession struct {
	client         *conn
	upstream       *upstreamConn
	sent, received func(int) // count what the client is sent, and what it sends

	idle instant      // how long nothing may move either way; 0: for ever
	last atomic.Int64 // an instant: when bytes have moved

	ending sync.Once
	kind   Kind // why it has ended; written within ending

	// Of a WebSocket, which has no half: once a side has ended its own, the other
	// has closingTime to take leave.
	websocket bool
	half      atomic.Bool // one side has ended its own
	leaving   atomic.Bool // close it between two messages; see webSockets
	parted    atomic.Bool // that has been done, in one of the directions
}

// direction is one way through a relayed connection.
type direction struct {
	from, to         *stream
	count            func(int)
	fromKind, toKind Kind // what a failure of either side is

	frames frames // of a WebSocket
	client bool   // the client is the sender
	over   bool   // the receiver was told that nothing follows: what comes is dropped
}

// closingTime is how long a WebSocket may be silent of which one side has ended its
// own: for what is on its way over any distance.
const closingTime = instant(10 * time.Second)

// run moves bytes both ways until both sides have ended theirs, or longest has
// passed, unless that is 0. Of the two directions, one has a goroutine of its
// own, which ends with run.
func (s *relaySession) run(longest instant) Kind {
	c, up := s.client.stream, s.upstream.stream
	if c.raw == nil && c.register() != nil {
		return ClientGone
	}
	stall := cmp.Or(s.idle, maxTimeout)
	c.stall, up.stall = stall, stall
	s.moved()
	if longest != 0 {
		// A timer, not a limit for reading: a write to a side that takes nothing has
		// to end as well.
		timer := time.AfterFunc(time.Duration(longest), func() { s.end(DurationTimeout, false) })
		defer timer.Stop()
	}
	replies := make(chan struct{})
	go func() {
		defer close(replies)
		defer s.recover()
		s.forward(&direction{from: up, to: c, count: s.sent, fromKind: Terminated, toKind: ClientGone})
	}()
	s.forward(&direction{from: c, to: up, count: s.received, fromKind: ClientGone, toKind: Terminated, client: true})
	<-replies
	s.ending.Do(func() {}) // the timer may be about to end it: not any more
	return s.kind
}

// recover keeps what one relayed connection breaks from taking the others along;
// the goroutine that serves the client has its own.
func (s *relaySession) recover() {
	if r := recover(); r != nil {
		s.client.proxy.log.Error("panic while relaying a connection", "listener", s.client.listener.name, "peer", s.client.peer, "panic", r, slog.String("stack", string(debug.Stack())))
		s.end(Terminated, true)
	}
}

func (s *relaySession) moved() { s.last.Store(int64(now())) }

// limit is when the next bytes have to come; 0: never.
func (s *relaySession) limit() instant {
	idle := s.idle
	if s.websocket && s.half.Load() {
		idle = sooner(idle, closingTime)
	}
	if idle == 0 {
		return 0
	}
	return instant(s.last.Load()) + idle
}

// end ends both directions. With a reset, as one that came from one side is
// passed on to the other.
func (s *relaySession) end(k Kind, reset bool) {
	s.ending.Do(func() {
		s.kind = k
		s.client.kill(reset)
		s.upstream.kill(reset)
	})
}

// forward moves the bytes of one direction until its sender ends it.
func (s *relaySession) forward(d *direction) {
	from := d.from
	for {
		if from.in.len() > 0 {
			full := from.in.w == len(from.in.data)
			if err := s.pass(d); err != nil {
				s.failed(err, d.toKind)
				return
			}
			if full && from.plain() && d.to.plain() {
				fromErr, toErr := s.pour(d)
				switch {
				case fromErr != nil:
					s.failed(fromErr, d.fromKind)
					return
				case toErr != nil:
					s.failed(toErr, d.toKind)
					return
				}
			}
		}
		if err := s.part(d); err != nil {
			s.failed(err, d.toKind)
			return
		}
		from.limit = s.limit()
		switch _, err := from.fill(); {
		case err == nil, err == errInterrupted:
		case err == io.EOF:
			if s.parted.Load() && !d.over && d.frames.between() {
				// Whoever got our frame has ended its side without an answer, which would
				// have told the other.
				if err := d.to.writeBody(goingAway(d.client), false, now()); err != nil {
					s.failed(err, d.toKind)
					return
				}
			}
			d.to.closeWrite()
			if s.websocket {
				s.half.Store(true)
				d.to.interrupt() // whoever reads there has less time from now on
			}
			return
		case err == errTimeout && now() < s.limit():
			// Bytes have moved the other way meanwhile.
		default:
			s.failed(err, d.fromKind)
			return
		}
	}
}

// pass sends on what has come. Of a WebSocket that is to be closed, it looks after
// each frame whether that can be done.
func (s *relaySession) pass(d *direction) error {
	in := &d.from.in
	for in.len() > 0 && !d.over {
		p := in.bytes()
		if s.websocket {
			p = p[:d.frames.follow(p, s.leaving.Load())]
		}
		if err := d.to.writeBody(p, false, now()); err != nil {
			return err
		}
		in.r += len(p)
		d.count(len(p))
		if err := s.part(d); err != nil {
			return err
		}
	}
	in.r, in.w = 0, 0
	s.moved()
	return nil
}

// part closes a WebSocket that the proxy wants to end, if it can be done in this
// direction: whoever gets our frame answers it the other way, as if its peer had
// sent it, and both end their connections.
func (s *relaySession) part(d *direction) error {
	if !s.leaving.Load() || !d.frames.between() || !s.parted.CompareAndSwap(false, true) {
		return nil
	}
	d.over = true
	return d.to.writeBody(goingAway(d.client), false, now())
}

// failed ends both directions after a failure of one.
func (s *relaySession) failed(err error, k Kind) {
	switch {
	case (isTimeout(err) || err == errTimeout) && s.websocket && s.half.Load():
		s.end(NoError, false) // it was over
	case isTimeout(err), err == errTimeout:
		s.end(IdleTimeout, false)
	default:
		s.end(k, true)
	}
}

// pour moves bytes within the kernel, for as long as there are more at once, and of
// a WebSocket, as they belong to the frame under way. It returns the error of the
// side that has failed; the sender's, a reset say, is one that reading would not
// tell again.
func (s *relaySession) pour(d *direction) (fromErr, toErr error) {
	most := func() int {
		if s.websocket {
			return int(min(d.frames.left, pipeSize))
		}
		return pipeSize
	}
	if d.over || most() < spliceFrom {
		return nil, nil
	}
	p := takePipe()
	if p == nil {
		return nil, nil
	}
	defer p.release()
	for n := most(); n > 0; n = most() {
		n, err := d.from.tryPipe(p, n)
		if n == 0 || err != nil {
			return err, nil
		}
		if err := d.to.writePipe(p, now()); err != nil {
			return nil, err
		}
		d.frames.left -= min(d.frames.left, uint64(n))
		d.count(n)
		s.moved()
	}
	return nil, nil
}

// relayIdleDefault is how long a relayed connection may be silent, both ways;
// Istio's and Envoy's default.
const relayIdleDefault = time.Hour
