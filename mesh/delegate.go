package mesh

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Delegate names the VirtualService without hosts that decides further.
type Delegate struct{ Namespace, Name string }

// DelegatedMatches returns the alternatives under which a rule of a delegate holds: each
// of its own, together with each of the root's that it does not go beyond. ok is false if
// one of its own goes beyond all of the root's: then the rule has no effect (Istio:
// mergeHTTPMatchRequests).
func DelegatedMatches(root, inner []*HTTPMatch) (merged []*HTTPMatch, ok bool) {
	switch {
	case len(root) == 0:
		return inner, true
	case len(inner) == 0:
		return root, true
	}
	for _, m := range inner {
		before := len(merged)
		for _, r := range root {
			if m.Beyond(r) == "" {
				merged = append(merged, m.and(r))
			}
		}
		if len(merged) == before {
			return nil, false
		}
	}
	return merged, true
}

// Beyond returns the field of a delegate's conditions that lets in what the same field of
// the root's does not, "uri" say; "" if there is none.
func (m *HTTPMatch) Beyond(root *HTTPMatch) string {
	for _, p := range []struct {
		name        string
		root, inner *StringMatch
	}{{"uri", root.URI, m.URI}, {"scheme", root.Scheme, m.Scheme}, {"method", root.Method, m.Method}, {"authority", root.Authority, m.Authority}} {
		if p.root != nil && p.inner != nil && !p.root.Covers(p.inner) {
			return p.name
		}
	}
	switch {
	case root.URI != nil && m.URI != nil && m.IgnoreURICase && !root.IgnoreURICase:
		return "ignoreUriCase"
	case root.Port != 0 && m.Port != 0 && root.Port != m.Port:
		return "port"
	case root.SourceNamespace != "" && m.SourceNamespace != "" && root.SourceNamespace != m.SourceNamespace:
		return "sourceNamespace"
	case len(root.Gateways) > 0 && len(m.Gateways) > 0 && len(common(root.Gateways, m.Gateways)) == 0:
		return "gateways"
	case len(m.Gateways) > 0 && len(root.Gateways) == 0 && (root.SourceNamespace != "" || len(root.SourceLabels) > 0):
		return "gateways" // beside which sources are not looked at
	}
	for k, v := range root.SourceLabels {
		if other, ok := m.SourceLabels[k]; ok && other != v {
			return "sourceLabels"
		}
	}
	return ""
}

// and returns the conditions of a delegate and of its root, beyond which they do not go:
// where both ask for one thing, the delegate's is the narrower.
func (m *HTTPMatch) and(root *HTTPMatch) *HTTPMatch {
	out := *m
	if out.Name = cmp.Or(m.Name, root.Name); m.Name != "" && root.Name != "" {
		out.Name = root.Name + "-" + m.Name
	}
	if m.URI == nil {
		out.URI, out.IgnoreURICase = root.URI, root.IgnoreURICase
	}
	if m.Scheme == nil {
		out.Scheme = root.Scheme
	}
	if m.Method == nil {
		out.Method = root.Method
	}
	if m.Authority == nil {
		out.Authority = root.Authority
	}
	out.Headers = slices.Concat(root.Headers, m.Headers)
	out.WithoutHeaders = slices.Concat(root.WithoutHeaders, m.WithoutHeaders)
	out.QueryParams = slices.Concat(root.QueryParams, m.QueryParams)
	out.Port = max(m.Port, root.Port)
	out.SourceNamespace = max(m.SourceNamespace, root.SourceNamespace)
	if len(root.SourceLabels) > 0 {
		out.SourceLabels = maps.Clone(root.SourceLabels)
		maps.Copy(out.SourceLabels, m.SourceLabels)
	}
	switch {
	case len(m.Gateways) == 0:
		out.Gateways = root.Gateways
	case len(root.Gateways) > 0:
		out.Gateways = common(root.Gateways, m.Gateways)
	}
	return &out
}

func common(a, b []string) (out []string) {
	for _, s := range a {
		if slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// Covers reports whether whatever inner matches, the match does too. It is false where
// that is hard to tell, as of regular expressions.
func (m *StringMatch) Covers(inner *StringMatch) bool {
	switch m.Kind {
	case MatchPresent:
		return true
	case MatchPrefix:
		return (inner.Kind == MatchPrefix || inner.Kind == MatchExact) && strings.HasPrefix(inner.Value, m.Value)
	case MatchExact:
		return inner.Kind == MatchExact && inner.Value == m.Value
	}
	return false
}
