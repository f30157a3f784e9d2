package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/tls"
)

// The inbound listener takes mTLS and plain text on one port. The server name of
// a connection from another proxy says what it is for; what comes in plain text
// says so by x-isthmus-destination, or Host.

// serveMesh serves a connection that begins as TLS, of which the first bytes have
// come. It reports whether requests follow.
func (c *conn) serveMesh(t *table) (http bool) {
	hello, ok := c.hello()
	if !ok {
		return false
	}
	c.serverName = hello.ServerName
	var vh *virtualHost
	if port, _, host, ok := mesh.ParseDestinationSNI(hello.ServerName); ok {
		vh = t.inbound.hosts.find([]byte(host), port)
		if vh == nil && t.inbound.through != nil {
			if r := t.inbound.passed.find(hello.ServerName, c); r != nil {
				c.relayTLS(t, r)
				return false
			}
			vh = t.inbound.through.find([]byte(host), port)
			if _, sealed := t.inbound.sealed[vh]; sealed {
				vh = nil // a subset of nobody's
			}
		}
		if vh == nil {
			c.sendAlert(alertUnrecognizedName)
			c.countRefused(NoRoute)
			return false
		}
		c.destinationHost, c.destinationPort = []byte(host), port
	}
	if !c.acceptMesh() {
		return false
	}
	if vh == nil {
		vh = t.inbound.only
	}
	if vh != nil && t.inbound.relayed[vh] {
		if t.inbound.modeOf(vh) == mesh.MTLSDisable {
			c.countRefused(PlainText)
			c.tellMode(mesh.Source{})
			return false
		}
		c.relay(t, &tcpRoute{route: vh.routes[0], port: vh.destinationPort()})
		return false
	}
	return true
}

// acceptMesh shakes hands with another proxy.
func (c *conn) acceptMesh() bool {
	id := c.proxy.options.Identity.Identity()
	if id == nil {
		c.sendAlert(alertInternalError)
		c.countRefused(PlainText)
		c.proxy.tellRefusal(c, byHandshake, errOwnless)
		return false
	}
	if err := c.acceptTLS(id.Server(), now()+c.patience.head); err != nil {
		c.countRefused(PlainText)
		if !gaveUp(err) {
			c.proxy.tellRefusal(c, byHandshake, err)
		}
		c.refuseHandshake(err)
		return false
	}
	vouchMesh(c.stream, id, c.proxy.options.Identity, judgeCaller)
	state := c.secure.ConnectionState()
	c.identity = tls.Peer(&state)
	c.clientCert = appendPeerCert(nil, id.ID, state.PeerCertificates[0])
	return true
}

var errOwnless = errors.New("it came by TLS, and this proxy has no certificate (certificates in the bootstrap file)")

// tellMode says in the log that PeerAuthentication wants a client to come otherwise. The
// source is that of the policy, as far as it is known.
func (c *conn) tellMode(source mesh.Source) {
	came := "in plain text, and %s asks for mTLS"
	if c.overTLS() {
		came = "by mTLS, and %s has plain text alone"
	}
	policy := "PeerAuthentication"
	if source != (mesh.Source{}) {
		policy = fmt.Sprintf("%s (%s)", policy, source)
	}
	c.proxy.tellRefusal(c, byMode, fmt.Errorf("it came "+came, policy))
}

// gaveUp reports whether a handshake failed because the client left, or would not
// have us: it says nothing of who it is.
func gaveUp(err error) bool {
	var ended *net.OpError // crypto/tls: "remote error", an alert
	return errors.As(err, &ended) || errors.Is(err, io.EOF) || errors.Is(err, errTimeout) || errors.Is(err, syscall.ECONNRESET)
}

// refuseHandshake tells of a client that could not be let in. In TLS 1.3 it has
// sent its request by the time that its certificate is judged: it shall get to
// read the alert that says why.
func (c *conn) refuseHandshake(err error) {
	c.proxy.log.Debug("handshake failed", "listener", c.listener.name, "peer", c.peer, "name", c.serverName, "error", err)
	if !errors.Is(err, errTimeout) {
		c.linger()
	}
}

// inboundHost finds what a request on the inbound listener is for, and whether it
// may be so in plain text.
func (x *exchange) inboundHost() (*virtualHost, Kind) {
	c, t := x.conn, x.table.inbound
	authority, named := x.req.Authority, false
	if d, ok := x.req.Get(http1.IsthmusDestination); ok && c.destinationHost == nil {
		authority, named = d, true
	}
	host, port, ok := splitAuthority(x.scratch[:], authority)
	if !ok {
		x.trail.cause = errAuthority
		return nil, BadRequest
	}
	var vh *virtualHost
	if c.destinationHost != nil {
		vh = t.find(c.destinationHost, c.destinationPort, true)
	} else {
		vh = t.find(host, port, named)
	}
	if vh == nil {
		return nil, NoRoute
	}
	if s, ok := t.sealed[vh]; ok && !x.isProbe() {
		vh = s.plain
		if c.overTLS() {
			vh = s.secure
			if c.destinationHost != nil {
				c.leave() // it is older than what it would be passed on to now
			}
		}
	}
	switch t.modeOf(vh) {
	case mesh.MTLSStrict:
		if !c.overTLS() {
			return nil, PlainText
		}
	case mesh.MTLSDisable:
		if c.overTLS() && !x.isProbe() {
			return nil, PlainText
		}
	}
	return vh, NoError
}
