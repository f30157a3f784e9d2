package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"isthmus/tls"
)

// tlsUpstream is a server of HTTP over TLS, which answers with the names of who
// asked and how.
type tlsUpstream struct {
	address string

	mu    sync.Mutex // guards what is below
	conns int
	names []string // server names asked for
}

func secureUpstream(t *testing.T, config *stdtls.Config) *tlsUpstream {
	u := &tlsUpstream{}
	u.address = byteServer(t, func(raw net.Conn) {
		c := stdtls.Server(raw, config)
		if c.Handshake() != nil {
			return
		}
		state := c.ConnectionState()
		u.mu.Lock()
		u.conns++
		u.names = append(u.names, state.ServerName)
		u.mu.Unlock()
		client := "nobody"
		if len(state.PeerCertificates) > 0 {
			client = state.PeerCertificates[0].Subject.CommonName
		}
		r := bufio.NewReader(c)
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			body := skipBody(head, r)
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nx-client: %s\r\nContent-Length: %d\r\n\r\n%s", client, len(body), body); err != nil {
				return
			}
		}
	})
	return u
}

// overTLSRule asks for TLS to up.test.
func overTLSRule(settings string) string {
	return "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: up.test, trafficPolicy: {tls: {" + settings + "}}}\n---\n"
}

// TestTLS_Upstreams: whom an upstream has to be, and what it is shown.
func TestTLS_Upstreams(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "up.test", "other.test")
	i.credential("me")
	i.credential("stranger")
	file := func(name, file string) string { return filepath.Join(i.dir, name, file) }
	plain := &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}}
	mutual := &stdtls.Config{Certificates: plain.Certificates, ClientAuth: stdtls.RequireAndVerifyClientCert, ClientCAs: i.roots("me")}
	old := &stdtls.Config{Certificates: plain.Certificates, MaxVersion: stdtls.VersionTLS12}
	ca := "caCertificates: " + file("up", "ca.crt")
	pair := func(name string) string {
		return "clientCertificate: " + file(name, "tls.crt") + ", privateKey: " + file(name, "tls.key")
	}
	for _, tt := range []struct {
		name, settings string
		server         *stdtls.Config
		client, sni    string // client "": 503
	}{
		{"its roots", "mode: SIMPLE, " + ca, plain, "nobody", "up.test"},
		{"TLS 1.2", "mode: SIMPLE, " + ca, old, "nobody", "up.test"},
		{"the system's roots", "mode: SIMPLE", plain, "", ""},
		{"others' roots", "mode: SIMPLE, caCertificates: " + file("stranger", "ca.crt"), plain, "", ""},
		{"roots of a credential", "mode: SIMPLE, credentialName: up", plain, "nobody", "up.test"},
		{"a credential that is not there", "mode: SIMPLE, credentialName: gone", plain, "", ""},
		{"another name", "mode: SIMPLE, sni: other.test, " + ca, plain, "nobody", "other.test"},
		{"a name it has not", "mode: SIMPLE, sni: third.test, " + ca, plain, "", ""},
		{"subjectAltNames in the place of the name", `mode: SIMPLE, sni: third.test, subjectAltNames: ["spiffe://a.test/ns/n/sa/up"], ` + ca, plain, "nobody", "third.test"},
		{"none of subjectAltNames", `mode: SIMPLE, subjectAltNames: [third.test], ` + ca, plain, "", ""},
		{"subjectAltNames, others' roots", "mode: SIMPLE, subjectAltNames: [up.test], caCertificates: " + file("stranger", "ca.crt"), plain, "", ""},
		{"anybody", "mode: SIMPLE, insecureSkipVerify: true", plain, "nobody", "up.test"},
		{"MUTUAL", "mode: MUTUAL, " + ca + ", " + pair("me"), mutual, "me", "up.test"},
		{"MUTUAL, a stranger", "mode: MUTUAL, " + ca + ", " + pair("stranger"), mutual, "", ""},
		{"SIMPLE, and it wants to know who asks", "mode: SIMPLE, " + ca, mutual, "", ""},
		{"plain text", "mode: DISABLE", plain, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := secureUpstream(t, tt.server)
			o := Options{Credentials: tls.NewStore(i.dir, nil)}
			p := serve(t, o, entry("up.test", up.address)+overTLSRule(tt.settings))
			for range 3 {
				got := exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1))
				switch {
				case tt.client == "":
					if s := status(got); s != "503" && s != "502" {
						t.Errorf("got %q, want a refusal", got)
					}
				case status(got) != "200" || !strings.Contains(got, "x-client: "+tt.client+"\r\n"):
					t.Fatalf("got %q, want it served for %s", got, tt.client)
				default:
					awaitIdle(p) // so that the connection is back
				}
			}
			up.mu.Lock()
			defer up.mu.Unlock()
			if tt.client != "" && (up.conns != 1 || up.names[0] != tt.sni) {
				t.Errorf("%d connections for %q, want one that is kept, for %q", up.conns, up.names, tt.sni)
			}
		})
	}
}

