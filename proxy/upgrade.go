package proxy

import (
	"bytes"
	"errors"
	"sync"
	"time"

	"isthmus/http1"
	"isthmus/http2"
)

// A request may ask that its connection carry another protocol from the reply on:
// by Upgrade in HTTP/1.1 (RFC 9110 7.8), by extended CONNECT in HTTP/2 (RFC 8441),
// which is for WebSocket alone here. Inside, both are a GET with an Upgrade field,
// so that routes and policies see no difference. What follows the head is no
// request as long as the upstream has not said yes, in a way that it cannot have
// said by mistake: to let it pass before is how requests get by policies
// (CVE-2026-2833). From then on bytes are moved as those of a relayed connection.

// upgrade is what a request asks for in the place of another request.
type upgrade struct {
	protocol  []byte // nil: nothing, or nothing that can be had
	websocket bool
	key       [keyLength]byte // of a WebSocket, for HTTP/1.1
	agreed    bool            // the upstream has said yes
}

// readUpgrade finds out what a request with an Upgrade field asks for. An offer that
// is not made as it should be is none: whoever makes one has to be ready for that.
func (x *exchange) readUpgrade() Kind {
	empty := x.req.Framing == http1.NoBody || x.req.Framing == http1.Length && x.req.ContentLength == 0 // which some clients say
	if string(x.req.Method) != "GET" || !empty {
		return NoError
	}
	if x.upgrade.protocol = offered(x.req.Upgrade); x.upgrade.protocol == nil {
		return NoError
	}
	if x.upgrade.websocket = equalFold(x.upgrade.protocol, "websocket"); x.upgrade.websocket && !x.handshake() {
		x.trail.cause = errHandshake
		return BadRequest
	}
	// Of several protocols one is offered on: that is what policies and routes judge.
	x.req.Fields = append(removeField(x.req.Fields, &http1.Field{ID: http1.Upgrade}), http1.Field{Name: nameUpgrade, Value: x.upgrade.protocol, ID: http1.Upgrade})
	return NoError
}

var (
	errHandshake = errors.New("a WebSocket wants one Sec-WebSocket-Version, and one Sec-WebSocket-Key of 16 bytes in base64")
	errSwitched  = errors.New("101 for another protocol than was asked for")
	errPage      = errors.New("a 2xx in the place of the 101 that begins a WebSocket")
	errAccept    = errors.New("Sec-WebSocket-Accept does not fit the Sec-WebSocket-Key")
	errExtended  = errors.New("the endpoint speaks HTTP/2, and has not announced that it takes WebSocket over it (RFC 8441)")
)

// offered returns the first protocol of an Upgrade field that may be offered on.
// Not those that carry further requests, which nobody would look at.
func offered(list []byte) []byte {
	for more := true; more; {
		var protocol []byte
		protocol, list, more = bytes.Cut(list, []byte(","))
		protocol = bytes.Trim(protocol, " \t")
		name, version, versioned := bytes.Cut(protocol, []byte("/"))
		switch {
		case !http1.ValidName(name) || versioned && !http1.ValidName(version):
		case equalFold(name, "h2c"), equalFold(name, "h2"), equalFold(name, "http"), equalFold(name, "tls"):
		default:
			return protocol
		}
	}
	return nil
}

// readConnect makes of a CONNECT that has come over HTTP/2 what HTTP/1.1 would have
// said. end says that its stream has ended with it.
func (x *exchange) readConnect(end bool) (Kind, int) {
	r := &x.req
	switch {
	case r.Upgrade == nil:
		x.trail.cause = errConnect
		return BadRequest, 405
	case !equalFold(r.Upgrade, "websocket"):
		x.trail.cause = errProtocol
		return BadRequest, 501 // RFC 9220 3
	case end || r.Framing == http1.Length:
		x.trail.cause = errConnectBody
		return BadRequest, 400
	}
	r.Method, r.Framing, r.Expect100 = methodGet, http1.NoBody, false
	r.Add(nameConnection, nameUpgrade)
	r.Add(nameUpgrade, r.Upgrade)
	return NoError, 0
}

var methodGet, methodConnect = []byte("GET"), []byte("CONNECT")

// overtaken reports whether the client has sent something behind its head. If it
// does not get what it has asked for, nobody can tell what that is.
func (x *exchange) overtaken() bool {
	return !x.upgrade.agreed && x.conn.h2 == nil && (x.conn.in.len() > 0 || x.conn.peek() == peekBytes)
}

// lease gets a connection for the request. One that is to be a tunnel is new, since
// it cannot be tried again should a kept one end at that moment. An upstream that
// speaks HTTP/2 is asked for a WebSocket in that way if it takes that, or in
// HTTP/1.1 if its port lets it.
func (x *exchange) lease(u *upstream, m *member, deadline instant, fresh, again bool) (*upstreamConn, *Error) {
	client := x.conn.stream
	switch {
	case x.upgrade.protocol == nil:
		return u.lease(m, client, x.clock, deadline, fresh, again)
	case !u.multiplexes(client):
		return u.leaseWhole(m, client, x.clock, deadline, true)
	case x.upgrade.websocket:
		c, err := u.leaseStream(m, client, x.clock, deadline, again)
		if err != nil {
			return nil, err
		}
		takes, kind := c.takesConnect(sooner(deadline, now()+u.connectTimeout))
		if takes {
			return c, nil
		}
		c.discard()
		switch {
		case kind != NoError:
			return nil, &Error{Kind: kind, Upstream: u.key.String(), Endpoint: m.address}
		case !u.alsoHTTP1:
			return nil, &Error{Kind: NoUpgrade, Upstream: u.key.String(), Endpoint: m.address, Cause: errExtended}
		}
	case !u.alsoHTTP1:
		x.upgrade = upgrade{} // it is an ordinary request then
		return u.lease(m, client, x.clock, deadline, fresh, again)
	}
	return u.leaseWhole(m, client, x.clock, deadline, true)
}

