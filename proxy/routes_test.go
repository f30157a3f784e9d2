package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"isthmus/mesh"
)

// rules is a VirtualService whose rules answer with a status of their own, so
// that the status tells which one decided.
const rules = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [rules.test, "*.wild.test", "*.very.wild.test"]
  http:
  - match: [{uri: {exact: /exact}}]
    directResponse: {status: 201}
  - match: [{uri: {prefix: /Prefix/}, ignoreUriCase: true}]
    directResponse: {status: 202}
  - match: [{uri: {regex: "/r[0-9]+"}}]
    directResponse: {status: 203}
  - match: [{uri: {exact: /Whole}, ignoreUriCase: true}]
    directResponse: {status: 204}
  - match: [{method: {exact: DELETE}}]
    directResponse: {status: 205}
  - match: [{headers: {x-a: {exact: "1"}, x-b: {prefix: b}}}, {headers: {x-c: {regex: "c+"}}}, {headers: {x-d: {}}}]
    directResponse: {status: 206}
  - match: [{queryParams: {q: {exact: "a b"}}}, {queryParams: {p: {}}}]
    directResponse: {status: 207}
  - match: [{uri: {prefix: /without}, withoutHeaders: {x-token: {exact: secret}}}]
    directResponse: {status: 208}
  - match: [{uri: {prefix: /without}, withoutHeaders: {x-token: {}}}]
    directResponse: {status: 209}
  - match: [{authority: {prefix: port.}}]
    directResponse: {status: 210}
  - match: [{uri: {prefix: /port}, port: 8080}]
    directResponse: {status: 211}
  - match: [{uri: {prefix: /label}, sourceLabels: {app: client}}]
    directResponse: {status: 212}
  - match: [{uri: {prefix: /label}, sourceLabels: {app: other}}]
    directResponse: {status: 213}
  - match: [{uri: {prefix: /ns}, sourceNamespace: elsewhere}]
    directResponse: {status: 214}
  - match: [{uri: {prefix: /delegated}}]
    delegate: {name: inner}
  - match: [{scheme: {exact: https}}]
    directResponse: {status: 216}
  - directResponse: {status: 299, body: {string: "the last"}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inner}
spec:
  http:
  - match: [{uri: {prefix: /delegated/a}}]
    directResponse: {status: 217}
  - match: [{headers: {x-in: {exact: "1"}}}]
    directResponse: {status: 218}
`

func TestRoutes_Match(t *testing.T) {
	p := serve(t, Options{}, rules)
	for _, tt := range []struct {
		request string // request line and fields, without Host and the end
		status  string
	}{
		{"GET /exact", "201"},
		{"GET /exact?q=1", "201"},
		{"GET /exact/", "299"},
		{"GET /a/../exact", "201"},
		{"GET /prefix/x", "202"},
		{"GET /PREFIX/", "202"},
		{"GET /prefix", "299"},
		{"GET /r12", "203"},
		{"GET /r12/x", "299"}, // the whole path, not a part
		{"GET /x/r12", "299"},
		{"GET /wHOLE", "204"},
		{"GET /wHOLE/", "299"},
		{"DELETE /", "205"},
		{"GET / x-a:1 x-b:blue", "206"},
		{"GET / X-A:1 X-B:blue", "206"},
		{"GET / x-a:1", "299"},
		{"GET / x-c:ccc", "206"},
		{"GET / x-c:cxc", "299"},
		{"GET / x-d:", "206"},
		{"GET /?q=a%20b", "207"},
		{"GET /?x=1&p", "207"},
		{"GET /?pp=1", "299"},
		{"GET /without", "208"},
		{"GET /without x-token:other", "208"},
		{"GET /without x-other:secret", "208"},
		{"GET /without x-token:secret", "299"},
		{"GET /without x-token:other x-token:secret", "299"}, // one line more does not hide the other
		{"GET /port", "299"},
		{"GET /label", "212"},
		{"GET /ns", "299"},
		{"GET /delegated/a/b", "217"},
		{"GET /delegated/b x-in:1", "218"},
		{"GET /delegated/b", "299"},
	} {
		t.Run(tt.request, func(t *testing.T) {
			parts := strings.Split(tt.request, " ")
			raw := parts[0] + " " + parts[1] + " HTTP/1.1\r\nHost: rules.test\r\n"
			for _, f := range parts[2:] {
				raw += strings.Replace(f, ":", ": ", 1) + "\r\n"
			}
			if got := exchangeRaw(t, p.address("outbound"), raw+"\r\n", whole(1)); status(got) != tt.status {
				t.Errorf("status %s, want %s", status(got), tt.status)
			}
		})
	}
}

func TestRoutes_Hosts(t *testing.T) {
	p := serve(t, Options{}, rules)
	for host, want := range map[string]string{
		"rules.test": "299", "RULES.test": "299", "rules.test.": "299", "rules.test:9999": "299",
		"a.wild.test": "299", "a.b.wild.test": "299", "wild.test": "404",
		"xrules.test": "404", "port.wild.test": "210",
	} {
		if got := exchangeRaw(t, p.address("outbound"), get(host), whole(1)); status(got) != want {
			t.Errorf("%s: status %s, want %s", host, status(got), want)
		}
	}
}

// TestRoutes_Ports: of a host that no service bears, a match asks for the port that a
// request is addressed to.
func TestRoutes_Ports(t *testing.T) {
	p := serve(t, Options{}, `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [ports.test, "*.ports.test"]
  http:
  - match: [{port: 8080}]
    directResponse: {status: 201}
  - match: [{port: 80, uri: {prefix: /x}}]
    directResponse: {status: 202}
  - match: [{uri: {prefix: /d}}]
    delegate: {name: inner}
  - directResponse: {status: 299}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inner}
