package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDeadline_Uploads: timeouts run from when a request has come whole, however long
// its client takes to send it; and they do run from then on.
func TestDeadline_Uploads(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		n := len(skipBody(head, r))
		if strings.Contains(head, " /silent ") {
			return true
		}
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nx-expected: %s\r\nContent-Length: %d\r\n\r\n%d", field(head, "x-envoy-expected-rq-timeout-ms"), len(fmt.Sprint(n)), n)
		return err == nil
	})
	const pieces, between = 10, 60 * time.Millisecond
	for _, tt := range []struct {
		name, rule, head string
		piece            int  // of its body, in bytes
		chunked          bool // its length is not told
		want             string
		late             time.Duration // how long behind the end of the body the answer comes, at least
	}{
		{"a large body", "timeout: 200ms", "POST / ", 20_000, false, "200", 0},
		{"one that fits a buffer", "timeout: 200ms", "POST / ", 100, false, "200", 0},
		{"one of unknown length", "timeout: 200ms", "POST / ", 5_000, true, "200", 0},
		{"a time-out of tries", "retries: {attempts: 1, perTryTimeout: 200ms}", "POST / ", 20_000, false, "200", 0},
		{"a large body, and nobody answers", "timeout: 200ms", "POST /silent ", 20_000, false, "504", 200 * time.Millisecond},
		{"one that fits a buffer, and nobody answers", "timeout: 200ms", "POST /silent ", 100, false, "504", 200 * time.Millisecond},
		{"one of unknown length, and nobody answers", "timeout: 200ms", "POST /silent ", 5_000, true, "504", 200 * time.Millisecond},
		{"a time-out of tries, and nobody answers", "retries: {attempts: 1, perTryTimeout: 200ms}", "POST /silent ", 20_000, false, "504", 200 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, Options{}, entry("s.test", up.address)+virtualService("s.test", "{"+tt.rule+", route: [{destination: {host: s.test}}]}"))
			c, err := net.Dial("tcp", p.address("outbound"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			framing := fmt.Sprintf("Content-Length: %d\r\n\r\n", pieces*tt.piece)
			if tt.chunked {
				framing = "Transfer-Encoding: chunked\r\n\r\n"
			}
			io.WriteString(c, tt.head+"HTTP/1.1\r\nHost: s.test\r\n"+framing)
			text := strings.Repeat("x", tt.piece)
			if tt.chunked {
				text = fmt.Sprintf("%x\r\n%s\r\n", tt.piece, text)
			}
			for range pieces {
				time.Sleep(between)
				io.WriteString(c, text)
			}
			if tt.chunked {
				io.WriteString(c, "0\r\n\r\n")
			}
			end := time.Now()
			got := readWhole(c)
			if took := time.Since(end); status(got) != tt.want || took < tt.late-20*time.Millisecond || took > tt.late+time.Second {
				t.Errorf("got %q %v after the end, want %s after %v", got, took, tt.want, tt.late)
			}
			if tt.want == "200" && (!strings.HasSuffix(got, fmt.Sprint(pieces*tt.piece)) || tt.piece > 1000 && field(got, "x-expected") != "200") {
				t.Errorf("got %q, want all of the body there, and the upstream to be told of 200 ms", got)
			}
		})
	}
}