// TestTLS_NamesOfEntries: whom a ServiceEntry says its upstream is, where the DestinationRule
// does not say it; and that another configuration says it of those who come anew.
func TestTLS_NamesOfEntries(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "up.test")
	ca := ", caCertificates: " + filepath.Join(i.dir, "up", "ca.crt")
	const own, others = `["spiffe://a.test/ns/n/sa/up"]`, `["spiffe://a.test/ns/n/sa/b"]`
	for _, tt := range []struct{ name, entry, settings, want string }{
		{"its own", own, "mode: SIMPLE", "200"},
		{"its own, and not the name", own, "mode: SIMPLE, sni: third.test", "200"},
		{"others', and the name", others, "mode: SIMPLE", "503"},
		{"others', and its own of the rule", others, "mode: SIMPLE, subjectAltNames: " + own, "200"},
		{"its own, and others' of the rule", own, "mode: SIMPLE, subjectAltNames: " + others, "503"},
		{"others', and anybody", others, "mode: SIMPLE, insecureSkipVerify: true", "200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := secureUpstream(t, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}})
			files := func(names string) string {
				e := strings.Replace(entry("up.test", up.address), "  resolution:", "  subjectAltNames: "+names+"\n  resolution:", 1)
				return e + overTLSRule(tt.settings+ca)
			}
			o := Options{Credentials: tls.NewStore(i.dir, nil)}
			p := serve(t, o, files(tt.entry))
			if got := exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1)); status(got) != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
			if tt.name != "its own" {
				return
			}
			publish(t, p, files(others))
			if got := exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1)); status(got) != "503" {
				t.Errorf("got %q when others were asked for, want a refusal", got)
			}
		})
	}
}

// TestTLS_HurriedHandshake: a deadline that comes before a handshake is over is no fault of
// the endpoint, which others may reach.
func TestTLS_HurriedHandshake(t *testing.T) {
	for name, pool := range map[string]string{"HTTP/1.1": "", "HTTP/2": ", connectionPool: {http: {h2UpgradePolicy: UPGRADE}}"} {
		t.Run(name, func(t *testing.T) {
			i := issuer{t, t.TempDir()}
			i.credential("up", "up.test")
			released := make(chan struct{})
			var first atomic.Bool // the handshake of the request; others are for finding out
			up := secureUpstream(t, &stdtls.Config{
				Certificates: []stdtls.Certificate{i.pair("up")},
				GetConfigForClient: func(*stdtls.ClientHelloInfo) (*stdtls.Config, error) {
					if !first.Swap(true) {
						<-released
					}
					return nil, nil
				},
			})
			defer close(released)
			p := serve(t, Options{}, entry("up.test", up.address)+
				strings.Replace(overTLSRule("mode: SIMPLE, caCertificates: "+filepath.Join(i.dir, "up", "ca.crt")), "}}}", "}"+pool+"}}", 1))
			got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: up.test\r\nx-envoy-upstream-rq-timeout-ms: 50\r\n\r\n", whole(1))
			if status(got) != "504" {
				t.Errorf("answered %q, want 504", got)
			}
			for _, h := range p.HostStates() {
				if !h.Healthy {
					t.Errorf("%s is out: %s", h.Address, h.Reason)
				}
			}
		})
	}
}

// TestTLS_HurriedTry: a try whose time is up before it has a connection is answered as any
// other whose time is up.
func TestTLS_HurriedTry(t *testing.T) {
	for name, pool := range map[string]string{"HTTP/1.1": "", "HTTP/2": ", connectionPool: {http: {h2UpgradePolicy: UPGRADE}}"} {
		t.Run(name, func(t *testing.T) {
			released := make(chan struct{})
			up := byteServer(t, func(net.Conn) { <-released }) // no handshake
			defer close(released)
			p := serve(t, Options{}, entry("s.test", up)+destinationRule("s.test", "tls: {mode: SIMPLE, insecureSkipVerify: true}"+pool)+
				virtualService("s.test", "{route: [{destination: {host: s.test}}], retries: {attempts: 1, perTryTimeout: 20ms}}"))
			got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
			if status(got) != "504" {
				t.Errorf("answered %q, want 504", got)
			}
			awaitCounted(t, p, "504 UT 1")
		})
	}
}