spec: {http: [{match: [{port: 9090}], directResponse: {status: 203}}]}
`)
	for _, tt := range []struct{ host, path, want string }{
		{"ports.test", "/", "299"}, {"ports.test", "/x", "202"}, {"ports.test:80", "/x", "202"},
		{"ports.test:8080", "/x", "201"}, {"a.ports.test:8080", "/", "201"},
		{"ports.test:9999", "/x", "299"}, {"ports.test:9090", "/x", "299"}, {"ports.test:9090", "/d", "203"}, {"ports.test", "/d", "299"},
	} {
		got := exchangeRaw(t, p.address("outbound"), "GET "+tt.path+" HTTP/1.1\r\nHost: "+tt.host+"\r\n\r\n", whole(1))
		if status(got) != tt.want {
			t.Errorf("%s%s: %s, want %s", tt.host, tt.path, status(got), tt.want)
		}
	}
}

// TestRoutes_Names: a VirtualService holds for all forms of a service's name, before
// those for wildcards, and for a host that lies under a ServiceEntry's wildcard.
func TestRoutes_Names(t *testing.T) {
	answering := func(name, host string, status int) string {
		return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s}
spec: {hosts: [%s], http: [{directResponse: {status: %d}}]}
`, name, host, status)
	}
	p := serve(t, Options{}, `
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: full}, spec: {ports: [{port: 80, name: http}]}}
- {apiVersion: v1, kind: Service, metadata: {name: short}, spec: {ports: [{port: 80, name: http}]}}
- {apiVersion: v1, kind: Service, metadata: {name: plain}, spec: {ports: [{port: 80, name: http}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec:
  hosts: ["*.partner.test"]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1}]
`+answering("any", `"*"`, 201)+answering("full", "full.default.svc.cluster.local", 202)+answering("short", "short.default", 203)+
		answering("local", `"*.svc.cluster.local"`, 204)+answering("api", "api.partner.test", 205)+answering("below", `"*.eu.partner.test"`, 206))
	for host, want := range map[string]string{
		"full": "202", "full.default": "202", "full.default.svc": "202", "full.default.svc.cluster.local": "202", "full.default.global": "201",
		"short": "203", "short.default": "203", "short.default.svc": "203", "short.default.svc.cluster.local:80": "203",
		"plain": "204", "plain.default": "204", "plain.default.svc.cluster.local": "204",
		"api.partner.test": "205", "api.partner.test:80": "205", "api.partner.test:81": "404", "a.eu.partner.test": "206", "other.partner.test": "201", "else.test": "201",
	} {
		if got := exchangeRaw(t, p.address("outbound"), get(host), whole(1)); status(got) != want {
			t.Errorf("%s: status %s, want %s", host, status(got), want)
		}
	}
}

// TestRoutes_Addresses: a ServiceEntry's host can be named by its addresses, at its ports,
// unless a host has that name itself.
func TestRoutes_Addresses(t *testing.T) {
	p := serve(t, Options{}, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: another, namespace: other}
spec:
  hosts: [another.test]
  addresses: [169.254.169.254, 10.0.0.9]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: another}
