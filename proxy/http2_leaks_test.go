package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestHTTP2_OthersTrailers: the trailers of one request are not sent with another,
// be it of the same client or not.
func TestHTTP2_OthersTrailers(t *testing.T) {
	seen := make(chan seenStream, 1)
	p := serve(t, Options{}, overHTTP2(entry("s.test", recordsHTTP2(t, seen))))
	for range 20 { // which of them gets whose memory is chance
		for _, tt := range []struct{ request, want string }{
			{"POST / HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Secret: word\r\n\r\n", `[header field "x-secret" = "word"]`},
			{"GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", "[]"},
			{"POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 3\r\n\r\nabc", "[]"},
		} {
			if got := exchangeRaw(t, p.address("outbound"), tt.request, whole(1)); status(got) != "200" {
				t.Fatal(got)
			}
			if got := fmt.Sprint((<-seen).trailers); got != tt.want {
				t.Fatalf("%q: the upstream saw the trailers %s, want %s", tt.request, got, tt.want)
			}
		}
	}
}

// TestHTTP2_SlowAfterConversation: who is slow with a body is not waited for any
// longer since the request before, served by the same worker, was a conversation.
func TestHTTP2_SlowAfterConversation(t *testing.T) {
	up := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		io.Copy(io.Discard, r.Body)
	})
	p := serve(t, Options{Downstream: Downstream{StallTimeout: 300 * time.Millisecond}}, overHTTP2(entry("s.test", up)))
	r := dialRaw(t, p.address("outbound"))
	r.ask(1, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/")
	if got := r.status(1); got != "200" {
		t.Fatal(got)
	}
	r.WriteData(1, true, []byte("x"))
	r.until(func(f http2.Frame) bool {
		return f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagDataEndStream)
	})
	await(t, "the worker", until(func() bool { return p.workers.underWay() == 0 }))
	r.ask(3, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/", "content-length", "10")
	if got := r.status(3); got != "408" {
		t.Error(got)
	}
}

// TestHTTP2_TrailersBehindLength: a request with a content-length may have
// trailers, whenever they come, and however long it is.
func TestHTTP2_TrailersBehindLength(t *testing.T) {
	seen := make(chan seenStream, 1)
	p := serve(t, Options{}, overHTTP2(entry("s.test", recordsHTTP2(t, seen))))
	r := dialRaw(t, p.address("outbound"))
	id := uint32(1)
	for _, length := range []int{0, 5, 70_000} {
		for _, apart := range []bool{false, true} {
			r.ask(id, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/", "content-length", fmt.Sprint(length))
			for left := length; left > 0; left -= min(left, 10_000) {
				r.WriteData(id, false, make([]byte, min(left, 10_000)))
				r.out.Flush()
				if length > 50_000 {
					time.Sleep(5 * time.Millisecond) // for the window to be given back
				}
			}
			if apart {
				r.out.Flush()
				time.Sleep(50 * time.Millisecond)
			}
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block("bare", "x-last", "word"), EndHeaders: true, EndStream: true})
			if got := r.status(id); got != "200" {
				t.Fatal(got)
			}
			s := <-seen
			if got := fmt.Sprint(len(s.body), s.trailers); got != fmt.Sprint(length, ` [header field "x-last" = "word"]`) {
				t.Errorf("%d bytes, trailers apart %v: the upstream saw %s", length, apart, got)
			}
			id += 2
		}
	}
}

// TestHTTP2_HeadEndsLater: a reply to HEAD, or 304, may tell the length of what it
// has not (RFC 9113 8.1.1), and end with a frame of its own; it is no fault, however
// many there are.
func TestHTTP2_HeadEndsLater(t *testing.T) {
	var conns, resets atomic.Int32
	up := framerServerOf(t, nil, func(f *http2.Framer, frame http2.Frame) {
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			if frame.StreamID == 1 {
				conns.Add(1)
			}
			var block bytes.Buffer
			e := hpack.NewEncoder(&block)
			e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			e.WriteField(hpack.HeaderField{Name: "content-length", Value: "5"})
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: block.Bytes(), EndHeaders: true})
			f.WriteData(frame.StreamID, true, nil)
		case *http2.RSTStreamFrame:
			if frame.ErrCode != http2.ErrCodeCancel {
				resets.Add(1)
			}
		}
	})
	p := serve(t, Options{}, overHTTP2(entry("s.test", up)))
	c := h1Client(t, p, "outbound")
	for i := range 400 {
		res, err := c.Head("http://s.test/")
		if err != nil || res.StatusCode != 200 || res.ContentLength != 5 {
			t.Fatal(i, res, err)
		}
	}
	if conns.Load() != 1 || resets.Load() > 0 {
		t.Errorf("400 requests took %d connections, and %d resets that say that something is wrong", conns.Load(), resets.Load())
	}
}

