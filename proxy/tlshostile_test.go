package proxy

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
	"isthmus/tls"
)

// anySession is a cache of a client that offers its session to whomever it calls.
type anySession struct{ s *stdtls.ClientSessionState }

func (c *anySession) Get(string) (*stdtls.ClientSessionState, bool) { return c.s, c.s != nil }
func (c *anySession) Put(_ string, s *stdtls.ClientSessionState) {
	if s != nil {
		c.s = s
	}
}

// TestTLS_SessionOfAnotherServer: row 60: a session with a server that wants no
// certificate does not open one that does (CVE-2025-23419).
func TestTLS_SessionOfAnotherServer(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "open.test", "closed.test")
	up := replying(t, okReply)
	p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(
		server("open.test", "mode: SIMPLE, credentialName: a")+server("closed.test", "mode: MUTUAL, credentialName: a"), "open.test", "closed.test"))
	for _, version := range []uint16{stdtls.VersionTLS12, stdtls.VersionTLS13} {
		sessions := &anySession{}
		ask := func(host string) string {
			return overTLSTo(t, p, &stdtls.Config{ServerName: host, RootCAs: i.roots("a"), MinVersion: version, MaxVersion: version, ClientSessionCache: sessions}, get(host))
		}
		if got := ask("open.test"); status(got) != "200" || sessions.s == nil {
			t.Fatalf("got %q, session %v", got, sessions.s)
		}
		if got := ask("closed.test"); !strings.Contains(got, "remote error: tls: ") {
			t.Errorf("version %x: got %q, want an alert", version, got)
		}
	}
}

