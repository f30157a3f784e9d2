package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestStorm: clients go away at any moment, upstreams answer early, late, never, or
// break off, and the configuration changes all the time. Who gets a
// whole reply gets its own, nobody waits for ever, and when all is over, nothing is
// left of it.
func TestStorm(t *testing.T) {
	handle := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			b := make([]byte, 700)
			for {
				n, err := r.Body.Read(b)
				w.Write(b[:n])
				w.(http.Flusher).Flush()
				if err != nil {
					return
				}
			}
		case "/late":
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		case "/early":
			w.WriteHeader(413)
		case "/again":
			if rand.N(2) == 0 {
				w.WriteHeader(503)
				return
			}
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		case "/never":
			io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
			case <-time.After(200 * time.Millisecond): // a client of HTTP/1.1 that has ended its side may still be there
			}
		case "/breaks":
			io.CopyN(w, r.Body, 100)
			panic(http.ErrAbortHandler)
		case "/closes":
			w.Header().Set("connection", "close") // over HTTP/2: GOAWAY
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		}
	}
	paths := []string{"/echo", "/late", "/early", "/again", "/never", "/breaks", "/closes"}
	for _, up := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(up, func(t *testing.T) {
			configs := make([]string, 4)
			a, b := h2Upstream(t, handle), h2Upstream(t, handle)
			for i := range configs {
				yaml := entry("s.test", a, b)
				if i%2 == 1 {
					yaml = entry("s.test", b)
				}
				if up == "HTTP/2" {
					yaml = overHTTP2(yaml)
				}
				if i >= 2 {
					yaml += destinationRule("s.test", "connectionPool: {tcp: {maxConnections: 20}, http: {maxConcurrentStreams: 3, maxRequestsPerConnection: 5}}")
				}
				configs[i] = yaml + routed(retrying503)
			}
			p := serve(t, Options{}, configs[0])
			clients := []*http.Client{h1Client(t, p, "outbound"), h2Client(t, p, "outbound")}
			over := make(chan struct{})
			var changes, storm sync.WaitGroup
			changes.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-over:
						return
					case <-time.After(5 * time.Millisecond):
						publish(t, p, configs[i%len(configs)])
					}
				}
			})
			for i := range stormClients {
				storm.Go(func() {
					for j := range stormRequests {
						path := paths[rand.N(len(paths))]
						ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
						leaves := path == "/never" || rand.N(2) == 0
						if leaves {
							time.AfterFunc(rand.N(3*time.Millisecond), cancel)
						}
						piece := strings.Repeat(fmt.Sprintf("%d.%d ", i, j), 1+rand.N(300))
						pieces := rand.N(6)
						sent := strings.Repeat(piece, pieces)
						var body io.Reader = strings.NewReader(sent)
						known := rand.N(2) == 0
						if !known {
							body = &slowly{piece, pieces}
						}
						r, _ := http.NewRequestWithContext(ctx, "POST", "http://s.test"+path, body)
						res, err := clients[rand.N(2)].Do(r)
						var got []byte
						if err == nil {
							got, err = io.ReadAll(res.Body)
							res.Body.Close()
						}
						switch {
						case errors.Is(err, context.DeadlineExceeded):
							t.Errorf("%s never ended", path)
						case err == nil && res.StatusCode == 200 && path != "/breaks" && path != "/never" && !bytes.Equal(got, []byte(sent)):
							t.Errorf("%s: %d bytes came back of %d: %.30q", path, len(got), len(sent), got)
						}
						cancel()
					}
				})
			}
			storm.Wait()
			close(over)
			changes.Wait()
			for _, c := range clients {
				c.CloseIdleConnections()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := p.Drain(ctx); err != nil {
				t.Error(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, u := range p.upstreams {
				if n := u.live.requests.Load(); n != 0 {
					t.Errorf("%d requests are counted as under way", n)
				}
				if n := u.live.queue.waiting.Load(); n != 0 {
					t.Errorf("%d wait for connections", n)
				}
			}
		})
	}
}

const stormClients, stormRequests = 8, 40

// slowly is a body that comes in pieces.
type slowly struct {
	piece string
	left  int
}

func (s *slowly) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(rand.N(500 * time.Microsecond))
	s.left--
	return copy(b, s.piece), nil
}
