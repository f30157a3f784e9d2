package proxy

import (
	"bytes"
	"slices"
	"strings"

	"isthmus/http1"
	"isthmus/mesh"
)

// requestMatch is a compiled mesh.HTTPMatch: the conditions on the request.
// Those on the proxy (gateways, port, source) were decided when the table was
// compiled. A nil condition holds always.
type requestMatch struct {
	uri, scheme, method, authority *mesh.StringMatch

	foldURI        bool // ignoreUriCase
	headers        []mesh.NamedMatch
	withoutHeaders []mesh.NamedMatch
	queryParams    []mesh.NamedMatch

	route string // the name of the route by this match; "": the route's own
}

// routeName is the name of the exchange's route, for logs.
func (x *exchange) routeName() string {
	if m := x.matched; m != nil && m.route != "" {
		return m.route
	}
	return x.route.name
}

// catchAll reports whether every request fits.
func (m *requestMatch) catchAll() bool {
	uri := m.uri == nil || m.uri.Kind == mesh.MatchPresent || m.uri.Kind == mesh.MatchPrefix && m.uri.Value == "/"
	return uri && m.scheme == nil && m.method == nil && m.authority == nil &&
		len(m.headers) == 0 && len(m.withoutHeaders) == 0 && len(m.queryParams) == 0
}

// miss is the first condition of a requestMatch that a request does not fit. The
// zero value: it fits them all.
type miss struct {
	of    condition
	index int // in the list of headers or parameters
}

// condition is one kind of what a requestMatch asks for.
type condition uint8

const (
	noCondition condition = iota
	onURI
	onMethod
	onAuthority
	onScheme
	onHeader
	onWithoutHeader
	onQueryParam
)

// match reports whether the request fits.
func (m *requestMatch) match(x *exchange) bool { return m.miss(x).of == noCondition }

// miss returns the first condition that the request does not fit.
func (m *requestMatch) miss(x *exchange) miss {
	r, claims := &x.req, x.subject.Claims
	if m.uri != nil && !m.matchURI(r.Path) {
		return miss{of: onURI}
	}
	if m.method != nil && !matchString(m.method, r.Method) {
		return miss{of: onMethod}
	}
	if m.authority != nil && !matchString(m.authority, r.Authority) {
		return miss{of: onAuthority}
	}
	if m.scheme != nil && !matchString(m.scheme, x.scheme()) {
		return miss{of: onScheme}
	}
	for i := range m.headers {
		h := &m.headers[i]
		if h.Claim != nil {
			if !anyText(claims.Values(h.Claim...), &h.StringMatch) {
				return miss{onHeader, i}
			}
			continue
		}
		if value, ok := x.fieldValue(h.Name); !ok || !matchString(&h.StringMatch, value) {
			return miss{onHeader, i}
		}
	}
	for i := range m.withoutHeaders {
		// A header that is missing counts as empty, except where presence itself
		// is asked for (Envoy: treat_missing_header_as_empty). A header of several
		// lines must not have the value in any of them: what keeps something out
		// cannot be talked out of it by one more line.
		w := &m.withoutHeaders[i]
		if w.Claim != nil {
			if anyText(claims.Values(w.Claim...), &w.StringMatch) {
				return miss{onWithoutHeader, i}
			}
			continue
		}
		value, ok := x.fieldValue(w.Name)
		if w.Kind == mesh.MatchPresent && ok || w.Kind != mesh.MatchPresent && (matchString(&w.StringMatch, value) || anyLine(r, w)) {
			return miss{onWithoutHeader, i}
		}
	}
	for i := range m.queryParams {
		if value, ok := queryValue(r.Query, m.queryParams[i].Name); !ok || !matchString(&m.queryParams[i].StringMatch, value) {
			return miss{onQueryParam, i}
		}
	}
	return miss{}
}

func (m *requestMatch) matchURI(path []byte) bool {
	if !m.foldURI {
		return matchString(m.uri, path)
	}
	v := m.uri.Value
	switch m.uri.Kind {
	case mesh.MatchExact:
		return len(path) == len(v) && equalFold(path, v)
	case mesh.MatchPrefix:
		return len(path) >= len(v) && equalFold(path[:len(v)], v)
	}
	return matchString(m.uri, path)
}

func matchString(m *mesh.StringMatch, b []byte) bool {
	switch m.Kind {
	case mesh.MatchExact:
		return string(b) == m.Value
	case mesh.MatchPrefix:
		return len(b) >= len(m.Value) && string(b[:len(m.Value)]) == m.Value
	case mesh.MatchRegex:
		return m.Regex.Match(b)
	}
	return true
}

// anyText reports whether one of the texts of a claim fits.
func anyText(texts []string, m *mesh.StringMatch) bool {
	return slices.ContainsFunc(texts, func(t string) bool { return matchString(m, []byte(t)) })
}

func equalFold(b []byte, s string) bool { return strings.EqualFold(string(b), s) }

// anyLine reports whether one line of a header fits by itself.
func anyLine(r *http1.Request, m *mesh.NamedMatch) bool {
	for i := range r.Fields {
		f := &r.Fields[i]
		if len(f.Name) == len(m.Name) && equalFold(f.Name, m.Name) && matchString(&m.StringMatch, f.Value) {
			return true
		}
	}
	return false
}

// fieldValue is headerValue for who goes by a header of the request: at a gateway
// x-forwarded-for ends with the address of the client itself, as the upstream's will.
func (x *exchange) fieldValue(name string) (value []byte, ok bool) {
	value, ok = headerValue(&x.req, name)
	if x.conn.kind == gateway && name == string(nameForwardedFor) {
		return x.appendForwarded(nil, value), true
	}
	return value, ok
}

// judgedValue is fieldValue for limits and hashes: of those that go by what we say of where a
// request comes from, no table says so beforehand.
func (x *exchange) judgedValue(name string) (value []byte, ok bool) {
	switch {
	case name == string(nameRequestID) && x.asked != nil: // who asks has none, and a request will have its own
	case name == string(nameClientCert), name == string(nameProto), name == string(nameRequestID):
		x.tellOrigin()
	}
	return x.fieldValue(name)
}

// headerValue returns a header by its name in lower case; several lines are
// joined by commas, as Envoy does before it matches.
func headerValue(r *http1.Request, name string) (value []byte, ok bool) {
	joined := false
	for i := range r.Fields {
		f := &r.Fields[i]
		if len(f.Name) != len(name) || !equalFold(f.Name, name) {
			continue
		}
		switch {
		case !ok:
			value, ok = f.Value, true
		case !joined:
			value, joined = bytes.Join([][]byte{value, f.Value}, []byte(",")), true
		default:
			value = append(append(value, ','), f.Value...)
		}
	}
	return value, ok
}

// queryValue returns the first parameter of a name, decoded.
func queryValue(query []byte, name string) ([]byte, bool) {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte("&"))
		key, value, _ := bytes.Cut(pair, []byte("="))
		if string(unescape(key)) == name {
			return unescape(value), true
		}
	}
	return nil, false
}

// unescape decodes %XX in a query parameter, and nothing else: Envoy leaves a
// "+" as it is. What is no escape stays.
func unescape(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			hi, lo := http1.HexDigit(b[i+1]), http1.HexDigit(b[i+2])
			if hi >= 0 && lo >= 0 {
				out = append(out, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}
