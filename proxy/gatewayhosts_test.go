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
		{"alternatives of one without conditions", []string{
			gw("a", "shop.test"), vs("one", "shop.test", "a", "{match: [{uri: {prefix: /a}}, {uri: {prefix: /}}], directResponse: {status: 209}}"), vs("all", `"*"`, "a", answer("/a", "201")+","+answer("/b", "202")),
		}, "/a 209 /b 202 /c 209"},
		{"behind one without conditions", []string{
			gw("a", "shop.test"), vs("one", "shop.test", "a", always("209")+","+answer("/a", "203")), vs("all", `"*"`, "a", answer("/b", "202")),
		}, "/a 209 /b 202 /c 209"},
		{"with the dot at the end", []string{gw("a", "shop.test."), vs("one", "shop.test.", "a", always("201"))}, "/a 201"},
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

// TestGatewayHosts_BehindTLS: a gateway behind one that terminates TLS goes by what
// that one says of how the client has asked, and not by what anybody else says.
func TestGatewayHosts_BehindTLS(t *testing.T) {
	const yaml = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"], tls: {httpsRedirect: true}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.test]
  gateways: [gw]
  http:
  - match: [{uri: {prefix: /moved}}]
    redirect: {uri: /here}
  - match: [{scheme: {exact: https}}]
    directResponse: {status: 200, body: {string: by https}}
  - directResponse: {status: 209}
`
	for _, tt := range []struct {
		name    string
		trusted int
		request string // path, and what x-forwarded-proto says
		want    string // in the reply
	}{
		{"by https", 1, "/ https", "200 OK"},
		{"in capitals", 1, "/ HTTPS", "200 OK"},
		{"a redirect", 1, "/moved https", "location: https://shop.test/here\r\n"},
		{"in plain text", 1, "/ http", "location: https://shop.test/\r\n"},
		{"without a word", 1, "/", "location: https://shop.test/\r\n"},
		{"by https, says the client of that one", 1, "/ https\r\nX-Forwarded-Proto: http", "location: https://shop.test/\r\n"},
		{"by http, says the client of that one", 1, "/ http\r\nX-Forwarded-Proto: https", "200 OK"},
		{"nonsense", 1, "/ ftp", "location: https://shop.test/\r\n"},
		{"by https, says somebody", 0, "/ https", "location: https://shop.test/\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := atEdge()
			o.NumTrustedProxies = tt.trusted
			p := serve(t, o, yaml)
			path, proto, said := strings.Cut(tt.request, " ")
			request := "GET " + path + " HTTP/1.1\r\nHost: shop.test\r\n"
			if said {
				request += "X-Forwarded-Proto: " + proto + "\r\n"
			}
			if got := exchangeRaw(t, p.address("gateway:80"), request+"\r\n", whole(1)); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}
