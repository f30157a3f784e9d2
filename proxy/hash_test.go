package proxy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"isthmus/http1"
	"isthmus/mesh"
)

// hashRule is a DestinationRule with a consistentHash.
func hashRule(spec string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: s.test
  trafficPolicy: {loadBalancer: {consistentHash: {%s}}}
---
`, spec)
}

// named answers every request with its name.
func named(t testing.TB, name string) string {
	return replying(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nx-from: %s\r\nContent-Length: 0\r\n\r\n", name)).address
}

var from = regexp.MustCompile(`x-from: (\w+)`)

// TestHash: requests that agree in what is hashed go to one endpoint, others
// spread.
func TestHash(t *testing.T) {
	var addresses []string
	for i := range 5 {
		addresses = append(addresses, named(t, fmt.Sprint("e", i)))
	}
	for _, tt := range []struct {
		name, spec string
		request    func(value int) (path, fields string)
	}{
		{"header", "httpHeaderName: X-User", func(v int) (string, string) { return "/", fmt.Sprintf("x-user: %d\r\n", v) }},
		{"path", `httpHeaderName: ":path"`, func(v int) (string, string) { return fmt.Sprint("/", v), "" }},
		{"path and query", `httpHeaderName: ":PATH"`, func(v int) (string, string) { return fmt.Sprint("/?a=", v), "" }},
		{"cookie", "httpCookie: {name: user}", func(v int) (string, string) { return "/", fmt.Sprintf("Cookie: a=b; user=%d; c=d\r\n", v) }},
		{"query parameter", "httpQueryParameterName: user", func(v int) (string, string) { return fmt.Sprintf("/?a=1&user=%d", v), "" }},
		{"maglev", "httpHeaderName: x-user, maglev: {}", func(v int) (string, string) { return "/", fmt.Sprintf("x-user: %d\r\n", v) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, entry("s.test", addresses...)+hashRule(tt.spec))
			endpoints := map[string]bool{}
			for value := range 40 {
				path, fields := tt.request(value)
				first := ""
				for range 3 {
					got := exchangeRaw(t, p.address("outbound"), fmt.Sprintf("GET %s HTTP/1.1\r\nHost: s.test\r\n%s\r\n", path, fields), whole(1))
					m := from.FindStringSubmatch(got)
					if m == nil {
						t.Fatalf("answered %q", got)
					}
					if first == "" {
						first = m[1]
					}
					if m[1] != first {
						t.Fatalf("value %d went to %s and to %s", value, first, m[1])
					}
					endpoints[m[1]] = true
				}
			}
			if len(endpoints) < 4 {
				t.Errorf("40 values went to %d of 5 endpoints", len(endpoints))
			}
			got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
			if status(got) != "200" || strings.Contains(got, "set-cookie") {
				t.Errorf("a request with nothing to hash: %q", got)
			}
		})
	}
}

// TestHash_PseudoFields: what is no field of HTTP/1.1 may be what requests are told apart by.
func TestHash_PseudoFields(t *testing.T) {
	for text, want := range map[string][4]string{
		"GET /a HTTP/1.1\r\nHost: s.test\r\n\r\n":         {"s.test", "GET", "/a", "http"},
		"POST /a?b=c HTTP/1.1\r\nHost: s.test:80\r\n\r\n": {"s.test:80", "POST", "/a?b=c", "http"},
	} {
		x := &exchange{conn: &conn{stream: &stream{}, client: &client{listener: &listener{}}}}
		if _, err := x.req.Parse([]byte(text), http1.Limits{}); err != nil {
			t.Fatal(err)
		}
		for i, name := range mesh.PseudoFields {
			if got, ok := x.fieldToHash(name); !ok || string(got) != want[i] {
				t.Errorf("%q: %s is %q, %v, want %q", text, name, got, ok, want[i])
			}
		}
	}
}

// TestHash_GeneratedCookie: whoever comes without the cookie gets one, and
// comes to the same endpoint with it.
func TestHash_GeneratedCookie(t *testing.T) {
	var addresses []string
	for i := range 5 {
		addresses = append(addresses, named(t, fmt.Sprint("e", i)))
	}
	p := serve(t, Options{}, entry("s.test", addresses...)+hashRule("httpCookie: {name: user, path: /p, ttl: 60s, attributes: [{name: SameSite, value: Strict}]}"))
	cookie := regexp.MustCompile(`set-cookie: (user="[0-9a-f]{16}"); Max-Age=60; Path=/p; SameSite=Strict; HttpOnly\r\n`)
	for range 10 {
		got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
		m := cookie.FindStringSubmatch(got)
		if m == nil {
			t.Fatalf("no cookie in %q", got)
		}
		want := from.FindStringSubmatch(got)[1]
		again := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\nCookie: "+m[1]+"\r\n\r\n", whole(1))
		if from.FindStringSubmatch(again)[1] != want || strings.Contains(again, "set-cookie") {
			t.Errorf("with the cookie of %s: %q", want, again)
		}
	}
}

// TestHash_OtherCookie: who is served by another destination than the one drawn, since nobody is
// there, gets that one's cookie.
func TestHash_OtherCookie(t *testing.T) {
	const rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s}\nspec: {host: %s, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: %s, ttl: 0s}}}}}\n---\n"
	long := strings.Repeat("long", 20)
	p := serve(t, Options{}, entry("a.test", "127.0.0.1:1")+entry("b.test", named(t, "b"))+fmt.Sprintf(rule, "a", "a.test", "short")+fmt.Sprintf(rule, "b", "b.test", long)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http: [{route: [{destination: {host: a.test}, weight: 99}, {destination: {host: b.test}, weight: 1}]}]
`)
	for range 5 {
		got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
		if status(got) != "200" || strings.Count(got, "set-cookie") != 1 || !strings.Contains(got, "set-cookie: "+long+"=\"") {
			t.Errorf("got %q", got)
		}
	}
}

