package config

import "testing"

// TestCheck_WhatNobodyDefines: a route that names what no file defines is a warning, which
// says what becomes of its requests; the rest of the set is in force.
func TestCheck_WhatNobodyDefines(t *testing.T) {
	const base = `apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: s}, ports: [{name: http-a, port: 8080}, {name: http-b, port: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: more}
spec: {selector: {app: more}, ports: [{name: http-a, port: 8080}, {name: http-b, port: 8081}, {name: http-c, port: 8082}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec: {host: s, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
`
	to := func(destination string) string { return "http: [{route: [{destination: {" + destination + "}}]}]" }
	for _, tt := range []struct{ name, spec, want string }{
		{"all is there", "{hosts: [s], " + to("host: s, subset: v1, port: {number: 8080}") + "}", ""},
		{"a Gateway", "{hosts: [s], gateways: [egde], " + to("host: s, port: {number: 8080}") + "}", `gateways: there is no Gateway default/egde (did you mean "default/edge"?), so it has no effect there (IST0101)`},
		{"one of two Gateways", "{hosts: [s], gateways: [edge, istio-system/edge], " + to("host: s, port: {number: 8080}") + "}", "gateways: there is no Gateway istio-system/edge"},
		{"a match's Gateway", "{hosts: [s], gateways: [edge, mesh], http: [{match: [{gateways: [mesh, egde]}], route: [{destination: {host: s, port: {number: 8080}}}]}]}", `http[0].match[0].gateways: there is no Gateway default/egde (did you mean "default/edge"?), so it has no effect there (IST0101)`},
		{"a delegate's match's Gateway", "{http: [{match: [{gateways: [egde]}], route: [{destination: {host: s, port: {number: 8080}}}]}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: root}\nspec: {hosts: [s], http: [{delegate: {name: v}}]}", "http[0].match[0].gateways: there is no Gateway default/egde"},
		{"a match's Gateway of a tls route", "{hosts: [s.test], tls: [{match: [{sniHosts: [s.test], gateways: [egde]}], route: [{destination: {host: s, port: {number: 8080}}}]}]}", "tls[0].match[0].gateways: there is no Gateway default/egde"},
		{"a subset", "{hosts: [s], " + to("host: s, subset: v9, port: {number: 8080}") + "}", `subset: no DestinationRule defines subset "v9" (did you mean "v1"?) for s.default.svc.cluster.local or another name of the service, so requests get 503 NC (IST0101)`},
		{"a mirror's subset", "{hosts: [s], http: [{route: [{destination: {host: s, subset: v1, port: {number: 8080}}}], mirror: {host: s, subset: v9, port: {number: 8080}}}]}", `http[0].mirror.subset: no DestinationRule defines subset "v9" (did you mean "v1"?) for s.default.svc.cluster.local or another name of the service, so no copies of requests are sent (IST0101)`},
		{"a port", "{hosts: [s], " + to("host: s, port: {number: 9999}") + "}", "port.number: s.default.svc.cluster.local has no port 9999, so requests get 503 NC: it has 8080, 8081 (IST0101)"},
		{"a delegate", "{hosts: [s], http: [{delegate: {name: nobody}}]}", "http[0].delegate: there is no VirtualService default/nobody, so the rule has no effect, in Istio neither"},

		{"no port, of a host with the same", "{hosts: [s], " + to("host: s") + "}", ""},
		{"no port, of a Gateway with one of them", "{hosts: [s], gateways: [edge], " + to("host: s") + "}", ""},
		{"no port, of a host with one more", "{hosts: [more], " + to("host: s") + "}", "port: is missing: s.default.svc.cluster.local has several ports and none is 80: requests by port 8082 get 503 NC (IST0112)"},
		{"no port, of a host with one more, for the others", "{hosts: [more], http: [{match: [{port: 8080}, {port: 8081}], route: [{destination: {host: s}}]}]}", ""},
		{"no port, of a host that nobody bears", "{hosts: [a.test], " + to("host: s") + "}", "requests for a.test get 503 NC (IST0112)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkWarnings(t, base+"  "+tt.spec+"\n", tt.want)
		})
	}
	const bare = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: bare}\nspec: {hosts: [bare.test], resolution: DNS}\n---\n"
	checkFinding(t, bare+base+"  {hosts: [s], "+to("host: bare.test, port: {number: 80}")+"}\n", "port.number: bare.test has no port 80, so requests get 503 NC: it has none (IST0101)", IST0101)
}

