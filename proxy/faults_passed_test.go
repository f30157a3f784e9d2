package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// atEdge is the options of a proxy that is a gateway as well.
func atEdge() Options {
	n := testNode()
	n.Labels["istio"] = "ingressgateway"
	return Options{Node: n, GatewayPorts: map[uint32]uint32{80: 0}}
}

// edge makes a gateway on port 80 of a service.
func edge(host string) string {
	return `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ["` + host + `"]
  gateways: [gw]
  http: [{route: [{destination: {host: ` + host + `}}]}]
`
}

// inPieces sends the first bytes, waits until they have arrived, sends the
// others, and returns everything that comes back.
func inPieces(t *testing.T, address, first string, arrived func() bool, second string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, first)
	for !arrived() {
		time.Sleep(time.Millisecond)
	}
	io.WriteString(c, second)
	got, _ := io.ReadAll(c)
	return string(got)
}

// TestFaults_PassedRequests: what of doubtful but legal requests reaches the
// upstream, and what does not.
func TestFaults_PassedRequests(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		has, hasNot   []string
	}{
		{"trailers that are for the head alone are dropped",
			chunked("3\r\nabc\r\n0\r\nContent-Length: 9\r\nHost: other.test\r\nX-Forwarded-For: 10.0.0.9\r\nAuthorization: x\r\nX_Forwarded_For: 10.0.0.9\r\nGrpc-Status: 0\r\n\r\n"),
			[]string{"transfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\nGrpc-Status: 0\r\n\r\n"}, []string{"ength: 9", "other.test", "10.0.0.9", "Authorization"}},
		{"a length for a body that was chunked and is whole",
			chunked("3;ext=1\r\nabc\r\n2\r\nde\r\n" + chunkEnd), []string{"content-length: 5\r\n", "\r\n\r\nabcde"}, []string{"ext", "chunked"}},
		{"Upgrade is not offered", fields("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"), []string{"GET / HTTP/1.1\r\n"}, []string{"pgrade"}},
		{"fields that Connection names are dropped, ours are not",
			fields("Connection: X-Forwarded-For, x-ISTHMUS-destination, Keep-Alive, x-request-id, HOST, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nX-Forwarded-For: 10.0.0.9\r\nX-Request-ID: abc"),
			[]string{"host: s.test\r\n", "x-forwarded-for: 127.0.0.1\r\n", "x-request-id: "}, []string{"onnection", "X-Mine", "10.0.0.9", "abc", "Keep-Alive"}},
		{"Proxy-Connection and TE are dropped", fields("Proxy-Connection: keep-alive\r\nTE: gzip, trailers"), nil, []string{"roxy-", "TE:"}},
		{"dot segments are removed once", "GET /a/./b/../c HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /a/c HTTP/1.1\r\n"}, nil},
		{"no segment is above the root", "GET /../../a HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /a HTTP/1.1\r\n"}, nil},
		{"backslashes are slashes", "GET /a\\b HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /a/b HTTP/1.1\r\n"}, nil},
		{"escapes stay, also double ones", "GET /a%2fb%252e%41 HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /a%2fb%252e%41 HTTP/1.1\r\n"}, nil},
		{"slashes stay double", "GET //a//b HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET //a//b HTTP/1.1\r\n"}, nil},
		{"absolute target becomes a path", "GET http://S.test/a?b HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /a?b HTTP/1.1\r\nhost: S.test\r\n"}, nil},
		{"an empty line before the request", "\r\n" + get("s.test"), []string{"GET / HTTP/1.1\r\n"}, nil},
		{"x-forwarded-client-cert is dropped", fields("X-Forwarded-Client-Cert: By=spiffe://x"), nil, []string{"lient-"}},
		{"underscores pass within the mesh", fields("A_b: 1"), []string{"A_b: 1\r\n"}, nil},
		{"gateway: nobody outside speaks for a proxy",
			fields("X-Envoy-Expected-Rq-Timeout-Ms: 1\r\nX-Envoy-Original-Path: /a\r\nX-Isthmus-Destination: other:80\r\nX-Isthmus-Unsent: true\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=10.0.0.9\r\nX-Real-IP: 10.0.0.9\r\nX-Forwarded-Client-Cert: By=x\r\nX-Forwarded-For: 10.0.0.8"),
			[]string{"x-forwarded-proto: http\r\n", "x-forwarded-for: 10.0.0.8, 127.0.0.1\r\n"}, []string{"nvoy-Ex", "nvoy-Or", "Isthmus", "https", "evil", "10.0.0.9", "lient-Cert"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := record(t, okReply)
			p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
			listener := "outbound"
			if strings.HasPrefix(tt.name, "gateway: ") {
				listener = "gateway:80"
			}
			if got := exchangeRaw(t, p.address(listener), tt.request, whole(1)); status(got) != "200" {
				t.Fatalf("answered %q", got)
			}
			seen := up.seen()
			for _, want := range tt.has {
				if !strings.Contains(seen, want) {
					t.Errorf("the upstream saw %q, want %q in it", seen, want)
				}
			}
			for _, not := range tt.hasNot {
				if strings.Contains(seen, not) {
					t.Errorf("the upstream saw %q, want no %q in it", seen, not)
				}
			}
		})
	}
}

// TestFaults_UpgradeAnsweredOtherwise: what a client sends behind an Upgrade
// that was not accepted is a request like any other.
func TestFaults_UpgradeAnsweredOtherwise(t *testing.T) {
	up := record(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address))
	got := exchangeRaw(t, p.address("outbound"), fields("Connection: Upgrade\r\nUpgrade: websocket")+"GET /2 HTTP/1.1\r\nHost: nobody.test\r\n\r\n", whole(2))
	if !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, "HTTP/1.1 404") || strings.Contains(up.seen(), "/2") {
		t.Errorf("answered %q, the upstream saw %q", got, up.seen())
	}
}
