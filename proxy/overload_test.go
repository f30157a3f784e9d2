package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	h2 "isthmus/http2"
)

func TestWhatToRefuse(t *testing.T) {
	const limit = 1000
	for _, tt := range []struct {
		name string
		held []int64 // one after the other
		want int32
	}{
		{"little", []int64{500}, refuseNothing},
		{"almost four fifths", []int64{799}, refuseNothing},
		{"four fifths", []int64{800}, refuseRequests},
		{"a little less again", []int64{800, 760}, refuseRequests},
		{"enough less", []int64{800, 749}, refuseNothing},
		{"nine tenths", []int64{900}, refuseConnections},
		{"nine tenths, a little less", []int64{900, 860}, refuseConnections},
		{"nine tenths, enough less for connections", []int64{900, 849}, refuseRequests},
		{"more than there is", []int64{1500}, refuseConnections},
		{"all gone", []int64{1500, 100}, refuseNothing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := refuseNothing
			for _, held := range tt.held {
				is = whatToRefuse(is, held, limit)
			}
			if is != tt.want {
				t.Errorf("%v of %d: %d, want %d", tt.held, limit, is, tt.want)
			}
		})
	}
}

// TestOverload_Requests: while requests are refused, each gets 503 at once in the
// terms of who asks; then they are served again.
func TestOverload_Requests(t *testing.T) {
	up := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool {
		t.Error("the upstream was asked")
		return false
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	if res, err := h2Client(t, p, "outbound").Get("http://nobody.test/"); err != nil || res.StatusCode != 404 { // by a worker that then waits
		t.Fatal(res, err)
	}
	p.overload.refusal.Store(refuseRequests)
	for _, c := range []struct {
		name   string
		client *http.Client
	}{{"HTTP/1.1", h1Client(t, p, "outbound")}, {"HTTP/2", h2Client(t, p, "outbound")}} {
		for _, grpc := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gRPC %v", c.name, grpc), func(t *testing.T) {
				await(t, "a worker that waits", until(func() bool { return idleWorkers(p) > 0 }))
				req, _ := http.NewRequest("POST", "http://s.test/", strings.NewReader("body"))
				if grpc {
					req.Header.Set("Content-Type", "application/grpc")
					req.Header.Set("Te", "trailers")
				}
				res, err := c.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				got := fmt.Sprintf("%d %q %s %s", res.StatusCode, body, res.Header.Get("X-Envoy-Overloaded"), res.Header.Get("Grpc-Status"))
				want := `503 "overloaded" true `
				if grpc {
					want = `200 "" true 14`
				}
				if got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				why := func() string { return fmt.Sprint(p.Why(res.Header.Get("X-Request-Id"))) }
				await(t, "the reason", until(func() bool { return strings.Contains(why(), "overload.memory") }))
				if c.name == "HTTP/1.1" && !res.Close {
					t.Error("the connection is kept")
				}
			})
		}
	}
	if n := p.Overload().Requests; n != 4 {
		t.Errorf("%d requests are counted as refused, want 4", n)
	}
	eventuallyCounted(t, p, []string{"BlackHoleCluster 404 NR 1", "unknown 200 OM 2", "unknown 503 OM 2"}, "destination_service_name", "response_code", "response_flags")
}

func idleWorkers(p *Proxy) int {
	p.workers.mu.Lock()
	defer p.workers.mu.Unlock()
	return len(p.workers.idle)
}

// TestOverload_NoWorker: without a worker that waits, requests over HTTP/2 are
// refused before there is one, and the connection goes on.
func TestOverload_NoWorker(t *testing.T) {
	p := serve(t, Options{}, entry("s.test", replying(t, okReply).address))
	p.overload.refusal.Store(refuseRequests)
	r := dialRaw(t, p.address("outbound"))
	for id := uint32(1); id < 6; id += 2 {
		r.ask(id, id == 1) // the others have bodies that do not come
	}
	for id := uint32(1); id < 6; id += 2 {
		if got := r.status(id); got != "503" {
			t.Errorf("stream %d was answered %q", id, got)
		}
	}
	if n, s := p.workers.underWay(), p.Overload(); n != 0 || s.Requests != 3 {
		t.Errorf("%d workers are busy; %+v", n, s)
	}
	awaitCounted(t, p, "503 OM 3")
	p.overload.refusal.Store(refuseNothing)
	r.ask(7, true)
	if got := r.status(7); got != "200" {
		t.Errorf("in the end %q", got)
	}
}

