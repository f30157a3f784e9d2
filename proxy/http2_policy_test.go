package proxy

import (
	"context"
	stdtls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"isthmus/mesh"
)

// TestHTTP2_WhoSpeaksIt: an upstream is spoken to in the protocol of its port, or
// as the DestinationRule says.
func TestHTTP2_WhoSpeaksIt(t *testing.T) {
	address := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	for _, tt := range []struct {
		name, port, policy string
		h1, h2             string // what the upstream sees of a client that speaks it
	}{
		{"HTTP", "HTTP", "", "HTTP/1.1", "HTTP/1.1"},
		{"HTTP2", "HTTP2", "", "HTTP/2.0", "HTTP/2.0"},
		{"GRPC", "GRPC", "", "HTTP/2.0", "HTTP/2.0"},
		{"UPGRADE", "HTTP", "h2UpgradePolicy: UPGRADE", "HTTP/2.0", "HTTP/2.0"},
		{"DO_NOT_UPGRADE", "HTTP", "h2UpgradePolicy: DO_NOT_UPGRADE", "HTTP/1.1", "HTTP/1.1"},
		{"useClientProtocol", "HTTP", "useClientProtocol: true", "HTTP/1.1", "HTTP/2.0"},
		{"both", "HTTP", "useClientProtocol: true, h2UpgradePolicy: UPGRADE", "HTTP/1.1", "HTTP/2.0"},
		{"useClientProtocol at a port of HTTP2", "HTTP2", "useClientProtocol: true", "HTTP/2.0", "HTTP/2.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			yaml := strings.ReplaceAll(entry("s.test", address), "protocol: HTTP}", "protocol: "+tt.port+"}")
			if tt.policy != "" {
				yaml += destinationRule("s.test", "connectionPool: {http: {"+tt.policy+"}}")
			}
			p := serve(t, Options{}, yaml)
			for want, c := range map[string]*http.Client{tt.h1: h1Client(t, p, "outbound"), tt.h2: h2Client(t, p, "outbound")} {
				if tt.h1 == tt.h2 {
					want = tt.h1
				}
				res, err := c.Get("http://s.test/")
				if err != nil {
					t.Fatal(err)
				}
				got, _ := io.ReadAll(res.Body)
				if res.Body.Close(); string(got) != want {
					t.Errorf("the upstream saw %s, want %s", got, want)
				}
			}
		})
	}
}

// TestHTTP2_MaxConcurrentStreams: a connection carries as many requests at a time
// as the policy allows, and another one carries the rest.
func TestHTTP2_MaxConcurrentStreams(t *testing.T) {
	var mu sync.Mutex
	conns := map[string]int{}
	arrived, leave := make(chan struct{}), make(chan struct{})
	address := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr]++
		mu.Unlock()
		arrived <- struct{}{}
		<-leave
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", address))+destinationRule("s.test", "connectionPool: {http: {maxConcurrentStreams: 2}}"))
	c := h2Client(t, p, "outbound")
	var done sync.WaitGroup
	for range 6 {
		done.Go(func() {
			res, err := c.Get("http://s.test/")
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
	}
	for range 6 {
		<-arrived
	}
	close(leave)
	done.Wait()
	if len(conns) != 3 {
		t.Errorf("6 requests went over %v", conns)
	}
}

// lateListener has its connections say nothing at first: what they write waits.
type lateListener struct{ net.Listener }

type lateConn struct {
	net.Conn
	once sync.Once
}

func (l lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &lateConn{Conn: c}, err
}

func (c *lateConn) Write(p []byte) (int, error) {
	c.once.Do(func() { time.Sleep(20 * time.Millisecond) })
	return c.Conn.Write(p)
}

// TestHTTP2_FewStreams: a burst for an endpoint that takes few requests over a connection,
// which nobody knows before it has said so, costs nobody a reply: those that it refuses go
// over others, which get no more than it takes.
func TestHTTP2_FewStreams(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 2}}
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(lateListener{l}) // ends when the server is closed
	t.Cleanup(func() { s.Close() })
	p := serve(t, Options{}, overHTTP2(entry("s.test", l.Addr().String())))
	c := h2Client(t, p, "outbound")
	const burst = 60
	var done sync.WaitGroup
	for range burst {
		done.Go(func() {
			res, err := c.Post("http://s.test/", "text/plain", strings.NewReader("x"))
			if err != nil {
				t.Error(err)
				return
			}
			if res.Body.Close(); res.StatusCode != 200 {
				t.Error(res.Status)
			}
		})
	}
	done.Wait()
}

