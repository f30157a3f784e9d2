package config

import (
	"strings"
	"testing"
)

// TestWorkload_Wildcard: an endpoint's address is one name.
func TestWorkload_Wildcard(t *testing.T) {
	for address, want := range map[string]string{"a.test": "", "'*.a.test'": `endpoints[0].address: "*.a.test" stands for many names`} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [e.test], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: " + address + "}]}\n")}}, nil)
		if r.HasErrors() != (want != "") || want != "" && !strings.Contains(r.Findings[0].String(), want) {
			t.Errorf("%s: findings %v, want %q", address, r.Findings, want)
		}
	}
}
