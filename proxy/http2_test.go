package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Client is a client that speaks HTTP/2 in plain text to a listener, over
// connections of its own.
func h2Client(t testing.TB, p *Proxy, listener string) *http.Client {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", p.address(listener))
	}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// h1Client is one that speaks HTTP/1.1.
func h1Client(t testing.TB, p *Proxy, listener string) *http.Client {
	tr := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", p.address(listener))
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// h2Upstream is a server that speaks HTTP/1.1 and, in plain text, HTTP/2.
func h2Upstream(t testing.TB, handle http.HandlerFunc) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handle, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l) // ends when the server is closed
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// framerServer is a server that is told frame by frame what to do: handle is
// called for the head of each request.
func framerServer(t testing.TB, handle func(*http2.Framer, *http2.HeadersFrame)) string {
	return framerServerOf(t, nil, func(f *http2.Framer, frame http2.Frame) {
		if h, ok := frame.(*http2.HeadersFrame); ok {
			handle(f, h)
		}
	})
}

// framerServerOf is one with settings, whose handle is called for every frame but
// SETTINGS.
func framerServerOf(t testing.TB, settings []http2.Setting, handle func(*http2.Framer, http2.Frame)) string {
	return byteServer(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		f.WriteSettings(settings...)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					f.WriteSettingsAck()
				}
			default:
				handle(f, frame)
			}
		}
	})
}

// overHTTP2 makes a port one of HTTP/2.
func overHTTP2(yaml string) string {
	return strings.ReplaceAll(yaml, "{number: 80, name: http, protocol: HTTP}", "{number: 80, name: http, protocol: HTTP2}")
}

// combinations runs a test with each protocol on either side.
func combinations(t *testing.T, handle http.HandlerFunc, test func(t *testing.T, c *http.Client)) {
	for _, up := range []string{"HTTP/1.1", "HTTP/2"} {
		yaml := entry("s.test", h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("x-proto", r.Proto)
			handle(w, r)
		}))
		if up == "HTTP/2" {
			yaml = overHTTP2(yaml)
		}
		p := serve(t, Options{}, yaml)
		for down, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "outbound"), "HTTP/2": h2Client(t, p, "outbound")} {
			t.Run(down+" to "+up, func(t *testing.T) { test(t, c) })
		}
	}
}

// TestHTTP2_Combinations: what goes in comes out, whichever protocol is spoken
// on either side.
func TestHTTP2_Combinations(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	combinations(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("x-cookie", r.Header.Get("cookie"))
			w.Header().Set("x-te", r.Header.Get("te"))
			w.Header().Set("x-host", r.Host)
			w.Header().Set("x-query", r.URL.RawQuery)
			w.Write(body)
		case "/length":
			w.Header().Set("content-length", fmt.Sprint(len(body)))
			w.Write(body)
		case "/trailers":
			for _, k := range slices.Sorted(maps.Keys(r.Trailer)) {
				w.Header().Add("x-trailer", k+"="+r.Trailer.Get(k))
			}
			w.Header().Set("trailer", "x-sum")
			w.Write(body)
			w.Header().Set("x-sum", fmt.Sprint(len(body)))
		case "/hints":
			w.Header().Set("link", "</a>")
			w.WriteHeader(103)
			w.WriteHeader(204)
		}
	}, func(t *testing.T, c *http.Client) {
		do := func(r *http.Request) (*http.Response, []byte) {
			t.Helper()
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return res, body
		}
		for _, path := range []string{"/echo", "/length"} {
			for _, sent := range [][]byte{nil, []byte("small"), big} {
				for _, known := range []bool{true, false} {
					var r *http.Request
					if known {
						r, _ = http.NewRequest("POST", "http://s.test"+path+"?q=1", bytes.NewReader(sent))
					} else {
						r, _ = http.NewRequest("POST", "http://s.test"+path+"?q=1", io.MultiReader(bytes.NewReader(sent)))
					}
					r.Header.Add("cookie", "a=1; b=2")
					res, body := do(r)
					if res.StatusCode != 200 || !bytes.Equal(body, sent) {
						t.Fatalf("%s, %d bytes, known %v: status %d, %d bytes came back", path, len(sent), known, res.StatusCode, len(body))
					}
					if path == "/echo" && (res.Header.Get("x-cookie") != "a=1; b=2" || res.Header.Get("x-host") != "s.test" || res.Header.Get("x-query") != "q=1") {
						t.Errorf("the upstream saw %v", res.Header)
					}
				}
			}
		}
		r, _ := http.NewRequest("POST", "http://s.test/trailers", io.MultiReader(bytes.NewReader(big)))
		r.Trailer = http.Header{"X-Last": {"word"}}
		res, body := do(r)
		if !bytes.Equal(body, big) || res.Trailer.Get("x-sum") != fmt.Sprint(len(big)) || res.Header.Get("x-trailer") != "X-Last=word" {
			t.Errorf("trailers: %d bytes, trailer %v, the upstream saw %q", len(body), res.Trailer, res.Header.Get("x-trailer"))
		}
		r, _ = http.NewRequest("HEAD", "http://s.test/length", nil)
		if res, body := do(r); res.StatusCode != 200 || len(body) > 0 {
			t.Errorf("HEAD: status %d, %d bytes", res.StatusCode, len(body))
		}
		r, _ = http.NewRequest("GET", "http://s.test/hints", nil)
		if res, _ := do(r); res.StatusCode != 204 {
			t.Errorf("behind a 103: status %d, want 204", res.StatusCode)
		}
	})
}

