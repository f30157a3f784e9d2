package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// poison is a reply that nobody has asked for.
const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

// secondRequests is requests that meet a connection which has been used, by
// the way in which they are sent.
var secondRequests = []struct {
	name, head, body string
	idempotent       bool // and may be sent again
}{
	{"GET", "GET /2", "Content-Length: 0\r\n\r\n", true},
	{"HEAD", "HEAD /2", "Content-Length: 0\r\n\r\n", true},
	{"DELETE", "DELETE /2", "Content-Length: 0\r\n\r\n", true},
	{"PUT", "PUT /2", "Content-Length: 3\r\n\r\nabc", true},
	{"PUT of chunks", "PUT /2", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + end, true},
	{"POST", "POST /2", "Content-Length: 3\r\n\r\nabc", false},
	{"POST of chunks", "POST /2", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + end, false},
	{"POST of nothing", "POST /2", "Content-Length: 0\r\n\r\n", false},
	{"PATCH", "PATCH /2", "Content-Length: 3\r\n\r\nabc", false},
	{"get", "get /2", "Content-Length: 0\r\n\r\n", false},
	{"large POST", "POST /2", "Content-Length: 300000\r\n\r\n" + strings.Repeat("x", 300000), false},
	{"large POST of chunks", "POST /2", "Transfer-Encoding: chunked\r\n\r\n493e0\r\n" + strings.Repeat("x", 300000) + "\r\n" + end, false},
	{"large PUT", "PUT /2", "Content-Length: 300000\r\n\r\n" + strings.Repeat("x", 300000), false}, // too large to be kept
}

// ask sends a request over a connection of its own and reads to its end, which
// comes when the upstream's connection has been put back.
func ask(t *testing.T, p *Proxy, line, rest string) string {
	t.Helper()
	got, _ := talk(t, p.address("outbound"), line+" HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n"+rest)
	return got
}

// count is how often a path was asked for.
func (u *upstreamScript) count(path string) int {
	n := 0
	for _, head := range u.seen() {
		if strings.Fields(head)[1] == path {
			n++
		}
	}
	return n
}

// answered checks that got is the echo of /2.
func answered(t *testing.T, head, got string) {
	t.Helper()
	want := "/2"
	if strings.HasPrefix(head, "HEAD ") {
		want = ""
	}
	if status(got) != "200" || replies(got) != 1 || !strings.HasSuffix(got, "\r\n\r\n"+want) {
		t.Errorf("%s is answered %.300q, want %q", head, got, want)
	}
}

// TestStrict_Unsolicited, rows 39 and 42: what comes over an idle connection,
// its end included, is not taken for an answer and costs the next request
// nothing.
func TestStrict_Unsolicited(t *testing.T) {
	for _, tt := range []struct {
		name, bytes string
		ends        bool
	}{
		{"a reply", poison, false},
		{"a reply and the end", poison, true},
		{"the end", "", true},
		{"two replies", poison + poison, false},
		{"a large reply", "HTTP/1.1 200 OK\r\nContent-Length: 24000\r\n\r\n" + strings.Repeat("poison..", 3000), false},
		{"a time-out", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true},
		{"an interim reply", "HTTP/1.1 100 Continue\r\n\r\n", false},
		{"half a head, that the next reply would end", "HTTP/1.1 200 OK\r\nX-Poison: ", false},
		{"a head whose body the next reply would be", "HTTP/1.1 200 OK\r\nX-Poison: a\r\nContent-Length: 40\r\n\r\n", false},
		{"an empty line", "\r\n", false},
		{"one byte", "H", false},
		{"a NUL", "\x00", true},
	} {
		for _, next := range secondRequests {
			t.Run("row 42: "+tt.name+", then "+next.name, func(t *testing.T) {
				conns := make(chan net.Conn, 100)
				up := hand(t, func(a asked) bool {
					a.echo()
					conns <- a.c
					return true
				})
				p := strictProxy(t, up.address)
				ask(t, p, "GET /1", "\r\n")
				c := <-conns
				io.WriteString(c, tt.bytes)
				if tt.ends {
					c.(*net.TCPConn).CloseWrite()
				}
				arrived(t, c)
				answered(t, next.head, ask(t, p, next.head, next.body))
				if n := up.count("/2"); n != 1 {
					t.Errorf("it was sent %d times", n)
				}
				if up.mu.Lock(); up.conns != 2 {
					t.Errorf("%d connections, want 2", up.conns)
				}
				up.mu.Unlock()
			})
		}
	}
}

