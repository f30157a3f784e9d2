package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp/syntax"
	"slices"
	"strings"

	"isthmus/mesh"
)

// lintMatches names conditions of a rule that no request meets, so that the rule
// is never taken.
func (c *checker) lintMatches(v *mesh.VirtualService, d *document, r *mesh.HTTPRoute, path string) {
	never := func(at, why string) { d.find(Warning, ISM0068, at, why) }
	for i, m := range r.Match {
		at := path + "." + index("match", i)
		if m.URI != nil {
			if why := neverPath(m.URI); why != "" {
				never(at+".uri", why)
			}
		}
		if m.Method != nil && m.Method.Kind == mesh.MatchExact {
			if why := neverMethod(m.Method.Value); why != "" {
				never(at+".method", why)
			}
		}
		if s := m.Scheme; s != nil && s.Kind == mesh.MatchExact && s.Value != "http" && s.Value != "https" {
			never(at+".scheme", fmt.Sprintf("%q is never the scheme of a request: write http or https", s.Value))
		}
		if a := m.Authority; a != nil && a.Kind == mesh.MatchExact && !isHostOf(v, a.Value) {
			never(at+".authority", fmt.Sprintf("%q is never asked for here: the hosts of the VirtualService are %s", a.Value, strings.Join(v.Hosts, ", ")))
		}
		c.lintClaims(v, d, m, at)
		for _, h := range m.Headers {
			if slices.ContainsFunc(m.WithoutHeaders, func(w mesh.NamedMatch) bool {
				return w.Name == h.Name && contains(&w.StringMatch, &h.StringMatch)
			}) {
				never(at+".withoutHeaders", fmt.Sprintf("headers asks for the %s that withoutHeaders forbids: no request is both", h.Name))
			}
		}
	}
}

// lintClaims says where a match on what tokens say finds none. Only gateways read tokens
// before they route (Istio: JWT claim based routing).
func (c *checker) lintClaims(v *mesh.VirtualService, d *document, m *mesh.HTTPMatch, at string) {
	if len(v.Hosts) == 0 {
		return // a delegate: where it holds, others say
	}
	for _, list := range []struct {
		field, effect string
		matches       []mesh.NamedMatch
	}{{"headers", "never holds", m.Headers}, {"withoutHeaders", "always holds", m.WithoutHeaders}} {
		i := slices.IndexFunc(list.matches, func(n mesh.NamedMatch) bool { return n.Claim != nil })
		if i < 0 {
			continue
		}
		field := fmt.Sprintf("%s.%s.%s", at, list.field, list.matches[i].Name)
		for _, name := range gatewaysOf(v, &m.ProxyMatch) {
			if name == mesh.MeshGateway {
				d.find(Warning, ISM0068, field, list.effect+" on a sidecar: tokens are read where requests come in, and only gateways route by them; bind the match to a Gateway")
				continue
			}
			if gw := c.gateways[name]; gw != nil && !c.readsTokens(gw) {
				d.find(Warning, IST0149, field, fmt.Sprintf("%s at Gateway %s: no RequestAuthentication is for its proxies, so no token is ever read there; write one with the selector of the Gateway, in the namespace of its proxies or the root namespace", list.effect, name))
			}
		}
	}
}

// readsTokens reports whether a RequestAuthentication may be for the proxies of a Gateway,
// whose namespace no file tells.
func (c *checker) readsTokens(g *mesh.Gateway) bool {
	return slices.ContainsFunc(c.config.RequestAuthentications, func(r *mesh.RequestAuthentication) bool {
		return mesh.MatchLabels(r.Selector, g.Selector)
	})
}

// neverPath says why no path of a request fits; "" if one may.
func neverPath(m *mesh.StringMatch) string {
	if m.Kind == mesh.MatchRegex {
		return neverPathRegex(m.Value)
	}
	if m.Kind == mesh.MatchPresent || m.Value == "" || m.Value == "*" || blank.MatchString(m.Value) { // "*" is what OPTIONS may ask for
		return ""
	}
	if m.Value[0] != '/' {
		return fmt.Sprintf("%q is the beginning of no path: write /%s", m.Value, m.Value)
	}
	if strings.ContainsAny(m.Value, "?#") {
		return "is compared with the path alone, in which there is no ? and no #: write the path, and queryParams beside it"
	}
	for _, segment := range strings.Split(m.Value, "/") {
		if segment == "." || segment == ".." && (m.Kind == mesh.MatchExact || !strings.HasSuffix(m.Value, "/..")) {
			return fmt.Sprintf("has the segment %q, which is resolved before paths are compared: write the path that remains", segment)
		}
	}
	if strings.HasSuffix(m.Value, "*") || strings.Contains(m.Value, "/*/") {
		return "has a *, which stands for itself here: write prefix without it, or a regex"
	}
	for i := 0; i < len(m.Value); i++ {
		switch b := m.Value[i]; {
		case b <= ' ' || b >= 0x7f:
			return fmt.Sprintf("paths come escaped: write %s", (&url.URL{Path: m.Value}).EscapedPath())
		case b == '\\':
			return `has a \, which is read as / before paths are compared`
		case b == '%' && i+2 < len(m.Value):
			if s, err := url.PathUnescape(m.Value[i : i+3]); err == nil && isUnreserved(s[0]) {
				return fmt.Sprintf("has %s, which is read as %s before paths are compared: write that", m.Value[i:i+3], s)
			}
		}
	}
	return ""
}

