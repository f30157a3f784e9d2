package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/accesslog"
	"isthmus/auth"
	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/sni"
	"isthmus/tls"
)

// conn is one downstream connection, or one stream of a connection that speaks
// HTTP/2.
type conn struct {
	*stream
	*client

	last    instant     // about when the reply before was sent; 0 before the first
	waiting atomic.Bool // between two requests
	aborted bool        // a reply broke off: end with a reset

	shared atomic.Bool // it speaks HTTP/2: its reader is waiting always
}

// client is what is known of whoever is at the other end of a downstream
// connection. All streams of one share it.
type client struct {
	proxy    *Proxy
	patience *patience
	listener *listener
	kind     listenerKind
	port     uint32 // of the Gateway
	peer     string // the client's IP address
	address  netip.Addr
	remote   netip.AddrPort // the same, with its port

	end    accesslog.ClientEnd // see told
	caller atomic.Pointer[caller]

	serverName string // that TLS was terminated for; "" where the client named none
	https      bool   // TLS was terminated
	clientCert []byte // of a client that has shown one, as in x-forwarded-client-cert
	identity   string // the SPIFFE ID of a client that has proved it; "": nobody knows who it is

	leaving atomic.Bool // see leaves

	judged atomic.Pointer[auth.Peer] // the same, as policies name it; nil before the first that asks

	// What the server name of a connection between proxies is for; nil: it does not
	// say.
	destinationHost []byte
	destinationPort uint32

	limits connLimits

	uncounted bool // see uncount
}

func newConn(l *listener, fd int, peer netip.AddrPort) *conn {
	p := &l.proxy.patience[l.kind]
	return &conn{stream: acceptedStream(fd, p.write), client: &client{
		proxy: l.proxy, patience: p,
		listener: l, kind: l.kind, port: l.port, peer: peer.Addr().String(), address: peer.Addr().Unmap(),
		remote: netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()),
	}}
}

// lingerTimeout is how long we go on reading from a client that we have
// refused, so that it can read the refusal before a reset reaches it; nginx's
// lingering_time.
const lingerTimeout = instant(2 * time.Second)

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// serve carries exchanges one after the other. The listener starts it; it ends
// when either side ends the connection.
func (c *conn) serve() {
	defer c.listener.forget(c)
	defer c.recover()
	if t := c.proxy.table.Load(); c.kind == gateway && t.gateway(c.port).raw() {
		c.serveRaw(t)
		c.uncount()
		c.close()
		return
	}
	for {
		if !c.await() {
			break
		}
		if c.last == 0 && c.secure == nil {
			more, again := c.begin()
			if !more {
				break
			}
			if again && !tls.IsHTTP2(c.secure.ConnectionState().NegotiatedProtocol) {
				continue
			}
			if again || c.speaksHTTP2() {
				c.serveHTTP2()
				break
			}
		} else if c.last == 0 && c.kind == inbound && c.secure.ConnectionState().NegotiatedProtocol == tls.ProtocolTCP && c.speaksHTTP2() {
			c.serveHTTP2() // which was not agreed on
			break
		}
		x := exchanges.Get().(*exchange)
		x.conn = c
		more := c.exchange(x)
		x.release()
		if !more {
			break
		}
	}
	c.uncount()
	if c.aborted {
		c.abort()
		return
	}
	c.close()
}

// uncount gives back the connection's place among those that clients may have open, once:
// before the client, who may open the next one at once, can see its end.
func (c *conn) uncount() {
	if !c.uncounted {
		c.uncounted = true
		c.proxy.overload.open.Add(-1)
	}
}

// begin looks at the first byte of a connection, which tells TLS from plain text.
// more: requests follow; again: they have still to come.
func (c *conn) begin() (more, again bool) {
	t := c.proxy.table.Load()
	secure := sni.IsTLS(c.in.data[c.in.r])
	switch {
	case c.kind == inbound && secure:
		more = c.serveMesh(t)
		return more, more
	case c.kind == inbound && t.inbound.mode.StrictEverywhere():
		c.countRefused(PlainText)
		c.tellMode(t.inbound.mode.Source)
		return false, false
	case secure:
		if names := c.sniTable(t); names != nil {
			more = c.serveTLS(t, names)
			return more, more
		}
	}
	return true, false
}

