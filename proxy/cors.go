package proxy

import (
	"bytes"
	"slices"

	"isthmus/http1"
	"isthmus/mesh"
)

// Fields of the CORS protocol (Fetch standard), in the order in which they are
// written.
const (
	allowOrigin      = "access-control-allow-origin"
	allowCredentials = "access-control-allow-credentials"
	exposeHeaders    = "access-control-expose-headers"
	allowMethods     = "access-control-allow-methods"
	allowHeaders     = "access-control-allow-headers"
	maxAge           = "access-control-max-age"
)

// preflight answers if the request is a browser's question whether a page of
// another origin may send its real one, and the policy has the answer (Envoy:
// cors_filter). What every reply of the route says, crossOrigin adds.
func (x *exchange) preflight(p *mesh.CORS) bool {
	origin, method, ok := x.question()
	if !ok {
		return false
	}
	if !allows(p, origin) {
		if p.KeepUnmatched {
			x.answer(200, nil)
		}
		return p.KeepUnmatched
	}
	var fields []string
	add := func(name, value, asked string) {
		if value == "*" {
			value = asked
		}
		if value != "" {
			fields = append(fields, name, value)
		}
	}
	headers, _ := headerValue(&x.req, "access-control-request-headers")
	add(allowMethods, p.AllowMethods, string(method))
	add(allowHeaders, p.AllowHeaders, string(headers))
	add(maxAge, p.MaxAge, "")
	x.local(200, nil, fields...)
	return true
}

// answersPreflight reports whether preflight would answer.
func (x *exchange) answersPreflight(p *mesh.CORS) bool {
	origin, _, ok := x.question()
	return ok && (p.KeepUnmatched || allows(p, origin))
}

// question returns what a preflight asks about; ok is false if the request is
// none.
func (x *exchange) question() (origin, method []byte, ok bool) {
	if string(x.req.Method) != "OPTIONS" {
		return nil, nil, false
	}
	origin, _ = headerValue(&x.req, "origin")
	method, _ = headerValue(&x.req, "access-control-request-method")
	return origin, method, len(origin) > 0 && len(method) > 0
}

// allows reports whether pages of an origin may read replies.
func allows(p *mesh.CORS, origin []byte) bool {
	for i := range p.AllowOrigins {
		m := &p.AllowOrigins[i]
		if m.Kind == mesh.MatchExact && m.Value == "*" || matchString(m, origin) {
			return true
		}
	}
	return false
}

// crossOrigin puts into a copy of a reply's fields what the policy says to the
// browser, in the place of what the upstream says of it. Where the origin is not
// allowed, or there is none, the upstream's own words stand. All replies tell
// caches that they depend on the origin: one that was fetched without it says
// nothing to a page of another site.
func (x *exchange) crossOrigin(p *mesh.CORS, fields []http1.Field) []http1.Field {
	fields = slices.Clone(fields)
	set := func(name, value string) {
		f := newField(mesh.NameValue{Name: name, Value: value})
		fields = append(removeField(fields, &f), f)
	}
	if origin, _ := headerValue(&x.req, "origin"); len(origin) > 0 && allows(p, origin) {
		set(allowOrigin, string(origin))
		if p.Credentials {
			set(allowCredentials, "true")
		}
		if p.ExposeHeaders != "" {
			set(exposeHeaders, p.ExposeHeaders)
		}
	}
	if !variesByOrigin(fields) {
		fields = append(fields, newField(mesh.NameValue{Name: "vary", Value: "Origin"}))
	}
	return fields
}

// variesByOrigin reports whether a Vary field names Origin, or everything.
func variesByOrigin(fields []http1.Field) bool {
	for _, f := range fields {
		if !equalFold(f.Name, "vary") {
			continue
		}
		for word := range bytes.SplitSeq(f.Value, []byte(",")) {
			if word = bytes.TrimSpace(word); string(word) == "*" || len(word) == 6 && equalFold(word, "origin") {
				return true
			}
		}
	}
	return false
}