// TestTLS_IdentitiesShareNoConnection: row 64: one endpoint that is spoken to by two
// certificates is so over connections of their own, kept ones too.
func TestTLS_IdentitiesShareNoConnection(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "up.test")
	i.credential("me")
	i.credential("you")
	pool := i.roots("me", "you")
	up := secureUpstream(t, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}, ClientAuth: stdtls.RequireAndVerifyClientCert, ClientCAs: pool})
	subset := func(name string) string {
		return fmt.Sprintf("{name: %s, labels: {app: up}, trafficPolicy: {tls: {mode: MUTUAL, caCertificates: %[2]s/up/ca.crt, clientCertificate: %[2]s/%[1]s/tls.crt, privateKey: %[2]s/%[1]s/tls.key}}}", name, i.dir)
	}
	p := serve(t, Options{Credentials: tls.NewStore(i.dir, nil)}, strings.Replace(entry("up.test", up.address), "{address:", "{labels: {app: up}, address:", 1)+fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec: {host: up.test, subsets: [%s, %s]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [up.test]
  http:
  - {match: [{headers: {as: {exact: me}}}], route: [{destination: {host: up.test, subset: me}}]}
  - {route: [{destination: {host: up.test, subset: you}}]}
`, subset("me"), subset("you")))
	for range 3 {
		for _, who := range []string{"me", "you"} {
			got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: up.test\r\nas: "+who+"\r\n\r\n", whole(1))
			if !strings.Contains(got, "x-client: "+who+"\r\n") {
				t.Fatalf("as %s: %q", who, got)
			}
			awaitIdle(p)
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.conns != 2 {
		t.Errorf("%d connections, want one for each that is kept", up.conns)
	}
}

// TestTLS_SessionOfAnotherCertificate: row 60: who has got another certificate is
// known by that, and not by a session of before.
func TestTLS_SessionOfAnotherCertificate(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "up.test")
	i.credential("me")
	up := secureUpstream(t, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}, ClientAuth: stdtls.RequireAndVerifyClientCert, ClientCAs: i.roots("me")})
	file := func(name string) string { return i.dir + "/" + name }
	rule := overTLSRule("mode: MUTUAL, caCertificates: " + file("up/ca.crt") + ", clientCertificate: " + file("me/tls.crt") + ", privateKey: " + file("me/tls.key"))
	// Each connection carries one request, so that the next one is new.
	p := serve(t, Options{Credentials: tls.NewStore(i.dir, nil)}, entry("up.test", up.address)+
		strings.Replace(rule, "trafficPolicy: {", "trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}, ", 1))
	ask := func() string { return exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1)) }
	if got := ask(); !strings.Contains(got, "x-client: me\r\n") {
		t.Fatalf("at first: %q", got)
	}
	a, err := tls.OpenAuthority(file("me"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Issue(tls.Request{CommonName: "another", TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	await(t, "the other certificate", until(func() bool { return strings.Contains(ask(), "x-client: another\r\n") }))
}

// TestTLS_Renegotiation: row 62: nobody shakes hands twice. openssl does so on "R".
func TestTLS_Renegotiation(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl")
	}
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	p := serveSecure(t, i.dir, entry("up.test", replying(t, okReply).address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	client := exec.Command(openssl, "s_client", "-tls1_2", "-connect", p.address("gateway:80"), "-servername", "a.test")
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	client.Stderr = client.Stdout
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(20*time.Second, func() { client.Process.Kill() })
	defer kill.Stop()
	r, asked, told := bufio.NewReader(out), false, ""
	for {
		line, err := r.ReadString('\n')
		if told += line; err != nil {
			break
		}
		if !asked && strings.HasPrefix(line, "    Extended master secret:") { // the last of what it says of a new session
			asked = true
			io.WriteString(in, "R\n")
		}
	}
	client.Wait()
	if !asked || !strings.Contains(told, "RENEGOTIATING") || !strings.Contains(told, " alert ") {
		t.Errorf("openssl told\n%s", told)
	}
}

// TestTLS_KeyUpdateFlood: row 62: who wants new keys again and again and says
// nothing in between is cut off.
func TestTLS_KeyUpdateFlood(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	up := replying(t, okReply)
	p := serveSecure(t, i.dir, entry("up.test", up.address)+secureGateway(server("a.test", "mode: SIMPLE, credentialName: a"), "a.test"))
	for updates, want := range map[int]string{3: "200", 1000: ""} {
		raw, err := net.Dial("tcp", p.address("gateway:80"))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(20 * time.Second))
		var keys strings.Builder
		c := stdtls.Client(raw, &stdtls.Config{ServerName: "a.test", RootCAs: i.roots("a"), KeyLogWriter: &keys})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if suite := c.ConnectionState().CipherSuite; suite != stdtls.TLS_AES_128_GCM_SHA256 {
			t.Skipf("the suite is %x", suite)
		}
		w := &recordWriter{t: t, to: raw}
		for line := range strings.Lines(keys.String()) {
			if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
				w.secret, _ = hex.DecodeString(f[2])
			}
		}
		w.useSecret()
		for range updates {
			if w.write(22, []byte{24, 0, 0, 1, 0}) != nil { // KeyUpdate, update_not_requested
				break
			}
			w.secret = w.expand("traffic upd", sha256.Size)
			w.useSecret()
		}
		w.write(23, []byte(get("a.test")))
		head, _ := readHead(bufio.NewReader(c))
		if (head == "") != (want == "") || head != "" && status(head) != want {
			t.Errorf("after %d updates: %q, want %q", updates, head, want)
		}
	}
}

// recordWriter writes records of TLS 1.3 (RFC 8446 5) with AES-128-GCM and SHA-256.
type recordWriter struct {
	t      *testing.T
	to     io.Writer
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	n      uint64
}

// expand is HKDF-Expand-Label (RFC 8446 7.1).
func (w *recordWriter) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	out, err := hkdf.Expand(sha256.New, w.secret, string(append(append(info, label...), 0)), n)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *recordWriter) useSecret() {
	block, err := aes.NewCipher(w.expand("key", 16))
	if err == nil {
		w.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.iv, w.n = w.expand("iv", 12), 0
}

func (w *recordWriter) write(kind byte, data []byte) error {
	nonce := append([]byte(nil), w.iv...)
	for i := range 8 {
		nonce[4+i] ^= byte(w.n >> (8 * (7 - i)))
	}
	w.n++
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(data)+1+w.aead.Overhead()))
	_, err := w.to.Write(w.aead.Seal(head, nonce, append(append([]byte(nil), data...), kind), head))
	return err
}

// TestMTLS_HeavyChain: row 62: a chain that makes names dear to check is refused,
// within the time of a handshake (CVE-2025-58187).
func TestMTLS_HeavyChain(t *testing.T) {
	tr := newTrust(t)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), replying(t, okReply).address, "")
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	id, _ := url.Parse("spiffe://cluster.local/ns/shop/sa/frontend")
	var names, constraints []string
	for n := range 1500 {
		names = append(names, fmt.Sprintf("n%d.%s.test", n, strings.Repeat("x", 8)))
		constraints = append(constraints, fmt.Sprintf("c%d.%s.test", n, strings.Repeat("y", 8)))
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "heavy"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, ExcludedDNSDomains: constraints,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		URIs: []*url.URL{id}, DNSNames: names,
	}
	caKey, leafKey := key(), key()
	chain := stdtls.Certificate{PrivateKey: leafKey}
	for _, c := range []struct {
		template *x509.Certificate
		key      *ecdsa.PrivateKey
	}{{leaf, leafKey}, {ca, caKey}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, ca, c.key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		chain.Certificate = append(chain.Certificate, der)
	}
	got := overTLSAt(t, callee.address("inbound"), &stdtls.Config{
		InsecureSkipVerify: true, ServerName: mesh.DestinationSNI(80, "", webHost),
		GetClientCertificate: func(*stdtls.CertificateRequestInfo) (*stdtls.Certificate, error) { return &chain, nil },
	}, get(webHost))
	if !strings.Contains(got, "remote error: tls: ") {
		t.Errorf("got %q, want an alert", got)
	}
}