// TestHash_SourceIP takes a gateway's client address from where its trusted
// proxies put it.
func TestHash_SourceIP(t *testing.T) {
	var addresses []string
	for i := range 5 {
		addresses = append(addresses, named(t, fmt.Sprint("e", i)))
	}
	yaml := entry("s.test", addresses...) + hashRule("useSourceIp: true") + `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  selector: {app: client}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  gateways: [g]
  http: [{route: [{destination: {host: s.test}}]}]
`
	for _, tt := range []struct {
		name    string
		trusted int
		list    string // x-forwarded-for, %d is the client
		spread  bool
	}{
		{"nobody is trusted", 0, "10.0.0.%d", false},
		{"one proxy", 1, "6.6.6.6, 10.0.0.%d", true},
		{"one proxy, and the client lies", 1, "10.0.0.%d, 7.7.7.7", false},
		{"two proxies", 2, "10.0.0.%d, 7.7.7.7", true},
		{"two proxies, a line each", 2, "6.6.6.6, 10.0.0.%d\r\nX-Forwarded-For: 7.7.7.7", true},
		{"two proxies, of which one has told", 2, "10.0.0.%d", true},
		{"its port does not matter", 1, "10.0.0.1:%d", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{NumTrustedProxies: tt.trusted, GatewayPorts: map[uint32]uint32{8000: 0}}, yaml)
			endpoints := map[string]bool{}
			for i := range 30 {
				got := exchangeRaw(t, p.address("gateway:8000"), fmt.Sprintf("GET / HTTP/1.1\r\nHost: s.test\r\nX-Forwarded-For: "+tt.list+"\r\n\r\n", i), whole(1))
				m := from.FindStringSubmatch(got)
				if m == nil {
					t.Fatalf("answered %q", got)
				}
				endpoints[m[1]] = true
			}
			if spread := len(endpoints) > 1; spread != tt.spread {
				t.Errorf("30 clients went to %d endpoints", len(endpoints))
			}
		})
	}
}
