package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestVirtualService_AddressAsHost: a host may be an address, of IPv6 as of IPv4 (Istio:
// ValidateVirtualService), and is what requests name then.
func TestVirtualService_AddressAsHost(t *testing.T) {
	for _, tt := range []struct{ host, want string }{
		{"10.0.0.1", "[10.0.0.1]"},
		{"2001:DB8:0:0::8", "[[2001:db8::8]]"},
		{"::9", "[[::9]]"},
		{"::ffff:10.0.0.1", "[10.0.0.1]"},
		{"fe80::1%eth0", `hosts[0]: "fe80::1%eth0" is no host name`},
		{"10.0.0.1:80", `hosts[0]: "10.0.0.1:80" is no host name: write 10.0.0.1, and the port 80 where ports are`},
	} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: ['" + tt.host + "'], http: [{directResponse: {status: 200}}]}\n")}}, nil)
		got := fmt.Sprint(r.Config.VirtualServices[0].Hosts)
		if r.HasErrors() {
			got = fmt.Sprint(r.Findings[0])
			got, _, _ = strings.Cut(got[strings.Index(got, "hosts["):], " (")
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.host, got, tt.want)
		}
	}
}

// TestAddress_OneForm: what is said of the application at this node's address counts however
// the addresses are written.
func TestAddress_OneForm(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: prod}\nspec: {selector: {app: s}, ports: [{name: http, port: 80, targetPort: web}]}\n---\n"
	for _, tt := range []struct{ own, written string }{
		{"10.0.0.1", "10.0.0.1"},
		{"10.0.0.1", "::ffff:10.0.0.1"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
		{"2001:db8::1", "2001:DB8:0:0::1"},
		{"2001:0db8::0001", "2001:db8::1"},
	} {
		file := filepath.Join(t.TempDir(), "boot.yaml")
		if err := os.WriteFile(file, []byte("node: {namespace: prod, address: '"+tt.own+"', labels: {app: s}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b, _, err := LoadBootstrap(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		for kind, text := range map[string]string{
			"WorkloadEntry": "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w, namespace: prod}\nspec: {address: '" + tt.written + "', labels: {app: s}, ports: {web: 8081}}\n",
			"EndpointSlice": "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, namespace: prod, labels: {kubernetes.io/service-name: s}}\naddressType: IPv6\nports: [{name: http, port: 8081}]\nendpoints: [{addresses: ['" + tt.written + "']}]\n",
			"Endpoints":     "apiVersion: v1\nkind: Endpoints\nmetadata: {name: s, namespace: prod}\nsubsets: [{addresses: [{ip: '" + tt.written + "'}], ports: [{name: http, port: 8081}]}]\n",
		} {
			c := Read([]File{{Name: "f.yaml", Data: []byte(service + text)}}, nil).Config
			if n, known := mesh.ApplicationPort(b.MeshNode(), c, c.Services[0], c.Services[0].Ports[0]); n != 8081 || !known {
				t.Errorf("at %s, of which %s says %s: port %d, known: %v", tt.own, kind, tt.written, n, known)
			}
		}
	}
}
