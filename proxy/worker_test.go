package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"testing"
	"time"
	"weak"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"isthmus/http2"
)

// TestWorker_Panic: a worker whose exchange has panicked serves no other, since the
// goroutine that sends the body may not have ended.
func TestWorker_Panic(t *testing.T) {
	var in, head bytes.Buffer
	in.WriteString(http2.Preface)
	f := xhttp2.NewFramer(&in, nil)
	f.WriteSettings()
	e := hpack.NewEncoder(&head)
	for _, field := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "s.test"}, {Name: ":path", Value: "/"}} {
		e.WriteField(field)
	}
	f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
	h := http2.NewServer(http2.Options{MaxStreams: 1})
	if _, err := h.Receive(in.Bytes()); err != nil {
		t.Fatal(err)
	}

	// A proxy without a table: looking for the route panics.
	var log bytes.Buffer
	c := &client{proxy: &Proxy{log: slog.New(slog.NewTextHandler(&log, nil))}, listener: &listener{}, patience: &patience{}}
	p := &workers{}
	w := &worker{of: p, next: make(chan struct{}, 1), job: job{c, &stream{}, h.Next(), now()}}
	w.conn.stream = &stream{}
	p.busy = 1
	w.next <- struct{}{}
	close(w.next)
	w.run()
	if len(p.idle) > 0 || p.underWay() != 0 {
		t.Errorf("%d workers wait and %d are under way, want none", len(p.idle), p.underWay())
	}
	if !bytes.Contains(log.Bytes(), []byte("panic while serving a request")) {
		t.Errorf("the log has %q", log.String())
	}
	if !h.Idle() {
		t.Error("the stream is still open")
	}
}

// TestWorkers_Trim: a worker that nobody has needed for a while is let go of, with
// the memory that it holds.
func TestWorkers_Trim(t *testing.T) {
	p := serve(t, Options{}, entry("s.test", replying(t, okReply).address))
	if res, err := h2Client(t, p, "outbound").Get("http://s.test/"); err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	idle := func() (w *worker) {
		p.workers.mu.Lock()
		defer p.workers.mu.Unlock()
		if len(p.workers.idle) > 0 {
			w = p.workers.idle[0]
		}
		return w
	}
	await(t, "an idle worker", until(func() bool { return idle() != nil }))
	w := weak.Make(idle())
	await(t, "the worker's end", until(func() bool {
		p.workers.trim()
		runtime.GC()
		return w.Value() == nil
	}))
}

// TestWorker_PanicAfterLease: an exchange that panics after it has got a connection, or a
// stream of one, gives it back, whatever either side speaks.
func TestWorker_PanicAfterLease(t *testing.T) {
	for _, up := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, down := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(down+" to "+up, func(t *testing.T) {
				yaml := entry("s.test", h2Upstream(t, func(_ http.ResponseWriter, r *http.Request) { r.Body.Read(make([]byte, 1)) }))
				if up == "HTTP/2" {
					yaml = overHTTP2(yaml)
				}
				p := serve(t, Options{}, yaml)
				x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p}}, table: p.table.Load()}
				u := x.upstream(x.table.outbound.find([]byte("s.test"), 80).routes[0].destinations[0].target)
				u.tracker = nil               // who is told of the reply panics
				p.table.Store(p.table.Load()) // whoever loads it from here on sees that
				c := h2Client(t, p, "outbound")
				if down == "HTTP/1.1" {
					c = h1Client(t, p, "outbound")
				}
				for _, goesOn := range []bool{false, true} {
					r, w := io.Pipe()
					go func() { // ends with the request
						io.WriteString(w, "body")
						if goesOn {
							time.Sleep(100 * time.Millisecond)
						}
						w.Close()
					}()
					if res, err := c.Post("http://s.test/", "text/plain", r); err == nil {
						t.Errorf("got %s", res.Status)
					}
				}
				if up == "HTTP/1.1" {
					await(t, "the end of the connections", until(func() bool { return u.live.queue.open.Load() == 0 }))
					return
				}
				s := &u.members[0].shared
				s.mu.Lock()
				defer s.mu.Unlock()
				if len(s.conns) != 1 || !s.conns[0].h2.Idle() {
					t.Errorf("%d connections, of which the first has streams open", len(s.conns))
				}
			})
		}
	}
}
