package proxy

import (
	"errors"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"isthmus/accesslog"
	"isthmus/auth"
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

// lingerTimeout is how long we go on reading from a client that we have
// refused, so that it can read the refusal before a reset reaches it; nginx's
// lingering_time.
const lingerTimeout = instant(2 * time.Second)

// uncount gives back the connection's place among those that clients may have open, once:
// before the client, who may open the next one at once, can see its end.
func (c *conn) uncount() {
	if !c.uncounted {
		c.uncounted = true
		c.proxy.overload.open.Add(-1)
	}
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
