package config

import (
	"strings"
	"testing"
)

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

// TestVirtualService_NothingIsSent: what is about requests that are sent on is named beside
// rules that send none.
func TestVirtualService_NothingIsSent(t *testing.T) {
	const fields = "\n    timeout: 1s\n    retries: {attempts: 2, retryOn: 5xx}\n    headers: {request: {set: {a: b}}, response: {set: {a: b}}}"
	for _, tt := range []struct {
		rule string
		want int
	}{
		{"redirect: {uri: /a}", 3},
		{"directResponse: {status: 200}", 3},
		{"route: [{destination: {host: web}}]", 0},
		{"delegate: {name: other}", 0},
	} {
		n := 0
		for _, f := range findingsOf(t, webRoute(tt.rule+fields), ISM0001) {
			if strings.Contains(f.Message, "has no effect without a route") {
				n++
			}
		}
		if n != tt.want {
			t.Errorf("%s: %d findings, want %d", tt.rule, n, tt.want)
		}
	}
	checkFinding(t, webRoute("redirect: {uri: /a}"+fields), "", ISM0030)
}

// TestVirtualService_IgnoreURICase: it is about paths that are written as they are.
func TestVirtualService_IgnoreURICase(t *testing.T) {
	for match, want := range map[string]string{
		"uri: {exact: /a}":     "",
		"uri: {prefix: /a}":    "",
		`uri: {regex: "/a.*"}`: "http[0].match[0].ignoreUriCase: has no effect",
		"method: {exact: GET}": "http[0].match[0].ignoreUriCase: has no effect",
	} {
		checkFinding(t, webRoute("match: [{ignoreUriCase: true, "+match+"}]\n    directResponse: {status: 200}"), want, ISM0001)
	}
}

// TestVirtualService_HostHeader: what a rule sets as the host of requests is one.
func TestVirtualService_HostHeader(t *testing.T) {
	for headers, want := range map[string]string{
		"request: {set: {host: 'a.test:8080'}}":      "",
		"request: {set: {':authority': '[::1]:80'}}": "",
		"request: {set: {host: 'a test'}}":           `http[0].headers.request.set.host: "a test" is no host`,
		"request: {add: {':authority': ''}}":         `http[0].headers.request.add.:authority: "" is no host`,
		"response: {add: {x-host: 'a test'}}":        "",
	} {
		text := webRoute("headers: {" + headers + "}\n    route: [{destination: {host: web.test}}]")
		r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil)
		if r.HasErrors() != (want != "") || want != "" && !strings.Contains(r.Findings[0].String(), want) {
			t.Errorf("%s: findings %v, want %q", headers, r.Findings, want)
		}
	}
}

// TestVirtualService_IdleConditions: conditions of retries that nothing meets are named, and
// judged no further.
func TestVirtualService_IdleConditions(t *testing.T) {
	for on, want := range map[string]string{
		"connect-failure":                        "",
		"connect-failure,503":                    "",
		"retriable-status-codes,503":             "",
		"connect-failure,retriable-status-codes": "http[0].retries.retryOn: retriable-status-codes has no effect: no status is named: write 503, say, beside it or in its place (ISM0001)",
		"retriable-headers":                      "retriable-headers has no effect: no header is named, nor can one be; nothing is ever tried again",
		"http3-post-connect-failure,5xx":         "http3-post-connect-failure has no effect: no endpoint is spoken to by HTTP/3 (ISM0001)",
	} {
		text := webRoute("retries: {attempts: 1, retryOn: '" + on + "'}\n    timeout: 1s\n    route: [{destination: {host: web.test}}]")
		checkFinding(t, text, want, ISM0001)
		if !strings.Contains(on, "5") {
			checkFinding(t, text, "", ISM0030)
		}
	}
}