// TestOverload_Memory: a proxy that holds more than it may refuses connections, and
// takes them when it may have more.
func TestOverload_Memory(t *testing.T) {
	var log words
	p := serve(t, Options{Overload: Overload{Memory: 1}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, entry("s.test", "127.0.0.1:1"))
	await(t, "refusals", until(func() bool { return p.Overload().Refusing == int(refuseConnections) }))
	c, err := net.Dial("tcp", p.address("outbound"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: s.test\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("answered %q", b)
	}
	if s := p.Overload(); s.Refused != 1 || s.Connections != 0 || s.Memory == 0 {
		t.Errorf("%+v", s)
	}
	if got := log.String(); !strings.Contains(got, "connections are refused: requests hold nine tenths of the memory") || strings.Contains(got, "overload.connections") {
		t.Errorf("the log says %q", got)
	}
}

// TestOverload_NotForClients: requests are not refused for memory that their clients
// cannot have taken.
func TestOverload_NotForClients(t *testing.T) {
	p := serve(t, Options{Overload: Overload{Memory: newMemoryMeter().held() / 4}}, entry("s.test", "127.0.0.1:1"))
	for range 10 {
		p.lookAtMemory()
		if n := p.Overload().Refusing; n != int(refuseNothing) {
			t.Fatalf("without a client, %d is refused", n)
		}
	}
	p.overload.open.Store(1 << 20)
	await(t, "refusals", until(func() bool { return p.Overload().Refusing != int(refuseNothing) }))
}

// TestOverload_Connections: one more connection than clients may have takes the
// place of one that is idle; where none is, it is closed.
func TestOverload_Connections(t *testing.T) {
	asked, release := make(chan struct{}, 8), make(chan struct{})
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.HasPrefix(head, "GET /wait") {
			asked <- struct{}{}
			<-release
		}
		io.WriteString(c, okReply)
		return true
	})
	var log words
	p := serve(t, Options{Overload: Overload{Connections: 2}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, entry("s.test", up.address))
	type client struct {
		net.Conn
		*bufio.Reader
	}
	ask := func(path string) client {
		t.Helper()
		c, err := net.Dial("tcp", p.address("outbound"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: s.test\r\n\r\n", path)
		return client{c, bufio.NewReader(c)}
	}
	status := func(c client) string {
		line, err := c.Reader.ReadString('\n')
		if err != nil {
			return "closed"
		}
		return strings.TrimSpace(line)
	}
	busy := ask("/wait")
	await(t, "the request", asked)
	idle := ask("/")
	if got := status(idle); got != "HTTP/1.1 200 OK" {
		t.Fatal(got)
	}
	await(t, "an idle connection", until(func() bool { return idleConns(p) == 1 }))
	second := ask("/wait")
	await(t, "the request in the place of the idle one", asked)
	if rest, err := io.ReadAll(idle.Reader); err != nil || strings.Contains(string(rest), "HTTP/1.1") {
		t.Errorf("the idle one read %q, %v", rest, err)
	}
	await(t, "room", until(func() bool { return p.Overload().Connections == 2 }))
	if got := status(ask("/")); got != "closed" {
		t.Errorf("with all busy, one more got %q", got)
	}
	close(release)
	for _, c := range []client{busy, second} {
		if got := status(c); got != "HTTP/1.1 200 OK" {
			t.Errorf("one that was busy got %q", got)
		}
	}
	if s := p.Overload(); s.Ended != 1 || s.Refused != 1 {
		t.Errorf("%+v", s)
	}
	if got := log.String(); !strings.Contains(got, "raise overload.connections, or run more replicas") || strings.Contains(got, "memory") || !strings.Contains(got, "open=2 limit=2") {
		t.Errorf("the log says %q", got)
	}
}

// idleConns counts connections that wait for a request.
func idleConns(p *Proxy) (n int) {
	l := p.listeners["outbound"]
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.waiting.Load() {
			n++
		}
	}
	return n
}

// TestOverload_Bodies: bodies that an upstream does not read hold no more than they
// may, on however many connections; who asks for something else is served.
func TestOverload_Bodies(t *testing.T) {
	const most = 2 << 20
	up := framerServerOf(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(f *http2.Framer, frame http2.Frame) {
		if h, ok := frame.(*http2.HeadersFrame); ok && h.StreamEnded() { // bodies wait for a window for ever
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}) // :status 200
		}
	})
	p := serve(t, Options{bodies: h2.NewBudget(most)}, overHTTP2(entry("s.test", up)))
	var wait sync.WaitGroup
	answers := make(chan string, 80)
	var clients []*uploader
	for range 10 {
		u := newUploader(t, p.address("outbound"))
		clients = append(clients, u)
		for range 8 {
			wait.Go(func() { answers <- u.send("/stuck", 1<<20) }) // ends with the reset, or the connection
		}
	}
	await(t, "resets", until(func() bool { s := p.Overload(); return s.Reset > 0 && s.Bodies <= most }))
	if got := await(t, "a client to be told", answers); got != "reset ENHANCE_YOUR_CALM" {
		t.Errorf("a client was told %q", got)
	}
	res, err := h2Client(t, p, "outbound").Get("http://s.test/")
	if err != nil || res.StatusCode != 200 {
		t.Errorf("another request: %v %v", res, err)
	}
	for _, u := range clients {
		u.conn.Close()
	}
	wait.Wait()
	await(t, "what became of them in the metrics", until(func() bool {
		return strings.Contains(fmt.Sprint(counted(t, p, "response_flags")), "OM")
	}))
}