// TestHTTP2_MaxConnections: who finds no room on the connections that may be open
// gets it when a request over one of them has ended, and an endpoint that has none
// gets one when that of another is idle.
func TestHTTP2_MaxConnections(t *testing.T) {
	arrived, leave := make(chan struct{}, 10), make(chan struct{}, 10)
	address := func() string {
		return h2Upstream(t, func(http.ResponseWriter, *http.Request) {
			arrived <- struct{}{}
			<-leave
		})
	}
	for name, addresses := range map[string][]string{"one endpoint": {address()}, "two endpoints": {address(), address()}} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, Options{}, overHTTP2(entry("s.test", addresses...))+destinationRule("s.test", "loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 1}}"))
			c := h2Client(t, p, "outbound")
			done := make(chan error, 10)
			for range 6 {
				go func() { // ends with the reply
					res, err := c.Get("http://s.test/")
					if err == nil {
						res.Body.Close()
					}
					done <- err
				}()
			}
			for range 6 {
				await(t, "a request", arrived)
				leave <- struct{}{}
				if err := await(t, "a reply", done); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestHTTP2_KeepAlive: a connection whose other end does not answer a PING is
// given up, and the request on it ends.
func TestHTTP2_KeepAlive(t *testing.T) {
	address := framerServer(t, func(*http2.Framer, *http2.HeadersFrame) {}) // which leaves PINGs unanswered
	p := serve(t, Options{}, overHTTP2(entry("s.test", address))+destinationRule("s.test", "connectionPool: {http: {http2KeepAlive: {interval: 20ms, timeout: 20ms}}}"))
	got := exchangeRaw(t, p.address("outbound"), "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 0\r\n\r\n", whole(1))
	if !strings.Contains(got, "connection termination") {
		t.Errorf("answered %q", got)
	}
}

// TestHTTP2_KeepAliveLater: so is one that was open before anybody asked for that, and on which
// nothing comes.
func TestHTTP2_KeepAliveLater(t *testing.T) {
	address := framerServer(t, func(f *http2.Framer, h *http2.HeadersFrame) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}) // :status 200
	})
	services := overHTTP2(entry("s.test", address))
	p := serve(t, Options{}, services)
	if got := status(askPath(p, t, "/", "")); got != "200" {
		t.Fatal(got)
	}
	publish(t, p, services+destinationRule("s.test", "connectionPool: {http: {http2KeepAlive: {interval: 20ms, timeout: 20ms}}}"))
	await(t, "the end of the connection", until(func() bool { return theUpstream(t, p).live.queue.open.Load() == 0 }))
}

// TestHTTP2_Drain: clients are told to go elsewhere, what is under way is
// finished, and then the connection ends.
func TestHTTP2_Drain(t *testing.T) {
	arrived, leave := make(chan struct{}), make(chan struct{})
	p := serve(t, Options{}, entry("s.test", h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-leave
		io.WriteString(w, "whole")
	})))
	r := dialRaw(t, p.address("outbound"))
	r.ask(1, true)
	r.out.Flush()
	<-arrived
	drained := make(chan error, 1)
	go func() { drained <- p.Drain(context.Background()) }() // ends with the last connection
	last := uint32(0)
	r.until(func(f http2.Frame) bool {
		switch f := f.(type) {
		case *http2.PingFrame:
			r.WritePing(true, f.Data)
			r.out.Flush()
		case *http2.GoAwayFrame:
			last = f.LastStreamID
		}
		return last == 1
	})
	close(leave)
	if got := r.status(1); got != "200" {
		t.Errorf("the request under way was answered %q", got)
	}
	if code, told := r.ended(); told {
		t.Errorf("the connection ended with %v", code)
	}
	if err := await(t, "the drain", drained); err != nil {
		t.Error(err)
	}
}

