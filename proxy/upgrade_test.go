package proxy

import (
	"bufio"
	"bytes"
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The key and what fits it of RFC 6455 1.3.
const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// asWebSocket asks s.test for a WebSocket.
func asWebSocket(lines ...string) string {
	return asGet(append([]string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + sampleKey}, lines...)...)
}

// as101 says yes.
func as101(lines ...string) string {
	return "HTTP/1.1 101 Switching Protocols\r\n" + asLines(lines) + "\r\n"
}

func asYes() string {
	return as101("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: "+sampleAccept, "Sec-WebSocket-Protocol: chat")
}

// fieldOf returns the value of a field of a head, in lower case as to its name.
func fieldOf(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// switching is an upstream that says yes to every request, and hands over what
// follows.
func switching(t testing.TB, then func(head string, r *bufio.Reader, c *net.TCPConn)) *upstreamScript {
	return upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		reply := as101("upgrade: "+fieldOf(head, "upgrade"), "connection: upgrade")
		if key := fieldOf(head, "sec-websocket-key"); key != "" {
			reply = as101("upgrade: websocket", "connection: upgrade", "sec-websocket-accept: "+string(acceptOf([]byte(key))), "x-up: 1")
		}
		io.WriteString(c, reply)
		then(head, r, c.(*net.TCPConn))
		return false
	})
}

// echoing sends back what comes, and ends when the client does.
func echoing(_ string, r *bufio.Reader, c *net.TCPConn) { io.Copy(c, r) }

// begin sends a request for an upgrade and reads the head of the answer.
func begin(t testing.TB, address, request string) (*net.TCPConn, *bufio.Reader, string) {
	t.Helper()
	c := dialTCP(t, address)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	head, err := readHead(r)
	if err != nil {
		t.Fatal(err)
	}
	return c, r, head
}

