package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"

	"isthmus/mesh"
)

// TestMakeUpstream_TableBefore: a request of a table before, or of a candidate
// before, that is the first of its table to use an upstream harms nothing of the
// one in force.
func TestMakeUpstream_TableBefore(t *testing.T) {
	key, goneKey := upstreamKey{host: "s.test", port: 80, namespace: "default"}, upstreamKey{host: "gone.test", port: 80, namespace: "default"}
	other := func(yaml string) string {
		return yaml + destinationRule("s.test", "connectionPool: {tcp: {connectTimeout: 6s}}")
	}
	before := entry("s.test", "127.0.0.1:1") + entry("gone.test", "127.0.0.1:3")
	after := entry("s.test", "127.0.0.1:1", "127.0.0.1:2")
	for _, tt := range []struct {
		name    string
		publish func(p *Proxy) (old, new *table)
	}{
		{"in force", func(p *Proxy) (old, new *table) {
			publish(t, p, before)
			old = p.table.Load()
			publish(t, p, after)
			return old, p.table.Load()
		}},
		{"candidate", func(p *Proxy) (old, new *table) {
			all := mesh.Candidate{Share: mesh.AllRequests}
			beside(t, p, after, other(before), all)
			old = p.table.Load().trialTable()
			beside(t, p, after, other(after), all)
			return old, p.table.Load().trialTable()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, "")
			old, new := tt.publish(p)
			u := p.makeUpstream(new, new.targets[key])
			if u.set.Usable() != 2 {
				t.Fatalf("%d usable, want 2", u.set.Usable())
			}
			p.makeUpstream(old, old.targets[key])
			if n := u.set.Usable(); n != 2 {
				t.Errorf("%d usable after a request of the table before, want 2", n)
			}
			u.members[0].host.Eject("test", time.Hour, false)
			if n := u.set.Usable(); n != 1 {
				t.Errorf("%d usable after one was ejected, want 1", n)
			}
			u.members[1].host.Eject("test", time.Second, true)
			for deadline := time.Now().Add(20 * time.Second); u.set.Usable() != 1; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("a host was closed that is in use")
				}
			}

			gone := p.makeUpstream(old, old.targets[goneKey])
			if gone.set.Usable() != 1 || p.upstreams[goneKey] != gone {
				t.Errorf("what is gone: %d usable, kept %v; want one, and to be ended", gone.set.Usable(), p.upstreams[goneKey] == gone)
			}
			publish(t, p, after)
			if p.upstreams[goneKey] != nil || !gone.members[0].pool.closed {
				t.Error("what is gone is not ended")
			}
		})
	}
}

// TestPublish_PortGone: what is under way over a port that a new snapshot no longer has is
// waited for as the rest is when the proxy drains, and ends with it.
func TestPublish_PortGone(t *testing.T) {
	started := make(chan struct{})
	up := upstreamServer(t, func(_ string, r *bufio.Reader, _ net.Conn) bool {
		close(started)
		r.ReadByte() // until the proxy goes away
		return false
	})
	p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
	c, err := net.Dial("tcp", p.address("gateway:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, get("s.test"))
	await(t, "the request", started)
	publish(t, p, entry("s.test", up.address))
	if p.Addresses()["gateway:80"] != "" {
		t.Error("the port is open still")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a request under way the drain ends with %v", err)
	}
	p.Close()
	ended := make(chan error, 1)
	go func() { // ends with the connection
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}()
	await(t, "the end of the connection", ended)
}

// TestPublish_PortTakenOver: a Gateway's port may come to where one listens that goes.
func TestPublish_PortTakenOver(t *testing.T) {
	up := replying(t, okReply)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bound := uint32(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	o := atEdge()
	o.GatewayBind, o.GatewayPorts = "127.0.0.1", map[uint32]uint32{80: bound, 8080: bound}
	with := func(ports ...uint32) string {
		text := entry("s.test", up.address) + strings.Replace(edge("s.test"), "number: 80,", fmt.Sprintf("number: %d,", ports[0]), 1)
		for i, port := range ports[1:] {
			text += fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw%d}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: %d, name: http, protocol: HTTP}, hosts: ['*']}]}\n", i, port)
		}
		return text
	}
	p := serve(t, o, with(80))
	before := uint32(80)
	for _, port := range []uint32{bound, 8080, 80} {
		kept, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(bound)))
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		io.WriteString(kept, get("s.test"))
		r := bufio.NewReader(kept)
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 {
			t.Errorf("port %d: before that %v, %v", port, res, err)
		} else {
			io.Copy(io.Discard, res.Body)
		}
		publish(t, p, with(port))
		io.WriteString(kept, get("s.test")) // which may have been under way
		if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 || !res.Close {
			t.Errorf("port %d: over a connection that was idle %v, %v", port, res, err)
		} else {
			io.Copy(io.Discard, res.Body)
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("port %d: a connection that was told to end: %v", port, err)
		}
		if tb := p.table.Load(); tb.gateway(before) == nil || tb.gateway(before) != tb.gateway(port) {
			t.Errorf("port %d: whom the one before has accepted just before finds nothing", port)
		}
		before = port
		address := net.JoinHostPort("127.0.0.1", fmt.Sprint(bound))
		if got := p.address(gatewayName(port)); got != address || len(p.Addresses()) != 2 {
			t.Errorf("port %d is at %q; %v", port, got, p.Addresses())
		}
		if got := status(exchangeRaw(t, address, get("s.test"), whole(1))); got != "200" {
			t.Errorf("port %d: %s", port, got)
		}
	}
	s := snapshotOf(t, p, with(bound, 8080), nil)
	if err := p.Publish(s); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("two at one address: %v", err)
	}
	if got := status(exchangeRaw(t, net.JoinHostPort("127.0.0.1", fmt.Sprint(bound)), get("s.test"), whole(1))); got != "200" {
		t.Errorf("after that: %s", got)
	}
}

