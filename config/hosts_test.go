package config

import (
	"fmt"
	"strings"
	"testing"
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
