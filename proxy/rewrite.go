package proxy

import "isthmus/mesh"

// replaces reports whether a field says what the rewrite replaces, as of a proxy before us.
func replaces(rw *mesh.Rewrite, name []byte) bool {
	return rw.Path() && len(name) == len(nameOriginalPath) && equalFold(name, string(nameOriginalPath)) ||
		rw.Authority != "" && len(name) == len(nameOriginalHost) && equalFold(name, string(nameOriginalHost))
}

// appendOriginal says what the rewrite has replaced, as Envoy does: so the application, and
// the log of its sidecar, know what the client has asked for.
func (x *exchange) appendOriginal(out []byte, to headFormat, rw *mesh.Rewrite) []byte {
	if rw.Path() {
		x.value = append(x.value[:0], x.req.Path...)
		if x.req.HasQuery {
			x.value = append(append(x.value, '?'), x.req.Query...)
		}
		out = to.field(out, nameOriginalPath, x.value)
	}
	if rw.Authority != "" {
		out = to.field(out, nameOriginalHost, x.req.Authority)
	}
	return out
}

// rewritePath applies a route's rewrite: in place of the prefix that the match
// named, or of the whole path where it named all of it. A match that asks for no
// path is one of the prefix "/" (Istio: TranslateRouteMatch). What does not begin
// with a slash gets one: there is no request line for it otherwise.
func (x *exchange) rewritePath(rw *mesh.Rewrite) []byte {
	if x.req.Path[0] != '/' {
		return x.req.Path // of OPTIONS *
	}
	path := x.rewritten(rw)
	if len(path) == 0 || path[0] != '/' {
		path = append([]byte("/"), path...)
	}
	return path
}

func (x *exchange) rewritten(rw *mesh.Rewrite) []byte {
	path := x.req.Path
	switch {
	case rw.Regex != nil:
		return rw.Regex.ReplaceAll(path, []byte(rw.Substitution))
	case !rw.HasURI:
		return path
	}
	prefix := "/"
	if m := x.matched; m != nil && m.uri != nil {
		switch m.uri.Kind {
		case mesh.MatchPrefix:
			prefix = m.uri.Value
		case mesh.MatchExact, mesh.MatchRegex:
			return []byte(rw.URI)
		}
	}
	rest := path[len(prefix):]
	if len(rw.URI) > 0 && rw.URI[len(rw.URI)-1] == '/' && len(rest) > 0 && rest[0] == '/' {
		rest = rest[1:] // "/v1/" to "/" must not make "//"
	}
	return append([]byte(rw.URI), rest...)
}
