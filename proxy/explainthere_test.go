package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"isthmus/config"
	"isthmus/explain"
	"isthmus/mesh"
)

// TestExplain_There: what is said of the other end is what the proxy there does, whatever of
// the request and the connection its policies look at.
func TestExplain_There(t *testing.T) {
	tr := newTrust(t)
	frontend, web := tr.identity("shop", "frontend"), tr.identity("prod", "web")
	const from = "from: [{source: {%s}}]"
	const to = "to: [{operation: {%s}}]"
	const when = "when: [{key: %s, values: [%q]}]"
	for _, tt := range []struct {
		name, rule string
		allowed    bool
	}{
		{"the caller", fmt.Sprintf(from, "principals: [cluster.local/ns/shop/sa/frontend]"), true},
		{"another caller", fmt.Sprintf(from, "principals: [cluster.local/ns/shop/sa/other]"), false},
		{"its namespace", fmt.Sprintf(from, "namespaces: [shop]"), true},
		{"its address", fmt.Sprintf(from, "ipBlocks: [127.0.0.1]"), true},
		{"the client's address", fmt.Sprintf(from, "remoteIpBlocks: [127.0.0.1]"), true},
		{"another address", fmt.Sprintf(from, "notIpBlocks: [127.0.0.0/8]"), false},
		{"the path that it gets", fmt.Sprintf(to, "paths: [/new/x]"), true},
		{"the path before", fmt.Sprintf(to, "paths: [/old/x]"), false},
		{"the host that it gets", fmt.Sprintf(to, "hosts: [rewritten.test]"), true},
		{"the port of the application", fmt.Sprintf(to, "ports: [%q]"), true},
		{"the port of the service", fmt.Sprintf(to, `ports: ["80"]`), false},
		{"a header of the route", fmt.Sprintf(when, "'request.headers[x-route]'", "set"), true},
		{"the server name", fmt.Sprintf(when, "connection.sni", "outbound_.80_._.web.prod.svc.cluster.local"), true},
		{"another server name", fmt.Sprintf(when, "connection.sni", "other.test"), false},
		{"the address of the service", fmt.Sprintf(when, "destination.ip", "127.0.0.0/8"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			application := servedBy(t, 1)[0]
			_, port, _ := strings.Cut(application, ":")
			policy := authorization("prod", "p", "rules: [{"+strings.Replace(tt.rule, "%q", `"`+port+`"`, 1)+"}]")
			callee := sidecarOfWeb(t, web, application, policy)
			caller := serve(t, proxyOf("shop", "frontend", frontend), webService(application)+policy+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: prod}
spec:
  hosts: [web.prod.global]
  http:
  - match: [{uri: {prefix: /old}}]
    rewrite: {uri: /new, authority: rewritten.test}
    headers: {request: {set: {x-route: set}}}
    route: [{destination: {host: web.prod.global}}]
`, webAt(callee, web.Identity().ID))
			e, err := caller.Explain(explain.Question{URL: "http://web.prod.global/old/x"})
			if err != nil {
				t.Fatal(err)
			}
			want := "403"
			if tt.allowed {
				want = "200"
			}
			got := status(exchangeRaw(t, caller.address("outbound"), "GET /old/x HTTP/1.1\r\nHost: web.prod.global\r\n\r\n", whole(1)))
			there := e.Destinations[0].There
			if got != want || there == nil || (there.Verdict == "allowed") != tt.allowed {
				var b strings.Builder
				explain.Write(&b, e)
				t.Errorf("status %s, want %s; explained:\n%s", got, want, b.String())
			}
		})
	}
}

// TestExplain_ThereAddresses: to the other end, a connection comes from this proxy, and the
// client is who called that, unless it is its own application.
func TestExplain_ThereAddresses(t *testing.T) {
	n := testNode()
	n.Address, n.Identity = "10.0.0.9", "spiffe://cluster.local/ns/default/sa/default"
	for _, tt := range []struct {
		source, client string
		allowed        bool
	}{
		{"ipBlocks: [10.0.0.9]", "127.0.0.1", true}, {"remoteIpBlocks: [10.0.0.9]", "127.0.0.1", true}, {"ipBlocks: [127.0.0.0/8]", "127.0.0.1", false},
		{"ipBlocks: [10.0.0.9]", "192.0.2.7", true}, {"remoteIpBlocks: [192.0.2.7]", "192.0.2.7", true}, {"remoteIpBlocks: [10.0.0.9]", "192.0.2.7", false},
	} {
		yaml := webService("10.1.0.1:8080") + authorization("prod", "p", "rules: [{from: [{source: {"+tt.source+"}}]}]")
		r := config.Read([]config.File{{Name: "test.yaml", Data: []byte(yaml)}}, n)
		if r.HasErrors() {
			t.Fatal(r.Findings)
		}
		p := NewIdle(Options{Node: n}, &mesh.Snapshot{
			Node: n, Config: r.Config, Rules: mesh.NewRules(n, nil),
			Registry: mesh.NewRegistry(mesh.Known{Node: n, Config: r.Config, Announced: []mesh.Endpoint{{
				Service: "web.prod", Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP}, Address: netip.MustParseAddrPort("10.1.0.1:15006"),
				Cluster: "c1", Weight: 1, Via: true, Identity: "spiffe://cluster.local/ns/prod/sa/web", Source: mesh.SourceGossip,
			}}}),
		})
		e, err := p.Explain(explain.Question{URL: "http://web.prod/", Address: netip.MustParseAddr(tt.client)})
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		if there := e.Destinations[0].There; there == nil || (there.Verdict == "allowed") != tt.allowed {
			t.Errorf("%s, of client %s: %+v, want allowed: %v", tt.source, tt.client, there, tt.allowed)
		}
	}
}
