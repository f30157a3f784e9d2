package proxy

import (
	"net/http"
	"strings"
	"testing"

	"isthmus/tls"
)

// TestOrigin_Policies: a policy that asks for a client's certificate by its header asks for
// that of the client, whatever it says.
func TestOrigin_Policies(t *testing.T) {
	tr := newTrust(t)
	frontend, gw := tr.identity("shop", "frontend"), tr.identity("istio-system", "gw")
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), application.address, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: certs, namespace: prod}
spec:
  rules:
  - to: [{operation: {paths: [/allow]}}]
    when: [{key: "request.headers[x-forwarded-client-cert]", values: ["*URI=`+frontend.Identity().ID+`"]}]
  - to: [{operation: {paths: [/before]}}]
    when: [{key: "request.headers[x-forwarded-client-cert]", values: ["By=a;URI=`+frontend.Identity().ID+`*"]}]
  - to: [{operation: {paths: [/proto]}}]
    when: [{key: "request.headers[x-forwarded-proto]", values: [http]}]
`)
	claims := "x-forwarded-client-cert: By=a;URI=" + frontend.Identity().ID + "\r\n"
	for _, tt := range []struct {
		name, path, fields string
		by                 *tls.Own // nil: in plain text
		want, cert         string   // cert: how the application is told, * being the client's own element
	}{
		{"who says so in plain text", "/allow", claims, nil, "403", ""},
		{"who has that certificate", "/allow", "", frontend, "200", "*"},
		{"who has another one, and says so", "/allow", claims, gw, "403", ""},
		{"what a proxy says of the one before", "/before", claims, gw, "200", "By=a;URI=" + frontend.Identity().ID + ",*"},
		{"the same in plain text", "/before", claims, nil, "403", ""},
		{"the scheme, of which nobody speaks", "/proto", "", nil, "200", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request, got := "GET "+tt.path+" HTTP/1.1\r\nHost: web.prod\r\n"+tt.fields+"\r\n", ""
			own := ""
			if tt.by == nil {
				got = exchangeRaw(t, callee.address("inbound"), request, whole(1))
			} else {
				own = tt.by.Identity().ID
				got = overTLSAt(t, callee.address("inbound"), asCaller(tt.by, ""), request)
			}
			if status(got) != tt.want {
				t.Fatalf("got %q, want %s", got, tt.want)
			}
			if tt.want != "200" {
				return
			}
			head := application.last()
			before, ours, ok := strings.Cut(tt.cert, "*")
			cert := field(head, "x-forwarded-client-cert")
			if !strings.HasPrefix(cert, before+ours) || ok && !strings.HasSuffix(cert, ";URI="+own) || strings.Count(cert, "By=") != strings.Count(tt.cert, "By=")+strings.Count(tt.cert, "*") ||
				strings.Count(head, "x-forwarded-client-cert:") != strings.Count(tt.cert, "*") {
				t.Errorf("the application got %q, want %q", head, tt.cert)
			}
			if field(head, "x-forwarded-proto") == "" || field(head, "x-request-id") == "" || strings.Count(head, "x-forwarded-for:") != 1 {
				t.Errorf("the application got %q", head)
			}
		})
	}
}

// TestOrigin_Routes: a route that asks for the scheme by its header asks how the client has
// come, at a gateway, and what a sidecar's application says, if it does.
func TestOrigin_Routes(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, atEdge(), anyHost+entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  gateways: [gw, mesh]
  http:
  - {match: [{headers: {x-forwarded-proto: {exact: http}}}], redirect: {scheme: https}}
  - {match: [{withoutHeaders: {x-envoy-internal: {}}}], route: [{destination: {host: s.test}}]}
`)
	for _, tt := range []struct{ name, listener, fields, want string }{
		{"nobody speaks of it", "gateway:80", "", "301"},
		{"a client says otherwise", "gateway:80", "X-Forwarded-Proto: https\r\nX-Envoy-Internal: true\r\n", "301"},
		{"an application says otherwise", "outbound", "X-Forwarded-Proto: https\r\n", "200"},
		{"an application says nothing", "outbound", "", "301"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exchangeRaw(t, p.address(tt.listener), "GET / HTTP/1.1\r\nHost: s.test\r\n"+tt.fields+"\r\n", whole(1)); status(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
}

// TestOrigin_Asked: an authorization service is told of where a request comes from what the
// upstream is told.
func TestOrigin_Asked(t *testing.T) {
	tr := newTrust(t)
	asked := make(chan http.Header, 1)
	service := newAuthorizer(t, func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header })
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), application.address, service.asked("prod", `timeout: 20s, includeRequestHeadersInCheck: ["x-*"]`)+
		authorization("prod", "nobody", `action: DENY, rules: [{when: [{key: "request.headers[x-forwarded-client-cert]", values: [nobody]}]}]`))
	words := []string{"x-forwarded-for", "x-forwarded-proto", "x-forwarded-client-cert", "x-request-id"}
	config := asCaller(tr.identity("shop", "frontend"), "")
	for _, fields := range []string{
		"", "x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\nx-request-id: 7\r\nx-forwarded-client-cert: By=a\r\n",
		"connection: x-forwarded-client-cert, x-forwarded-proto, x-request-id\r\n", // which are ours all the same
	} {
		request := "GET / HTTP/1.1\r\nHost: web.prod\r\n" + fields + "\r\n"
		checkTold(t, "plain text "+fields, exchangeRaw(t, callee.address("inbound"), request, whole(1)), <-asked, application.last(), words)
		checkTold(t, "mTLS "+fields, overTLSAt(t, callee.address("inbound"), config, request), <-asked, application.last(), words)
	}
}

