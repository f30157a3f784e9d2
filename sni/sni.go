// Package sni reads what a TLS client says before anything is encrypted: the
// ClientHello (RFC 8446 4.1.2), as far as it tells where a connection is to go.
//
// It does no I/O. [Parse] is given the bytes that have come so far, in whatever
// pieces, and changes none of them: whoever passes a connection on sends them as
// they are.
package sni

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Hello is what is read of a ClientHello.
type Hello struct {
	// ServerName is the host that the client wants (RFC 6066 3), in lower case
	// and without a dot at its end; "" if it names none.
	ServerName string

	// Protocols are those that it would speak, in its order (RFC 7301).
	Protocols []string
}

var (
	// ErrShort says that more bytes are needed.
	ErrShort = errors.New("the ClientHello is not whole")

	// ErrNotTLS says that it is not how TLS begins.
	ErrNotTLS = errors.New("not a ClientHello")

	// ErrMalformed says that it begins so and is broken.
	ErrMalformed = errors.New("malformed ClientHello")

	// ErrLong says that it is longer than MaxHello.
	ErrLong = errors.New("the ClientHello is too long")
)

// MaxHello is how many bytes a ClientHello may have, record headers aside:
// Envoy's limit. Those of browsers have up to 2 KiB, with post-quantum keys.
const MaxHello = 16 << 10

const (
	recordHeader  = 5 // type, version, length (RFC 8446 5.1)
	maxRecord     = 16 << 10
	handshakeType = 22
	clientHello   = 1

	extensionServerName = 0
	extensionALPN       = 16
)

// IsTLS reports whether a connection whose first byte this is may speak TLS.
// No text protocol begins so.
func IsTLS(first byte) bool { return first == handshakeType }

// Parse reads the ClientHello at the beginning of b. ErrShort: call it again
// with more.
func Parse(b []byte) (Hello, error) {
	message, err := reassemble(b)
	if err != nil {
		return Hello{}, err
	}
	return parseHello(message)
}

// reassemble returns the ClientHello's body, which may be spread over several
// records. Nothing is copied before it is whole: how many pieces it comes in, and
// so how often this is called, is up to the client.
func reassemble(b []byte) ([]byte, error) {
	var header [4]byte // of the message
	have, need := 0, -1
	rest := b
	for {
		switch {
		case len(rest) > 0 && rest[0] != handshakeType, len(rest) > 1 && rest[1] != 3:
			return nil, ErrNotTLS
		case len(rest) < recordHeader:
			return nil, ErrShort
		}
		n := int(binary.BigEndian.Uint16(rest[3:]))
		if n == 0 || n > maxRecord {
			return nil, ErrMalformed
		}
		part := rest[recordHeader:]
		whole := len(part) >= n
		part = part[:min(n, len(part))]
		if have < len(header) {
			copy(header[have:], part)
		}
		have += len(part)
		if need < 0 && have >= len(header) {
			if header[0] != clientHello {
				return nil, ErrNotTLS
			}
			need = len(header) + int(header[1])<<16 + int(binary.BigEndian.Uint16(header[2:]))
			if need > MaxHello {
				return nil, ErrLong
			}
		}
		switch {
		case need >= 0 && have >= need:
			return join(b, need)[len(header):], nil
		case !whole:
			return nil, ErrShort
		}
		rest = rest[recordHeader+n:]
	}
}

// join returns the first n bytes that records carry, all of which have come;
// those of one record where they are.
func join(b []byte, n int) []byte {
	size := int(binary.BigEndian.Uint16(b[3:]))
	if size >= n {
		return b[recordHeader : recordHeader+n]
	}
	message := make([]byte, 0, n)
	for len(message) < n {
		size = int(binary.BigEndian.Uint16(b[3:]))
		part := b[recordHeader:min(recordHeader+size, len(b))]
		message = append(message, part[:min(len(part), n-len(message))]...)
		b = b[min(recordHeader+size, len(b)):]
	}
	return message
}

// reader takes vectors apart (RFC 8446 3.4). After a vector that is not whole,
// bad is set and everything is empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) number(size int) int {
	n := 0
	for _, c := range r.take(size) {
		n = n<<8 | int(c)
	}
	return n
}

// vector reads one whose length takes that many bytes.
func (r *reader) vector(size int) reader {
	return reader{b: r.take(r.number(size))}
}

func parseHello(message []byte) (h Hello, err error) {
	r := reader{b: message}
	r.take(2 + 32) // legacy_version, random
	r.vector(1)    // legacy_session_id
	r.vector(2)    // cipher_suites
	r.vector(1)    // legacy_compression_methods
	if r.bad {
		return h, ErrMalformed
	}
	if len(r.b) == 0 {
		return h, nil // as of TLS 1.2, without extensions
	}
	extensions := r.vector(2)
	if r.bad || len(r.b) > 0 {
		return h, ErrMalformed
	}
	seen := map[int]bool{}
	for len(extensions.b) > 0 {
		kind := extensions.number(2)
		data := extensions.vector(2)
		if extensions.bad || seen[kind] {
			return h, ErrMalformed // RFC 8446 4.2: one of a type
		}
		seen[kind] = true
		ok := true
		switch kind {
		case extensionServerName:
			h.ServerName, ok = serverName(data)
		case extensionALPN:
			h.Protocols, ok = protocols(data)
		}
		if !ok {
			return h, ErrMalformed
		}
	}
	return h, nil
}

// serverName reads a server_name extension: a list with at most one host
// name, and no name of another type, as none has ever been defined.
func serverName(data reader) (string, bool) {
	list := data.vector(2)
	if data.bad || len(data.b) > 0 || len(list.b) == 0 {
		return "", false
	}
	kind := list.number(1)
	host := list.vector(2)
	if list.bad || len(list.b) > 0 || kind != 0 || len(host.b) == 0 || len(host.b) > 255 {
		return "", false
	}
	for _, c := range host.b {
		if c <= ' ' || c > '~' {
			return "", false
		}
	}
	return strings.TrimSuffix(strings.ToLower(string(host.b)), "."), true
}

func protocols(data reader) ([]string, bool) {
	list := data.vector(2)
	if data.bad || len(data.b) > 0 || len(list.b) == 0 {
		return nil, false
	}
	var out []string
	for len(list.b) > 0 {
		p := list.vector(1)
		if list.bad || len(p.b) == 0 {
			return nil, false
		}
		out = append(out, string(p.b))
	}
	return out, true
}
