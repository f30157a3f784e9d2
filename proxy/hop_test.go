package proxy

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestHop_Judged: that a request asks for an upgrade is seen by policies and routes, whoever
// else has to be asked or told about it, and whatever its Connection field names.
func TestHop_Judged(t *testing.T) {
	up := switching(t, func(string, *bufio.Reader, *net.TCPConn) {})
	service := newAuthorizer(t, func(_ http.ResponseWriter, r *http.Request) {
		if len(r.Header["Connection"])+len(r.Header["Upgrade"]) > 0 {
			t.Errorf("the service is asked with %q", r.Header) // which would be about its own connection
		}
	})
	policy := func(name, spec string) string { return authorization("istio-system", name, spec) }
	for _, tt := range []struct{ name, more string }{
		{"alone", ""},
		{"beside an authorization service", service.asked("istio-system", `timeout: 20s, includeRequestHeadersInCheck: ["*"]`)},
		{"beside one that asks where a request comes from", policy("nobody", `action: DENY, rules: [{when: [{key: "request.headers[x-request-id]", values: [nobody]}]}]`)},
	} {
		for _, lines := range []string{
			"Connection: Upgrade\r\nUpgrade: websocket", "Connection: Upgrade, X-Request-Id\r\nUpgrade: websocket",
			"Connection: Upgrade\r\nUpgrade: h2c, websocket", "Connection: Upgrade\r\nUpgrade: websocket, foo\r\nUpgrade: bar", // of which one is asked for
		} {
			for deny, want := range map[string]string{"": "101", policy("no", `action: DENY, rules: [{when: [{key: "request.headers[upgrade]", values: [websocket]}]}]`): "403"} {
				p := serve(t, atEdge(), anyHost+entry("s.test", up.address)+`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  gateways: [gw]
  http: [{match: [{headers: {upgrade: {exact: websocket}}}], route: [{destination: {host: s.test}}]}]
`+tt.more+deny)
				request := strings.Replace(asWebSocket(), "Connection: Upgrade\r\nUpgrade: websocket", lines, 1)
				if got := exchangeRaw(t, p.address("gateway:80"), request, whole(1)); status(got) != want {
					t.Errorf("%s, %q: got %q, want %s", tt.name, lines, got, want)
				}
			}
		}
	}
}

// TestHop_Added: a client's Connection field takes nothing off that a limit adds, neither of
// the request nor of its copy.
func TestHop_Added(t *testing.T) {
	up, mirror := replying(t, okReply), replying(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+entry("m.test", mirror.address)+`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec: {hosts: [s.test], http: [{route: [{destination: {host: s.test}}], mirrors: [{destination: {host: m.test}}]}]}
`+limitFilter("token_bucket: {max_tokens: 1, "+hourly+`}
          filter_enforced: {default_value: {numerator: 0}}
          request_headers_to_add_when_not_enforced: [{header: {key: x-over, value: "yes"}}]`, ""))
	for range 2 {
		exchangeRaw(t, p.address("outbound"), asGet("Connection: x-over, x-other", "X-Over: no", "X-Other: 1"), whole(1))
	}
	await(t, "both copies", until(func() bool { return len(mirror.seen()) == 2 }))
	for name, heads := range map[string][]string{"upstream": up.seen(), "mirror": mirror.seen()} {
		if all := strings.Join(heads, ""); strings.Count(all, "x-over: yes\r\n") != 1 || strings.Count(all, "x-over:") != 1 || strings.Contains(strings.ToLower(all), "x-other") {
			t.Errorf("the %s got %q", name, heads)
		}
	}
}
