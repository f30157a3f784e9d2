package proxy

import (
	"fmt"
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
	live.queue.limit(1)
	client := sinkStream()
	lease := func() *upstreamConn {
		c, err := u.lease(u.members[0], client, now(), 0, false, false)
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
// for hears of it when that is there. An endpoint that has none need not wait for it.
func TestQueue_Ahead(t *testing.T) {
	for i, name := range []string{"for the same endpoint", "for another one"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shake := make(chan struct{})
			var addresses []string
			for i := range 2 {
				up := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				up.EnableHTTP2, up.Config.ErrorLog = true, log.New(io.Discard, "", 0)
				if i == 0 {
					up.Listener = &gate{up.Listener, shake}
				}
				up.StartTLS()
				t.Cleanup(up.Close)
				addresses = append(addresses, up.Listener.Addr().String())
			}
			p := serve(t, Options{}, overHTTP2(entry("s.test", addresses...))+"---\n"+
				destinationRule("s.test", "tls: {mode: SIMPLE, insecureSkipVerify: true}, connectionPool: {tcp: {maxConnections: 1}}"))
			x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
			u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
			at := 0 // the endpoint that is looked at
			if u.members[0].address.String() != addresses[0] {
				at = 1
			}
			go u.members[at].look() // ends with its dial
			await(t, "its place", until(func() bool { return u.live.queue.open.Load() == 1 }))
			got := make(chan *upstreamConn, 1)
			go func() { // ends with its turn
				c, err := u.leaseStream(u.members[(at+i)%2], sinkStream(), now(), now()+instant(5*time.Second), false)
				if err != nil {
					t.Error(err)
				}
				got <- c
			}()
			if i == 0 {
				await(t, "who stands in line", until(func() bool { return u.live.queue.waiting.Load() == 1 }))
				close(shake)
			} else {
				defer close(shake)
			}
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
	open <-chan struct{}
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
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

// TestQueue_WaitedAlready: who waits for what becomes of another's connection, and has to
// wait for one of his own then, may, though as many have come meanwhile as may wait.
func TestQueue_WaitedAlready(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {})))+"---\n"+
		destinationRule("s.test", "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}"))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
	m, q := u.members[0], &u.live.queue
	q.place(1)          // another endpoint's connection
	m.shared.opening(1) // one that still ends
	_, turn, _ := m.shared.take(u, now(), false)
	got := make(chan *Error, 1)
	go func() { // ends with its turn
		c, err := u.leaseStream(m, sinkStream(), now(), now()+instant(5*time.Second), false)
		if c != nil {
			c.discard()
		}
		got <- err
	}()
	await(t, "who waits", until(func() bool { return q.follow.Load() == 1 }))
	if _, err := u.leaseStream(m, sinkStream(), now(), 0, false); err == nil || err.Kind != Overflow {
		t.Errorf("one more: %v, want %v", err, Overflow)
	}
	q.mu.Lock()
	m.shared.pass(turn, nil)
	await(t, "who waits no more", until(func() bool { return q.follow.Load() == 0 }))
	q.waiters = append(q.waiters, make(chan struct{})) // somebody who comes at this moment
	q.waiting.Store(1)
	q.mu.Unlock()
	await(t, "both in line", until(func() bool { return q.waiting.Load() == 2 || len(got) > 0 }))
	q.leave()
	q.wake()
	if err := await(t, "the lease", got); err != nil {
		t.Error(err)
	}
}

// TestQueue_LimitRaised: who is in line when another configuration allows more has that at
// once, and so do those who come behind, however long what the line waits for goes on.
func TestQueue_LimitRaised(t *testing.T) {
	for _, c := range []struct {
		name, before, after string
		http2               bool
	}{
		{"connections", "tcp: {maxConnections: 1}", "tcp: {maxConnections: 3}", false},
		{"any number of connections", "tcp: {maxConnections: 1}", "tcp: {connectTimeout: 1s}", false},
		{"connections over HTTP/2", "tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 1}", "tcp: {maxConnections: 3}, http: {maxConcurrentStreams: 1}", true},
		{"any number of connections over HTTP/2", "tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 1}", "http: {maxConcurrentStreams: 1}", true},
		{"streams", "tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 1}", "tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 3}", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))
			if c.http2 {
				config = overHTTP2(config)
			}
			with := func(pool string) string {
				return config + "---\n" + destinationRule("s.test", "connectionPool: {"+pool+"}")
			}
			p := serve(t, Options{}, with(c.before))
			target := func() *upstream {
				x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
				return x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
			}
			got := make(chan *upstreamConn, 3)
			lease := func(u *upstream) {
				conn, err := u.lease(u.members[0], sinkStream(), now(), now()+instant(10*time.Second), false, false)
				if err != nil {
					t.Error(err)
				}
				got <- conn
			}
			u := target()
			lease(u)
			inLine := func() bool {
				m := u.members[0]
				m.shared.mu.Lock()
				defer m.shared.mu.Unlock()
				return int(u.live.queue.waiting.Load()+u.live.queue.follow.Load()) == 1
			}
			go lease(u) // ends with its turn
			await(t, "who stands in line", until(inLine))
			publish(t, p, with(c.after))
			go lease(target()) // likewise
			for range 3 {
				if conn := await(t, "a connection", got); conn != nil {
					defer conn.discard()
				}
			}
		})
	}
}

