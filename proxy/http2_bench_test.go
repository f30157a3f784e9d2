package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"isthmus/http2"
)

// plainStreams returns a function that sends n requests over one connection of
// HTTP/2, and waits for the replies; it allocates nothing.
func plainStreams(t testing.TB, address string, n int) func() {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	block := http2.AppendMethod(nil, []byte("GET"))
	block = http2.AppendScheme(block, []byte("http"))
	block = http2.AppendAuthority(block, []byte("s.test"))
	block = http2.AppendPath(block, []byte("/index.html"), []byte("q=1"), true)
	for name, value := range map[string]string{"user-agent": "test/1.0", "accept": "*/*", "accept-encoding": "gzip", "x-request-id": "7f3c0a52-5f0e-4c0b-9a55-0c4f8f2d9e11"} {
		block = http2.AppendField(block, []byte(name), []byte(value))
	}
	out := http2.AppendSettings([]byte(http2.Preface))
	out = http2.AppendWindowUpdate(out, 0, 1<<30)
	if _, err := c.Write(out); err != nil {
		t.Fatal(err)
	}
	var at []int // where the numbers of streams stand
	out = nil
	for range n {
		at = append(at, len(out)+5)
		out = http2.EndHeaders(append(http2.BeginHeaders(out), block...), len(out), 0, true, 16<<10)
	}
	id, buf := uint32(1), make([]byte, 64<<10)
	return func() {
		for _, i := range at {
			binary.BigEndian.PutUint32(out[i:], id)
			id += 2
		}
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		for left := n; left > 0; {
			if _, err := io.ReadFull(c, buf[:9]); err != nil {
				t.Fatal(err)
			}
			h := http2.ParseFrameHeader(buf)
			if _, err := io.ReadFull(c, buf[:h.Length]); err != nil {
				t.Fatal(err)
			}
			switch {
			case h.Type == http2.FrameHeaders && buf[0] != 0x88:
				t.Fatal("not 200")
			case (h.Type == http2.FrameHeaders || h.Type == http2.FrameData) && h.Flags.Has(http2.FlagEndStream):
				left--
			case h.Type == http2.FrameReset || h.Type == http2.FrameGoAway:
				t.Fatal("refused")
			}
		}
	}
}

// replyingStreams is a server of HTTP/2 that answers every request with the same
// frames and allocates nothing.
func replyingStreams(t testing.TB) string {
	return byteServer(t, func(c net.Conn) {
		in, out := make([]byte, 64<<10), http2.AppendSettings(nil)
		have := 0
		io.ReadFull(c, in[:len(http2.Preface)])
		for {
			n, err := c.Read(in[have:])
			if err != nil {
				return
			}
			have += n
			from := 0
			for have-from >= 9 {
				h := http2.ParseFrameHeader(in[from:])
				size := 9 + int(h.Length)
				if have-from < size {
					break
				}
				from += size
				if h.Type == http2.FrameHeaders {
					start := len(out)
					out = http2.EndHeaders(http2.AppendStatus(http2.BeginHeaders(out), 200), start, h.Stream, false, 16<<10)
					out = append(http2.AppendDataHeader(out, h.Stream, true, 2), "ok"...)
				}
			}
			have = copy(in, in[from:have])
			if len(out) > 0 {
				if _, err := c.Write(out); err != nil {
					return
				}
				out = out[:0]
			}
		}
	})
}

// BenchmarkExchangeHTTP2 is 32 exchanges at a time over one connection.
func BenchmarkExchangeHTTP2(b *testing.B) {
	for _, up := range []struct{ name, yaml string }{
		{"to=HTTP1", entry("s.test", plainServer(b, okReply))},
		{"to=HTTP2", overHTTP2(entry("s.test", replyingStreams(b)))},
	} {
		b.Run(up.name, func(b *testing.B) {
			p := serve(b, Options{}, up.yaml+plainYAML)
			send := plainStreams(b, p.address("outbound"), 32)
			for range 20 {
				send()
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N/32 + 1 {
				send()
			}
		})
	}
}
