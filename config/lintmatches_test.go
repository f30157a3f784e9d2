package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"isthmus/mesh"
)

const webEntry = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: prod}
spec:
  hosts: [web.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, labels: {v: a}}, {address: 10.0.0.2, labels: {v: b}}]
---
`

func webRoute(rule string) string {
	return webEntry + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: prod}\nspec:\n  hosts: [web.test]\n  http:\n  - " + rule + "\n"
}

// TestLint_Never: what no request meets, and what leads elsewhere than it seems
// to, is named; what is like it and means what it says is not.
func TestLint_Never(t *testing.T) {
	match := func(m string) string {
		return webRoute("match: [{" + m + "}]\n    route: [{destination: {host: web.test}}]")
	}
	policy := func(rule string) string {
		return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: prod}\nspec:\n  rules: [{" + rule + "}]\n"
	}
	gateway := "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: prod}\nspec:\n  selector: {a: b}\n  servers:\n  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [web.test]}\n  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [web.test], tls: {mode: SIMPLE, credentialName: web}}\n"
	edge := func(rule string) string {
		return strings.Replace(webRoute(rule), "hosts: [web.test]\n  http", "hosts: [web.test]\n  gateways: [gw]\n  http", 1) + gateway
	}
	tokens := func(label string) string {
		return "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: t, namespace: prod}\nspec: {selector: {matchLabels: {a: " + label + "}}, jwtRules: [{issuer: a, jwksUri: \"https://a.test\"}]}\n"
	}
	claim := edge("match: [{headers: {\"@request.auth.claims.sub\": {exact: a}}}]\n    directResponse: {status: 200}")
	for _, tt := range []struct {
		name, text string
		want       Code // "": none of those below
	}{
		{"a path", match("uri: {prefix: /api}"), ""},
		{"a path without its slash", match("uri: {prefix: api}"), ISM0068},
		{"a path with a query", match(`uri: {exact: "/a?x=1"}`), ISM0068},
		{"a path with a space", match(`uri: {exact: "/a b"}`), ISM0068},
		{"an escaped space", match(`uri: {exact: "/a%20b"}`), ""},
		{"an escape that is undone", match(`uri: {exact: "/%7Euser"}`), ISM0068},
		{"a path beyond ASCII", match(`uri: {exact: "/café"}`), ISM0068},
		{"a dot segment", match("uri: {prefix: /a/../b}"), ISM0068},
		{"hidden files", match("uri: {prefix: /.well-known/..}"), ""},
		{"a star", match(`uri: {prefix: "/api/*"}`), ISM0068},
		{"the star of OPTIONS", match(`uri: {exact: "*"}`), ""},
		{"an expression", match(`uri: {regex: "^/v[0-9]+/.*$"}`), ""},
		{"an expression without its slash", match(`uri: {regex: "api/.*"}`), ISM0068},
		{"any beginning", match(`uri: {regex: ".*/api"}`), ""},
		{"an alternative", match(`uri: {regex: "(/a|/b)(/.*)?"}`), ""},
		{"an expression with a query", match(`uri: {regex: "/q\\?x=.*"}`), ISM0068},
		{"a query that may be missing", match(`uri: {regex: "/q(\\?.*)?"}`), ""},
		{"a method", match("method: {exact: post}"), ISM0068},
		{"a method of one's own", match("method: {exact: purge}"), ""},
		{"a scheme", match("scheme: {exact: HTTPS}"), ISM0068},
		{"an authority of another host", match("authority: {exact: other.test}"), ISM0068},
		{"an authority with a port", match(`authority: {exact: "web.test:80"}`), ""},
		{"an address as authority", match("authority: {exact: 10.0.0.1}"), ""},
		{"a header that must and must not be", match(`headers: {x-a: {exact: "1"}}, withoutHeaders: {x-a: {}}`), ISM0068},
		{"a header that must not be so", match(`headers: {x-a: {prefix: a}}, withoutHeaders: {x-a: {exact: ab}}`), ""},
		{"a token's claim on a sidecar", match(`headers: {"@request.auth.claims.groups": {exact: a}}`), ISM0068},
		{"no claim of a token's on a sidecar", match(`withoutHeaders: {"@request.auth.claims[groups]": {exact: a}}`), ISM0068},
		{"a token's claim where no token is read", claim + tokens("c"), IST0149},
		{"a token's claim", claim + tokens("b"), ""},
		{"a claim that must and must not be", edge(`match: [{headers: {"@request.auth.claims.sub": {exact: a}}, withoutHeaders: {"@request.auth.claims.sub": {}}}]
    directResponse: {status: 200}`) + tokens("b"), ISM0068},
		{"a header in capitals", match("headers: {X-User: {exact: a}}"), ""},

		{"a rewrite that eats a slash", webRoute("match: [{uri: {prefix: /api/}}]\n    rewrite: {uri: /v1}\n    route: [{destination: {host: web.test}}]"), ISM0069},
		{"a rewrite that eats the first slash", webRoute("match: [{uri: {prefix: /}}]\n    rewrite: {uri: /v1}\n    route: [{destination: {host: web.test}}]"), ISM0069},
		{"a rewrite of any path", webRoute("rewrite: {uri: /v1}\n    route: [{destination: {host: web.test}}]"), ISM0069},
		{"a rewrite of any path that has a header", webRoute("match: [{headers: {x-a: {}}}]\n    rewrite: {uri: /v1}\n    route: [{destination: {host: web.test}}]"), ISM0069},
		{"a rewrite below a slash", webRoute("rewrite: {uri: /v1/}\n    route: [{destination: {host: web.test}}]"), ""},
		{"a rewrite that keeps it", webRoute("match: [{uri: {prefix: /api}}]\n    rewrite: {uri: /}\n    route: [{destination: {host: web.test}}]"), ""},
		{"another dialect's group", webRoute("match: [{uri: {prefix: /api}}]\n    rewrite: {uriRegexRewrite: {match: '^/api/(.*)', rewrite: '/$1'}}\n    route: [{destination: {host: web.test}}]"), ISM0069},
		{"an operator in a header", webRoute("headers: {request: {set: {x-ip: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}}\n    route: [{destination: {host: web.test}}]"), ISM0076},
		{"an operator with an argument, in a destination's reply", webRoute("route: [{destination: {host: web.test}, headers: {response: {add: {x-a: 'id=%REQ(x-request-id):8%'}}}}]"), ISM0076},
		{"an escaped percent sign", webRoute("headers: {response: {set: {x-a: '10%%'}}}\n    directResponse: {status: 200}"), ISM0076},
		{"percent signs", webRoute("headers: {request: {set: {x-a: '10% of 20%', x-b: '%2F%2f', x-c: 'a%b%c', x-d: '%F0%9F%98%80'}}}\n    route: [{destination: {host: web.test}}]"), ""},
		{"a redirect to itself", webRoute("match: [{uri: {prefix: /a}}]\n    redirect: {uri: /a/b}"), ISM0069},
		{"a redirect to another rule", webRoute("match: [{uri: {exact: /a/b}}]\n    directResponse: {status: 200}\n  - match: [{uri: {prefix: /a}}]\n    redirect: {uri: /a/b}"), ""},
		{"a redirect to another host", webRoute("redirect: {uri: /a, authority: b.test}"), ""},
		{"https to https", edge("redirect: {scheme: https}"), ISM0069},
		{"http to https", edge("match: [{port: 80}]\n    redirect: {scheme: https}"), ""},

		{"an origin", webRoute("route: [{destination: {host: web.test}}]\n    corsPolicy: {allowOrigins: [{exact: \"https://a.test:8443\"}, {exact: \"*\"}, {prefix: \"https://b\"}]}"), ""},
		{"an origin without scheme", webRoute("route: [{destination: {host: web.test}}]\n    corsPolicy: {allowOrigins: [{exact: a.test}]}"), ISM0070},
		{"an origin with a slash", webRoute("route: [{destination: {host: web.test}}]\n    corsPolicy: {allowOrigins: [{exact: \"https://a.test/\"}]}"), ISM0070},
		{"an origin with a star", webRoute("route: [{destination: {host: web.test}}]\n    corsPolicy: {allowOrigins: [{exact: \"https://*.test\"}]}"), ISM0070},

		{"a policy's method", policy("to: [{operation: {methods: [get]}}]"), ISM0068},
		{"a policy's path", policy("to: [{operation: {paths: [api/*]}}]"), ISM0068},
		{"an expression for a path", policy(`to: [{operation: {paths: ["/a/.*"]}}]`), ISM0068},
		{"paths of every kind", policy(`to: [{operation: {paths: ["/a*", "*/b", "*", "/c/{*}"], methods: [GET]}}]`), ""},
		{"a principal that is none", policy("from: [{source: {principals: [prod/web]}}]"), ISM0068},
		{"principals", policy(`from: [{source: {principals: ["cluster.local/ns/a/sa/b", "*/sa/b", "cluster.local/*"]}}]`), ""},

		{"a template", match(`uri: {prefix: "/{{ .Values.path }}"}`), ISM0071},
		{"the environment", match(`uri: {prefix: "/${VERSION}"}`), ISM0071},
		{"braces", webRoute("directResponse: {status: 200, body: {string: '{\"a\": {\"b\": {}}}'}}"), ""},

		{"a subset of nobody", webEntry + "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: prod}\nspec:\n  host: web.test\n  subsets: [{name: a, labels: {v: a}}, {name: c, labels: {v: c}}]\n", IST0173},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []Finding
			r := Read([]File{{Name: "v.yaml", Data: []byte(tt.text)}}, nil)
			for _, f := range r.Findings {
				if slices.Contains([]Code{ISM0068, ISM0069, ISM0070, ISM0071, ISM0076, IST0149, IST0173}, f.Code) {
					got = append(got, f)
				}
			}
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || got[0].Code != tt.want || got[0].Line == 0) || r.HasErrors() {
				t.Errorf("findings %v, want %q", r.Findings, tt.want)
			}
		})
	}
}

// TestRead_Template: a file that is no YAML yet is told for what it is.
func TestRead_Template(t *testing.T) {
	for _, text := range []string{"{{- if .Values.x }}\n" + webEntry + "{{- end }}\n", strings.Replace(webEntry, "number: 80", "number: {{ .Values.port }}", 1)} {
		r := Read([]File{{Name: "v.yaml", Data: []byte(text)}}, nil)
		if !r.HasErrors() || !strings.Contains(r.Findings[0].Message, "it looks like a template") {
			t.Errorf("findings %v, want the hint at a template", r.Findings)
		}
	}
}

// TestRead_ByteOrderMarks: a file that is put together of several begins each of
// its documents with one.
func TestRead_ByteOrderMarks(t *testing.T) {
	text := "\ufeff" + webEntry + strings.Replace(strings.Replace("\ufeff"+webEntry, "name: web", "name: b", 1), "web.test", "b.test", 1)
	if r := Read([]File{{Name: "v.yaml", Data: []byte(text)}}, nil); r.HasErrors() || len(r.Config.Services) != 2 {
		t.Errorf("findings %v, want two services", r.Findings)
	}
}

// TestLint_BrokenMatch: no rule is called dead for what a broken condition of an
// earlier one seems to match.
func TestLint_BrokenMatch(t *testing.T) {
	r := Read([]File{{Name: "v.yaml", Data: []byte(webRoute("match: [{uri: {prefix: /a}, headers: {\"x y\": {exact: b}}}]\n    directResponse: {status: 200}\n  - match: [{uri: {prefix: /a}}]\n    directResponse: {status: 201}"))}}, nil)
	if !r.HasErrors() || slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == IST0130 }) {
		t.Errorf("findings %v, want an error alone", r.Findings)
	}
}

// TestLint_Weights: weights that look like percentages and are none are told.
func TestLint_Weights(t *testing.T) {
	for weights, want := range map[string]string{"80 30": "110, so they are no percentages: the destinations get 72.7 %, 27.3 %", "80 20": "", "1 3": "", "50 25": "75", "90 0": "90", "0 100": ""} {
		var a, b int
		fmt.Sscan(weights, &a, &b)
		text := webRoute(fmt.Sprintf("route: [{destination: {host: web.test}, weight: %d}, {destination: {host: web.test}, weight: %d}]", a, b))
		checkFinding(t, text, want, ISM0075)
	}
}

// TestLint_Delegated: a time-out that the rule names which delegates is not missed, nor
// the other way round.
func TestLint_Delegated(t *testing.T) {
	const retries = "retries: {attempts: 2, perTryTimeout: 1s}\n    "
	const delegate = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: inner, namespace: prod}\nspec:\n  http:\n  - "
	const route = "route: [{destination: {host: web.test}}]\n"
	checkFinding(t, webRoute(retries+route), "no timeout for all tries", ISM0050)
	checkFinding(t, webRoute("timeout: 9s\n    delegate: {name: inner}\n")+delegate+retries+route, "", ISM0050)
	checkFinding(t, webRoute(retries+"delegate: {name: inner}\n")+delegate+"timeout: 9s\n    "+route, "", ISM0050)
}

// TestLint_Quoted: what is written otherwise than Kubernetes takes it is told.
func TestLint_Quoted(t *testing.T) {
	text := strings.Replace(webRoute("route: [{destination: {host: web.test, port: {number: \"80\"}}}]"), "{name: web, namespace: prod}\nspec:\n  hosts: [web.test]\n  http", "{name: web, namespaces: prod}\nspec:\n  hosts: [web.test]\n  http", 1)
	checkFinding(t, text, "destination.port.number: is a number in quotes, which Kubernetes refuses: write 80", ISM0002)
	checkFinding(t, text, "metadata.namespaces: unknown field, which has no effect (did you mean \"namespace\"?)", ISM0001)
}

// TestLint_Kinds: of a kind that is read, the apiVersion is told by which it is.
func TestLint_Kinds(t *testing.T) {
	checkFinding(t, "apiVersion: networking.istio/v1\nkind: VirtualService\nmetadata: {name: a}\n", "is not read by Isthmus, which reads a VirtualService of apiVersion networking.istio.io/v1", ISM0006)
	checkFinding(t, "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {meshConfig: {accessLogFile: /dev/stdout}}\n", "IstioOperator is not read by Isthmus, which takes the mesh configuration from a ConfigMap", ISM0006)
	checkFinding(t, "apiVersion: v1\nkind: service\nmetadata: {name: a}\n", "is not read by Isthmus (did you mean \"Service\"?)", ISM0006)
}

// TestLint_SameSidecars: of two Sidecars for the same workloads the second is
// named, with the one that wins.
func TestLint_SameSidecars(t *testing.T) {
	sidecar := func(name, spec string) string {
		return "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: " + name + ", namespace: prod}\nspec: {" + spec + "egress: [{hosts: [\"*/*\"]}]}\n---\n"
	}
	r := Read([]File{{Name: "s.yaml", Data: []byte(sidecar("a", "") + sidecar("b", "workloadSelector: {labels: {app: x}}, ") + sidecar("c", ""))}}, nil)
	var got []string
	for _, f := range r.Findings {
		if f.Code == ISM0017 {
			got = append(got, f.String())
		}
	}
	want := "s.yaml:11: warning: Sidecar prod/c: workloadSelector: a in s.yaml:1 is for the same workloads and wins, being first by file and line; this one has no effect (ISM0017)"
	if len(got) != 1 || got[0] != want {
		t.Errorf("findings %q, want %q", got, want)
	}
}

// TestLint_MirrorShare: a share below one percent is told as what it is.
func TestLint_MirrorShare(t *testing.T) {
	for _, mirror := range []string{"mirror: {host: web.test}\n    mirrorPercentage: {value: 0.5}", "mirrors: [{destination: {host: web.test}, percentage: {value: 0.5}}]"} {
		r := Read([]File{{Name: "v.yaml", Data: []byte(webRoute("route: [{destination: {host: web.test}}]\n    " + mirror))}}, nil)
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == ISM0040 && strings.Contains(f.Message, "one request in 200") }) {
			t.Errorf("findings %v, want %s", r.Findings, ISM0040)
		}
	}
}

// TestRead_PseudoHeaders: conditions on HTTP/2's pseudo-headers are those that have a
// field of their own, unless that stands beside them.
func TestRead_PseudoHeaders(t *testing.T) {
	text := webRoute("match: [{headers: {':authority': {exact: web.test}, ':method': {exact: GET}, ':scheme': {exact: https}, ':path': {prefix: /a}, x-b: {exact: b}}}]\n    directResponse: {status: 200}")
	r := Read([]File{{Name: "v.yaml", Data: []byte(text)}}, nil)
	m := r.Config.VirtualServices[0].HTTP[0].Match[0]
	if r.HasErrors() || m.Authority == nil || m.Authority.Value != "web.test" || m.Method == nil || m.Scheme == nil || m.URI == nil || m.URI.Kind != mesh.MatchPrefix || len(m.Headers) != 1 {
		t.Errorf("read as %+v; findings %v", m, r.Findings)
	}
	alone := webRoute("match: [{headers: {':authority': {exact: web.test}}}]\n    directResponse: {status: 200}")
	if r := Read([]File{{Name: "v.yaml", Data: []byte(alone)}}, nil); r.HasErrors() || r.Config.VirtualServices[0].HTTP[0].Match[0].Authority == nil {
		t.Errorf("one alone: findings %v", r.Findings)
	}
	for _, match := range []string{"{method: {exact: PUT}, headers: {':method': {exact: GET}}}", "{headers: {':path': {exact: '/a?b=c'}}}", "{headers: {':path': {prefix: '/a?b'}}}", "{withoutHeaders: {':method': {exact: GET}}}"} {
		if r := Read([]File{{Name: "v.yaml", Data: []byte(webRoute("match: [" + match + "]\n    directResponse: {status: 200}"))}}, nil); !r.HasErrors() {
			t.Errorf("%s: no error; findings %v", match, r.Findings)
		}
	}
}

// TestLint_SubsetsOfSlices: of endpoints that an EndpointSlice brings it is told why none
// bears a label.
func TestLint_SubsetsOfSlices(t *testing.T) {
	const text = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.1]}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s}\nspec: {host: s, subsets: [{name: v1, labels: {version: v1}}]}\n"
	checkFinding(t, text, `requests for subset "v1" get 503 UH; an EndpointSlice has no labels of its Pods`, IST0173)
	const more = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w, labels: {app: s}}\nspec: {address: 10.0.0.2}\n"
	checkFinding(t, strings.Replace(text, "spec: {ports", "spec: {selector: {app: s}, ports", 1)+more, `requests for subset "v1" get 503 UH (IST0173)`, IST0173)
}
