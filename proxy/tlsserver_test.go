package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus/tls"
)

// issuer makes credentials in folders of a directory.
type issuer struct {
	t   *testing.T
	dir string
}

// credential makes one of a new authority, or of another one's: tls.crt, tls.key
// and ca.crt in dir/name.
func (i issuer) credential(name string, dns ...string) {
	i.t.Helper()
	folder := filepath.Join(i.dir, name)
	a, err := tls.OpenAuthority(folder)
	if err != nil {
		if a, err = tls.InitAuthority(folder, "a.test"); err != nil {
			i.t.Fatal(err)
		}
	}
	if _, err := a.Issue(tls.Request{CommonName: name, DNSNames: dns, URIs: []*url.URL{{Scheme: "spiffe", Host: "a.test", Path: "/ns/n/sa/" + name}}, TTL: time.Hour}); err != nil {
		i.t.Fatal(err)
	}
}

func (i issuer) pair(name string) stdtls.Certificate {
	i.t.Helper()
	c, err := stdtls.LoadX509KeyPair(filepath.Join(i.dir, name, "tls.crt"), filepath.Join(i.dir, name, "tls.key"))
	if err != nil {
		i.t.Fatal(err)
	}
	return c
}

func (i issuer) roots(names ...string) *x509.CertPool {
	i.t.Helper()
	pool := x509.NewCertPool()
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(i.dir, name, "ca.crt"))
		if err != nil {
			i.t.Fatal(err)
		}
		pool.AppendCertsFromPEM(b)
	}
	return pool
}

