package proxy

import (
	"bufio"
	"bytes"
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
	"golang.org/x/net/http2/hpack"
)

// TestPump_Panic: what breaks while a body is sent on ends that exchange, and not
// the process.
func TestPump_Panic(t *testing.T) {
	var said bytes.Buffer
	p := &Proxy{log: slog.New(slog.NewTextHandler(&said, nil))}
	x := &exchange{conn: &conn{stream: &stream{}, client: &client{proxy: p, listener: &listener{name: "outbound"}}}}
	if k := x.pumpSafely(nil); k != ClientGone { // there is no upstream to write to
		t.Errorf("got %v", k)
	}
	if got := said.String(); !strings.Contains(got, "panic while serving a request") || !strings.Contains(got, "exchange).pump") {
		t.Errorf("the log says %q", got)
	}
}

// TestPump_ClientGone: a client that goes away after its body was sent on is
// missed, and the upstream is told.
func TestPump_ClientGone(t *testing.T) {
	for _, up := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, down := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(down+" to "+up, func(t *testing.T) {
				t.Parallel()
				begun, whole, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
				yaml := entry("s.test", h2Upstream(t, func(_ http.ResponseWriter, r *http.Request) {
					io.ReadFull(r.Body, make([]byte, 3))
					close(begun)
					io.Copy(io.Discard, r.Body)
					close(whole)
					<-r.Context().Done()
					close(gone)
				}))
				if up == "HTTP/2" {
					yaml = overHTTP2(yaml)
				}
				p := serve(t, Options{}, yaml)
				var end, leave func()
				if down == "HTTP/1.1" {
					c, err := net.Dial("tcp", p.address("outbound"))
					if err != nil {
						t.Fatal(err)
					}
					io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
					end = func() { io.WriteString(c, "0\r\n\r\n") }
					leave = func() {
						c.(*net.TCPConn).SetLinger(0)
						c.Close()
					}
				} else {
					r := dialRaw(t, p.address("outbound"))
					r.ask(1, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/")
					r.WriteData(1, false, []byte("abc"))
					r.out.Flush()
					end = func() {
						r.WriteData(1, true, nil)
						r.out.Flush()
					}
					leave = func() {
						r.WriteRSTStream(1, http2.ErrCodeCancel)
						r.out.Flush()
					}
				}
				await(t, "the beginning of the body", begun)
				end()
				await(t, "its end", whole)
				leave()
				await(t, "the upstream to be told", gone)
			})
		}
	}
}

// TestPump_HalfABody: a client that ends its side amid a body is done with, whether
// the upstream says something or not.
func TestPump_HalfABody(t *testing.T) {
	for name, body := range map[string]string{
		"chunked": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"length":  "Content-Length: 1000000\r\n\r\nabc",
	} {
		for _, up := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(name+" to "+up, func(t *testing.T) {
				broken := make(chan error, 1)
				yaml := entry("s.test", h2Upstream(t, func(_ http.ResponseWriter, r *http.Request) {
					_, err := io.Copy(io.Discard, r.Body)
					broken <- err
				}))
				if up == "HTTP/2" {
					yaml = overHTTP2(yaml)
				}
				p := serve(t, Options{}, yaml)
				c, err := net.Dial("tcp", p.address("outbound"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\n"+body)
				c.(*net.TCPConn).CloseWrite()
				if err := await(t, "the upstream to be told", broken); err == nil {
					t.Error("half a body was taken for the whole")
				}
				awaitGone(p)
			})
		}
	}
}

// retrying503 is a route that tries again whatever is answered with a 503.
const retrying503 = `route: [{destination: {host: s.test}}], retries: {attempts: 3, retryOn: "503", backoff: 1ms}`

// TestPump_RetryBeforeBody: an upstream answers before the body has come, and
// another try is made. The body goes to that one alone, and nobody else gets the
// connection on which it is still awaited.
func TestPump_RetryBeforeBody(t *testing.T) {
	type try struct {
		conn  string
		again bool
	}
	tries := make(chan try, 10)
	n := 0
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		n++ // tries come one after the other
		again := n%2 == 1
		if again {
			io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
		}
		tries <- try{c.RemoteAddr().String(), again}
		if !again {
			body := skipBody(head, r)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address)+routed(retrying503))
	for range 20 {
		c, err := net.Dial("tcp", p.address("outbound"))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n")
		first, second := await(t, "the first try", tries), await(t, "the second try", tries)
		if !first.again || second.again || first.conn == second.conn {
			t.Fatalf("tries over %v and %v", first, second)
		}
		io.WriteString(c, "3\r\nabc\r\n")
		io.WriteString(c, "3\r\ndef\r\n0\r\n\r\n")
		r := bufio.NewReader(c)
		head, err := readHead(r)
		if err != nil || status(head) != "200" || skipBody(strings.ToLower(head), r) != "abcdef" {
			t.Fatalf("got %q, %v", head, err)
		}
		c.Close()
	}
}