// recover keeps one broken request from taking the others along.
func (c *conn) recover() {
	if r := recover(); r != nil {
		c.logPanic(r)
		c.abort()
	}
}

func (c *conn) logPanic(r any) {
	c.proxy.log.Error("panic while serving a request", "listener", c.listener.name, "peer", c.peer, "panic", r, slog.String("stack", string(debug.Stack())))
}

// await waits for the first bytes of a request, without a buffer.
func (c *conn) await() bool {
	c.large = false
	if c.in.len() > 0 {
		return true
	}
	c.in.release()
	if c.limit = c.last + c.patience.idle; c.last == 0 {
		c.limit = now() + c.patience.first
	}
	for {
		c.waiting.Store(true)
		if c.leaves() && !c.lastChance() {
			return false
		}
		_, err := c.fill()
		c.waiting.Store(false)
		if !errors.Is(err, errInterrupted) {
			return err == nil
		}
	}
}

// lastChance reports whether a request may still be read although the connection
// leaves: one that has come already; the first of a new connection, which gets as
// long as its bytes may be under way; and, as long as a draining proxy takes
// connections, or its port's socket is another's, any: the reply tells the client,
// which would else send its next request just when we end the connection.
func (c *conn) lastChance() bool {
	if !c.leaving.Load() && !c.proxy.draining.Load() {
		return true
	}
	if c.last == 0 {
		c.limit = min(c.limit, now()+acceptDelay)
		return now() < c.limit
	}
	shut := &c.proxy.shut
	if c.kind == outbound {
		shut = &c.proxy.alone
	}
	return !c.leaving.Load() && !shut.Load() || c.peek() == peekBytes
}

// exchange reads a head and carries the exchange. It reports whether the
// connection may carry another one.
func (c *conn) exchange(x *exchange) bool {
	if kind, status := c.readHead(x); kind != NoError {
		if kind != ClientGone {
			x.refuseHead(kind, status)
			c.linger()
		}
		return false
	}
	if c.kind == inbound && x.isProbe() {
		x.serveProbe()
	} else {
		x.serve(now())
	}
	c.last = x.clock
	if c.aborted {
		return false
	}
	if x.keep && x.pumping.unread {
		x.keep = x.discardLeftover()
	}
	if !x.keep {
		if !x.bodyRead() || c.in.len() > 0 {
			c.linger()
		}
		return false
	}
	return true
}

// readHead reads one request head. status is that of a refusal.
func (c *conn) readHead(x *exchange) (Kind, int) {
	x.req.Reset()
	started := instant(0)
	for {
		n, err := x.req.Parse(c.in.bytes(), http1.Limits{})
		if err != nil {
			if c.last == 0 && brokenPreface(c.in.bytes()) {
				return ClientGone, 0
			}
			status := 400
			var bad *http1.Error
			if errors.As(err, &bad) {
				status = bad.Status
			}
			x.trail.cause = err
			return BadRequest, status
		}
		if n > 0 {
			c.in.r += n
			x.tally.head = n
			return x.judgeHead()
		}
		if started == 0 {
			started = now()
			c.limit = started + c.patience.head
		}
		if c.in.w == len(c.in.data) {
			c.in.compact()
			if c.in.w == len(c.in.data) && !c.in.grow() {
				x.trail.cause = errHeadTooLarge
				return BadRequest, 431
			}
		}
		c.movable = true
		_, err = c.fill()
		c.movable = false
		switch {
		case err == nil, errors.Is(err, errInterrupted):
		case errors.Is(err, errTimeout):
			return RequestTimeout, 408
		default:
			return ClientGone, 0
		}
	}
}

// judgeHead says whether a request with this head may be made at all. status is
// that of a refusal.
func (x *exchange) judgeHead() (k Kind, status int) {
	switch {
	case string(x.req.Method) == "CONNECT":
		x.trail.cause = errConnect
		return BadRequest, 405
	case x.req.Underscore && x.conn.kind == gateway:
		// An application that turns names into variables would take
		// x_forwarded_for for x-forwarded-for.
		x.trail.cause = underscored(&x.req)
		return BadRequest, 400
	}
	return NoError, 0
}

