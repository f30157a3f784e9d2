package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frameClient is a client that speaks HTTP/2 frame by frame, one request at a time.
type frameClient struct {
	t      testing.TB
	f      *http2.Framer
	stream uint32
	enc    *hpack.Encoder
	block  bytes.Buffer
}

func dialFrames(t testing.TB, address string) *frameClient {
	c := dialTCP(t, address)
	io.WriteString(c, http2.ClientPreface)
	fc := &frameClient{t: t, f: http2.NewFramer(c, c), stream: 1}
	fc.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fc.enc = hpack.NewEncoder(&fc.block)
	fc.f.WriteSettings()
	return fc
}

// open sends a head of fields, name, value, name, value.
func (c *frameClient) open(end bool, fields ...string) {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	c.f.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: c.block.Bytes(), EndStream: end, EndHeaders: true})
}

// webSocket asks s.test for one.
func (c *frameClient) webSocket(more ...string) {
	c.open(false, append([]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "s.test", ":path", "/chat?a=b",
		"sec-websocket-version", "13", "origin", "http://s.test"}, more...)...)
}

// next returns what comes next on the stream: "HEADERS ...", "DATA ...", "END" or
// "RESET code"; "GOAWAY" if that comes before.
func (c *frameClient) next() string {
	for {
		f, err := c.f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			s := "HEADERS"
			for _, h := range f.Fields {
				if h.Name != "date" && h.Name != "x-request-id" {
					s += " " + h.Name + "=" + h.Value
				}
			}
			if f.StreamEnded() {
				s += " END"
			}
			return s
		case *http2.DataFrame:
			if n := len(f.Data()); n > 0 {
				c.f.WriteWindowUpdate(0, uint32(n))
				if !f.StreamEnded() {
					c.f.WriteWindowUpdate(f.StreamID, uint32(n))
				}
			}
			s := fmt.Sprintf("DATA %s", f.Data())
			if f.StreamEnded() {
				s += " END"
			}
			return s
		case *http2.RSTStreamFrame:
			return "RESET " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			return "GOAWAY"
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.f.WritePing(true, f.Data)
			}
		}
	}
}

// heard returns when the other side has read all that was sent. What comes before it says so
// is lost.
func (c *frameClient) heard() {
	c.f.WritePing(false, [8]byte{'h', 'e', 'a', 'r', 'd'})
	for {
		f, err := c.f.ReadFrame()
		if err != nil {
			c.t.Fatal(err)
		}
		if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
			return
		}
	}
}

func (c *frameClient) send(data string, end bool) { c.f.WriteData(c.stream, end, []byte(data)) }

func (c *frameClient) want(want string) {
	c.t.Helper()
	if got := c.next(); got != want {
		c.t.Fatalf("got %q, want %q", got, want)
	}
}

// framerUpstream is a server that takes WebSockets over HTTP/2, if connect says so,
// and sends back what comes. What heads it has seen is sent to seen.
func framerUpstream(t testing.TB, connect bool, status string, seen chan<- string) string {
	return byteServer(t, func(c net.Conn) {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		first := make([]byte, len(http2.ClientPreface))
		io.ReadFull(c, first)
		if string(first) != http2.ClientPreface {
			seen <- "not HTTP/2"
			return
		}
		fc := &frameClient{t: t, f: http2.NewFramer(c, c)}
		fc.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		fc.enc = hpack.NewEncoder(&fc.block)
		if connect {
			fc.f.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		} else {
			fc.f.WriteSettings()
		}
		for fc.stream = 1; ; {
			got := fc.next()
			kind, rest, _ := strings.Cut(got, " ")
			switch kind {
			case "HEADERS":
				seen <- got
				fc.open(status != "200" || strings.HasSuffix(got, " END"), ":status", status, "x-up", "1")
				if status != "200" || strings.HasSuffix(got, " END") {
					fc.stream += 2
				}
			case "DATA":
				data, end := strings.CutSuffix(rest, " END")
				if data == "reset" {
					fc.f.WriteRSTStream(fc.stream, http2.ErrCodeCancel)
					fc.stream += 2
					continue
				}
				fc.send(data, end)
				if end {
					fc.stream += 2
				}
			case "RESET":
				seen <- got
				fc.stream += 2
			default:
				return
			}
		}
	})
}

