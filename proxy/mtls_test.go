package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
	"isthmus/tls"
)

// trust is a mesh's authority, in a folder.
type trust struct {
	t   testing.TB
	dir string
	a   *tls.Authority
}

func newTrust(t testing.TB) *trust {
	t.Helper()
	dir := t.TempDir()
	a, err := tls.InitAuthority(dir, mesh.LocalDomain)
	if err != nil {
		t.Fatal(err)
	}
	return &trust{t, dir, a}
}

// identity issues one and reads it.
func (tr *trust) identity(namespace, account string) *tls.Own {
	tr.t.Helper()
	return tr.identityIn(tr.t.TempDir(), namespace, account)
}

// identityIn does so in a folder.
func (tr *trust) identityIn(dir, namespace, account string, others ...*trust) *tls.Own {
	tr.t.Helper()
	id, err := tls.SPIFFEID(mesh.LocalDomain, namespace, account)
	if err != nil {
		tr.t.Fatal(err)
	}
	if _, err := tr.a.Issue(tls.Request{ID: id, TTL: time.Hour}); err != nil {
		tr.t.Fatal(err)
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		b, err := os.ReadFile(filepath.Join(tr.dir, name))
		if err != nil {
			tr.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			tr.t.Fatal(err)
		}
	}
	believe(tr.t, dir, append(others, tr)...)
	own, err := tls.NewOwn(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt"))
	if err != nil {
		tr.t.Fatal(err)
	}
	return own
}

// believe writes the roots of some authorities to ca.crt of a folder.
func believe(t testing.TB, dir string, list ...*trust) {
	t.Helper()
	var roots []byte
	for _, tr := range list {
		b, err := os.ReadFile(filepath.Join(tr.dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, b...)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
}

// proxyOf is the options of a proxy with an identity; nil: without one.
func proxyOf(namespace, app string, own *tls.Own) Options {
	n := testNode()
	n.Namespace, n.Labels = namespace, map[string]string{"app": app}
	if id := own.Identity(); id != nil {
		n.Identity = id.ID
	}
	return Options{Node: n, Identity: own}
}

// webService is a Service of namespace prod whose application is at an address.
func webService(application string) string {
	_, port, _ := net.SplitHostPort(application)
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: %s}]
---
`, port)
}

func peerAuthentication(namespace, mode string) string {
	return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: %s}
spec: {mtls: {mode: %s}}
---
`, namespace, mode)
}

// webAt is what gossip says of a sidecar of web.prod.
func webAt(p *Proxy, identity string) mesh.Endpoint {
	return mesh.Endpoint{
		Service: "web.prod", Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP}, Address: netip.MustParseAddrPort(p.address("inbound")),
		Cluster: "c2", Weight: 1, Via: true, Identity: identity, Source: mesh.SourceGossip,
	}
}

// asCaller has somebody call another proxy, whoever that is. server is the name it asks
// for; "": none.
func asCaller(own *tls.Own, server string) *stdtls.Config {
	return own.Identity().Client(server, tls.ProtocolHTTP, tls.Expected{}, nil)
}

func sidecarOfWeb(t testing.TB, own *tls.Own, application, yaml string) *Proxy {
	t.Helper()
	o := proxyOf("prod", "web", own)
	o.Inbound = "127.0.0.1:0"
	return serve(t, o, webService(application)+yaml)
}

const webHost = "web.prod.global"

