package proxy

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"isthmus/http1"
	"isthmus/mesh"
)

// hash says where among an upstream's hosts the request belongs (DestinationRule
// consistentHash); 0: anywhere, as a request without the header, cookie or
// parameter that is asked for.
func (x *exchange) hash(u *upstream) uint64 {
	if u.hash == nil {
		return 0
	}
	var value []byte
	ok := true
	switch p := u.hash; {
	case p.Header != "":
		value, ok = x.fieldToHash(p.Header)
	case p.Cookie != nil:
		value, ok = x.hashCookie(p.Cookie)
	case p.SourceIP:
		a := x.remoteAddress()
		ip := a.As16()
		value, ok = ip[:], a.IsValid()
	default:
		value, ok = queryValue(x.req.Query, p.QueryParam)
	}
	if !ok {
		return 0
	}
	return xxhash.Sum64(value) | 1
}

// fieldToHash returns the value of a field, or of one of [mesh.PseudoFields].
func (x *exchange) fieldToHash(name string) ([]byte, bool) {
	switch r := &x.req; name {
	case ":authority":
		return r.Authority, true
	case ":method":
		return r.Method, true
	case ":scheme":
		return x.scheme(), true
	case ":path":
		if r.HasQuery {
			return slices.Concat(r.Path, []byte("?"), r.Query), true
		}
		return r.Path, true
	}
	return x.judgedValue(name)
}

// hashCookie returns the value of the cookie, a new one where the policy wants
// it and the request has none.
func (x *exchange) hashCookie(c *mesh.HashCookie) ([]byte, bool) {
	if v, ok := cookieValue(&x.req, c.Name); ok {
		return v, true
	}
	if !c.Generate {
		return nil, false
	}
	if x.cookie == nil || x.cookieOf != c { // else it is that of a destination which did not serve
		x.cookie, x.cookieOf = newCookie(c), c
	}
	value := x.cookie[len(c.Name)+2:] // after the name, the sign and a quote
	return value[:cookieLength], true
}

// cookieLength is that of a generated value, 64 random bits in hexadecimal.
const cookieLength = 16

// newCookie makes the value of a Set-Cookie field (RFC 6265 4.1.1) in Envoy's
// form.
func newCookie(c *mesh.HashCookie) []byte {
	var random [8]byte
	n := rand.Uint64()
	for i := range random {
		random[i] = byte(n >> (8 * i))
	}
	out := append([]byte(c.Name), `="`...)
	out = hex.AppendEncode(out, random[:])
	out = append(out, '"')
	if c.TTL > 0 {
		out = append(out, "; Max-Age="...)
		out = strconv.AppendInt(out, int64(c.TTL.Seconds()), 10)
	}
	if c.Path != "" {
		out = append(append(out, "; Path="...), c.Path...)
	}
	for _, a := range c.Attributes {
		out = append(append(out, "; "...), a.Name...)
		if a.Value != "" {
			out = append(append(out, '='), a.Value...)
		}
	}
	return append(out, "; HttpOnly"...)
}

// cookieValue returns the first cookie of a name, without quotes.
func cookieValue(r *http1.Request, name string) ([]byte, bool) {
	for i := range r.Fields {
		if r.Fields[i].ID != http1.Cookie {
			continue
		}
		for rest := r.Fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte(";"))
			key, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("="))
			if ok && string(key) == name {
				if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
					value = value[1 : n-1]
				}
				return value, true
			}
		}
	}
	return nil, false
}
