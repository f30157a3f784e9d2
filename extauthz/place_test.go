package extauthz

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"isthmus/http1"
	"isthmus/mesh"
)

// place is where a service listens. It can move, and its connections freeze.
type place struct {
	address atomic.Pointer[string]
	dials   atomic.Int32
	frozen  atomic.Pointer[chan struct{}] // of the connections made so far; closed: they are
}

func newPlace(address string) *place {
	p := &place{}
	p.move(address)
	return p
}

func (p *place) move(address string) {
	ice := make(chan struct{})
	p.address.Store(&address)
	p.frozen.Store(&ice)
}

// freeze makes all connections fall silent without an end; new ones work.
func (p *place) freeze() {
	ice := make(chan struct{})
	close(*p.frozen.Swap(&ice))
}

func (p *place) dial(ctx context.Context) (net.Conn, error) {
	p.dials.Add(1)
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", *p.address.Load())
	if err != nil {
		return nil, err
	}
	return &iceConn{Conn: c, ice: *p.frozen.Load(), closed: make(chan struct{})}, nil
}

// iceConn is a connection that may freeze: what it reads after that never comes.
type iceConn struct {
	net.Conn
	ice, closed chan struct{}
	gone        atomic.Bool
}

func (c *iceConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.ice:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *iceConn) Close() error {
	if c.gone.CompareAndSwap(false, true) {
		close(c.closed)
	}
	return c.Conn.Close()
}

// checkLeaks fails a test that leaves goroutines. It has to come first, so that
// it runs when all else is closed.
func checkLeaks(t testing.TB) { t.Cleanup(func() { goleak.VerifyNone(t) }) }

func newTestAsker(t testing.TB, p *mesh.AuthorizationProvider, at *place) *Asker {
	if p.Timeout == 0 {
		p.Timeout = patience
	}
	if p.Name == "" {
		p.Name, p.Service, p.Port = "test", "ns/authz.test", 9000
	}
	a := NewAsker(p, at.dial)
	t.Cleanup(a.Close)
	return a
}

func fieldsOf(pairs ...string) (fields []http1.Field) {
	for i := 0; i < len(pairs); i += 2 {
		name := []byte(pairs[i])
		fields = append(fields, http1.Field{Name: name, Value: []byte(pairs[i+1]), ID: http1.LookupField(name)})
	}
	return fields
}

func getCall(path string, fields ...string) *Call {
	c := &Call{Method: []byte("GET"), Host: []byte("app.test"), Scheme: "http", Fields: fieldsOf(fields...)}
	path, query, has := strings.Cut(path, "?")
	c.Path, c.Query, c.HasQuery = []byte(path), []byte(query), has
	return c
}

func mustAsk(t testing.TB, a *Asker, c *Call) *Verdict {
	t.Helper()
	v, err := a.Ask(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// silentServer accepts connections and never says a word.
func silentServer(t testing.TB) *place {
	return rawServer(t, func(c net.Conn) {
		for b := make([]byte, 1024); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
}

// rawServer answers each connection with serve, which has to return when the
// connection ends.
func rawServer(t testing.TB, serve func(net.Conn)) *place {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() { // until l closes
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }() // until serve returns
		}
	}()
	return newPlace(l.Addr().String())
}

// closedPort is an address where nothing listens.
func closedPort(t testing.TB) *place {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return newPlace(l.Addr().String())
}