spec: {hosts: [another.test], http: [{directResponse: {status: 203}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.wild.test", wild.test]
  addresses: [10.0.0.10]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild}
spec: {hosts: ["*.wild.test"], http: [{directResponse: {status: 204}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: metadata}
spec:
  hosts: [metadata.test]
  addresses: [169.254.169.254, 10.0.0.7/32, 10.1.0.0/16, "fd00::1", 10.9.9.9]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: private, namespace: other}
spec:
  hosts: [private.test]
  addresses: [10.0.0.8]
  exportTo: ["."]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: metadata}
spec: {hosts: [metadata.test], http: [{directResponse: {status: 201}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: address}
spec: {hosts: [10.9.9.9], http: [{directResponse: {status: 202}}]}
`)
	for host, want := range map[string]string{
		"metadata.test": "201", "169.254.169.254": "201", "169.254.169.254:80": "201", "169.254.169.254:81": "404", "10.0.0.7": "201", "[fd00::1]": "201",
		"10.1.0.1": "404", "10.0.0.8": "404", "10.9.9.9": "202",
		"10.0.0.9": "203", "10.0.0.10": "204",
	} {
		if got := exchangeRaw(t, p.address("outbound"), get(host), whole(1)); status(got) != want {
			t.Errorf("%s: status %s, want %s", host, status(got), want)
		}
	}
}

// TestRoutes_Actions checks redirects, rewrites and header operations.
func TestRoutes_Actions(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nServer: up\r\nX-Old: 1\r\nContent-Length: %d\r\n\r\n%s", len(head), head)
		return true
	})
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - match: [{uri: {prefix: /moved/secure}}]
    headers: {response: {set: {strict-transport-security: max-age=60}}}
    redirect: {scheme: https}
  - match: [{uri: {prefix: /said}}]
    headers: {response: {set: {content-type: application/json}, add: {x-a: b}}}
    directResponse: {status: 200, body: {string: "{}"}}
  - match: [{uri: {prefix: /plain}}]
    headers: {response: {set: {connection: x-b, x-a: b}}}
    directResponse: {status: 404, body: {string: no}}
  - match: [{uri: {prefix: /moved}}]
    redirect: {authority: other.test, redirectCode: 308}
  - match: [{uri: {prefix: /secure}}]
    redirect: {scheme: https}
  - match: [{uri: {exact: /there}}]
    redirect: {uri: /here}
  - match: [{uri: {exact: /login}}]
    redirect: {uri: "/in?from=x"}
  - match: [{uri: {exact: /port}}]
    redirect: {scheme: https, authority: "other.test:8443"}
  - match: [{uri: {exact: /ports}}]
    redirect: {scheme: https, authority: "other.test:8443", port: 9443}
  - match: [{uri: {prefix: /old/}}]
    redirect: {prefixRewrite: /new/}
  - match: [{uri: {prefix: /v1/}}]
    rewrite: {uri: /}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {prefix: /users/}}]
    rewrite: {uriRegexRewrite: {match: '^/users/(\d+)/(.*)$', rewrite: '/\2?id=\1'}, authority: inner.test}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {prefix: /api}}]
    rewrite: {uri: /}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {prefix: /short}}]
    rewrite: {uri: v4}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {prefix: /strip}}]
    rewrite: {uriRegexRewrite: {match: '^/strip(?:/x)?', rewrite: ''}}
    route: [{destination: {host: s.test}}]
  - match: [{method: {exact: OPTIONS}, headers: {x-api: {exact: strip}}}]
    rewrite: {uriRegexRewrite: {match: '.*', rewrite: ''}}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {prefix: /version/}}]
    rewrite: {uriRegexRewrite: {match: '^/version/(\d*)/(\d*)/(\d*)', rewrite: '/pkg/\1.\2.\3'}}
    route: [{destination: {host: s.test}}]
  - match: [{headers: {x-api: {exact: v2}}}]
    rewrite: {uri: /v2/}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {}, headers: {x-api: {exact: v3}}}]
    rewrite: {uri: /v3/}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {exact: /all}}, {uri: {regex: /every.*}}]
    rewrite: {uri: /one}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {prefix: /headers}}]
    headers:
      request: {set: {x-set: new}, add: {x-add: one}, remove: [x-gone]}
      response: {set: {server: isthmus}, remove: [x-old]}
    route: [{destination: {host: s.test}, headers: {request: {set: {host: by-rule.test}, add: {x-add: two, host: added.test}}}}]
  - match: [{uri: {prefix: /both}}]
    headers:
      request: {set: {host: route.test, x-both: route}}
      response: {set: {server: route}, add: {x-more: route}}
    route: [{destination: {host: s.test}, headers: {request: {set: {host: destination.test, x-both: destination}}, response: {set: {server: destination}, add: {x-more: destination}}}}]
  - route: [{destination: {host: s.test}}]
`)
	for _, tt := range []struct {
		name, request string
		want, not     []string
	}{
		{"a redirect with headers", "GET /moved/secure HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 301 ", "location: https://s.test/moved/secure\r\n", "strict-transport-security: max-age=60\r\n"}, nil},
		{"an answer of a type", "GET /said HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 200 ", "content-type: application/json\r\n", "x-a: b\r\n", "\r\n\r\n{}"}, []string{"text/plain"}},
		{"an answer with headers", "GET /plain HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 404 ", "content-type: text/plain\r\n", "x-a: b\r\n"}, []string{"connection: x-b"}},
		{"redirect to another authority", "GET /moved/a?b HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 308 ", "location: http://other.test/moved/a?b\r\n"}, nil},
		{"redirect to https", "GET /secure HTTP/1.1\r\nHost: s.test:80\r\n\r\n", []string{"HTTP/1.1 301 ", "location: https://s.test/secure\r\n"}, nil},
		{"redirect with the query", "GET /there?a=1 HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"location: http://s.test/here?a=1\r\n"}, nil},
		{"redirect to another query", "GET /login?a=1 HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"location: http://s.test/in?from=x\r\n"}, nil},
		{"redirect to an authority with a port", "GET /port HTTP/1.1\r\nHost: s.test:80\r\n\r\n", []string{"location: https://other.test:8443/port\r\n"}, nil},
		{"redirect to another port of it", "GET /ports HTTP/1.1\r\nHost: s.test:80\r\n\r\n", []string{"location: https://other.test:9443/ports\r\n"}, nil},
		{"redirect below another prefix", "GET /old/a/b?c HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"location: http://s.test/new/a/b?c\r\n"}, nil},
		{"redirect to another path", "GET /there HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"location: http://s.test/here\r\n"}, nil},
		{"rewrite a prefix", "GET /v1/a?b HTTP/1.1\r\nHost: s.test\r\nX-Envoy-Original-Path: /old\r\nX-Envoy-Original-Host: old.test\r\n\r\n",
			[]string{"GET /a?b HTTP/1.1\r\n", "\r\nx-envoy-original-path: /v1/a?b\r\n", "\r\nX-Envoy-Original-Host: old.test\r\n"}, []string{"/old", "x-envoy-original-host"}},
		{"rewrite nothing", "GET /unchanged HTTP/1.1\r\nHost: s.test\r\n\r\n", nil, []string{"x-envoy-original"}},
		{"rewrite any path", "GET /users?id=1 HTTP/1.1\r\nHost: s.test\r\nx-api: v2\r\n\r\n", []string{"GET /v2/users?id=1 HTTP/1.1\r\n"}, nil},
		{"rewrite the shortest path", "GET / HTTP/1.1\r\nHost: s.test\r\nx-api: v2\r\n\r\n", []string{"GET /v2/ HTTP/1.1\r\n"}, nil},
		{"rewrite no path", "OPTIONS * HTTP/1.1\r\nHost: s.test\r\nx-api: v2\r\n\r\n", []string{"OPTIONS * HTTP/1.1\r\n"}, nil},
		{"rewrite no path by regex", "OPTIONS * HTTP/1.1\r\nHost: s.test\r\nx-api: strip\r\n\r\n", []string{"OPTIONS * HTTP/1.1\r\n"}, nil},
		{"rewrite any path that is there", "GET /users HTTP/1.1\r\nHost: s.test\r\nx-api: v3\r\n\r\n", []string{"GET /v3/users HTTP/1.1\r\n"}, nil},
		{"rewrite an exact path", "GET /all HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /one HTTP/1.1\r\n"}, nil},
		{"rewrite a path that fits", "GET /everything HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /one HTTP/1.1\r\n"}, nil},
		{"rewrite by regex", "GET /users/42/mail HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /mail?id=42 HTTP/1.1\r\nhost: inner.test\r\n", "x-envoy-original-path: /users/42/mail\r\n", "x-envoy-original-host: s.test\r\n"}, nil},
		{"rewrite to dot segments", "GET /api../x HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 400 "}, []string{"GET "}},
		{"rewrite to a dot", "GET /api. HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 400 "}, []string{"GET "}},
		{"rewrite to escaped dot segments", "GET /api%2e.%2Fx HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 400 "}, []string{"GET "}},
		{"rewrite to dot segments by regex", "GET /strip/x..%2fy HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 400 "}, []string{"GET "}},
		{"rewrite to dot segments of no dots", "GET /version////x HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"HTTP/1.1 400 "}, []string{"GET "}},
		{"rewrite to dots", "GET /version/1/2/3/x HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /pkg/1.2.3/x HTTP/1.1\r\n"}, nil},
		{"rewrite beside dots", "GET /api/..x/a.css HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /..x/a.css HTTP/1.1\r\n"}, nil},
		{"rewrite to nothing", "GET /strip?a HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /?a HTTP/1.1\r\n"}, nil},
		{"rewrite without a slash", "GET /short/a HTTP/1.1\r\nHost: s.test\r\n\r\n", []string{"GET /v4/a HTTP/1.1\r\n"}, nil},
		{"headers", "GET /headers HTTP/1.1\r\nHost: s.test\r\nX-Set: old\r\nX-Gone: 1\r\n\r\n",
			[]string{"host: by-rule.test\r\n", "x-set: new\r\n", "x-add: one\r\n", "x-add: two\r\n", "server: isthmus\r\n"}, []string{"X-Set: old", "X-Gone", "X-Old", "Server: up"}},
		{"headers of route and destination", "GET /both HTTP/1.1\r\nHost: s.test\r\n\r\n",
			[]string{"host: route.test\r\n", "x-both: destination\r\n", "server: destination\r\n", "x-more: route\r\n", "x-more: destination\r\n"}, []string{"x-both: route", "server: route", "host: destination"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := exchangeRaw(t, p.address("outbound"), tt.request, whole(1))
			for _, w := range tt.want {
				if !strings.Contains(got, w) {
					t.Errorf("got %q, want %q in it", got, w)
				}
			}
			for _, n := range tt.not {
				if strings.Contains(got, n) {
					t.Errorf("got %q, want no %q in it", got, n)
				}
			}
		})
	}
}

