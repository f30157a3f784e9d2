package proxy

import (
	"context"
	stdtls "crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestHTTP2_Refusals: over HTTP/2 the same is refused as over HTTP/1.1, by the same
// statuses, and the connection serves on.
func TestHTTP2_Refusals(t *testing.T) {
	i, issued := newTokenIssuer(t), issuer{t, t.TempDir()}
	issued.credential("a", "a.test", "b.test")
	up := capturing(t, okReply)
	yaml := entry("up.test", up.address) + secureGateway(
		server("a.test", "mode: SIMPLE, credentialName: a")+server("b.test", "mode: MUTUAL, credentialName: a"), "a.test", "b.test") +
		tokensAtEdge(i) + authorization("istio-system", "no", `action: DENY, selector: {matchLabels: {istio: ingressgateway}}, rules: [{to: [{operation: {paths: ["/admin/*"]}}]}]`)
	p := serveSecure(t, issued.dir, yaml)
	connections := 0
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &stdtls.Config{RootCAs: issued.roots("a")},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			connections++
			var d net.Dialer
			return d.DialContext(ctx, "tcp", p.address("gateway:80"))
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	for _, tt := range []struct {
		name, host, path, field, value string
		status                         int
		body                           string
	}{
		{"nothing wrong", "a.test", "/x", "x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/prod/sa/admin", 200, ""},
		{"a host of another server", "b.test", "/x", "", "", 421, ""},
		{"dot segments that escapes make", "a.test", "/a/..%2fadmin/x", "", "", 400, ""},
		{"an escaped NUL", "a.test", "/a%00", "", "", 400, ""},
		{"what a policy forbids", "a.test", "/admin/x", "", "", 403, "RBAC: access denied"},
		{"the same, in other words", "a.test", "/b/../%61dmin/x", "", "", 403, "RBAC: access denied"},
		{"a token that is none", "a.test", "/x", "authorization", "Bearer nonsense", 401, "Jwt is not in the form"},
		{"a good token", "a.test", "/x", "authorization", "Bearer " + i.token(map[string]any{}), 200, ""},
		{"nothing wrong again", "a.test", "/x", "client-cert", ":AA==:", 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := &http.Request{Method: "GET", URL: &url.URL{Scheme: "https", Host: "a.test", Opaque: tt.path}, Host: tt.host, Header: http.Header{}}
			if tt.field != "" {
				req.Header.Set(tt.field, tt.value)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != tt.status || res.ProtoMajor != 2 || !strings.HasPrefix(string(body), tt.body) {
				t.Errorf("%s %d %q, %v, want %d %q", res.Proto, res.StatusCode, body, err, tt.status, tt.body)
			}
			if tt.status >= 400 && len(res.Header["X-Request-Id"]) != 1 {
				t.Errorf("the refusal has ids %q", res.Header["X-Request-Id"])
			}
			if head := strings.ToLower(up.last()); strings.Contains(head, "client-cert") || strings.Contains(head, "authorization:") {
				t.Errorf("the upstream got %q", head)
			}
		})
	}
	if connections != 1 {
		t.Errorf("%d connections, want one", connections)
	}
}