// TestPublish_PortTakenOverTwice: who was accepted for a port before it was taken over finds
// the routes of whoever has the socket, whatever has been published since.
func TestPublish_PortTakenOverTwice(t *testing.T) {
	up := replying(t, okReply)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bound := uint32(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	o := atEdge()
	o.GatewayBind, o.GatewayPorts = "127.0.0.1", map[uint32]uint32{80: bound, 81: bound, 82: bound}
	with := func(port int) string {
		return entry("s.test", up.address) + strings.Replace(edge("s.test"), "number: 80,", fmt.Sprintf("number: %d,", port), 1)
	}
	p := serve(t, o, with(80))
	c := dialTCP(t, p.address("gateway:80"))
	const begun = 9
	io.WriteString(c, get("s.test")[:begun])
	p.mu.Lock()
	l := p.listeners["gateway:80"]
	p.mu.Unlock()
	for accepted := 0; accepted == 0; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		accepted = len(l.conns)
		l.mu.Unlock()
	}
	for _, port := range []int{81, 81, 82, 82, 81} {
		publish(t, p, with(port)+fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {ports: [{port: 80}]}\n", port))
	}
	io.WriteString(c, get("s.test")[begun:])
	if got := toEnd(t, c); status(got) != "200" {
		t.Errorf("%q", got)
	}
	publish(t, p, entry("s.test", up.address))
	if heirs := p.table.Load().heirs; len(heirs) > 0 {
		t.Errorf("the ports are gone, and there is still %v", heirs)
	}
}

// TestPublish_GatewaysOff: without an address to bind, no port of a Gateway is opened.
func TestPublish_GatewaysOff(t *testing.T) {
	o := atEdge()
	o.Logger = slog.New(slog.DiscardHandler)
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	publish(t, p, edge("s.test"))
	if got := p.Addresses(); len(got) > 0 {
		t.Errorf("open: %v", got)
	}
}

// TestPublish_PortWhileDraining: a drain knows of ports that a snapshot brings meanwhile,
// and waits for what has come to them.
func TestPublish_PortWhileDraining(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		close(started)
		<-release
		io.WriteString(c, okReply)
		return true
	})
	o := atEdge()
	o.GatewayBind, o.GatewayPorts = "127.0.0.1", map[uint32]uint32{80: 0, 81: 0}
	p := serve(t, o, entry("s.test", up.address)+edge("s.test"))
	drained := make(chan error, 1)
	go func() { drained <- p.Drain(context.Background()) }()
	for !p.draining.Load() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // it has looked at the listeners; later than that changes nothing here
	publish(t, p, entry("s.test", up.address)+strings.Replace(edge("s.test"), "number: 80,", "number: 81,", 1))
	address := p.address("gateway:81")
	c := dialTCP(t, address)
	io.WriteString(c, get("s.test"))
	await(t, "the request", started)
	for open := true; open; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-drained:
			close(release)
			t.Fatalf("it has ended with %v while a request is under way and the port is open", err)
		default:
		}
		more, err := net.Dial("tcp", address)
		if open = err == nil; open {
			more.Close()
		}
	}
	close(release)
	if got := toEnd(t, c); status(got) != "200" || !strings.Contains(got, "connection: close") {
		t.Errorf("the request under way: %q", got)
	}
	if err := await(t, "the end of the drain", drained); err != nil {
		t.Error(err)
	}
}

