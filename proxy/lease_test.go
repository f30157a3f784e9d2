package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestLease_ClientGone: an upstream is told at once when a client of HTTP/2 gives a request
// up, whatever it has sent of it and got of the reply.
func TestLease_ClientGone(t *testing.T) {
	const quick = 400 * time.Millisecond // whoever looks now and then looks after a second
	for _, up := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, tt := range []struct {
			name string
			body string // "": none
			head bool   // the reply has begun
		}{
			{"no body", "", false},
			{"a body", "body", false},
			{"amid the reply", "", true},
			{"amid the reply to a body", "body", true},
		} {
			t.Run(up+", "+tt.name, func(t *testing.T) {
				asked, told := make(chan struct{}, 1), make(chan time.Time, 1)
				yaml := entry("s.test", h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					if tt.head {
						w.WriteHeader(200)
						w.(http.Flusher).Flush()
					}
					asked <- struct{}{}
					<-r.Context().Done()
					told <- time.Now()
				}))
				if up == "HTTP/2" {
					yaml = overHTTP2(yaml)
				}
				p := serve(t, Options{}, yaml)
				c := h2Client(t, p, "outbound")
				best := time.Hour
				for n := 0; n < 3 || best > quick && n < 10; n++ {
					ctx, cancel := context.WithCancel(t.Context())
					r, _ := http.NewRequestWithContext(ctx, "POST", "http://s.test/", strings.NewReader(tt.body))
					go func() {
						if res, err := c.Do(r); err == nil {
							io.Copy(io.Discard, res.Body)
							res.Body.Close()
						}
					}()
					await(t, "the request", asked)
					begun := time.Now()
					cancel()
					best = min(best, await(t, "the upstream to be told", told).Sub(begun))
				}
				if best > quick {
					t.Errorf("the upstream was told after %v at the soonest", best)
				}
				await(t, "the workers", until(func() bool { return p.workers.underWay() == 0 }))
			})
		}
	}
}

// TestLease_GoneBefore: a request whose client has given it up while it waited for its
// connection is not sent.
func TestLease_GoneBefore(t *testing.T) {
	for _, up := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(up, func(t *testing.T) {
			asked, release := make(chan string, 3), make(chan struct{})
			yaml := entry("s.test", h2Upstream(t, func(_ http.ResponseWriter, r *http.Request) {
				asked <- r.URL.Path
				if r.URL.Path == "/first" {
					<-release
				}
			}))
			if up == "HTTP/2" {
				yaml = overHTTP2(yaml)
			}
			p := serve(t, Options{}, yaml+"---\n"+destinationRule("s.test", "connectionPool: {tcp: {maxConnections: 1}, http: {maxConcurrentStreams: 1}}"))
			c := dialFrames(t, p.address("outbound"))
			ask := func(path string) {
				c.open(true, ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", path)
				c.stream += 2
			}
			ask("/first")
			await(t, "the first request", asked)
			u := theUpstream(t, p)
			ask("/given-up")
			await(t, "the second one in line", until(func() bool {
				s := &u.members[0].shared
				s.mu.Lock()
				defer s.mu.Unlock()
				return u.live.queue.waiting.Load() == 1 && (up == "HTTP/1.1" || len(s.line) == 1)
			}))
			c.f.WriteRSTStream(c.stream-2, xhttp2.ErrCodeCancel)
			c.heard()
			close(release)
			await(t, "the workers", until(func() bool { return p.workers.underWay() == 0 }))
			ask("/last")
			if path := await(t, "the next request", asked); path != "/last" {
				t.Errorf("the upstream was asked for %q", path)
			}
		})
	}
}

// theUpstream is the only upstream of a proxy.
func theUpstream(t *testing.T, p *Proxy) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.upstreams {
		return u
	}
	t.Fatal("there is none")
	return nil
}

// TestLease_Interrupted: who gives a request up when its connection is about to be given
// back disturbs nobody who has that next.
func TestLease_Interrupted(t *testing.T) {
	p := serve(t, Options{}, entry("s.test", byteServer(t, func(c net.Conn) { io.Copy(io.Discard, c) })))
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
	u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
	lease := func() *upstreamConn {
		x.clock = now()
		c, err := u.lease(u.members[0], x.conn.stream, x.clock, 0, false, false)
		if err != nil {
			t.Fatal(err)
		}
		x.leased.set(c)
		return c
	}
	c := lease()
	x.clientGone()
	x.giveBack(c, u, true)
	x.clientGone() // which is too late
	next := lease()
	next.limit = now() + instant(20*time.Millisecond)
	if _, err := next.fill(); next != c || err != errTimeout {
		t.Errorf("the same connection %v: %v, want %v", next == c, err, errTimeout)
	}
	x.giveBack(next, u, false)
}