// TestMTLS_WhoSpeaksHow: plain text or mTLS between two proxies, as their
// certificates and policies have it.
func TestMTLS_WhoSpeaksHow(t *testing.T) {
	tr, foreign := newTrust(t), newTrust(t)
	frontend, web := tr.identity("shop", "frontend"), tr.identity("prod", "web")
	none := (*tls.Own)(nil)
	rule := func(tls string) string {
		return `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tls, namespace: shop}
spec: {host: "*.global", trafficPolicy: {tls: ` + tls + `}}
---
`
	}
	const (
		plain  = "plain"
		secure = "secure"
		fails  = "503"
	)
	for _, tt := range []struct {
		name           string
		caller, callee *tls.Own
		callerYAML     string
		calleeYAML     string
		hint           string // what gossip says; "-": nothing
		want           string
	}{
		{"both have certificates", frontend, web, "", "", "", secure},
		{"the caller has none", none, web, "", "", "", plain},
		{"the callee has none", frontend, none, "", "", "-", plain},
		{"neither has one", none, none, "", "", "-", plain},
		{"DISABLE", frontend, web, peerAuthentication("prod", "DISABLE"), peerAuthentication("prod", "DISABLE"), "", plain},
		{"DISABLE there, unknown here", frontend, web, "", peerAuthentication("prod", "DISABLE"), "", fails},
		{"STRICT", frontend, web, peerAuthentication("istio-system", "STRICT"), peerAuthentication("istio-system", "STRICT"), "", secure},
		{"STRICT, and gossip says nothing of a certificate", frontend, web, peerAuthentication("istio-system", "STRICT"), peerAuthentication("istio-system", "STRICT"), "-", secure},
		{"STRICT there, and gossip says nothing of a certificate", frontend, web, "", peerAuthentication("prod", "STRICT"), "-", fails},
		{"STRICT, and the caller has none", none, web, "", peerAuthentication("prod", "STRICT"), "", fails},
		{"STRICT here, and the callee has none", frontend, none, peerAuthentication("prod", "STRICT"), "", "-", fails},
		{"STRICT for another namespace", frontend, none, peerAuthentication("staging", "STRICT"), "", "-", plain},
		{"a foreign callee", frontend, foreign.identity("prod", "web"), "", "", "", fails},
		{"a callee of another namespace", frontend, tr.identity("staging", "web"), "", "", "", fails},
		{"a callee who lies in gossip", frontend, tr.identity("staging", "web"), "", "", "spiffe://cluster.local/ns/prod/sa/web", fails},
		{"a rule DISABLE", frontend, web, rule("{mode: DISABLE}"), "", "", plain},
		{"a rule ISTIO_MUTUAL", frontend, web, rule("{mode: ISTIO_MUTUAL}"), "", "-", secure},
		{"a rule ISTIO_MUTUAL, and the callee has no certificate", frontend, none, rule("{mode: ISTIO_MUTUAL}"), "", "-", fails},
		{"a rule ISTIO_MUTUAL, and the caller has no certificate", none, web, rule("{mode: ISTIO_MUTUAL}"), "", "", fails},
		{"a rule with the callee's name", frontend, web, rule(`{mode: ISTIO_MUTUAL, subjectAltNames: ["spiffe://cluster.local/ns/prod/sa/web"]}`), "", "", secure},
		{"a rule with another name", frontend, web, rule(`{mode: ISTIO_MUTUAL, subjectAltNames: ["spiffe://cluster.local/ns/prod/sa/admin"]}`), "", "", fails},
		{"a rule with a server name of its own", frontend, web, rule("{mode: ISTIO_MUTUAL, sni: mesh.example}"), "", "", secure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			application := capturing(t, okReply)
			callee := sidecarOfWeb(t, tt.callee, application.address, tt.calleeYAML)
			hint := tt.hint
			switch {
			case hint == "-":
				hint = ""
			case hint == "" && tt.callee.Identity() != nil:
				hint = tt.callee.Identity().ID
			}
			caller := serve(t, proxyOf("shop", "frontend", tt.caller), tt.callerYAML, webAt(callee, hint))
			got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1)))
			if tt.want == fails {
				if got != fails || len(application.seen()) > 0 {
					t.Fatalf("status %s, %d requests arrived; want a refusal", got, len(application.seen()))
				}
				return
			}
			if got != "200" {
				t.Fatalf("status %s", got)
			}
			cert := field(application.last(), "x-forwarded-client-cert")
			want := ""
			if tt.want == secure {
				want = "By=" + web.Identity().ID + ";Hash="
				if !strings.HasSuffix(cert, ";URI="+frontend.Identity().ID) {
					t.Errorf("x-forwarded-client-cert %q does not end with the caller", cert)
				}
			}
			if !strings.HasPrefix(cert, want) || want == "" && cert != "" {
				t.Errorf("x-forwarded-client-cert %q, want it to begin with %q", cert, want)
			}
			if d := field(application.last(), "x-isthmus-destination"); d != "" {
				t.Errorf("the application got x-isthmus-destination: %s", d)
			}
		})
	}
}

