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

// hasty is Downstream with time-outs for tests: those within which something has to
// come are not so short that a busy machine would miss them.
var hasty = Downstream{IdleTimeout: time.Second, HeadTimeout: time.Second, StallTimeout: 100 * time.Millisecond}

// edgeWith is atEdge with limits for clients.
func edgeWith(d Downstream) Options {
	o := atEdge()
	o.Downstream = d
	return o
}

// drip sends text byte by byte until the other side ends the connection, and
// returns what has come back.
func drip(t *testing.T, address, first, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, first)
	go func() { // ends with the connection
		for text != "" {
			for i := range len(text) {
				if _, err := io.WriteString(c, text[i:i+1]); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	}()
	return toEnd(t, c)
}

// TestPatience_SlowHead: a head that drips in has an absolute end, however
// steadily it drips.
func TestPatience_SlowHead(t *testing.T) {
	t.Parallel()
	up := record(t, okReply)
	p := serve(t, Options{Downstream: hasty}, entry("s.test", up.address))
	if got := drip(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n", "A: b\r\n"); status(got) != "408" || !strings.Contains(got, "connection: close") {
		t.Errorf("got %q, want 408", got)
	}
	if up.seen() != "" {
		t.Errorf("the upstream saw %q", up.seen())
	}
}

// TestPatience_SilentConnection: a gateway ends a connection that never says
// anything, and any listener one that has fallen silent.
func TestPatience_SilentConnection(t *testing.T) {
	t.Parallel()
	p := serve(t, edgeWith(hasty), entry("s.test", record(t, okReply).address)+edge("s.test"))
	if got := exchangeRaw(t, p.address("gateway:80"), "", nil); got != "" {
		t.Errorf("got %q", got)
	}
	if got := exchangeRaw(t, p.address("outbound"), get("s.test"), nil); status(got) != "200" {
		t.Errorf("got %q", got)
	}
}

// TestPatience_SlowBody: a body that stands still ends, and at a gateway also
// one that is slower than the minimum rate, small or large.
func TestPatience_SlowBody(t *testing.T) {
	slow := hasty
	slow.MinRate = 10_000
	for _, tt := range []struct {
		name, listener, lines string
		limits                Downstream
		body                  string // dripped; "": stands still
	}{
		{"stands still", "outbound", "Content-Length: 10", hasty, ""},
		{"stands still, large", "outbound", "Content-Length: 1000000", hasty, ""},
		{"stands still, chunked", "outbound", "Transfer-Encoding: chunked", hasty, ""},
		{"too slow", "gateway:80", "Content-Length: 60000", slow, "x"},
		{"too slow, large", "gateway:80", "Content-Length: 1000000", slow, "x"},
		{"too slow, chunked", "gateway:80", "Transfer-Encoding: chunked", slow, "1\r\nx\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := record(t, okReply)
			p := serve(t, edgeWith(tt.limits), entry("s.test", up.address)+edge("s.test"))
			got := drip(t, p.address(tt.listener), post(tt.lines, ""), tt.body)
			if status(got) != "408" {
				t.Errorf("got %q, want 408", got)
			}
			if strings.HasSuffix(up.seen(), "\r\n"+chunkEnd) {
				t.Errorf("the upstream got a clean end: %q", up.seen())
			}
		})
	}
}

// TestPatience_SteadyBody: a body that comes steadily may take longer than a
// stall.
func TestPatience_SteadyBody(t *testing.T) {
	t.Parallel()
	up := record(t, okReply)
	limits := hasty
	limits.StallTimeout, limits.MinRate = time.Second, 1
	p := serve(t, edgeWith(limits), entry("s.test", up.address)+edge("s.test"))
	c, err := net.Dial("tcp", p.address("gateway:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, post("Content-Length: 20", ""))
	for range 20 {
		time.Sleep(60 * time.Millisecond)
		io.WriteString(c, "x")
	}
	if head, err := readHead(bufio.NewReader(c)); err != nil || status(head) != "200" {
		t.Errorf("got %q, %v", head, err)
	}
}

// TestPatience_SlowReader: a client that does not read its reply is not kept
// for ever, whether the reply is copied or spliced.
func TestPatience_SlowReader(t *testing.T) {
	for _, framing := range []string{"length", "chunked"} {
		t.Run(framing, func(t *testing.T) {
			ended := make(chan struct{})
			up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
				defer close(ended)
				piece := strings.Repeat("x", 1<<20)
				if framing == "length" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n")
				} else {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
					piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
				}
				for {
					if _, err := io.WriteString(c, piece); err != nil {
						return false // the proxy has given up
					}
				}
			})
			p := serve(t, Options{Downstream: hasty}, entry("s.test", up.address))
			c, err := net.Dial("tcp", p.address("outbound"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, get("s.test"))
			await(t, "the end of the reply", ended)
		})
	}
}

// TestPatience_LargestBody: a body over the limit is a 413, before it is sent
// where its length is known.
func TestPatience_LargestBody(t *testing.T) {
	const most = 100_000
	for _, tt := range []struct{ name, request, status string }{
		{"at the limit", post(fmt.Sprint("Content-Length: ", most), strings.Repeat("x", most)), "200"},
		{"over the limit", post(fmt.Sprint("Content-Length: ", most+1), strings.Repeat("x", most+1)), "413"},
		{"over the limit, expecting 100", post(fmt.Sprint("Content-Length: ", most+1, "\r\nExpect: 100-continue"), ""), "413"},
		{"chunked, at the limit", chunked(fmt.Sprintf("%x\r\n%s\r\n", most, strings.Repeat("x", most)) + chunkEnd), "200"},
		{"chunked, over the limit", chunked(fmt.Sprintf("%x\r\n%s\r\n", most+1, strings.Repeat("x", most+1)) + chunkEnd), "413"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := record(t, okReply)
			p := serve(t, Options{Downstream: Downstream{MaxBody: most}}, entry("s.test", up.address))
			done := whole(1)
			if tt.status != "200" {
				done = nil
			}
			if got := exchangeRaw(t, p.address("outbound"), tt.request, done); status(got) != tt.status {
				t.Errorf("got %.200q, want %s", got, tt.status)
			}
			if tt.status == "413" && strings.HasSuffix(up.seen(), "\r\n"+chunkEnd) {
				t.Error("the upstream got a clean end")
			}
		})
	}
}

// TestPatience_AfterContinue: who was told to go on has as long as others.
func TestPatience_AfterContinue(t *testing.T) {
	for name, lines := range map[string]string{"length": "Content-Length: 1000", "chunked": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				skipBody(head, r)
				return false
			})
			limits := hasty
			limits.IdleTimeout, limits.StallTimeout = time.Hour, time.Second
			p := serve(t, edgeWith(limits), entry("s.test", up.address)+edge("s.test"))
			c := dial(t, p.address("gateway:80"))
			c.send(post(lines+"\r\nExpect: 100-continue", ""))
			c.head("100")
			c.head("408")
		})
	}
}
