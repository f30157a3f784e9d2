package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	stdtls "crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"isthmus/auth"
	"isthmus/explain"
	"isthmus/mesh"
	"isthmus/telemetry"
	"isthmus/tls"
)

// tokenIssuer is an OpenID provider with one key.
type tokenIssuer struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	down atomic.Bool
}

func newTokenIssuer(t testing.TB) *tokenIssuer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &tokenIssuer{key: k}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case i.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/.well-known/openid-configuration":
			json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
		default:
			point := k.PublicKey
			number := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
			raw, _ := point.Bytes()
			json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "x": number(raw[1:33]), "y": number(raw[33:])}}})
		}
	}))
	t.Cleanup(i.Close)
	return i
}

// tokensAtEdge is the same for a gateway.
func tokensAtEdge(i *tokenIssuer) string {
	return strings.NewReplacer("namespace: prod", "namespace: istio-system", "app: web", "istio: ingressgateway").Replace(tokensOf(i, "web"))
}

func (i *tokenIssuer) token(claims map[string]any) string {
	for name, v := range map[string]any{"iss": i.URL, "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()} {
		if _, ok := claims[name]; !ok {
			claims[name] = v
		}
	}
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]string{"alg": "ES256", "kid": "1"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		panic(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func tokensOf(i *tokenIssuer, app string) string {
	return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: prod}
spec:
  selector: {matchLabels: {app: %s}}
  jwtRules:
  - {issuer: %q, outputClaimToHeaders: [{header: x-user, claim: sub}]}
---
`, app, i.URL)
}

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
				got = overTLSAt(t, callee.address("inbound"), tt.caller.Identity().Client("", tls.ProtocolHTTP, tls.Expected{}, nil), request)
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

// TestAuthorize_KeysOutage: an issuer that never answered is a 503 with a reason;
// one that did may be away.
func TestAuthorize_KeysOutage(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	web := tr.identity("prod", "web")
	request := withToken("web.prod", i.token(map[string]any{}))
	i.down.Store(true)
	callee := sidecarOfWeb(t, web, replying(t, okReply).address, tokensOf(i, "web"))
	if got := exchangeRaw(t, callee.address("inbound"), request, whole(1)); status(got) != "503" || !strings.Contains(got, i.URL) {
		t.Errorf("no key set yet: %q", got)
	}
	if got := exchangeRaw(t, callee.address("inbound"), get("web.prod"), whole(1)); status(got) != "200" {
		t.Errorf("without a token: %q", got)
	}
	gw := serve(t, atEdge(), edge("web.prod")+"---\n"+entry("web.prod", replying(t, okReply).address)+tokensAtEdge(i))
	if got := exchangeRaw(t, gw.address("gateway:80"), request, whole(1)); status(got) != "503" || strings.Contains(got, i.URL) {
		t.Errorf("no key set yet, and a client from outside: %q", got)
	}
	i.down.Store(false)
	await(t, "the keys", until(func() bool {
		return status(exchangeRaw(t, callee.address("inbound"), request, whole(1))) == "200"
	}))
	i.down.Store(true)
	other := withToken("web.prod", i.token(map[string]any{"n": 2}))
	if got := exchangeRaw(t, callee.address("inbound"), other, whole(1)); status(got) != "200" {
		t.Errorf("after an outage: %q", got)
	}
}

// TestAuthorize_KeysOfTheMesh: an issuer behind another proxy, under a name that
// only the mesh knows, is asked by mTLS.
func TestAuthorize_KeysOfTheMesh(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	web := tr.identity("prod", "web")
	issuer := sidecarOfWeb(t, tr.identity("prod", "web"), strings.TrimPrefix(i.URL, "http://"), peerAuthentication("prod", "STRICT"))
	o := proxyOf("prod", "api", web)
	o.Inbound = "127.0.0.1:0"
	var p *Proxy
	published := make(chan struct{})
	o.Keys = auth.NewKeys(auth.KeysOptions{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		<-published
		return p.Dial(ctx, network, address)
	}})
	defer o.Keys.Close()
	application := replying(t, okReply)
	p = serve(t, o, strings.NewReplacer("name: web", "name: api", "app: web", "app: api").Replace(webService(application.address))+`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: prod}
spec: {jwtRules: [{issuer: "`+i.URL+`", jwksUri: "http://web.prod.global/keys"}]}
`, webAt(issuer, web.Identity().ID))
	close(published)
	request := withToken("api.prod", i.token(map[string]any{}))
	if got := exchangeRaw(t, p.address("inbound"), request, whole(1)); status(got) != "200" {
		t.Errorf("got %q", got)
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
				c = stdtls.Client(c, frontend.Identity().Client("", tls.ProtocolHTTP, tls.Expected{}, nil))
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

// TestAuthorize_Connection: policies hold for connections that are passed on, too.
func TestAuthorize_Connection(t *testing.T) {
	tr := newTrust(t)
	web := tr.identity("prod", "db")
	db := byteServer(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") })
	_, port, _ := net.SplitHostPort(db)
	o := proxyOf("prod", "db", web)
	o.Inbound = "127.0.0.1:0"
	callee := serve(t, o, `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: prod}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432, targetPort: `+port+`}]}
