package http1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// readChunks decodes a body given in pieces of step bytes. rest is what was not
// consumed.
func readChunks(c *ChunkReader, in []byte, step int) (body, rest []byte, done bool, err error) {
	for len(in) > 0 && !done && err == nil {
		// A piece of its own, so that nobody relies on the bytes beyond it.
		piece := bytes.Clone(in[:min(step, len(in))])
		for len(piece) > 0 && !done && err == nil {
			var data []byte
			var n int
			data, n, done, err = c.Next(piece)
			body = append(body, data...)
			piece, in = piece[n:], in[n:]
			if n == 0 && !done && err == nil {
				return body, in, false, fmt.Errorf("Next(%q) consumes nothing", piece)
			}
		}
	}
	return body, in, done, err
}

func describeFields(fields []Field) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	return b.String()
}

var acceptedChunks = []struct{ name, in, body, trailers string }{
	{"empty", "0\r\n\r\n", "", ""},
	{"one", "5\r\nhello\r\n0\r\n\r\n", "hello", ""},
	{"two", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!", ""},
	{"data that looks like framing", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n", ""},
	{"capital and small digits", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""},
	{"leading zeros", "005\r\nhello\r\n000\r\n\r\n", "hello", ""},
	{"extensions", "5;a=b;c=\"d;e\"\r\nhello\r\n0;z\r\n\r\n", "hello", ""},
	{"empty extension", "5;\r\nhello\r\n0\r\n\r\n", "hello", ""},
	{"trailers", "0\r\nX-Sum: 1\r\nGrpc-Status:0 \r\n\r\n", "", "X-Sum: 1\nGrpc-Status: 0\n"},
	{"trailers for a header alone", "0\r\nContent-Length: 1\r\ncontent-length: 2\r\nTransfer-Encoding: chunked, chunked\r\nHost: b\r\nX-Sum: 1\r\nClient-Cert: :YQ==:\r\nclient_cert_chain: :YQ==:\r\n" +
		"Connection: close\r\nAuthorization: x\r\nCookie: x\r\nSet-Cookie: x\r\nX-Forwarded-For: x\r\nX-Forwarded-Whatever: x\r\nx_forwarded_for: x\r\n" +
		"X-Isthmus-Anything: x\r\nX-Envoy-Anything: x\r\nProxy-Authorization: x\r\nContent-Type: x\r\nRange: x\r\nX-Real-IP: x\r\n" +
		"X-Forwarded-" + strings.Repeat("x", 40) + ": x\r\n\r\n", "", "X-Sum: 1\n"},
}

func TestChunkReader_Accepts(t *testing.T) {
	var c ChunkReader
	for _, tt := range acceptedChunks {
		for _, step := range []int{1, 2, 3, 5, 1 << 20} {
			c.Reset()
			body, rest, done, err := readChunks(&c, []byte(tt.in+"GET"), step)
			if err != nil || !done || string(rest) != "GET" || string(body) != tt.body {
				t.Errorf("%s by %d: %q in, got body %q, rest %q, %v, %v, want body %q, rest GET", tt.name, step, tt.in, body, rest, done, err, tt.body)
			}
			if got := describeFields(c.Trailers()); got != tt.trailers {
				t.Errorf("%s by %d: trailers %q, want %q", tt.name, step, got, tt.trailers)
			}
			if data, n, done, err := c.Next([]byte("GET")); len(data) > 0 || n > 0 || !done || err != nil {
				t.Errorf("%s: after the end, Next = %q, %d, %v, %v", tt.name, data, n, done, err)
			}
		}
	}
}

var refusedChunks = []struct {
	name, in string
	want     *Error
}{
	{"no size", "\r\nhello", errChunkSize},
	{"extension without size", ";a\r\n", errChunkSize},
	{"0x", "0x5\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"0X", "0X5\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"letters after size", "1zz\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"sign", "+5\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"negative", "-5\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"underscore", "1_0\r\n", errChunkSize},
	{"space before size", " 5\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"space after size", "5 \r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"tab after size", "5\t\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"space before extension", "5 ;a\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"NUL after size", "5\x00\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"size of 2^64", "10000000000000000\r\n", errChunkSize},
	{"size of 2^64+5", "10000000000000005\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"size of 2^60", "1000000000000000\r\n", errChunkSize},
	{"zeros without end", strings.Repeat("0", 100), errChunkSize},
	{"bare LF after size", "5\nhello\r\n0\r\n\r\n", errChunkSize},
	{"bare CR after size", "5\rhello\r\n0\r\n\r\n", errChunkSize},
	{"bare LF after extension", "5;a\nhello\r\n0\r\n\r\n", errChunkSize},
	{"bare CR in extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"NUL in extension", "5;a\x00\r\nhello\r\n0\r\n\r\n", errChunkSize},
	{"long extension", "5;" + strings.Repeat("a", 257) + "\r\n", errChunkExtension},
	{"many extensions", strings.Repeat("1;"+strings.Repeat("a", 250)+"\r\nx\r\n", 20), errChunkExtension},
	{"no line end after data", "5\r\nhello0\r\n\r\n", errChunkEnd},
	{"more data than announced", "5\r\nhello!\r\n0\r\n\r\n", errChunkEnd},
	{"bare LF after data", "5\r\nhello\n0\r\n\r\n", errChunkEnd},
	{"bare CR after data", "5\r\nhello\r0\r\n\r\n", errChunkEnd},
	{"less data than announced", "5\r\nhell\r\n0\r\n\r\n", errChunkEnd},

	{"bare LF for the empty line", "0\r\n\n", errTrailer},
	{"bare LF in trailer", "0\r\nX: 1\n\r\n", errTrailer},
	{"bare CR in trailer", "0\r\nX: 1\rY: 2\r\n\r\n", errTrailer},
	{"NUL in trailer", "0\r\nX: \x00\r\n\r\n", errTrailer},
	{"folded trailer", "0\r\nX: 1\r\n 2\r\n\r\n", errTrailer},
	{"space before colon in trailer", "0\r\nX : 1\r\n\r\n", errTrailer},
	{"another request for a trailer", "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errTrailer},
	{"large trailers", "0\r\nX: " + strings.Repeat("x", 8<<10) + "\r\n\r\n", errTrailerLarge},
	{"trailer that does not end", "0\r\nX: " + strings.Repeat("x", 8<<10), errTrailerLarge},
	{"many trailers", "0\r\n" + strings.Repeat("X: 1\r\n", 101) + "\r\n", errTrailerLarge},
}

func TestChunkReader_Refuses(t *testing.T) {
	var c ChunkReader
	for _, tt := range refusedChunks {
		for _, step := range []int{1, 2, 3, 5, 1 << 20} {
			c.Reset()
			body, _, done, err := readChunks(&c, []byte(tt.in), step)
			if err != error(tt.want) || done {
				t.Errorf("%s by %d: %.100q in, got body %q, %v, %v, want %v", tt.name, step, tt.in, body, done, err, tt.want)
			}
			if data, n, done, again := c.Next([]byte("0\r\n\r\n")); len(data) > 0 || n > 0 || done || again != err {
				t.Errorf("%s: after the error, Next = %q, %d, %v, %v, want it again", tt.name, data, n, done, again)
			}
		}
	}
}

func TestChunkReader_WaitsForMore(t *testing.T) {
	for _, tt := range acceptedChunks {
		for i := range tt.in {
			var c ChunkReader
			if _, rest, done, err := readChunks(&c, []byte(tt.in[:i]), 1<<20); len(rest) > 0 || done || err != nil {
				t.Errorf("%q: rest %q, %v, %v, want nothing yet", tt.in[:i], rest, done, err)
			}
		}
	}
}

// TestChunkReader_DataPaysForExtensions holds that a long body may have an
// extension with every chunk, as signed uploads do.
func TestChunkReader_DataPaysForExtensions(t *testing.T) {
	chunk := "400;signature=" + strings.Repeat("0", 64) + "\r\n" + strings.Repeat("x", 1024) + "\r\n"
	var c ChunkReader
	body, _, done, err := readChunks(&c, []byte(strings.Repeat(chunk, 500)+"0\r\n\r\n"), 1<<20)
	if len(body) != 500<<10 || !done || err != nil {
		t.Errorf("got %d bytes, %v, %v", len(body), done, err)
	}
}

func TestChunkReader_HugeChunk(t *testing.T) {
	var c ChunkReader
	data, n, done, err := c.Next([]byte("fffffffffffffff\r\nabc"))
	if err == nil && n == 17 && len(data) == 0 {
		data, n, done, err = c.Next([]byte("abc"))
	}
	if string(data) != "abc" || done || err != nil {
		t.Errorf("got %q, %d, %v, %v, want abc", data, n, done, err)
	}
}

func TestChunkReader_AllocatesNothing(t *testing.T) {
	in := []byte("5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: x\r\n\r\n")
	var c ChunkReader
	if n := testing.AllocsPerRun(100, func() {
		c.Reset()
		for in := in; ; {
			_, n, done, err := c.Next(in)
			if err != nil {
				t.Fatal(err)
			}
			if done {
				break
			}
			in = in[n:]
		}
		if len(c.Trailers()) != 1 {
			t.Fatal(describeFields(c.Trailers()))
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
