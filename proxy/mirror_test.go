package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// mirrored is a rule for s.test whose copies go to m.test, in YAML on one line.
func mirrored(more string) string {
	return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mirrored}
spec:
  hosts: [s.test]
  http: [{route: [{destination: {host: s.test}}], mirror: {host: m.test}` + more + `}]
`
}

// awaitMirrors waits until copies are counted like that.
func awaitMirrors(t *testing.T, p *Proxy, answered, failed, dropped, unbuffered uint64) {
	t.Helper()
	m := p.Mirrors()
	var got [4]uint64
	for range 5000 {
		got = [4]uint64{m.Answered.Load(), m.Failed.Load(), m.Dropped.Load(), m.Unbuffered.Load()}
		if got == [4]uint64{answered, failed, dropped, unbuffered} {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("answered, failed, dropped, unbuffered: %d, want %d", got, []uint64{answered, failed, dropped, unbuffered})
}

// capture is an upstream that keeps what it gets, bodies included.
type capture struct {
	*upstreamScript
	mu       sync.Mutex // guards requests
	requests []string
}

func capturing(t *testing.T, reply string) *capture {
	c := &capture{}
	c.upstreamScript = upstreamServer(t, func(head string, r *bufio.Reader, w net.Conn) bool {
		body := skipBody(head, r)
		c.mu.Lock()
		c.requests = append(c.requests, head+body)
		c.mu.Unlock()
		_, err := io.WriteString(w, reply)
		return err == nil
	})
	return c
}

func (c *capture) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.requests) == 0 {
		return ""
	}
	return c.requests[len(c.requests)-1]
}

var requestIDLine = regexp.MustCompile(`(?i)x-request-id: [^\r]+\r\n`)

// TestMirror_Copy: a copy is the request with the same id, for the same host,
// changed by the same rules.
func TestMirror_Copy(t *testing.T) {
	const rules = `, rewrite: {uri: /new/}, headers: {request: {add: {x-added: "1"}}}`
	for _, tt := range []struct{ name, more, request, line, host, body string }{
		{"GET", "", "GET /a?b=c HTTP/1.1\r\nHost: s.test\r\nX-One: 1\r\n\r\n", "GET /a?b=c HTTP/1.1", "s.test", ""},
		{"with a port", "", "GET /a HTTP/1.1\r\nHost: s.test:80\r\nX-One: 1\r\n\r\n", "GET /a HTTP/1.1", "s.test:80", ""},
		{"absolute", "", "GET http://s.test/a HTTP/1.1\r\nHost: s.test\r\nX-One: 1\r\n\r\n", "GET /a HTTP/1.1", "s.test", ""},
		{"with a body", rules, "POST /a HTTP/1.1\r\nHost: s.test\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello", "POST /new/a HTTP/1.1", "s.test", "hello"},
		{"an empty body", "", "POST /a HTTP/1.1\r\nHost: s.test\r\nX-One: 1\r\nContent-Length: 0\r\n\r\n", "POST /a HTTP/1.1", "s.test", ""},
		{"chunked", "", "POST /a HTTP/1.1\r\nHost: s.test\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "POST /a HTTP/1.1", "s.test", "hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, shadow := capturing(t, okReply), capturing(t, "HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 1000000))
			p := serve(t, Options{}, entry("s.test", up.address)+entry("m.test", shadow.address)+mirrored(tt.more))
			if got := exchangeRaw(t, p.address("outbound"), tt.request, whole(1)); status(got) != "200" {
				t.Errorf("got %q, want 200", got)
			}
			awaitMirrors(t, p, 1, 0, 0, 0)
			first, second := up.last(), shadow.last()
			head, body, _ := strings.Cut(second, "\r\n\r\n")
			if !strings.HasPrefix(second, tt.line+"\r\nhost: "+tt.host+"\r\n") || body != tt.body || !strings.Contains(head, "\r\nX-One: 1") {
				t.Errorf("copy %q, want %q for %s with %q", second, tt.line, tt.host, tt.body)
			}
			if id := requestIDLine.FindString(first); id == "" || id != requestIDLine.FindString(second) {
				t.Errorf("ids differ: %q and %q", first, second)
			}
			if tt.more != "" && !strings.Contains(head, "\r\nx-added: 1") {
				t.Errorf("copy %q without the rule's header", second)
			}
		})
	}
}

// TestMirror_Failures: whatever becomes of a copy, the client has its reply.
func TestMirror_Failures(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mirror  func(t *testing.T) string // the mirror's address
		request string
		want    [4]uint64
	}{
		{"nobody there", func(t *testing.T) string { return refusing(t) }, get("s.test"), [4]uint64{0, 1, 0, 0}},
		{"cut off", func(t *testing.T) string {
			return replying(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").address
		}, get("s.test") + "", [4]uint64{0, 1, 0, 0}},
		{"a large body", func(t *testing.T) string { return replying(t, okReply).address },
			"POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), [4]uint64{0, 0, 0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, Options{}, entry("s.test", up.address)+entry("m.test", tt.mirror(t))+mirrored(", timeout: 1s"))
			if got := exchangeRaw(t, p.address("outbound"), tt.request, whole(1)); status(got) != "200" {
				t.Errorf("got %q, want 200", got)
			}
			awaitMirrors(t, p, tt.want[0], tt.want[1], tt.want[2], tt.want[3])
		})
	}
}

// refusing returns an address where nobody listens.
func refusing(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestMirror_Share: copies are drawn, and a share of 0 makes none.
func TestMirror_Share(t *testing.T) {
	for _, tt := range []struct {
		name, more string
		draw       uint32
		copies     uint64
	}{
		{"in the share", ", mirrorPercentage: {value: 0.1}", 999, 3},
		{"beyond", ", mirrorPercentage: {value: 0.1}", 1000, 0},
		{"none", ", mirrorPercentage: {value: 0}", 0, 0},
		{"all", "", 999_999, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, shadow := replying(t, okReply), replying(t, okReply)
			p := serve(t, Options{draw: dice(t, tt.draw)}, entry("s.test", up.address)+entry("m.test", shadow.address)+mirrored(tt.more))
			exchangeRaw(t, p.address("outbound"), strings.Repeat(get("s.test"), 3), whole(3))
			awaitMirrors(t, p, tt.copies, 0, 0, 0)
			if n := uint64(len(shadow.seen())); n != tt.copies {
				t.Errorf("the mirror got %d, want %d", n, tt.copies)
			}
		})
	}
}

// TestMirror_Bounded: a mirror that does not answer costs copies, no requests.
func TestMirror_Bounded(t *testing.T) {
	release := make(chan struct{})
	up := replying(t, okReply)
	slow := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { <-release; return false })
	p := serve(t, Options{}, entry("s.test", up.address)+entry("m.test", slow.address)+mirrored(""))
	const n = maxMirrored + 44
	exchangeRaw(t, p.address("outbound"), strings.Repeat(get("s.test"), n), whole(n))
	awaitMirrors(t, p, 0, 0, 44, 0)
	close(release)
	awaitMirrors(t, p, 0, maxMirrored, 44, 0)
	await(t, "no copy is under way", until(func() bool { return p.mirroring.active.Load() == 0 }))
}

// TestMirror_AfterFault: what a fault aborts is not copied.
func TestMirror_AfterFault(t *testing.T) {
	up, shadow := replying(t, okReply), replying(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+entry("m.test", shadow.address)+
		mirrored(", fault: {abort: {percentage: {value: 100}, httpStatus: 418}}"))
	if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != "418" {
		t.Errorf("got %q, want 418", got)
	}
	if len(shadow.seen()) != 0 {
		t.Errorf("the mirror got %q", shadow.seen())
	}
}

// TestMirror_GRPC: a copy of a call is one: over HTTP/2 where it goes as the client
// speaks, and of gRPC-Web made one of gRPC as the call itself is.
func TestMirror_GRPC(t *testing.T) {
	type seen struct{ proto, content, te, body string }
	want := seen{"HTTP/2.0", "application/grpc", "trailers", "\x00\x00\x00\x00\x01a"}
	for _, tt := range []struct{ name, listener, port, protocol, content, body string }{
		{"as the client", "outbound", "any", "", "application/grpc", want.body},
		{"gRPC-Web", "gateway:80", "grpc", ", protocol: GRPC", "application/grpc-web-text", "AAAAAAFh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan seen, 2)
			up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got <- seen{r.Proto, r.Header.Get("content-type"), r.Header.Get("te"), string(body)}
				w.Header().Set("grpc-status", "0")
			})
			yaml := strings.NewReplacer("name: http, protocol: HTTP", "name: "+tt.port+tt.protocol, "{http: ", "{"+tt.port+": ").Replace(entry("s.test", up) + entry("m.test", up))
			p := serve(t, atEdge(), yaml+anyHost+strings.Replace(mirrored(""), "hosts: [s.test]", "hosts: [s.test]\n  gateways: [gw, mesh]", 1))
			r, _ := http.NewRequest("POST", "http://s.test/", strings.NewReader(tt.body))
			r.Header.Set("content-type", tt.content)
			r.Header.Set("te", "trailers")
			res, err := h2Client(t, p, tt.listener).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			awaitMirrors(t, p, 1, 0, 0, 0)
			for range 2 {
				if s := <-got; s != want {
					t.Errorf("got %q, want %q", s, want)
				}
			}
		})
	}
}
