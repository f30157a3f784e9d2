package config

import (
	"fmt"
	"testing"
)

// TestSidecar_Exclusions: what egress leaves out is read, and named if no file has it.
func TestSidecar_Exclusions(t *testing.T) {
	text := func(namespace, hosts string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: " + namespace + "}\nspec: {egress: [{hosts: [" + hosts + "]}]}\n"
	}
	for _, tt := range []struct{ namespace, hosts, read, want string }{
		{"shop", "'~/*'", "[{~* *}]", ""},
		{"shop", "'*/*', '~shop/web.shop.svc.cluster.local', '~/web'", "[{* *} {~shop web.shop.svc.cluster.local} {~* web}]", ""},
		{"shop", "'~./*'", "[{~shop *}]", ""},
		{"istio-system", "'~./*'", "[{~. *}]", ""}, // of each proxy
		{"shop", "'*/*', '~shop/wep.shop.svc.cluster.local'", "[{* *} {~shop wep.shop.svc.cluster.local}]", "shop/wep.shop.svc.cluster.local: no file has a service or a route of that name in that namespace, so it leaves nothing out"},
	} {
		checkFinding(t, text(tt.namespace, tt.hosts), tt.want, ISM0065)
		r := Read([]File{{Name: "f.yaml", Data: []byte(text(tt.namespace, tt.hosts))}}, nil)
		if got := fmt.Sprint(r.Config.Sidecars[0].Egress); got != tt.read || r.HasErrors() {
			t.Errorf("%s: read as %s, want %s; findings %v", tt.hosts, got, tt.read, r.Findings)
		}
	}
}
