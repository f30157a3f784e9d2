package proxy

import (
	"bufio"
	"bytes"
	"errors"
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

// rawClient is a client of HTTP/2 that is told frame by frame what to say.
type rawClient struct {
	*http2.Framer
	t    testing.TB
	conn net.Conn
	out  *bufio.Writer
	enc  *hpack.Encoder
	head bytes.Buffer
}

// dialRaw connects, and exchanges settings.
func dialRaw(t testing.TB, address string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := &rawClient{t: t, conn: c, out: bufio.NewWriterSize(c, 64<<10)}
	r.Framer = http2.NewFramer(r.out, c)
	r.Framer.AllowIllegalWrites = true
	r.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.enc = hpack.NewEncoder(&r.head)
	r.out.WriteString(http2.ClientPreface)
	r.WriteSettings()
	return r
}

// block encodes fields: name, value, name, value. The pseudo fields of a request
// stand before them, but those that rest begins with.
func (r *rawClient) block(rest ...string) []byte {
	fields := rest
	if len(rest) == 0 || rest[0] != "bare" {
		fields = append([]string{":method", "GET", ":scheme", "http", ":authority", "s.test", ":path", "/"}, rest...)
	} else {
		fields = rest[1:]
	}
	r.head.Reset()
	for i := 0; i < len(fields); i += 2 {
		r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(r.head.Bytes())
}

// bomb is a request's head that unpacks to 300 KB. The first one of a connection
// puts into the table what is unpacked.
func (r *rawClient) bomb(first bool) []byte {
	var fields []string
	if first {
		fields = []string{"x-bomb", strings.Repeat("b", 3000)}
	}
	block := r.block(fields...)
	for range 100 {
		block = append(block, 0x80|62) // the entry that was added last
	}
	return block
}

// ask sends a request's head.
func (r *rawClient) ask(id uint32, end bool, fields ...string) {
	r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block(fields...), EndHeaders: true, EndStream: end})
}

// until reads frames up to one that done holds for; nil is the connection's end.
func (r *rawClient) until(done func(http2.Frame) bool) http2.Frame {
	r.out.Flush()
	for {
		f, err := r.ReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				r.t.Fatal("nothing came in time")
			}
			return nil
		}
		if done(f) {
			return f
		}
	}
}

// ended reads to the connection's end and returns the code of its GOAWAY.
func (r *rawClient) ended() (code http2.ErrCode, told bool) {
	r.until(func(f http2.Frame) bool {
		if g, ok := f.(*http2.GoAwayFrame); ok && g.ErrCode != http2.ErrCodeNo {
			code, told = g.ErrCode, true
		}
		return false
	})
	return code, told
}

// status reads the head of a stream's reply; "reset CODE" if it was reset.
func (r *rawClient) status(id uint32) string {
	r.t.Helper()
	f := r.until(func(f http2.Frame) bool {
		switch f.(type) {
		case *http2.MetaHeadersFrame, *http2.RSTStreamFrame:
			return f.Header().StreamID == id
		}
		return false
	})
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return f.PseudoValue("status")
	case *http2.RSTStreamFrame:
		return "reset " + f.ErrCode.String()
	}
	return "the connection has ended"
}

// TestHTTP2_ResetBeforeItsTurn: a request that has been reset before it is served
// costs the upstream nothing (FAULTS 29).
func TestHTTP2_ResetBeforeItsTurn(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
	r := dialRaw(t, p.address("gateway:80"))
	r.ask(1, true)
	if got := r.status(1); got != "200" {
		t.Fatal(got)
	}
	before := up.requests()
	for i := range uint32(50) { // which leave, and so come, at once
		r.ask(2*i+3, true)
		r.WriteRSTStream(2*i+3, http2.ErrCodeCancel)
	}
	r.ask(1001, true)
	if got := r.status(1001); got != "200" {
		t.Error(got)
	}
	if n := up.requests() - before; n != 1 {
		t.Errorf("the upstream has got %d requests, want the one that was not reset", n)
	}
}

