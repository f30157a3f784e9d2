package proxy

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestForwarded_Rules: what rules say of where a request comes from has the last
// word, what a gateway's client says of it has none.
func TestForwarded_Rules(t *testing.T) {
	const spoofed = "X-Forwarded-Proto: ftp\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 6.6.6.6\r\nX-Envoy-Original-Path: /evil\r\n"
	for _, tt := range []struct {
		name, listener, rules string
		fields                string
		want                  []string // name, value
		not                   string
	}{
		{"set", "gateway:80", "set: {x-forwarded-proto: https, x-forwarded-port: '443', x-forwarded-prefix: /a, x-forwarded-host: s.test, x-real-ip: 10.0.0.1, x-envoy-original-path: /b}", spoofed,
			[]string{"x-forwarded-proto", "https", "x-forwarded-port", "443", "x-forwarded-prefix", "/a", "x-forwarded-host", "s.test", "x-real-ip", "10.0.0.1", "x-envoy-original-path", "/b", "x-forwarded-for", "127.0.0.1"}, "evil|6.6.6.6"},
		{"set one alone", "gateway:80", "set: {x-forwarded-port: '443'}", spoofed,
			[]string{"x-forwarded-proto", "http", "x-forwarded-port", "443"}, "evil|6.6.6.6|ftp"},
		{"add", "gateway:80", "add: {x-forwarded-host: s.test}", spoofed, []string{"x-forwarded-host", "s.test"}, "evil|ftp"},
		{"something else", "gateway:80", "set: {x-a: b}", spoofed, []string{"x-a", "b", "x-forwarded-proto", "http"}, "evil|6.6.6.6|ftp|x-forwarded-host"},
		{"beside two words on the scheme", "outbound", "set: {x-forwarded-port: '443'}", "X-Forwarded-Proto: ftp\r\nX-Forwarded-Proto: https\r\n", []string{"x-forwarded-proto", "https"}, "ftp"},
		{"remove", "gateway:80", "remove: [x-forwarded-for, x-forwarded-proto, x-request-id]", "X-Forwarded-For: 6.6.6.6\r\n", nil, "x-forwarded|6.6.6.6|x-request-id"},
		{"set the address", "gateway:80", "set: {x-forwarded-for: 10.0.0.1}", "X-Forwarded-For: 6.6.6.6\r\n", []string{"x-forwarded-for", "10.0.0.1"}, "6.6.6.6|127.0.0.1"},
		{"beside the addresses", "gateway:80", "set: {x-real-ip: 10.0.0.1}", "X-Forwarded-For: 10.0.0.2\r\nX-Forwarded-For: 10.0.0.3\r\n", []string{"x-forwarded-for", "10.0.0.2, 10.0.0.3, 127.0.0.1"}, ""},
		{"on the way out", "outbound", "remove: [x-forwarded-for], set: {x-forwarded-proto: https}", "", []string{"x-forwarded-proto", "https"}, "x-forwarded-for"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, atEdge(), entry("s.test", up.address)+anyHost+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  gateways: [gw, mesh]
  http: [{headers: {request: {`+tt.rules+`}}, route: [{destination: {host: s.test}}]}]
`)
			exchangeRaw(t, p.address(tt.listener), "GET / HTTP/1.1\r\nHost: s.test\r\n"+tt.fields+"\r\n", whole(1))
			head := strings.ToLower(strings.Join(up.seen(), ""))
			for i := 0; i < len(tt.want); i += 2 {
				if got := field(head, tt.want[i]); got != tt.want[i+1] || strings.Count(head, "\r\n"+tt.want[i]+": ") != 1 {
					t.Errorf("the upstream got %q, want %s: %s once", head, tt.want[i], tt.want[i+1])
				}
			}
			for not := range strings.SplitSeq(tt.not, "|") {
				if not != "" && strings.Contains(head, not) {
					t.Errorf("the upstream got %q, want no %q in it", head, not)
				}
			}
		})
	}
}

// TestForwarded_Authorized: what a token's claims and an authorization service say
// of who calls goes on; a client can tell neither them nor the upstream.
func TestForwarded_Authorized(t *testing.T) {
	var asked, about atomic.Value
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Header.Get("X-Forwarded-Email") + r.Header.Get("X-Envoy-Original-Path"))
		about.Store(r.Method + " " + r.Host + " " + r.RequestURI)
		w.Header().Set("X-Forwarded-Email", "alice@s.test")
		w.Header().Set("X-Forwarded-Proto", "https")
	})
	issuer, up := newTokenIssuer(t), replying(t, okReply)
	p := serve(t, atEdge(), edge("s.test")+"---\n"+entry("s.test", up.address)+
		service.asked("istio-system", "includeRequestHeadersInCheck: [x-forwarded-email, x-envoy-original-path], headersToUpstreamOnAllow: [x-forwarded-email, x-forwarded-proto], timeout: 5s")+`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  jwtRules: [{issuer: "`+issuer.URL+`", outputClaimToHeaders: [{header: x-forwarded-user, claim: sub}]}]
`)
	request := "GET /a?b=c HTTP/1.1\r\nHost: s.test\r\nX-Forwarded-Email: mallory@s.test\r\nX-Forwarded-User: mallory\r\nX-Forwarded-Groups: admins\r\nX-Envoy-Original-Path: /evil\r\n"
	if got := exchangeRaw(t, p.address("gateway:80"), request+"Authorization: Bearer "+issuer.token(map[string]any{})+"\r\n\r\n", whole(1)); status(got) != "200" {
		t.Fatalf("got %q", got)
	}
	if got := asked.Load(); got != "" {
		t.Errorf("the service was asked with %q of the client's", got)
	}
	if got := about.Load(); got != "GET s.test /a?b=c" {
		t.Errorf("the service was asked about %q", got)
	}
	head := up.seen()[0]
	for name, want := range map[string]string{"x-forwarded-email": "alice@s.test", "x-forwarded-user": "alice", "x-forwarded-proto": "https"} {
		if got := field(head, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if lower := strings.ToLower(head); strings.Contains(lower, "mallory") || strings.Contains(lower, "admins") || strings.Contains(lower, "evil") {
		t.Errorf("the upstream got %q", head)
	}
}
