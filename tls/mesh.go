package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"isthmus/mesh"
)

// What follows TLS between proxies, by ALPN: requests, or the bytes of a
// connection that is passed on (Istio: istio-http/1.1, istio-h2, istio).
const (
	ProtocolHTTP  = "istio-http/1.1"
	ProtocolHTTP2 = "istio-h2"
	ProtocolTCP   = "istio"
)

// What follows TLS elsewhere (RFC 7301 6, RFC 9113 3.1).
const (
	ALPNHTTP1 = "http/1.1"
	ALPNHTTP2 = "h2"
)

// IsHTTP2 reports whether a protocol, by ALPN, is HTTP/2.
func IsHTTP2(protocol string) bool { return protocol == ALPNHTTP2 || protocol == ProtocolHTTP2 }

// Suites are those of TLS 1.2 that are spoken where nobody chooses: forward
// secret, with authenticated encryption. Go would speak two with CBC as well.
func Suites() []uint16 {
	return []uint16{
		stdtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, stdtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		stdtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, stdtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		stdtls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, stdtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// Server returns the configuration for connections from other proxies: mTLS with
// this identity, for anybody whom its roots vouch for. It is the same at every
// call, so that sessions can be resumed; who resumes one is judged anew.
func (id *Identity) Server() *stdtls.Config {
	if c := id.server.Load(); c != nil {
		return c
	}
	c := &stdtls.Config{
		Certificates:                []stdtls.Certificate{id.Certificate},
		ClientAuth:                  stdtls.RequireAnyClientCert, // judged by VerifyConnection
		NextProtos:                  []string{ProtocolHTTP2, ProtocolHTTP, ProtocolTCP, ALPNHTTP2, ALPNHTTP1},
		MinVersion:                  stdtls.VersionTLS12,
		CipherSuites:                Suites(),
		DynamicRecordSizingDisabled: true, // a reply is one record, and one write, where it fits
		VerifyConnection: func(s stdtls.ConnectionState) error {
			_, err := id.verify(s.PeerCertificates)
			return err
		},
	}
	if !id.server.CompareAndSwap(nil, c) {
		return id.server.Load()
	}
	return c
}

// Peer returns the SPIFFE ID of the other side of a connection made with
// [Identity.Server] or a server configuration whose roots vouch for it; "" if it
// shows none. What only looks like one is none: nobody could say of which trust
// domain it is.
func Peer(s *stdtls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	id, err := SPIFFE(s.PeerCertificates[0])
	if err != nil {
		return ""
	}
	return id
}

// Expected says whom a callee may be. The zero value is anybody of the trust
// domains. Values are comparable.
type Expected struct {
	Names      string // of subjectAltNames, one of which it bears, between line ends; they decide alone
	Accounts   string // "namespace/account", likewise
	Namespaces string // likewise; where there are no Accounts
}

// ExpectedList makes a field of [Expected].
func ExpectedList(values ...string) string {
	values = slices.Clone(values)
	slices.Sort(values)
	return strings.Join(slices.Compact(values), "\n")
}

// check reports, by an error, whether a peer is one of them.
func (e Expected) check(leaf *x509.Certificate, peer string) error {
	if e.Names != "" {
		if !mesh.BearsOneOf(leaf, strings.Split(e.Names, "\n")) {
			return fmt.Errorf("the callee is %s, and bears none of subjectAltNames: %s", peer, strings.ReplaceAll(e.Names, "\n", ", "))
		}
		return nil
	}
	who, ok := mesh.ParseIdentity(peer)
	switch {
	case e.Accounts != "":
		if !ok || !slices.Contains(strings.Split(e.Accounts, "\n"), who.Namespace+"/"+who.ServiceAccount) {
			return fmt.Errorf("the callee is %s, and the service's accounts are %s", peer, strings.ReplaceAll(e.Accounts, "\n", ", "))
		}
	case e.Namespaces != "":
		if !ok || !slices.Contains(strings.Split(e.Namespaces, "\n"), who.Namespace) {
			return fmt.Errorf("the callee is %s, and the service is one of namespace %s", peer, strings.ReplaceAll(e.Namespaces, "\n", " or "))
		}
	}
	return nil
}

// Client returns a configuration for connections to another proxy: mTLS with
// this identity. name is sent as SNI, protocol is what follows. sessions, if not
// nil, are for this identity and this callee alone.
func (id *Identity) Client(name, protocol string, expected Expected, sessions stdtls.ClientSessionCache) *stdtls.Config {
	return &stdtls.Config{
		Certificates:                []stdtls.Certificate{id.Certificate},
		ServerName:                  name,
		NextProtos:                  []string{protocol},
		MinVersion:                  stdtls.VersionTLS12,
		CipherSuites:                Suites(),
		ClientSessionCache:          sessions,
		DynamicRecordSizingDisabled: true, // a request is one record, and one write, where it fits
		InsecureSkipVerify:          true, // names of hosts mean nothing here: VerifyConnection judges, resumed sessions too
		VerifyConnection: func(s stdtls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the callee shows no certificate")
			}
			peer, err := id.verify(s.PeerCertificates)
			if err != nil {
				return err
			}
			return expected.check(s.PeerCertificates[0], peer)
		},
	}
}