func checkTold(t *testing.T, name, got string, asked http.Header, head string, words []string) {
	t.Helper()
	if status(got) != "200" {
		t.Fatalf("%s: %q", name, got)
	}
	for _, w := range words {
		if told := asked.Get(w); told != field(head, w) || told == "" && !strings.HasSuffix(w, "-cert") {
			t.Errorf("%s: the service got %s: %q, the application %q", name, w, told, field(head, w))
		}
	}
}

// TestOrigin_Addresses: at a gateway x-forwarded-for ends with the client's own address for all
// that go by it, whether the client sends one or not; at a sidecar it is as it came.
func TestOrigin_Addresses(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, atEdge(), anyHost+entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  gateways: [gw, mesh]
  http:
  - {match: [{uri: {prefix: /policy}}], route: [{destination: {host: s.test}}]}
  - {match: [{headers: {x-forwarded-for: {regex: "(.*, )?127.0.0.1"}}}], directResponse: {status: 201}}
  - {match: [{headers: {x-forwarded-for: {exact: 10.0.0.1}}}], directResponse: {status: 202}}
  - {match: [{withoutHeaders: {x-forwarded-for: {}}}], directResponse: {status: 203}}
`+authorization("istio-system", "no", `selector: {matchLabels: {istio: ingressgateway}}, action: DENY, rules: [{to: [{operation: {paths: [/policy]}}], when: [{key: "request.headers[x-forwarded-for]", values: ["*127.0.0.1"]}]}]`))
	for _, tt := range []struct{ name, listener, path, fields, want string }{
		{"nobody speaks of it", "gateway:80", "/", "", "201"},
		{"a client does", "gateway:80", "/", "X-Forwarded-For: 10.0.0.1\r\n", "201"},
		{"an application does", "outbound", "/", "X-Forwarded-For: 10.0.0.1\r\n", "202"},
		{"an application does not", "outbound", "/", "", "203"},
		{"a policy, nobody speaks of it", "gateway:80", "/policy", "", "403"},
		{"a policy, a client does", "gateway:80", "/policy", "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n", "403"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exchangeRaw(t, p.address(tt.listener), "GET "+tt.path+" HTTP/1.1\r\nHost: s.test\r\n"+tt.fields+"\r\n", whole(1)); status(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
	c := &conn{stream: &stream{}, client: &client{kind: gateway, peer: "192.0.2.1"}}
	for want, fields := range map[string][]string{
		"192.0.2.1": nil, "10.0.0.1, 192.0.2.1": {"10.0.0.1"}, "10.0.0.1,10.0.0.2, 192.0.2.1": {"10.0.0.1", "10.0.0.2"},
	} {
		x := &exchange{conn: c}
		for _, f := range fields {
			x.req.Add([]byte("X-Forwarded-For"), []byte(f))
		}
		hashed, ok := x.fieldToHash("x-forwarded-for")
		counted, made := x.headerOrPseudo(nil, "x-forwarded-for")
		if !ok || !made || string(hashed) != want || string(counted) != want {
			t.Errorf("%q: hashed by %q, counted by %q, want %q", fields, hashed, counted, want)
		}
	}
}

// TestOrigin_Counted: limits and hashes go by what the upstream will be told, not by what a client
// says.
func TestOrigin_Counted(t *testing.T) {
	c := &conn{stream: &stream{}, client: &client{proxy: &Proxy{}, kind: gateway, peer: "192.0.2.1", clientCert: []byte("URI=own")}}
	count := func(x *exchange, name string) ([]byte, bool) { return x.headerOrPseudo(nil, name) }
	for name, judge := range map[string]func(*exchange, string) ([]byte, bool){"limit": count, "hash": (*exchange).fieldToHash} {
		for field, want := range map[string]string{"x-forwarded-client-cert": "URI=own", "x-forwarded-proto": "http"} {
			x := &exchange{conn: c}
			x.req.Add([]byte("X-Forwarded-Client-Cert"), []byte("URI=another"))
			x.req.Add([]byte("X-Forwarded-Proto"), []byte("https"))
			if got, ok := judge(x, field); !ok || string(got) != want {
				t.Errorf("%s by %s: %q, %v, want %q", name, field, got, ok, want)
			}
			if got, ok := judge(x, "x-request-id"); !ok || string(got) != string(x.requestID()) {
				t.Errorf("%s by x-request-id: %q, %v, want %q", name, got, ok, x.requestID())
			}
		}
	}
}

// TestOrigin_SeveralProtos: where proxies before a gateway have each said by which protocol a
// request has come, the last is judged, since it goes on: the first may be the client's word.
func TestOrigin_SeveralProtos(t *testing.T) {
	up := replying(t, okReply)
	o := atEdge()
	o.NumTrustedProxies = 1
	p := serve(t, o, anyHost+entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  gateways: [gw]
  http:
  - {match: [{headers: {x-forwarded-proto: {exact: http}}}], redirect: {scheme: https}}
  - {route: [{destination: {host: s.test}}]}
`)
	for fields, want := range map[string]string{
		"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n": "301",
		"X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n": "200",
		"X-Forwarded-Proto: https\r\n":                            "200",
		"":                                                        "301",
	} {
		if got := exchangeRaw(t, p.address("gateway:80"), "GET / HTTP/1.1\r\nHost: s.test\r\n"+fields+"\r\n", whole(1)); status(got) != want {
			t.Errorf("%q: got %q, want %s", fields, got, want)
		}
	}
	for _, head := range up.seen() {
		if strings.Count(head, "x-forwarded-proto: ") != 1 || field(head, "x-forwarded-proto") != "https" {
			t.Errorf("the upstream got %q", head)
		}
	}
}
