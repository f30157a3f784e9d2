package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// TestDelegate_Inherits checks what the rules of a delegate take from the rule
// that names it, and what they say themselves.
func TestDelegate_Inherits(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		switch {
		case strings.Contains(head, "/silent"):
			return true
		case strings.Contains(head, "/fails"):
			_, err := io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(head), head)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root}
spec:
  hosts: [s.test]
  http:
  - name: team
    match: [{uri: {prefix: /a}}]
    timeout: 400ms
    retries: {attempts: 1, retryOn: "503"}
    rewrite: {uri: /b}
    headers: {request: {set: {x-team: a}}}
    delegate: {name: inner}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inner}
spec:
  http:
  - name: own
    match: [{uri: {prefix: /a/own}}]
    timeout: 0s
    retries: {attempts: 0}
    rewrite: {uri: /c}
    headers: {request: {set: {x-own: "1"}}}
    route: [{destination: {host: s.test}}]
  - route: [{destination: {host: s.test}}]
`)
	for _, tt := range []struct {
		name, path string
		want, not  string
		asked      int
	}{
		{"headers and rewrite of the root", "/a/x", "GET /b/x HTTP/1.1\r\n|x-team: a\r\n", "x-own", 1},
		{"timeout of the root", "/a/silent", "HTTP/1.1 504 |upstream request timeout", "", 1},
		{"retries of the root", "/a/fails", "HTTP/1.1 503 ", "", 2},
		{"its own", "/a/own/x", "GET /c/x HTTP/1.1\r\n|x-own: 1\r\n", "x-team", 1},
		{"retries of its own", "/a/own/fails", "HTTP/1.1 503 ", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(up.seen())
			got := exchangeRaw(t, p.address("outbound"), "GET "+tt.path+" HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
			for want := range strings.SplitSeq(tt.want, "|") {
				if !strings.Contains(got, want) {
					t.Errorf("got %q, want %q in it", got, want)
				}
			}
			if tt.not != "" && strings.Contains(got, tt.not) {
				t.Errorf("got %q, want no %q in it", got, tt.not)
			}
			if asked := len(up.seen()) - before; asked != tt.asked {
				t.Errorf("the upstream was asked %d times, want %d", asked, tt.asked)
			}
		})
	}
	var names []string
	for _, r := range p.table.Load().outbound.exact["s.test"].fallback.routes {
		names = append(names, r.name)
		if own := r.rule.Name == "team-own"; (r.timeout == 0) != own {
			t.Errorf("%s: timeout %d", r.name, r.timeout)
		}
	}
	if got := strings.Join(names, " "); got != "team-own team" {
		t.Errorf("the rules are called %q", got)
	}
}

// TestDelegate_Within checks that a delegate brings what its root lets it have, and no more.
func TestDelegate_Within(t *testing.T) {
	const root = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root}
spec:
  hosts: [s.test]
  http:
  - match: [{uri: {prefix: /a}}, {uri: {prefix: /b}, port: 80}]
    delegate: {name: inner, namespace: team}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inner, namespace: team}
spec:
`
	for _, tt := range []struct{ name, inner, want string }{
		{"each within one of the root's", "{http: [{match: [{uri: {prefix: /a/1}}, {uri: {exact: /b/1}}], directResponse: {status: 200}}]}", "uri /a/1* or uri = /b/1"},
		{"a port, on another", "{http: [{match: [{port: 8080}], directResponse: {status: 200}}]}", ""},
		{"beyond the root", "{http: [{match: [{uri: {prefix: /c}}], directResponse: {status: 200}}]}", ""},
		{"for its own namespace", "{exportTo: ['.'], http: [{directResponse: {status: 200}}]}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, root+"  "+tt.inner+"\n")
			got := ""
			for _, r := range p.table.Load().outbound.exact["s.test"].fallback.routes {
				got += describeMatches(r.matches)
			}
			if got != tt.want {
				t.Errorf("the rules hold for %q, want %q", got, tt.want)
			}
		})
	}
}
