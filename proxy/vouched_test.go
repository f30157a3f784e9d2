package proxy

import (
	"bufio"
	"context"
	stdtls "crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
	"isthmus/tls"
)

// renewed waits until an identity has been read anew after a change, and has the
// proxy look at its connections.
func renewed(t *testing.T, p *Proxy, own *tls.Own, change func()) {
	t.Helper()
	before := own.Identity()
	change()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go own.Follow(ctx, slog.New(slog.DiscardHandler)) // ends with ctx
	await(t, "the new identity", until(func() bool { return own.Identity() != before }))
	p.published <- struct{}{}
}

// dialMTLS opens a connection to a sidecar of web.
func dialMTLS(t *testing.T, p *Proxy, as *tls.Own, protocol string) *stdtls.Conn {
	t.Helper()
	config := as.Identity().Client(mesh.DestinationSNI(80, "", webHost), protocol, tls.Expected{}, nil)
	c, err := stdtls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", p.address("inbound"), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(40 * time.Second))
	return c
}

// TestVouched_Callers: when the roots have changed, the connections of callers whom
// none vouches for any more end: idle ones, and those with a request under way
// after its reply. Others stay.
func TestVouched_Callers(t *testing.T) {
	old, next := newTrust(t), newTrust(t)
	dir := t.TempDir()
	web := next.identityIn(dir, "prod", "web", old)
	leaving, staying := old.identityIn(t.TempDir(), "shop", "leaving", next), next.identity("shop", "staying")
	arrived, goOn := make(chan struct{}), make(chan struct{})
	application := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.HasPrefix(head, "GET /slow ") {
			close(arrived)
			<-goOn
		}
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	p := sidecarOfWeb(t, web, application.address, peerAuthentication("prod", "STRICT"))

	ask := func(c net.Conn, r *bufio.Reader, request string) string {
		t.Helper()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		head, err := readHead(r)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(r, make([]byte, len("ok")))
		return head
	}
	idle, busy, kept := dialMTLS(t, p, leaving, tls.ProtocolHTTP), dialMTLS(t, p, leaving, tls.ProtocolHTTP), dialMTLS(t, p, staying, tls.ProtocolHTTP)
	idleReader, busyReader, keptReader := bufio.NewReader(idle), bufio.NewReader(busy), bufio.NewReader(kept)
	if got := ask(idle, idleReader, get("x")); status(got) != "200" {
		t.Fatal(got)
	}
	if got := ask(kept, keptReader, get("x")); status(got) != "200" {
		t.Fatal(got)
	}
	var shared [2]*http.Client // of who leaves, and of who stays: over one connection each
	for i, who := range []*tls.Own{leaving, staying} {
		connections := make(chan net.Conn, 1)
		connections <- dialMTLS(t, p, who, tls.ProtocolHTTP2)
		tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-connections:
				return c, nil
			default:
				return nil, errors.New("the connection has ended")
			}
		}}
		tr.Protocols.SetUnencryptedHTTP2(true) // TLS is there already
		t.Cleanup(tr.CloseIdleConnections)
		shared[i] = &http.Client{Transport: tr, Timeout: 20 * time.Second}
	}
	askShared := func(c *http.Client) error {
		res, err := c.Get("http://x/")
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	for _, c := range shared {
		if err := askShared(c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-arrived

	renewed(t, p, web, func() { believe(t, dir, next) })
	if b, err := idleReader.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection: %d, %v, want its end", b, err)
	}
	await(t, "the end of the shared connection", until(func() bool { return askShared(shared[0]) != nil }))
	close(goOn)
	if head, err := readHead(busyReader); status(head) != "200" {
		t.Errorf("with a request under way: %q, %v", head, err)
	}
	io.ReadFull(busyReader, make([]byte, len("ok")))
	if b, err := busyReader.ReadByte(); err != io.EOF {
		t.Errorf("after its reply: %d, %v, want its end", b, err)
	}
	if got := ask(kept, keptReader, get("x")); status(got) != "200" || strings.Contains(got, "connection: close") {
		t.Errorf("who stays: %q", got)
	}
	if err := askShared(shared[1]); err != nil {
		t.Errorf("who stays, by HTTP/2: %v", err)
	}
}

// TestVouched_Callees: kept connections to a callee whom no root vouches for any
// more get no more requests.
func TestVouched_Callees(t *testing.T) {
	for _, protocol := range []mesh.Protocol{mesh.ProtocolHTTP, mesh.ProtocolHTTP2} {
		t.Run(protocol.String(), func(t *testing.T) {
			old, next := newTrust(t), newTrust(t)
			dir := t.TempDir()
			web, frontend := old.identityIn(t.TempDir(), "prod", "web", next), next.identityIn(dir, "shop", "frontend", old)
			application := replying(t, okReply)
			callee := sidecarOfWeb(t, web, application.address, peerAuthentication("prod", "STRICT"))
			way := webAt(callee, web.Identity().ID)
			way.Port.Protocol, way.Address = protocol, netip.MustParseAddrPort(callee.address("inbound"))
			caller := serve(t, proxyOf("shop", "frontend", frontend), "", way)
			for range 2 {
				if got := status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))); got != "200" {
					t.Fatalf("status %s", got)
				}
			}
			renewed(t, caller, frontend, func() { believe(t, dir, next) })
			await(t, "the end of the connection", until(func() bool {
				return status(exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))) == "503"
			}))
		})
	}
}

