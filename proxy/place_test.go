package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestPlace_BackBeforeReply: whoever has his reply may send the next request at once,
// over another stream or connection: the place that the first one had is free.
func TestPlace_BackBeforeReply(t *testing.T) {
	up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chunks":
			io.WriteString(w, "a part")
			w.(http.Flusher).Flush()
		case "/trailers":
			w.Header().Set("Trailer", "X-End")
			w.Header().Set("X-End", "1")
		case "/long":
			w.Write(make([]byte, 100<<10))
		}
	})
	p := serve(t, Options{}, entry("s.test", up)+destinationRule("s.test", "connectionPool: {http: {http2MaxRequests: 1}}"))
	for _, c := range []struct {
		name    string
		clients [2]*http.Client
	}{
		{"HTTP/1.1", [2]*http.Client{h1Client(t, p, "outbound"), h1Client(t, p, "outbound")}},
		{"HTTP/2", [2]*http.Client{h2Client(t, p, "outbound"), h2Client(t, p, "outbound")}},
	} {
		for _, path := range []string{"/", "/chunks", "/trailers", "/long"} {
			t.Run(c.name+path, func(t *testing.T) {
				for i := range 300 {
					res, err := c.clients[i%2].Get("http://s.test" + path)
					if err != nil {
						t.Fatal(err)
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if res.StatusCode != 200 {
						t.Fatalf("after %d: %d", i, res.StatusCode)
					}
				}
			})
		}
	}
}

// TestPlace_Pending: whoever has his reply may send the next request at once, though its
// connection is not back yet, and as many wait for that as may.
func TestPlace_Pending(t *testing.T) {
	up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			w.Write(make([]byte, 100<<10))
		}
	})
	pool := destinationRule("s.test", "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxConcurrentStreams: 1}}")
	for name, yaml := range map[string]string{"HTTP/1.1": entry("s.test", up), "HTTP/2": overHTTP2(entry("s.test", up))} {
		for _, path := range []string{"/", "/long"} {
			t.Run(name+path, func(t *testing.T) {
				p := serve(t, Options{}, yaml+"---\n"+pool)
				var all sync.WaitGroup
				for range 2 {
					clients := [2]*http.Client{h1Client(t, p, "outbound"), h1Client(t, p, "outbound")}
					all.Go(func() {
						for i := range 200 {
							res, err := clients[i%2].Get("http://s.test" + path)
							if err != nil {
								t.Error(err)
								return
							}
							body, _ := io.ReadAll(res.Body)
							res.Body.Close()
							if res.StatusCode != 200 {
								t.Errorf("after %d: %d %s", i, res.StatusCode, body)
								return
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}

// TestPlace_Connection: whoever has seen the end of his connection may open the next one at
// once.
func TestPlace_Connection(t *testing.T) {
	p := serve(t, Options{Overload: Overload{Connections: 1}}, entry("s.test", replying(t, okReply).address))
	for i := range 500 {
		c, err := net.Dial("tcp", p.address("outbound"))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n")
		got, err := io.ReadAll(c)
		c.Close()
		if len(got) == 0 {
			t.Fatalf("after %d: %v", i, err)
		}
	}
}

// TestPlace_Worker: a client with as many requests under way as there is memory for may make
// the next one as soon as it has the reply to one.
func TestPlace_Worker(t *testing.T) {
	p := prepare(t, atEdge())
	p.overload.workers = edgeStreams
	publish(t, p, overHTTP2(entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {})))+edge("s.test"))
	r := dialRaw(t, p.address("gateway:80"))
	id := uint32(1)
	ask := func() {
		r.ask(id, true)
		id += 2
	}
	for range edgeStreams {
		ask()
	}
	over, got := 0, map[string]int{}
	r.until(func(f http2.Frame) bool {
		if f, ok := f.(*http2.MetaHeadersFrame); ok {
			over++
			got[f.PseudoValue("status")]++
			ask()
			r.out.Flush()
		}
		return over == 10_000
	})
	if got["200"] != over || over < 10_000 {
		t.Errorf("%v", got)
	}
	await(t, "the workers", until(func() bool { return p.workers.underWay() == 0 || p.workers.ending.Load() == 0 }))
}

// TestPlace_Relay: whoever has seen the end of what a connection that is passed on, or a
// tunnel, has brought may open the next one at once.
func TestPlace_Relay(t *testing.T) {
	up := byteServer(t, func(c net.Conn) { c.Write(make([]byte, 1)) })
	relay := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+
		policyOf("{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}"))
	sw := switching(t, func(_ string, _ *bufio.Reader, c *net.TCPConn) { c.Write(make([]byte, 1)) })
	tunnel := func(pool string) *Proxy {
		return serve(t, Options{}, entry("s.test", sw.address)+destinationRule("s.test", "connectionPool: "+pool))
	}
	for _, tt := range []struct {
		name, address, says string
		clients             int
	}{
		{"relays in line", relay.address("gateway:80"), "", 2},
		{"tunnels in line", tunnel("{tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}").address("outbound"), asWebSocket(), 2},
		{"tunnels at a time", tunnel("{http: {http2MaxRequests: 1}}").address("outbound"), asWebSocket(), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var all sync.WaitGroup
			for range tt.clients {
				all.Go(func() {
					for i := range 300 {
						c := dialTCP(t, tt.address)
						io.WriteString(c, tt.says)
						got, err := io.ReadAll(c)
						c.Close()
						if len(got) == 0 || got[len(got)-1] != 0 {
							t.Errorf("after %d: %q, %v", i, got, err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}