// TestHTTP2_WholeAndGone: a reply that has come whole is one, whatever the upstream
// says of the rest of the request, and if its connection has ended by the time.
func TestHTTP2_WholeAndGone(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(f *http2.Framer, id uint32)
	}{
		{"no more", func(f *http2.Framer, id uint32) { f.WriteRSTStream(id, http2.ErrCodeNo) }},
		{"cancelled", func(f *http2.Framer, id uint32) { f.WriteRSTStream(id, http2.ErrCodeCancel) }},
		{"protocol error", func(f *http2.Framer, id uint32) {
			f.WriteGoAway(id, http2.ErrCodeProtocol, nil)
			f.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := byteServer(t, func(c net.Conn) {
				io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
				f := http2.NewFramer(c, c)
				f.WriteSettings()
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						return
					}
					if h, ok := frame.(*http2.HeadersFrame); ok {
						f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true})
						f.WriteData(h.StreamID, false, []byte("x"))
						time.Sleep(10 * time.Millisecond)
						var all bytes.Buffer // which comes at once
						g := http2.NewFramer(&all, nil)
						g.WriteData(h.StreamID, true, nil)
						tt.then(g, h.StreamID)
						c.Write(all.Bytes())
					}
				}
			})
			p := serve(t, Options{}, overHTTP2(entry("s.test", up)))
			for i := range 30 {
				r := dialRaw(t, p.address("outbound"))
				r.ask(1, false, "bare", ":method", "POST", ":scheme", "http", ":authority", "s.test", ":path", "/")
				r.WriteData(1, false, []byte("x"))
				if got := r.status(1); got != "200" {
					t.Fatal(i, got)
				}
				if f := r.until(func(f http2.Frame) bool {
					return f.Header().StreamID == 1 && (f.Header().Type == http2.FrameRSTStream || f.Header().Flags.Has(http2.FlagDataEndStream))
				}); f == nil || f.Header().Type == http2.FrameRSTStream {
					t.Fatalf("%d: the reply ended with %v", i, f)
				}
				r.conn.Close()
			}
		})
	}
}

// seenStream is what a server of HTTP/2 has got of one request.
type seenStream struct {
	head, trailers []hpack.HeaderField
	body           []byte
}

// recordsHTTP2 is a server of HTTP/2 that answers each request, when it has come whole,
// with 200, and sends on what it was.
func recordsHTTP2(t testing.TB, seen chan<- seenStream) string {
	return byteServer(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		f.WriteSettings()
		streams := map[uint32]*seenStream{}
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			id, ended := frame.Header().StreamID, false
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					f.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !frame.IsAck() {
					f.WritePing(true, frame.Data)
				}
			case *http2.MetaHeadersFrame:
				if s := streams[id]; s == nil {
					streams[id] = &seenStream{head: slices.Clone(frame.Fields)}
				} else {
					s.trailers = slices.Clone(frame.Fields)
				}
				ended = frame.StreamEnded()
			case *http2.DataFrame:
				streams[id].body = append(streams[id].body, frame.Data()...)
				if n := frame.Length; n > 0 {
					f.WriteWindowUpdate(0, n)
					if !frame.StreamEnded() {
						f.WriteWindowUpdate(id, n)
					}
				}
				ended = frame.StreamEnded()
			case *http2.RSTStreamFrame:
				delete(streams, id)
			}
			if ended {
				seen <- *streams[id]
				delete(streams, id)
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
			}
		}
	})
}
