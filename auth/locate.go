package auth

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// tokenPlaces is where a rule looks for tokens.
type tokenPlaces struct {
	headers []headerPlace
	params  []string
	cookies []string
}

// headerPlace is a header with a token behind a prefix.
type headerPlace struct {
	name   []byte // in lower case
	id     http1.FieldID
	prefix string
	fold   bool // the prefix is an authentication scheme, in any case (RFC 9110 11.1)
}

// placesOf returns where a rule looks: where it says, else "Authorization:
// Bearer" and the parameter access_token (Istio: JWTRule; RFC 6750 2).
func placesOf(r *mesh.TokenRule) tokenPlaces {
	headers, params := r.Headers, r.Params
	if len(r.Headers)+len(r.Params)+len(r.Cookies) == 0 {
		headers, params = []mesh.TokenHeader{{Name: "authorization", Prefix: "Bearer "}}, []string{"access_token"}
	}
	var p tokenPlaces
	for _, h := range headers {
		name := []byte(strings.ToLower(h.Name))
		id := http1.LookupField(name)
		p.headers = append(p.headers, headerPlace{name, id, h.Prefix, id == http1.Authorization && strings.EqualFold(h.Prefix, "Bearer ")})
	}
	for _, name := range params {
		if !slices.Contains(p.params, name) { // a token is not to be found twice
			p.params = append(p.params, name)
		}
	}
	for _, name := range r.Cookies {
		if !slices.Contains(p.cookies, name) {
			p.cookies = append(p.cookies, name)
		}
	}
	return p
}

// key is the same for the same places.
func (p *tokenPlaces) key() string {
	var text []byte
	for _, h := range p.headers {
		text = fmt.Appendf(text, "%q %q ", h.name, h.prefix)
	}
	return string(fmt.Appendf(text, "%q %q", p.params, p.cookies))
}

// foundToken is a token of a request, and where it was.
type foundToken struct {
	token    []byte
	kind     placeKind
	field    int // its index in Fields, of inHeader
	from, to int // the parameter's place in Query, of inQuery
}

type placeKind uint8

const (
	nowhere placeKind = iota
	inHeader
	inQuery
	inCookie
)

// find looks for the token of a request. n is how many there are, 2 standing for
// more; if a header has a token, other fields of its name count as tokens.
func (p *tokenPlaces) find(r *http1.Request) (f foundToken, n int) {
	for i := range p.headers {
		n = p.headers[i].find(r, &f, n)
	}
	if len(p.params) > 0 && r.HasQuery {
		n = findParams(r.Query, p.params, &f, n)
	}
	if len(p.cookies) > 0 {
		for i := range r.Fields {
			if r.Fields[i].ID == http1.Cookie {
				n = findCookies(r.Fields[i].Value, p.cookies, &f, n)
			}
		}
	}
	return f, min(n, 2)
}

// find adds to the n tokens found so far.
func (p *headerPlace) find(r *http1.Request, f *foundToken, n int) int {
	named, hit := 0, false
	for i := range r.Fields {
		field := &r.Fields[i]
		if field.ID != p.id || p.id == http1.Unknown && !sameName(field.Name, p.name) {
			continue
		}
		named++
		token, ok := p.cut(field.Value)
		if !ok {
			continue
		}
		hit = true
		if f.kind == inHeader && f.field == i {
			continue // two prefixes fit; the first counts
		}
		n++
		*f = foundToken{token: token, kind: inHeader, field: i}
	}
	if hit && named > 1 {
		return 2
	}
	return n
}

// cut returns what is behind the prefix.
func (p *headerPlace) cut(value []byte) ([]byte, bool) {
	n := len(p.prefix)
	if len(value) < n || string(value[:n]) != p.prefix && !(p.fold && sameName(value[:n], bearer)) {
		return nil, false
	}
	value = value[n:]
	if n > 0 && p.prefix[n-1] != ' ' {
		value = bytes.TrimLeft(value, " ") // "Bearer" is configured as often as "Bearer "
	}
	return value, true
}

var bearer = []byte("bearer ")

// findParams adds the parameters of some names to the n tokens found so far.
// Names are compared as the upstream would read them, decoded; a token needs no
// encoding, so that one with a "%" in it is refused as malformed.
func findParams(query []byte, names []string, f *foundToken, n int) int {
	for from := 0; from <= len(query); {
		to := len(query)
		if i := bytes.IndexByte(query[from:], '&'); i >= 0 {
			to = from + i
		}
		name, value, _ := bytes.Cut(query[from:to], []byte{'='})
		for _, want := range names {
			if isParam(name, want) {
				n++
				*f = foundToken{token: value, kind: inQuery, from: from, to: to}
			}
		}
		from = to + 1
	}
	return n
}

// isParam reports whether an encoded name is one that is looked for.
func isParam(name []byte, want string) bool {
	n := 0
	for i := 0; i < len(name); i, n = i+1, n+1 {
		c := name[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(name) && http1.HexDigit(name[i+1]) >= 0 && http1.HexDigit(name[i+2]) >= 0:
			c = byte(http1.HexDigit(name[i+1])<<4 | http1.HexDigit(name[i+2]))
			i += 2
		}
		if n >= len(want) || want[n] != c {
			return false
		}
	}
	return n == len(want)
}

// findCookies adds the cookies of some names (RFC 6265 4.2.1) to the n tokens
// found so far.
func findCookies(list []byte, names []string, f *foundToken, n int) int {
	for more := true; more; {
		var pair []byte
		pair, list, more = bytes.Cut(list, []byte{';'})
		name, value, _ := bytes.Cut(bytes.Trim(pair, " \t"), []byte{'='})
		for _, want := range names {
			if string(name) != want {
				continue
			}
			if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			n++
			*f = foundToken{token: value, kind: inCookie}
		}
	}
	return n
}

// remove takes a token off its request. A cookie stays, as in Envoy. Target
// stays what was received.
func (f *foundToken) remove(r *http1.Request) {
	switch f.kind {
	case inHeader:
		last := len(r.Fields) - 1
		copy(r.Fields[f.field:], r.Fields[f.field+1:])
		r.Fields[last] = http1.Field{}
		r.Fields = r.Fields[:last]
	case inQuery:
		q := r.Query
		switch {
		case f.to < len(q) && f.from == 0:
			q = q[f.to+1:]
		case f.from == 0:
			q = nil
		case f.to == len(q):
			q = q[:f.from-1]
		default:
			// A copy, since Target points to the same bytes.
			q = append(q[:f.from-1:f.from-1], q[f.to:]...)
		}
		r.Query, r.HasQuery = q, len(q) > 0
	}
}

// sameName reports whether a name is the one in lower case.
func sameName(name, lower []byte) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// sameVariable is sameName where "_" and "-" are the same, as CGI has it (RFC
// 3875 4.1.18).
func sameVariable(name, lower []byte) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		want := lower[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c == '_' {
			c = '-'
		}
		if want == '_' {
			want = '-'
		}
		if c != want {
			return false
		}
	}
	return true
}