// secureGateway is a gateway on port 80 of servers in YAML, with a route for
// each host to an upstream of its name.
func secureGateway(servers string, hosts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n%s---\n", servers)
	for _, h := range hosts {
		fmt.Fprintf(&b, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec: {hosts: [%s], gateways: [gw], http: [{route: [{destination: {host: up.test}}]}]}\n---\n", h, h)
	}
	return b.String()
}

func server(hosts, settings string) string {
	return fmt.Sprintf("  - {port: {number: 80, name: https, protocol: HTTPS}, hosts: [%s], tls: {%s}}\n", hosts, settings)
}

// serveSecure runs a gateway with credentials of a directory.
func serveSecure(t *testing.T, dir, yaml string) *Proxy {
	o := atEdge()
	o.Credentials = tls.NewStore(dir, nil)
	return serve(t, o, yaml)
}

// overTLS sends a request over TLS and returns the reply, or why there is none.
func overTLSTo(t *testing.T, p *Proxy, config *stdtls.Config, request string) string {
	t.Helper()
	c, err := stdtls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", p.address("gateway:80"), config)
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

// TestTLS_Servers: the server name picks the certificate, and what may be asked
// for behind it.
func TestTLS_Servers(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	i.credential("w", "*.w.test")
	i.credential("admin", "admin.w.test")
	up := replying(t, okReply)
	p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(
		server("a.test", "mode: SIMPLE, credentialName: a")+server(`"*.w.test"`, "mode: SIMPLE, credentialName: w")+server("gone.test", "mode: SIMPLE, credentialName: gone")+
			server("admin.w.test", "mode: MUTUAL, credentialName: admin"),
		"a.test", "x.w.test", "admin.w.test"))
	for _, tt := range []struct{ name, sni, host, want string }{
		{"a", "a.test", "a.test", "HTTP/1.1 200 "},
		{"upper case", "A.TEST", "A.test", "HTTP/1.1 200 "},
		{"a wildcard", "x.w.test", "x.w.test", "HTTP/1.1 200 "},
		{"another host of the same server", "x.w.test", "y.w.test", "HTTP/1.1 404 "},
		{"a host of another server", "a.test", "x.w.test", "HTTP/1.1 421 "},
		{"a host of none", "a.test", "z.test", "HTTP/1.1 421 "},
		{"a host of a narrower server", "x.w.test", "admin.w.test", "HTTP/1.1 421 "},
		{"the same in upper case, with a port", "x.w.test", "ADMIN.w.test:443", "HTTP/1.1 421 "},
		{"a narrower server, and no certificate", "admin.w.test", "admin.w.test", "certificate required"},
		{"a name of none", "z.test", "z.test", "unrecognized name"},
		{"no certificate", "gone.test", "gone.test", "internal error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := overTLSTo(t, p, &stdtls.Config{ServerName: tt.sni, RootCAs: i.roots("a", "w", "admin")}, get(tt.host))
			if !strings.HasPrefix(got, tt.want) && !strings.HasSuffix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for _, head := range up.seen() {
		if !strings.Contains(head, "x-forwarded-proto: https\r\n") {
			t.Errorf("the upstream got %q", head)
		}
	}
}

// TestTLS_Clients: who has to show what.
func TestTLS_Clients(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	i.credential("foreign")
	own := i.pair("a") // of the same authority as the server's
	foreign := i.pair("foreign")
	for _, tt := range []struct {
		name, settings string
		show           *stdtls.Certificate
		ok             bool
	}{
		{"SIMPLE", "mode: SIMPLE, credentialName: a", nil, true},
		{"MUTUAL, own", "mode: MUTUAL, credentialName: a", &own, true},
		{"MUTUAL, none", "mode: MUTUAL, credentialName: a", nil, false},
		{"MUTUAL, foreign", "mode: MUTUAL, credentialName: a", &foreign, false},
		{"MUTUAL, roots of another credential", "mode: MUTUAL, credentialName: a, caCertCredentialName: foreign", &foreign, true},
		{"OPTIONAL_MUTUAL, own", "mode: OPTIONAL_MUTUAL, credentialName: a", &own, true},
		{"OPTIONAL_MUTUAL, none", "mode: OPTIONAL_MUTUAL, credentialName: a", nil, true},
		{"OPTIONAL_MUTUAL, foreign", "mode: OPTIONAL_MUTUAL, credentialName: a", &foreign, false},
		{"any", "mode: MUTUAL, credentialName: a, insecureSkipVerify: true", &foreign, true},
		{"a name", `mode: MUTUAL, credentialName: a, subjectAltNames: ["spiffe://a.test/ns/n/sa/a"]`, &own, true},
		{"another name", `mode: MUTUAL, credentialName: a, subjectAltNames: ["spiffe://a.test/ns/n/sa/b"]`, &own, false},
		{"a sum of none", "mode: MUTUAL, credentialName: a, verifyCertificateHash: [\"" + strings.Repeat("00", 32) + "\"]", &own, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(server("a.test", tt.settings), "a.test"))
			c := &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a"), ClientSessionCache: stdtls.NewLRUClientSessionCache(1)}
			if tt.show != nil {
				c.GetClientCertificate = func(*stdtls.CertificateRequestInfo) (*stdtls.Certificate, error) { return tt.show, nil }
			}
			for range 2 { // the second time, it resumes the session
				got := overTLSTo(t, p, c, "GET / HTTP/1.1\r\nHost: a.test\r\nx-forwarded-client-cert: URI=spiffe://a.test/ns/n/sa/forged\r\n\r\n")
				if (status(got) == "200") != tt.ok {
					t.Errorf("got %q, want a reply: %v", got, tt.ok)
				}
				if !tt.ok && !strings.HasPrefix(got, "remote error: tls: ") {
					t.Errorf("got %q, want to be told why", got)
				}
			}
			for _, head := range up.seen() {
				want := regexp.MustCompile(`x-forwarded-client-cert: Hash=[0-9a-f]{64};Subject="CN=\w+";URI=spiffe://a.test/ns/n/sa/\w+(;DNS=a.test)?\r\n`)
				if want.MatchString(head) != (tt.show != nil) || strings.Contains(head, "forged") {
					t.Errorf("the upstream got %q", head)
				}
			}
		})
	}
}

// words is what a logger has written.
type words struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// TestTLS_Snapshots: a new snapshot leaves clients their sessions; with other
// settings, they have to prove themselves anew. What cannot be used is told before
// a client comes.
func TestTLS_Snapshots(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	up := replying(t, okReply)
	yaml := func(settings string) string {
		return entry("up.test", up.address) + secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"+settings), "a.test")
	}
	o := atEdge()
	var log words
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o.Credentials = tls.NewStore(i.dir, o.Logger)
	p := serve(t, o, yaml(""))
	sessions := stdtls.NewLRUClientSessionCache(1)
	resumed := func() bool {
		t.Helper()
		c, err := stdtls.Dial("tcp", p.address("gateway:80"), &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a"), ClientSessionCache: sessions})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, get("a.test"))
		if head, err := readHead(bufio.NewReader(c)); err != nil || status(head) != "200" {
			t.Fatalf("got %q, %v", head, err)
		}
		return c.ConnectionState().DidResume
	}
	if resumed() {
		t.Fatal("a session out of nowhere")
	}
	publish(t, p, "# again\n"+yaml(""))
	if !resumed() {
		t.Error("a new snapshot has lost the session")
	}
	publish(t, p, yaml(", minProtocolVersion: TLSV1_3"))
	if resumed() {
		t.Error("resumed under other settings")
	}
	publish(t, p, yaml("")+"---\n"+strings.ReplaceAll(secureGateway(server("b.test", "mode: SIMPLE, credentialName: gone"), "b.test"), "name: gw", "name: gw2"))
	await(t, "a word of what is missing", until(func() bool { return strings.Contains(log.String(), "gone/tls.crt") }))
}

// TestTLS_NoCertificate: a Gateway's server without a certificate is told of once, with
// the reason, before a client comes.
func TestTLS_NoCertificate(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	for name, tt := range map[string]struct{ dir, settings, want string }{
		"no folder of credentials": {"", "mode: SIMPLE, credentialName: a", "names no credentialDir"},
		"no file":                  {i.dir, "mode: SIMPLE, credentialName: gone", "gone/tls.crt"},
		"no roots for clients":     {i.dir, "mode: MUTUAL, credentialName: a", "no roots"},
		"none of its own":          {i.dir, "mode: ISTIO_MUTUAL", "no certificate of its own"},
		"one":                      {i.dir, "mode: SIMPLE, credentialName: a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.want == "no roots" {
				os.Remove(filepath.Join(i.dir, "a", "ca.crt"))
			}
			o := atEdge()
			var log words
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			o.Credentials = tls.NewStore(tt.dir, nil)
			p := serve(t, o, secureGateway(server("a.test", tt.settings), "a.test"))
			told := func() int { return strings.Count(log.String(), "there is no certificate for the clients") }
			if tt.want != "" {
				await(t, "a word of it", until(func() bool { return strings.Contains(log.String(), tt.want) }))
			}
			publish(t, p, "# again\n"+secureGateway(server("a.test", tt.settings), "a.test"))
			for range 3 { // the first of which a sweep of the new table has been through then
				p.published <- struct{}{}
			}
			if want := min(1, len(tt.want)); told() != want {
				t.Errorf("told %d times, want %d: %s", told(), want, log.String())
			}
		})
	}
}