// readWhole reads one reply.
func readWhole(c net.Conn) string {
	var got strings.Builder
	buf := make([]byte, 4<<10)
	for !whole(1)(got.String()) {
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return got.String()
}

// TestDeadline_Continue: while a client waits for 100 (Continue), the upstream is
// waited for; behind it, the client.
func TestDeadline_Continue(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.Contains(head, " /silent ") {
			return true
		}
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		skipBody(head, r)
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	p := serve(t, Options{}, entry("s.test", up.address)+virtualService("s.test", "{timeout: 200ms, route: [{destination: {host: s.test}}]}"))
	for path, want := range map[string]string{"/silent": "504", "/": "200"} {
		c, err := net.Dial("tcp", p.address("outbound"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: s.test\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n", path)
		r := bufio.NewReader(c)
		head, err := readHead(r)
		if status(head) == "100" {
			for range 10 {
				time.Sleep(40 * time.Millisecond)
				io.WriteString(c, "x")
			}
			head, err = readHead(r)
		}
		if err != nil || status(head) != want {
			t.Errorf("%s: got %q, %v, want %s", path, head, err, want)
		}
	}
}

// TestDeadline_Streams: the same holds over HTTP/2, to upstreams of either kind, and
// for what a calling proxy says that it waits.
func TestDeadline_Streams(t *testing.T) {
	tr := newTrust(t)
	up := replying(t, okReply)
	for name, tt := range map[string]struct {
		yaml, authority, listener string
		fields                    []string
	}{
		"to HTTP/1.1":     {entry("s.test", up.address) + virtualService("s.test", "{timeout: 200ms, route: [{destination: {host: s.test}}]}"), "s.test", "outbound", nil},
		"to HTTP/2":       {overHTTP2(entry("s.test", replyingStreams(t))) + virtualService("s.test", "{timeout: 200ms, route: [{destination: {host: s.test}}]}"), "s.test", "outbound", nil},
		"a calling proxy": {"", "web.prod", "inbound", []string{"x-envoy-expected-rq-timeout-ms", "200"}},
	} {
		t.Run(name, func(t *testing.T) {
			var p *Proxy
			if tt.listener == "inbound" {
				p = sidecarOfWeb(t, tr.identity("prod", "web"), up.address, "")
			} else {
				p = serve(t, Options{}, tt.yaml)
			}
			r := dialRaw(t, p.address(tt.listener))
			r.ask(1, false, append([]string{"bare", ":method", "POST", ":scheme", "http", ":authority", tt.authority, ":path", "/"}, tt.fields...)...)
			for i := range 10 {
				r.out.Flush()
				time.Sleep(50 * time.Millisecond)
				r.WriteData(1, i == 9, make([]byte, 5000))
			}
			r.out.Flush()
			if got := r.status(1); got != "200" {
				t.Errorf("status %s, want 200", got)
			}
		})
	}
}

// TestDeadline_Backpressure: what an upstream takes slowly, behind the time in which it
// had to answer, waits for it, if that time is over.
func TestDeadline_Backpressure(t *testing.T) {
	const late = 1500 * time.Millisecond   // behind the timeout, and then the upstream begins to read
	const pieces, size = 2 << 10, 16 << 10 // more than sockets hold
	for _, tt := range []struct {
		name, head string
		framed     func(piece []byte) []byte
		end        string
		taken      func(r io.Reader, sent int64) io.Reader
		wait       string // the status that the client waits for before it goes on
		answer     string // what the upstream answers to the head
	}{
		{"a tunnel", asWebSocket(), func(piece []byte) []byte { return frameOf(0x82, true, piece) }, "", io.LimitReader, "101", ""},
		{"a body that was asked for", "POST / HTTP/1.1\r\nHost: s.test\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
			func(piece []byte) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(piece), piece) }, chunkEnd,
			func(r io.Reader, _ int64) io.Reader { return httputil.NewChunkedReader(r) }, "100", "HTTP/1.1 100 Continue\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			piece := tt.framed(make([]byte, size))
			reads := func(_ string, r *bufio.Reader, c *net.TCPConn) {
				time.Sleep(2 * late)
				if n, err := io.Copy(io.Discard, tt.taken(r, int64(pieces*len(piece)))); err != nil || n < pieces*size {
					t.Errorf("the upstream got %d bytes, %v", n, err)
				}
				io.WriteString(c, okReply)
			}
			up := switching(t, reads)
			if tt.answer != "" {
				up = upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
					io.WriteString(c, tt.answer)
					reads(head, r, c.(*net.TCPConn))
					return false
				})
			}
			p := serve(t, Options{}, entry("s.test", up.address)+virtualService("s.test", "{timeout: 1s, route: [{destination: {host: s.test}}]}"))
			c, r, head := begin(t, p.address("outbound"), tt.head)
			if status(head) != tt.wait {
				t.Fatalf("got %q", head)
			}
			time.Sleep(late)
			for range pieces {
				if _, err := c.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			io.WriteString(c, tt.end)
			if head, err := readHead(r); status(head) != "200" {
				t.Errorf("got %q, %v", head, err)
			}
		})
	}
}

