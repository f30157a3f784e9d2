package http1

import "testing"

// usualRequest is what an application's client sends: eight fields.
var usualRequest = []byte("GET /api/v1/users/42?fields=name,mail HTTP/1.1\r\n" +
	"Host: user-service.production.svc.cluster.local\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\r\n" +
	"Accept: application/json, text/plain, */*\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: en-GB,en;q=0.9\r\n" +
	"X-Request-Id: 2f6c1f0e-6a0e-4f7e-9d4f-3f3f6a3b1c55\r\n" +
	"X-Geo-Location: us-west\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef\r\n" +
	"\r\n")

var usualResponse = []byte("HTTP/1.1 200 OK\r\n" +
	"Date: Mon, 23 Nov 2026 13:00:00 GMT\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 1024\r\n" +
	"Server: nginx\r\n" +
	"Cache-Control: no-store, max-age=0\r\n" +
	"X-Request-Id: 2f6c1f0e-6a0e-4f7e-9d4f-3f3f6a3b1c55\r\n" +
	"\r\n")

var usualChunks = AppendLastChunk(append(append(AppendChunkHeader(nil, 4096), make([]byte, 4096)...), "\r\n"...), nil)

func BenchmarkRequestParse(b *testing.B) {
	var r Request
	b.SetBytes(int64(len(usualRequest)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		if n, err := r.Parse(usualRequest, Limits{}); n != len(usualRequest) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkResponseParse(b *testing.B) {
	var r Response
	method := []byte("GET")
	b.SetBytes(int64(len(usualResponse)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		if n, err := r.Parse(usualResponse, Limits{}, method); n != len(usualResponse) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkChunkReader(b *testing.B) {
	var c ChunkReader
	b.SetBytes(int64(len(usualChunks)))
	b.ReportAllocs()
	for b.Loop() {
		c.Reset()
		for in := usualChunks; ; {
			_, n, done, err := c.Next(in)
			if err != nil {
				b.Fatal(err)
			}
			if done {
				break
			}
			in = in[n:]
		}
	}
}

func BenchmarkLookupField(b *testing.B) {
	names := [][]byte{[]byte("Host"), []byte("X-Request-Id"), []byte("Accept-Language"), []byte("content-length")}
	b.ReportAllocs()
	for b.Loop() {
		for _, name := range names {
			LookupField(name)
		}
	}
}
