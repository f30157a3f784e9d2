package config

import (
	"strings"
	"testing"
)

const relayBase = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: up}
spec:
  hosts: [up.test]
  resolution: STATIC
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 5432, name: tcp, protocol: TCP}]
  endpoints: [{address: 10.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  servers:
  - {port: {number: 5432, name: db, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ["*"]}
---
`

// TestTCPRoute_Warnings: what of a route for connections cannot hold is told,
// and nothing else is.
func TestTCPRoute_Warnings(t *testing.T) {
	const to = "route: [{destination: {host: up.test}}]"
	for _, tt := range []struct{ name, spec, want string }{
		{"tcp of the mesh", "tcp: [{" + to + "}]", "tcp[0]: has no effect: a sidecar"},
		{"tcp of a Gateway", "gateways: [gw], tcp: [{" + to + "}]", ""},
		{"tcp of both", "gateways: [gw, mesh], tcp: [{" + to + "}]", "tcp[0]: has no effect on sidecars: a sidecar"},
		{"a match of the mesh", "gateways: [gw], tcp: [{match: [{port: 5432}, {gateways: [mesh]}], " + to + "}]", "tcp[0]: has no effect on sidecars"},
		{"a match of a Gateway", "gateways: [gw, mesh], tcp: [{match: [{gateways: [gw]}], " + to + "}]", ""},
		{"subnets of the mesh", "tls: [{match: [{sniHosts: [up.test], destinationSubnets: [10.0.0.0/8]}], " + to + "}]", "tls[0].match[0].destinationSubnets: never holds on a sidecar"},
		{"subnets of a Gateway", "gateways: [gw], tls: [{match: [{sniHosts: [up.test], destinationSubnets: [10.0.0.0/8]}], " + to + "}]", ""},
		{"no subnets", "tls: [{match: [{sniHosts: [up.test]}], " + to + "}]", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkWarnings(t, relayBase+"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [up.test], "+tt.spec+"}\n", tt.want)
		})
	}
	for name, want := range map[string]string{
		"HTTP": "servers: has no effect: port 5432 is of protocol HTTP",
		"TCP":  "(IST0145)",
	} {
		t.Run("beside "+name, func(t *testing.T) {
			checkWarnings(t, relayBase+"apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: other}\nspec:\n  servers: [{port: {number: 5432, name: p, protocol: "+name+"}, hosts: [\"*\"]}]\n", want)
		})
	}
}

// checkWarnings reads a configuration without errors and checks its only
// warning; "": there is none.
func checkWarnings(t *testing.T, text, want string) {
	t.Helper()
	var warnings []string
	for _, f := range Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil).Findings {
		switch f.Severity {
		case Error:
			t.Errorf("refused: %s", f)
		case Warning:
			warnings = append(warnings, f.String())
		}
	}
	switch {
	case want == "" && len(warnings) > 0, want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], want)):
		t.Errorf("warnings %q, want %q", warnings, want)
	}
}

// TestTCPRoute_SNIHosts: names are compared without case and dot at the end, and
// short ones as they are written.
func TestTCPRoute_SNIHosts(t *testing.T) {
	for _, tt := range []struct{ host, sni, want string }{
		{"A.test", "a.TEST.", "a.test"},
		{"reviews", "reviews", "reviews"},
		{"reviews", "reviews.default.svc.cluster.local", "reviews.default.svc.cluster.local"},
		{"*.com", "foo.example.com", "foo.example.com"},
		{"*.com", "*.example.com", "*.example.com"},
		{"*.example.com", "*.com", ""},
		{"a.test", "*", ""},
		{"reviews", "ratings", ""},
	} {
		r := Read([]File{{Name: "f.yaml", Data: []byte(relayBase + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: ['" + tt.host +
			"'], tls: [{match: [{sniHosts: ['" + tt.sni + "']}], route: [{destination: {host: up.test}}]}]}\n")}}, nil)
		var refused []string
		for _, f := range r.Findings {
			if f.Severity == Error {
				refused = append(refused, f.String())
			}
		}
		switch {
		case tt.want == "" && (len(refused) != 1 || !strings.Contains(refused[0], "is not among the VirtualService's hosts")):
			t.Errorf("%s of %s: errors %q, want that it is none of the hosts", tt.sni, tt.host, refused)
		case tt.want != "" && len(refused) > 0:
			t.Errorf("%s of %s: refused: %q", tt.sni, tt.host, refused)
		case tt.want != "":
			if got := r.Config.VirtualServices[0].TLS[0].Match[0].SNIHosts; len(got) != 1 || got[0] != tt.want {
				t.Errorf("%s of %s: read as %q, want %q", tt.sni, tt.host, got, tt.want)
			}
		}
	}
}
