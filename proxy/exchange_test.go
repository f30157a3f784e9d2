package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestExchange_Forwards checks what of a request reaches the upstream.
func TestExchange_Forwards(t *testing.T) {
	up := replying(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-mine\r\nX-Mine: 1\r\nX-Kept: 2\r\n\r\nok")
	p := serve(t, Options{}, entry("s.test", up.address))
	got := exchangeRaw(t, p.address("outbound"), "GET /a?b=c HTTP/1.1\r\nHost: S.test\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nX-Keep: 2\r\nX-Forwarded-For: 10.0.0.1\r\nTE: trailers\r\n\r\n", whole(1))
	if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "ok") {
		t.Errorf("reply %q", got)
	}
	if strings.Contains(got, "X-Mine") || !strings.Contains(got, "X-Kept: 2") {
		t.Errorf("fields of the reply: %q", got)
	}
	head := up.seen()[0]
	for _, want := range []string{"GET /a?b=c HTTP/1.1\r\n", "host: S.test\r\n", "X-Keep: 2\r\n", "x-forwarded-for: 10.0.0.1, 127.0.0.1\r\n", "x-forwarded-proto: http\r\n", "x-request-id: ", "x-envoy-attempt-count: 1\r\n"} {
		if !strings.Contains(head, want) {
			t.Errorf("the upstream got %q, want %q in it", head, want)
		}
	}
	for _, not := range []string{"X-Drop", "TE:", "onnection"} {
		if strings.Contains(head, not) {
			t.Errorf("the upstream got %q, want no %q in it", head, not)
		}
	}
}

// TestExchange_Bodies sends and receives bodies in every framing and size.
func TestExchange_Bodies(t *testing.T) {
	for _, size := range []int{0, 1, 100, 20 << 10, 60 << 10, 200 << 10, 1 << 20} {
		body := strings.Repeat("x", size)
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d chunked=%v", size, chunked), func(t *testing.T) {
				received := make(chan string, 1)
				up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
					received <- skipBody(head, r)
					if chunked {
						io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
						for rest := body; rest != ""; {
							n := min(len(rest), 7000)
							fmt.Fprintf(c, "%x\r\n%s\r\n", n, rest[:n])
							rest = rest[n:]
						}
						io.WriteString(c, "0\r\n\r\n")
					} else {
						fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					}
					return true
				})
				p := serve(t, Options{}, entry("s.test", up.address))
				c, err := net.Dial("tcp", p.address("outbound"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				r := bufio.NewReader(c)
				for range 2 { // the second one finds connections kept on both sides
					go func() { // ends when the request is out
						if chunked {
							io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n")
							for rest := body; rest != ""; {
								n := min(len(rest), 5000)
								fmt.Fprintf(c, "%x\r\n%s\r\n", n, rest[:n])
								rest = rest[n:]
							}
							io.WriteString(c, "0\r\n\r\n")
							return
						}
						fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					}()
					head, err := readHead(r)
					if err != nil {
						t.Fatal(err)
					}
					if !strings.HasPrefix(head, "HTTP/1.1 200") {
						t.Fatalf("reply %q", head)
					}
					if got := skipBody(strings.ToLower(head), r); got != body {
						t.Errorf("received a reply's body of %d bytes, want %d", len(got), size)
					}
					if got := <-received; got != body {
						t.Errorf("the upstream received %d bytes, want %d", len(got), size)
					}
				}
				if up.conns != 1 {
					t.Errorf("%d connections to the upstream, want one that is kept", up.conns)
				}
			})
		}
	}
}

