package config

import (
	"fmt"
	"strings"
	"testing"

	"isthmus/mesh"
)

func TestParseCollector(t *testing.T) {
	for _, tt := range []struct {
		in       string
		protocol mesh.TraceProtocol
		want     mesh.Collector // no host: it is refused
	}{
		{"zipkin.istio-system:9411", mesh.Zipkin, mesh.Collector{Protocol: mesh.Zipkin, Host: "zipkin.istio-system", Port: 9411}},
		{"zipkin", mesh.Zipkin, mesh.Collector{Protocol: mesh.Zipkin, Host: "zipkin", Port: 9411}},
		{"https://zipkin.example/api/v2/spans", mesh.Zipkin, mesh.Collector{Protocol: mesh.Zipkin, Host: "zipkin.example", Port: 443, Path: "/api/v2/spans", TLS: true}},
		{"grpc://zipkin:1", mesh.Zipkin, mesh.Collector{}},
		{"http://127.0.0.1:4318", mesh.OTLPHTTP, mesh.Collector{Host: "127.0.0.1", Port: 4318}},
		{"http://collector/", mesh.OTLPHTTP, mesh.Collector{Host: "collector", Port: 4318}},
		{"http://[::1]:4318/v1/traces", mesh.OTLPHTTP, mesh.Collector{Host: "::1", Port: 4318, Path: "/v1/traces"}},
		{"grpc://collector", mesh.OTLPHTTP, mesh.Collector{Protocol: mesh.OTLPGRPC, Host: "collector", Port: 4317}},
		{"grpc://collector/path", mesh.OTLPHTTP, mesh.Collector{}},
		{"http://a:b@collector", mesh.OTLPHTTP, mesh.Collector{}},
		{"http://collector:99999", mesh.OTLPHTTP, mesh.Collector{}},
		{"http://collector?x", mesh.OTLPHTTP, mesh.Collector{}},
		{"", mesh.OTLPHTTP, mesh.Collector{}},
	} {
		usual := uint32(4318)
		if tt.protocol == mesh.Zipkin {
			usual = 9411
		}
		got, err := parseCollector(tt.in, tt.protocol, usual)
		if (err != nil) != (tt.want.Host == "") || err == nil && got != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

// TestRead_Tracing: the ConfigMap of the example, Istio's mesh configuration, and
// a Telemetry resource.
func TestRead_Tracing(t *testing.T) {
	r := Read([]File{{Name: "a.yaml", Data: []byte(`apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultProviders: {tracing: [otel]}
    defaultConfig:
      tracing: {sampling: 5, zipkin: {address: "zipkin:9411"}}
    extensionProviders:
    - name: otel
      opentelemetry: {service: ns/collector.observability.svc.cluster.local, port: 4317}
    - name: http
      opentelemetry: {service: collector, port: 4318, http: {path: /v1/traces}}
    - name: zip
      zipkin: {service: zipkin.istio-system.svc.cluster.local, port: 9411}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t}
spec:
  tracing:
  - match: {mode: SERVER}
    providers: [{name: zip}]
    randomSamplingPercentage: 0.5
    customTags: {b: {literal: {value: x}}, a: {header: {name: X-Tenant, defaultValue: none}}}
  - providers: [{name: nope}]
`)}}, nil)
	if r.Count(Error) > 0 || r.Count(Warning) != 1 {
		t.Fatal(r.Findings)
	}
	c := r.Config
	if c.Tracing.Sampling == nil || *c.Tracing.Sampling != 5 || len(c.Tracing.Collectors) != 1 || c.Tracing.Collectors[0].Host != "zipkin" || c.DefaultCollector != "otel" {
		t.Errorf("%+v", c.Tracing)
	}
	want := []mesh.Collector{
		{Name: "otel", Protocol: mesh.OTLPGRPC, Host: "collector.observability.svc.cluster.local", Port: 4317},
		{Name: "http", Protocol: mesh.OTLPHTTP, Host: "collector", Port: 4318, Path: "/v1/traces"},
		{Name: "zip", Protocol: mesh.Zipkin, Host: "zipkin.istio-system.svc.cluster.local", Port: 9411},
	}
	for i := range want {
		if len(c.Collectors) != len(want) || *c.Collectors[i] != want[i] {
			t.Fatalf("collectors %+v", c.Collectors)
		}
	}
	rule := c.Telemetries[0].Tracing[0]
	if rule.Sides != mesh.ServerSide || *rule.Sampling != 0.5 || rule.Collector != "zip" || len(rule.Tags) != 2 || rule.Tags[0] != (mesh.TraceTag{Name: "a", Header: "x-tenant", Default: "none"}) {
		t.Errorf("%+v", rule)
	}
}

// TestRead_DefaultCollector: the first one counts, if there is one.
func TestRead_DefaultCollector(t *testing.T) {
	for _, tt := range []struct{ mesh, warning string }{
		{"{defaultProviders: {tracing: [b]}, extensionProviders: [{name: a, zipkin: {service: a, port: 1}}, {name: b, zipkin: {service: b, port: 1}}]}", ""},
		{"{defaultProviders: {tracing: [b, a]}, extensionProviders: [{name: a, zipkin: {service: a, port: 1}}, {name: b, zipkin: {service: b, port: 1}}]}", "data.mesh.defaultProviders.tracing[1]: has no effect: spans go to the first one"},
		{"{defaultProviders: {tracing: [b]}, extensionProviders: [{name: a, zipkin: {service: a, port: 1}}]}", `data.mesh.defaultProviders.tracing[0]: no extensionProvider of kind zipkin or opentelemetry is called "b"`},
		{"{defaultProviders: {tracing: [b]}, extensionProviders: [{name: b, lightstep: {service: b, port: 1}}]}", `is called "b"`},
		{"{defaultProviders: {tracing: [b]}}", `is called "b"`},
	} {
		text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: '" + tt.mesh + "'\n"
		checkFinding(t, text, tt.warning, ISM0001)
		if got := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil).Config.DefaultCollector; got != "b" {
			t.Errorf("%s: %q", tt.mesh, got)
		}
	}
}

// TestRead_NoTracing: enableTracing says whether the collector of defaultConfig gets spans.
func TestRead_NoTracing(t *testing.T) {
	for said, want := range map[string]int{"enableTracing: false, ": 0, "enableTracing: true, ": 1, "": 1} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: '{" + said + "defaultConfig: {tracing: {sampling: 1, zipkin: {address: z}}}}'\n")}}, nil)
		if got := len(r.Config.Tracing.Collectors); got != want || len(r.Findings) > 0 {
			t.Errorf("%q: %d collectors, want %d: %v", said, got, want, r.Findings)
		}
	}
}