// TestTLS_Versions: TLS 1.2 is the floor, and the configuration may raise it.
func TestTLS_Versions(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	up := replying(t, okReply)
	for _, tt := range []struct {
		settings string
		version  uint16
		ok       bool
	}{
		{"", stdtls.VersionTLS11, false},
		{"", stdtls.VersionTLS12, true},
		{"", stdtls.VersionTLS13, true},
		{", minProtocolVersion: TLSV1_3", stdtls.VersionTLS12, false},
		{", maxProtocolVersion: TLSV1_2", stdtls.VersionTLS13, false},
		{", minProtocolVersion: TLSV1_0", stdtls.VersionTLS11, false},
		{", cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256]", stdtls.VersionTLS12, true},
		{", cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]", stdtls.VersionTLS12, false}, // the key is none of RSA
	} {
		p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"+tt.settings), "a.test"))
		got := overTLSTo(t, p, &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a"), MinVersion: tt.version, MaxVersion: tt.version}, get("a.test"))
		if (status(got) == "200") != tt.ok {
			t.Errorf("%q and version %x: %q, want a reply: %v", tt.settings, tt.version, got, tt.ok)
		}
	}
}

// TestTLS_Bodies: everything that HTTP does over a plain connection goes over
// TLS, too: pipelined, kept, large both ways, chunked, 100-continue, half-closed.
func TestTLS_Bodies(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		if strings.Contains(head, "expect: 100-continue") {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		body := skipBody(head, r)
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err == nil
	})
	p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	c, err := stdtls.Dial("tcp", p.address("gateway:80"), &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	r := bufio.NewReader(c)
	expect := func(what, body string) {
		t.Helper()
		head, err := readHead(r)
		if strings.HasPrefix(head, "HTTP/1.1 100 ") {
			head, err = readHead(r)
		}
		got := make([]byte, len(body))
		if err == nil {
			_, err = io.ReadFull(r, got)
		}
		if status(head) != "200" || err != nil || string(got) != body {
			t.Fatalf("%s: %q with %d bytes, %v", what, head, len(got), err)
		}
	}
	for _, n := range []int{0, 1, bufferSize - 1, bufferSize, bufferSize + 1, largeBufferSize, largeBufferSize + 1, 4 << 20} {
		body := strings.Repeat("0123456789abcde\n", n/16+1)[:n]
		head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n", n)
		for what, pieces := range map[string][]string{
			"at once": {head + "\r\n" + body}, "head and body": {head + "\r\n", body}, "continued": {head + "Expect: 100-continue\r\n\r\n", body},
			"chunked": {"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", chunkOf(body) + chunkEnd},
		} {
			var done sync.WaitGroup
			done.Go(func() {
				for _, piece := range pieces {
					io.WriteString(c, piece)
					time.Sleep(5 * time.Millisecond)
				}
			})
			expect(fmt.Sprint(what, " ", n), body)
			done.Wait()
		}
	}
	io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 3))
	for range 3 {
		expect("pipelined", "")
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	c.CloseWrite()
	expect("half-closed", "")
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("at the end: %v, want an end that TLS tells", err)
	}
}

func chunkOf(body string) string {
	if body == "" {
		return ""
	}
	return fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
}

// TestTLS_Rotation: a certificate that is replaced is shown to the next client,
// and one that cannot be read leaves the last good one.
func TestTLS_Rotation(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	p := serveSecure(t, i.dir, entry("up.test", replying(t, okReply).address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	shown := func() string {
		c, err := stdtls.Dial("tcp", p.address("gateway:80"), &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a")})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := shown()
	i.credential("a", "a.test")
	second := first
	await(t, "the new certificate", until(func() bool { second = shown(); return second != first }))
	if err := os.WriteFile(filepath.Join(i.dir, "a", "tls.crt"), []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // longer than the store trusts what it has seen
	if got := shown(); got != second {
		t.Errorf("shown %s after the file was spoilt, want the last good one", got)
	}
}

// TestTLS_Truncated: a client can tell a cut from an end.
func TestTLS_Truncated(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
		return false
	})
	p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	c, err := stdtls.Dial("tcp", p.address("gateway:80"), &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, get("a.test"))
	if got, err := io.ReadAll(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v after %q, want a broken end", err, got)
	}
}