// TestTLS_UpstreamBodies: bodies of all sizes, on new connections and kept ones;
// session tickets that come meanwhile are nothing that was not asked for.
func TestTLS_UpstreamBodies(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "s.test")
	up := secureUpstream(t, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}})
	yaml := entry("s.test", up.address) + strings.Replace(overTLSRule("mode: SIMPLE, credentialName: up"), "up.test", "s.test", 1)
	for _, n := range []int{1, bufferSize, bufferSize + 1, largeBufferSize, largeBufferSize + 1, 4 << 20} {
		body := strings.Repeat("0123456789abcde\n", n/16+1)[:n]
		p := serve(t, Options{Credentials: tls.NewStore(i.dir, nil)}, yaml) // whose first connection is new
		c := dial(t, p.address("outbound"))
		for _, request := range []string{post(fmt.Sprint("Content-Length: ", n), body), chunked(chunkOf(body) + chunkEnd), post(fmt.Sprint("Content-Length: ", n), body)} {
			go io.WriteString(c, request) // ends when it is sent, or with the connection
			c.head("200")
			got := make([]byte, n)
			if _, err := io.ReadFull(c.r, got); err != nil || string(got) != body {
				t.Fatalf("%d bytes: %v, equal %v", n, err, string(got) == body)
			}
		}
	}
}

// TestTLS_PolicyChanges: a connection that was made in plain text is not used
// once the policy asks for TLS, nor the other way round.
func TestTLS_PolicyChanges(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "up.test")
	plain := record(t, okReply)
	p := serve(t, Options{Credentials: tls.NewStore(i.dir, nil)}, entry("up.test", plain.address))
	if got := exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1)); status(got) != "200" {
		t.Fatalf("got %q", got)
	}
	before := plain.seen()
	publish(t, p, entry("up.test", plain.address)+overTLSRule("mode: SIMPLE, credentialName: up}, connectionPool: {tcp: {connectTimeout: 0.2s}"))
	exchangeRaw(t, p.address("outbound"), "GET /secret HTTP/1.1\r\nHost: up.test\r\n\r\n", whole(1))
	if seen := strings.TrimPrefix(plain.seen(), before); strings.Contains(seen, "/secret") {
		t.Errorf("sent in plain text: %q", seen)
	}
	publish(t, p, entry("up.test", plain.address))
	if got := exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1)); status(got) != "200" {
		t.Errorf("in plain text again: %q", got)
	}
}

// TestTLS_Both: TLS on both sides of the proxy.
func TestTLS_Both(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "up.test")
	i.credential("a", "a.test")
	up := secureUpstream(t, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}})
	p := serveSecure(t, i.dir, entry("up.test", up.address)+overTLSRule("mode: SIMPLE, credentialName: up")+
		secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	body := strings.Repeat("x", 1<<20)
	c, err := stdtls.Dial("tcp", p.address("gateway:80"), &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n%s", len(body), body)) // ends when it is sent
	r := bufio.NewReader(c)
	head, err := readHead(r)
	got := make([]byte, len(body))
	if err == nil {
		_, err = io.ReadFull(r, got)
	}
	if status(head) != "200" || err != nil || string(got) != body {
		t.Errorf("%q, %v, equal %v", head, err, string(got) == body)
	}
}

// TestTLS_Relayed: over a connection that is passed on nobody knows what is spoken, so no
// protocol is offered to a server that speaks one alone (Istio: no ALPN but h2).
func TestTLS_Relayed(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "db.up")
	up := byteServer(t, func(raw net.Conn) {
		c := stdtls.Server(raw, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}, NextProtos: []string{"postgresql"}})
		if err := c.Handshake(); err != nil {
			t.Error(err)
			return
		}
		io.Copy(c, c)
	})
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+"---\n"+destinationRule("db.up", "tls: {mode: SIMPLE, insecureSkipVerify: true}"))
	c := dialTCP(t, p.address("gateway:80"))
	io.WriteString(c, "hello")
	c.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}