// TestRead_TracingOfOthers: a section of the name in a text of another program is not
// Istio's; one that looks like it is named.
func TestRead_TracingOfOthers(t *testing.T) {
	for _, tt := range []struct{ text, warning string }{
		{"tracing: {enabled: true}", ""},
		{"tracing: true", ""},
		{"tracing: [a]", ""},
		{"tracing: {smapling: 1, zipkin: {address: z}}", `f.yaml:7: warning: ConfigMap default/loki: data.loki.yaml.tracing: is not read, as it is not Istio's tracing configuration: data.loki.yaml.tracing.smapling: unknown field (did you mean "sampling"?)`},
		{"tracing: {sampling: 7, zipkin: {address: '', hub: x}}", "is not read"},
		{"tracing: {sampling: 1}", ""},
	} {
		text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: loki}\ndata:\n  loki.yaml: |\n    server: {}\n    " + tt.text + "\n"
		checkFinding(t, text, tt.warning, ISM0001)
		if s := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil).Config.Tracing.Sampling; s != nil && *s == 7 {
			t.Errorf("%s: a part of it is read", tt.text)
		}
	}
}

// TestRead_TwoMeshConfigs: which of them holds nobody would guess.
func TestRead_TwoMeshConfigs(t *testing.T) {
	configMap := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /dev/stdout\n---\n"
	}
	checkFinding(t, configMap("istio"), "", ISM0017)
	checkFinding(t, configMap("istio")+configMap("istio-1-24"), "f.yaml:12: warning: ConfigMap istio-system/istio-1-24: data.mesh: ConfigMap istio-system/istio in f.yaml:1 is a mesh configuration, too", ISM0017)
}

// TestRead_OtherProviders: a provider to which no spans are sent is not said to be missing.
func TestRead_OtherProviders(t *testing.T) {
	const telemetry = "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: t, namespace: istio-system}\nspec: {tracing: [{providers: [{name: sky}]}]}\n"
	checkFinding(t, meshConfigMap("extensionProviders: [{name: sky, skywalking: {service: sky.test, port: 11800}}]")+telemetry, `"sky" is an extensionProvider of kind skywalking, to which no spans are sent: spans go where tracing in the bootstrap file says`, ISM0001)
	const custom = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: CUSTOM, provider: {name: sky}, rules: [{}]}\n"
	for config, want := range map[string]string{
		meshConfigMap("extensionProviders: [{name: sky, skywalking: {service: sky.test, port: 11800}}]"): `"sky" is an extensionProvider of kind skywalking, which cannot say whom to let in`,
		meshConfigMap("accessLogFile: /dev/stdout"):                                                      "so nobody could say whom to let in (IST0101)",
		"": "so nobody could say whom to let in: give that ConfigMap, too (IST0101)",
	} {
		if r := Read([]File{{Name: "f.yaml", Data: []byte(config + custom)}}, nil); r.Count(Error) != 1 || !strings.Contains(fmt.Sprint(r.Findings), want) {
			t.Errorf("findings %v, want one error with %q", r.Findings, want)
		}
	}
	checkFinding(t, meshConfigMap("extensionProviders: [{name: other, skywalking: {service: sky.test, port: 11800}}]")+telemetry, `no extensionProvider of the mesh configuration is called "sky"`, ISM0001)
}

// TestRead_CheckedBody: who wants more of a body than is held is told so.
func TestRead_CheckedBody(t *testing.T) {
	for _, kind := range []string{"envoyExtAuthzHttp", "envoyExtAuthzGrpc"} {
		provider := func(n int) string {
			return meshConfigMap(fmt.Sprintf("extensionProviders: [{name: a, %s: {service: a.test, port: 80, includeRequestBodyInCheck: {maxRequestBytes: %d}}}]", kind, n))
		}
		checkFinding(t, provider(65536), "", ISM0001)
		checkFinding(t, provider(1000000), "extensionProviders[0]."+kind+".includeRequestBodyInCheck.maxRequestBytes: 1000000 bytes of a body are not held: services get 65536 bytes at most", ISM0001)
	}
}