// TestUpgrade_ExtendedConnect: a WebSocket over HTTP/2 is one over HTTP/1.1 to an
// upstream that speaks that.
func TestUpgrade_ExtendedConnect(t *testing.T) {
	up := switching(t, echoing)
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s}
spec:
  hosts: [s.test]
  http: [{match: [{headers: {upgrade: {exact: websocket}}, method: {exact: GET}}], route: [{destination: {host: s.test}}]}]
`)
	c := dialFrames(t, p.address("outbound"))
	c.webSocket("sec-websocket-key", "nonsense")
	c.want("HEADERS :status=200 x-up=1")
	head := up.seen()[0]
	if !strings.HasPrefix(head, "GET /chat?a=b HTTP/1.1\r\nhost: s.test\r\n") || fieldOf(head, "upgrade") != "websocket" || fieldOf(head, "connection") != "upgrade" ||
		fieldOf(head, "sec-websocket-version") != "13" || len(fieldOf(head, "sec-websocket-key")) != keyLength || strings.Count(head, "sec-websocket-key") != 1 ||
		fieldOf(head, "origin") != "http://s.test" || strings.Contains(head, "transfer-encoding") || strings.Contains(head, "protocol") {
		t.Errorf("the upstream saw %q", head)
	}
	c.send("hello", false)
	c.want("DATA hello")
	c.send("world", true)
	c.want("DATA world")
	c.want("DATA  END")

	c.stream += 2
	c.webSocket()
	c.want("HEADERS :status=200 x-up=1")
	if a, b := fieldOf(head, "sec-websocket-key"), fieldOf(up.seen()[1], "sec-websocket-key"); a == b {
		t.Errorf("two WebSockets with the key %q", a)
	}
}

// TestUpgrade_ExtendedConnectRefused: what of extended CONNECT is not taken, and
// what an upstream does not take.
func TestUpgrade_ExtendedConnectRefused(t *testing.T) {
	connect := []string{":method", "CONNECT", ":scheme", "http", ":authority", "s.test", ":path", "/"}
	version := []string{"sec-websocket-version", "13"}
	for _, tt := range []struct {
		name   string
		reply  string
		end    bool
		fields []string
		want   string
	}{
		{"CONNECT alone", asYes(), false, []string{":method", "CONNECT", ":authority", "s.test:80"}, "405"},
		{"another protocol", asYes(), false, append([]string{":protocol", "connect-udp"}, connect...), "501"},
		{"h2c", asYes(), false, append([]string{":protocol", "h2c"}, connect...), "501"},
		{"no version", asYes(), false, append([]string{":protocol", "websocket"}, connect...), "400"},
		{"a length", asYes(), false, append(append([]string{":protocol", "websocket"}, connect...), "sec-websocket-version", "13", "content-length", "3"), "400"},
		{"its end", asYes(), true, append(append([]string{":protocol", "websocket"}, connect...), version...), "400"},
		{"an accept that does not fit", asYes(), false, append(append([]string{":protocol", "websocket"}, connect...), version...), "502"},
		{"403", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", false, append(append([]string{":protocol", "websocket"}, connect...), version...), "403"},
		{"a page, which 200 would make a tunnel", okReply, false, append(append([]string{":protocol", "websocket"}, connect...), version...), "502"},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", false, append(append([]string{":protocol", "websocket"}, connect...), version...), "502"},
		{"302", "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", false, append(append([]string{":protocol", "websocket"}, connect...), version...), "302"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, tt.reply)
			p := serve(t, Options{}, entry("s.test", up.address))
			c := dialFrames(t, p.address("outbound"))
			c.open(tt.end, tt.fields...)
			got := c.next()
			if !strings.HasPrefix(got, "HEADERS :status="+tt.want) {
				t.Fatalf("got %q, want %s", got, tt.want)
			}
			for !strings.HasSuffix(got, " END") {
				got = c.next()
			}
			if want := map[bool]int{false: 0, true: 1}[strings.Contains("502 403 302", tt.want)]; len(up.seen()) != want {
				t.Errorf("the upstream was asked %d times, want %d", len(up.seen()), want)
			}
		})
	}
}

// TestUpgrade_ExtendedConnectDirect: a page of the route's own is no tunnel.
func TestUpgrade_ExtendedConnectDirect(t *testing.T) {
	for status, want := range map[int]string{200: "502", 403: "403"} {
		p := serve(t, Options{}, entry("s.test", deadAddress(t))+virtualService("s.test", fmt.Sprintf("{directResponse: {status: %d}}", status)))
		c := dialFrames(t, p.address("outbound"))
		c.open(false, ":protocol", "websocket", ":method", "CONNECT", ":scheme", "http", ":authority", "s.test", ":path", "/", "sec-websocket-version", "13")
		if got := c.next(); !strings.HasPrefix(got, "HEADERS :status="+want) {
			t.Errorf("%d is %q, want %s", status, got, want)
		}
	}
}

// upgradingTo makes requests to a port of HTTP go over HTTP/2.
const upgradingTo = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec:
  host: s.test
  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}
`