// TestHTTP2_Floods: what costs a client little and us much ends its connection
// with ENHANCE_YOUR_CALM after a bounded while; others are served meanwhile
// (FAULTS 29 to 32).
func TestHTTP2_Floods(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
	const most = 20_000 // frames, of which each flood gets to send a part
	for _, tt := range []struct {
		name string
		send func(r *rawClient, i uint32)
	}{
		{"row 29: rapid reset", func(r *rawClient, i uint32) {
			r.ask(2*i+1, true)
			r.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}},
		{"row 30: resets provoked by a window update of 0", func(r *rawClient, i uint32) {
			r.ask(2*i+1, false)
			r.WriteRawFrame(http2.FrameWindowUpdate, 0, 2*i+1, []byte{0, 0, 0, 0})
		}},
		{"row 30: resets provoked by a malformed head", func(r *rawClient, i uint32) {
			r.ask(2*i+1, true, "connection", "close")
		}},
		{"row 30: resets provoked by data after the end", func(r *rawClient, i uint32) {
			r.ask(2*i+1, true)
			r.WriteData(2*i+1, true, nil)
		}},
		{"row 31: CONTINUATION", func(r *rawClient, i uint32) {
			if i == 0 {
				r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block()})
			}
			r.WriteContinuation(1, false, nil)
		}},
		{"row 31: CONTINUATION that is full", func(r *rawClient, i uint32) {
			if i == 0 {
				r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block()})
			}
			r.WriteContinuation(1, false, r.block("bare", "x-fill", strings.Repeat("\x01", 1000)))
		}},
		{"row 32: PING", func(r *rawClient, i uint32) { r.WritePing(false, [8]byte{}) }},
		{"row 32: SETTINGS", func(r *rawClient, i uint32) { r.WriteSettings() }},
		{"row 32: DATA without data", func(r *rawClient, i uint32) {
			if i == 0 {
				r.ask(1, false, "content-length", "10")
			}
			r.WriteData(1, false, nil)
		}},
		{"row 32: DATA without data for a stream that was reset", func(r *rawClient, i uint32) {
			if i == 0 {
				r.ask(1, false, "connection", "close")
			}
			r.WriteData(1, i%2 == 1, nil)
		}},
		{"row 32: answers to PINGs that nobody has sent", func(r *rawClient, i uint32) { r.WritePing(true, [8]byte{}) }},
		{"row 32: answers to our PINGs before we have sent any", func(r *rawClient, i uint32) { r.WritePing(true, [8]byte{'l', 'e', 'a', 'v', 'e'}) }},
		{"row 32: answers to SETTINGS that nobody has sent", func(r *rawClient, i uint32) { r.WriteSettingsAck() }},
		{"row 32: GOAWAY", func(r *rawClient, i uint32) { r.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{"row 32: RST_STREAM of a stream that is over", func(r *rawClient, i uint32) {
			if i == 0 {
				r.ask(1, true)
			}
			r.WriteRSTStream(1, http2.ErrCodeCancel)
		}},
		{"row 32: WINDOW_UPDATE of a stream that is over", func(r *rawClient, i uint32) {
			if i == 0 {
				r.ask(1, false, "connection", "close")
			}
			r.WriteWindowUpdate(1, 1<<20)
		}},
		{"row 33: HPACK bombs", func(r *rawClient, i uint32) {
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: r.bomb(i == 0), EndHeaders: true, EndStream: true})
		}},
		{"row 33: HPACK bombs on a stream that was reset", func(r *rawClient, i uint32) {
			if i == 0 {
				r.ask(1, false, "connection", "close")
			}
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.bomb(i == 0), EndHeaders: true, EndStream: true})
		}},
		{"PRIORITY", func(r *rawClient, i uint32) { r.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }},
		{"WINDOW_UPDATE of 1", func(r *rawClient, i uint32) { r.WriteWindowUpdate(0, 1) }},
		{"unknown frames", func(r *rawClient, i uint32) { r.WriteRawFrame(0xbb, 0, 0, nil) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := dialRaw(t, p.address("gateway:80"))
			type end struct {
				code http2.ErrCode
				told bool
			}
			over := make(chan end, 1)
			go func() { // ends with the connection
				var e end
				for {
					f, err := r.ReadFrame()
					if err != nil {
						over <- e
						return
					}
					if g, ok := f.(*http2.GoAwayFrame); ok {
						e = end{g.ErrCode, true}
					}
				}
			}()
			sent := 0
			for i := range uint32(most) {
				tt.send(r, i)
				sent++
				if r.out.Buffered() > 8<<10 && r.out.Flush() != nil {
					break
				}
			}
			r.out.Flush()
			got := await(t, "the connection's end", over)
			if sent == most {
				t.Logf("all %d were sent before the end was seen", most)
			}
			// The end may reach the client as a reset that overtakes the GOAWAY.
			if got.told && got.code != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("the connection ended with %v", got)
			}
			if got := exchangeRaw(t, p.address("gateway:80"), get("s.test"), whole(1)); status(got) != "200" {
				t.Errorf("another client was answered %q", got)
			}
		})
	}
}

