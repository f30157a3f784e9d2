package proxy

import (
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// dice shows the same number in every draw, of shares in millionths.
func dice(t testing.TB, shows uint32) func(uint32) uint32 {
	return func(n uint32) uint32 {
		if n != 1_000_000 {
			t.Errorf("drawn of %d, want of a million", n)
		}
		return shows
	}
}

// faulty is a rule for s.test with a fault, in YAML on one line.
func faulty(fault, more string) string {
	return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: faulty}
spec:
  hosts: [s.test]
  http: [{fault: ` + fault + `, route: [{destination: {host: s.test}}]` + more + `}]
`
}

// awaitCounted waits until the counters of the requests, by status and flag,
// are these: a request is counted a moment after its client has the reply.
func awaitCounted(t *testing.T, p *Proxy, want ...string) {
	t.Helper()
	var got []string
	for range 5000 {
		if got = counted(t, p, "response_code", "response_flags"); slices.Equal(got, want) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("counted %q, want %q", got, want)
}

// TestFault_Abort: who is aborted, with what, and that no upstream hears of it.
func TestFault_Abort(t *testing.T) {
	const grpc = "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Type: application/grpc+proto\r\nContent-Length: 5\r\n\r\nhello"
	for _, tt := range []struct {
		name, fault string
		draw        uint32
		request     string
		status      string // "": the upstream's
		fields      []string
		body        string
	}{
		{"in the share", "{abort: {percentage: {value: 0.1}, httpStatus: 555}}", 999, get("s.test"), "555", nil, "fault filter abort"},
		{"beyond the share", "{abort: {percentage: {value: 0.1}, httpStatus: 555}}", 1000, get("s.test"), "", nil, ""},
		{"all", "{abort: {percentage: {value: 100}, httpStatus: 503}}", 999_999, get("s.test"), "503", nil, "fault filter abort"},
		{"no percentage", "{abort: {httpStatus: 503}}", 0, get("s.test"), "", nil, ""},
		{"0 %", "{abort: {percentage: {value: 0}, httpStatus: 503}}", 0, get("s.test"), "", nil, ""},
		{"gRPC", "{abort: {percentage: {value: 100}, grpcStatus: UNAVAILABLE}}", 0, grpc, "200", []string{"content-type: application/grpc+proto\r\n", "grpc-status: 14\r\n", "grpc-message: fault filter abort\r\n"}, ""},
		{"gRPC's status, HTTP", "{abort: {percentage: {value: 100}, grpcStatus: NOT_FOUND}}", 0, get("s.test"), "404", nil, "fault filter abort"},
		{"HTTP's status, gRPC", "{abort: {percentage: {value: 100}, httpStatus: 503}}", 0, grpc, "200", []string{"grpc-status: 14\r\n"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, Options{draw: dice(t, tt.draw)}, entry("s.test", up.address)+faulty(tt.fault, ", retries: {attempts: 3, retryOn: 5xx}"))
			got := exchangeRaw(t, p.address("outbound"), tt.request+get("s.test"), whole(2))
			if tt.status == "" {
				if status(got) != "200" || len(up.seen()) != 2 {
					t.Fatalf("got %q, the upstream %q; want it to answer", got, up.seen())
				}
				awaitCounted(t, p, "200 - 2")
				return
			}
			if status(got) != tt.status || !strings.Contains(got, "\r\n\r\n"+tt.body) {
				t.Errorf("got %q, want %s with %q", got, tt.status, tt.body)
			}
			for _, f := range tt.fields {
				if !strings.Contains(got, f) {
					t.Errorf("got %q, want %q in it", got, f)
				}
			}
			if seen := up.seen(); len(seen) != 0 || up.conns != 0 {
				t.Errorf("the upstream got %q over %d connections", seen, up.conns)
			}
		})
	}
}

// TestFault_Draws: delay and abort are drawn apart, the delay first.
func TestFault_Draws(t *testing.T) {
	up := replying(t, okReply)
	shown := []uint32{0, 0, 0, 999_999, 999_999, 0, 999_999, 999_999}
	p := serve(t, Options{draw: func(uint32) uint32 {
		n := shown[0]
		shown = shown[1:]
		return n
	}}, entry("s.test", up.address)+faulty("{delay: {percentage: {value: 50}, fixedDelay: 1ms}, abort: {percentage: {value: 50}, httpStatus: 418}}", ""))
	got := exchangeRaw(t, p.address("outbound"), strings.Repeat(get("s.test"), 4), whole(4))
	if n := strings.Count(got, "HTTP/1.1 418"); n != 2 || strings.Count(got, "HTTP/1.1 200") != 2 {
		t.Errorf("%d aborted of two: %q", n, got)
	}
	awaitCounted(t, p, "200 - 1", "200 DI 1", "418 DI,FI 1", "418 FI 1")
}

// TestFault_Delay: a delay is not of the route's timeout, and takes nothing of
// the upstream meanwhile.
func TestFault_Delay(t *testing.T) {
	t.Parallel()
	up := replying(t, okReply)
	const delay = 1100 * time.Millisecond
	p := serve(t, Options{draw: dice(t, 0)}, entry("s.test", up.address)+faulty("{delay: {percentage: {value: 1}, fixedDelay: 1100ms}}", ", timeout: 1s"))
	start := time.Now()
	got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
	if took := time.Since(start); status(got) != "200" || took < delay {
		t.Errorf("%q after %v, want 200 after %v", got, took, delay)
	}
	awaitCounted(t, p, "200 DI 1")
}

// TestFault_DelayOfCaller: a caller's own patience ends a delay.
func TestFault_DelayOfCaller(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{draw: dice(t, 0)}, entry("s.test", up.address)+faulty("{delay: {percentage: {value: 1}, fixedDelay: 1h}}", ""))
	got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\ngrpc-timeout: 20m\r\n\r\n", whole(1))
	if status(got) != "504" || len(up.seen()) != 0 {
		t.Errorf("got %q, the upstream %q; want 504", got, up.seen())
	}
	awaitCounted(t, p, "504 DI,UT 1")
}

// TestFault_ClientGone: a delay ends when the client goes, and nothing is sent
// on, whatever it has sent behind the request.
func TestFault_ClientGone(t *testing.T) {
	for name, leave := range map[string]func(c *net.TCPConn){
		"reset":             func(c *net.TCPConn) {},
		"reset behind more": func(c *net.TCPConn) { c.Write([]byte(get("s.test"))) },
		"reset behind end":  func(c *net.TCPConn) { c.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, Options{draw: dice(t, 0)}, entry("s.test", up.address)+faulty("{delay: {percentage: {value: 1}, fixedDelay: 1h}}", ""))
			c := dial(t, p.address("outbound"))
			c.send(get("s.test"))
			tcp := c.Conn.(*net.TCPConn)
			leave(tcp)
			tcp.SetLinger(0)
			tcp.Close()
			awaitCounted(t, p, "0 DI,DC 1")
			if up.conns != 0 {
				t.Errorf("%d connections to the upstream", up.conns)
			}
		})
	}
}

// TestFault_Example: 05-failover.yaml delays one request in a thousand by 5 s.
func TestFault_Example(t *testing.T) {
	yaml, err := os.ReadFile("../deploy/examples/multicluster/05-failover.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const host, local = "inventory-service.production.global", "inventory-service.production.svc.cluster.local"
	up := replying(t, okReply)
	var shows atomic.Uint32
	shows.Store(1000)
	p := serve(t, Options{draw: func(n uint32) uint32 { return dice(t, shows.Load())(n) }}, entry(local, up.address)+string(yaml))
	if got := exchangeRaw(t, p.address("outbound"), get(host), whole(1)); status(got) != "200" {
		t.Errorf("the one drawn 1000: %q, want 200", got)
	}
	awaitCounted(t, p, "200 - 1")
	shows.Store(999)
	c := dial(t, p.address("outbound"))
	c.send(get(host))
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	awaitCounted(t, p, "0 DI,DC 1", "200 - 1")
	for _, vs := range p.table.Load().snapshot.Config.VirtualServices {
		if f := vs.HTTP[0].Fault; vs.Name == "failover-routing" && f.Delay != 5*time.Second {
			t.Errorf("the delay is %v, want 5s", f.Delay)
		}
	}
}

// TestFault_HalfClosed: a client that has said all it has to say waits for its
// reply, delayed or not.
func TestFault_HalfClosed(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{draw: dice(t, 0)}, entry("s.test", up.address)+faulty("{delay: {percentage: {value: 1}, fixedDelay: 100ms}}", ""))
	c := dial(t, p.address("outbound"))
	c.send(get("s.test"))
	c.Conn.(*net.TCPConn).CloseWrite()
	c.head("200")
}