// TestGateway checks what a gateway serves, and what it believes of its
// clients.
func TestGateway(t *testing.T) {
	up := replying(t, okReply)
	node := testNode()
	node.Labels = map[string]string{"istio": "ingressgateway"}
	yaml := entry("s.test", up.address) + `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.example.com", "other/strict.test"]}
  - {port: {number: 81, name: redirect, protocol: HTTP}, hosts: ["*"], tls: {httpsRedirect: true}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: foreign}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 82, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [a.example.com, "*.b.example.com", strict.test, outside.test]
  gateways: [g]
  http: [{route: [{destination: {host: s.test}}]}]
`
	ports := map[uint32]uint32{80: 0, 81: 0, 82: 0} // 0: any that is free
	p := serve(t, Options{Node: node, GatewayPorts: ports}, yaml)
	if p.address("gateway:82") != "" {
		t.Error("the port of another proxy's Gateway is open")
	}
	for host, want := range map[string]string{
		"a.example.com": "200", "A.example.com:8080": "200", "x.b.example.com": "200", "c.example.com": "404", "strict.test": "404", "outside.test": "404",
	} {
		if got := exchangeRaw(t, p.address("gateway:80"), get(host), whole(1)); status(got) != want {
			t.Errorf("%s: status %s, want %s", host, status(got), want)
		}
	}
	if got := exchangeRaw(t, p.address("gateway:81"), get("any.test"), whole(1)); !strings.Contains(got, "location: https://any.test/\r\n") {
		t.Errorf("httpsRedirect: %q", got)
	}
	if got := exchangeRaw(t, p.address("outbound"), get("a.example.com"), whole(1)); status(got) != "404" {
		t.Errorf("a rule of the gateway holds for the mesh: %q", got)
	}
	exchangeRaw(t, p.address("gateway:80"), "GET /spoof HTTP/1.1\r\nHost: a.example.com\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Client-Cert: URI=spiffe://x\r\nX-Isthmus-Destination: s:80\r\nX-Envoy-Internal: true\r\nx-envoy-expected-rq-timeout-ms: 1\r\n\r\n", whole(1))
	heads := up.seen()
	last := strings.ToLower(heads[len(heads)-1])
	for _, not := range []string{"client-cert", "x-isthmus", "x-envoy-internal", "expected-rq", "x-forwarded-proto: https"} {
		if strings.Contains(last, not) {
			t.Errorf("the upstream got %q, want no %q in it", last, not)
		}
	}
	if got := exchangeRaw(t, p.address("gateway:80"), "GET / HTTP/1.1\r\nHost: a.example.com\r\nx_forwarded_for: 1\r\n\r\n", nil); status(got) != "400" {
		t.Errorf("a field with an underscore: %q", got)
	}
}