// field returns the value of a field of a head; "" if it has none.
func field(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return v
		}
	}
	return ""
}

// TestMTLS_EntryOfTwoLabels: a ServiceEntry's host that looks like the short name of a
// service (web.example: web of the namespace example) is none: who may be there, and
// which policies hold, the ServiceEntry's namespace says.
func TestMTLS_EntryOfTwoLabels(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	for _, host := range []string{"web.example", "web.three.example"} {
		entry := func(address string) string {
			ip, port, _ := net.SplitHostPort(address)
			return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: prod}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: %s, ports: {http: %s}}]
---
`, host, ip, port)
		}
		t.Run("whom a connection is for, "+host, func(t *testing.T) {
			callee := sidecarOfWeb(t, web, capturing(t, okReply).address, "")
			caller := serve(t, proxyOf("shop", "frontend", frontend), entry(callee.address("inbound"))+`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tls, namespace: shop}
spec: {host: `+host+`, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: mesh.example}}}
---
`)
			if got := status(exchangeRaw(t, caller.address("outbound"), get(host), whole(1))); got != "200" {
				t.Errorf("status %s of a callee of the ServiceEntry's namespace", got)
			}
			eventuallyCounted(t, caller, []string{"prod unknown 1"}, "destination_service_namespace", "destination_workload_namespace")
		})
		t.Run("STRICT, "+host, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			names := make(chan string, 10)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					tls := stdtls.Server(c, &stdtls.Config{GetConfigForClient: func(h *stdtls.ClientHelloInfo) (*stdtls.Config, error) {
						names <- h.ServerName
						return nil, io.EOF
					}})
					if tls.Handshake() != nil && len(names) == 0 {
						names <- "" // plain text
					}
					c.Close()
				}
			}()
			caller := serve(t, proxyOf("shop", "frontend", frontend), entry(l.Addr().String())+peerAuthentication("prod", "STRICT"))
			exchangeRaw(t, caller.address("outbound"), get(host), whole(1))
			if got, want := <-names, mesh.DestinationSNI(80, "", host); got != want {
				t.Errorf("it is spoken to as %q, want %q", got, want)
			}
		})
	}
}

// TestMTLS_OnePort: PERMISSIVE takes both, STRICT mTLS alone, and a port's mode
// wins over the workload's. Whom it refuses, the log tells.
func TestMTLS_OnePort(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	for _, tt := range []struct {
		name, yaml    string
		plain, secure bool
	}{
		{"nothing said", "", true, true},
		{"PERMISSIVE", peerAuthentication("prod", "PERMISSIVE"), true, true},
		{"STRICT", peerAuthentication("prod", "STRICT"), false, true},
		{"DISABLE", peerAuthentication("prod", "DISABLE"), true, false},
		{"STRICT, but for the port", strings.Replace(peerAuthentication("prod", "STRICT"), "spec: {", "spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {PORT: {mode: DISABLE}}, ", 1), true, false},
		{"PERMISSIVE, but for the port", strings.Replace(peerAuthentication("prod", "PERMISSIVE"), "spec: {", "spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {PORT: {mode: STRICT}}, ", 1), false, true},
		{"the namespace wins over the mesh", peerAuthentication("istio-system", "STRICT") + peerAuthentication("prod", "PERMISSIVE"), true, true},
		{"the mesh's holds", peerAuthentication("istio-system", "STRICT"), false, true},
		{"another namespace's does not", peerAuthentication("shop", "STRICT"), true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			application := capturing(t, okReply)
			_, port, _ := net.SplitHostPort(application.address)
			var log words
			o := proxyOf("prod", "web", web)
			o.Inbound, o.Logger = "127.0.0.1:0", slog.New(slog.NewTextHandler(&log, nil))
			callee := serve(t, o, webService(application.address)+strings.ReplaceAll(tt.yaml, "PORT", port))
			got := exchangeRaw(t, callee.address("inbound"), get(webHost), whole(1))
			if ok := strings.HasPrefix(got, "HTTP/1.1 200"); ok != tt.plain || !ok && got != "" {
				t.Errorf("in plain text: %q", got)
			}
			config := frontend.Identity().Client(mesh.DestinationSNI(80, "", webHost), tls.ProtocolHTTP, tls.Expected{Namespaces: "prod"}, nil)
			got = overTLSAt(t, callee.address("inbound"), config, get("whatever.example"))
			if ok := strings.HasPrefix(got, "HTTP/1.1 200"); ok != tt.secure {
				t.Errorf("by mTLS: %q", got)
			}
			for told, taken := range map[string]bool{"it came in plain text, and PeerAuthentication": tt.plain, "it came by mTLS, and PeerAuthentication": tt.secure} {
				if strings.Contains(log.String(), told) == taken {
					t.Errorf("the log has %q, and such a client is taken: %v", log.String(), taken)
				}
			}
		})
	}
}

// TestTellRefusal: of each that refuses, the log tells so many times a second: who comes in
// plain text, which anybody can, does not drown whom a policy refuses.
func TestTellRefusal(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	application := capturing(t, okReply)
	var log words
	o := proxyOf("prod", "web", web)
	o.Inbound, o.Logger = "127.0.0.1:0", slog.New(slog.NewTextHandler(&log, nil))
	callee := serve(t, o, webService(application.address)+peerAuthentication("prod", "STRICT")+
		authorization("prod", "nobody", ""))
	began := time.Now()
	for range 3 * refusalsTold {
		exchangeRaw(t, callee.address("inbound"), get(webHost), whole(1))
	}
	config := frontend.Identity().Client(mesh.DestinationSNI(80, "", webHost), tls.ProtocolHTTP, tls.Expected{Namespaces: "prod"}, nil)
	if got := overTLSAt(t, callee.address("inbound"), config, get("whatever.example")); !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("who has no right: %q", got)
	}
	plain, policy := strings.Count(log.String(), `msg=refused by="peer authentication"`), strings.Count(log.String(), "msg=refused by=policy")
	if most := refusalsTold + int(refusalsTold*time.Since(began).Seconds()) + 1; plain < 1 || plain > most || policy != 1 {
		t.Errorf("plain text is told %d times, at most %d wanted; the policy %d times, want 1", plain, most, policy)
	}
}

// overTLSAt sends a request and returns the reply's head, or the error.
func overTLSAt(t testing.TB, address string, config *stdtls.Config, request string) string {
	t.Helper()
	c, err := stdtls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", address, config)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return err.Error()
	}
	head, err := readHead(bufio.NewReader(c))
	if err != nil {
		return err.Error()
	}
	return head
}

// TestMTLS_WhomHelpersAre: who is asked by the proxy itself, an authorization service say, has
// to be whom the configuration expects, as a request's callee has.
func TestMTLS_WhomHelpersAre(t *testing.T) {
	tr := newTrust(t)
	frontend, web := tr.identity("shop", "frontend"), tr.identity("prod", "web")
	callee := sidecarOfWeb(t, web, replying(t, okReply).address, "")
	rule := func(tls string) string {
		return "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: prod}\nspec: {host: " + webHost + ", trafficPolicy: {tls: {" + tls + "}}}\n---\n"
	}
	own, other := web.Identity().ID, "spiffe://cluster.local/ns/prod/sa/other"
	at := webAt(callee, own)
	at.Cluster, at.Hostname = "c1", "web-0" // the caller's, which web.prod means
	for _, tt := range []struct {
		name, yaml string
		ok         bool
	}{
		{"its namespace", "", true},
		{"its name", rule("mode: ISTIO_MUTUAL, subjectAltNames: [" + own + "]"), true},
		{"another name", rule("mode: ISTIO_MUTUAL, subjectAltNames: [" + other + "]"), false},
		{"a name of other TLS", rule("mode: SIMPLE, subjectAltNames: [" + other + "]"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, proxyOf("shop", "frontend", frontend), webService("127.0.0.1:80")+tt.yaml, at)
			for _, host := range []string{webHost, "web.prod", "Web.prod.global.", "web-0.web.prod"} {
				c, err := p.Dial(t.Context(), "tcp", host+":80")
				if (err == nil) != tt.ok {
					t.Errorf("%s is dialled: %v, want it to go well: %v", host, err, tt.ok)
				}
				if err == nil {
					c.Close()
				}
			}
		})
	}
}

// TestMTLS_PortModes: a mode of the application's port holds for callers who know the
// workload by gossip, which says the service's port alone.
func TestMTLS_PortModes(t *testing.T) {
	tr := newTrust(t)
	frontend, web := tr.identity("shop", "frontend"), tr.identity("prod", "web")
	for _, tt := range []struct {
		name, mode, port string // port "": the application's
		secure           bool
	}{
		{"its port", "DISABLE", "", false}, {"another port", "DISABLE", "80", true}, {"a mode that both know", "PERMISSIVE", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			application := capturing(t, okReply)
			port := tt.port
			if port == "" {
				_, port, _ = strings.Cut(application.address, ":")
			}
			policy := `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: prod}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {` + port + ": {mode: " + tt.mode + "}}}\n---\n"
			callee := sidecarOfWeb(t, web, application.address, policy)
			at := webAt(callee, web.Identity().ID)
			at.Labels = map[string]string{"app": "web"}
			caller := serve(t, proxyOf("shop", "frontend", frontend), webService(application.address)+policy, at)
			if got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))); got != "200" {
				t.Fatalf("status %s", got)
			}
			if secure := field(application.last(), "x-forwarded-client-cert") != ""; secure != tt.secure {
				t.Errorf("by mTLS: %v, want %v", secure, tt.secure)
			}
		})
	}
}

// TestMTLS_ServerName: what a connection is for, its server name says, whatever
// is in the request.
func TestMTLS_ServerName(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, web, application.address, `
apiVersion: v1
kind: Service
metadata: {name: admin, namespace: prod}
spec:
  selector: {app: web}
  ports: [{name: http, port: 81, targetPort: 1}]
---
`)
	for _, tt := range []struct{ name, server, request, want string }{
		{"its host", mesh.DestinationSNI(80, "", webHost), get("admin.prod:81"), "HTTP/1.1 200"},
		{"its host, and a header", mesh.DestinationSNI(80, "", webHost), "GET / HTTP/1.1\r\nHost: a\r\nx-isthmus-destination: admin.prod:81\r\n\r\n", "HTTP/1.1 200"},
		{"a name without a meaning", "mesh.example", "GET / HTTP/1.1\r\nHost: a\r\nx-isthmus-destination: web.prod:80\r\n\r\n", "HTTP/1.1 200"},
		{"no name", "", get(webHost), "HTTP/1.1 200"},
		{"an unknown service", mesh.DestinationSNI(80, "", "nobody.prod.global"), get(webHost), "remote error: tls: unrecognized name"},
		{"an unknown port", mesh.DestinationSNI(8080, "", webHost), get(webHost), "remote error: tls: unrecognized name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := overTLSAt(t, callee.address("inbound"), asCaller(frontend, tt.server), tt.request)
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestMTLS_ClientCertHeader: what a proxy that has proved who it is says of
// others is sent on, what anybody else says is not.
func TestMTLS_ClientCertHeader(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, web, application.address, "")
	request := "GET / HTTP/1.1\r\nHost: web.prod\r\nX-Forwarded-Client-Cert: By=a;URI=spiffe://x/y\r\nx-forwarded-client-cert: By=b\r\n\r\n"
	exchangeRaw(t, callee.address("inbound"), request, whole(1))
	if got := field(application.last(), "x-forwarded-client-cert"); got != "" {
		t.Errorf("from a stranger: %q", got)
	}
	overTLSAt(t, callee.address("inbound"), asCaller(frontend, ""), request)
	got := field(application.last(), "x-forwarded-client-cert")
	if !strings.HasPrefix(got, "By=a;URI=spiffe://x/y,By=b,By="+web.Identity().ID+";Hash=") || !strings.HasSuffix(got, frontend.Identity().ID) {
		t.Errorf("from a proxy: %q", got)
	}
	if n := strings.Count(strings.ToLower(application.last()), "x-forwarded-client-cert:"); n != 1 {
		t.Errorf("%d fields", n)
	}
	caller := serve(t, proxyOf("shop", "frontend", frontend), "", webAt(callee, web.Identity().ID))
	exchangeRaw(t, caller.address("outbound"), strings.Replace(request, "web.prod", webHost, 1), whole(1))
	if got := field(application.last(), "x-forwarded-client-cert"); !strings.HasPrefix(got, "By="+web.Identity().ID) {
		t.Errorf("from the own application: %q", got)
	}
}

// TestMTLS_EndpointGetsCertificate: a caller whose endpoint gets a certificate
// stops speaking plain text to it, over connections that are open too.
func TestMTLS_EndpointGetsCertificate(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	application := capturing(t, okReply)
	callee := sidecarOfWeb(t, web, application.address, "")
	caller := serve(t, proxyOf("shop", "frontend", frontend), "", webAt(callee, ""))
	for i, hint := range []string{"", web.Identity().ID, ""} {
		if i > 0 {
			publish(t, caller, "", webAt(callee, hint))
		}
		for range 3 {
			if got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))); got != "200" {
				t.Fatalf("step %d: status %s", i, got)
			}
			if got := field(application.last(), "x-forwarded-client-cert"); (got != "") != (hint != "") {
				t.Errorf("step %d: x-forwarded-client-cert %q", i, got)
			}
		}
	}
}

// TestMTLS_Through: an east-west gateway passes mTLS on to the sidecar behind it,
// who sees the caller; to what speaks plain text it speaks for itself.
func TestMTLS_Through(t *testing.T) {
	tr := newTrust(t)
	web, frontend, gatewayID := tr.identity("prod", "web"), tr.identity("shop", "frontend"), tr.identity("istio-system", "eastwest")
	application := capturing(t, okReply)
	sidecar := sidecarOfWeb(t, web, application.address, peerAuthentication("istio-system", "STRICT"))
	behind := webAt(sidecar, web.Identity().ID)
	behind.Cluster = "c1" // the gateway's own
	o := proxyOf("istio-system", "eastwest", gatewayID)
	o.Inbound, o.Through = "127.0.0.1:0", true
	gw := serve(t, o, "", behind)

	way := webAt(gw, web.Identity().ID)
	way.Relayed = true
	caller := serve(t, proxyOf("shop", "frontend", frontend), "", way)
	for range 2 {
		if got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))); got != "200" {
			t.Fatalf("status %s", got)
		}
	}
	if got := field(application.last(), "x-forwarded-client-cert"); !strings.HasSuffix(got, ";URI="+frontend.Identity().ID) || strings.Contains(got, "eastwest") {
		t.Errorf("x-forwarded-client-cert %q, want the caller alone", got)
	}

	// Without a sidecar behind it, the gateway is the callee.
	plain := behind
	plain.Address, plain.Via, plain.Identity = netip.MustParseAddrPort(application.address), false, ""
	publish(t, gw, "", plain)
	way.Identity = gatewayID.Identity().ID
	publish(t, caller, "", way)
	if got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))); got != "200" {
		t.Errorf("to plain text behind the gateway: status %s", got)
	}
	// A sidecar of the root namespace that stands for nobody else is nobody.
	way.Relayed = false
	publish(t, caller, "", way)
	if got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))); got != "503" {
		t.Errorf("a sidecar of another namespace: status %s", got)
	}
}

// TestMTLS_ThroughLendsNothing: whoever comes to an east-west gateway, the sidecars
// behind it never see that one in the caller's place.
func TestMTLS_ThroughLendsNothing(t *testing.T) {
	tr := newTrust(t)
	web, frontend, gatewayID := tr.identity("prod", "web"), tr.identity("shop", "frontend"), tr.identity("istio-system", "eastwest")
	deny := authorization("prod", "frontend", "action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]}]")
	mutual := `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: prod}