// TestHTTP2_LateUpdates: a client that reads replies when they have come long since gives
// their windows back then, as x/net does for each 4 KiB that is read. That is no flood.
func TestHTTP2_LateUpdates(t *testing.T) {
	const size, replies, each = 1 << 20, 32, 4 << 10
	up := replying(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)))
	p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
	r := dialRaw(t, p.address("gateway:80"))
	r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4 << 20})
	r.WriteWindowUpdate(0, 1<<30)
	for i := range uint32(replies) {
		r.ask(2*i+1, true)
	}
	ends := 0
	r.until(func(f http2.Frame) bool {
		if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
			ends++
		}
		return ends == replies
	})
	for i := range uint32(replies) {
		for range size / each {
			r.WriteWindowUpdate(0, each)
			r.WriteWindowUpdate(2*i+1, each)
		}
	}
	r.ask(2*replies+1, true)
	if got := r.status(2*replies + 1); got != "200" {
		t.Errorf("the next request: %s", got)
	}
}

// TestHTTP2_Bombs: a client that sends bombs, and waits for the answers, as one in
// order would, is not served for ever (FAULTS 33).
func TestHTTP2_Bombs(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
	r := dialRaw(t, p.address("gateway:80"))
	const rounds, each = 40, 50 // of which a few are let pass
	for i := range uint32(rounds * each) {
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: r.bomb(i == 0), EndHeaders: true, EndStream: true})
		if i%each < each-1 {
			continue
		}
		answers := 0
		f := r.until(func(f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				if got := f.PseudoValue("status"); got != "431" {
					t.Errorf("a bomb was answered %s", got)
				}
				answers++
			case *http2.GoAwayFrame:
				if f.ErrCode != http2.ErrCodeEnhanceYourCalm {
					t.Errorf("the connection ended with %v", f.ErrCode)
				}
				return true
			}
			return answers == each
		})
		if f == nil || f.Header().Type == http2.FrameGoAway {
			if i < each {
				t.Errorf("the connection ended with the first bombs already: %v", f)
			}
			return
		}
	}
	t.Errorf("%d bombs were answered, and the connection goes on", rounds*each)
}