// TestVouched_Gateway: a client of a gateway loses the connection that is open when
// its root is gone.
func TestVouched_Gateway(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	i.credential("other")
	up := replying(t, okReply)
	p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(server("a.test", "mode: MUTUAL, credentialName: a"), "a.test"))
	c, err := stdtls.Dial("tcp", p.address("gateway:80"), &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a"), Certificates: []stdtls.Certificate{i.pair("a")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(40 * time.Second))
	r := bufio.NewReader(c)
	for range 2 { // looked at in between, it stays
		if _, err := io.WriteString(c, get("a.test")); err != nil {
			t.Fatal(err)
		}
		if head, err := readHead(r); status(head) != "200" {
			t.Fatalf("%q, %v", head, err)
		}
		io.ReadFull(r, make([]byte, len("ok")))
		p.published <- struct{}{}
	}
	// Another host of the server leaves the connection alone, and does not let it go.
	publish(t, p, entry("up.test", up.address)+secureGateway(server("a.test, b.test", "mode: MUTUAL, credentialName: a"), "a.test"))
	swept(p)
	roots, err := os.ReadFile(filepath.Join(i.dir, "other", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(i.dir, "a", "ca.crt"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { // ends with the connection
		_, err := r.ReadByte()
		ended <- err
	}()
	for tries := 0; ; tries++ { // the store believes what it has seen for a second
		p.published <- struct{}{}
		select {
		case err := <-ended:
			if err != io.EOF {
				t.Errorf("%v, want the end", err)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
		if tries > 600 {
			t.Fatal("the connection goes on")
		}
	}
}

// swept has the proxy look at its connections, and waits until it has.
func swept(p *Proxy) {
	for range 3 { // one may be under way, one waits, and the third has to wait for that
		p.published <- struct{}{}
	}
}

// TestVouched_Snapshots: what a new snapshot says of a gateway's server holds for the
// connections that are open as well. Those that it lets in as they are go on.
func TestVouched_Snapshots(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	i.credential("b", "a.test")
	const simple, mutual = "mode: SIMPLE, credentialName: a", "mode: MUTUAL, credentialName: a"
	for _, tt := range []struct {
		name          string
		before, after string // servers
		shows         bool   // the client a certificate
		version       uint16
		stays         bool
	}{
		{"nothing", server("a.test", mutual), server("a.test", mutual), true, 0, true},
		{"another host", server("a.test", mutual), server("a.test, b.test", mutual), true, 0, true},
		{"another host, SIMPLE", server("a.test", simple), server("a.test, b.test", simple), false, 0, true},
		{"another certificate", server("a.test", simple), server("a.test", "mode: SIMPLE, credentialName: b"), false, 0, true},
		{"other roots", server("a.test", mutual), server("a.test", "mode: MUTUAL, credentialName: b"), true, 0, false},
		{"no credential", server("a.test", simple), server("a.test", "mode: SIMPLE, credentialName: nosuch"), false, 0, false},
		{"SIMPLE to MUTUAL", server("a.test", simple), server("a.test", mutual), false, 0, false},
		{"SIMPLE to OPTIONAL_MUTUAL", server("a.test", simple), server("a.test", "mode: OPTIONAL_MUTUAL, credentialName: a"), false, 0, true},
		{"MUTUAL to OPTIONAL_MUTUAL", server("a.test", mutual), server("a.test", "mode: OPTIONAL_MUTUAL, credentialName: a"), true, 0, true},
		{"MUTUAL to SIMPLE", server("a.test", mutual), server("a.test", simple), true, 0, false},
		{"SIMPLE to ISTIO_MUTUAL", server("a.test", simple), server("a.test", "mode: ISTIO_MUTUAL"), false, 0, false},
		{"its name asked for", server("a.test", mutual), server("a.test", mutual+", subjectAltNames: [spiffe://a.test/ns/n/sa/a]"), true, 0, true},
		{"another name asked for", server("a.test", mutual), server("a.test", mutual+", subjectAltNames: [spiffe://a.test/ns/n/sa/b]"), true, 0, false},
		{"a sum of none asked for", server("a.test", mutual), server("a.test", mutual+", verifyCertificateHash: [\""+strings.Repeat("00", 32)+"\"]"), true, 0, false},
		{"a newer version", server("a.test", simple), server("a.test", simple+", minProtocolVersion: TLSV1_3"), false, stdtls.VersionTLS12, false},
		{"the same version", server("a.test", simple), server("a.test", simple+", minProtocolVersion: TLSV1_3"), false, stdtls.VersionTLS13, true},
		{"another suite", server("a.test", simple+", cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256]"), server("a.test", simple+", cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384]"), false, stdtls.VersionTLS12, false},
		{"a narrower server", server(`"*.test"`, simple), server(`"*.test"`, simple) + server("a.test", mutual), false, 0, false},
		{"none", server("a.test", simple), server("b.test", simple), false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := entry("up.test", replying(t, okReply).address)
			o := atEdge()
			o.Credentials, o.Identity = tls.NewStore(i.dir, nil), newTrust(t).identity("default", "edge")
			p := serve(t, o, up+secureGateway(tt.before, "a.test"))
			config := &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a"), MinVersion: tt.version, MaxVersion: tt.version}
			if tt.shows {
				config.Certificates = []stdtls.Certificate{i.pair("a")}
			}
			c, err := stdtls.Dial("tcp", p.address("gateway:80"), config)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			r := bufio.NewReader(c)
			ask := func() (string, error) {
				io.WriteString(c, get("a.test"))
				head, err := readHead(r)
				io.CopyN(io.Discard, r, int64(len("ok")))
				return head, err
			}
			if head, err := ask(); status(head) != "200" {
				t.Fatalf("%q, %v", head, err)
			}
			publish(t, p, up+secureGateway(tt.after, "a.test"))
			swept(p)
			head, err := ask()
			if stays := status(head) == "200" && !strings.Contains(head, "connection: close"); stays != tt.stays {
				t.Errorf("%q, %v, want it to stay: %v", head, err, tt.stays)
			}
		})
	}
}

// TestVouched_NoRequests: what the server of an open connection serves by a new
// snapshot may be no requests at all.
func TestVouched_NoRequests(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	const settings = "mode: SIMPLE, credentialName: a"
	up := entry("up.test", replying(t, okReply).address)
	p := serveSecure(t, i.dir, up+secureGateway(server("a.test", settings), "a.test"))
	c, err := stdtls.Dial("tcp", p.address("gateway:80"), &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	for _, want := range []string{"200", "404"} {
		io.WriteString(c, get("a.test"))
		if head, err := readHead(r); status(head) != want || strings.Contains(head, "connection: close") != (want == "404") {
			t.Fatalf("%q, %v, want %s", head, err, want)
		}
		io.CopyN(io.Discard, r, int64(len("ok")))
		publish(t, p, up+secureGateway("  - {port: {number: 80, name: tls, protocol: TLS}, hosts: [a.test], tls: {"+settings+"}}\n", "a.test"))
	}
}

// TestVouched_Upstream: a kept connection to a server that speaks TLS gets no more
// requests when its root is gone.
func TestVouched_Upstream(t *testing.T) {
	for name, more := range map[string]string{"by name": "", "by subjectAltNames": ", subjectAltNames: [up.test]"} {
		t.Run(name, func(t *testing.T) {
			i := issuer{t, t.TempDir()}
			i.credential("up", "up.test")
			i.credential("other")
			up := secureUpstream(t, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}})
			p := serve(t, Options{Credentials: tls.NewStore(i.dir, nil)}, entry("up.test", up.address)+overTLSRule("mode: SIMPLE, credentialName: up"+more))
			ask := func() string { return status(exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1))) }
			for range 3 { // looked at in between, it stays
				if got := ask(); got != "200" {
					t.Fatalf("status %s", got)
				}
				awaitIdle(p)
				p.published <- struct{}{}
			}
			up.mu.Lock()
			if up.conns != 1 {
				t.Errorf("%d connections, want one that is kept", up.conns)
			}
			up.mu.Unlock()
			roots, err := os.ReadFile(filepath.Join(i.dir, "other", "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(i.dir, "up", "ca.crt"), roots, 0o600); err != nil {
				t.Fatal(err)
			}
			await(t, "the end of the connection", until(func() bool {
				p.published <- struct{}{} // the store believes what it has seen for a second
				return ask() == "503"
			}))
		})
	}
}

// TestVouched_Told: the log says which caller was refused and why, and nothing of
// those who leave by themselves.
func TestVouched_Told(t *testing.T) {
	tr, foreign := newTrust(t), newTrust(t)
	var log words
	o := proxyOf("prod", "web", tr.identity("prod", "web"))
	o.Inbound, o.Outbound, o.Logger = "127.0.0.1:0", "127.0.0.1:0", slog.New(slog.NewTextHandler(&log, nil))
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	publish(t, p, webService("127.0.0.1:1"))
	call := func(as *tls.Own, believes *tls.Own) {
		t.Helper()
		config := asCaller(as, mesh.DestinationSNI(80, "", webHost))
		config.VerifyConnection = believes.Identity().Client("", "", tls.Expected{}, nil).VerifyConnection
		overTLSAt(t, p.address("inbound"), config, get(webHost))
		awaitGone(p)
	}
	web, stranger := tr.identity("shop", "web"), foreign.identity("shop", "web")
	call(web, stranger) // who would not have us
	if strings.Contains(log.String(), "refused") {
		t.Errorf("told of who left: %s", log.String())
	}
	call(stranger, web)
	if got := log.String(); !strings.Contains(got, "by=handshake") || !strings.Contains(got, "unknown authority") {
		t.Errorf("told %q, want why the stranger was refused", got)
	}
}
