package config

import (
	"strings"
	"testing"
)

// TestLint_GatewayKinds: routes of a kind that no server for the hosts looks at are named,
// and no others.
func TestLint_GatewayKinds(t *testing.T) {
	const (
		plain    = `{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.test"]}`
		ends     = `{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}, hosts: ["*.test"]}`
		passes   = `{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: PASSTHROUGH}, hosts: ["*.test"]}`
		endsTLS  = `{port: {number: 8443, name: tls, protocol: TLS}, tls: {mode: MUTUAL, credentialName: c}, hosts: ["*.test"]}`
		raw      = `{port: {number: 5432, name: db, protocol: TCP}, hosts: ["*"]}`
		others   = `{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.other"]}`
		eastWest = `{port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ["*.test"]}`

		http    = "http: [{route: [{destination: {host: up.test}}]}]"
		tls     = "tls: [{match: [{sniHosts: [up.test]}], route: [{destination: {host: up.test}}]}]"
		tcp     = "tcp: [{route: [{destination: {host: up.test}}]}]"
		sidecar = "http: [{match: [{gateways: [mesh], port: 80}], route: [{destination: {host: up.test}}]}]"
	)
	for _, tt := range []struct{ name, servers, spec, want string }{
		{"http, plain", plain, http, ""},
		{"http, TLS that ends", ends, http, ""},
		{"http, TLS that is passed on", passes, http, "VirtualService default/v: http: has no effect on Gateway default/gw, in Istio neither: for these hosts, port 443 passes TLS on (PASSTHROUGH), where tls routes hold (ISM0078)"},
		{"http, one of two", plain + ", " + passes, http, ""},
		{"http, and another for other hosts", passes + ", " + others, http, "http: has no effect on Gateway default/gw"},
		{"http, TCP", raw, http, "port 5432 is of protocol TCP, where tcp routes hold"},
		{"http, between clusters", eastWest, http, "port 15443 passes mTLS on (AUTO_PASSTHROUGH) (ISM0078)"},
		{"tls, TLS that is passed on", passes, tls, ""},
		{"tls, TLS that ends", ends, tls, "tls: has no effect on Gateway default/gw, in Istio neither: for these hosts, port 443 ends TLS, of protocol HTTPS, where http routes hold"},
		{"tls, plain", plain, tls, "port 80 is of protocol HTTP, where http routes hold"},
		{"tcp, TCP", raw, tcp, ""},
		{"tcp, TLS that ends", endsTLS, tcp, ""},
		{"tcp, TLS that is passed on", passes, tcp, "tcp: has no effect"},
		{"both, both", plain + ", " + passes, http + ", " + tls, ""},
		{"both, one", passes, http + ", " + tls, "http: has no effect"},
		{"http of the sidecar, TLS that is passed on", passes, sidecar + ", " + tls, ""},
		{"no server for the hosts", others, http, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkFinding(t, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  servers: ["+tt.servers+"]\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [up.test], gateways: [gw], "+tt.spec+"}\n", tt.want, ISM0078)
		})
	}
}

// TestLint_TLSTwice: TLS that is passed on to a destination with which TLS is begun again.
func TestLint_TLSTwice(t *testing.T) {
	route := func(kind, rule string) string {
		return relayBase + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [up.test], " + kind + "}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: up.test, trafficPolicy: {" + rule + "}}\n"
	}
	const tls, http = "tls: [{match: [{sniHosts: [up.test]}], route: [{destination: {host: up.test}}]}]", "http: [{route: [{destination: {host: up.test, port: {number: 443}}}]}]"
	checkFinding(t, route(tls, "tls: {mode: SIMPLE}"), "tls[0].route[0].destination: is sent TLS within TLS, in Istio too", ISM0079)
	checkFinding(t, route(tls, "portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]"), "is sent TLS within TLS", ISM0079)
	for _, rule := range []string{"tls: {mode: DISABLE}", "tls: {mode: ISTIO_MUTUAL}", "portLevelSettings: [{port: {number: 5432}, tls: {mode: SIMPLE}}]"} {
		checkFinding(t, route(tls, rule), "", ISM0079)
	}
	checkFinding(t, route(http, "tls: {mode: SIMPLE}"), "", ISM0079)
}

// TestGateway_PlainTLSSettings: of a server of protocol HTTP, tls may say that nothing is
// redirected, as Istio lets it.
func TestGateway_PlainTLSSettings(t *testing.T) {
	for settings, refused := range map[string]bool{"{httpsRedirect: true}": false, "{httpsRedirect: false}": false, "{}": false, "{mode: PASSTHROUGH}": false, "{mode: SIMPLE, credentialName: c}": true, "{serverCertificate: /c}": true} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.test], tls: " + settings + "}]\n")}}, nil)
		if r.HasErrors() != refused || !refused && r.Config.Gateways[0].Servers[0].HTTPSRedirect != (settings == "{httpsRedirect: true}") {
			t.Errorf("%s: findings %v, want it refused: %v", settings, r.Findings, refused)
		}
	}
	gateway := func(settings string) string {
		return "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.test], tls: " + settings + "}]\n"
	}
	for settings, want := range map[string]string{"{httpsRedirect: true, mode: PASSTHROUGH}": "", "{credentialName: c}": "servers[0].tls: has no effect but for httpsRedirect", "{httpsRedirect: true, minProtocolVersion: TLSV1_3}": "servers[0].tls: has no effect but for httpsRedirect"} {
		checkFinding(t, gateway(settings), want, ISM0001)
	}
	checkFinding(t, strings.Replace(gateway("{mode: SIMPLE, credentialName: c, httpsRedirect: true}"), "HTTP}", "HTTPS}", 1), "servers[0].tls.httpsRedirect: has no effect", ISM0001)
}

