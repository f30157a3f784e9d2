package proxy

import (
	"context"
	stdtls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"isthmus/explain"
	"isthmus/mesh"
	"isthmus/tls"
)

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