// TestInbound finds out which service a request of the mesh is for.
func TestInbound(t *testing.T) {
	web, api := replying(t, strings.Replace(okReply, "ok", "1!", 1)), replying(t, strings.Replace(okReply, "ok", "2!", 1))
	service := func(name, address string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {selector: {app: client}, ports: [{name: http, port: 80, targetPort: %d}]}
---
`, name, netip.MustParseAddrPort(address).Port())
	}
	p := serve(t, Options{Inbound: "127.0.0.1:0"}, service("web", web.address)+service("api", api.address))
	for _, tt := range []struct{ name, head, want string }{
		{"destination", "Host: whatever\r\nx-isthmus-destination: api.default:80\r\n", "2!"},
		{"destination by a full name", "Host: whatever\r\nx-isthmus-destination: web.default.svc.cluster.local:80\r\n", "1!"},
		{"destination unknown", "Host: web\r\nx-isthmus-destination: db.default:80\r\n", "404"},
		{"host", "Host: api.default.global\r\n", "2!"},
		{"no way to tell", "Host: example.com\r\n", "404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\n"+tt.head+"\r\n", whole(1))
			if status(got) != tt.want && !strings.HasSuffix(got, tt.want) {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
	for _, head := range append(web.seen(), api.seen()...) {
		if strings.Contains(head, "x-isthmus-destination") {
			t.Errorf("the application got %q", head)
		}
	}
	t.Run("only one service", func(t *testing.T) {
		publish(t, p, service("web", web.address))
		if got := exchangeRaw(t, p.address("inbound"), get("example.com"), whole(1)); !strings.HasSuffix(got, "1!") {
			t.Errorf("got %q", got)
		}
		if got := exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\nHost: web\r\nx-isthmus-destination: db.default:80\r\n\r\n", whole(1)); status(got) != "404" {
			t.Errorf("a destination that is not here: %q", got)
		}
	})
	t.Run("tries of the calling proxy", func(t *testing.T) {
		up := replying(t, okReply)
		p := serve(t, Options{Inbound: "127.0.0.1:0"}, service("web", up.address))
		exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\nHost: web\r\nx-envoy-attempt-count: 3\r\n\r\n"+get("web"), whole(2))
		for i, want := range []string{"x-envoy-attempt-count: 3\r\n", "x-envoy-attempt-count: 1\r\n"} {
			if seen := up.seen(); len(seen) != 2 || strings.Count(seen[i], "x-envoy-attempt-count") != 1 || !strings.Contains(seen[i], want) {
				t.Errorf("the application got %q, want %q", seen, want)
			}
		}
	})
	t.Run("application down", func(t *testing.T) {
		publish(t, p, service("web", deadAddress(t)))
		if got := exchangeRaw(t, p.address("inbound"), get("web"), whole(1)); status(got) != "503" || !strings.Contains(got, "x-isthmus-unsent: true") {
			t.Errorf("got %q", got)
		}
	})
}

// TestThrough serves the services of the own cluster to others.
func TestThrough(t *testing.T) {
	up := replying(t, okReply)
	e := mesh.Endpoint{
		Service: "s.default", Port: mesh.Port{Number: 80, Name: "http"}, Address: netip.MustParseAddrPort(up.address),
		Cluster: "c1", Weight: 1, Via: true, Source: mesh.SourceGossip, Owner: "c1/default/other",
	}
	p := serve(t, Options{Inbound: "127.0.0.1:0", Through: true}, "", e)
	got := exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\nHost: s.default.global\r\nx-isthmus-destination: s.default:80\r\n\r\n", whole(1))
	if status(got) != "200" {
		t.Fatalf("got %q", got)
	}
	if head := up.seen()[0]; !strings.Contains(head, "x-isthmus-destination: s.default:80\r\n") {
		t.Errorf("the sidecar got %q, want the destination in it", head)
	}
}