// isUnreserved reports whether a path bears a character unescaped (RFC 3986 2.3).
func isUnreserved(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// neverPathRegex says why an expression fits no path; "" where that is hard to
// tell.
func neverPathRegex(text string) string {
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return "" // an error says it
	}
	if first, ok := firstLiteral(re); ok && first != '/' {
		return fmt.Sprintf("has to fit the whole path, which begins with /: write /%s", text)
	}
	if strings.ContainsAny(text, "?#") && asksFor(re, '?', '#') {
		return "is compared with the path alone, in which there is no ? and no #: write the path, and queryParams beside it"
	}
	return ""
}

// firstLiteral is the character that whatever an expression fits begins with.
func firstLiteral(re *syntax.Regexp) (rune, bool) {
	switch re.Op {
	case syntax.OpLiteral:
		return re.Rune[0], re.Flags&syntax.FoldCase == 0
	case syntax.OpCapture, syntax.OpPlus:
		return firstLiteral(re.Sub[0])
	case syntax.OpConcat:
		for _, s := range re.Sub {
			if s.Op != syntax.OpBeginText && s.Op != syntax.OpBeginLine && s.Op != syntax.OpEmptyMatch {
				return firstLiteral(s)
			}
		}
	}
	return 0, false
}

// asksFor reports whether whatever an expression fits has one of some characters.
func asksFor(re *syntax.Regexp, characters ...rune) bool {
	switch re.Op {
	case syntax.OpLiteral:
		return slices.ContainsFunc(re.Rune, func(r rune) bool { return slices.Contains(characters, r) })
	case syntax.OpCapture, syntax.OpPlus:
		return asksFor(re.Sub[0], characters...)
	case syntax.OpConcat:
		return slices.ContainsFunc(re.Sub, func(s *syntax.Regexp) bool { return asksFor(s, characters...) })
	}
	return false
}

// neverMethod says that methods are compared as they are written.
func neverMethod(method string) string {
	upper := strings.ToUpper(method)
	if method == upper || !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}, upper) {
		return ""
	}
	return fmt.Sprintf("%q is another method than %s: write it in capitals", method, upper)
}