// TestStrict_Surplus, row 42: what comes behind a reply, in one write with it,
// is not taken for the answer to the next request.
func TestStrict_Surplus(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for _, tt := range []struct{ name, method, reply string }{
		{"length", "GET", okReply},
		{"length 0", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"large length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + large},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + end},
		{"chunks and trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n"},
		{"large chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n" + large + "\r\n" + end},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n"},
		{"HEAD", "HEAD", okReply[:len(okReply)-len("ok")]},
	} {
		for _, surplus := range []string{poison, poison + poison, "HTTP/1.1 200 OK\r\nX-Poison: ", "\r\n", "p"} {
			for _, next := range secondRequests {
				if next.name != "GET" && next.name != "POST" && next.name != "large POST of chunks" {
					continue // TestStrict_Unsolicited has them all
				}
				t.Run(fmt.Sprintf("row 42: %s and %.20q, then %s", tt.name, surplus, next.name), func(t *testing.T) {
					wrote := make(chan struct{}, 10)
					up := hand(t, func(a asked) bool {
						if a.path() == "/2" {
							a.echo()
							return true
						}
						io.WriteString(a.c, tt.reply+surplus)
						arrived(t, a.c)
						wrote <- struct{}{}
						return true
					})
					p := strictProxy(t, up.address)
					got := ask(t, p, tt.method+" /1", "\r\n")
					if replies(got) != 1 || cutShort(got, true) && tt.method != "HEAD" || strings.Contains(got, "oison") {
						t.Errorf("answered %.300q", got)
					}
					await(t, "the upstream to have written", wrote)
					answered(t, next.head, ask(t, p, next.head, next.body))
					if one, two := up.count("/1"), up.count("/2"); one != 1 || two != 1 {
						t.Errorf("the requests were sent %d times and %d times", one, two)
					}
					if up.mu.Lock(); up.conns != 2 {
						t.Errorf("%d connections, want 2", up.conns)
					}
					up.mu.Unlock()
				})
			}
		}
	}
}

// TestStrict_EarlyReply, row 43: a reply that comes before the request's body
// has ended is delivered whole, and neither connection is used again.
func TestStrict_EarlyReply(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(inner), inner)
	for _, request := range []struct{ name, first, more string }{
		{"length", asPost("abc", "Content-Length: 1000000"), inner},
		{"length, nothing of it", asPost("", "Content-Length: 1000000"), inner},
		{"chunks", asChunks("3\r\nabc\r\n"), chunk},
		{"chunks, none of them", asChunks(""), chunk},
		{"half a chunk", asChunks("64\r\nabc"), inner},
		{"PUT", strings.Replace(asPost("abc", "Content-Length: 1000000"), "POST", "PUT", 1), inner},
	} {
		for _, reply := range []struct{ name, reply, want string }{
			{"length", okReply, "ok"},
			{"large length", "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + large, large},
			{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + end, "2\r\nok\r\n" + end},
			{"no body", "HTTP/1.1 204 No Content\r\n\r\n", ""},
			{"error", "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno", "no"},
		} {
			t.Run("row 43: "+request.name+", "+reply.name, func(t *testing.T) {
				t.Parallel() // some wait for a body that does not come
				closed := make(chan struct{})
				up := hand(t, func(a asked) bool {
					if a.path() == "/2" {
						a.echo()
						return true
					}
					io.WriteString(a.c, reply.reply)
					io.Copy(io.Discard, a.r) // until the proxy ends the connection
					close(closed)
					return false
				})
				p := strictProxy(t, up.address)
				c, err := net.Dial("tcp", p.address("outbound"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				io.WriteString(c, request.first)
				r := bufio.NewReader(c)
				head, err := readHead(r)
				if want := strings.Fields(reply.reply)[1]; err != nil || status(head) != want {
					t.Errorf("answered %q, %v, want %s", head, err, want)
				}
				io.WriteString(c, request.more)
				if body, _ := readAll(t, r); body != reply.want {
					t.Errorf("and then %d bytes, want %d: %.100q", len(body), len(reply.want), body)
				}
				await(t, "the end of the upstream's connection", closed)
				answered(t, "POST /2", ask(t, p, "POST /2", "Content-Length: 3\r\n\r\nabc"))
				if heads := up.seen(); len(heads) != 2 || up.count("/inner") > 0 {
					t.Errorf("the upstream saw %q", heads)
				}
			})
		}
	}
}

// TestStrict_Stale, row 39: when a kept connection breaks with the request, one
// that does no harm twice is sent again, whole; another one is not.
func TestStrict_Stale(t *testing.T) {
	for _, tt := range []struct {
		name, bytes string
		reset       bool
	}{
		{"closed", "", false},
		{"reset", "", true},
		{"half a status line", "HTTP/1.", false},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n", false},
		{"half a head, reset", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n", true},
		{"interim reply", "HTTP/1.1 102 Processing\r\n\r\n", false},
	} {
		for _, next := range secondRequests {
			t.Run("row 39: "+tt.name+", "+next.name, func(t *testing.T) {
				var mu sync.Mutex
				var bodies []string
				up := hand(t, func(a asked) bool {
					if a.conn > 1 {
						body := skipBody(a.head, a.r)
						mu.Lock()
						bodies = append(bodies, body)
						mu.Unlock()
						a.head, _, _ = strings.Cut(a.head, "\r\n") // there is no body any more
					}
					if a.path() == "/2" && a.conn == 1 {
						skipBody(a.head, a.r)
						io.WriteString(a.c, tt.bytes)
						if tt.reset {
							reset(a.c)
						}
						return false
					}
					a.echo()
					return true
				})
				p := strictProxy(t, up.address)
				ask(t, p, "GET /1", "\r\n")
				got := ask(t, p, next.head, next.body)
				got = got[max(0, strings.LastIndex(got, "HTTP/1.1 ")):] // behind an interim reply
				sent := up.count("/2")
				if !next.idempotent {
					if status(got) != "503" || !strings.HasSuffix(got, "reset reason: connection termination") || sent != 1 {
						t.Errorf("sent %d times and answered %.300q, want once and 503", sent, got)
					}
					return
				}
				answered(t, next.head, got)
				mu.Lock()
				defer mu.Unlock()
				want := ""
				if strings.Contains(next.body, "abc") {
					want = "abc"
				}
				if sent != 2 || len(bodies) != 1 || bodies[0] != want {
					t.Errorf("sent %d times, with the body %q, want 2 and %q", sent, bodies, want)
				}
			})
		}
	}
}

// TestStrict_StaleAll, row 39: an upstream that closes all its idle connections
// at once fails no request, whatever its method.
func TestStrict_StaleAll(t *testing.T) {
	for _, next := range secondRequests {
		t.Run("row 39: "+next.name, func(t *testing.T) {
			const n = 4
			var all sync.WaitGroup
			all.Add(n)
			conns := make(chan net.Conn, 2*n)
			up := hand(t, func(a asked) bool {
				if a.path() == "/1" {
					all.Done()
					all.Wait() // so that each has a connection of its own
				}
				a.echo()
				conns <- a.c
				return true
			})
			p := strictProxy(t, up.address)
			var clients sync.WaitGroup
			for range n {
				clients.Go(func() { ask(t, p, "GET /1", "\r\n") })
			}
			clients.Wait()
			for range n {
				c := <-conns
				c.(*net.TCPConn).CloseWrite()
				arrived(t, c)
			}
			answered(t, next.head, ask(t, p, next.head, next.body))
			if n := up.count("/2"); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}

// TestStrict_HangsUp, row 39: an upstream that reads every request and answers
// none is a 503, and gets what may not be repeated once.
func TestStrict_HangsUp(t *testing.T) {
	for _, next := range secondRequests {
		t.Run("row 39: "+next.name, func(t *testing.T) {
			up := hand(t, func(a asked) bool {
				skipBody(a.head, a.r)
				return false
			})
			p := strictProxy(t, up.address)
			got := ask(t, p, next.head, next.body)
			if status(got) != "503" || replies(got) != 1 {
				t.Errorf("answered %.300q, want 503", got)
			}
			if n := up.count("/2"); n < 1 || n > 1 && !next.idempotent {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}