// TestHTTP2_StalledClient: a client that grants no window holds up nobody, and
// its stream is reset in time.
func TestHTTP2_StalledClient(t *testing.T) {
	t.Parallel()
	big := "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("x", 300_000)
	p := serve(t, Options{Downstream: Downstream{StallTimeout: time.Second}}, entry("s.test", replying(t, big).address)+entry("small.test", replying(t, okReply).address))
	r := dialRaw(t, p.address("outbound"))
	r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	r.ask(1, true)
	r.ask(3, true, "bare", ":method", "GET", ":scheme", "http", ":authority", "small.test", ":path", "/")
	if got := r.status(3); got != "200" {
		t.Errorf("beside a stalled stream: %q", got)
	}
	f := r.until(func(f http2.Frame) bool {
		_, reset := f.(*http2.RSTStreamFrame)
		return reset && f.Header().StreamID == 1
	})
	if f == nil {
		t.Error("the connection ended with the stalled stream")
	}
	r.ask(5, true, "bare", ":method", "HEAD", ":scheme", "http", ":authority", "small.test", ":path", "/")
	if got := r.status(5); got != "200" {
		t.Errorf("behind a stalled stream: %q", got)
	}
}

// TestHTTP2_Unsent: the kernel keeps little of what it cannot send yet, to clients
// and to upstreams.
func TestHTTP2_Unsent(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))))
	res, err := h2Client(t, p, "outbound").Get("http://s.test/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	streams := map[string]*stream{}
	l := p.listeners["outbound"]
	l.mu.Lock()
	for c := range l.conns {
		if c.shared.Load() {
			streams["the client's"] = c.stream
		}
	}
	l.mu.Unlock()
	p.mu.Lock()
	for _, u := range p.upstreams {
		for _, m := range u.members {
			m.shared.mu.Lock()
			for _, c := range m.shared.conns {
				streams["the upstream's"] = c.stream
			}
			m.shared.mu.Unlock()
		}
	}
	p.mu.Unlock()
	if len(streams) != 2 {
		t.Errorf("connections: %v, want two", streams)
	}
	for whose, s := range streams {
		var got int
		s.control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) })
		if err != nil || got != unsent {
			t.Errorf("%s: TCP_NOTSENT_LOWAT is %d, %v; want %d", whose, got, err, unsent)
		}
	}
}

// TestHTTP2_HalfAHead: a frame that does not become whole ends its connection.
func TestHTTP2_HalfAHead(t *testing.T) {
	p := serve(t, Options{Downstream: Downstream{HeadTimeout: 50 * time.Millisecond}}, entry("s.test", replying(t, okReply).address))
	for name, send := range map[string]func(r *rawClient){
		"preface": func(*rawClient) {},
		"frame":   func(r *rawClient) { r.out.Write([]byte{0, 0, 10, 1, 5, 0, 0, 0, 1, 'x'}) },
		"block": func(r *rawClient) {
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block()})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", p.address("outbound"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if name == "preface" {
				io.WriteString(c, http2.ClientPreface[:10])
				toEnd(t, c)
				return
			}
			r := dialRaw(t, p.address("outbound"))
			send(r)
			r.ended()
		})
	}
}

// TestHTTP2_OverTLS: at a gateway, ALPN picks the protocol.
func TestHTTP2_OverTLS(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	up := replying(t, okReply)
	p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	for _, want := range []int{1, 2} {
		tr := &http.Transport{
			TLSClientConfig: &stdtls.Config{RootCAs: i.roots("a")}, ForceAttemptHTTP2: want == 2,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return net.Dial("tcp", p.address("gateway:80"))
			},
		}
		c := &http.Client{Transport: tr, Timeout: 20 * time.Second}
		for range 3 {
			res, err := c.Get("https://a.test/")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			if res.Body.Close(); res.ProtoMajor != want || res.StatusCode != 200 {
				t.Errorf("%s %s, want HTTP/%d", res.Proto, res.Status, want)
			}
		}
		tr.CloseIdleConnections()
	}
}

