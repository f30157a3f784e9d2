package config

import (
	"slices"
	"strings"
	"testing"

	"isthmus/mesh"
)

// portsBase is two Services, one with a port by name, a workload, a Gateway, and
// who they are of.
const portsBase = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: named, namespace: prod}
spec: {selector: {app: named}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: told, namespace: prod}
spec: {selector: {app: told}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: many}
spec: {selector: {app: b}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: many}
spec: {selector: {app: a}, ports: [{port: 80, targetPort: 8081}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: told, namespace: prod}
spec: {address: 10.0.0.9, labels: {app: told}, ports: {web: 8181}, serviceAccount: told}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: x}, hosts: ["*"]}]
---
`

// findingsOf are those of some codes.
func findingsOf(t *testing.T, text string, codes ...Code) []Finding {
	t.Helper()
	r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil)
	if r.HasErrors() {
		t.Fatal(r.Findings)
	}
	return slices.DeleteFunc(r.Findings, func(f Finding) bool { return !slices.Contains(codes, f.Code) })
}

// checkFinding wants one finding of a code, with a text and a line; "": none.
func checkFinding(t *testing.T, text, want string, code Code) {
	t.Helper()
	got := findingsOf(t, text, code)
	if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || got[0].Line == 0 || !strings.Contains(got[0].String(), want)) {
		t.Errorf("findings %v, want %q", got, want)
	}
}

// TestLint_PolicyPorts: a port on which none of those listens that the policy
// selects is named, with those that are; where files do not say, nothing is.
func TestLint_PolicyPorts(t *testing.T) {
	to := func(ports string) string { return "to: [{operation: {ports: [" + ports + "]}}]" }
	for _, tt := range []struct{ name, namespace, app, rule, want string }{
		{"the workload's", "prod", "web", to(`"8080", "9000"`), ""},
		{"the service's", "prod", "web", to(`"80"`), "rules[0].to[0].operation.ports[0]: no workload that this policy selects listens on 80, as far as files say: they listen on 8080, 9000; it is a port of Service web"},
		{"nobody's", "prod", "web", to(`"8080", "7"`), "ports[1]: no workload that this policy selects listens on 7"},
		{"another workload's", "prod", "web", to(`"8181"`), "listens on 8181"},
		{"none of them", "prod", "web", `to: [{operation: {notPorts: ["80"]}}]`, "notPorts[0]: no workload"},
		{"a condition", "prod", "web", `when: [{key: destination.port, values: ["80"]}]`, "rules[0].when[0].values[0]: no workload"},
		{"a pattern", "prod", "web", `when: [{key: destination.port, values: ["80*"]}]`, ""},
		{"by name, which nobody says", "prod", "named", to(`"7"`), ""},
		{"by name, which a workload says", "prod", "told", to(`"80"`), "they listen on 8181"},
		{"that a workload says", "prod", "told", to(`"8181"`), ""},
		{"the whole namespace, of which one is unsaid", "prod", "", to(`"7"`), ""},
		{"nobody is known", "test", "", to(`"7"`), ""},
		{"a gateway's", "edge", "", to(`"443"`), ""},
		{"of the first of several", "many", "", to(`"80"`), "they listen on 8080, 8081; it is a port of Service a"},
		{"no gateway's", "edge", "", to(`"8443"`), "they listen on 443"},
		{"the mesh's, of which one is unsaid", "istio-system", "", to(`"7"`), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			selector := ""
			if tt.app != "" {
				selector = "selector: {matchLabels: {app: " + tt.app + "}}, "
			}
			checkFinding(t, portsBase+"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: "+tt.namespace+"}\nspec: {"+selector+"rules: [{"+tt.rule+"}]}\n", tt.want, ISM0072)
		})
	}
}

// TestLint_UnservedPorts: a port of a Service that none of the addresses has which
// EndpointSlices give it is named, with the ports that are there.
func TestLint_UnservedPorts(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: prod}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: admin, port: 81, targetPort: adm}]}\n---\n"
	slice := func(ports string) string {
		return "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, namespace: prod, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [" + ports + "]\nendpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]\n---\n"
	}
	const entry = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w, namespace: prod}\nspec: {address: 10.0.0.9, labels: {app: web}}\n---\n"
	for _, tt := range []struct{ name, text, want string }{
		{"both", slice("{name: http, port: 8080}, {name: admin, port: 9090}"), ""},
		{"by the name of the target port", slice("{name: http, port: 8080}, {name: adm, port: 9090}"), ""},
		{"one of them", slice("{name: http, port: 8080}"), `f.yaml:1: warning: Service prod/web: spec.ports: nobody serves port 81, so requests for it get 503 UH unless gossip brings somebody: none of the 2 addresses that EndpointSlices give (the first in f.yaml:6) has a port of the name "admin", as a Service's port and theirs have in common; they have "http"`},
		{"each in a slice of its own", slice("{name: http, port: 8080}") + strings.Replace(slice("{name: admin, port: 9090}"), "web-1", "web-2", 1), ""},
		{"a port without a name is for all", slice("{port: 8080}"), ""},
		{"no ports", slice(""), ""},
		{"no slice", "", ""},
		{"a WorkloadEntry serves it", slice("{name: http, port: 8080}") + entry, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { checkFinding(t, service+tt.text, tt.want, ISM0072) })
	}
	if got := findingsOf(t, service+slice("{name: web, port: 8080}"), ISM0072); len(got) != 2 {
		t.Errorf("another name: findings %v, want one for each port", got)
	}
}

