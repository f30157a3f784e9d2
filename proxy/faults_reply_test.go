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

// reply is a reply with field lines and a body.
func reply(lines, body string) string { return "HTTP/1.1 200 OK\r\n" + lines + "\r\n\r\n" + body }

// TestFaults_RefusedReplies: a reply that two readers could take for two
// different things is a 502, and its connection is not used again.
func TestFaults_RefusedReplies(t *testing.T) {
	for _, tt := range []struct{ name, reply string }{
		{"length and coding", reply("Content-Length: 2\r\nTransfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n")},
		{"coding and length", reply("Transfer-Encoding: chunked\r\nContent-Length: 2", "2\r\nok\r\n0\r\n\r\n")},
		{"length twice, different", reply("Content-Length: 2\r\nContent-Length: 3", "okk")},
		{"length twice, equal", reply("Content-Length: 2\r\nContent-Length: 2", "ok")},
		{"length as list", reply("Content-Length: 2, 2", "ok")},
		{"length +2", reply("Content-Length: +2", "ok")},
		{"length over 2^63", reply("Content-Length: 9223372036854775808", "ok")},
		{"unknown coding", reply("Transfer-Encoding: gzip", "ok")},
		{"coding twice", reply("Transfer-Encoding: chunked, chunked", "0\r\n\r\n")},
		{"coding with vertical tab", reply("Transfer-Encoding: \vchunked", "0\r\n\r\n")},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"NUL in value", reply("A: b\x00c\r\nContent-Length: 2", "ok")},
		{"CR in value, which splits the reply for some", reply("A: b\rSet-Cookie: c\r\nContent-Length: 2", "ok")},
		{"LF as line end", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
		{"LF in value, which splits the reply for some", reply("A: b\nContent-Length: 0\r\nContent-Length: 2", "ok")},
		{"folded field", reply("A: b\r\n c\r\nContent-Length: 2", "ok")},
		{"space before colon", reply("Content-Length : 2", "ok")},
		{"status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"},
		{"status 999", "HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n"},
		{"status 099", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"},
		{"HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"another protocol", "220 smtp.test ESMTP\r\n\r\n"},
		{"a protocol that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"flood of interim replies", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20) + okReply},
		{"head over 60 KiB", reply("A: "+strings.Repeat("x", 61<<10)+"\r\nContent-Length: 2", "ok")},
		{"head without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("x", 1000)+"\r\n", 70)},
		{"101 fields", reply(strings.Repeat("A: b\r\n", 101)+"Content-Length: 2", "ok")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := replying(t, tt.reply)
			p := serve(t, Options{}, entry("s.test", bad.address))
			for n := range 2 {
				got := exchangeRaw(t, p.address("outbound"), get("s.test"), func(s string) bool { return strings.HasSuffix(s, "protocol error") })
				final := got[strings.LastIndex(got, "HTTP/1.1 "):]
				if status(final) != "502" {
					t.Fatalf("request %d: answered %q, want 502", n, got)
				}
			}
			bad.mu.Lock()
			defer bad.mu.Unlock()
			if len(bad.heads) != bad.conns {
				t.Errorf("%d requests over %d connections, want no connection used twice", len(bad.heads), bad.conns)
			}
		})
	}
}

// TestFaults_BodilessReplies: a body where there can be none is not delivered
// and not taken for the next reply.
func TestFaults_BodilessReplies(t *testing.T) {
	for _, tt := range []struct{ name, method, reply string }{
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"},
		{"HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstray\r\n0\r\n\r\n"},
		{"204", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nstray"},
		{"204, without length", "GET", "HTTP/1.1 204 No Content\r\n\r\nstray"},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nstray"},
		{"a whole reply behind 204", "GET", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 stray\r\nContent-Length: 0\r\n\r\n"},
		{"a whole reply behind the length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 stray\r\nContent-Length: 0\r\n\r\n"},
		{"a whole reply behind the last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 stray\r\nContent-Length: 0\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, tt.reply)
			p := serve(t, Options{}, entry("s.test", up.address))
			request := tt.method + " / HTTP/1.1\r\nHost: s.test\r\n\r\n"
			got := exchangeRaw(t, p.address("outbound"), request+request+strings.Replace(request, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1), nil)
			if strings.Count(got, "HTTP/1.1 ") != 3 || strings.Contains(got, "stray") {
				t.Errorf("got %q, want three replies and no stray one", got)
			}
			if up.mu.Lock(); up.conns != 3 {
				t.Errorf("%d connections, want one for each request", up.conns)
			}
			up.mu.Unlock()
		})
	}
}

// TestFaults_UnsolicitedReply: bytes on a kept connection that nobody asked for
// are not taken for the next answer, whatever the method.
func TestFaults_UnsolicitedReply(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			conns := make(chan net.Conn, 1)
			up := upstreamServer(t, func(head string, _ *bufio.Reader, c net.Conn) bool {
				io.WriteString(c, okReply)
				select {
				case conns <- c:
				default:
				}
				return true
			})
			p := serve(t, Options{}, entry("s.test", up.address))
			exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
			awaitIdle(p)
			io.WriteString(<-conns, "HTTP/1.1 200 poisoned\r\nContent-Length: 0\r\n\r\n")
			awaitBytes(t, p)
			request := method + " / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 0\r\n\r\n"
			if got := exchangeRaw(t, p.address("outbound"), request, whole(1)); !strings.HasSuffix(got, "\r\n\r\nok") {
				t.Errorf("got %q", got)
			}
			if up.mu.Lock(); up.conns != 2 || len(up.heads) != 2 {
				t.Errorf("%d requests over %d connections, want 2 and 2", len(up.heads), up.conns)
			}
			up.mu.Unlock()
		})
	}
}

// awaitBytes waits until the proxy's idle connection has something to read.
func awaitBytes(t *testing.T, p *Proxy) {
	t.Helper()
	for {
		p.mu.Lock()
		for _, u := range p.upstreams {
			for _, m := range u.members {
				m.pool.mu.Lock()
				for _, c := range m.pool.idle {
					if c.peek() != peekOpen {
						m.pool.mu.Unlock()
						p.mu.Unlock()
						return
					}
				}
				m.pool.mu.Unlock()
			}
		}
		p.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

// TestFaults_TruncatedReplies: what broke off must not look whole, whatever
// the framing and however much has been delivered.
func TestFaults_TruncatedReplies(t *testing.T) {
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

// TestFaults_EarlyReply: a reply that comes before the request's body has been
// sent is delivered; neither connection is used again.
func TestFaults_EarlyReply(t *testing.T) {
	for name, request := range map[string]string{
		"length":  post("Content-Length: 1000000", "abc"),
		"chunked": chunked("3\r\nabc\r\n"),
		"expect":  post("Content-Length: 10\r\nExpect: 100-continue", ""),
	} {
		t.Run(name, func(t *testing.T) {
			up := upstreamServer(t, func(head string, _ *bufio.Reader, c net.Conn) bool {
				io.WriteString(c, okReply)
				return true
			})
			p := serve(t, Options{}, entry("s.test", up.address))
			got := exchangeRaw(t, p.address("outbound"), request, nil) // until the connection ends
			if status(got) != "200" || !strings.HasSuffix(got, "ok") {
				t.Errorf("got %q", got)
			}
			exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
			if up.mu.Lock(); up.conns != 2 {
				t.Errorf("%d connections, want 2", up.conns)
			}
			up.mu.Unlock()
		})
	}
}

// TestFaults_StaleConnection: an upstream that closes a kept connection when
// the next request comes costs a GET nothing; a POST that it may have read is
// not sent twice.
func TestFaults_StaleConnection(t *testing.T) {
	for method, want := range map[string]string{"GET": "200", "POST": "503"} {
		t.Run(method, func(t *testing.T) {
			var up *upstreamScript
			up = upstreamServer(t, func(head string, _ *bufio.Reader, c net.Conn) bool {
				if strings.Contains(head, "GET /first") || len(up.seen()) > 2 {
					io.WriteString(c, okReply)
					return true
				}
				return false // the request has been read, and nobody answers
			})
			p := serve(t, Options{}, entry("s.test", up.address))
			exchangeRaw(t, p.address("outbound"), "GET /first HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
			awaitIdle(p)
			got := exchangeRaw(t, p.address("outbound"), method+" /second HTTP/1.1\r\nHost: s.test\r\nContent-Length: 2\r\n\r\nab", whole(1))
			if status(got) != want {
				t.Errorf("got %q, want %s", got, want)
			}
			if n := strings.Count(strings.Join(up.seen(), ""), "/second"); method == "POST" && n != 1 {
				t.Errorf("the POST was sent %d times", n)
			}
		})
	}
}
