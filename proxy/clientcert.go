package proxy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
)

// appendClientCert writes what x-forwarded-client-cert says of a certificate
// (Envoy: http_conn_man headers): the SHA-256 sum of its DER, its subject, and
// its URI and DNS names.
func appendClientCert(dst []byte, c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.Raw)
	dst = append(dst, "Hash="...)
	dst = hex.AppendEncode(dst, sum[:])
	dst = append(dst, ";Subject="...)
	dst = appendQuoted(dst, c.Subject.String())
	for _, u := range c.URIs {
		dst = append(dst, ";URI="...)
		dst = appendValue(dst, u.String())
	}
	for _, name := range c.DNSNames {
		dst = append(dst, ";DNS="...)
		dst = appendValue(dst, name)
	}
	return dst
}

// appendPeerCert writes what a sidecar adds to it of another proxy, as Istio's
// do: whom that one has spoken to, the sum of its certificate, and its identity.
func appendPeerCert(dst []byte, own string, c *x509.Certificate) []byte {
	dst = append(dst, "By="...)
	dst = appendValue(dst, own)
	dst = append(dst, ';')
	return appendClientCert(dst, c)
}

// appendValue writes a value, in quotes if it has a character that would end it.
func appendValue(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == ',', c == ';', c == '=', c == '"', c <= ' ', c > '~':
			return appendQuoted(dst, s)
		}
	}
	return append(dst, s...)
}

// appendQuoted writes a value in quotes. What no header may have in it, which
// whoever made the certificate may have put there, becomes a "?".
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"', c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ', c > '~':
			dst = append(dst, '?')
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