spec: {host: web.prod.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
`
	strict := peerAuthentication("prod", "STRICT")
	const (
		unrecognized = "remote error: tls: unrecognized name"
		nobody       = "HTTP/1.1 503"
		named        = "GET / HTTP/1.1\r\nHost: a\r\nx-isthmus-destination: web.prod:80\r\n\r\n"
		probe        = "GET / HTTP/1.1\r\nHost: a\r\nx-isthmus-destination: web.prod:80\r\nx-isthmus-probe: 1\r\n\r\n"
		plain        = "plain text"
	)
	for _, tt := range []struct {
		name           string
		sidecar, yaml  string
		hint           string // what gossip says of the sidecar
		server         string // name; plain: there is no TLS
		request        string
		want           string
		arrives, knows bool // at the application, which is told who calls
	}{
		{"by its name", "", "", "id", mesh.DestinationSNI(80, "", webHost), get("a"), "HTTP/1.1 200", true, true},
		{"by its name, denied", deny, "", "id", mesh.DestinationSNI(80, "", webHost), get("a"), "HTTP/1.1 403", false, false},
		{"by its name, of which gossip says nothing", strict, strict, "", mesh.DestinationSNI(80, "", webHost), get("a"), "HTTP/1.1 200", true, true},
		{"a subset of nobody's", deny, "", "id", mesh.DestinationSNI(80, "nosuch", webHost), get("a"), unrecognized, false, false},
		{"a subset of nobody's, and STRICT", deny + strict, strict, "", mesh.DestinationSNI(80, "nosuch", webHost), get("a"), unrecognized, false, false},
		{"a name without a meaning", deny, "", "id", "mesh.example", named, nobody, false, false},
		{"no name", deny + strict, strict, "id", "", get(webHost), nobody, false, false},
		{"a probe", strict, strict, "id", "", probe, "HTTP/1.1 200", false, false},
		{"plain text", "", "", "id", plain, named, "HTTP/1.1 200", true, false},
		{"plain text, and STRICT at the sidecar alone", strict, "", "id", plain, named, nobody, false, false},
		{"plain text, and STRICT", strict, strict, "id", plain, named, "", false, false},
		{"plain text, and STRICT, by Host", strict, strict, "", plain, get("web.prod.svc.cluster.local"), "", false, false},
		{"plain text, and ISTIO_MUTUAL", "", mutual, "id", plain, named, "", false, false},
		{"plain text, and DISABLE", "", peerAuthentication("prod", "DISABLE"), "id", plain, named, "HTTP/1.1 200", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			application := capturing(t, okReply)
			sidecar := sidecarOfWeb(t, web, application.address, tt.sidecar)
			behind := webAt(sidecar, "")
			behind.Cluster = "c1"
			if tt.hint != "" {
				behind.Identity = web.Identity().ID
			}
			o := proxyOf("istio-system", "eastwest", gatewayID)
			o.Inbound, o.Through = "127.0.0.1:0", true
			gw := serve(t, o, tt.yaml, behind)
			var got string
			if tt.server == plain {
				got = exchangeRaw(t, gw.address("inbound"), tt.request, whole(1))
			} else {
				got = overTLSAt(t, gw.address("inbound"), asCaller(frontend, tt.server), tt.request)
			}
			if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if seen := application.seen(); len(seen) > 0 != tt.arrives {
				t.Fatalf("the application got %q, want something: %v", seen, tt.arrives)
			}
			if tt.arrives {
				cert := field(application.last(), "x-forwarded-client-cert")
				if strings.HasSuffix(cert, ";URI="+frontend.Identity().ID) != tt.knows || strings.Contains(cert, "eastwest") || !tt.knows && cert != "" {
					t.Errorf("x-forwarded-client-cert %q, want the caller: %v", cert, tt.knows)
				}
			}
		})
	}
}

// TestMTLS_ThroughGetsSidecar: connections for a service without sidecars end when
// it has one, to come anew and be passed on. What has no sidecar serves on as long.
func TestMTLS_ThroughGetsSidecar(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	old, young := capturing(t, okReply), capturing(t, okReply)
	bare := mesh.Endpoint{
		Service: "web.prod", Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP}, Address: netip.MustParseAddrPort(old.address),
		Cluster: "c1", Weight: 1, Source: mesh.SourceGossip,
	}
	o := proxyOf("istio-system", "eastwest", tr.identity("istio-system", "eastwest"))
	o.Inbound, o.Through = "127.0.0.1:0", true
	gw := serve(t, o, "", bare)
	behind := webAt(sidecarOfWeb(t, web, young.address, ""), web.Identity().ID)
	behind.Cluster = "c1"
	for _, protocol := range []mesh.Protocol{mesh.ProtocolHTTP, mesh.ProtocolHTTP2} {
		t.Run(protocol.String(), func(t *testing.T) {
			publish(t, gw, "", bare)
			way := webAt(gw, web.Identity().ID)
			way.Relayed, way.Port.Protocol = true, protocol
			caller := serve(t, proxyOf("shop", "frontend", frontend), "", way)
			ask := func() {
				t.Helper()
				if got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))); got != "200" {
					t.Fatalf("status %s", got)
				}
			}
			ask()
			publish(t, gw, "", bare, behind)
			before := len(young.seen())
			await(t, "a request at the sidecar", until(func() bool { ask(); return len(young.seen()) > before }))
		})
	}
}

// TestMTLS_Relay: connections that begin as TLS are passed on to the other
// proxy's application within mTLS, bytes as they come.
func TestMTLS_Relay(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	issued := issuer{t, t.TempDir()}
	issued.credential("app", "db.prod.global")
	l, err := stdtls.Listen("tcp", "127.0.0.1:0", &stdtls.Config{Certificates: []stdtls.Certificate{issued.pair("app")}})
	if err != nil {
		t.Fatal(err)
	}
	handEach(t, l, func(c net.Conn) { io.Copy(c, c) })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	o := proxyOf("prod", "db", web)
	o.Inbound = "127.0.0.1:0"
	callee := serve(t, o, `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: prod}
