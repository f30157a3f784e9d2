package config

import (
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestDestinationRule_Unused: settings that nobody looks at beside others are named, and no
// others.
func TestDestinationRule_Unused(t *testing.T) {
	for policy, want := range map[string]string{
		"tls: {mode: DISABLE}": "",
		"tls: {}":              "",
		"tls: {sni: a.test}":   "trafficPolicy.tls: has no effect, in Istio neither: no mode is named, which means DISABLE: speaks plain text",
		"tls: {mode: DISABLE, subjectAltNames: [a]}":                                                                       "trafficPolicy.tls: has no effect, in Istio neither: mode DISABLE speaks plain text",
		"tls: {mode: ISTIO_MUTUAL, sni: a.test}":                                                                           "",
		"tls: {mode: ISTIO_MUTUAL, insecureSkipVerify: true}":                                                              "trafficPolicy.tls.insecureSkipVerify: has no effect by mode ISTIO_MUTUAL",
		"tls: {mode: SIMPLE, insecureSkipVerify: true, sni: a.test}":                                                       "",
		"tls: {mode: SIMPLE, insecureSkipVerify: false, subjectAltNames: [a]}":                                             "",
		"tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}":                                              "trafficPolicy.tls.subjectAltNames: has no effect beside insecureSkipVerify",
		"tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca.crt}":                                           "trafficPolicy.tls.caCertificates: has no effect beside insecureSkipVerify",
		"tls: {mode: MUTUAL, credentialName: c, insecureSkipVerify: true, subjectAltNames: [a]}":                           "trafficPolicy.tls.subjectAltNames: has no effect beside insecureSkipVerify",
		"connectionPool: {tcp: {connectTimeout: 0s}}":                                                                      "trafficPolicy.connectionPool.tcp.connectTimeout: 0s means the default, 10s",
		"connectionPool: {tcp: {tcpKeepalive: {time: 9h, interval: 32767s, probes: 127}}}":                                 "",
		"connectionPool: {tcp: {tcpKeepalive: {time: 10h}}}":                                                               "trafficPolicy.connectionPool.tcp.tcpKeepalive.time: has no effect: Linux takes 9h6m7s at most",
		"connectionPool: {tcp: {tcpKeepalive: {probes: 128}}}":                                                             "trafficPolicy.connectionPool.tcp.tcpKeepalive.probes: has no effect: Linux takes 127 at most",
		"outlierDetection: {consecutiveErrors: 5}":                                                                         "trafficPolicy.outlierDetection.consecutiveErrors: has no effect, in Istio neither: write consecutive5xxErrors",
		"outlierDetection: {consecutiveGatewayErrors: 1}":                                                                  "",
		"retryBudget: {}, connectionPool: {http: {maxRetries: 3}}":                                                         "trafficPolicy.connectionPool.http.maxRetries: has no effect beside retryBudget",
		"retryBudget: {}, connectionPool: {http: {http2MaxRequests: 3}}":                                                   "",
		"connectionPool: {http: {idleTimeout: 0s}}":                                                                        "trafficPolicy.connectionPool.http.idleTimeout: 0s means the default, 1h",
		"connectionPool: {tcp: {connectTimeout: 1s, idleTimeout: 0s, maxConnectionDuration: 0s}, http: {idleTimeout: 1s}}": "",
		"connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}":                                      "trafficPolicy.connectionPool.http.h2UpgradePolicy: has no effect beside useClientProtocol",
		"connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: DO_NOT_UPGRADE}}":                               "",
	} {
		checkFinding(t, rulesFor("{"+policy+"}", ""), want, ISM0001)
	}
	for policy, want := range map[string]string{
		"":                            "",
		"consecutiveGatewayErrors: 4": "",
		"consecutiveGatewayErrors: 5": "trafficPolicy.outlierDetection.consecutiveGatewayErrors: 5 changes nothing: consecutive5xxErrors ejects at 5 already",
		"consecutiveGatewayErrors: 5, consecutive5xxErrors: 0": "",
		"consecutiveGatewayErrors: 0, consecutive5xxErrors: 0": "",
	} {
		checkFinding(t, rulesFor("{outlierDetection: {"+policy+"}}", ""), want, ISM0029)
	}
}

// rulesFor are two DestinationRules for one host, the second one with a subset.
func rulesFor(first, second string) string {
	const head = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: "
	text := head + "first}\nspec: {host: a.test, trafficPolicy: " + first + "}\n"
	if second != "" {
		text += "---\n" + head + "second}\nspec: {host: a.test, " + second + "}\n"
	}
	return text
}

// TestDestinationRule_PortConflicts: of two rules for one host, the block of a port that has
// no effect is named.
func TestDestinationRule_PortConflicts(t *testing.T) {
	const port = "{portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}"
	const beside = "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}, loadBalancer: {simple: RANDOM}}]}"
	for first, want := range map[string]string{
		"{tls: {mode: SIMPLE}}": "DestinationRule default/second: trafficPolicy.portLevelSettings: f.yaml:4 sets tls for a.test too, port 80 included, and wins",
		port:                    "DestinationRule default/second: trafficPolicy.portLevelSettings: f.yaml:4 sets tls for a.test too, port 80 included, and wins",
		"{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, outlierDetection: {}}]}": "",
		strings.Replace(port, "80", "81", 1):                                                     "",
	} {
		checkFinding(t, rulesFor(first, beside), want, ISM0017)
	}
}

// TestDestinationRule_SubsetPorts: an entry for a port of a subset takes the blocks of the rule
// with it, too.
func TestDestinationRule_SubsetPorts(t *testing.T) {
	for port, want := range map[string]string{
		"80, tls: {mode: SIMPLE}": "subsets[0].trafficPolicy.portLevelSettings: for port 80 they stand in the place of all that is above them, so connectionPool and outlierDetection has no effect there: write it",
		"81, tls: {mode: SIMPLE}": "so connectionPool and loadBalancer and outlierDetection has no effect there",
		"81, loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {}": "",
	} {
		number, blocks, _ := strings.Cut(port, ",")
		text := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a.test\n" +
			"  trafficPolicy: {outlierDetection: {}, portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: RANDOM}, outlierDetection: {}}]}\n" +
			"  subsets: [{name: v1, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}, portLevelSettings: [{port: {number: " + number + "}," + blocks + "}]}}]\n"
		checkFinding(t, text, want, ISM0062)
	}
}

// TestDestinationRule_SelectsAll: a workloadSelector without labels is for all of the namespace, and
// for no other.
func TestDestinationRule_SelectsAll(t *testing.T) {
	for selector, want := range map[string]string{"": "a b", ", workloadSelector: {}": "a", ", workloadSelector: {matchLabels: {}}": "a", ", workloadSelector: {matchLabels: {app: x}}": ""} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: a}\nspec: {host: s.test" + selector + "}\n")}}, nil)
		var got []string
		for _, namespace := range []string{"a", "b"} {
			if len(mesh.NewRules(&mesh.Node{Namespace: namespace}, r.Config.DestinationRules).Candidates("s.test", "a")) > 0 {
				got = append(got, namespace)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q holds for namespaces %q, want %q", selector, got, want)
		}
	}
}

// TestDestinationRule_WildcardName: where TLS would ask for a server by a wildcard, that is said.
func TestDestinationRule_WildcardName(t *testing.T) {
	const entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: all}\nspec: {hosts: [\"*.a.test\", b.test], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.1}]}\n---\n"
	for rule, want := range map[string]string{
		"host: \"*.a.test\", trafficPolicy: {tls: {mode: SIMPLE}}":                                                             "trafficPolicy.tls: asks for the server name *.a.test, as ServiceEntry default/all has it",
		"host: \"*.test\", trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: MUTUAL, credentialName: c}}]}": "trafficPolicy.portLevelSettings: asks for the server name *.a.test",
		"host: \"*.a.test\", trafficPolicy: {tls: {mode: SIMPLE, sni: x.a.test}}":                                              "",
		"host: \"*.a.test\", trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}":                                                       "",
		"host: \"*.b.test\", trafficPolicy: {tls: {mode: SIMPLE}}":                                                             "",
		"host: b.test, trafficPolicy: {tls: {mode: SIMPLE}}":                                                                   "",
	} {
		checkFinding(t, entry+"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {"+rule+"}\n", want, ISM0001)
	}
}