// TestLint_MatchPort: a port that neither the hosts' services nor the Gateways have
// is named.
func TestLint_MatchPort(t *testing.T) {
	const to = "route: [{destination: {host: web.prod.svc.cluster.local, port: {number: 80}}}]"
	for _, tt := range []struct{ name, spec, want string }{
		{"the service's", "hosts: [web], http: [{match: [{port: 80}], " + to + "}]", ""},
		{"the workload's", "hosts: [web], http: [{match: [{port: 8080}], " + to + "}]", "http[0].match[0].port: no request comes by port 8080 here, so the match never holds: web.prod.svc.cluster.local has 80, 9000"},
		{"of one of the hosts", "hosts: [web, other.test], http: [{match: [{port: 8080}], " + to + "}]", ""},
		{"of hosts by pattern", "hosts: ['*.prod.svc.cluster.local'], http: [{match: [{port: 8080}], " + to + "}]", ""},
		{"the gateway's", "hosts: [a.test], gateways: [edge/gw], http: [{match: [{port: 443}], " + to + "}]", ""},
		{"not the gateway's", "hosts: [a.test], gateways: [edge/gw], http: [{match: [{port: 8443}], " + to + "}]", "Gateway edge/gw has 443"},
		{"the gateway's, of both", "hosts: [web], gateways: [edge/gw, mesh], http: [{match: [{port: 443}], " + to + "}]", ""},
		{"the gateway's, in a match of the mesh", "hosts: [web], gateways: [edge/gw, mesh], http: [{match: [{port: 443, gateways: [mesh]}], " + to + "}]", "match[0].port: no request comes by port 443"},
		{"of connections in the mesh", "hosts: [web], tls: [{match: [{port: 8080, sniHosts: [web]}], " + to + "}]", ""},
		{"of connections at a gateway", "hosts: [a.test], gateways: [edge/gw], tls: [{match: [{port: 80, sniHosts: [a.test]}], " + to + "}]", "tls[0].match[0].port: no request comes by port 80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkFinding(t, portsBase+"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: prod}\nspec: {"+tt.spec+"}\n", tt.want, ISM0072)
		})
	}
}

// TestLint_Sources: conditions on callers that nobody asks callers for are named.
func TestLint_Sources(t *testing.T) {
	const to = "route: [{destination: {host: web.prod.svc.cluster.local, port: {number: 80}}}]"
	match := func(gateways, m string) string {
		return "hosts: [web], gateways: [" + gateways + "], http: [{match: [{" + m + "}], " + to + "}]"
	}
	for _, tt := range []struct{ name, spec, want string }{
		{"of sidecars", match("mesh", "sourceLabels: {app: a}"), ""},
		{"of both", match("mesh, edge/gw", "sourceLabels: {app: a}"), ""},
		{"of a gateway", match("edge/gw", "sourceLabels: {app: a}"), "http[0].match[0].sourceLabels: is compared with the gateway's own proxies"},
		{"the namespace, of a gateway", match("edge/gw", "sourceNamespace: shop"), "http[0].match[0].sourceNamespace: is compared"},
		{"the gateway itself", match("edge/gw", "sourceLabels: {istio: ingressgateway}, sourceNamespace: edge"), ""},
		{"beside gateways", match("mesh", "sourceLabels: {app: a}, gateways: [mesh]"), "http[0].match[0].sourceLabels: has no effect"},
		{"of connections", "hosts: [a.test], gateways: [edge/gw], tls: [{match: [{sniHosts: [a.test], sourceLabels: {app: a}}], " + to + "}]", "tls[0].match[0].sourceLabels: is compared"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkFinding(t, portsBase+"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: prod}\nspec: {"+tt.spec+"}\n", tt.want, ISM0074)
		})
	}
}

