package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus/http2"
)

// TestHTTP2_OneDial: many requests at once open one connection, and when that
// fails, all of them know.
func TestHTTP2_OneDial(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", deadAddress(t))))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	vh := x.table.outbound.find([]byte("s.test"), 80)
	u := x.upstream(vh.routes[0].destinations[0].target)
	m := u.members[0]
	_, turn, leads := m.shared.take(u, now(), false)
	if !leads {
		t.Fatal("somebody dials already")
	}
	const others = 10
	var all sync.WaitGroup
	errs := make(chan *Error, others)
	for range others {
		all.Go(func() {
			_, err := u.leaseStream(m, x.conn.stream, now(), 0, false)
			errs <- err
		})
	}
	await(t, "those who wait", until(func() bool { return u.live.queue.follow.Load() == others }))
	m.shared.pass(turn, &Error{Kind: ConnectFailure})
	all.Wait()
	for range others {
		if err := <-errs; err == nil || err.Kind != ConnectFailure {
			t.Errorf("got %v", err)
		}
	}
	if n := u.live.queue.open.Load(); n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
}

// TestHTTP2_MemberGone: a request whose endpoint goes while it looks for a
// connection gets one that ends with it.
func TestHTTP2_MemberGone(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
	m := u.members[0]
	m.close()
	c, err := u.leaseStream(m, x.conn.stream, now(), now()+instant(20*time.Second), false)
	if err != nil {
		t.Fatal(err)
	}
	c.discard()
	for u.live.queue.open.Load() != 0 { // until the connection has ended
		time.Sleep(100 * time.Microsecond)
	}
}

// TestHTTP2_Pending: http1MaxPendingRequests bounds those, too, that wait for a stream of a
// connection over HTTP/2, be it that another request waits in line for one, or opens it.
func TestHTTP2_Pending(t *testing.T) {
	for _, tt := range []struct {
		name, pool string
		dials      bool // the one connection is still being opened
		under      int  // requests that do not wait
	}{
		{"in line", "{tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 2, http1MaxPendingRequests: 3}}", false, 2},
		{"for a dial", "{tcp: {connectTimeout: 10s}, http: {http1MaxPendingRequests: 3}}", true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			up := h2Upstream(t, func(http.ResponseWriter, *http.Request) { <-release })
			if tt.dials {
				up = deafAddress(t)
			}
			p := serve(t, Options{}, overHTTP2(entry("s.test", up))+destinationRule("s.test", "connectionPool: "+tt.pool))
			x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
			u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
			results := make(chan string, tt.under+3)
			ask := func() { results <- status(exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))) }
			for range tt.under {
				go ask()
			}
			await(t, "those that do not wait", until(func() bool {
				return u.live.requests.Load() == int32(tt.under) && (tt.dials || u.members[0].shared.busy() == tt.under)
			}))
			for range 3 {
				go ask()
			}
			pending := func() int {
				p.mu.Lock()
				defer p.mu.Unlock()
				return u.state().Pending
			}
			await(t, "those that wait", until(func() bool { return pending() == 3 }))
			got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
			if status(got) != "503" || !strings.Contains(got, "x-envoy-overloaded: true") {
				t.Errorf("one more: %q, want 503 and x-envoy-overloaded", got)
			}
			if tt.dials {
				return
			}
			close(release)
			for range cap(results) {
				if s := await(t, "a reply", results); s != "200" {
					t.Errorf("status %s, want 200", s)
				}
			}
			await(t, "nobody waits", until(func() bool { return pending() == 0 }))
		})
	}
}

// busy is how many streams are leased.
func (p *sharedPool) busy() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.conns {
		n += s.h2.Active()
	}
	return n
}

// TestMeasure: how far an endpoint is, is known of those that speak HTTP/2, too.
func TestMeasure(t *testing.T) {
	address := grpcServer(t, func(http.ResponseWriter, *http.Request) int { return 0 })
	p := serve(t, Options{}, overHTTP2(entry("s.test", address)))
	call(t, h2Client(t, p, "outbound"))
	p.mu.Lock()
	upstreams := p.inUse()
	p.mu.Unlock()
	for _, u := range upstreams {
		for _, m := range u.members {
			m.measure()
		}
	}
	if l := p.Links().List(); len(l) != 1 || l[0].RoundTrip <= 0 || l[0].RoundTrip > time.Second {
		t.Errorf("%+v", l)
	}
}

// TestHTTP2_NotSpoken: an upstream that is asked in HTTP/2 and answers in something else has
// given a reply that nobody understands; it has not just ended its connection.
func TestHTTP2_NotSpoken(t *testing.T) {
	for _, says := range []string{"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "220 smtp.test ESMTP\r\n", "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"} {
		up := byteServer(t, func(c net.Conn) {
			io.ReadFull(c, make([]byte, len(http2.Preface)))
			io.WriteString(c, says)
			io.Copy(io.Discard, c)
		})
		p := serve(t, Options{}, overHTTP2(entry("s.test", up)))
		for _, method := range []string{"GET", "POST"} {
			got := exchangeRaw(t, p.address("outbound"), method+" / HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
			if status(got) != "502" || !strings.Contains(got, "protocol error") {
				t.Errorf("%q, %s: %q", says, method, got)
			}
		}
	}
}
