package config

import (
	"fmt"
	"testing"

	"isthmus/mesh"
)

// TestSidecar_Exclusions: what egress leaves out is read, and named if no file has it.
func TestSidecar_Exclusions(t *testing.T) {
	text := func(namespace, hosts string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: " + namespace + "}\nspec: {egress: [{hosts: [" + hosts + "]}]}\n"
	}
	for _, tt := range []struct{ namespace, hosts, read, want string }{
		{"shop", "'~/*'", "[{~* *}]", ""},
		{"shop", "'*/*', '~shop/web.shop.svc.cluster.local', '~/web'", "[{* *} {~shop web.shop.svc.cluster.local} {~* web}]", ""},
		{"shop", "'~./*'", "[{~. *}]", ""},
		{"istio-system", "'~./*'", "[{~. *}]", ""},
		{"shop", "'./*', './wep.shop.svc.cluster.local'", "[{. *} {. wep.shop.svc.cluster.local}]", "shop/wep.shop.svc.cluster.local: no file has a service or a route of that name in that namespace, so it lets nothing in"},
		{"shop", "'*/*', '~shop/wep.shop.svc.cluster.local'", "[{* *} {~shop wep.shop.svc.cluster.local}]", "shop/wep.shop.svc.cluster.local: no file has a service or a route of that name in that namespace, so it leaves nothing out"},
	} {
		checkFinding(t, text(tt.namespace, tt.hosts), tt.want, ISM0065)
		r := Read([]File{{Name: "f.yaml", Data: []byte(text(tt.namespace, tt.hosts))}}, nil)
		if got := fmt.Sprint(r.Config.Sidecars[0].Egress); got != tt.read || r.HasErrors() {
			t.Errorf("%s: read as %s, want %s; findings %v", tt.hosts, got, tt.read, r.Findings)
		}
	}
}

// TestSidecar_OfTheRoot: what "." means to a Sidecar of the root namespace, whatever that is
// called, is the namespace of each proxy.
func TestSidecar_OfTheRoot(t *testing.T) {
	text := "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\n" +
		"apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: bank}\nspec: {selector: {app: pay}, ports: [{port: 80}]}\n---\n" +
		"apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: mesh-root}\nspec: {egress: [{hosts: ['./*']}]}\n"
	for namespace, want := range map[string]string{"shop": "web", "bank": "pay"} {
		r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, &mesh.Node{Namespace: namespace, RootNamespace: "mesh-root", Cluster: "c1"})
		if got := r.Config.Services; len(got) != 1 || got[0].Name != want {
			t.Errorf("a proxy of %s knows %d services, want %s alone", namespace, len(got), want)
		}
	}
}

// TestSidecar_Ingress: it restricts nothing, and bounds connections alone.
func TestSidecar_Ingress(t *testing.T) {
	text := func(ingress string) string {
		return "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: shop}\nspec: {ingress: [{" + ingress + "}]}\n"
	}
	checkFinding(t, text("port: {number: 8080, protocol: HTTP, name: http}"), "f.yaml:4: warning: Sidecar shop/s: ingress[0].port: has no effect yet without connectionPool", ISM0003)
	checkFinding(t, text("port: {number: 8080, protocol: HTTP, name: http}, connectionPool: {tcp: {maxConnections: 1}}"), "", ISM0003)
	checkFinding(t, text("port: {number: 8080, targetPort: 9, protocol: HTTP, name: http}, connectionPool: {tcp: {maxConnections: 1}}"), "ingress[0].port.targetPort: has no effect yet", ISM0003)
}
