package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"

	"isthmus/mesh"
	isthmustls "isthmus/tls"
)

// Dial connects to an address, "host:port", that the proxy itself asks: to an
// endpoint of the mesh, by mTLS if it speaks that, where the mesh has one, else as
// the system does. It waits for the first snapshot.
func (p *Proxy) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	select {
	case <-p.begun:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	reg := p.table.Load().snapshot.Registry
	if v, ok := reg.View(host); err == nil && ok && !external(v) && len(reg.Endpoints(v, uint32(port))) > 0 {
		return p.dialHelper(host, uint32(port))(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// dialHelper returns what connects to a service that the proxy itself asks, by
// its host name: an endpoint of the mesh, by mTLS if it speaks that; else
// whatever DNS says. host may be "namespace/host".
func (p *Proxy) dialHelper(host string, port uint32) func(context.Context) (net.Conn, error) {
	if _, after, ok := strings.Cut(host, "/"); ok {
		host = after
	}
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		t := p.table.Load()
		if t == nil {
			return nil, errors.New("there is no configuration yet")
		}
		v, ok := t.snapshot.Registry.View(host)
		if !ok {
			return d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10)))
		}
		endpoints := t.snapshot.Registry.Endpoints(v, port)
		e, err := p.pickHelper(endpoints)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", host, port, err)
		}
		c, err := d.DialContext(ctx, "tcp", e.Address.String())
		if err != nil || !e.Via {
			return c, err
		}
		service, number := destinationOf(e)
		if isService(v, e) {
			service = fullName(service)
		}
		rule := t.snapshot.Rules.Find(v.ServiceHost(), v.Namespace, port, "").TLS
		if rule != nil && rule.Mode != mesh.TLSIstioMutual {
			rule = nil // it says whom other TLS is spoken to
		}
		expected := expectedOf(v, e, accountsOf(endpoints), subjectAltNames(v, rule), p.node.RootNamespace)
		secure := tls.Client(c, p.options.Identity.Identity().Client(mesh.DestinationSNI(number, "", service), isthmustls.ProtocolTCP, expected, nil))
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		return secure, nil
	}
}

// pickHelper picks an endpoint that is ready, by chance. One at another proxy's
// inbound listener can be asked by mTLS alone, whose server name says what for.
func (p *Proxy) pickHelper(list []*mesh.Endpoint) (*mesh.Endpoint, error) {
	var ready []*mesh.Endpoint
	for _, e := range list {
		if e.Unready == "" && (!e.Via || e.TakesMTLS() && p.options.Identity.Identity() != nil) {
			ready = append(ready, e)
		}
	}
	if len(ready) == 0 {
		return nil, errors.New("no endpoint is ready")
	}
	return ready[rand.IntN(len(ready))], nil
}