// TestQueue_LimitLowered: connections that another configuration finds too many end, those that
// are idle at once and those that are under way with their requests.
func TestQueue_LimitLowered(t *testing.T) {
	for _, c := range []struct {
		name         string
		http2, first bool // the requests are over before the change
	}{
		{"idle", false, true},
		{"under way", false, false},
		{"idle, over HTTP/2", true, true},
		{"under way, over HTTP/2", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			services := entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))
			if c.http2 {
				services = overHTTP2(services)
			}
			with := func(tcp string) string {
				return services + destinationRule("s.test", "connectionPool: {tcp: {"+tcp+"}, http: {maxConcurrentStreams: 1}}")
			}
			p := serve(t, Options{}, with("connectTimeout: 5s"))
			target := func() *upstream {
				x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
				return x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
			}
			var leased []*upstreamConn
			u := target()
			for range 4 {
				conn, err := u.lease(u.members[0], sinkStream(), now(), 0, false, false)
				if err != nil {
					t.Fatal(err)
				}
				leased = append(leased, conn)
			}
			release := func() {
				for _, conn := range leased {
					u.release(conn, now()) // by the configuration that they were leased by
				}
			}
			if c.first {
				release()
			}
			publish(t, p, with("maxConnections: 1"))
			if !c.first {
				if n := u.live.queue.open.Load(); n != 4 {
					t.Errorf("%d connections, want 4, which are under way", n)
				}
				release()
			}
			await(t, "one connection to be left", until(func() bool { return u.live.queue.open.Load() == 1 }))
		})
	}
}

// TestQueue_LimitLoweredOnce: connections that are on their way out, with requests that take
// long, are not too many again with each configuration, or endpoint, that comes meanwhile.
func TestQueue_LimitLoweredOnce(t *testing.T) {
	services := overHTTP2(entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {})))
	with := func(n int, tcp string) string {
		return fmt.Sprintf("# %d\n", n) + services + destinationRule("s.test", fmt.Sprintf("connectionPool: {tcp: {connectTimeout: %ds%s}, http: {maxConcurrentStreams: 1}}", 5+n, tcp))
	}
	p := serve(t, Options{}, with(0, ""))
	target := func() *upstream {
		x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
		return x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
	}
	u := target()
	var leased []*upstreamConn
	for range 6 {
		conn, err := u.lease(u.members[0], sinkStream(), now(), 0, false, false)
		if err != nil {
			t.Fatal(err)
		}
		leased = append(leased, conn)
	}
	stay := func() int {
		pool := &u.members[0].shared
		pool.mu.Lock()
		defer pool.mu.Unlock()
		return len(pool.conns)
	}
	for n := range 3 {
		publish(t, p, with(n+1, ", maxConnections: 3"))
		if got := stay(); got != 3 {
			t.Errorf("after change %d, %d connections take more requests, want 3", n+1, got)
		}
	}
	for _, conn := range leased {
		target().release(conn, now())
	}
	await(t, "the end of the others", until(func() bool { return u.live.queue.open.Load() == 3 }))
	publish(t, p, with(9, ", maxConnections: 2"))
	await(t, "the end of one more", until(func() bool { return u.live.queue.open.Load() == 2 }))
}

// TestQueue_LimitLoweredBeside: nor do connections over HTTP/1.1 end for those over HTTP/2 that
// are on their way out beside them, to clients of both.
func TestQueue_LimitLoweredBeside(t *testing.T) {
	services := overHTTP2(entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {})))
	with := func(n int, tcp string) string {
		return fmt.Sprintf("# %d\n", n) + services + destinationRule("s.test", fmt.Sprintf("connectionPool: {tcp: {connectTimeout: %ds%s}, http: {maxConcurrentStreams: 1}}", 5+n, tcp))
	}
	p := serve(t, Options{}, with(0, ""))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
	m := u.members[0]
	var streams, whole []*upstreamConn
	for range 4 {
		c, err := u.lease(m, sinkStream(), now(), 0, false, false)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, c)
	}
	for range 2 {
		c, err := u.leaseWhole(m, sinkStream(), now(), 0, true)
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, c)
	}
	for n := range 3 {
		publish(t, p, with(n+1, ", maxConnections: 3"))
		for _, c := range whole {
			u.release(c, now())
		}
		whole = nil
		m.pool.mu.Lock()
		idle := len(m.pool.idle)
		m.pool.mu.Unlock()
		if idle != 2 {
			t.Errorf("after change %d, %d connections over HTTP/1.1 are kept, want 2", n+1, idle)
		}
	}
	for _, c := range streams {
		u.release(c, now())
	}
	await(t, "the end of three others", until(func() bool { return u.live.queue.open.Load() == 3 }))
}