// TestPublish_PortAfterDrain: a proxy that takes no more connections opens no port, nor
// refuses what would have one.
func TestPublish_PortAfterDrain(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bound := uint32(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	up := replying(t, okReply)
	o := atEdge()
	o.GatewayBind, o.GatewayPorts = "127.0.0.1", map[uint32]uint32{80: bound, 81: bound, 82: 0}
	p := serve(t, o, entry("s.test", up.address)+edge("s.test"))
	if err := p.Drain(t.Context()); err != nil { // nothing is under way: it ends when no more connections are taken
		t.Fatal(err)
	}
	for _, port := range []int{82, 81} {
		text := entry("s.test", up.address) + strings.Replace(edge("s.test"), "number: 80,", fmt.Sprintf("number: %d,", port), 1)
		if err := p.Publish(snapshotOf(t, p, text, nil)); err != nil {
			t.Errorf("port %d: %v", port, err)
		}
		if at := p.address(gatewayName(uint32(port))); at != "" {
			t.Errorf("port %d is open at %s", port, at)
		}
	}
}

// TestPublish_PortTakenOverAccepting: a connection that is just being accepted when its port
// goes ends with the first reply, as those do that are among the open ones.
func TestPublish_PortTakenOverAccepting(t *testing.T) {
	p := serve(t, atEdge(), entry("s.test", replying(t, okReply).address)+edge("s.test"))
	p.mu.Lock()
	l := p.listeners["gateway:80"]
	p.mu.Unlock()
	l.part()
	if got := exchangeRaw(t, p.address("gateway:80"), get("s.test"), whole(1)); status(got) != "200" || !strings.Contains(got, "connection: close") {
		t.Errorf("%q", got)
	}
	opened := time.Now()
	r := dialRaw(t, p.address("gateway:80"))
	told, replied := false, ""
	seen := func(done func() bool) http2.Frame {
		return r.until(func(f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				told = true
			case *http2.MetaHeadersFrame:
				replied = f.PseudoValue("status")
			case *http2.PingFrame:
				return f.IsAck() && done == nil
			}
			return done != nil && done()
		})
	}
	for range 3 { // the first request is under way meanwhile
		r.WritePing(false, [8]byte{})
		seen(nil)
	}
	if told && time.Since(opened) < time.Duration(acceptDelay) {
		t.Error("HTTP/2: the connection ends before its first request has come")
	}
	r.ask(1, true)
	if seen(func() bool { return told && replied != "" }) == nil || replied != "200" {
		t.Errorf("HTTP/2: told %v that the connection ends, replied %q", told, replied)
	}
}

// TestPublish_PortTakenOverPolicy: what policies say of a port holds for whom it stands for.
func TestPublish_PortTakenOverPolicy(t *testing.T) {
	up := replying(t, okReply)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bound := uint32(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	o := atEdge()
	o.GatewayBind, o.GatewayPorts = "127.0.0.1", map[uint32]uint32{80: bound, 81: bound}
	at80 := entry("s.test", up.address) + edge("s.test") + authorization("default", "none", "action: DENY, rules: [{to: [{operation: {ports: ['81']}}]}]")
	p := serve(t, o, at80)
	c := dialTCP(t, p.address("gateway:80"))
	const begun = 9
	io.WriteString(c, get("s.test")[:begun])
	p.mu.Lock()
	l := p.listeners["gateway:80"]
	p.mu.Unlock()
	for accepted := 0; accepted == 0; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		accepted = len(l.conns)
		l.mu.Unlock()
	}
	publish(t, p, strings.Replace(at80, "number: 80, name: http, protocol: HTTP}, hosts", "number: 81, name: http, protocol: HTTP}, hosts", 1))
	io.WriteString(c, get("s.test")[begun:])
	if got := status(toEnd(t, c)); got != "403" {
		t.Errorf("whom port 80 had accepted: %s", got)
	}
	if got := status(exchangeRaw(t, p.address("gateway:81"), get("s.test"), whole(1))); got != "403" {
		t.Errorf("whom port 81 has accepted: %s", got)
	}
}

// TestPublish_Asking: a request that is being asked about is answered by whom it is asked,
// though the table in force asks somebody else, or the same one otherwise.
func TestPublish_Asking(t *testing.T) {
	asking, answer := make(chan struct{}), make(chan struct{})
	service := newAuthorizer(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(asking)
			<-answer
		}
	})
	up := replying(t, okReply)
	config := func(timeout string) string {
		return entry("s.test", up.address) + edge("s.test") + service.asked("istio-system", "timeout: "+timeout)
	}
	p := serve(t, atEdge(), config("20s"))
	ask := func(path string) string {
		return status(exchangeRaw(t, p.address("gateway:80"), "GET "+path+" HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n", nil))
	}
	got := make(chan string, 1)
	go func() { got <- ask("/slow") }() // ends with the answer
	await(t, "the question", asking)
	publish(t, p, config("21s"))
	if s := ask("/"); s != "200" {
		t.Errorf("by the table in force: %s", s)
	}
	close(answer)
	if s := await(t, "the reply", got); s != "200" {
		t.Errorf("by the table before: %s, want what was answered", s)
	}
}

