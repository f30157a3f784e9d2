package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

func (d *document) match(m *networking.HTTPMatchRequest, path string) *mesh.HTTPMatch {
	out := &mesh.HTTPMatch{
		Name: m.Name, Source: d.source(path), IgnoreURICase: m.IgnoreUriCase,
		ProxyMatch: mesh.ProxyMatch{Port: m.Port, SourceLabels: m.SourceLabels, SourceNamespace: m.SourceNamespace, Gateways: d.gateways(m.Gateways)},
	}
	out.URI = d.stringMatch(m.Uri, path+".uri")
	if k := out.URI; m.IgnoreUriCase && (k == nil || k.Kind != mesh.MatchExact && k.Kind != mesh.MatchPrefix) {
		d.warning(path+".ignoreUriCase", "has no effect, in Istio neither: it is about uri, exact or prefix; in a regex write (?i)")
	}
	out.Scheme = d.stringMatch(m.Scheme, path+".scheme")
	out.Method = d.stringMatch(m.Method, path+".method")
	out.Authority = d.stringMatch(m.Authority, path+".authority")
	d.pseudoHeaders(m, out, path+".headers")
	out.Headers = d.namedMatches(m.Headers, path+".headers", true)
	out.WithoutHeaders = d.namedMatches(m.WithoutHeaders, path+".withoutHeaders", true)
	out.QueryParams = d.namedMatches(m.QueryParams, path+".queryParams", false)
	if m.Port > 65535 {
		d.error(path+".port", fmt.Sprintf("port %d is not between 1 and 65535", m.Port))
	}
	taken := out.URI != nil || out.Scheme != nil || out.Method != nil || out.Authority != nil // from headers, perhaps
	if !taken && m.Uri == nil && m.Scheme == nil && m.Method == nil && m.Authority == nil && len(m.Headers)+len(m.WithoutHeaders)+len(m.QueryParams) == 0 &&
		m.Port == 0 && len(m.SourceLabels) == 0 && m.SourceNamespace == "" && len(m.Gateways) == 0 {
		d.error(path, "is empty: leave match out to match every request")
	}
	return out
}

// pseudoHeaders takes conditions on HTTP/2's pseudo-headers for what they are. Envoy's
// :path has the query, which uri leaves out: what it begins with is the same.
func (d *document) pseudoHeaders(m *networking.HTTPMatchRequest, out *mesh.HTTPMatch, path string) {
	take := func(name string, into **mesh.StringMatch) {
		if sm := m.Headers[name]; sm != nil && *into == nil {
			*into = d.stringMatch(sm, join(path, name))
			delete(m.Headers, name)
		}
	}
	take(":authority", &out.Authority)
	take(":method", &out.Method)
	take(":scheme", &out.Scheme)
	if p := m.Headers[":path"].GetPrefix(); p != "" && !strings.Contains(p, "?") && !m.IgnoreUriCase {
		take(":path", &out.URI)
	}
}

// stringMatch reads Istio's StringMatch. Nil is no condition.
func (d *document) stringMatch(m *networking.StringMatch, path string) *mesh.StringMatch {
	if m == nil {
		return nil
	}
	switch t := m.MatchType.(type) {
	case *networking.StringMatch_Exact:
		return &mesh.StringMatch{Kind: mesh.MatchExact, Value: t.Exact}
	case *networking.StringMatch_Prefix:
		if t.Prefix == "" {
			d.error(path+".prefix", "is empty: write {} to ask for presence")
		}
		return &mesh.StringMatch{Kind: mesh.MatchPrefix, Value: t.Prefix}
	case *networking.StringMatch_Regex:
		if t.Regex == "*" {
			return &mesh.StringMatch{Kind: mesh.MatchPresent}
		}
		re, err := compilePattern(t.Regex)
		if err != nil {
			d.error(path+".regex", err.Error())
		}
		return &mesh.StringMatch{Kind: mesh.MatchRegex, Value: t.Regex, Regex: re}
	}
	return &mesh.StringMatch{Kind: mesh.MatchPresent}
}

func (d *document) namedMatches(m map[string]*networking.StringMatch, path string, header bool) []mesh.NamedMatch {
	var out []mesh.NamedMatch
	for _, name := range slices.Sorted(maps.Keys(m)) {
		at := join(path, name)
		var claim []string
		if header {
			switch {
			case slices.Contains([]string{"uri", "scheme", "method", "authority"}, name):
				d.warning(at, "is ignored: match on "+name+" itself, beside headers")
				continue
			case strings.HasPrefix(name, "@"):
				if claim = routingClaim(name); claim == nil {
					d.error(at, fmt.Sprintf("%q is no header name, and no claim of a token: write @request.auth.claims.NAME, or @request.auth.claims[NAME] for a name with dots", name))
					continue
				}
			case strings.HasPrefix(name, ":"):
				d.error(at, "is no header: match on authority, uri, method or scheme itself, beside headers")
				continue
			case !validHeaderName(name):
				d.error(at, fmt.Sprintf("%q is no header name", name))
				continue
			}
		}
		sm := d.stringMatch(m[name], at)
		if sm == nil {
			sm = &mesh.StringMatch{Kind: mesh.MatchPresent}
		}
		if header && claim == nil {
			name = strings.ToLower(name) // as Envoy does
		}
		out = append(out, mesh.NamedMatch{Name: name, Claim: claim, StringMatch: *sm})
	}
	return out
}

// routingClaim reads what Istio lets stand for a header's name: a claim of the request's
// token, "@request.auth.claims.group.name" or "@request.auth.claims[group][name]". Nil:
// it is none.
func routingClaim(name string) []string {
	const prefix = "@request.auth.claims"
	if len(name) < len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
		return nil
	}
	var claim []string
	rest := name[len(prefix):]
	if names, ok := bracketed(rest, "["); ok {
		claim = strings.Split(names, "][")
	} else if names, ok := strings.CutPrefix(rest, "."); ok {
		claim = strings.Split(names, ".")
	}
	if slices.Contains(claim, "") {
		return nil
	}
	return claim
}