// notTaken is why a request is refused that is well-formed. It says all there is to say.
type notTaken string

func (e notTaken) Error() string { return string(e) }

const (
	errConnect      = notTaken("CONNECT is not taken")
	errProtocol     = notTaken("of what a CONNECT may ask for, WebSocket alone is taken")
	errConnectBody  = notTaken("a CONNECT for a WebSocket has neither a length nor an end")
	errHeadTooLarge = notTaken("its head is larger than 60 KiB, or has more than 100 fields")
)

// underscored says that a name has a "_" in it, and which.
func underscored(r *http1.Request) error {
	name := ""
	for i := range r.Fields {
		if bytes.IndexByte(r.Fields[i].Name, '_') >= 0 {
			name = string(r.Fields[i].Name)
			break
		}
	}
	return notTaken(fmt.Sprintf("a gateway takes no field with a \"_\" in its name, as %q has one: some servers would take it for a \"-\"", name))
}

// linger ends our side and reads on for a while, so that the client gets to
// read the refusal before a reset for its unread bytes reaches it.
func (c *conn) linger() {
	c.closeWrite()
	c.limit = now() + lingerTimeout
	for {
		c.in.r, c.in.w = 0, 0
		if _, err := c.fill(); err != nil && !errors.Is(err, errInterrupted) {
			return
		}
	}
}

// release gives the exchange's memory back.
func (x *exchange) release() {
	x.reset()
	exchanges.Put(x)
}

// reset makes the exchange ready for the next request.
func (x *exchange) reset() {
	x.body.kept.recycle()
	if x.body.larger.data != nil || x.pumping.larger.data != nil {
		x.body.larger.recycle()
		x.pumping.larger.release()
	}
	out, fields, tried := x.out[:0], x.fields[:0], x.tried[:0]
	x.tally, x.traced, x.replyKept.Fields = tally{}, traced{}, x.replyKept.Fields[:0]
	clear(tried[:cap(tried)])
	if cap(out) > 2*largeBufferSize {
		out = nil // one enormous head shall not be kept for ever
	}
	x.conn, x.table, x.arm, x.route, x.matched, x.host, x.member = nil, nil, nil, nil, nil, nil, nil
	x.body, x.kind, x.status, x.replying = requestBody{}, NoError, 0, false
	x.dialect, x.bridged, x.webReply = notGRPC, false, false
	x.upgrade.protocol, x.upgrade.agreed, x.upgrade.websocket = nil, false, false
	x.trail.forget()
	x.overloaded, x.unsent, x.hasID, x.sanitized, x.told, x.attempts, x.cookie, x.delayed = false, false, false, false, false, 0, nil, 0
	x.limited, x.drawn, x.timing, x.said = nil, 0, timing{}, nil
	if x.subject.Peer != nil || x.subject.Claims != nil {
		x.subject, x.refusal = auth.Request{}, nil
	}
	if x.badToken != nil || x.verdict != nil || x.added.Set != nil || x.added.Add != nil {
		x.badToken, x.verdict, x.added = nil, nil, mesh.HeaderOps{}
	}
	x.pumping.unread, x.pumping.short = false, false
	if x.pumping.came.Load() != 0 {
		x.pumping.came.Store(0)
	}
	if x.pumping.begun.Load() {
		x.pumping.begun.Store(false)
	}
	if x.pumping.continued.Load() != 0 {
		x.pumping.continued.Store(0)
	}
	if x.pumping.answered.Load() {
		x.pumping.answered.Store(false)
	}
	x.out, x.fields, x.tried = out, fields, tried
}

// refuseHead answers a request that could not be read.
func (x *exchange) refuseHead(k Kind, status int) {
	x.keep = false
	x.kind = k
	x.start = now()
	x.clock = x.start
	x.table = x.conn.proxy.table.Load()
	x.req.Minor = 1
	x.req.Framing, x.req.Fields = http1.NoBody, x.req.Fields[:0]
	x.local(status, nil)
	x.record()
}