// TestHTTP2_BetweenProxies: two proxies with certificates speak HTTP/2 over mTLS
// for a port of HTTP2, and the callee knows who calls.
func TestHTTP2_BetweenProxies(t *testing.T) {
	tr := newTrust(t)
	frontend, web := tr.identity("shop", "frontend"), tr.identity("prod", "web")
	var mu sync.Mutex
	seen := map[string]int{}
	application := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Proto+" "+r.RemoteAddr]++
		io.WriteString(w, r.Header.Get("x-forwarded-client-cert"))
	})
	callee := serve(t, func() Options { o := proxyOf("prod", "web", web); o.Inbound = "127.0.0.1:0"; return o }(),
		strings.ReplaceAll(webService(application), "{name: http,", "{name: http2,")+peerAuthentication("istio-system", "STRICT"))
	e := webAt(callee, web.Identity().ID)
	e.Port.Protocol = mesh.ProtocolHTTP2
	caller := serve(t, proxyOf("shop", "frontend", frontend), "", e)
	for name, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, caller, "outbound"), "HTTP/2": h2Client(t, caller, "outbound")} {
		for range 5 {
			res, err := c.Get("http://" + webHost + "/")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			if res.Body.Close(); res.StatusCode != 200 || !strings.Contains(string(body), "URI=spiffe://cluster.local/ns/shop/sa/frontend") {
				t.Errorf("%s: %s %q", name, res.Status, body)
			}
		}
	}
	if len(seen) != 1 || !strings.HasPrefix(fmt.Sprint(seen), "map[HTTP/2.0 ") {
		t.Errorf("the application saw %v, want one connection of HTTP/2", seen)
	}
	callee.mu.Lock()
	inbound := callee.listeners["inbound"]
	callee.mu.Unlock()
	inbound.mu.Lock()
	conns := len(inbound.conns)
	inbound.mu.Unlock()
	if conns != 1 {
		t.Errorf("the callee has %d connections, want 1", conns)
	}
}

// TestHTTP2_AsManyAsAllowed: a client may have as many requests open as it was told, and make
// the next one as soon as one is over for it, be it answered or given up.
func TestHTTP2_AsManyAsAllowed(t *testing.T) {
	up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" {
			<-r.Context().Done()
		}
	})
	p := serve(t, atEdge(), overHTTP2(entry("s.test", up))+edge("s.test"))
	for _, give := range []bool{false, true} {
		r := dialRaw(t, p.address("gateway:80"))
		id := uint32(1)
		ask := func() {
			if give {
				r.ask(id, true, "bare", ":method", "DELETE", ":scheme", "http", ":authority", "s.test", ":path", "/")
			} else {
				r.ask(id, true)
			}
			id += 2
		}
		for range edgeStreams {
			ask()
		}
		if give {
			r.out.Flush()
			time.Sleep(2 * 100 * time.Millisecond) // which is long enough for a reset to be in order
			for i := range uint32(edgeStreams) {
				r.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
				ask()
			}
			r.WritePing(false, [8]byte{1})
		}
		refused, over := 0, 0
		f := r.until(func(f http2.Frame) bool {
			switch f.(type) {
			case *http2.RSTStreamFrame:
				refused++
			case *http2.PingFrame:
				return true
			case *http2.MetaHeadersFrame:
				if over++; !give {
					ask()
					r.out.Flush()
				}
			}
			return over == 10_000
		})
		if refused > 0 || f == nil {
			t.Errorf("given up %v: %d requests were refused, %d answered; the connection has ended: %v", give, refused, over, f == nil)
		}
	}
}