// TestExchange_Refuses checks the proxy's own answers.
func TestExchange_Refuses(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := dead.Addr().String()
	dead.Close()
	hangsUp := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	nonsense := replying(t, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
	silent := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		r.ReadByte() // until the proxy gives up
		return false
	})
	yaml := entry("refused.test", refused) + entry("hangsup.test", hangsUp.address) + entry("nonsense.test", nonsense.address) +
		entry("silent.test", silent.address) + entry("ok.test", replying(t, okReply).address) + `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [silent.test]
  http: [{timeout: 50ms, route: [{destination: {host: silent.test}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nowhere}
spec:
  hosts: [nowhere.test]
  http: [{route: [{destination: {host: unknown.test}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}
`
	p := serve(t, Options{}, yaml)
	for _, tt := range []struct {
		name, request, status, body string
		closes                      bool
	}{
		{"no route", get("nobody.test"), "404 Not Found", "", false},
		{"destination unknown", get("nowhere.test"), "503 Service Unavailable", "", false},
		{"no endpoint", get("empty"), "503 Service Unavailable", "no healthy upstream", false},
		{"connection refused", get("refused.test"), "503 Service Unavailable", "upstream connect error or disconnect/reset before headers. reset reason: connection failure", false},
		{"hangs up", get("hangsup.test"), "503 Service Unavailable", "upstream connect error or disconnect/reset before headers. reset reason: connection termination", false},
		{"not HTTP", get("nonsense.test"), "502 Bad Gateway", "", false},
		{"timeout", get("silent.test"), "504 Gateway Timeout", "upstream request timeout", false},
		{"malformed", "GET / HTTP/1.1\r\nHost: ok.test\r\nBad Header: 1\r\n\r\n", "400 Bad Request", "", true},
		{"two lengths", "POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 Bad Request", "", true},
		{"CONNECT", "CONNECT ok.test:80 HTTP/1.1\r\nHost: ok.test:80\r\n\r\n", "405 Method Not Allowed", "", true},
		{"dot segments escaped", "GET /a/%2e%2e/b HTTP/1.1\r\nHost: ok.test\r\n\r\n", "400 Bad Request", "", true},
		{"head too large", "GET / HTTP/1.1\r\nHost: ok.test\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", "431 Request Header Fields Too Large", "", true},
		{"HTTP/2.0", "GET / HTTP/2.0\r\nHost: ok.test\r\n\r\n", "505 HTTP Version Not Supported", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			done := whole(1)
			if tt.closes {
				done = nil // the connection has to end by itself
			}
			got := exchangeRaw(t, p.address("outbound"), tt.request, done)
			if !strings.HasPrefix(got, "HTTP/1.1 "+tt.status+"\r\n") {
				t.Fatalf("got %q, want %s", got, tt.status)
			}
			if tt.body != "" && !strings.HasSuffix(got, "\r\n\r\n"+tt.body) {
				t.Errorf("got %q, want body %q", got, tt.body)
			}
			if closes := strings.Contains(got, "connection: close"); closes != tt.closes {
				t.Errorf("connection: close is %v, want %v: %q", closes, tt.closes, got)
			}
		})
	}
}

// TestExchange_TruncatedReply: what broke off must not look whole, whatever
// the framing and however much has been delivered.
func TestExchange_TruncatedReply(t *testing.T) {
	for _, size := range []int{4, 100 << 10, 2 << 20} {
		for name, head := range map[string]string{
			"length":  fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size+1),
			"chunked": fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", size+1),
		} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
					io.WriteString(c, head+strings.Repeat("x", size))
					return false
				})
				p := serve(t, Options{}, entry("s.test", up.address))
				got := exchangeRaw(t, p.address("outbound"), get("s.test"), nil)
				if whole(1)(got) && name == "length" || strings.HasSuffix(got, "0\r\n\r\n") {
					t.Errorf("%d bytes look whole", len(got))
				}
			})
		}
	}
}

// TestExchange_Pipelined answers requests in order.
func TestExchange_Pipelined(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		path := strings.Fields(head)[1]
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	got := exchangeRaw(t, p.address("outbound"),
		"GET /1 HTTP/1.1\r\nHost: s.test\r\n\r\nPOST /2 HTTP/1.1\r\nHost: s.test\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n", nil)
	var order []string
	for _, path := range []string{"/1", "/2", "/3"} {
		if strings.Contains(got, "\r\n\r\n"+path) {
			order = append(order, path)
		}
	}
	if len(order) != 3 || strings.Index(got, "/1") > strings.Index(got, "/2") || strings.Index(got, "/2") > strings.Index(got, "/3") {
		t.Errorf("got %q", got)
	}
}

// TestExchange_HTTP10 closes by default, keeps where asked to, and never
// sends chunks.
func TestExchange_HTTP10(t *testing.T) {
	up := replying(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	p := serve(t, Options{}, entry("s.test", up.address))
	got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.0\r\nHost: s.test\r\nConnection: keep-alive\r\n\r\n", nil)
	if !strings.HasSuffix(got, "\r\n\r\nok") || strings.Contains(got, "chunked") {
		t.Errorf("got %q", got)
	}
}

// TestExchange_ReplyWithoutLength ends with the connection, and is whole.
func TestExchange_ReplyWithoutLength(t *testing.T) {
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
		return false
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	got := exchangeRaw(t, p.address("outbound"), get("s.test"), func(s string) bool { return strings.HasSuffix(s, "0\r\n\r\n") })
	if !strings.HasSuffix(got, "5\r\nhello\r\n0\r\n\r\n") {
		t.Errorf("got %q", got)
	}
}