// TestCheck_PortsOfConnections: which port of several a connection is for, its own port
// says, if that is one of them.
func TestCheck_PortsOfConnections(t *testing.T) {
	const base = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: two}
spec:
  hosts: [two.test]
  resolution: STATIC
  ports: [{number: 443, name: a, protocol: TLS}, {number: 8443, name: b, protocol: TLS}, {number: 5432, name: c, protocol: TCP}, {number: 5433, name: d, protocol: TCP}]
  endpoints: [{address: 10.0.0.1}]
---
`
	route := "route: [{destination: {host: two.test}}]"
	for _, tt := range []struct{ name, spec, want string }{
		{"tcp by one of them", "gateways: [gw], hosts: [two.test], tcp: [{" + route + "}]", "connections by port 443 end (IST0112)"}, // gw also has 443
		{"tcp by one of them, matched", "gateways: [gw], hosts: [two.test], tcp: [{match: [{port: 5432}], " + route + "}]", ""},
		{"tls by one of them", "hosts: [two.test], tls: [{match: [{port: 443, sniHosts: [two.test]}], " + route + "}]", ""},
		{"tls by another", "hosts: [two.test], tls: [{match: [{port: 444, sniHosts: [two.test]}], " + route + "}]", "connections by port 444 end (IST0112)"},
		{"tls on a sidecar by any", "hosts: [two.test], tls: [{match: [{sniHosts: [two.test]}], " + route + "}]", "connections whose match names no port end (IST0112)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkWarnings(t, base+relayBase+"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {"+tt.spec+"}\n", tt.want)
		})
	}
}

// TestCheck_FormsOfOneHost: a VirtualService that names a service by several forms of its
// name, as Knative writes them, shares no host with itself.
func TestCheck_FormsOfOneHost(t *testing.T) {
	text := func(hosts string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: s}, ports: [{port: 80}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [" + hosts + "], http: [{route: [{destination: {host: s}}]}]}\n"
	}
	checkFinding(t, text("s, s.default, s.default.svc, s.default.svc.cluster.local"), "", IST0109)
	checkFinding(t, text("s, s.default, s.default.svc, s.default.svc.cluster.local"), "", ISM0056)
	checkFinding(t, text("s.default"), `hosts[0]: "s.default" means service s.default`, ISM0056)
	other := "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: w}\nspec: {hosts: [s.default], http: [{route: [{destination: {host: s}}]}]}\n"
	checkFinding(t, text("s")+other, `"s.default" has another VirtualService on "mesh", default/v`, IST0109)
}

// TestCheck_DelegatedMatches: a rule of a delegate that goes beyond the one that names it,
// or that this one may not see, is named; one that lies within any of its matches is not.
func TestCheck_DelegatedMatches(t *testing.T) {
	text := func(match, inner, exportTo string) string {
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: root, namespace: prod}\nspec: {hosts: [s.test], http: [{" + match + "delegate: {name: inner, namespace: team}}]}\n---\n" +
			"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: inner, namespace: team}\nspec:\n  exportTo: [" + exportTo + "]\n  http:\n  - {" + inner + "directResponse: {status: 200}}\n"
	}
	const both = "match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], "
	for _, tt := range []struct{ name, match, inner, exportTo, want string }{
		{"each within one", both, "match: [{uri: {prefix: /a/1}}, {uri: {exact: /b/1}}], ", "'*'", ""},
		{"all", both, "", "'*'", ""},
		{"beyond", both, "match: [{uri: {prefix: /a/1}}, {uri: {exact: /c}}], ", "'*'", "f.yaml:4: warning: VirtualService prod/root: http[0].delegate: the rule in f.yaml:12 has no effect, in Istio neither: its match in f.yaml:12 lets in more than this one's, by uri (f.yaml:4), uri (f.yaml:4); write matches that lie within"},
		{"another port", "match: [{port: 80}], ", "match: [{port: 8080}], ", "'*'", "by port (f.yaml:4)"},
		{"for its namespace", both, "", "prod", ""},
		{"for others", both, "", "'.'", "http[0].delegate: VirtualService team/inner in f.yaml:6 is not exported to namespace prod, so the rule has no effect"},
	} {
		t.Run(tt.name, func(t *testing.T) { checkWarnings(t, text(tt.match, tt.inner, tt.exportTo), tt.want) })
	}
}