// TestHTTP2_Malformed: a request that two readers could take in two ways reaches
// no upstream, and harms no other on its connection (FAULTS 33 to 38).
func TestHTTP2_Malformed(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
	const reset = "reset PROTOCOL_ERROR"
	for _, tt := range []struct {
		name string
		want string
		send func(r *rawClient) // stream 1
	}{
		{"row 35: transfer-encoding", reset, func(r *rawClient) { r.ask(1, false, "transfer-encoding", "chunked") }},
		{"row 35: connection", reset, func(r *rawClient) { r.ask(1, true, "connection", "x-a") }},
		{"row 35: a line end in a value", reset, func(r *rawClient) { r.ask(1, true, "x-a", "b\r\nx-c: d") }},
		{"row 35: a line feed in a value", reset, func(r *rawClient) { r.ask(1, true, "x-a", "b\nx-c: d") }},
		{"row 35: a line end in a name", reset, func(r *rawClient) { r.ask(1, true, "x-a: b\r\nx-c", "d") }},
		{"row 35: NUL", reset, func(r *rawClient) { r.ask(1, true, "x-a", "b\x00") }},
		{"row 35: a space in :path", "400", func(r *rawClient) {
			r.ask(1, true, "bare", ":method", "GET", ":scheme", "http", ":authority", "s.test", ":path", "/ HTTP/1.1\r\nx: y")
		}},
		{"row 35: a line end in :method", reset, func(r *rawClient) {
			r.ask(1, true, "bare", ":method", "GET / HTTP/1.1\r\n", ":scheme", "http", ":authority", "s.test", ":path", "/")
		}},
		{"row 35: two lengths", reset, func(r *rawClient) { r.ask(1, false, "content-length", "1", "content-length", "2") }},
		{"row 35: length with a sign", reset, func(r *rawClient) { r.ask(1, false, "content-length", "+1") }},
		{"row 36: host of another name", reset, func(r *rawClient) { r.ask(1, true, "host", "other.test") }},
		{"row 37: body short of its length", reset, func(r *rawClient) {
			r.ask(1, false, "content-length", "5")
			r.WriteData(1, true, []byte("abc"))
		}},
		{"row 37: body beyond its length", reset, func(r *rawClient) {
			r.ask(1, false, "content-length", "2")
			r.WriteData(1, true, []byte("abc"))
		}},
		{"row 37: no body for a length", reset, func(r *rawClient) { r.ask(1, true, "content-length", "5") }},
		{"upper case", reset, func(r *rawClient) { r.ask(1, true, "X-A", "b") }},
		{"pseudo field behind others", reset, func(r *rawClient) {
			r.ask(1, true, "bare", ":method", "GET", ":scheme", "http", "x", "y", ":path", "/", ":authority", "s.test")
		}},
		{"no :path", reset, func(r *rawClient) {
			r.ask(1, true, "bare", ":method", "GET", ":scheme", "http", ":authority", "s.test")
		}},
		{"unknown pseudo field", reset, func(r *rawClient) {
			r.ask(1, true, "bare", ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "s.test", ":x", "y")
		}},
		{"CONNECT", "405", func(r *rawClient) { r.ask(1, true, "bare", ":method", "CONNECT", ":authority", "s.test:80") }},
		{"underscores at the edge", "400", func(r *rawClient) { r.ask(1, true, "x_forwarded_for", "1.2.3.4") }},
		{"row 33: a head that unpacks to much more", "431", func(r *rawClient) {
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.bomb(true), EndHeaders: true, EndStream: true})
		}},
		{"too many fields", "431", func(r *rawClient) {
			var fields []string
			for range 120 {
				fields = append(fields, "a", "b")
			}
			r.ask(1, true, fields...)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(up.seen())
			r := dialRaw(t, p.address("gateway:80"))
			tt.send(r)
			if got := r.status(1); got != tt.want {
				t.Errorf("answered %q, want %q", got, tt.want)
			}
			for _, head := range up.seen()[before:] {
				if !strings.HasPrefix(head, "GET / ") || strings.Contains(head, "x-c") {
					t.Errorf("the upstream saw %q", head)
				}
			}
			n := len(up.seen())
			r.ask(3, true)
			if got := r.status(3); got != "200" {
				t.Errorf("the next request was answered %q", got)
			}
			if got := len(up.seen()); got != n+1 {
				t.Errorf("the upstream saw %d requests more, want 1", got-n)
			}
		})
	}
}