// TestDeadline_NoContinue: a client that does not wait for 100 (Continue) for ever is
// one that is sending.
func TestDeadline_NoContinue(t *testing.T) {
	t.Parallel()
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		skipBody(head, r)
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	p := serve(t, Options{}, entry("s.test", up.address)+virtualService("s.test", "{timeout: 400ms, route: [{destination: {host: s.test}}]}"))
	c := dialTCP(t, p.address("outbound"))
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "PUT / HTTP/1.1\r\nHost: s.test\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
	for range 10 {
		time.Sleep(60 * time.Millisecond)
		io.WriteString(c, "x")
	}
	if got := readWhole(c); status(got) != "200" {
		t.Errorf("got %q, want 200", got)
	}
}

// TestDeadline_LateEnd: a request over HTTP/2 has come whole when its stream has ended,
// not when its length has come.
func TestDeadline_LateEnd(t *testing.T) {
	t.Parallel()
	up := replying(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+virtualService("s.test", "{timeout: 200ms, route: [{destination: {host: s.test}}]}"))
	r := dialRaw(t, p.address("outbound"))
	r.ask(1, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/", "content-length", "5")
	r.WriteData(1, false, []byte("hello"))
	r.out.Flush()
	time.Sleep(400 * time.Millisecond)
	r.WriteData(1, true, nil)
	if got := r.status(1); got != "200" {
		t.Errorf("status %s, want 200", got)
	}
}

// TestDeadline_Conversation: the callee of a conversation, which counts from its
// beginning, hears of its caller's deadline; other proxies, of the timeout behind it.
func TestDeadline_Conversation(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+virtualService("s.test", "{timeout: 2s, route: [{destination: {host: s.test}}]}"))
	r := dialRaw(t, p.address("outbound"))
	r.ask(1, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/", "content-type", "application/grpc", "te", "trailers", "grpc-timeout", "1H")
	r.out.Flush()
	await(t, "the call", until(func() bool { return len(up.seen()) == 1 }))
	head := up.seen()[0]
	if d, ok := grpcTimeout([]byte(field(head, "grpc-timeout"))); !ok || d < instant(time.Hour-time.Minute) || field(head, "x-envoy-expected-rq-timeout-ms") != "2000" {
		t.Errorf("the callee sees %q, want an hour, and 2000", head)
	}
}

// TestDeadline_Asked: the same holds where an authorization service is asked, which sees
// the body first.
func TestDeadline_Asked(t *testing.T) {
	t.Parallel()
	service := newAuthorizer(t, func(http.ResponseWriter, *http.Request) {})
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		skipBody(head, r)
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	p := serve(t, atEdge(), entry("s.test", up.address)+anyHost+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  gateways: [gw]
  http: [{timeout: 200ms, route: [{destination: {host: s.test}}]}]
`+service.asked("istio-system", "timeout: 5s"))
	c := dialTCP(t, p.address("gateway:80"))
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 10\r\n\r\n")
	for range 10 {
		time.Sleep(40 * time.Millisecond)
		io.WriteString(c, "x")
	}
	if got := readWhole(c); status(got) != "200" {
		t.Errorf("got %q, want 200", got)
	}
}

// TestDeadline_InLine: who waits for a connection, and is not listened to meanwhile,
// waits for us: the timeouts run.
func TestDeadline_InLine(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.Contains(head, " /silent ") {
			return true
		}
		skipBody(head, r)
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	for _, tt := range []struct{ name, rule, want string }{
		{"timeout", "timeout: 300ms", "504"},
		{"perTryTimeout", "retries: {attempts: 1, perTryTimeout: 300ms}", "504"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, Options{}, entry("s.test", up.address)+destinationRule("s.test", "connectionPool: {tcp: {maxConnections: 1}}")+
				virtualService("s.test", "{match: [{method: {exact: POST}}], "+tt.rule+", route: [{destination: {host: s.test}}]}\n  - {route: [{destination: {host: s.test}}]}"))
			first := dial(t, p.address("outbound"))
			first.send("GET /silent HTTP/1.1\r\nHost: s.test\r\n\r\n")
			await(t, "the only connection", until(func() bool { return len(p.Upstreams()) > 0 && p.Upstreams()[0].Connections == 1 }))
			start := time.Now()
			c := dial(t, p.address("outbound"))
			c.send("POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 200_000))
			c.head(tt.want)
			if took := time.Since(start); took < 250*time.Millisecond || took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestDeadline_WhoseFault: a gateway's client who hardly waits has no endpoint ejected for
// the others.
func TestDeadline_WhoseFault(t *testing.T) {
	for _, tt := range []struct {
		name, listener, timeout, field string
		ejected                        bool
	}{
		{"the client's, at a gateway", "gateway:80", "0s", "grpc-timeout: 5m\r\n", false},
		{"the client's comes first", "gateway:80", "60s", "grpc-timeout: 5m\r\n", false},
		{"the route's comes first", "gateway:80", "0.005s", "grpc-timeout: 60S\r\n", true},
		{"the application's own", "outbound", "0s", "grpc-timeout: 5m\r\n", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			silent := upstreamServer(t, func(_ string, r *bufio.Reader, _ net.Conn) bool { r.ReadByte(); return false })
			yaml := strings.Replace(edge("s.test"), "gateways: [gw]", "gateways: [gw, mesh]", 1)
			yaml = strings.Replace(yaml, "{route:", "{timeout: "+tt.timeout+", route:", 1)
			p := serve(t, atEdge(), entry("s.test", silent.address)+
				destinationRule("s.test", "outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 100}")+yaml)
			out := func() bool {
				return slices.ContainsFunc(p.HostStates(), func(h HostState) bool { return !h.Healthy })
			}
			tries := 5
			if tt.ejected {
				tries = 1000 // a deadline may pass before there is a connection
			}
			for i := 0; i < tries && !out(); i++ {
				got := exchangeRaw(t, p.address(tt.listener), "GET / HTTP/1.1\r\nHost: s.test\r\n"+tt.field+"\r\n", whole(1))
				if status(got) != "504" {
					t.Fatalf("answered %q, want 504", got)
				}
			}
			if out() != tt.ejected {
				t.Errorf("ejected %v, want %v", out(), tt.ejected)
			}
		})
	}
}

// TestDeadline_WhoseFaultToldByCallee: nor does a callee who keeps to that client's deadline
// speak against itself.
func TestDeadline_WhoseFaultToldByCallee(t *testing.T) {
	for field, ejected := range map[string]bool{"5m": false, "60S": true} {
		up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("content-type", "application/grpc")
			w.Header().Set("grpc-status", "4")
		})
		p := serve(t, atEdge(), overHTTP2(entry("s.test", up))+destinationRule("s.test", "outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 100}")+edge("s.test"))
		for range 3 {
			got := exchangeRaw(t, p.address("gateway:80"), "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\ngrpc-timeout: "+field+"\r\n\r\n", whole(1))
			if !strings.Contains(got, "grpc-status: 4\r\n") {
				t.Fatalf("answered %q, want DEADLINE_EXCEEDED", got)
			}
		}
		for _, h := range p.HostStates() {
			if h.Healthy == ejected {
				t.Errorf("grpc-timeout %s: healthy %v: %s", field, h.Healthy, h.Reason)
			}
		}
	}
}
