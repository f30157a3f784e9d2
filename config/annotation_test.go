package config

import (
	"strings"
	"testing"
)

// TestRead_WithoutEffect: what would be a setting if it were spelt otherwise, or stood elsewhere, is said.
func TestRead_WithoutEffect(t *testing.T) {
	const rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, annotations: {%}}\nspec: {host: a.test}\n"
	const networks = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    connectTimeout: 3s\n  meshNetworks: |\n    networks: {%}\n"
	const route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [a.test], http: [{route: [{destination: {host: a.test}}], headers: {%}}]}\n"
	for _, tt := range []struct{ name, text, want string }{
		{"misspelt", strings.Replace(rule, "%", `isthmus.io/inbonud: "true"`, 1), `annotations.isthmus.io/inbonud: has no effect: there is no such annotation (did you mean "isthmus.io/inbound"?)`},
		{"another kind's", strings.Replace(rule, "%", `isthmus.io/standby: "true"`, 1), `annotations.isthmus.io/standby: has no effect on a DestinationRule: it is for a VirtualService`},
		{"its own", strings.Replace(rule, "%", `isthmus.io/inbound: "true", isthmus.io/adaptive-concurrency: "true"`, 1), ""},
		{"any kind's", strings.Replace(rule, "%", `isthmus.io/removed: "false"`, 1), ""},
		{"somebody else's", strings.Replace(rule, "%", `example.com/inbonud: "true"`, 1), ""},
		{"framing", strings.Replace(route, "%", "request: {set: {Content-Length: \"1\"}}", 1), "headers.request.set.Content-Length: has no effect"},
		{"a connection's", strings.Replace(route, "%", "response: {add: {connection: close}}", 1), "headers.response.add.connection: has no effect"},
		{"no host at all", strings.Replace(route, "%", "request: {remove: [Host]}", 1), "headers.request.remove[0]: has no effect"},
		{"a reply's host", strings.Replace(route, "%", "response: {set: {host: b.test}}", 1), "headers.response.set.host: has no effect"},
		{"another host", strings.Replace(route, "%", "request: {set: {host: b.test, x-a: b}, remove: [x-b, server]}", 1), ""},
		{"meshNetworks", strings.Replace(networks, "%", "n1: {endpoints: [{fromRegistry: c1}], gateways: [{address: 192.0.2.1, port: 15443}]}", 1), "data.meshNetworks: has no effect"},
		{"meshNetworks as Istio installs it", strings.Replace(networks, "%", "", 1), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var told []string
			for _, f := range Read([]File{{Name: "a.yaml", Data: []byte(tt.text)}}, nil).Findings {
				if strings.Contains(f.String(), "has no effect") {
					told = append(told, f.String())
				}
			}
			if got := strings.Join(told, "\n"); !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") || len(told) > 1 {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