// TestUpgrade_BadHandshake, row 24: a WebSocket that is not asked for as it should
// be is a 400, and the upstream hears nothing of it.
func TestUpgrade_BadHandshake(t *testing.T) {
	version, key := "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+sampleKey
	for _, tt := range []struct {
		name  string
		lines []string
	}{
		{"no key", []string{version}},
		{"no version", []string{key}},
		{"an empty key", []string{version, "Sec-WebSocket-Key:"}},
		{"two keys", []string{version, key, key}},
		{"two versions", []string{version, version, key}},
		{"15 bytes", []string{version, "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1"}},
		{"17 bytes", []string{version, "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Njc="}},
		{"18 bytes", []string{version, "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Njc4"}},
		{"no base64", []string{version, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!=="}},
		{"base64 without its end", []string{version, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"}},
		{"a key with something behind", []string{version, key + ", a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, Options{}, entry("s.test", up.address))
			request := asGet(append(tt.lines, "Connection: upgrade", "Upgrade: WebSocket")...)
			if got := exchangeRaw(t, p.address("outbound"), request+get("s.test"), nil); status(got) != "400" || replies(got) != 1 {
				t.Errorf("answered %q, want 400 and the end", got)
			}
			if seen := up.seen(); len(seen) > 0 {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

// TestUpgrade_Offered: what is asked for is offered to the upstream, in our words.
func TestUpgrade_Offered(t *testing.T) {
	for _, tt := range []struct{ name, request, want string }{
		{"websocket", asWebSocket("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate"), "websocket"},
		{"of another version", asGet("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: "+sampleKey), "websocket"},
		{"in other case", asGet("CONNECTION: keep-alive, uPGRADE", "uPGRADE: WebSocket", "SEC-WEBSOCKET-VERSION: 13", "sec-WEBSOCKET-key: "+sampleKey), "WebSocket"},
		{"another protocol", asGet("Connection: upgrade", "Upgrade: foo/2"), "foo/2"},
		{"in a list", asGet("Connection: upgrade", "Upgrade: h2c, foo, bar"), "foo"},
		{"twice", asGet("Connection: upgrade", "Upgrade: foo", "Upgrade: h2c"), "foo"},
		{"with the length of no body", asWebSocket("Content-Length: 0"), "websocket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, Options{}, entry("s.test", up.address))
			if got := exchangeRaw(t, p.address("outbound"), tt.request, whole(1)); status(got) != "200" {
				t.Errorf("answered %q", got)
			}
			head := up.seen()[0]
			if fieldOf(head, "upgrade") != tt.want || fieldOf(head, "connection") != "upgrade" || strings.Count(strings.ToLower(head), "upgrade: ") != 1 {
				t.Errorf("the upstream saw %q", head)
			}
			for _, name := range []string{"sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions"} {
				if want := fieldOf(tt.request, name); fieldOf(head, name) != want || strings.Count(strings.ToLower(head), name+":") > 1 {
					t.Errorf("the upstream saw %q, want %s: %s, once", head, name, want)
				}
			}
		})
	}
}

// TestUpgrade_BadReplies, row 24: a 101 that nobody can have meant is a 502, and no
// tunnel.
func TestUpgrade_BadReplies(t *testing.T) {
	upgrade, connection, accept := "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Accept: "+sampleAccept
	for _, tt := range []struct{ name, reply string }{
		{"no accept", as101(upgrade, connection)},
		{"another accept", as101(upgrade, connection, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")},
		{"in other case", as101(upgrade, connection, "Sec-WebSocket-Accept: "+strings.ToLower(sampleAccept))},
		{"the key", as101(upgrade, connection, "Sec-WebSocket-Accept: "+sampleKey)},
		{"two of them", as101(upgrade, connection, accept, accept)},
		{"no upgrade", as101(connection, accept)},
		{"another upgrade", as101("Upgrade: foo", connection, accept)},
		{"two upgrades", as101("Upgrade: websocket, foo", connection, accept)},
		{"no connection", as101(upgrade, accept)},
		{"another connection", as101(upgrade, "Connection: keep-alive", accept)},
		{"the end of the connection", as101(upgrade, "Connection: upgrade, close", accept)},
		{"a body", as101(upgrade, connection, accept, "Content-Length: 3") + "abc"},
		{"chunks", as101(upgrade, connection, accept, "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n"},
		{"HTTP/1.0", strings.Replace(asYes(), "1.1", "1.0", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, tt.reply)
			p := serve(t, Options{}, entry("s.test", up.address))
			final := func(s string) bool { return strings.HasSuffix(s, "reset reason: protocol error") }
			if got := exchangeRaw(t, p.address("outbound"), asWebSocket(), final); status(got) != "502" {
				t.Errorf("answered %q, want 502", got)
			}
			if n := len(up.seen()); n != 1 {
				t.Errorf("the upstream was asked %d times", n)
			}
		})
	}
}

// TestUpgrade_NothingBefore, row 23: what a client sends behind its head is not sent
// on before the 101, and is the tunnel's then.
func TestUpgrade_NothingBefore(t *testing.T) {
	passed, early := make(chan struct{}), make(chan error, 1)
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
		<-passed // the client has got it: the proxy is past the request
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := r.ReadByte()
		c.SetReadDeadline(time.Time{})
		early <- err
		io.WriteString(c, asYes()+"first")
		io.Copy(c, r)
		return false
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	behind := get("s.test") // as whoever wants to get by the policies would have it
	c, r, head := begin(t, p.address("outbound"), asWebSocket()+behind)
	if status(head) != "103" {
		t.Fatalf("got %q", head)
	}
	close(passed)
	if err := <-early; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("before its 101 the upstream got something: %v", err)
	}
	head, err := readHead(r)
	if err != nil || status(head) != "101" || fieldOf(head, "upgrade") != "websocket" || fieldOf(head, "connection") != "upgrade" ||
		fieldOf(head, "sec-websocket-accept") != sampleAccept || fieldOf(head, "sec-websocket-protocol") != "chat" {
		t.Errorf("got %q, %v", head, err)
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "first"+behind {
		t.Errorf("through the tunnel came %q, %v", rest, err)
	}
	if n := len(up.seen()); n != 1 {
		t.Errorf("the upstream saw %d heads", n)
	}
}

// TestUpgrade_Refused, row 23: an answer other than 101 is an answer as any. What
// follows a head that asked for a tunnel is no request then.
func TestUpgrade_Refused(t *testing.T) {
	for _, request := range []string{asWebSocket(), asGet("Connection: upgrade", "Upgrade: foo")} {
		for _, tt := range []struct {
			name, reply, behind string
			more                bool // the connection serves another request
		}{
			{"200", okReply, "", true},
			{"200 in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "", true},
			{"403", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "", true},
			{"426", "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n", "", true},
			{"200 with a request behind", okReply, get("s.test"), false},
			{"200 with half a request behind", okReply, "GET /", false},
			{"200 with a frame behind", okReply, "\x81\x80abcd", false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				up := replying(t, tt.reply)
				p := serve(t, Options{}, entry("s.test", up.address))
				c, r, head := begin(t, p.address("outbound"), request+tt.behind)
				if want := status(tt.reply); status(head) != want || (fieldOf(head, "connection") == "close") == tt.more {
					t.Errorf("got %q, want %s", head, want)
				}
				if tt.more {
					skipBody(head, r)
					io.WriteString(c, get("s.test"))
					if head, err := readHead(r); err != nil || status(head) != status(tt.reply) {
						t.Errorf("the next request: %q, %v", head, err)
					}
				} else if rest, err := io.ReadAll(r); err != nil || string(rest) != "ok" {
					t.Errorf("behind the answer came %q, %v", rest, err)
				}
				if n, want := len(up.seen()), map[bool]int{true: 2, false: 1}[tt.more]; n != want {
					t.Errorf("the upstream saw %d requests, want %d", n, want)
				}
			})
		}
	}
}

// TestUpgrade_Tunnel: bytes go both ways as they come, and each side ends its own.
func TestUpgrade_Tunnel(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for name, request := range map[string]string{"websocket": asWebSocket(), "another": asGet("Connection: upgrade", "Upgrade: foo"), "with the length of no body": asWebSocket("Content-Length: 0")} {
		t.Run(name, func(t *testing.T) {
			frame := frameOf(0x82, true, large)
			up := switching(t, echoing)
			p := serve(t, Options{}, entry("s.test", up.address))
			c, r, head := begin(t, p.address("outbound"), request)
			if status(head) != "101" || strings.Contains(head, "connection: close") {
				t.Fatalf("got %q", head)
			}
			for _, sent := range [][]byte{frameOf(finalText, true, []byte("hello")), frame, frame} {
				go c.Write(sent) // ends when it was read, or the test is over
				got := make([]byte, len(sent))
				if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes came back otherwise: %v", len(sent), err)
				}
			}
			c.CloseWrite()
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("at the end came %q, %v", rest, err)
			}
		})
	}
}

// TestUpgrade_Reset: a reset of one side is one of the other.
func TestUpgrade_Reset(t *testing.T) {
	ended := make(chan error, 1)
	for name, reset := range map[string]func(up, down *net.TCPConn) (other net.Conn){
		"by the client":   func(up, down *net.TCPConn) net.Conn { down.SetLinger(0); down.Close(); return up },
		"by the upstream": func(up, down *net.TCPConn) net.Conn { up.SetLinger(0); up.Close(); return down },
	} {
		t.Run(name, func(t *testing.T) {
			far := make(chan *net.TCPConn)
			up := switching(t, func(_ string, r *bufio.Reader, c *net.TCPConn) {
				far <- c
				<-ended
			})
			p := serve(t, Options{}, entry("s.test", up.address))
			c, _, _ := begin(t, p.address("outbound"), asWebSocket())
			other := reset(<-far, c)
			other.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := other.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || err == io.EOF {
				t.Errorf("the other side got %v, want a reset", err)
			}
			ended <- nil
		})
	}
}

// TestUpgrade_NotTwice: a request for an upgrade that has been sent is not sent
// again, whatever the policy says; one that has not goes elsewhere.
func TestUpgrade_NotTwice(t *testing.T) {
	policy := `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s}
spec:
  hosts: [s.test]
  http: [{retries: {attempts: 3, retryOn: "5xx,reset,gateway-error"}, route: [{destination: {host: s.test}}]}]
`
	for name, tt := range map[string]struct {
		reply, want string
	}{"gone": {"", "503"}, "500": {"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "500"}, "a bad 101": {as101(), "502"}} {
		t.Run(name, func(t *testing.T) {
			up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
				io.WriteString(c, tt.reply)
				return tt.reply != ""
			})
			p := serve(t, Options{}, entry("s.test", up.address)+policy)
			for range 2 { // the second finds a kept connection, and does not take it
				if got := exchangeRaw(t, p.address("outbound"), asWebSocket(), whole(1)); status(got) != tt.want {
					t.Errorf("answered %q", got)
				}
			}
			if n := len(up.seen()); n != 2 {
				t.Errorf("the upstream was asked %d times, want twice", n)
			}
		})
	}
	up := switching(t, echoing)
	p := serve(t, Options{}, entry("s.test", deadAddress(t), up.address))
	for range 5 {
		if _, _, head := begin(t, p.address("outbound"), asWebSocket()); status(head) != "101" {
			t.Errorf("got %q", head)
		}
	}
}

// TestUpgrade_Limits: the route's timeout is that of the answer; a tunnel may be
// silent for as long as a connection, and last as long.
func TestUpgrade_Limits(t *testing.T) {
	timeout := `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s}
spec:
  hosts: [s.test]
  http: [{timeout: 1s, route: [{destination: {host: s.test}}]}]
---
`
	pool := func(p string) string {
		return `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec:
  host: s.test
  trafficPolicy: {connectionPool: ` + p + `}
`
	}
	t.Run("no answer", func(t *testing.T) {
		up := upstreamServer(t, func(_ string, r *bufio.Reader, _ net.Conn) bool { r.ReadByte(); return false })
		p := serve(t, Options{}, entry("s.test", up.address)+timeout)
		if got := exchangeRaw(t, p.address("outbound"), asWebSocket(), whole(1)); status(got) != "504" {
			t.Errorf("answered %q", got)
		}
	})
	for name, tt := range map[string]struct {
		pool, flag string
		talk       bool
	}{
		"silent":   {"{tcp: {idleTimeout: 1.5s}}", "- idle_timeout", false},
		"too long": {"{tcp: {maxConnectionDuration: 1.5s}}", "DT max_duration_timeout", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := switching(t, echoing)
			log, lines := newLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %REQ(:PATH)% %REQ(UPGRADE)%", true)
			p := serve(t, Options{AccessLog: log}, entry("s.test", up.address)+timeout+pool(tt.pool))
			began := time.Now()
			c, r, _ := begin(t, p.address("outbound"), asWebSocket())
			n := 0
			for tt.talk || n == 0 {
				if _, err := c.Write([]byte("ab")); err != nil {
					break
				}
				if _, err := io.ReadFull(r, make([]byte, 2)); err != nil {
					break
				}
				n += 2
				time.Sleep(time.Millisecond)
			}
			io.Copy(io.Discard, r)
			if lasted := time.Since(began); lasted < 1500*time.Millisecond {
				t.Errorf("the tunnel lasted %v", lasted)
			}
			awaitGone(p)
			got := strings.Fields(lines()[0])
			want := strings.Fields("101 " + tt.flag)
			if !slices.Equal(got[:3], want) || got[5] != "/" || got[6] != "websocket" || !tt.talk && (got[3] != "2" || got[4] != "2") {
				t.Errorf("the log has %q, want %q and %d bytes", got, want, n)
			}
		})
	}
}

// TestUpgrade_OutlivesIdlePool: how long a connection without a request is kept says nothing
// of a tunnel, which is one.
func TestUpgrade_OutlivesIdlePool(t *testing.T) {
	up := switching(t, echoing)
	p := serve(t, Options{}, entry("s.test", up.address)+destinationRule("s.test", "connectionPool: {http: {idleTimeout: 1ms}}"))
	c, r, _ := begin(t, p.address("outbound"), asWebSocket())
	for range 3 {
		if _, err := io.WriteString(c, "ab"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestUpgrade_Policies: routes and policies see an upgrade as any request, and a
// tunnel counts as one that is under way.
func TestUpgrade_Policies(t *testing.T) {
	up := switching(t, echoing)
	p := serve(t, Options{}, entry("s.test", up.address)+entry("other.test", replying(t, okReply).address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s}
spec:
  hosts: [s.test]
  http:
  - {match: [{headers: {upgrade: {exact: websocket}}, method: {exact: GET}}], rewrite: {uri: /ws}, headers: {request: {set: {x-a: b}}, response: {set: {x-c: d}}}, route: [{destination: {host: s.test}}]}
  - {route: [{destination: {host: other.test}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec:
  host: s.test
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 2}}}
`)
	var conns []*net.TCPConn
	for range 2 {
		c, _, head := begin(t, p.address("outbound"), asWebSocket())
		if status(head) != "101" || fieldOf(head, "x-c") != "d" {
			t.Fatalf("got %q", head)
		}
		conns = append(conns, c)
	}
	if head := up.seen()[0]; !strings.HasPrefix(head, "GET /ws HTTP/1.1\r\n") || fieldOf(head, "x-a") != "b" || fieldOf(head, "x-forwarded-for") != "127.0.0.1" {
		t.Errorf("the upstream saw %q", head)
	}
	if got := exchangeRaw(t, p.address("outbound"), asWebSocket(), whole(1)); status(got) != "503" {
		t.Errorf("the third of two: %q", got)
	}
	if got := exchangeRaw(t, p.address("outbound"), asGet(), whole(1)); status(got) != "200" {
		t.Errorf("another request: %q", got)
	}
	for _, c := range conns {
		c.Close()
	}
	awaitGone(p)
	if _, _, head := begin(t, p.address("outbound"), asWebSocket()); status(head) != "101" {
		t.Errorf("after they have ended: %q", head)
	}
}

// TestUpgrade_TLS: a WebSocket passes a gateway that terminates TLS, and each side
// ends its own there, too.
func TestUpgrade_TLS(t *testing.T) {
	issued := issuer{t, t.TempDir()}
	issued.credential("a", "a.test")
	up := switching(t, echoing)
	p := serveSecure(t, issued.dir, entry("up.test", up.address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	c := stdtls.Client(dialTCP(t, p.address("gateway:80")), &stdtls.Config{RootCAs: issued.roots("a"), ServerName: "a.test"})
	io.WriteString(c, strings.Replace(asWebSocket(), "s.test", "a.test", 1)+"early")
	r := bufio.NewReader(c)
	head, err := readHead(r)
	if err != nil || status(head) != "101" {
		t.Fatalf("got %q, %v", head, err)
	}
	large := frameOf(0x82, true, bytes.Repeat([]byte("0123456789abcdef"), 1<<15))
	go func() { // ends when it was read
		c.Write(large)
		c.CloseWrite()
	}()
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "early"+string(large) {
		t.Errorf("%d bytes came back, %v", len(rest), err)
	}
	if got := fieldOf(up.seen()[0], "x-forwarded-proto"); got != "https" {
		t.Errorf("the upstream saw the scheme %q", got)
	}
}

// TestUpgrade_MTLS: a WebSocket goes from one proxy to another by mTLS, over
// HTTP/1.1 and over HTTP/2, and the application takes it as any other.
func TestUpgrade_MTLS(t *testing.T) {
	tr := newTrust(t)
	frontend, web := tr.identity("shop", "frontend"), tr.identity("prod", "web")
	up := switching(t, echoing)
	for protocol, policy := range map[string]string{"HTTP/1.1": "DO_NOT_UPGRADE", "HTTP/2": "UPGRADE"} {
		t.Run(protocol, func(t *testing.T) {
			log, lines := newLog(t, "%PROTOCOL% %RESPONSE_CODE% %BYTES_SENT%", true)
			o := proxyOf("prod", "web", web)
			o.Inbound, o.AccessLog = "127.0.0.1:0", log
			sidecar := serve(t, o, webService(up.address)+peerAuthentication("prod", "STRICT"))
			p := serve(t, proxyOf("shop", "frontend", frontend), `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: `+webHost+`
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL}
    connectionPool: {http: {h2UpgradePolicy: `+policy+`}}
`, webAt(sidecar, web.Identity().ID))
			c, r, head := begin(t, p.address("outbound"), strings.Replace(asWebSocket(), "s.test", webHost, 1))
			if status(head) != "101" || fieldOf(head, "sec-websocket-accept") != sampleAccept {
				t.Fatalf("got %q", head)
			}
			large := frameOf(0x82, true, bytes.Repeat([]byte("0123456789abcdef"), 1<<15))
			go func() { // ends when it was read
				c.Write(large)
				c.CloseWrite()
			}()
			if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, large) {
				t.Errorf("%d bytes of %d came back, %v", len(rest), len(large), err)
			}
			seen := up.seen()
			got := seen[len(seen)-1]
			if who := fieldOf(got, "x-forwarded-client-cert"); !strings.Contains(who, "URI="+frontend.Identity().ID) {
				t.Errorf("the application saw the caller %q", who)
			}
			p.Close()
			awaitGone(sidecar)
			code := map[string]int{"HTTP/1.1": 101, "HTTP/2": 200}[protocol]
			if got, want := lines(), fmt.Sprintf("%s %d %d", protocol, code, len(large)); len(got) != 1 || got[0] != want {
				t.Errorf("the sidecar's log has %q, want %q", got, want)
			}
		})
	}
}
