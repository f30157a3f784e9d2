package proxy

import (
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"isthmus/balancer"
	"isthmus/mesh"
)

// TestQueue_NobodyForgotten: a connection ends or falls idle while somebody
// looks for one. If he stood in line then and was not woken, he would wait for
// ever.
func TestQueue_NobodyForgotten(t *testing.T) {
	address := byteServer(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	p := serve(t, Options{}, entry("s.test", address))
	live := &live{}
	e := &mesh.Endpoint{Address: netip.MustParseAddrPort(address)}
	u := newUpstream(&target{resolve: func() resolved {
		return resolved{known: true, endpoints: []*mesh.Endpoint{e}, policy: mesh.Policy{ConnectionPool: &mesh.ConnectionPool{MaxConnections: 1}}, wires: make([]wire, 1)}
	}}, &p.options, balancer.Caller{}, nil)
	u.live, u.members[0].live = live, live
	client := sinkStream()
	lease := func() *upstreamConn {
		c, err := u.lease(u.members[0], client, now(), 0, false)
		if err != nil {
			t.Error(err)
		}
		return c
	}
	for round := range 20_000 {
		c := lease()
		next := make(chan *upstreamConn, 1)
		go func() { next <- lease() }() // ends with its turn
		for range rand.IntN(300) {
			live.queue.open.Load() // as little time as it takes the other to look
		}
		if round%100 == 0 {
			c.discard()
		} else {
			u.release(c, now())
		}
		u.release(await(t, "the next one's turn", next), now())
	}
}

// TestQueue_Ahead: whoever waits in line while a connection is made that no request waits
// for hears of it when that is there: it carries his request, or ends for his.
func TestQueue_Ahead(t *testing.T) {
	for i, name := range []string{"for the same endpoint", "for another one"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dialled, shake := make(chan struct{}, 1), make(chan struct{})
			var addresses []string
			for i := range 2 {
				up := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				up.EnableHTTP2, up.Config.ErrorLog = true, log.New(io.Discard, "", 0)
				if i == 0 {
					up.Listener = &gate{up.Listener, dialled, shake}
				}
				up.StartTLS()
				t.Cleanup(up.Close)
				addresses = append(addresses, up.Listener.Addr().String())
			}
			p := serve(t, Options{}, overHTTP2(entry("s.test", addresses...))+"---\n"+
				destinationRule("s.test", "tls: {mode: SIMPLE, insecureSkipVerify: true}, connectionPool: {tcp: {maxConnections: 1}}"))
			x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
			u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
			if u.members[0].address.String() != addresses[0] {
				u.members[0], u.members[1] = u.members[1], u.members[0]
			}
			go u.members[0].look() // ends with its dial
			await(t, "the dial", dialled)
			got := make(chan *upstreamConn, 1)
			go func() { // ends with its turn
				c, err := u.leaseStream(u.members[i], sinkStream(), now(), now()+instant(5*time.Second))
				if err != nil {
					t.Error(err)
				}
				got <- c
			}()
			await(t, "somebody in line", until(func() bool { return u.live.queue.waiting.Load() == 1 }))
			close(shake)
			if c := await(t, "the lease", got); c != nil {
				c.discard()
			}
			if n := u.live.stats.Connects.Load(); n != uint64(1+i) {
				t.Errorf("%d connections were made, want %d", n, 1+i)
			}
		})
	}
}

// gate is a listener whose connections are not read from before open is closed.
type gate struct {
	net.Listener
	came chan<- struct{}
	open <-chan struct{}
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.came <- struct{}{}
	return &gated{c, g.open}, nil
}

type gated struct {
	net.Conn
	open <-chan struct{}
}

func (g *gated) Read(p []byte) (int, error) {
	<-g.open
	return g.Conn.Read(p)
}
