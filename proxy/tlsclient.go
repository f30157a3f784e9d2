package proxy

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"isthmus/mesh"
	"isthmus/tls"
)

// tlsClient is how an upstream is spoken to over TLS (DestinationRule tls, modes
// SIMPLE and MUTUAL). It lives as long as its policy.
type tlsClient struct {
	settings *mesh.ClientTLS
	names    []string // of which the certificate bears one; none: the name is SNI
	store    *tls.Store
	host     string // of the upstream
	relay    bool   // bytes are passed on, of which nobody knows what they are

	current atomic.Pointer[clientConfig]
}

// clientConfig is the configuration for a credential as it is, with the sessions
// that new connections resume: with one of another credential, the server would
// take us for who we were.
type clientConfig struct {
	credential *tls.Credential // nil: there is none
	config     *stdtls.Config
}

// sessionsKept is for how many names an upstream's sessions are kept; it has one
// name, as a rule.
const sessionsKept = 8

// newTLSClient returns nil where the policy asks for no TLS. names are those of
// [subjectAltNames].
func newTLSClient(t *mesh.ClientTLS, names string, store *tls.Store, k upstreamKey) *tlsClient {
	if t == nil || t.Mode == mesh.TLSDisable {
		return nil
	}
	c := &tlsClient{settings: t, store: store, host: k.host, relay: k.relay}
	if names != "" {
		c.names = strings.Split(names, "\n")
	}
	return c
}

// clientConfig returns the configuration for a handshake.
func (c *tlsClient) clientConfig() (*clientConfig, error) {
	credential, err := c.credential()
	if err != nil {
		return nil, err
	}
	if now := c.current.Load(); now != nil && now.credential == credential {
		return now, nil
	}
	now := &clientConfig{credential, c.makeConfig(credential)}
	c.current.Store(now)
	return now, nil
}

// credential returns what is shown and believed; nil where the policy names
// nothing: nothing is shown, and the system's roots are believed.
func (c *tlsClient) credential() (*tls.Credential, error) {
	f := tls.Files(c.settings.Files)
	if name := c.settings.Credential; name != "" {
		var err error
		if f, err = c.store.Peer(name, c.settings.Mode == mesh.TLSMutual, !c.settings.SkipVerify); err != nil {
			return nil, err
		}
	}
	if f == (tls.Files{}) {
		return nil, nil
	}
	credential, err := c.store.Get(f)
	if credential == nil {
		return nil, err
	}
	if c.settings.Mode == mesh.TLSMutual && credential.Certificate.PrivateKey == nil {
		return nil, errors.New("there is no certificate to show")
	}
	return credential, nil
}

func (c *tlsClient) makeConfig(credential *tls.Credential) *stdtls.Config {
	t := c.settings
	config := &stdtls.Config{
		ServerName:                  t.SNI,
		MinVersion:                  stdtls.VersionTLS12,
		CipherSuites:                tls.Suites(),
		ClientSessionCache:          stdtls.NewLRUClientSessionCache(sessionsKept),
		DynamicRecordSizingDisabled: true, // a request is one record, and one write, where it fits
		InsecureSkipVerify:          t.SkipVerify || len(c.names) > 0,
	}
	if config.ServerName == "" {
		config.ServerName = c.host
	}
	if !c.relay {
		config.NextProtos = []string{tls.ALPNHTTP1}
	}
	if credential != nil {
		config.RootCAs = credential.Roots
		if credential.Certificate.PrivateKey != nil {
			config.Certificates = []stdtls.Certificate{credential.Certificate}
		}
	}
	if !t.SkipVerify {
		config.VerifyConnection = func(state stdtls.ConnectionState) error { return c.verifyServer(&state, credential) }
	}
	return config
}

// verifyServer judges a server's certificate beyond what crypto/tls does: by
// subjectAltNames in the place of the host's name, and by revocation lists.
func (c *tlsClient) verifyServer(state *stdtls.ConnectionState, credential *tls.Credential) error {
	chains := state.VerifiedChains
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	leaf := state.PeerCertificates[0]
	if len(c.names) > 0 {
		options := x509.VerifyOptions{Intermediates: intermediates(state)}
		if credential != nil {
			options.Roots = credential.Roots
		}
		var err error
		if chains, err = leaf.Verify(options); err != nil {
			return err
		}
		if !mesh.BearsOneOf(leaf, c.names) {
			return errors.New("the server's certificate bears none of subjectAltNames")
		}
	}
	if credential == nil {
		return nil
	}
	if err := credential.CheckRevoked(chains, time.Now()); err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	return nil
}

// shake makes a connection that was dialled speak TLS.
func (c *tlsClient) shake(s *stream, speaks headFormat, limit instant) error {
	by, err := c.clientConfig()
	if err != nil {
		return err
	}
	config := by.config
	if speaks == asHTTP2 {
		config = config.Clone() // once for a connection that many requests share
		config.NextProtos = []string{tls.ALPNHTTP2}
	}
	if err := s.connectTLS(config, limit); err != nil {
		return err
	}
	vouch(s, by, c.current.Load, c.verifyAnew)
	return nil
}

// verifyAnew judges a server as if it came now, by a credential that has changed.
func (c *tlsClient) verifyAnew(by *clientConfig, state stdtls.ConnectionState) error {
	switch {
	case c.settings.SkipVerify:
		return nil
	case len(c.names) == 0:
		options := x509.VerifyOptions{Roots: by.config.RootCAs, DNSName: by.config.ServerName, Intermediates: intermediates(&state)}
		var err error
		if state.VerifiedChains, err = state.PeerCertificates[0].Verify(options); err != nil {
			return err
		}
	}
	return c.verifyServer(&state, by.credential)
}

// intermediates are what a peer has sent besides its own certificate.
func intermediates(state *stdtls.ConnectionState) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		pool.AddCert(c)
	}
	return pool
}