// TestLint_Exports: a namespace in which nothing is may be a slip.
func TestLint_Exports(t *testing.T) {
	entry := func(exportTo string) string {
		return portsBase + strings.Replace(webEntry, "  hosts: [web.test]\n", "  exportTo: ["+exportTo+"]\n  hosts: [web.test]\n", 1)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"one that has resources", entry("edge"), ""},
		{"its own, all, none", entry(`prod, ".", "*", "~"`), ""},
		{"the root", entry("istio-system"), ""},
		{"a slip", entry("., egde"), `f.yaml:42: info: ServiceEntry prod/web: exportTo[1]: no resource of these files is in namespace "egde" (did you mean "edge"?)`},
		{"one that is declared", entry("shop") + "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", ""},
		{"one with somebody else's resources", entry("shop") + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: shop}\n", ""},
		{"by annotation", portsBase + "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: prod, annotations: {networking.istio.io/exportTo: \"edge, shop\"}}\nspec: {selector: {app: s}, ports: [{port: 80}]}\n", `metadata.annotations.networking.istio.io/exportTo: no resource of these files is in namespace "shop"`},
	} {
		t.Run(tt.name, func(t *testing.T) { checkFinding(t, tt.text, tt.want, ISM0073) })
	}
}

// TestCheck_OwnPorts: a sidecar whose own service names its target port is told, if nobody
// says which number that is.
func TestCheck_OwnPorts(t *testing.T) {
	const base = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: prod}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}]}\n---\n"
	group := func(template string) string {
		return "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: g, namespace: prod}\nspec: {metadata: {labels: {app: web}}, template: {" + template + "}}\n"
	}
	own := &mesh.Node{Namespace: "prod", Address: "10.0.0.1", RootNamespace: "istio-system", Labels: map[string]string{"app": "web"}}
	for _, tt := range []struct {
		name, text string
		node       *mesh.Node
		want       string
	}{
		{"nobody", "", own, `f.yaml:1: warning: Service prod/web: spec.ports: targetPort "web" of port 80 is the name of a port of Pods, which are not read, so this proxy takes 80 for where its application listens: write the number, or web: NUMBER among ports of a WorkloadEntry for 10.0.0.1 or of the template of its WorkloadGroup`},
		{"its group", group("ports: {web: 8080}"), own, ""},
		{"its group, nothing", group(""), own, "targetPort"},
		{"an EndpointSlice", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web, namespace: prod, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.0.0.1]}]\n", own, ""},
		{"another proxy", "", &mesh.Node{Namespace: "prod", RootNamespace: "istio-system"}, ""},
		{"none in particular", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range Read([]File{{Name: "f.yaml", Data: []byte(base + tt.text)}}, tt.node).Findings {
				got = append(got, f.String())
			}
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("findings %q, want %q", got, tt.want)
			}
		})
	}
	checkFinding(t, base+group("weight: 3"), "f.yaml:9: warning: WorkloadGroup prod/g: template.weight: has no effect yet", ISM0003)
	checkFinding(t, base+group("locality: a/b"), "template.locality: has no effect yet", ISM0003)
	checkFinding(t, base+group("ports: {http: 8080}, serviceAccount: s"), "", ISM0003)
	numbered := strings.Replace(base, "targetPort: web", "targetPort: 8080", 1)
	checkFinding(t, numbered+group("ports: {http: 9090}"), "template.ports.http: 9090 has no effect yet: the targetPort 8080 of Service web", ISM0003)
	checkFinding(t, numbered+group("ports: {http: 8080}"), "", ISM0003)
	policy := "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: prod}\nspec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {ports: ['8080', '80']}}]}]}\n"
	checkFinding(t, base+group("ports: {web: 8080}")+policy, "ports[1]: no workload that this policy selects listens on 80", ISM0072)
}