// TestPump_RetryAmidBody: the same over HTTP/2, where a body waits for the
// upstream's window. Nothing of it gets into another one.
func TestPump_RetryAmidBody(t *testing.T) {
	reply := func(f *http2.Framer, id uint32, status string, body []byte) {
		var block bytes.Buffer
		hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: status})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == nil})
		if body != nil {
			f.WriteData(id, true, body)
		}
	}
	asked := 0
	bodies := map[uint32]*bytes.Buffer{} // of those that are read; all requests come over one connection
	up := framerServerOf(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 10}}, func(f *http2.Framer, frame http2.Frame) {
		id := frame.Header().StreamID
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			if asked++; asked%3 != 0 {
				reply(f, id, "503", nil)
				return
			}
			bodies[id] = new(bytes.Buffer)
			f.WriteWindowUpdate(id, 100_000)
		case *http2.DataFrame:
			if n := len(frame.Data()); n > 0 {
				f.WriteWindowUpdate(0, uint32(n))
			}
			if b := bodies[id]; b != nil {
				b.Write(frame.Data())
				if frame.StreamEnded() {
					reply(f, id, "200", b.Bytes())
				}
			}
		}
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", up))+routed(retrying503))
	c := h1Client(t, p, "outbound")
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for j := range 25 {
				body := strings.Repeat(fmt.Sprintf("%d.%d ", i, j), 100)
				res, err := c.Post("http://s.test/", "text/plain", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode == 200 && string(got) != body || res.StatusCode != 200 && res.StatusCode != 503 {
					t.Errorf("%s, %v: %.40q came back, want %.40q", res.Status, err, got, body)
				}
			}
		})
	}
	clients.Wait()
}

// TestPump_Stopped: what has stopped the body of one request does not stop that of
// the next one, which comes in two parts, whoever is woken meanwhile.
func TestPump_Stopped(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		early := strings.HasPrefix(head, "POST /early")
		if early {
			io.WriteString(c, okReply)
		}
		skipBody(head, r)
		if !early {
			io.WriteString(c, okReply)
		}
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	for range 50 {
		c, err := net.Dial("tcp", p.address("outbound"))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(c)
		io.WriteString(c, "POST /early HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
		head, err := readHead(r)
		if err != nil {
			t.Fatal(err)
		}
		skipBody(strings.ToLower(head), r)
		io.WriteString(c, "0\r\n\r\nPOST /late HTTP/1.1\r\nHost: s.test\r\nContent-Length: 3\r\n\r\na")
		for range 20 { // as a drain does that begins now
			interruptAll(p)
			time.Sleep(100 * time.Microsecond)
		}
		io.WriteString(c, "bc")
		if head, err = readHead(r); err != nil || status(head) != "200" {
			t.Errorf("the next request got %q, %v", head, err)
		}
		c.Close()
		awaitGone(p)
	}
}

// interruptAll interrupts whoever reads from a client.
func interruptAll(p *Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		l.mu.Lock()
		for c := range l.conns {
			c.interrupt()
		}
		l.mu.Unlock()
	}
}
