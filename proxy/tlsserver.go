package proxy

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"isthmus/mesh"
	"isthmus/tls"
)

// tlsServer is a Gateway's server that terminates TLS: how it does so, and the
// hosts that are served behind it.
type tlsServer struct {
	*terminator
	key string // the same for the same server, in whatever snapshot

	// What follows TLS: requests for hosts, or, if hosts is nil, bytes that are
	// passed on.
	hosts *hostTable
	relay []*tcpRoute
}

// terminator is how a server terminates TLS. It lives as long as its settings, and
// with it the sessions that clients resume.
type terminator struct {
	settings *mesh.ServerTLS
	own      *tls.Own
	store    *tls.Store
	current  atomic.Pointer[serving]
	told     bool // that clients get no certificate; readCredentials alone looks
}

// newTLSServer makes a server of a port.
func newTLSServer(port uint32, s *mesh.GatewayServer, o *Options) *tlsServer {
	t := &tlsServer{terminator: &terminator{settings: s.Terminate, own: o.Identity, store: o.Credentials}}
	var hosts []string
	for _, h := range s.Hosts {
		hosts = append(hosts, h.Host)
	}
	same := *s.Terminate
	same.Source = mesh.Source{}
	t.key = fmt.Sprintf("%d %q %+v", port, hosts, same)
	return t
}

// keepTerminators takes over how servers terminate TLS that have not changed.
func (t *table) keepTerminators(old *table) {
	before := map[string]*terminator{}
	for _, s := range old.terminating {
		before[s.key] = s.terminator
	}
	for _, s := range t.terminating {
		if o := before[s.key]; o != nil {
			s.terminator = o
			delete(before, s.key) // one of two that are alike: each has sessions of its own
		}
	}
}

// readCredentials reads what servers and upstreams in use show, and whom they
// believe, so that it is known how that is before somebody asks for it. What is wrong
// with files the store tells, and this for whom there is no certificate at all.
func (t *table) readCredentials(upstreams []*upstream, log *slog.Logger) {
	for _, s := range t.terminating {
		_, err := s.serving()
		if err != nil && !s.told {
			log.Warn("there is no certificate for the clients of a Gateway's server: they get the alert internal_error", "server", s.settings.Source, "error", err)
		}
		s.told = err != nil
	}
	for _, u := range upstreams {
		if u.tls != nil {
			u.tls.clientConfig()
		}
	}
}

// serving is how clients are served with the credentials, or the identity, as they
// are.
type serving struct {
	credentials []*tls.Credential
	identity    *tls.Identity
	config      *stdtls.Config
}

// serving returns how a client is served. Credentials that have changed into
// something unusable leave the last good ones in force.
func (s *terminator) serving() (*serving, error) {
	if s.settings.Mesh {
		return s.servingMesh()
	}
	list, roots, err := s.credentials()
	if err != nil {
		return nil, err
	}
	now := append(slices.Clone(list), roots)
	if c := s.current.Load(); c != nil && slices.Equal(c.credentials, now) {
		return c, nil
	}
	c := &serving{credentials: now, config: s.makeConfig(list, roots)}
	s.current.Store(c)
	return c, nil
}

// servingMesh is serving of mode ISTIO_MUTUAL.
func (s *terminator) servingMesh() (*serving, error) {
	id := s.own.Identity()
	if id == nil {
		return nil, errors.New("this proxy has no certificate of its own, which mode ISTIO_MUTUAL shows: name one in certificates of the bootstrap file")
	}
	if c := s.current.Load(); c != nil && c.identity == id {
		return c, nil
	}
	config := id.Server().Clone()
	config.MinVersion, config.MaxVersion = max(s.settings.MinVersion, stdtls.VersionTLS12), s.settings.MaxVersion
	if s.settings.CipherSuites != nil {
		config.CipherSuites = s.settings.CipherSuites
	}
	verify := config.VerifyConnection
	config.VerifyConnection = func(state stdtls.ConnectionState) error {
		if err := verify(state); err != nil {
			return err
		}
		return s.settings.Admits(state.PeerCertificates[0])
	}
	c := &serving{identity: id, config: config}
	s.current.Store(c)
	return c, nil
}

