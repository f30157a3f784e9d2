package mesh

import (
	"fmt"
	"testing"
)

// TestDelegatedMatches: what a rule of a delegate asks for holds together with what the
// root's asks for, as far as it does not go beyond that.
func TestDelegatedMatches(t *testing.T) {
	prefix := func(path string) *HTTPMatch {
		return &HTTPMatch{URI: &StringMatch{Kind: MatchPrefix, Value: path}}
	}
	on := func(p ProxyMatch) *HTTPMatch { return &HTTPMatch{ProxyMatch: p} }
	port := func(n uint32) *HTTPMatch { return on(ProxyMatch{Port: n}) }
	from := func(app string) *HTTPMatch { return on(ProxyMatch{SourceLabels: map[string]string{"app": app}}) }
	at := func(gateways ...string) *HTTPMatch { return on(ProxyMatch{Gateways: gateways}) }
	folded := func(m *HTTPMatch) *HTTPMatch { m.IgnoreURICase = true; return m }
	for _, tt := range []struct {
		name        string
		root, inner []*HTTPMatch
		want        string
		beyond      string // of the first of each
	}{
		{"none of the root's", nil, []*HTTPMatch{prefix("/a")}, "[/a]", ""},
		{"none of its own", []*HTTPMatch{prefix("/a")}, nil, "[/a]", ""},
		{"within", []*HTTPMatch{prefix("/a")}, []*HTTPMatch{prefix("/a/1")}, "[/a/1]", ""},
		{"each within another", []*HTTPMatch{prefix("/a"), prefix("/b")}, []*HTTPMatch{prefix("/b/1"), prefix("/a/1")}, "[/b/1 /a/1]", "uri"},
		{"within several", []*HTTPMatch{prefix("/a"), port(80)}, []*HTTPMatch{prefix("/a/1")}, "[/a/1 /a/1:80]", ""},
		{"one of them beyond", []*HTTPMatch{prefix("/a")}, []*HTTPMatch{prefix("/a/1"), prefix("/b")}, "none", ""},
		{"beyond", []*HTTPMatch{prefix("/a")}, []*HTTPMatch{prefix("/b")}, "none", "uri"},
		{"the path of the root", []*HTTPMatch{folded(prefix("/a"))}, []*HTTPMatch{port(80)}, "[/a:80 folded]", ""},
		{"a case of the root's path", []*HTTPMatch{prefix("/a")}, []*HTTPMatch{folded(port(80))}, "[/a:80]", ""},
		{"more cases than the root", []*HTTPMatch{prefix("/a")}, []*HTTPMatch{folded(prefix("/a/1"))}, "none", "ignoreUriCase"},
		{"fewer cases than the root", []*HTTPMatch{folded(prefix("/a"))}, []*HTTPMatch{prefix("/a/1")}, "[/a/1]", ""},
		{"the port of the root", []*HTTPMatch{port(80)}, []*HTTPMatch{prefix("/a")}, "[/a:80]", ""},
		{"another port", []*HTTPMatch{port(80)}, []*HTTPMatch{port(8080)}, "none", "port"},
		{"another namespace", []*HTTPMatch{on(ProxyMatch{SourceNamespace: "a"})}, []*HTTPMatch{on(ProxyMatch{SourceNamespace: "b"})}, "none", "sourceNamespace"},
		{"labels of both", []*HTTPMatch{from("a")}, []*HTTPMatch{on(ProxyMatch{SourceLabels: map[string]string{"version": "v1"}})}, "[map[app:a version:v1]]", ""},
		{"another label", []*HTTPMatch{from("a")}, []*HTTPMatch{from("b")}, "none", "sourceLabels"},
		{"the gateways of both", []*HTTPMatch{at("mesh", "a/gw")}, []*HTTPMatch{at("b/gw", "a/gw")}, "[[a/gw]]", ""},
		{"another gateway", []*HTTPMatch{at("mesh")}, []*HTTPMatch{at("a/gw")}, "none", "gateways"},
		{"a gateway, which is not asked for labels", []*HTTPMatch{from("a")}, []*HTTPMatch{at("mesh")}, "none", "gateways"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			merged, ok := DelegatedMatches(tt.root, tt.inner)
			var got []string
			for _, m := range merged {
				s := ""
				if m.URI != nil {
					s = m.URI.Value
				}
				if m.Port != 0 {
					s += fmt.Sprintf(":%d", m.Port)
				}
				if len(m.SourceLabels) > 0 {
					s += fmt.Sprint(m.SourceLabels)
				}
				if len(m.Gateways) > 0 {
					s += fmt.Sprint(m.Gateways)
				}
				if m.IgnoreURICase {
					s += " folded"
				}
				got = append(got, s)
			}
			if text := fmt.Sprint(got); ok && text != tt.want || ok == (tt.want == "none") {
				t.Errorf("got %s, %v; want %s", text, ok, tt.want)
			}
			if len(tt.root) > 0 && len(tt.inner) > 0 {
				if got := tt.inner[0].Beyond(tt.root[0]); got != tt.beyond {
					t.Errorf("beyond by %q, want %q", got, tt.beyond)
				}
			}
		})
	}
}
