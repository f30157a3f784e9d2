package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"io"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus/tls"
)

const apiPolicy = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: api, namespace: prod}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/frontend"]}}, {source: {namespaces: ["ops"]}}]
    to: [{operation: {methods: [GET, POST], paths: ["/api/*"]}}]
    when: [{key: "request.auth.claims[groups]", values: [users, admins]}]
---
`

// TestAuthorize_EachPart: a request with everything right passes, and each wrong
// part alone is refused.
func TestAuthorize_EachPart(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	web := tr.identity("prod", "web")
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, web, application.address, tokensOf(i, "web")+apiPolicy)
	good := i.token(map[string]any{"groups": []string{"users"}})
	frontend, ops, other := tr.identity("shop", "frontend"), tr.identity("ops", "x"), tr.identity("shop", "other")
	for _, tt := range []struct {
		name   string
		caller *tls.Own // nil: in plain text
		method string
		path   string
		token  string
		want   string
	}{
		{"all of it", frontend, "GET", "/api/x", good, "200"},
		{"the other source", ops, "POST", "/api/x", good, "200"},
		{"another account", other, "GET", "/api/x", good, "403"},
		{"plain text", nil, "GET", "/api/x", good, "403"},
		{"another method", frontend, "PUT", "/api/x", good, "403"},
		{"another path", frontend, "GET", "/admin", good, "403"},
		{"a path that only looks right", frontend, "GET", "/api/../admin", good, "403"},
		{"an escape in the path", frontend, "GET", "/%61pi/x", good, "200"},
		{"escaped dots", frontend, "GET", "/api/%2e%2e/admin", good, "400"},
		{"no token", frontend, "GET", "/api/x", "", "403"},
		{"a token without the claim", frontend, "GET", "/api/x", i.token(map[string]any{}), "403"},
		{"a token with another claim", frontend, "GET", "/api/x", i.token(map[string]any{"groups": []string{"guests"}}), "403"},
		{"an expired token", frontend, "GET", "/api/x", i.token(map[string]any{"groups": "users", "exp": time.Now().Add(-time.Hour).Unix()}), "401"},
		{"a token of another issuer", frontend, "GET", "/api/x", i.token(map[string]any{"groups": "users", "iss": "https://evil.example"}), "401"},
		{"a token that is none", frontend, "GET", "/api/x", "nonsense", "401"},
		{"a token with another signature", frontend, "GET", "/api/x", good[:len(good)-8] + "AAAAAAAA", "401"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request := tt.method + " " + tt.path + " HTTP/1.1\r\nHost: web.prod\r\nx-user: mallory\r\n"
			if tt.token != "" {
				request += "Authorization: Bearer " + tt.token + "\r\n"
			}
			if tt.method != "GET" {
				request += "Content-Length: 0\r\n"
			}
			request += "\r\n"
			before := len(application.seen())
			var got string
			if tt.caller == nil {
				got = exchangeRaw(t, callee.address("inbound"), request, whole(1))
			} else {
				got = overTLSAt(t, callee.address("inbound"), asCaller(tt.caller, ""), request)
			}
			if status(got) != tt.want {
				t.Fatalf("got %q, want %s", got, tt.want)
			}
			arrived := len(application.seen()) - before
			switch tt.want {
			case "200":
				if head := application.last(); arrived != 1 || field(head, "x-user") != "alice" || strings.Contains(strings.ToLower(head), "authorization:") || strings.Contains(head, "mallory") {
					t.Errorf("the application got %d: %q", arrived, head)
				}
			case "401":
				if !strings.Contains(got, "\r\nwww-authenticate: Bearer ") {
					t.Errorf("no challenge in %q", got)
				}
				fallthrough
			default:
				if arrived != 0 {
					t.Error("it arrived all the same")
				}
			}
			told := strings.Contains(got, "\r\nx-isthmus-refusal: ")
			if want := tt.want == "403" && tt.caller != nil; told != want {
				t.Errorf("the reason is told: %v, want %v: %q", told, want, got)
			}
		})
	}
}

// TestAuthorize_Gateway: at a gateway, callers are known by their addresses.
func TestAuthorize_Gateway(t *testing.T) {
	for _, tt := range []struct {
		name, block, forwarded string
		trusted                int
		want                   string
	}{
		{"the peer", "127.0.0.0/8", "", 0, "200"},
		{"another", "10.0.0.0/8", "", 0, "403"},
		{"a forged address", "10.0.0.0/8", "10.1.1.1", 0, "403"},
		{"what a proxy before says", "10.0.0.0/8", "10.1.1.1", 1, "200"},
		{"what the client has said to that one", "10.0.0.0/8", "10.1.1.1, 11.1.1.1", 1, "403"},
		{"two proxies before", "10.0.0.0/8", "12.1.1.1, 10.1.1.1, 11.1.1.1", 2, "200"},
		{"nonsense", "10.0.0.0/8", "10.1.1.1x", 1, "403"},
		{"with a port", "10.0.0.0/8", "10.1.1.1:5000", 1, "200"},
		{"in two lines", "10.0.0.0/8", "10.1.1.1\r\nX-Forwarded-For: 11.1.1.1", 1, "403"},
		{"in two lines, by two proxies", "10.0.0.0/8", "12.1.1.1, 10.1.1.1\r\nX-Forwarded-For: 11.1.1.1", 2, "200"},
		{"in two lines, and fewer than proxies", "10.0.0.0/8", "10.1.1.1\r\nX-Forwarded-For: 11.1.1.1", 3, "200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			o := atEdge()
			o.NumTrustedProxies = tt.trusted
			gw := serve(t, o, edge("s.test")+"---\n"+entry("s.test", up.address)+
				authorization("istio-system", "edge", `selector: {matchLabels: {istio: ingressgateway}}, rules: [{from: [{source: {remoteIpBlocks: ["`+tt.block+`"]}}]}]`))
			request := "GET / HTTP/1.1\r\nHost: s.test\r\n"
			if tt.forwarded != "" {
				request += "X-Forwarded-For: " + tt.forwarded + "\r\n"
			}
			if got := exchangeRaw(t, gw.address("gateway:80"), request+"\r\n", whole(1)); status(got) != tt.want || strings.Contains(got, "x-isthmus") {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
}

// TestAuthorize_GatewayHeaders: at a gateway, policies do not see what a client says that
// only proxies may say.
func TestAuthorize_GatewayHeaders(t *testing.T) {
	for _, tt := range []struct {
		name, header string // "": none, and the policy looks at the gateway's own address
		trusted      int
		want         string
	}{
		{"of the client's own", "x-groups", 0, "200"},
		{"of a proxy before, and there is none", "x-forwarded-groups", 0, "403"},
		{"of a proxy before", "x-forwarded-groups", 1, "200"},
		{"its own address", "", 0, "200"},
		{"of proxies among themselves", "x-envoy-groups", 1, "403"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := atEdge()
			o.NumTrustedProxies = tt.trusted
			request, when := "GET / HTTP/1.1\r\nHost: s.test\r\n"+tt.header+": admins\r\n\r\n", `{key: "request.headers[`+tt.header+`]", values: [admins]}`
			if tt.header == "" {
				request, when = get("s.test"), "{key: destination.ip, values: [127.0.0.1]}"
			}
			gw := serve(t, o, edge("s.test")+"---\n"+entry("s.test", replying(t, okReply).address)+
				authorization("istio-system", "edge", `selector: {matchLabels: {istio: ingressgateway}}, rules: [{when: [`+when+`]}]`))
			if got := exchangeRaw(t, gw.address("gateway:80"), request, whole(1)); status(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
}

// TestAuthorize_Sidecar: at a sidecar, the client is who the calling proxy says, or
// where its application is.
func TestAuthorize_Sidecar(t *testing.T) {
	tr := newTrust(t)
	frontend := tr.identity("shop", "frontend")
	const callerAt = "127.0.0.2"
	for _, tt := range []struct {
		name, block, forwarded string
		secure                 bool
		want                   string
	}{
		{"who a gateway says", "10.0.0.0/8", "10.1.1.1", true, "200"},
		{"who a client has said to a gateway", "10.0.0.0/8", "10.1.1.1, 11.1.1.1", true, "403"},
		{"the caller's application", callerAt, "127.0.0.1", true, "200"},
		{"whom the caller's application speaks of", "10.0.0.0/8", "10.1.1.1, 127.0.0.1", true, "403"},
		{"nobody", callerAt, "", true, "200"},
		{"who somebody says in plain text", "10.0.0.0/8", "10.1.1.1", false, "403"},
		{"who speaks in plain text", callerAt, "10.1.1.1", false, "200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			callee := sidecarOfWeb(t, tr.identity("prod", "web"), replying(t, okReply).address,
				authorization("prod", "remote", `rules: [{from: [{source: {remoteIpBlocks: ["`+tt.block+`"]}}]}]`))
			d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(callerAt)}}
			c, err := d.Dial("tcp", callee.address("inbound"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if tt.secure {
				c = stdtls.Client(c, asCaller(frontend, ""))
			}
			request := "GET / HTTP/1.1\r\nHost: web.prod\r\n"
			if tt.forwarded != "" {
				request += "X-Forwarded-For: " + tt.forwarded + "\r\n"
			}
			if _, err := io.WriteString(c, request+"\r\n"); err != nil {
				t.Fatal(err)
			}
			if head, err := readHead(bufio.NewReader(c)); err != nil || status(head) != tt.want {
				t.Errorf("got %q, %v, want %s", head, err, tt.want)
			}
		})
	}
}

// TestAuthorize_Audit: the log has the requests that AUDIT policies fit, whatever
// becomes of them, and no others.
func TestAuthorize_Audit(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	var log words
	callee := sidecarOfWeb(t, web, replying(t, okReply).address,
		authorization("prod", "secrets", `action: AUDIT, rules: [{to: [{operation: {paths: ["/secret/*"]}}]}]`)+
			authorization("prod", "no", `action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]`))
	callee.log = slog.New(slog.NewTextHandler(&log, nil))
	config := asCaller(frontend, "")
	for _, request := range []string{"GET /open", "GET /secret/a", "POST /secret/b"} {
		overTLSAt(t, callee.address("inbound"), config, request+" HTTP/1.1\r\nHost: web.prod\r\nContent-Length: 0\r\n\r\n")
	}
	var got []string
	for line := range strings.Lines(log.String()) {
		if _, after, ok := strings.Cut(line, "msg=audited "); ok {
			got = append(got, strings.TrimSpace(peerOf.ReplaceAllString(after, "")))
		}
	}
	want := []string{
		`by="AuthorizationPolicy prod/secrets" listener=inbound identity=` + frontend.Identity().ID + ` method=GET path=/secret/a allowed=true`,
		`by="AuthorizationPolicy prod/secrets" listener=inbound identity=` + frontend.Identity().ID + ` method=POST path=/secret/b allowed=false`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

var peerOf = regexp.MustCompile(`peer=[^ ]+ `)
