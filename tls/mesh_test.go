package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// identityOf issues an identity and reads it.
func identityOf(t *testing.T, a *authority, uri string, aliases ...string) *Identity {
	t.Helper()
	dir := t.TempDir()
	cert, key := a.issue(t, dir, time.Now().Add(time.Hour), uri)
	id, err := Load(cert, key, write(t, dir, "ca.crt", pemOf("CERTIFICATE", a.cert.Raw)), aliases...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// handshake connects two configurations and returns what each side says, and
// the client's view. A byte goes back, so that a session can be resumed.
func handshake(t *testing.T, client, server *stdtls.Config) (state stdtls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	a.SetDeadline(time.Now().Add(10 * time.Second))
	b.SetDeadline(time.Now().Add(10 * time.Second))
	done := make(chan error)
	go func() {
		s := stdtls.Server(b, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		b.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, b)
		done <- err
	}()
	c := stdtls.Client(a, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		var p [1]byte
		_, clientErr = c.Read(p[:])
	}
	state = c.ConnectionState()
	a.Close()
	return state, clientErr, <-done
}

const caller = "spiffe://cluster.local/ns/frontend/sa/web"

// TestMesh_Callers: who is let in.
func TestMesh_Callers(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	server := identityOf(t, a, workload, "old.example")
	raw := func(end time.Time, uris ...string) *stdtls.Config {
		dir := t.TempDir()
		cert, key := a.issue(t, dir, end, uris...)
		pair, err := stdtls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return &stdtls.Config{InsecureSkipVerify: true, Certificates: []stdtls.Certificate{pair}}
	}
	later := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name   string
		client *stdtls.Config
		want   string // in the server's error; "": let in
	}{
		{"one of the trust domain", identityOf(t, a, caller).Client("x", ProtocolHTTP, Expected{}, nil), ""},
		{"one of an alias", raw(later, "spiffe://old.example/ns/a/sa/b"), ""},
		{"a foreign trust domain", raw(later, "spiffe://evil.example/ns/frontend/sa/web"), "foreign"},
		{"a foreign root", func() *stdtls.Config {
			c := identityOf(t, foreign, caller).Client("x", ProtocolHTTP, Expected{}, nil)
			c.VerifyConnection = nil
			return c
		}(), "unknown authority"},
		{"expired", raw(time.Now().Add(-time.Minute), caller), "expired"},
		{"two URI names", raw(later, caller, workload), "more than one URI"},
		{"no URI name", raw(later), "no URI"},
		{"a trust domain alone", raw(later, "spiffe://cluster.local"), "no workload"},
		{"a name with a NUL", raw(later, caller+"%00"), "path"},
		{"no certificate", &stdtls.Config{InsecureSkipVerify: true}, "client didn't provide a certificate"},
		{"TLS 1.2 with CBC", func() *stdtls.Config {
			c := raw(later, caller)
			c.MaxVersion, c.CipherSuites = stdtls.VersionTLS12, []uint16{stdtls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
			return c
		}(), "no cipher suite"},
		{"TLS 1.1", &stdtls.Config{InsecureSkipVerify: true, MinVersion: stdtls.VersionTLS11, MaxVersion: stdtls.VersionTLS11}, "unsupported versions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := handshake(t, tt.client, server.Server())
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestMesh_Callees: whom a caller speaks to.
func TestMesh_Callees(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	client := identityOf(t, a, caller)
	for _, tt := range []struct {
		name     string
		server   *Identity
		expected Expected
		want     string // in the client's error; "": spoken to
	}{
		{"anybody", identityOf(t, a, workload), Expected{}, ""},
		{"its namespace", identityOf(t, a, workload), Expected{Namespaces: ExpectedList("production")}, ""},
		{"one of two namespaces", identityOf(t, a, workload), Expected{Namespaces: ExpectedList("production", "istio-system")}, ""},
		{"another namespace", identityOf(t, a, workload), Expected{Namespaces: ExpectedList("staging")}, "namespace staging"},
		{"its account", identityOf(t, a, workload), Expected{Accounts: ExpectedList("production/user-service", "production/other"), Namespaces: "x"}, ""},
		{"another account", identityOf(t, a, workload), Expected{Accounts: ExpectedList("production/user")}, "accounts are production/user"},
		{"a name", identityOf(t, a, workload), Expected{Names: ExpectedList(workload), Accounts: "x/y"}, ""},
		{"another name", identityOf(t, a, workload), Expected{Names: ExpectedList(caller)}, "subjectAltNames"},
		{"an ID of no shape", identityOf(t, a, "spiffe://cluster.local/production"), Expected{Namespaces: "production"}, "namespace production"},
		{"a foreign root", identityOf(t, foreign, workload), Expected{}, "unknown authority"},
		{"a foreign trust domain", identityOf(t, a, "spiffe://evil.example/ns/production/sa/user-service"), Expected{}, "foreign"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := tt.server.Server().Clone()
			server.VerifyConnection = nil
			_, err, _ := handshake(t, client.Client("outbound_.80_._.x", ProtocolHTTP, tt.expected, nil), server)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestMesh_Suites: a callee is not offered what a caller would not be.
func TestMesh_Suites(t *testing.T) {
	a := newAuthority(t)
	server := identityOf(t, a, workload).Server().Clone()
	server.MaxVersion, server.CipherSuites = stdtls.VersionTLS12, []uint16{stdtls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	_, _, err := handshake(t, identityOf(t, a, caller).Client("x", ProtocolHTTP, Expected{}, nil), server)
	if err == nil || !strings.Contains(err.Error(), "no cipher suite") {
		t.Errorf("with CBC: %v", err)
	}
}

// TestExpectedList: whoever is expected is so in whatever order he is named.
func TestExpectedList(t *testing.T) {
	named := []string{"b", "a", "b"}
	if ExpectedList(named...) != ExpectedList("a", "b") || named[0] != "b" || ExpectedList() != "" {
		t.Errorf("%q, of %q", ExpectedList(named...), named)
	}
}

// TestMesh_Resumption: sessions are resumed, and judged anew.
func TestMesh_Resumption(t *testing.T) {
	a := newAuthority(t)
	server, client := identityOf(t, a, workload), identityOf(t, a, caller)
	sessions := stdtls.NewLRUClientSessionCache(1)
	config := func(e Expected) *stdtls.Config { return client.Client("x", ProtocolHTTP, e, sessions) }
	if s, err, _ := handshake(t, config(Expected{}), server.Server()); err != nil || s.DidResume {
		t.Fatalf("resumed %v, error %v", s.DidResume, err)
	}
	if s, err, _ := handshake(t, config(Expected{}), server.Server()); err != nil || !s.DidResume {
		t.Fatalf("resumed %v, error %v, want a resumption", s.DidResume, err)
	}
	if _, err, _ := handshake(t, config(Expected{Namespaces: "other"}), server.Server()); err == nil {
		t.Error("a callee who is no longer the right one was resumed")
	}
	if _, err, _ := handshake(t, config(Expected{}), server.Server()); err != nil {
		t.Fatal(err)
	}
	// The server's roots change under a session that it could still resume.
	server.roots = identityOf(t, newAuthority(t), workload).roots
	if s, _, err := handshake(t, config(Expected{}), server.Server()); err == nil {
		t.Errorf("a caller whom nobody vouches for any longer came in, resumed %v", s.DidResume)
	}
}

func TestPeer(t *testing.T) {
	a := newAuthority(t)
	s, err, _ := handshake(t, identityOf(t, a, caller).Client("x", ProtocolTCP, Expected{}, nil), identityOf(t, a, workload).Server())
	if err != nil || Peer(&s) != workload || s.NegotiatedProtocol != ProtocolTCP || s.Version != stdtls.VersionTLS13 {
		t.Errorf("peer %q, protocol %q, version %x, error %v", Peer(&s), s.NegotiatedProtocol, s.Version, err)
	}
	if Peer(&stdtls.ConnectionState{}) != "" {
		t.Error("a peer without a certificate")
	}
	for uri, want := range map[string]string{
		workload:       workload,
		workload + "/": "", workload + "%2F": "", workload + "?x": "", workload + "#x": "", "spiffe://cluster.local/ns//sa/x": "",
		"spiffe://cluster.local/ns/../sa/x": "", "spiffe://Cluster.local/ns/a/sa/b": "", "spiffe://u@cluster.local/ns/a/sa/b": "",
		"spiffe://cluster.local:1/ns/a/sa/b": "", "spiffe://cluster.local": "", "https://cluster.local/ns/a/sa/b": "",
	} {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		if got := Peer(&stdtls.ConnectionState{PeerCertificates: []*x509.Certificate{{URIs: []*url.URL{u}}}}); got != want {
			t.Errorf("%s: peer %q, want %q", uri, got, want)
		}
	}
}
