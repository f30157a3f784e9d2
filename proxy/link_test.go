package proxy

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isthmus/mesh"
)

// announced are endpoints of service s.prod in a cluster, as gossip brings
// them.
func announced(cluster string, addrs ...string) []mesh.Endpoint {
	var out []mesh.Endpoint
	for _, a := range addrs {
		out = append(out, mesh.Endpoint{
			Service: "s.prod", Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP}, Address: netip.MustParseAddrPort(a),
			Cluster: cluster, Weight: 1, Source: mesh.SourceGossip, Owner: cluster + "/prod/x",
		})
	}
	return out
}

// TestLink: when one endpoint of a remote cluster after the other cannot be
// reached, the others are not even tried; when one can again, all return.
func TestLink(t *testing.T) {
	near := replying(t, okReply)
	var dead []string
	var listen []func() net.Listener
	for range 10 {
		address, back := reservedPort(t)
		dead, listen = append(dead, address), append(listen, back)
	}
	p := serve(t, Options{}, "", append(announced("c1", near.address), announced("c2", dead...)...)...)
	ask := func() string {
		return status(exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.prod.global\r\n\r\n", whole(1)))
	}
	shut := func() (reasons map[string]int) {
		reasons = map[string]int{}
		for _, h := range p.HostStates() {
			if h.Key.Cluster == "c2" {
				reasons[h.Reason]++
			}
		}
		return reasons
	}
	for i := range 200 {
		if s := ask(); s != "200" {
			t.Fatalf("request %d: %s", i, s)
		}
		if n := shut()["cluster cannot be reached"]; n > 0 {
			if n < 7 {
				t.Errorf("%v: want seven or more never tried", shut())
			}
			break
		}
		if i == 199 {
			t.Fatalf("the breaker did not open: %v", shut())
		}
	}
	// The cluster returns.
	var served atomic.Int32
	for _, listen := range listen {
		handEach(t, listen(), func(c net.Conn) {
			for r := bufio.NewReader(c); ; {
				if _, err := readHead(r); err != nil {
					return
				}
				served.Add(1)
				io.WriteString(c, okReply)
			}
		})
	}
	for deadline := time.Now().Add(30 * time.Second); served.Load() == 0; {
		if s := ask(); s != "200" {
			t.Fatalf("during the trials: %s", s)
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody tried the cluster that returned: %v", shut())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestLink_Limit: a cluster that comes back is found, though maxConnections were
// open to others when it was time to look.
func TestLink_Limit(t *testing.T) {
	t.Parallel()
	var held, free sync.WaitGroup
	held.Add(2)
	free.Add(1)
	near := upstreamServer(t, func(head string, _ *bufio.Reader, c net.Conn) bool {
		if strings.HasPrefix(head, "GET /hold") {
			held.Done()
			free.Wait()
		}
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	var dead []string
	var listen []func() net.Listener
	for range 4 {
		address, back := reservedPort(t)
		dead, listen = append(dead, address), append(listen, back)
	}
	p := serve(t, Options{}, `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: s.prod.global
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}
`, append(announced("c1", near.address), announced("c2", dead...)...)...)
	ask := func(path string) {
		if s := status(exchangeRaw(t, p.address("outbound"), "GET "+path+" HTTP/1.1\r\nHost: s.prod.global\r\n\r\n", whole(1))); s != "200" {
			t.Errorf("%s: %s", path, s)
		}
	}
	shut := func() bool {
		for _, h := range p.HostStates() {
			if h.Reason == "cluster cannot be reached" {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(20 * time.Second); !shut(); ask("/") {
		if time.Now().After(deadline) {
			t.Fatal("the breaker did not open")
		}
	}
	var busy sync.WaitGroup
	for range 2 {
		busy.Go(func() { ask("/hold") })
	}
	held.Wait()
	time.Sleep(2 * time.Second) // it is half open by now
	var served atomic.Int32
	for _, listen := range listen {
		handEach(t, listen(), func(c net.Conn) {
			for r := bufio.NewReader(c); ; {
				if _, err := readHead(r); err != nil {
					return
				}
				served.Add(1)
				io.WriteString(c, okReply)
			}
		})
	}
	free.Done()
	busy.Wait()
	for deadline := time.Now().Add(20 * time.Second); served.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if ask("/"); time.Now().After(deadline) {
			t.Fatal("nobody tried the cluster that returned")
		}
	}
}

// TestLink_TrialAgain: a trial that proves nothing, since the breaker lets nobody dial
// at that moment, is not the last one.
func TestLink_TrialAgain(t *testing.T) {
	t.Parallel()
	near := replying(t, okReply)
	dead, listen := reservedPort(t)
	p := serve(t, Options{}, destinationRule("s.prod.global", "connectionPool: {tcp: {maxConnections: 1}}"),
		append(announced("c1", near.address), announced("c2", dead)...)...)
	ask := func() {
		exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.prod.global\r\n\r\n", whole(1))
	}
	ask()
	var way *link
	p.mu.Lock()
	for _, u := range p.upstreams {
		if l := u.live.links["c2"]; l != nil {
			way = l
		}
	}
	p.mu.Unlock()
	for !way.gate.IsShut() {
		permit, _ := way.breaker.Dial()
		permit.Failed()
	}
	permit, ok := way.breaker.Dial() // before any trial
	for deadline := time.Now().Add(20 * time.Second); !ok; permit, ok = way.breaker.Dial() {
		if time.Now().After(deadline) {
			t.Fatal("the breaker lets nobody try")
		}
	}
	time.Sleep(300 * time.Millisecond)
	handEach(t, listen(), func(c net.Conn) { io.Copy(io.Discard, c) })
	permit.Abandoned()
	for deadline := time.Now().Add(5 * time.Second); way.gate.IsShut(); ask() {
		if time.Now().After(deadline) {
			t.Fatal("nobody looks whether the cluster is back")
		}
	}
}

// TestLink_NoPlaceForLooks: where maxConnections are few, a look at a cluster or an endpoint
// that swallows all takes no request's place, however long it takes.
func TestLink_NoPlaceForLooks(t *testing.T) {
	for _, cluster := range []string{"c1", "c2"} { // the own one, and another
		t.Run(cluster, func(t *testing.T) {
			t.Parallel()
			near := replying(t, okReply)
			p := serve(t, Options{}, destinationRule("s.prod.global", "connectionPool: {tcp: {maxConnections: 1, connectTimeout: 10s}}"),
				append(announced("c1", near.address), announced(cluster, deafAddress(t))...)...)
			x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
			u := x.upstream(x.table.outbound.find([]byte("s.prod.global"), 80).routes[0].destinations[0].target)
			deaf := u.members[0]
			if deaf.address.String() == near.address {
				deaf = u.members[1]
			}
			if deaf.link == nil {
				u.tracker.ConnectFailed(deaf.record)
			} else {
				for !deaf.link.gate.IsShut() {
					permit, _ := deaf.link.breaker.Dial()
					permit.Failed()
				}
			}
			for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
				begun := time.Now()
				if s := status(exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.prod.global\r\n\r\n", whole(1))); s != "200" {
					t.Error(s)
				}
				if took := time.Since(begun); took > 500*time.Millisecond {
					t.Fatal("a request has waited for ", took)
				}
			}
		})
	}
}

// TestLink_Gone: nobody looks any more whether a cluster is back when the service is
// gone, or the proxy closed.
func TestLink_Gone(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *Proxy)
	}{
		{"the service", func(p *Proxy) { publish(t, p, "") }},
		{"the proxy", func(p *Proxy) { p.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near := replying(t, okReply)
			var dead []string
			var listen []func() net.Listener
			for range 4 {
				address, back := reservedPort(t)
				dead, listen = append(dead, address), append(listen, back)
			}
			p := serve(t, Options{}, "", append(announced("c1", near.address), announced("c2", dead...)...)...)
			shut := func() bool {
				for _, h := range p.HostStates() {
					if h.Reason == "cluster cannot be reached" {
						return true
					}
				}
				return false
			}
			for deadline := time.Now().Add(20 * time.Second); !shut(); {
				if time.Now().After(deadline) {
					t.Fatal("the breaker did not open")
				}
				exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.prod.global\r\n\r\n", whole(1))
			}
			tt.end(p)
			time.Sleep(100 * time.Millisecond) // a trial may have begun before
			var tried atomic.Int32
			for _, listen := range listen {
				handEach(t, listen(), func(net.Conn) { tried.Add(1) })
			}
			time.Sleep(2500 * time.Millisecond)
			if n := tried.Load(); n > 0 {
				t.Errorf("%d dials to a cluster that nobody asks for", n)
			}
		})
	}
}

// TestLink_NewMembers: a trial may take any endpoint that a link has, also while a
// snapshot brings it.
func TestLink_NewMembers(t *testing.T) {
	endpoints := func(n int) []mesh.Endpoint {
		var addrs []string
		for i := range 1000 {
			addrs = append(addrs, fmt.Sprintf("127.%d.%d.%d:1", 1+n, i/256, i%256))
		}
		return announced("c2", addrs...)
	}
	p := serve(t, Options{}, "", endpoints(0)...)
	table := p.table.Load()
	for _, target := range table.targets {
		p.makeUpstream(table, target)
	}
	var way *link
	for _, u := range p.upstreams {
		if l := u.live.links["c2"]; l != nil {
			way = l
		}
	}
	var over atomic.Bool
	var looking sync.WaitGroup
	looking.Go(func() {
		for !over.Load() {
			if m := way.any(); m != nil && m.upstream.Load() == nil {
				t.Error("an endpoint of no upstream")
				return
			}
		}
	})
	for i := range 20 {
		publish(t, p, "", append(endpoints(i), announced("c2", "127.0.0.1:1")...)...) // one stays, and the link with it
	}
	over.Store(true)
	looking.Wait()
}

// TestForward_Budget: when everything answers 503, retries add no more than a
// fifth.
func TestForward_Budget(t *testing.T) {
	var gate sync.WaitGroup
	gate.Add(1)
	var sent atomic.Int32
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		sent.Add(1)
		gate.Wait() // until all first tries are under way
		_, err := io.WriteString(c, "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
		return err == nil
	})
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    retries: {attempts: 3, retryOn: 5xx, backoff: 1ms}
`)
	const clients, each = 120, 5
	var done sync.WaitGroup
	for range clients {
		done.Go(func() {
			for range each {
				if got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1)); status(got) != "503" {
					t.Errorf("answered %q", got)
				}
			}
		})
	}
	for sent.Load() < clients {
		time.Sleep(time.Millisecond)
	}
	gate.Done()
	done.Wait()
	// The last requests run beside few others, where three retries are always
	// allowed; and some are lent, once.
	if n := sent.Load(); n > clients*each*12/10+3*3+clients/10 {
		t.Errorf("%d requests made %d tries", clients*each, n)
	}
}

// TestRetryLimits: a retryBudget of any size is one.
func TestRetryLimits(t *testing.T) {
	for _, n := range []uint32{0, 3, 1 << 31, math.MaxUint32} {
		l := retryLimits(&mesh.RetryBudget{Percent: 20, MinConcurrency: n}, 0)
		if l.Least < 0 || uint32(l.Least) != min(n, math.MaxInt32) {
			t.Errorf("minRetryConcurrency %d is %d", n, l.Least)
		}
	}
}

// TestForward_BudgetHelps: where one of two endpoints fails, everybody is
// served by the other one, however few requests there are.
func TestForward_BudgetHelps(t *testing.T) {
	good, bad := replying(t, okReply), replying(t, "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
	p := serve(t, Options{}, entry("s.test", good.address, bad.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    retries: {attempts: 3, retryOn: 5xx}
`)
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for range 60 {
				if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != "200" {
					t.Errorf("answered %q", got)
				}
			}
		})
	}
	done.Wait()
	if len(bad.seen()) < 100 {
		t.Errorf("the bad endpoint got %d requests: nothing is shown", len(bad.seen()))
	}
}

