package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"isthmus/mesh"
)

func status(reply string) string {
	line, _, _ := strings.Cut(strings.TrimPrefix(reply, "HTTP/1.1 "), "\r\n")
	code, _, _ := strings.Cut(line, " ")
	return code
}

// TestForward_FailsOver goes to another endpoint at once when one cannot be
// connected to, whatever the method, and marks the first.
func TestForward_FailsOver(t *testing.T) {
	up := replying(t, okReply)
	dead := []string{deadAddress(t), deadAddress(t), deadAddress(t)}
	p := serve(t, Options{}, entry("s.test", append(dead, up.address)...))
	for i := range 20 {
		request := "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 2\r\n\r\nhi"
		if got := exchangeRaw(t, p.address("outbound"), request, whole(1)); status(got) != "200" {
			t.Fatalf("request %d: %q", i, got)
		}
	}
	marked := 0
	for _, h := range p.HostStates() {
		if h.Address.String() != up.address && !h.Healthy {
			marked++
		}
	}
	if marked == 0 {
		t.Errorf("no dead endpoint is marked: %+v", p.HostStates())
	}
	if n := len(up.seen()); n != 20 {
		t.Errorf("the live endpoint saw %d requests, want 20", n)
	}
}

// TestForward_Retries checks what is tried again, and how often.
func TestForward_Retries(t *testing.T) {
	for _, tt := range []struct {
		name, retries string
		method        string
		reply         string // of the first endpoints asked; "" hangs up
		tries         int
		status        string
	}{
		{"default, GET, hang-up: once more", "", "GET", "", 2, "503"},
		{"default, POST, hang-up: not again", "", "POST", "", 1, "503"},
		{"default, 503: delivered", "", "GET", "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", 1, "503"},
		{"off", "retries: {attempts: 0}", "GET", "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", 1, "503"},
		{"5xx", "retries: {attempts: 3, retryOn: 5xx, backoff: 1ms}", "GET", "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 4, "500"},
		{"5xx, POST", "retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}", "POST", "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 3, "500"},
		{"gateway-error is not 500", "retries: {attempts: 2, retryOn: gateway-error, backoff: 1ms}", "GET", "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 1, "500"},
		{"gateway-error, 502", "retries: {attempts: 2, retryOn: gateway-error, backoff: 1ms}", "GET", "HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n", 3, "502"},
		{"a listed code", "retries: {attempts: 1, retryOn: '418', backoff: 1ms}", "GET", "HTTP/1.1 418 X\r\nContent-Length: 0\r\n\r\n", 2, "418"},
		{"a listed code of no error", "retries: {attempts: 1, retryOn: '202', backoff: 1ms}", "GET", "HTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n", 2, "202"},
		{"retriable-4xx is 409", "retries: {attempts: 2, retryOn: retriable-4xx, backoff: 1ms}", "GET", "HTTP/1.1 409 X\r\nContent-Length: 0\r\n\r\n", 3, "409"},
		{"409 is no listed code", "retries: {attempts: 2, retryOn: '5xx,418', backoff: 1ms}", "GET", "HTTP/1.1 409 X\r\nContent-Length: 0\r\n\r\n", 1, "409"},
		{"retriable-4xx, 404", "retries: {attempts: 2, retryOn: retriable-4xx, backoff: 1ms}", "GET", "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", 1, "404"},
		{"a limit's refusal", "retries: {attempts: 2, retryOn: envoy-ratelimited, backoff: 1ms}", "GET", "HTTP/1.1 429 X\r\nx-envoy-ratelimited: true\r\nContent-Length: 0\r\n\r\n", 3, "429"},
		{"a limit's refusal is no listed code", "retries: {attempts: 2, retryOn: '5xx,429', backoff: 1ms}", "GET", "HTTP/1.1 429 X\r\nx-envoy-ratelimited: true\r\nContent-Length: 0\r\n\r\n", 1, "429"},
		{"reset, POST, explicit", "retries: {attempts: 2, retryOn: reset, backoff: 1ms}", "POST", "", 3, "503"},
		{"connect-failure is not a hang-up", "retries: {attempts: 2, retryOn: connect-failure}", "POST", "", 1, "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
				skipBody(head, r)
				io.WriteString(c, tt.reply)
				return tt.reply != ""
			})
			p := serve(t, Options{}, entry("s.test", up.address)+fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    %s
`, tt.retries))
			got := exchangeRaw(t, p.address("outbound"), tt.method+" / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 2\r\n\r\nhi", whole(1))
			if status(got) != tt.status {
				t.Errorf("status %s, want %s: %q", status(got), tt.status, got)
			}
			heads := up.seen()
			if len(heads) != tt.tries {
				t.Fatalf("%d tries, want %d", len(heads), tt.tries)
			}
			for i, h := range heads {
				if want := fmt.Sprintf("x-envoy-attempt-count: %d\r\n", i+1); !strings.Contains(h, want) {
					t.Errorf("try %d: %q, want %q in it", i+1, h, want)
				}
			}
		})
	}
}

// TestForward_RetryElsewhere: the next try is for another endpoint, unless requests belong to
// one; the route has the last word.
func TestForward_RetryElsewhere(t *testing.T) {
	const hashed = "loadBalancer: {consistentHash: {httpHeaderName: x-n}}"
	for _, tt := range []struct {
		name, policy, ignore string
		endpoints            int // that see one of the two tries of each request
	}{
		{"by default", "loadBalancer: {simple: RANDOM}", "", 2},
		{"requests belong to it", hashed, "", 1},
		{"but the route says so", hashed, ", retryIgnorePreviousHosts: true", 2},
		{"requests belong to it, and the route says so", hashed, ", retryIgnorePreviousHosts: false", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const failing = "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
			one, two := replying(t, failing), replying(t, failing)
			p := serve(t, Options{}, entry("s.test", one.address, two.address)+destinationRule("s.test", tt.policy)+
				virtualService("s.test", "{route: [{destination: {host: s.test}}], retries: {attempts: 1, retryOn: 5xx, backoff: 1ms"+tt.ignore+"}}"))
			const requests = 20
			for range requests {
				exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\nx-n: a\r\n\r\n", whole(1))
			}
			a, b := len(one.seen()), len(two.seen())
			if a+b != 2*requests || min(a, b) != (tt.endpoints-1)*requests {
				t.Errorf("%d and %d tries, want two for each request, at %d endpoints", a, b, tt.endpoints)
			}
		})
	}
}

// TestForward_OnlyEndpoint: an endpoint that cannot be connected to, and is the only one, is
// tried as often as the route says.
func TestForward_OnlyEndpoint(t *testing.T) {
	for _, tt := range []struct {
		name, retries string
		conns         int
	}{
		{"by default", "", 3},
		{"no retries", "retries: {attempts: 0}", 1},
		{"as the route says", "retries: {attempts: 4, retryOn: connect-failure}", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var conns atomic.Int32
			up := byteServer(t, func(c net.Conn) { // ends the handshake
				conns.Add(1)
				c.Read(make([]byte, 1))
			})
			p := serve(t, Options{}, entry("s.test", up)+destinationRule("s.test", "tls: {mode: SIMPLE, insecureSkipVerify: true}")+
				virtualService("s.test", "{route: [{destination: {host: s.test}}], "+tt.retries+"}"))
			got := exchangeRaw(t, p.address("outbound"), "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 2\r\n\r\nhi", whole(1))
			if status(got) != "503" || int(conns.Load()) != tt.conns {
				t.Errorf("%q after %d connections, want %d", got, conns.Load(), tt.conns)
			}
		})
	}
}

// TestForward_NoTimeToBackOff delivers the reply that there is where the deadline comes
// before the next try.
func TestForward_NoTimeToBackOff(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		skipBody(head, r)
		io.WriteString(c, "HTTP/1.1 503 X\r\nContent-Length: 6\r\n\r\ntheirs")
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    timeout: 60s
    retries: {attempts: 1, retryOn: "503", backoff: 1000000h}
`)
	got := exchangeRaw(t, p.address("outbound"), "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 2\r\n\r\nhi", whole(1))
	if status(got) != "503" || !strings.HasSuffix(got, "theirs") {
		t.Errorf("%q, want the endpoint's 503", got)
	}
	if n := len(up.seen()); n != 1 {
		t.Errorf("%d tries, want 1", n)
	}
}

// TestForward_PerTryTimeout tries another endpoint when one does not answer in
// time.
func TestForward_PerTryTimeout(t *testing.T) {
	t.Parallel()
	var first atomic.Bool
	slow := upstreamServer(t, func(_ string, r *bufio.Reader, c net.Conn) bool {
		if first.CompareAndSwap(false, true) {
			r.ReadByte() // until the proxy gives up
			return false
		}
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", slow.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    timeout: 10s
    retries: {attempts: 2, perTryTimeout: 1s, retryOn: gateway-error}
`)
	if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != "200" {
		t.Errorf("got %q", got)
	}
}

// TestForward_StaleConnection: a kept connection that the upstream closes with
// the next request is replaced, for GET; a POST notices before it is sent.
func TestForward_StaleConnection(t *testing.T) {
	closed := make(chan struct{}, 10)
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		skipBody(head, r)
		io.WriteString(c, okReply)
		c.Close()
		closed <- struct{}{}
		return false
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	for i, method := range []string{"GET", "GET", "POST", "POST"} {
		got := exchangeRaw(t, p.address("outbound"), method+" / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 0\r\n\r\n", whole(1))
		if status(got) != "200" {
			t.Fatalf("request %d: %q", i, got)
		}
		<-closed
	}
}

// TestForward_Unsent: a proxy that could not reach its application says so,
// and its caller goes to another endpoint.
func TestForward_Unsent(t *testing.T) {
	broken := replying(t, "HTTP/1.1 503 Service Unavailable\r\nx-isthmus-unsent: true\r\nContent-Length: 0\r\n\r\n")
	good := replying(t, okReply)
	via := func(address string) mesh.Endpoint {
		return mesh.Endpoint{
			Service: "s.default", Port: mesh.Port{Number: 80, Name: "http"}, Address: netip.MustParseAddrPort(address),
			Cluster: "c2", Weight: 1, Via: true, Source: mesh.SourceGossip,
		}
	}
	p := serve(t, Options{}, "", via(broken.address), via(good.address))
	for range 10 {
		got := exchangeRaw(t, p.address("outbound"), "POST / HTTP/1.1\r\nHost: s.default.global\r\nContent-Length: 1\r\n\r\nx", whole(1))
		if status(got) != "200" || strings.Contains(got, "unsent") {
			t.Fatalf("got %q", got)
		}
	}
	if head := good.seen()[0]; !strings.Contains(head, "x-isthmus-destination: s.default:80\r\n") {
		t.Errorf("the other proxy got %q, want the destination in it", head)
	}
}

// TestForward_UnsentOverload: a proxy that takes no more requests, for a limit of
// its application or its memory, is left in its place, and the request goes to
// another endpoint within the budget of retries.
func TestForward_UnsentOverload(t *testing.T) {
	full := replying(t, "HTTP/1.1 503 Service Unavailable\r\nx-isthmus-unsent: true\r\nx-envoy-overloaded: true\r\nContent-Length: 0\r\n\r\n")
	good := replying(t, okReply)
	for _, tt := range []struct {
		name       string
		endpoints  []mesh.Endpoint
		retries    string
		policy     string
		want       string
		tries      int // of the first, by n requests, at most
		overloaded bool
	}{
		{"another has room", announced("c2", full.address, good.address), "", "", "200", 20, false},
		{"nobody has", announced("c2", full.address), "", "", "503", 20 * 3, true},
		{"no retries", announced("c2", full.address), "retries: {attempts: 0}", "", "503", 20, true},
		{"requests belong to it", announced("c2", full.address, good.address), "", "loadBalancer: {consistentHash: {httpHeaderName: x-n}}", "200", 20, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.endpoints {
				tt.endpoints[i].Via = true
			}
			p := serve(t, Options{}, `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.prod.global]
  http: [{route: [{destination: {host: s.prod.global}}], `+tt.retries+`}]
---
`+destinationRule("s.prod.global", tt.policy), tt.endpoints...)
			before := len(full.seen())
			for i := range 20 {
				got := exchangeRaw(t, p.address("outbound"), fmt.Sprintf("POST / HTTP/1.1\r\nHost: s.prod.global\r\nx-n: %d\r\nContent-Length: 1\r\n\r\nx", i), whole(1))
				if status(got) != tt.want || strings.Contains(got, "unsent") || strings.Contains(got, "x-envoy-overloaded: true") != tt.overloaded {
					t.Fatalf("got %q", got)
				}
			}
			if tries := len(full.seen()) - before; tries == 0 || tries > tt.tries {
				t.Errorf("%d tries, want up to %d", tries, tt.tries)
			}
			for _, h := range p.HostStates() {
				if !h.Healthy {
					t.Errorf("%s is out: %s", h.Address, h.Reason)
				}
			}
		})
	}
}

// hangUpAwaited is a handshake that lasts until the endpoint has hung up.
type hangUpAwaited struct{}

func (hangUpAwaited) shake(s *stream, _ headFormat, _ instant) error {
	for s.peek() == peekOpen {
		runtime.Gosched()
	}
	return nil
}

// TestForward_EndedBeforeAsked: an endpoint that hangs up between its handshake
// and the request has not seen it, so that another one gets it, even a POST.
func TestForward_EndedBeforeAsked(t *testing.T) {
	up := replying(t, okReply)
	var met atomic.Int32
	dying := byteServer(t, func(net.Conn) { met.Add(1) })
	p := serve(t, Options{}, entry("s.test", up.address, dying))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	vh := x.table.outbound.find([]byte("s.test"), 80)
	for _, m := range x.upstream(vh.routes[0].destinations[0].target).members {
		if m.address.String() == dying {
			m.tls = hangUpAwaited{}
		}
	}
	p.table.Store(p.table.Load()) // whoever loads it from here on sees that
	for n := range 20 {
		got := exchangeRaw(t, p.address("outbound"), "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 2\r\n\r\nhi", whole(1))
		if status(got) != "200" {
			t.Fatalf("request %d: %q", n, got)
		}
	}
	if met.Load() == 0 {
		t.Error("nobody asked the endpoint that hangs up")
	}
}

// TestForward_Limits checks connectionPool's limits.
func TestForward_Limits(t *testing.T) {
	release := make(chan struct{})
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		<-release
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: s.test
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 2}
      http: {http1MaxPendingRequests: 3}
`)
	results := make(chan string, 6)
	for range 5 { // two on their way, three in line
		go func() { results <- status(exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))) }()
	}
	queue := func() *connQueue {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, u := range p.upstreams {
			return &u.live.queue
		}
		return nil
	}
	for q := queue(); q == nil || q.waiting.Load() < 3; q = queue() {
		time.Sleep(time.Millisecond)
	}
	got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
	if status(got) != "503" || !strings.Contains(got, "x-envoy-overloaded: true") {
		t.Errorf("the sixth request: %q, want 503 and x-envoy-overloaded", got)
	}
	close(release)
	for range 5 {
		if s := <-results; s != "200" {
			t.Errorf("status %s, want 200", s)
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.conns != 2 {
		t.Errorf("%d connections, want 2", up.conns)
	}
}

// TestForward_MaxRequestsPerConnection opens a new connection after so many
// requests.
func TestForward_MaxRequestsPerConnection(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: s.test
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 3}}}
`)
	exchangeRaw(t, p.address("outbound"), strings.Repeat(get("s.test"), 9), whole(9))
	if up.conns != 3 {
		t.Errorf("%d connections for 9 requests, want 3", up.conns)
	}
}

// TestProxy_Drain finishes what is under way and closes the rest.
func TestProxy_Drain(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		close(started)
		<-release
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	address := p.address("outbound")
	idle, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	result := make(chan string)
	go func() { result <- exchangeRaw(t, address, get("s.test"), nil) }()
	<-started
	drained := make(chan error)
	go func() { drained <- p.Drain(context.Background()) }()
	idle.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection: %v, want an end", err)
	}
	close(release)
	if got := <-result; status(got) != "200" || !strings.Contains(got, "connection: close") {
		t.Errorf("the request under way: %q", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("a new connection is accepted")
	}
}

// TestProxy_DrainAccepting: a drain goes on for as long as a connection may be accepted that is
// not among the open ones yet, and what is accepted after the end is ended, too.
func TestProxy_DrainAccepting(t *testing.T) {
	p := serve(t, Options{}, entry("s.test", replying(t, okReply).address))
	between := &listener{proxy: p, accepting: true, conns: map[*conn]struct{}{}} // its accept has a connection in its hands
	between.accepts.Store(true)
	p.mu.Lock()
	p.shutting = append(p.shutting, between)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it has ended with %v", err)
	}
	between.accepts.Store(false)
	if err := p.Drain(t.Context()); err != nil {
		t.Error(err)
	}

	p = serve(t, Options{}, entry("s.test", replying(t, okReply).address))
	p.mu.Lock()
	outbound := p.listeners["outbound"]
	p.mu.Unlock()
	outbound.closeAll()
	c := dialTCP(t, p.address("outbound"))
	io.WriteString(c, get("s.test"))
	if got, _ := io.ReadAll(c); len(got) > 0 {
		t.Errorf("got %q after the end", got)
	}
}

// TestProxy_DrainKept: a client that keeps its connection is told with its next
// reply, for as long as new ones are accepted. One that asks nothing holds nobody up.
func TestProxy_DrainKept(t *testing.T) {
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	kept := func() net.Conn {
		c, err := net.Dial("tcp", p.address("outbound"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, get("s.test"))
		got := make([]byte, 1<<10)
		if n, err := c.Read(got); status(string(got[:n])) != "200" {
			t.Fatalf("the first request: %q, %v", got[:n], err)
		}
		return c
	}
	busy, idle := kept(), kept()
	ctx, cancel := context.WithTimeout(context.Background(), 1900*time.Millisecond) // less than it takes for connections to come
	defer cancel()
	drained := make(chan error)
	go func() { drained <- p.Drain(ctx) }()
	time.Sleep(200 * time.Millisecond) // in which connections that are idle used to end
	io.WriteString(busy, get("s.test"))
	if got := toEnd(t, busy); status(got) != "200" || !strings.Contains(got, "connection: close") {
		t.Errorf("a request over a kept connection got %q", got)
	}
	if got := toEnd(t, idle); got != "" {
		t.Errorf("the idle connection got %q", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestProxy_Close breaks a reply off by a reset: one that ends with the
// connection would look whole.
func TestProxy_Close(t *testing.T) {
	for name, requests := range map[string][]string{
		"the first request": {"GET / HTTP/1.0"}, // the runtime does not know the connection
		"a kept connection": {"GET /first HTTP/1.1", "GET / HTTP/1.0"},
		"a reply under way": {"GET /endless HTTP/1.0"},
	} {
		t.Run(name, func(t *testing.T) { testClose(t, requests) })
	}
}

func testClose(t *testing.T, requests []string) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.HasPrefix(head, "GET /first") {
			_, err := io.WriteString(c, okReply)
			return err == nil
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nthe beginning")
		for strings.HasPrefix(head, "GET /endless") && err == nil {
			_, err = c.Write(make([]byte, 100))
		}
		r.ReadByte() // until the proxy goes away
		return false
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	c, err := net.Dial("tcp", p.address("outbound"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	expect := func(text string) {
		t.Helper()
		for read := ""; !strings.HasSuffix(read, text); {
			b, err := r.ReadByte()
			if err != nil {
				t.Fatalf("%v after %q", err, read)
			}
			read += string(b)
		}
	}
	for i, line := range requests {
		io.WriteString(c, line+"\r\nHost: s.test\r\n\r\n")
		if i < len(requests)-1 {
			expect(okReply[strings.Index(okReply, "\r\n\r\n"):])
		}
	}
	expect("the beginning")
	p.Close()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %d more bytes: %v, want a reset", n, err)
	}
}

// awaitIdle waits until a connection has been put back: that comes a moment
// after the client has its reply.
func awaitIdle(p *Proxy) {
	for idle := 0; idle == 0; time.Sleep(100 * time.Microsecond) {
		p.mu.Lock()
		for _, u := range p.upstreams {
			for _, m := range u.members {
				m.pool.mu.Lock()
				idle += len(m.pool.idle)
				m.pool.mu.Unlock()
			}
		}
		p.mu.Unlock()
	}
}

// TestProxy_PublishKeepsConnections: a new snapshot that changes nothing about
// an endpoint keeps its connections; one that drops it closes them.
func TestProxy_PublishKeepsConnections(t *testing.T) {
	up := replying(t, okReply)
	yaml := entry("s.test", up.address)
	p := serve(t, Options{}, yaml)
	for range 3 {
		if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != "200" {
			t.Fatalf("got %q", got)
		}
		awaitIdle(p)
		publish(t, p, yaml+entry("other.test", up.address))
	}
	if up.conns != 1 {
		t.Errorf("%d connections, want 1", up.conns)
	}
	publish(t, p, "")
	if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != "404" {
		t.Errorf("got %q", got)
	}
}