`+authorization("prod", "db", `rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ["`+port+`"]}}]}]`))
	for namespace, want := range map[string]bool{"shop": true, "ops": false} {
		config := tr.identity(namespace, "x").Identity().Client(mesh.DestinationSNI(5432, "", "db.prod.global"), tls.ProtocolTCP, tls.Expected{}, nil)
		if got := overTLSAt(t, callee.address("inbound"), config, "hello"); strings.HasPrefix(got, "HTTP/1.1 200") != want {
			t.Errorf("%s: %q", namespace, got)
		}
	}
}

// TestAuthorize_PassedRequests: a caller who says that bytes follow gets no way past
// what is asked of requests, in whatever protocol they come.
func TestAuthorize_PassedRequests(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	frontend := tr.identity("shop", "frontend")
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), application.address, tokensOf(i, "web"))
	config := frontend.Identity().Client(mesh.DestinationSNI(80, "", webHost), tls.ProtocolTCP, tls.Expected{}, nil)
	const forged = "By=spiffe://cluster.local/ns/prod/sa/web;URI=spiffe://cluster.local/ns/prod/sa/admin"
	check := func(got string) {
		t.Helper()
		if status(got) != "200" {
			t.Fatalf("got %q", got)
		}
		head := application.last()
		if u := field(head, "x-user"); u != "" {
			t.Errorf("the application got x-user: %s", u)
		}
		if c := field(head, "x-forwarded-client-cert"); !strings.HasSuffix(c, ";URI="+frontend.Identity().ID) {
			t.Errorf("the application got x-forwarded-client-cert: %s", c)
		}
	}
	check(overTLSAt(t, callee.address("inbound"), config, "GET / HTTP/1.1\r\nHost: web.prod\r\nx-user: admin\r\nx-forwarded-client-cert: "+forged+"\r\n\r\n"))
	if got := overTLSAt(t, callee.address("inbound"), config, withToken("web.prod", "nonsense")); status(got) != "401" {
		t.Errorf("with a token that is none: %q", got)
	}
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&stdtls.Dialer{Config: config}).DialContext(ctx, "tcp", callee.address("inbound"))
	}}
	transport.Protocols.SetUnencryptedHTTP2(true) // TLS is there already
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest("GET", "http://web.prod/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-user", "admin")
	req.Header.Set("x-forwarded-client-cert", forged)
	res, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	check(fmt.Sprintf("HTTP/1.1 %d ", res.StatusCode))
}

// TestAuthorize_GatewayConnection: likewise for those that a gateway passes on. What
// is refused, the destination hears nothing of.
func TestAuthorize_GatewayConnection(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "db.test")
	var conns atomic.Int32
	secure, plain := &stdtls.Config{Certificates: []stdtls.Certificate{certificate()}}, (*stdtls.Config)(nil)
	database := func(config *stdtls.Config) string {
		return byteServer(t, func(c net.Conn) {
			conns.Add(1)
			if config != nil {
				c = stdtls.Server(c, config)
			}
			io.WriteString(c, "hello")
		})
	}
	read := func(c net.Conn, err error) string {
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return toEnd(t, c)
	}
	inTLS := func(name string, shown ...stdtls.Certificate) func(string) string {
		return func(address string) string {
			c, err := stdtls.Dial("tcp", address, &stdtls.Config{ServerName: name, InsecureSkipVerify: true, Certificates: shown})
			if err != nil {
				return err.Error()
			}
			return read(c, nil)
		}
	}
	inTCP := func(address string) string { return read(net.Dial("tcp", address)) }
	const (
		tcp         = "port: {number: 80, name: tcp, protocol: TCP}"
		passthrough = "port: {number: 80, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}"
		mutual      = "port: {number: 80, name: tls, protocol: TLS}, tls: {mode: MUTUAL, credentialName: a}"
		denied      = "remote error: tls: access denied"
	)
	for _, tt := range []struct {
		name, server string
		upstream     *stdtls.Config
		dial         func(string) string
		policy, want string
	}{
		{"TCP, DENY the address", tcp, plain, inTCP, `action: DENY, rules: [{from: [{source: {ipBlocks: [127.0.0.1]}}]}]`, ""},
		{"TCP, DENY another", tcp, plain, inTCP, `action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]`, "hello"},
		{"TCP, ALLOW the address", tcp, plain, inTCP, `rules: [{from: [{source: {ipBlocks: [127.0.0.1]}}], to: [{operation: {ports: ["80"]}}]}]`, "hello"},
		{"TCP, ALLOW another", tcp, plain, inTCP, `rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]`, ""},
		{"TCP, ALLOW requests", tcp, plain, inTCP, `rules: [{to: [{operation: {methods: [GET]}}]}]`, ""},
		{"TCP, CUSTOM: nobody can be asked", tcp, plain, inTCP, `action: CUSTOM, provider: {name: login}, rules: [{}]`, ""},
		{"TCP, CUSTOM for others", tcp, plain, inTCP, `action: CUSTOM, provider: {name: login}, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]`, "hello"},
		{"PASSTHROUGH, CUSTOM", passthrough, secure, inTLS("db.test"), `action: CUSTOM, provider: {name: login}, rules: [{}]`, denied},
		{"PASSTHROUGH, DENY the name", passthrough, secure, inTLS("db.test"), `action: DENY, rules: [{when: [{key: connection.sni, values: [db.test]}]}]`, denied},
		{"PASSTHROUGH, DENY another", passthrough, secure, inTLS("db.test"), `action: DENY, rules: [{when: [{key: connection.sni, values: [x.test]}]}]`, "hello"},
		{"PASSTHROUGH, ALLOW the name", passthrough, secure, inTLS("db.test"), `rules: [{when: [{key: connection.sni, values: [db.test]}]}]`, "hello"},
		{"PASSTHROUGH, ALLOW nothing", passthrough, secure, inTLS("db.test"), ``, denied},
		{"TLS, ALLOW the client", mutual, plain, inTLS("db.test", i.pair("a")), `rules: [{from: [{source: {principals: [a.test/ns/n/sa/a]}}]}]`, "hello"},
		{"TLS, DENY others", mutual, plain, inTLS("db.test", i.pair("a")), `action: DENY, rules: [{from: [{source: {notPrincipals: [a.test/ns/n/sa/a]}}]}]`, "hello"},
		{"TLS, DENY but for another", mutual, plain, inTLS("db.test", i.pair("a")), `action: DENY, rules: [{from: [{source: {notPrincipals: [a.test/ns/n/sa/b]}}]}]`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conns.Store(0)
			o := atEdge()
			o.Credentials, o.Identity = tls.NewStore(i.dir, nil), newTrust(t).identity("default", "edge")
			gw := serve(t, o, passEntry("db.up", overTCPPort, database(tt.upstream))+`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec: {selector: {istio: ingressgateway}, servers: [{`+tt.server+`, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [db.test]
  gateways: [gw]
  tcp: [{route: [{destination: {host: db.up}}]}]
  tls: [{match: [{sniHosts: [db.test]}], route: [{destination: {host: db.up, port: {number: 5432}}}]}]
`+authorization("istio-system", "edge", "selector: {matchLabels: {istio: ingressgateway}}, "+tt.policy)+
				meshSettings("extensionProviders: [{name: login, envoyExtAuthzHttp: {service: 127.0.0.1, port: 1, timeout: 1s}}]"))
			if got := tt.dial(gw.address("gateway:80")); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if n, want := conns.Load(), int32(strings.Count(tt.want, "hello")); n != want {
				t.Errorf("%d connections arrived, want %d", n, want)
			}
			e, err := gw.Explain(explain.Question{Listener: "gateway:80", URL: "https://db.test/", Caller: "spiffe://a.test/ns/n/sa/a"})
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]string{true: explain.PassedOn, false: explain.Refused}[tt.want == "hello"]; e.Outcome != want {
				t.Errorf("explained as %s, %s, want %s", e.Outcome, e.Reason, want)
			}
		})
	}
}

// TestAuthorize_Custom: an authorization service decides, and changes what goes on.
func TestAuthorize_Custom(t *testing.T) {
	tr := newTrust(t)
	web := tr.identity("prod", "web")
	var asked atomic.Int32
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("x-ticket") == "good" {
			w.Header().Set("x-user", "alice")
			return
		}
		w.Header().Set("x-why", "no ticket")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "show a ticket to "+r.URL.Path)
	})
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, web, application.address, meshSettings(
		"pathNormalization: {normalization: MERGE_SLASHES}",
		"extensionProviders: ["+service.provider("tickets", "pathPrefix: /check, includeRequestHeadersInCheck: [x-ticket], headersToUpstreamOnAllow: [x-user], headersToDownstreamOnDeny: [x-why], timeout: 5s")+"]")+
		authorization("prod", "tickets", `action: CUSTOM, provider: {name: tickets}, rules: [{to: [{operation: {paths: ["/api/*"]}}]}]`)+
		authorization("prod", "no", `action: DENY, rules: [{to: [{operation: {paths: ["/api/never"]}}]}]`))
	for _, tt := range []struct{ name, path, ticket, want string }{
		{"with a ticket", "/api/x", "good", "200"},
		{"without one", "/api/x", "", "401"},
		{"where nobody asks", "/open", "", "200"},
		{"with a ticket, where it is forbidden", "/api/never", "good", "403"},
		{"without one, where it is forbidden", "/api/never", "", "401"},
		{"with a ticket, where it is forbidden, by two slashes", "//api//never", "good", "403"},
	} {
		request := "GET " + tt.path + " HTTP/1.1\r\nHost: web.prod\r\nx-user: mallory\r\nx-ticket: " + tt.ticket + "\r\n\r\n"
		got := exchangeRaw(t, callee.address("inbound"), request, whole(1))
		if status(got) != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
		if tt.want == "401" && (!strings.HasSuffix(got, "show a ticket to /check"+tt.path) || !strings.Contains(got, "\r\nx-why: no ticket\r\n")) {
			t.Errorf("%s: %q", tt.name, got)
		}
		if tt.name == "with a ticket" && field(application.last(), "x-user") != "alice" {
			t.Errorf("the application got %q", application.last())
		}
	}
	if n := asked.Load(); n != 5 {
		t.Errorf("asked %d times, want 5", n)
	}
	service.Close()
	if got := exchangeRaw(t, callee.address("inbound"), "GET /api/x HTTP/1.1\r\nHost: web.prod\r\nx-ticket: good\r\n\r\n", whole(1)); status(got) != "403" {
		t.Errorf("without an answer: %q", got)
	}
}

// TestAuthorize_CustomClientGone: a service that does not answer is asked for no longer than
// the client is there, and what holds without an answer does not hold then.
func TestAuthorize_CustomClientGone(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, p *Proxy, asked <-chan struct{}){
		"reset": func(t *testing.T, p *Proxy, asked <-chan struct{}) {
			c := dial(t, p.address("gateway:80"))
			c.send(get("s.test"))
			await(t, "the question", asked)
			c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close()
		},
		"closed": func(t *testing.T, p *Proxy, asked <-chan struct{}) {
			c := dial(t, p.address("gateway:80"))
			c.send(get("s.test"))
			await(t, "the question", asked)
			c.Close()
		},
		"a stream": func(t *testing.T, p *Proxy, asked <-chan struct{}) {
			c := dialFrames(t, p.address("gateway:80"))
			c.open(true, ":method", "GET", ":scheme", "http", ":authority", "s.test", ":path", "/")
			await(t, "the question", asked)
			c.f.WriteRSTStream(c.stream, xhttp2.ErrCodeCancel)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, told := make(chan struct{}, 1), make(chan struct{}, 1)
			service := newAuthorizer(t, func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-r.Context().Done()
				told <- struct{}{}
			})
			up := replying(t, okReply)
			p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test")+service.asked("istio-system", "failOpen: true"))
			leave(t, p, asked)
			await(t, "the service to be told", told)
			awaitCounted(t, p, "0 DC 1")
			if n := up.requests(); n != 0 {
				t.Errorf("the upstream got %d requests", n)
			}
		})
	}
}

// TestAuthorize_CustomAfterDeadline: a body that an authorization service is to be asked
// with is waited for, whatever deadline the request before had.
func TestAuthorize_CustomAfterDeadline(t *testing.T) {
	service := newAuthorizer(t, func(http.ResponseWriter, *http.Request) {})
	callee := sidecarOfWeb(t, newTrust(t).identity("prod", "web"), capturing(t, okReply).address, service.asked("prod", "timeout: 5s"))
	r := dialRaw(t, callee.address("inbound"))
	head := []string{"bare", ":method", "POST", ":scheme", "http", ":authority", "web.prod", ":path", "/"}
	r.ask(1, true, append(head, "x-envoy-expected-rq-timeout-ms", "500")...)
	if got := r.status(1); got != "200" {
		t.Fatal(got)
	}
	time.Sleep(510 * time.Millisecond)
	r.ask(3, false, append(head, "content-length", "4")...)
	r.out.Flush()
	time.Sleep(10 * time.Millisecond)
	r.WriteData(3, true, []byte("body"))
	if got := r.status(3); got != "200" {
		t.Error(got)
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
	config := frontend.Identity().Client("", tls.ProtocolHTTP, tls.Expected{}, nil)
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

// TestAuthorize_CustomBeforeToken: an authorization service is asked before the
// token is judged, sees it, and may bring it. Whether it is asked may depend on
// what the token says.
func TestAuthorize_CustomBeforeToken(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	good := i.token(map[string]any{"groups": []string{"users"}})
	var seen atomic.Value
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("authorization"))
		if c, err := r.Cookie("session"); err == nil && c.Value == "alice" {
			w.Header().Set("authorization", "Bearer "+good)
			return
		}
		w.Header().Set("location", "/login")
		w.WriteHeader(http.StatusFound)
	})
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), application.address, tokensOf(i, "web")+
		meshSettings("extensionProviders: ["+service.provider("login", "includeRequestHeadersInCheck: [authorization, cookie], headersToUpstreamOnAllow: [authorization], headersToDownstreamOnDeny: [location]")+"]")+
		authorization("prod", "login", `action: CUSTOM, provider: {name: login}, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]`)+
		authorization("prod", "users", `rules: [{when: [{key: "request.auth.claims[groups]", values: [users]}]}]`))
	for _, tt := range []struct{ name, fields, want, asked string }{
		{"without anything", "", "302", ""},
		{"a session", "Cookie: session=alice\r\n", "200", ""},
		{"an old token", "Authorization: Bearer nonsense\r\n", "302", "Bearer nonsense"},
		{"an old token and a session", "Authorization: Bearer nonsense\r\nCookie: session=alice\r\n", "200", "Bearer nonsense"},
		{"a good token", "Authorization: Bearer " + good + "\r\n", "200", "nobody"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen.Store("nobody")
			got := exchangeRaw(t, callee.address("inbound"), "GET / HTTP/1.1\r\nHost: web.prod\r\n"+tt.fields+"\r\n", whole(1))
			if status(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
			if asked := seen.Load(); asked != tt.asked {
				t.Errorf("the service was asked with %q, want %q", asked, tt.asked)
			}
			if head := application.last(); tt.want == "200" && (field(head, "x-user") != "alice" || strings.Contains(strings.ToLower(head), "authorization:")) {
				t.Errorf("the application got %q", head)
			}
		})
	}
}

// TestTallies: what a policy has matched is shown some time longer than it is there.
func TestTallies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all tallies
		policy := &mesh.AuthorizationPolicy{Meta: mesh.Meta{Namespace: "prod", Name: "p"}, Action: mesh.ActionDeny, DryRun: true}
		used := map[telemetry.Policy]bool{tallied(policy): true}
		all.of(policy).Matched.Add(1)
		time.Sleep(2 * telemetry.KeptFor)
		for _, tt := range []struct {
			inUse map[telemetry.Policy]bool
			after time.Duration
			want  int
		}{
			{used, 0, 1}, {nil, 0, 1}, {nil, telemetry.KeptFor, 1}, // not yet
			{used, time.Hour, 1}, // it is back
			{nil, time.Hour, 1}, {nil, telemetry.KeptFor + time.Second, 0},
		} {
			time.Sleep(tt.after)
			got := all.list(tt.inUse)
			if len(got) != tt.want {
				t.Errorf("%v: %v, want %d of them", tt, got, tt.want)
			}
			for k, n := range got {
				if k != (telemetry.Policy{Name: "prod/p", Action: "DENY", DryRun: true}) || n != 1 {
					t.Errorf("%+v has matched %d, want one", k, n)
				}
			}
		}
		if n := all.of(policy).Matched.Load(); n != 0 {
			t.Errorf("a new one begins at %d", n)
		}
	})
}
