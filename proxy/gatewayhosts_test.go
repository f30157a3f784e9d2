package proxy

import (
	"strings"
	"testing"
)

// TestGatewayHosts_Together: on one port of a gateway, all VirtualServices for a host
// hold together, in whatever order they stand and whichever Gateways they name: the
// narrower host's rules first, rules without conditions last.
func TestGatewayHosts_Together(t *testing.T) {
	vs := func(name, host, gateways, rules string) string {
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " + name + "}\nspec:\n  hosts: [" + host + "]\n  gateways: [" + gateways + "]\n  http: [" + rules + "]\n"
	}
	gw := func(name, host string) string {
		return "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: " + name + "}\nspec:\n  selector: {istio: ingressgateway}\n" +
			"  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [" + host + "]}]\n"
	}
	answer := func(path, status string) string {
		return "{match: [{uri: {prefix: " + path + "}}], directResponse: {status: " + status + "}}"
	}
	always := func(status string) string { return "{directResponse: {status: " + status + "}}" }
	for _, tt := range []struct {
		name  string
		files []string
		want  string // path status, ...
	}{
		{"a wildcard and an exact host", []string{
			gw("a", "shop.test"), vs("all", `"*"`, "a", answer("/a", "201")+","+always("209")), vs("shop", "shop.test", "a", answer("/b", "202")),
		}, "/a 201 /b 202 /c 209"},
		{"the exact host's first", []string{
			gw("a", "shop.test"), vs("all", `"*"`, "a", answer("/a", "201")), vs("part", `"*.test"`, "a", answer("/a", "203")+","+answer("/p", "204")), vs("shop", "shop.test", "a", answer("/a", "202")),
		}, "/a 202 /p 204 /c 404"},
		{"two Gateways", []string{
			gw("a", "shop.test"), gw("b", "shop.test"), vs("one", "shop.test", "a", answer("/a", "201")), vs("two", "shop.test", "b", answer("/b", "202")),
		}, "/a 201 /b 202 /c 404"},
		{"one without conditions", []string{
			gw("a", "shop.test"), gw("b", `"*.test"`), vs("one", "shop.test", "a", always("209")), vs("two", "shop.test", "b", answer("/b", "202")),
		}, "/a 209 /b 202"},
		{"on both Gateways", []string{
			gw("a", "shop.test"), gw("b", "shop.test"), vs("one", "shop.test", "a, b", answer("/a", "201")), vs("two", "shop.test", "b", answer("/b", "202")),
		}, "/a 201 /b 202"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, order := range []string{"as they are", "the other way round"} {
				yaml := ""
				for _, f := range tt.files {
					f += "---\n"
					if order == "as they are" {
						yaml += f
					} else {
						yaml = f + yaml
					}
				}
				p := serve(t, atEdge(), yaml)
				want := strings.Fields(tt.want)
				for i := 0; i < len(want); i += 2 {
					if got := exchangeRaw(t, p.address("gateway:80"), "GET "+want[i]+" HTTP/1.1\r\nHost: shop.test\r\n\r\n", whole(1)); status(got) != want[i+1] {
						t.Errorf("%s: %s: status %s, want %s", order, want[i], status(got), want[i+1])
					}
				}
			}
		})
	}
}