// TestForward_BudgetInterval: requests that are over count for the budget, as
// long as its interval says.
func TestForward_BudgetInterval(t *testing.T) {
	const failing = 8
	for interval, retried := range map[string]int32{"0s": 1, "1h": failing} {
		t.Run(interval, func(t *testing.T) {
			var gate sync.WaitGroup
			gate.Add(failing)
			var retries, answered atomic.Int32
			up := upstreamServer(t, func(head string, _ *bufio.Reader, c net.Conn) bool {
				reply := okReply
				if strings.HasPrefix(head, "GET /bad") {
					reply = "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
					if strings.Contains(head, "x-envoy-attempt-count: 1\r\n") {
						gate.Done()
						gate.Wait() // until all first tries are under way
					} else {
						retries.Add(1)
						for retries.Load()+answered.Load() < failing { // until the others have a retry too, or none
							time.Sleep(time.Millisecond)
						}
					}
				}
				_, err := io.WriteString(c, reply)
				return err == nil
			})
			p := serve(t, Options{}, entry("s.test", up.address)+fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    retries: {attempts: 1, retryOn: 5xx, backoff: 1ms}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: s.test
  trafficPolicy: {retryBudget: {percent: 10, minRetryConcurrency: 1, budgetInterval: %s}}
`, interval))
			exchangeRaw(t, p.address("outbound"), strings.Repeat(get("s.test"), 100), whole(100))
			var done sync.WaitGroup
			for range failing {
				done.Go(func() {
					exchangeRaw(t, p.address("outbound"), "GET /bad HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
					answered.Add(1)
				})
			}
			done.Wait()
			if n := retries.Load(); n != retried {
				t.Errorf("%d retries, want %d", n, retried)
			}
		})
	}
}

// TestForward_Deadlines: what a caller waits for is the limit, and is told on.
func TestForward_Deadlines(t *testing.T) {
	route := func(timeout string) string {
		return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    timeout: %s
`, timeout)
	}
	for _, tt := range []struct {
		name, timeout, fields string
		want                  string // header that the upstream sees, up to its value's unit
		most                  int    // milliseconds in it
	}{
		{"none", "0s", "", "", 0},
		{"the route's", "20s", "", "x-envoy-expected-rq-timeout-ms: ", 20_000},
		{"the application's", "20s", "x-envoy-upstream-rq-timeout-ms: 7000\r\n", "x-envoy-expected-rq-timeout-ms: ", 7000},
		{"the application's, not a number", "20s", "x-envoy-upstream-rq-timeout-ms: soon\r\n", "x-envoy-expected-rq-timeout-ms: ", 20_000},
		{"gRPC's", "0s", "grpc-timeout: 9S\r\n", "grpc-timeout: ", 9000},
		{"gRPC's is longer", "20s", "grpc-timeout: 9H\r\n", "grpc-timeout: ", 20_000},
		{"gRPC's is none", "0s", "grpc-timeout: x\r\n", "grpc-timeout: x", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, Options{}, entry("s.test", up.address)+route(tt.timeout))
			if got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n"+tt.fields+"\r\n", whole(1)); status(got) != "200" {
				t.Fatalf("answered %q", got)
			}
			head := up.seen()[0]
			if strings.Contains(head, "upstream-rq-timeout") || tt.want == "" && strings.Contains(head, "timeout") {
				t.Errorf("the upstream saw %q", head)
			}
			if tt.want == "" {
				return
			}
			_, rest, ok := strings.Cut(head, tt.want)
			var n int
			fmt.Sscanf(rest, "%d", &n)
			if !ok || n > tt.most || n < tt.most-15_000 && tt.most > 15_000 || n == 0 && tt.most > 0 {
				t.Errorf("the upstream saw %q, want %s%d or less", head, tt.want, tt.most)
			}
		})
	}
}