// TestGateway_UnusedTLSSettings: settings that a mode does not look at are named.
func TestGateway_UnusedTLSSettings(t *testing.T) {
	const files = "serverCertificate: /c, privateKey: /k, "
	for settings, want := range map[string]string{
		"mode: PASSTHROUGH": "",
		"credentialName: c": "servers[0].tls: has no effect, in Istio neither: TLS is passed on as it comes, as no mode is named, which means PASSTHROUGH; write mode: SIMPLE",
		"mode: PASSTHROUGH, minProtocolVersion: TLSV1_3":                                      "passed on as it comes, by mode PASSTHROUGH",
		"mode: AUTO_PASSTHROUGH, credentialName: c":                                           "by mode AUTO_PASSTHROUGH",
		"mode: SIMPLE, credentialName: c":                                                     "",
		"mode: SIMPLE, credentialName: c, caCertificates: /r":                                 "servers[0].tls.caCertificates: has no effect: it is about clients' certificates",
		"mode: SIMPLE, credentialName: c, caCertCredentialName: r":                            "servers[0].tls.caCertCredentialName: has no effect",
		"mode: SIMPLE, credentialName: c, insecureSkipVerify: true":                           "servers[0].tls.insecureSkipVerify: has no effect",
		"mode: MUTUAL, credentialName: c, caCertificates: /r":                                 "servers[0].tls.caCertificates: has no effect beside a credential",
		"mode: OPTIONAL_MUTUAL, credentialName: c, caCrl: /r":                                 "servers[0].tls.caCrl: has no effect beside a credential",
		"mode: MUTUAL, " + files + "caCertificates: /r, caCrl: /l":                            "",
		"mode: MUTUAL, " + files + "caCertCredentialName: r, caCertificates: /r":              "servers[0].tls.caCertificates: has no effect beside a credential",
		"mode: MUTUAL, credentialName: c, caCertCredentialName: r, insecureSkipVerify: false": "",
	} {
		checkFinding(t, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], tls: {"+settings+"}}]\n", want, ISM0001)
	}
}

// TestCheck_GatewaysOfOneHost: what a second server of a host is told becomes of it.
func TestCheck_GatewaysOfOneHost(t *testing.T) {
	server := func(protocol, tls, host string) string {
		return "{port: {number: 443, name: p, protocol: " + protocol + "}, hosts: [" + host + "]" + tls + "}"
	}
	const ends, passes = ", tls: {mode: SIMPLE, credentialName: c}", ", tls: {mode: PASSTHROUGH}"
	for _, tt := range []struct{ name, first, second, want string }{
		{"plain, plain", server("HTTP", "", "a.test"), server("HTTP2", "", "a.test"), `f.yaml:10: warning: Gateway team/two: servers: host "a.test" on port 443 is served by Gateway edge/one in f.yaml:5 too; their routes are put together`},
		{"plain, of two namespaces", server("HTTP", "", "x/a.test"), server("HTTP", "", "y/a.test"), ""},
		{"plain, ends", server("HTTP", "", "a.test"), server("HTTPS", ends, "a.test"), ""},
		{"ends, ends", server("HTTPS", ends, "a.test"), server("HTTPS", ends, "a.test"), "in f.yaml:5 too, which ends TLS for it, with its own certificate and the routes bound to it: here the host has no effect"},
		{"ends, ends, of two namespaces", server("HTTPS", ends, "x/a.test"), server("HTTPS", ends, "y/a.test"), "here the host has no effect"},
		{"ends, ends by protocol TLS", server("HTTPS", ends, "a.test"), server("TLS", ends, "a.test"), "here the host has no effect"},
		{"ends, passes", server("HTTPS", ends, "a.test"), server("TLS", passes, "a.test"), "here tls routes for the host have no effect"},
		{"passes, ends", server("TLS", passes, "a.test"), server("HTTPS", ends, "a.test"), "only what none of its tls routes is for ends here"},
		{"passes, passes", server("TLS", passes, "a.test"), server("TLS", passes, "a.test"), "their routes are put together"},
		{"ends, others'", server("HTTPS", ends, "a.test"), server("HTTPS", ends, "b.test"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkFinding(t, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: one, namespace: edge}\nspec:\n  servers: ["+tt.first+"]\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: two, namespace: team}\nspec: {servers: ["+tt.second+"]}\n", tt.want, IST0145)
		})
	}
}

// TestGateway_TargetPort: it is one of a ServiceEntry's fields alone.
func TestGateway_TargetPort(t *testing.T) {
	checkFinding(t, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  servers: [{port: {number: 80, name: http, protocol: HTTP, targetPort: 8080}, hosts: ['*']}]\n",
		"f.yaml:5: warning: Gateway default/gw: servers[0].port.targetPort: has no effect yet", ISM0003)
	checkFinding(t, "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [e.test], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]}\n", "", ISM0003)
}