// credentials returns what the server shows, and the one that has the roots it
// judges clients by.
func (s *terminator) credentials() (list []*tls.Credential, roots *tls.Credential, err error) {
	var files []tls.Files
	for _, f := range s.settings.Files {
		files = append(files, tls.Files(f))
	}
	for _, name := range s.settings.Credentials {
		f, err := s.store.Named(name)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	for _, f := range files {
		c, err := s.store.Get(f)
		if c == nil {
			return nil, nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, nil, errors.New("there is no certificate")
	}
	roots = list[0]
	if name := s.settings.RootsFrom; name != "" {
		f, err := s.store.Roots(name)
		if err != nil {
			return nil, nil, err
		}
		if roots, err = s.store.Get(f); roots == nil {
			return nil, nil, err
		}
	}
	if s.settings.ClientCerts != mesh.NoClientCerts && !s.settings.SkipVerify && roots.Roots == nil {
		return nil, nil, errors.New("there are no roots (ca.crt) to judge clients by")
	}
	return list, roots, nil
}

func (s *terminator) makeConfig(list []*tls.Credential, roots *tls.Credential) *stdtls.Config {
	t := s.settings
	c := &stdtls.Config{
		MinVersion:                  max(t.MinVersion, stdtls.VersionTLS12),
		MaxVersion:                  t.MaxVersion,
		CipherSuites:                t.CipherSuites,
		NextProtos:                  []string{tls.ALPNHTTP2, tls.ALPNHTTP1},
		DynamicRecordSizingDisabled: true, // a reply is one record, and one write, where it fits
		ClientCAs:                   roots.Roots,
	}
	if c.CipherSuites == nil {
		c.CipherSuites = tls.Suites()
	}
	for _, credential := range list {
		c.Certificates = append(c.Certificates, credential.Certificate)
	}
	switch {
	case t.ClientCerts == mesh.NoClientCerts:
		return c
	case t.SkipVerify && t.ClientCerts == mesh.NeedClientCerts:
		c.ClientAuth = stdtls.RequireAnyClientCert
	case t.SkipVerify:
		c.ClientAuth = stdtls.RequestClientCert
	case t.ClientCerts == mesh.NeedClientCerts:
		c.ClientAuth = stdtls.RequireAndVerifyClientCert
	default:
		c.ClientAuth = stdtls.VerifyClientCertIfGiven
	}
	c.VerifyConnection = func(state stdtls.ConnectionState) error { return s.verifyClient(&state, roots) }
	return c
}

// identityOf is who a client is that has shown a certificate: its SPIFFE ID. One
// of this mesh's trust domain has to be vouched for by the mesh's own roots: a
// gateway's roots for clients may be anybody's.
func (s *terminator) identityOf(state *stdtls.ConnectionState) string {
	if s.settings.Mesh {
		return tls.Peer(state)
	}
	id := s.own.Identity()
	peer := tls.Peer(state)
	if peer == "" || id == nil || s.settings.SkipVerify || id.Claims(peer) && !id.Vouches(state.PeerCertificates) {
		return ""
	}
	return peer
}

// admission is by what a client has been let in: the server that its name picks, what
// that one has served it with, and the mesh's roots as far as its identity hangs on
// them.
type admission struct {
	*terminator
	*serving
	own *tls.Identity
}

// vouchAdmission notes by what the client has been let in. The server may be another by
// the next snapshot, whose rules then hold for the connection, too.
func (c *conn) vouchAdmission(by admission) {
	current := func() (now admission) {
		g := c.proxy.table.Load().gateway(c.port)
		if g == nil || g.sni == nil {
			return now
		}
		r := g.sni.find(c.serverName, c)
		if r == nil || r.terminate == nil {
			return now
		}
		now.terminator = r.terminate.terminator
		if now.serving = now.terminator.current.Load(); now.serving == nil {
			now.serving, _ = now.terminator.serving() // the snapshot is that new
		}
		now.own = now.terminator.own.Identity()
		return now
	}
	vouch(c.stream, by, current, func(now admission, state stdtls.ConnectionState) error {
		if now.serving == nil {
			return errors.New("no server with a certificate has its name any more")
		}
		if err := now.admits(state); err != nil {
			return err
		}
		if now.identityOf(&state) != c.identity {
			return errors.New("the client's identity is nobody's any more")
		}
		return nil
	})
}

// admits judges a connection that is open as if it began now.
func (s *serving) admits(state stdtls.ConnectionState) error {
	c, shown := s.config, len(state.PeerCertificates) > 0
	switch {
	case state.Version < c.MinVersion, c.MaxVersion != 0 && state.Version > c.MaxVersion:
		return errors.New("its version of TLS is spoken no more")
	case state.Version < stdtls.VersionTLS13 && !slices.Contains(c.CipherSuites, state.CipherSuite):
		return errors.New("its cipher suite is spoken no more")
	case shown && c.ClientAuth == stdtls.NoClientCert:
		return errors.New("the client has shown a certificate, and nobody judges it any more")
	case !shown && (c.ClientAuth == stdtls.RequireAnyClientCert || c.ClientAuth == stdtls.RequireAndVerifyClientCert):
		return errors.New("the client has shown no certificate")
	case c.VerifyConnection == nil:
		return nil
	}
	state.DidResume = true // as who resumes a session is judged: anew
	return c.VerifyConnection(state)
}

// verifyClient judges a client's certificate beyond what crypto/tls does, and
// one that resumes a session anew: it may have expired, or its issuer may be
// trusted no longer.
func (s *terminator) verifyClient(state *stdtls.ConnectionState, roots *tls.Credential) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	leaf, chains := state.PeerCertificates[0], state.VerifiedChains
	if state.DidResume && !s.settings.SkipVerify {
		var err error
		chains, err = leaf.Verify(x509.VerifyOptions{Roots: roots.Roots, Intermediates: intermediates(state), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil {
			return err
		}
	}
	if err := roots.CheckRevoked(chains, time.Now()); err != nil {
		return fmt.Errorf("the client's certificate: %w", err)
	}
	return s.settings.Admits(leaf)
}
