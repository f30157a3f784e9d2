package proxy

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// testClient is one connection of a client that looks at what it gets before it
// goes on.
type testClient struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func dial(t *testing.T, address string) *testClient {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &testClient{c, t, bufio.NewReader(c)}
}

func (c *testClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// head reads a head and checks its status.
func (c *testClient) head(want string) string {
	c.t.Helper()
	head, err := readHead(c.r)
	if err != nil || status(head) != want {
		c.t.Fatalf("got %q, %v, want %s", head, err, want)
	}
	return head
}

// TestContinue_EndToEnd: the upstream decides whether a body is wanted that
// its client holds back.
func TestContinue_EndToEnd(t *testing.T) {
	for name, lines := range map[string]string{"length": "Content-Length: 5", "chunked": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
				if !strings.Contains(head, "expect: 100-continue\r\n") {
					got <- "no expectation in " + head
					return false
				}
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				got <- skipBody(head, r)
				io.WriteString(c, okReply)
				return true
			})
			p := serve(t, Options{}, entry("s.test", up.address))
			c := dial(t, p.address("outbound"))
			for range 2 { // both connections are kept
				c.send(post(lines+"\r\nExpect: 100-Continue", ""))
				c.head("100")
				if name == "length" {
					c.send("hello")
				} else {
					c.send("5\r\nhello\r\n" + chunkEnd)
				}
				if body := <-got; body != "hello" {
					t.Errorf("the upstream got %q", body)
				}
				c.head("200")
				io.ReadFull(c.r, make([]byte, 2))
			}
			if up.mu.Lock(); up.conns != 1 {
				t.Errorf("%d connections, want one that is kept", up.conns)
			}
			up.mu.Unlock()
		})
	}
}

// TestContinue_Refused: a final reply to the head alone ends both connections,
// since nobody knows whether the body still comes (CVE-2024-24791).
func TestContinue_Refused(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		io.WriteString(c, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	c := dial(t, p.address("outbound"))
	c.send(post("Content-Length: 39\r\nExpect: 100-continue", ""))
	if head := c.head("417"); !strings.Contains(head, "connection: close\r\n") {
		t.Errorf("got %q", head)
	}
	c.send(smuggled)
	if rest := toEnd(t, c.r); rest != "" {
		t.Errorf("and then %q", rest)
	}
	if n := len(up.seen()); n != 1 {
		t.Errorf("the upstream got %d requests", n)
	}
}

// TestContinue_Impatient: a client may send its body without having been asked
// for it.
func TestContinue_Impatient(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		skipBody(head, r)
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	c := dial(t, p.address("outbound"))
	c.send(post("Content-Length: 5\r\nExpect: 100-continue", ""))
	for len(up.seen()) == 0 {
		time.Sleep(time.Millisecond)
	}
	c.send("hello")
	c.head("200")
}

// TestContinue_FailsOver: while the body is held back, or is large and has not
// been begun, another endpoint may get the request.
func TestContinue_FailsOver(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for name, lines := range map[string]string{"expecting 100": "Content-Length: 200000\r\nExpect: 100-continue", "large": "Content-Length: 200000"} {
		t.Run(name, func(t *testing.T) {
			body := make(chan string, 1)
			up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
				if strings.Contains(head, "expect") {
					io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				}
				body <- skipBody(head, r)
				io.WriteString(c, okReply)
				return true
			})
			for range 8 { // until the dead one was drawn first, most likely
				p := serve(t, Options{}, entry("s.test", dead.Addr().String(), up.address))
				c := dial(t, p.address("outbound"))
				c.send(post(lines, ""))
				if strings.Contains(lines, "Expect") {
					c.head("100")
				}
				c.send(strings.Repeat("x", 200000))
				c.head("200")
				if got := <-body; len(got) != 200000 {
					t.Errorf("the upstream got %d bytes", len(got))
				}
			}
		})
	}
}

// TestHalfClose: a client that ends its side behind its request gets the reply.
func TestHalfClose(t *testing.T) {
	release := make(chan struct{})
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		<-release
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	c := dial(t, p.address("outbound"))
	c.send(get("s.test"))
	c.Conn.(*net.TCPConn).CloseWrite()
	for len(up.seen()) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	if got := toEnd(t, c.r); status(got) != "200" || !strings.HasSuffix(got, "ok") {
		t.Errorf("got %q", got)
	}
}

// TestHalfClose_Gone: of a client that has closed, in whatever way, the upstream is told
// within seconds, so that it need not go on; one that still reads gets its reply, behind a
// 100 if it knows what that is.
func TestHalfClose_Gone(t *testing.T) {
	t.Parallel()
	const http10 = "GET / HTTP/1.0\r\nHost: s.test\r\n\r\n"
	for _, tt := range []struct {
		name, request string
		stays         bool
		want          string // what the client reads
	}{
		{"closed", get("s.test"), false, ""},
		{"closed, with a body", "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 2\r\n\r\nab", false, ""},
		{"half", get("s.test"), true, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"},
		{"half, HTTP/1.0", http10, true, "HTTP/1.1 200 OK\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			release, ended := make(chan struct{}), make(chan struct{})
			up := byteServer(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				head, err := readHead(r)
				if err != nil {
					return
				}
				skipBody(head, r)
				go func() { // ends with the connection
					r.ReadByte()
					close(ended)
				}()
				<-release
				io.WriteString(c, okReply)
			})
			p := serve(t, Options{}, entry("s.test", up))
			c := dial(t, p.address("outbound"))
			c.send(tt.request)
			if !tt.stays {
				c.Close()
				await(t, "the upstream hears of it", ended)
				close(release)
				awaitCounted(t, p, "0 DC 1")
				return
			}
			c.Conn.(*net.TCPConn).CloseWrite()
			time.AfterFunc(time.Duration(clientCheck*3/2), func() { close(release) }) // it has been looked at
			if got := toEnd(t, c.r); !strings.HasPrefix(got, tt.want) || !strings.HasSuffix(got, "ok") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestHalfClose_GoneLater: a client that has sent several requests and ended its side is
// found out with each of them.
func TestHalfClose_GoneLater(t *testing.T) {
	t.Parallel()
	release, asked, ended := make(chan struct{}), make(chan struct{}, 2), make(chan struct{}, 2)
	up := byteServer(t, func(c net.Conn) {
		defer func() { ended <- struct{}{} }()
		for r := bufio.NewReader(c); ; {
			if _, err := readHead(r); err != nil {
				return
			}
			asked <- struct{}{}
			if len(asked) == 1 {
				<-release
				io.WriteString(c, okReply)
			}
		}
	})
	p := serve(t, Options{}, entry("s.test", up))
	c := dial(t, p.address("outbound"))
	c.send(get("s.test") + get("s.test"))
	c.Conn.(*net.TCPConn).CloseWrite()
	c.head("100")
	close(release)
	c.head("200")
	await(t, "the second request", until(func() bool { return len(asked) == 2 }))
	c.r.Discard(len("ok"))
	c.Close()
	await(t, "the upstream hears of it", ended)
}
