package proxy

import (
	"net"
	"testing"

	"isthmus/explain"
)

// TestIPv6_Hosts: requests name addresses of IPv6 in brackets, for VirtualServices and
// ServiceEntries that have them, and names with a dot at their end.
func TestIPv6_Hosts(t *testing.T) {
	host, port, _ := net.SplitHostPort(replying(t, okReply).address)
	p := serve(t, atEdge(), `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry}
spec: {hosts: [entry.test], addresses: ["2001:db8::7"], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: `+host+`, ports: {http: `+port+`}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: address}
spec: {hosts: ["2001:db8::8"], http: [{directResponse: {status: 208}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all}
spec: {hosts: ["*"], gateways: [edge], http: [{directResponse: {status: 201}}]}
`)
	for _, tt := range []struct{ host, want, listener string }{
		{"[2001:db8::7]", "200", "outbound"},
		{"[2001:DB8::7]:80", "200", "outbound"},
		{"[2001:db8::8]", "208", "outbound"},
		{"[2001:db8::8]:8080", "208", "outbound"},
		{"[2001:db8::9]", "404", "gateway:80"},
		{"entry.test.", "200", "outbound"},
		{"Entry.test.:80", "200", "outbound"},
	} {
		if got := exchangeRaw(t, p.address("outbound"), get(tt.host), whole(1)); status(got) != tt.want {
			t.Errorf("%s: status %s, want %s", tt.host, status(got), tt.want)
		}
		e, err := p.Explain(explain.Question{URL: "http://" + tt.host + "/"})
		if err != nil {
			t.Fatal(err)
		}
		if e.Listener != tt.listener {
			t.Errorf("%s is explained for the listener %s, want %s", tt.host, e.Listener, tt.listener)
		}
	}
}
