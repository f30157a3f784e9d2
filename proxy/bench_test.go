package proxy

import (
	"net"
	"testing"

	"isthmus/http1"
)

// plainServer answers every read with the same bytes and allocates nothing, so
// that what an exchange allocates is the proxy's.
func plainServer(t testing.TB, reply string) string {
	return byteServer(t, func(c net.Conn) {
		buf, answer := make([]byte, 16<<10), []byte(reply)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
}

// plainClient returns a function that sends a request over a kept connection
// and waits for the reply, and allocates nothing.
func plainClient(t testing.TB, address, request string) func() {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	buf, out := make([]byte, 64<<10), []byte(request)
	return func() {
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || string(buf[:12]) != "HTTP/1.1 200" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
}

const plainYAML = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - match: [{headers: {x-version: {exact: v2}}}, {uri: {prefix: /api}}]
    directResponse: {status: 418}
  - route: [{destination: {host: s.test}}]
    timeout: 5s
`

const plainRequest = "GET /index.html?q=1 HTTP/1.1\r\nHost: s.test\r\nUser-Agent: test/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nX-Request-Id: 7f3c0a52-5f0e-4c0b-9a55-0c4f8f2d9e11\r\n\r\n"

// BenchmarkExchange is one whole exchange over loopback connections that are
// kept, client and upstream in the same process.
func BenchmarkExchange(b *testing.B) {
	p := serve(b, Options{}, entry("s.test", plainServer(b, okReply))+plainYAML)
	send := plainClient(b, p.address("outbound"), plainRequest)
	send()
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}

// BenchmarkExchange_Observed is the same with an access log and traces of one in a
// hundred.
func BenchmarkExchange_Observed(b *testing.B) {
	log, _ := newLog(b, "json", true)
	p := serve(b, Options{AccessLog: log, Tracing: newZipkin(b).tracing(1)}, entry("s.test", plainServer(b, okReply))+plainYAML)
	send := plainClient(b, p.address("outbound"), plainRequest)
	send()
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}

// BenchmarkExchange_Traced is the same with traces of all.
func BenchmarkExchange_Traced(b *testing.B) {
	p := serve(b, Options{Tracing: newZipkin(b).tracing(100)}, entry("s.test", plainServer(b, okReply))+plainYAML)
	send := plainClient(b, p.address("outbound"), plainRequest)
	send()
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}

// BenchmarkRouteMatch finds a host and a route among rules of the usual kinds.
func BenchmarkRouteMatch(b *testing.B) {
	p := serve(b, Options{}, rules)
	x := &exchange{conn: &conn{client: &client{proxy: p, kind: outbound}}, table: p.table.Load()}
	raw := []byte("GET /users/1 HTTP/1.1\r\nHost: rules.test\r\nAccept: */*\r\nX-In: 1\r\n\r\n")
	if _, err := x.req.Parse(raw, http1.Limits{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		vh, kind := x.findHost()
		if kind == NoError {
			kind = x.findRoute(vh)
		}
		if kind != NoError || x.route.direct.Status != 299 {
			b.Fatal(kind)
		}
	}
}