// TestUpgrade_UpstreamHTTP2: a WebSocket goes to an upstream of HTTP/2 by extended
// CONNECT, from either protocol, and a reset of one side is one of the other.
func TestUpgrade_UpstreamHTTP2(t *testing.T) {
	for name, yaml := range map[string]func(string) string{
		"by port":   func(a string) string { return overHTTP2(entry("s.test", a)) },
		"by policy": func(a string) string { return entry("s.test", a) + upgradingTo },
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan string, 10)
			p := serve(t, Options{}, yaml(framerUpstream(t, true, "200", seen)))
			check := func() {
				t.Helper()
				got := <-seen
				for _, want := range []string{"HEADERS :method=CONNECT :protocol=websocket :scheme=http :authority=s.test :path=", " sec-websocket-version=13", " x-forwarded-for=127.0.0.1"} {
					if !strings.Contains(got, want) {
						t.Errorf("the upstream saw %q, want %q", got, want)
					}
				}
				for _, no := range []string{"key", "upgrade", "connection=", "content-length", "END"} {
					if strings.Contains(got, no) {
						t.Errorf("the upstream saw %q", got)
					}
				}
			}
			c, r, head := begin(t, p.address("outbound"), asWebSocket("Content-Length: 0"))
			if status(head) != "101" || fieldOf(head, "sec-websocket-accept") != sampleAccept || fieldOf(head, "upgrade") != "websocket" || fieldOf(head, "x-up") != "1" {
				t.Fatalf("got %q", head)
			}
			check()
			io.WriteString(c, "hello")
			if got := make([]byte, 5); readFull(r, got) != nil || string(got) != "hello" {
				t.Errorf("got %q", got)
			}
			c.CloseWrite()
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("at the end came %q, %v", rest, err)
			}

			f := dialFrames(t, p.address("outbound"))
			f.webSocket()
			f.want("HEADERS :status=200 x-up=1")
			check()
			f.send("hello", false)
			f.want("DATA hello")
			f.send("", true)
			f.want("DATA  END")
			f.stream += 2
			f.webSocket()
			f.want("HEADERS :status=200 x-up=1")
			check()
			f.send("reset", false)
			f.want("RESET CANCEL")
			f.stream += 2
			f.webSocket()
			f.want("HEADERS :status=200 x-up=1")
			check()
			f.f.WriteRSTStream(f.stream, http2.ErrCodeCancel)
			if got := <-seen; got != "RESET CANCEL" {
				t.Errorf("the upstream got %q", got)
			}
		})
	}
}

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	return err
}