// takesConnect reports whether the server takes extended CONNECT, which its first
// words say. Nothing has been sent otherwise, and kind is why that is unknown.
func (c *upstreamConn) takesConnect(limit instant) (takes bool, kind Kind) {
	takes, err := c.shared.h2.TakesConnect(limit.time())
	switch {
	case err == http2.ErrTimeout:
		return false, ConnectTimeout
	case err != nil:
		return false, ConnectFailure
	}
	return takes, NoError
}

// appendOffer offers the upgrade in HTTP/1.1.
func (x *exchange) appendOffer(out []byte) []byte {
	out = asHTTP1.field(out, nameConnection, nameUpgrade)
	out = asHTTP1.field(out, nameUpgrade, x.upgrade.protocol)
	if x.upgrade.websocket {
		out = asHTTP1.field(out, nameWebSocketKey, x.upgrade.key[:])
	}
	return out
}

// switches reports whether the reply says yes, or pretends to. To a client of HTTP/2 any
// 2xx does (RFC 9113 8.5), a page in the place of a WebSocket too.
func (x *exchange) switches(c *upstreamConn) bool {
	yes := x.res.Status/100 == 2
	return x.upgrade.protocol != nil && (c.h2 == nil && x.res.Status == 101 || (c.h2 != nil || x.conn.h2 != nil) && yes)
}

// agree judges a reply that says yes.
func (x *exchange) agree(c *upstreamConn) Kind {
	switch {
	case c.h2 != nil:
	case x.res.Status != 101:
		x.trail.cause = errPage
		return BadReply
	case x.res.Close || !bytes.EqualFold(x.res.Upgrade, x.upgrade.protocol):
		x.trail.cause = errSwitched
		return BadReply
	case x.upgrade.websocket && !x.accepted():
		x.trail.cause = errAccept
		return BadReply
	}
	x.upgrade.agreed = true
	return NoError
}

// appendSwitch says yes to a client of HTTP/1.1.
func (x *exchange) appendSwitch(out []byte) []byte {
	out = asHTTP1.field(out, nameConnection, nameUpgrade)
	out = asHTTP1.field(out, nameUpgrade, x.upgrade.protocol)
	if x.upgrade.websocket {
		out = asHTTP1.field(out, nameWebSocketAccept, acceptOf(x.upgrade.key[:]))
	}
	return out
}

// tunnel says yes to the client, and moves bytes until both sides have ended
// theirs. The route's timeout is over (Envoy: for upgrades it ends with the 101);
// what bounds a tunnel is how long it may be silent, and how long a connection may
// last.
func (x *exchange) tunnel(c *upstreamConn, d *destination, u *upstream) Kind {
	defer x.giveBack(c, u, false)
	x.res.Status, x.res.Reason, x.res.ContentLength = 101, nil, -1
	if x.conn.h2 != nil {
		x.res.Status = 200
	}
	x.status, x.timing, x.keep, c.until = x.res.Status, timing{}, false, 0
	x.buildReply(d, false)
	x.keepHead()
	if kind := x.flush(false); kind != NoError {
		x.kind = kind
		return kind
	}
	x.out = nil
	s := &relaySession{
		client: x.conn, upstream: c, idle: u.relayIdle, over: x.conclude,
		sent: func(n int) { x.tally.replyBody += int64(n) }, received: func(n int) { x.tally.pumped.Add(int64(n)) },
	}
	if x.upgrade.websocket {
		s.websocket = true
		x.conn.proxy.websockets.add(s)
		defer x.conn.proxy.websockets.remove(s)
	}
	x.kind = s.run(u.maxDuration)
	x.conn.in.release()
	x.clock = now()
	return x.kind
}

// keepHead gives the request's head, which is told of when the tunnel has ended,
// memory of its own: the connection's buffer is read into from now on.
func (x *exchange) keepHead() {
	if x.conn.h2 != nil {
		return // it is in the stream's
	}
	in := &x.conn.in
	head, path := bytes.Clone(in.data[in.r-x.tally.head:in.r]), bytes.Clone(x.req.Path)
	x.req.Reset()
	if _, err := x.req.Parse(head, http1.Limits{}); err != nil {
		panic("a head that was read is refused: " + err.Error())
	}
	x.req.Path = path // as it was normalized
	x.sanitized, x.told = false, false
	if in.len() == 0 {
		in.release()
	}
}

// webSockets are those under way, to be told when the proxy goes away.
type webSockets struct {
	mu      sync.Mutex // guards what is below
	all     map[*relaySession]struct{}
	leaving bool
}

func (w *webSockets) add(s *relaySession) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*relaySession]struct{}{}
	}
	w.all[s] = struct{}{}
	s.leaving.Store(w.leaving)
}

func (w *webSockets) remove(s *relaySession) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, s)
}

// leave closes all as soon as they are between two messages.
func (w *webSockets) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaving = true
	for s := range w.all {
		s.leaving.Store(true)
		s.upstream.interrupt()
		s.client.interrupt()
	}
}

// farewell is how long before the end of a drain WebSockets are closed, which ends
// them with a status that clients take for a reason to connect again: long enough
// for the other side's answer, and a quarter of the time at most.
func farewell(drain time.Duration) time.Duration { return min(5*time.Second, drain/4) }