// TestHTTP2_DataAfterReset: what comes for a stream behind its reset goes nowhere
// (FAULTS 38), and the upstream's connection is not used again.
func TestHTTP2_DataAfterReset(t *testing.T) {
	began := make(chan struct{})
	bodies := make(chan string, 2)
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.HasPrefix(head, "POST") {
			close(began)
			rest, _ := io.ReadAll(r)
			bodies <- string(rest)
			return false
		}
		io.WriteString(c, okReply)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address))
	r := dialRaw(t, p.address("outbound"))
	r.ask(1, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/")
	r.WriteData(1, false, []byte("first"))
	r.out.Flush()
	await(t, "the request", began)
	r.WriteRSTStream(1, http2.ErrCodeCancel)
	r.WriteData(1, true, []byte("SECOND"))
	r.ask(3, true)
	if got := r.status(3); got != "200" {
		t.Errorf("the next request was answered %q", got)
	}
	if got := await(t, "the connection's end", bodies); strings.Contains(got, "SECOND") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("the upstream read %q", got)
	}
}

// TestHTTP2_UpstreamAtFault: what an upstream says that is not HTTP/2 is its
// failure, and no client sees more of it than that (FAULTS 34).
func TestHTTP2_UpstreamAtFault(t *testing.T) {
	for _, tt := range []struct {
		name   string
		handle func(*http2.Framer, *http2.HeadersFrame)
	}{
		{"row 34: SETTINGS_MAX_FRAME_SIZE of 0", func(f *http2.Framer, h *http2.HeadersFrame) {
			f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 0})
		}},
		{"no status", func(f *http2.Framer, h *http2.HeadersFrame) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, EndHeaders: true, EndStream: true})
		}},
		{"101", func(f *http2.Framer, h *http2.HeadersFrame) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte("\x08\x03101"), EndHeaders: true})
		}},
		{"1xx that ends the stream", func(f *http2.Framer, h *http2.HeadersFrame) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte("\x08\x03103"), EndHeaders: true, EndStream: true})
		}},
		{"many 1xx", func(f *http2.Framer, h *http2.HeadersFrame) {
			for range 100 {
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte("\x08\x03103"), EndHeaders: true})
			}
		}},
		{"body before its head", func(f *http2.Framer, h *http2.HeadersFrame) { f.WriteData(h.StreamID, true, []byte("x")) }},
		{"a push", func(f *http2.Framer, h *http2.HeadersFrame) {
			f.WritePushPromise(http2.PushPromiseParam{StreamID: h.StreamID, PromiseID: 2, EndHeaders: true})
		}},
		{"a head that cannot be decoded", func(f *http2.Framer, h *http2.HeadersFrame) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x80}, EndHeaders: true, EndStream: true})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, overHTTP2(entry("s.test", framerServer(t, tt.handle))))
			final := func(reply string) bool { return strings.Contains(reply, "HTTP/1.1 50") }
			if got := exchangeRaw(t, p.address("outbound"), get("s.test"), final); !final(got) {
				t.Errorf("answered %q", got)
			}
		})
	}
}

// TestHTTP2_Truncated: a reply that breaks off does not look whole to either kind
// of client (FAULTS 41).
func TestHTTP2_Truncated(t *testing.T) {
	address := framerServer(t, func(f *http2.Framer, h *http2.HeadersFrame) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true})
		f.WriteData(h.StreamID, false, []byte("part"))
		f.WriteRSTStream(h.StreamID, http2.ErrCodeInternal)
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", address)))
	for name, c := range map[string]*http.Client{"HTTP/1.1": h1Client(t, p, "outbound"), "HTTP/2": h2Client(t, p, "outbound")} {
		res, err := c.Get("http://s.test/")
		if err == nil {
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the reply looked whole", name)
		}
	}
}