// TestUpgrade_UpstreamHTTP2Refuses: an upstream of HTTP/2 that does not take
// WebSocket over it is asked in HTTP/1.1 where its port lets us.
func TestUpgrade_UpstreamHTTP2Refuses(t *testing.T) {
	seen := make(chan string, 10)
	p := serve(t, Options{}, overHTTP2(entry("s.test", framerUpstream(t, false, "200", seen))))
	if got := exchangeRaw(t, p.address("outbound"), asWebSocket(), whole(1)); status(got) != "502" || !strings.HasSuffix(got, "upgrade failed") {
		t.Errorf("over HTTP/2 alone: %q", got)
	}
	if got := exchangeRaw(t, p.address("outbound"), asGet("Connection: upgrade", "Upgrade: foo", "X-Last: 1"), func(s string) bool { return strings.HasSuffix(s, "\r\n\r\n") }); status(got) != "200" {
		t.Errorf("another upgrade, which is no more than an offer: %q", got)
	}
	if got := <-seen; !strings.HasPrefix(got, "HEADERS :method=GET") || strings.Contains(got, "upgrade") {
		t.Errorf("the upstream saw %q", got)
	}

	p = serve(t, Options{}, overHTTP2(entry("s.test", framerUpstream(t, true, "403", seen))))
	if _, _, head := begin(t, p.address("outbound"), asWebSocket()); status(head) != "403" || fieldOf(head, "sec-websocket-accept") != "" {
		t.Errorf("refused: %q", head)
	}
	<-seen

	// net/http's server takes no extended CONNECT.
	asked := make(chan *http.Request, 1)
	both := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		io.WriteString(c, asYes())
		c.Close()
	})
	p = serve(t, Options{}, entry("s.test", both)+upgradingTo)
	_, _, head := begin(t, p.address("outbound"), asWebSocket())
	if r := <-asked; status(head) != "101" || r.Proto != "HTTP/1.1" || r.Header.Get("sec-websocket-key") != sampleKey {
		t.Errorf("beside HTTP/2: %q, the upstream saw %s %v", head, r.Proto, r.Header)
	}
}

// TestUpgrade_DrainOverHTTP2: a drain tells a client of HTTP/2 to open no more
// streams, closes its WebSocket with 1001 later, and waits for the answer.
func TestUpgrade_DrainOverHTTP2(t *testing.T) {
	for name, upstream := range map[string]func(t *testing.T) (config string){
		"HTTP/1.1 to upstream": func(t *testing.T) string {
			return entry("s.test", switching(t, func(_ string, r *bufio.Reader, c *net.TCPConn) { answerClose(r, c, false) }).address)
		},
		"HTTP/2 to upstream": func(t *testing.T) string {
			return overHTTP2(entry("s.test", framerUpstream(t, true, "200", make(chan string, 8))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, Options{}, upstream(t))
			c := dialFrames(t, p.address("outbound"))
			c.webSocket()
			c.want("HEADERS :status=200 x-up=1")
			ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
			defer cancel()
			drained := make(chan error, 1)
			go func() { drained <- p.Drain(ctx) }() // ends with the drain
			c.want("GOAWAY")
			got := c.next()
			for got == "GOAWAY" {
				got = c.next()
			}
			if data, ok := strings.CutPrefix(got, "DATA "); !ok || closeCode([]byte(strings.TrimSuffix(data, " END"))) != 1001 {
				t.Fatalf("got %q, want a frame that closes with 1001", got)
			}
			select {
			case <-drained:
				t.Error("the drain does not wait for the client's answer")
			default:
			}
			c.send(string(frameOf(closeFrame, true, []byte{1001 >> 8, 1001 & 0xff})), true)
			if err := await(t, "the drain's end", drained); err != nil {
				t.Errorf("drain: %v", err)
			}
		})
	}
}