// TestHTTP2_TrailersAtOnce: trailers that come together with the head of their
// request stay trailers (RFC 9110 6.5.1).
func TestHTTP2_TrailersAtOnce(t *testing.T) {
	heads, bodies := make(chan string, 1), make(chan string, 1)
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		heads <- head
		var body strings.Builder
		for !strings.HasSuffix(body.String(), "0\r\nx-last: word\r\n\r\n") {
			line, err := r.ReadString('\n')
			if body.WriteString(line); err != nil {
				break
			}
		}
		bodies <- body.String()
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	r := dialRaw(t, p.address("outbound"))
	r.ask(1, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/")
	r.WriteData(1, false, []byte("body"))
	r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block("bare", "x-last", "word"), EndHeaders: true, EndStream: true})
	if got := r.status(1); got != "200" {
		t.Fatal(got)
	}
	if head := await(t, "the head", heads); strings.Contains(head, "x-last") {
		t.Errorf("the upstream got the head %q", head)
	}
	if body := await(t, "the body", bodies); body != "4\r\nbody\r\n0\r\nx-last: word\r\n\r\n" {
		t.Errorf("the upstream got the body %q", body)
	}
}

// TestHTTP2_LargeFirst: a connection may begin with a body of large frames.
func TestHTTP2_LargeFirst(t *testing.T) {
	p := serve(t, Options{}, overHTTP2(entry("s.test", h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, len(body))
	}))))
	for range 5 {
		res, err := h2Client(t, p, "outbound").Post("http://s.test/", "text/plain", bytes.NewReader(make([]byte, 200_000)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "200000" {
			t.Errorf("%s: %s bytes arrived", res.Status, body)
		}
	}
}

// TestHTTP2_Shared: requests to one endpoint share a connection, up to what the
// server allows.
func TestHTTP2_Shared(t *testing.T) {
	var mu sync.Mutex
	conns := map[string]bool{}
	arrived, leave := make(chan struct{}), make(chan struct{})
	p := serve(t, Options{}, overHTTP2(entry("s.test", h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr] = true
		mu.Unlock()
		arrived <- struct{}{}
		<-leave
	}))))
	c := h2Client(t, p, "outbound")
	done := make(chan error)
	for range 50 {
		go func() { // ends with the reply
			res, err := c.Get("http://s.test/")
			if err == nil {
				res.Body.Close()
			}
			done <- err
		}()
	}
	for range 50 {
		<-arrived
	}
	close(leave)
	for range 50 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(conns) != 1 {
		t.Errorf("50 requests at a time took %d connections, want 1", len(conns))
	}
}

// TestHTTP2_GoAway: a server that ends its connections after some requests costs
// nobody a reply.
func TestHTTP2_GoAway(t *testing.T) {
	var mu sync.Mutex
	requests := map[string]int{} // by connection
	address := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if requests[r.RemoteAddr]++; requests[r.RemoteAddr]%5 == 0 {
			w.Header().Set("connection", "close") // which net/http makes a GOAWAY
		}
		io.Copy(w, r.Body)
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", address)))
	c := h2Client(t, p, "outbound")
	for i := range 200 {
		res, err := c.Post("http://s.test/", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(i, err)
		}
		if res.Body.Close(); res.StatusCode != 200 {
			t.Fatalf("request %d: %s", i, res.Status)
		}
	}
	if len(requests) < 30 {
		t.Errorf("200 requests took %d connections of 5 each", len(requests))
	}
}