// isHostOf reports whether a request for one of a VirtualService's hosts may have
// an authority.
func isHostOf(v *mesh.VirtualService, authority string) bool {
	host := mesh.NormalizeHost(authority)
	if i := strings.LastIndexByte(host, ':'); i > 0 {
		host = host[:i]
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || len(v.Hosts) == 0 {
		return true // an address of the service, or a delegate
	}
	own, _, whole := mesh.ServiceOf(host)
	return slices.ContainsFunc(v.Hosts, func(h string) bool {
		svc, _, known := mesh.ServiceOf(h)
		return mesh.MatchHost(h, host) || strings.HasPrefix(h, host+".") || whole && known && svc == own
	})
}

// lintRewrite names rewrites that make other paths than they seem to. whole says that
// no other VirtualService adds conditions to the rule's.
func lintRewrite(d *document, r *mesh.HTTPRoute, path string, whole bool) {
	w := r.Rewrite
	if w == nil {
		return
	}
	if w.Regex != nil && strings.Contains(w.Substitution, "$1") {
		d.find(Warning, ISM0069, path+".rewrite.uriRegexRewrite.rewrite", `has $1, which stands for itself: write \1 for what the first pair of brackets has fitted`)
	}
	if !w.HasURI || w.URI == "" || strings.HasSuffix(w.URI, "/") {
		return
	}
	eaten := func(prefix string) {
		d.find(Warning, ISM0069, path+".rewrite.uri", fmt.Sprintf("stands in the place of the prefix and its last slash: %sx becomes %sx; write %s/", prefix, w.URI, w.URI))
	}
	for _, m := range r.Match {
		switch {
		case m.URI != nil && m.URI.Kind == mesh.MatchPrefix && strings.HasSuffix(m.URI.Value, "/"):
			eaten(m.URI.Value)
			return
		case (m.URI == nil || m.URI.Kind == mesh.MatchPresent) && whole:
			eaten("/")
			return
		}
	}
	if len(r.Match) == 0 && whole {
		eaten("/")
	}
}

// lintRedirect names redirects that lead back to their own rule.
func (c *checker) lintRedirect(v *mesh.VirtualService, d *document, at int) {
	r := v.HTTP[at]
	t := r.Redirect
	if t == nil || t.Authority != "" || t.Port != 0 || t.PrefixURI != "" {
		return
	}
	path := index("http", at) + ".redirect"
	switch {
	case t.Scheme == "" && t.URI != "" && takes(r, t.URI) && !slices.ContainsFunc(v.HTTP[:at], func(o *mesh.HTTPRoute) bool { return takes(o, t.URI) }):
		d.find(Warning, ISM0069, path, fmt.Sprintf("leads to %s, which meets the same rule again: a client follows it until it gives up; put a rule for %s before it", t.URI, t.URI))
	case t.Scheme == "https" && t.URI == "" && !t.ProtocolPort && slices.ContainsFunc(r.Match, pathsAlone) || t.Scheme == "https" && t.URI == "" && len(r.Match) == 0:
		for _, name := range v.Gateways {
			gw := c.gateways[name]
			if gw == nil {
				continue
			}
			for _, s := range gw.Servers {
				if s.Terminate != nil && slices.ContainsFunc(v.Hosts, s.Serves) {
					d.find(Warning, ISM0069, path, fmt.Sprintf("holds for port %d of Gateway %s too, which speaks TLS already: a client is sent to where it is until it gives up; write tls.httpsRedirect at the server in plain text, or match port", s.Port.Number, name))
					return
				}
			}
		}
	}
}

// pathsAlone reports whether a match asks for nothing but paths.
func pathsAlone(m *mesh.HTTPMatch) bool {
	return m.Scheme == nil && m.Port == 0 && m.Method == nil && m.Authority == nil && len(m.Gateways) == 0 && len(m.Headers) == 0 && len(m.WithoutHeaders) == 0
}

// takes reports whether a rule decides on all requests for a path.
func takes(r *mesh.HTTPRoute, path string) bool {
	return len(r.Match) == 0 || slices.ContainsFunc(r.Match, func(m *mesh.HTTPMatch) bool {
		to := &mesh.StringMatch{Kind: mesh.MatchExact, Value: path}
		return pathsAlone(m) && len(m.QueryParams) == 0 && (m.URI == nil || contains(m.URI, to))
	})
}

// lintOrigins names origins that no browser sends (Fetch standard: scheme, host
// and port, in lower case).
func lintOrigins(d *document, r *mesh.HTTPRoute, path string) {
	if r.CORS == nil {
		return
	}
	for i, o := range r.CORS.AllowOrigins {
		if o.Kind != mesh.MatchExact || o.Value == "*" || o.Value == "null" {
			continue
		}
		at := path + ".corsPolicy." + index("allowOrigins", i)
		u, err := url.Parse(o.Value)
		switch {
		case strings.Contains(o.Value, "*"):
			d.find(Warning, ISM0070, at, "has a *, which stands for itself here: write a regex")
		case err != nil || u.Scheme == "" || u.Host == "":
			d.find(Warning, ISM0070, at, fmt.Sprintf("%q is no origin: write https://HOST, with the port where it is not the scheme's", o.Value))
		case u.Path != "" || u.RawQuery != "" || strings.ToLower(o.Value) != o.Value:
			d.find(Warning, ISM0070, at, fmt.Sprintf("no browser sends %q: write %s://%s", o.Value, u.Scheme, strings.ToLower(u.Host)))
		}
	}
}

// lintOperations names what rules of a policy ask for and no request has.
func lintOperations(p *mesh.AuthorizationPolicy, d *document) {
	for i, rule := range p.Rules {
		for j, o := range rule.To {
			at := index("rules", i) + "." + index("to", j) + ".operation"
			for _, l := range []struct {
				field string
				list  []string
				never func(string) (why string)
			}{
				{".paths", o.Paths.In, neverPolicyPath}, {".notPaths", o.Paths.NotIn, neverPolicyPath},
				{".methods", o.Methods.In, neverMethod}, {".notMethods", o.Methods.NotIn, neverMethod},
			} {
				for k, s := range l.list {
					if why := l.never(s); why != "" {
						d.find(Warning, ISM0068, index(at+l.field, k), why)
					}
				}
			}
		}
		for j, f := range rule.From {
			for k, s := range f.Principals.In {
				if !strings.Contains(s, "*") && (strings.Count(s, "/") != 4 || !strings.Contains(s, "/ns/") || !strings.Contains(s, "/sa/")) {
					d.find(Warning, ISM0068, index(index("rules", i)+"."+index("from", j)+".source.principals", k), fmt.Sprintf("%q is nobody's identity: write TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT", s))
				}
			}
		}
	}
}

// neverPolicyPath says why a path of a policy fits none of a request; "" if it
// may.
func neverPolicyPath(s string) string {
	switch {
	case s == "" || s[0] == '*' || strings.ContainsAny(s, "{}"):
		return ""
	case s[0] != '/':
		return fmt.Sprintf("%q is the beginning of no path: write /%s", s, s)
	case strings.HasSuffix(s, ".*") || strings.HasSuffix(s, "$"):
		return fmt.Sprintf("%q is no regular expression: a * at the end stands for anything, all else for itself", s)
	case strings.ContainsAny(s, "?#"):
		return "is compared with the path alone, in which there is no ? and no #"
	}
	return ""
}
