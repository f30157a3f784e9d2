package config

import "testing"

// TestVirtualService_Rooted: a redirect's path begins with a slash, or it would be a part of
// the host's name.
func TestVirtualService_Rooted(t *testing.T) {
	for _, tt := range []struct{ redirect, uri, prefixURI, want string }{
		{"uri: /a", "/a", "", ""},
		{"uri: .evil.test/a", "/.evil.test/a", "", "http[0].redirect.uri: begins with no slash, and is taken for /.evil.test/a"},
		{"uri: 'https://b.test/a'", "/https://b.test/a", "", "write scheme, authority and uri each by itself"},
		{"uri: '%PREFIX()%a'", "", "/a", "http[0].redirect.uri: begins with no slash"},
		{"prefixRewrite: /a", "", "/a", ""},
		{"prefixRewrite: a", "", "/a", "http[0].redirect.prefixRewrite: begins with no slash, and is taken for /a"},
	} {
		text := webRoute("match: [{uri: {prefix: /x}}]\n    redirect: {" + tt.redirect + "}")
		checkFinding(t, text, tt.want, ISM0069)
		r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil)
		if got := r.Config.VirtualServices[0].HTTP[0].Redirect; got.URI != tt.uri || got.PrefixURI != tt.prefixURI {
			t.Errorf("%s: read as %q and %q, want %q and %q", tt.redirect, got.URI, got.PrefixURI, tt.uri, tt.prefixURI)
		}
	}
}