spec:
  selector: {app: db}
  ports: [{name: tls, port: 443, targetPort: `+port+`}]
---
`+peerAuthentication("prod", "STRICT"))
	e := webAt(callee, web.Identity().ID)
	e.Service, e.Port = "db.prod", mesh.Port{Number: 443, Name: "tls", Protocol: mesh.ProtocolTLS}
	caller := serve(t, proxyOf("shop", "frontend", frontend), "", e)
	c, err := stdtls.Dial("tcp", caller.address("outbound"), &stdtls.Config{ServerName: "db.prod.global", RootCAs: issued.roots("app")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	for _, text := range []string{"hello", strings.Repeat("x", 300_000)} {
		go io.WriteString(c, text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Fatalf("%d bytes came back otherwise: %v", len(text), err)
		}
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

// TestMTLS_HelloInPieces: a ClientHello may come a byte at a time.
func TestMTLS_HelloInPieces(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	callee := sidecarOfWeb(t, web, replying(t, okReply).address, "")
	raw, err := net.Dial("tcp", callee.address("inbound"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(30 * time.Second))
	c := stdtls.Client(&trickle{Conn: raw}, asCaller(frontend, mesh.DestinationSNI(80, "", webHost)))
	if _, err := io.WriteString(c, get(webHost)); err != nil {
		t.Fatal(err)
	}
	if head, err := readHead(bufio.NewReader(c)); err != nil || status(head) != "200" {
		t.Errorf("got %q, %v", head, err)
	}
}

// trickle sends byte by byte.
type trickle struct{ net.Conn }

func (c *trickle) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}