// TestInbound_Deadline: a proxy does not wait for its application longer than
// the proxy that has called waits for it.
func TestInbound_Deadline(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // accepts by its backlog, and says nothing
	node := testNode()
	_, port, _ := net.SplitHostPort(silent.Addr().String())
	p := serve(t, Options{Node: node, Inbound: "127.0.0.1:0"}, `
apiVersion: v1
kind: Service
metadata: {name: own, namespace: default}
spec:
  selector: {app: client}
  ports: [{name: http, port: 80, targetPort: `+port+`}]
`)
	got := exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\nHost: own\r\nx-envoy-expected-rq-timeout-ms: 50\r\n\r\n", whole(1))
	if status(got) != "504" {
		t.Errorf("answered %q", got)
	}
}

// TestForward_RemoteLocalities: the third try leaves the locality of the first
// two where the policy says so.
func TestForward_RemoteLocalities(t *testing.T) {
	for _, tt := range []struct {
		policy string
		want   string
	}{{"", "503"}, {", retryRemoteLocalities: true", "200"}} {
		bad := "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
		var near []string
		for range 4 {
			near = append(near, replying(t, bad).address)
		}
		far := replying(t, okReply)
		yaml := entry("s.test", near...)
		yaml = strings.TrimSuffix(yaml, "---\n")
		ap := netip.MustParseAddrPort(far.address)
		yaml += fmt.Sprintf("  - {address: %s, ports: {http: %d}, locality: r9/z9}\n---\n", ap.Addr(), ap.Port())
		p := serve(t, Options{}, yaml+fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - route: [{destination: {host: s.test}}]
    retries: {attempts: 2, retryOn: 5xx, backoff: 1ms%s}
`, tt.policy))
		if got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1)); status(got) != tt.want {
			t.Errorf("policy %q: %q, want %s", tt.policy, got, tt.want)
		}
	}
}

// TestLink_NoFiles: where this process has no descriptor left for a connection, no endpoint
// is the worse for it, nor is the way to its cluster.
func TestLink_NoFiles(t *testing.T) {
	var all []string
	for range 4 {
		all = append(all, replying(t, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").address)
	}
	p := serve(t, Options{}, "", announced("c2", all...)...)
	c := dial(t, p.address("outbound"))
	ask := func(want string) {
		t.Helper()
		c.send("GET / HTTP/1.1\r\nHost: s.prod.global\r\n\r\n")
		n, err := strconv.Atoi(field(c.head(want), "content-length"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.r.Discard(n); err != nil {
			t.Fatal(err)
		}
	}
	ask("200")
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before) // should it fail on the way
	for range 3 {
		ask("503")
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	for _, h := range p.HostStates() {
		if !h.Healthy {
			t.Errorf("%s: %s", h.Address, h.Reason)
		}
	}
	ask("200")
}