// TestPublish_AskingForRoom: likewise of a rate limit service.
func TestPublish_AskingForRoom(t *testing.T) {
	up := replying(t, okReply)
	for _, tt := range []struct {
		name string
		then func(config string, other *limitService) string
	}{
		{"no limit any more", func(string, *limitService) string { return "" }},
		{"another service", func(config string, other *limitService) string {
			return strings.Replace(config, "cluster_name: rls", "cluster_name: "+strconv.Quote(other.address), 1)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, other := newLimitService(t), newLimitService(t)
			asking, answer := make(chan struct{}), make(chan struct{})
			s.will(func(context.Context) (*rlsv3.RateLimitResponse, error) {
				close(asking)
				<-answer
				return keepOut(t.Context())
			})
			o := atEdge()
			o.Clusters = map[string]string{"rls": s.address}
			routes, limit := entry("s.test", up.address)+edge("s.test"), globalFilter("", "")
			limit = strings.Replace(limit, "timeout: 5s", "timeout: 20s", 1)
			p := serve(t, o, routes+limit)
			ask := func() string {
				return status(exchangeRaw(t, p.address("gateway:80"), "GET / HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n", nil))
			}
			got := make(chan string, 1)
			go func() { got <- ask() }() // ends with the answer
			await(t, "the question", asking)
			publish(t, p, routes+tt.then(limit, other))
			if s := ask(); s != "200" {
				t.Errorf("by the table in force: %s", s)
			}
			close(answer)
			if s := await(t, "the reply", got); s != "429" {
				t.Errorf("by the table before: %s, want what was answered", s)
			}
		})
	}
}

// TestPublish_Tracing: the spans of a request that was under way go where the table that it
// began by says.
func TestPublish_Tracing(t *testing.T) {
	z := newZipkin(t)
	asked, release := make(chan struct{}, 1), make(chan struct{})
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		asked <- struct{}{}
		<-release
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	routes := entry("s.test", up.address)
	p := serve(t, Options{}, routes+fmt.Sprintf(`---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders: [{name: z, zipkin: {service: %s, port: %d}}]
    defaultProviders: {tracing: [z]}
    defaultConfig: {tracing: {sampling: 100}}
`, z.host, z.port))
	got := make(chan string, 1)
	go func() { // ends with the reply
		got <- status(exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n", nil))
	}()
	await(t, "the request", asked)
	publish(t, p, routes)
	close(release)
	if s := await(t, "the reply", got); s != "200" {
		t.Errorf("status %s", s)
	}
	awaitGone(p)
	p.Close()
	z.wait(t, 2)
	if _, lost := p.Spans(); lost != 0 {
		t.Errorf("%d spans are lost", lost)
	}
}

// TestPublish_OneName: requests and relayed connections to a port count together, and
// what one of these ways has counted stays when that way goes.
func TestPublish_OneName(t *testing.T) {
	up := replying(t, okReply)
	service := entry("s.test", up.address) + `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, annotations: {isthmus.io/adaptive-concurrency: "true"}}
spec: {host: s.test}
---
`
	p := serve(t, atEdge(), service+`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp}
spec: {hosts: ["*"], gateways: [gw], tcp: [{route: [{destination: {host: s.test, port: {number: 80}}}]}]}
`)
	connects := func() (n uint64) {
		for _, u := range p.Upstreams() {
			if u.Name == "outbound|80||s.test" {
				n += u.Counters.Connects.Load()
			}
		}
		return n
	}
	rooms := func() (let, shed uint64) {
		for _, l := range p.Limits() {
			let, shed = let+l.Allowed, shed+l.Enforced
		}
		return let, shed
	}
	for _, l := range []string{"outbound", "gateway:80"} {
		exchangeRaw(t, p.address(l), get("s.test"), whole(1))
	}
	awaitGone(p)
	if n := connects(); n != 2 || len(p.Upstreams()) != 2 {
		t.Fatalf("%d connections of %d upstreams, want one of each of two", n, len(p.Upstreams()))
	}
	for _, u := range p.inUse() {
		u.room.Admit(1, mesh.P1)
		u.room.Admit(100, mesh.P4)
	}
	let, shed := rooms()
	publish(t, p, service)
	if n := connects(); n != 2 || len(p.Upstreams()) != 1 {
		t.Errorf("%d connections of %d upstreams afterwards, want 2 of one", n, len(p.Upstreams()))
	}
	if l, s := rooms(); l != let || s != shed || shed != 2 {
		t.Errorf("%d let through and %d not afterwards, want %d and %d", l, s, let, shed)
	}
}