// TestHTTP2_EarlyReply: an upstream of HTTP/2 that answers without having read the
// request is not waited for. A client of HTTP/1.1 is told that nobody reads the
// rest, if that is known in time; else it may say what little is left, and keeps
// its connection.
func TestHTTP2_EarlyReply(t *testing.T) {
	ends := make(chan struct{}, 1)
	up := framerServer(t, func(f *http2.Framer, h *http2.HeadersFrame) {
		var block bytes.Buffer
		hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "413"})
		atOnce := len(ends) > 0
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: atOnce})
		<-ends
		if !atOnce {
			f.WriteData(h.StreamID, true, nil)
		}
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", up)))
	const announced, kept, broken = 0, 1, 2
	for _, tt := range []struct {
		name, first, rest string
		atOnce            bool // the head of the reply is all of it
		connection        int
	}{
		{"much is left", "Content-Length: 1000000\r\n\r\nabc", "", true, announced},
		{"who knows how much is left", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "", true, announced},
		{"little is left", "Content-Length: 200003\r\n\r\nabc", strings.Repeat("x", 200000), true, kept},
		{"little is left, later", "Content-Length: 200003\r\n\r\nabc", strings.Repeat("x", 200000), false, kept},
		{"the last chunk", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "0\r\n\r\n", false, kept},
		{"chunks, in pieces", "Transfer-Encoding: chunked\r\n\r\n3\r\nab", "c\r\n3\r\ndef\r\n0\r\n\r\n", false, kept},
		{"no chunk after all", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "GET / HTTP/1.1\r\n\r\n", false, broken},
		{"chunks without end", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", strings.Repeat("8000\r\n"+strings.Repeat("x", 0x8000)+"\r\n", 10), false, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", p.address("outbound"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if tt.atOnce {
				ends <- struct{}{}
			}
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\n"+tt.first)
			r := bufio.NewReader(c)
			head, err := readHead(r)
			if said := fieldOf(head, "connection") == "close"; err != nil || status(head) != "413" || said != (tt.connection == announced) {
				t.Errorf("got %q, %v", head, err)
			}
			if !tt.atOnce {
				ends <- struct{}{}
				skipBody(head, r)
			}
			io.WriteString(c, tt.rest)
			if tt.connection != kept {
				if rest, _ := io.ReadAll(r); len(rest) > 0 {
					t.Errorf("and then %q", rest)
				}
				return
			}
			ends <- struct{}{}
			io.WriteString(c, get("s.test"))
			if head, err := readHead(r); err != nil || status(head) != "413" {
				t.Errorf("the next request got %q, %v", head, err)
			}
		})
	}
}

// TestHTTP2_BrokenBody: a body that breaks at the moment at which the reply comes
// does no harm to whoever uses the upstream's connection next.
func TestHTTP2_BrokenBody(t *testing.T) {
	up := framerServer(t, func(f *http2.Framer, h *http2.HeadersFrame) {
		var block bytes.Buffer
		hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", up)))
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 100 {
				c, err := net.Dial("tcp", p.address("outbound"))
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
				io.WriteString(c, "no chunk\r\n")
				if head, err := readHead(bufio.NewReader(c)); err != nil || status(head) != "200" && status(head) != "400" {
					t.Errorf("got %q, %v", head, err)
				}
				c.Close()
			}
		})
	}
	clients.Wait()
}

// TestHTTP2_EarlyAmidBody: an early reply leaves while the body is still coming.
func TestHTTP2_EarlyAmidBody(t *testing.T) {
	up := framerServer(t, func(f *http2.Framer, h *http2.HeadersFrame) {
		var block bytes.Buffer
		hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "413"})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", up)))
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 25 {
				c, err := net.Dial("tcp", p.address("outbound"))
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 300000\r\n\r\nabc")
				go func() { // ends with the connection
					for range 100 {
						if _, err := c.Write(make([]byte, 1000)); err != nil {
							return
						}
					}
				}()
				if head, err := readHead(bufio.NewReader(c)); err != nil || status(head) != "413" {
					t.Errorf("got %q, %v", head, err)
				}
				c.Close()
			}
		})
	}
	clients.Wait()
}
