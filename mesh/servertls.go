package mesh

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
)

// ServerTLS is how a Gateway's server terminates TLS (Istio's
// ServerTLSSettings, modes SIMPLE, MUTUAL, OPTIONAL_MUTUAL and ISTIO_MUTUAL).
type ServerTLS struct {
	Source      Source
	ClientCerts ClientCerts
	Mesh        bool // ISTIO_MUTUAL: with the proxy's own identity, for those whom its roots vouch for

	// Credentials are names of credentials; else Files are their files. There are
	// two at most, of different kinds of keys.
	Credentials []string
	Files       []TLSFiles
	RootsFrom   string // caCertCredentialName; "": ca.crt of the credential

	// Of a client's certificate: one of these names (URI, DNS, IP, e-mail), one of
	// these SHA-256 sums, of the public key's or the certificate's DER. Empty: any.
	SubjectAltNames []string
	KeySums         [][]byte
	CertificateSums [][]byte
	SkipVerify      bool // any certificate will do; the sums are still looked at

	MinVersion, MaxVersion uint16 // as in crypto/tls; 0: the default
	CipherSuites           []uint16
}

// ClientCerts says whether clients show certificates.
type ClientCerts uint8

// The choices of ClientCerts.
const (
	NoClientCerts       ClientCerts = iota // SIMPLE
	OptionalClientCerts                    // OPTIONAL_MUTUAL
	NeedClientCerts                        // MUTUAL
)

// TLSFiles are the files of a credential; Roots and Revoked may be "".
type TLSFiles struct{ Certificate, Key, Roots, Revoked string }

// Admits reports, by an error, whether a client's certificate is one of those
// that the server wants, whoever vouches for it.
func (s *ServerTLS) Admits(leaf *x509.Certificate) error {
	if len(s.SubjectAltNames) > 0 && !BearsOneOf(leaf, s.SubjectAltNames) {
		return errors.New("the client's certificate bears none of subjectAltNames")
	}
	if len(s.KeySums)+len(s.CertificateSums) == 0 {
		return nil
	}
	key, whole := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	is := func(sum [32]byte) func([]byte) bool { return func(b []byte) bool { return bytes.Equal(b, sum[:]) } }
	if !slices.ContainsFunc(s.KeySums, is(key)) && !slices.ContainsFunc(s.CertificateSums, is(whole)) {
		return errors.New("the client's certificate is none of those named by their sums")
	}
	return nil
}

// BearsOneOf reports whether a certificate has one of these subject alternative
// names: DNS, URI, IP or e-mail, exactly as it is written.
func BearsOneOf(c *x509.Certificate, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return slices.Contains(c.DNSNames, name) || slices.Contains(c.EmailAddresses, name) ||
			slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == name }) ||
			slices.ContainsFunc(c.IPAddresses, func(ip net.IP) bool { return ip.String() == name })
	})
}
