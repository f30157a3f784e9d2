package proxy

import (
	"slices"
	"strings"
	"testing"
)

// corsRules are rules for s.test with a policy, in YAML on one line.
func corsRules(policy, more string) string {
	return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cors}
spec:
  hosts: [s.test]
  http: [{corsPolicy: ` + policy + `, route: [{destination: {host: s.test}}]` + more + `}]
`
}

// corsLines are the lines of a head that speak of origins, in lower case and in
// order.
func corsLines(reply string) []string {
	head, _, _ := strings.Cut(strings.ToLower(reply), "\r\n\r\n")
	var out []string
	for line := range strings.SplitSeq(head, "\r\n") {
		if strings.HasPrefix(line, "access-control-") || strings.HasPrefix(line, "vary:") {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

const fullPolicy = `{allowOrigins: [{exact: "https://a.test"}, {regex: "https://[a-z]+[.]b[.]test"}, {prefix: "https://c"}], allowMethods: [GET, PUT],
    allowHeaders: [x-one, x-two], exposeHeaders: [x-three], maxAge: 24h, allowCredentials: true, unmatchedPreflights: %s}`

// TestCORS_Preflight: who is answered by the proxy, and how.
func TestCORS_Preflight(t *testing.T) {
	ask := func(method, origin, requested string) string {
		r := method + " / HTTP/1.1\r\nHost: s.test\r\n"
		if origin != "" {
			r += "Origin: " + origin + "\r\n"
		}
		if requested != "" {
			r += "Access-Control-Request-Method: " + requested + "\r\nAccess-Control-Request-Headers: X-Any\r\n"
		}
		return r + "\r\n"
	}
	forward, ignore := strings.Replace(fullPolicy, "%s", "FORWARD", 1), strings.Replace(fullPolicy, "%s", "IGNORE", 1)
	full := func(origin string) []string {
		return []string{
			"access-control-allow-credentials: true", "access-control-allow-headers: x-one,x-two", "access-control-allow-methods: get,put",
			"access-control-allow-origin: " + origin, "access-control-expose-headers: x-three", "access-control-max-age: 86400", "vary: origin",
		}
	}
	for _, tt := range []struct {
		name, policy, request string
		forwarded             bool
		want                  []string
	}{
		{"exact", forward, ask("OPTIONS", "https://a.test", "PUT"), false, full("https://a.test")},
		{"regex", forward, ask("OPTIONS", "https://x.b.test", "PUT"), false, full("https://x.b.test")},
		{"prefix", forward, ask("OPTIONS", "https://c.test", "PUT"), false, full("https://c.test")},
		{"a regex matches in full", forward, ask("OPTIONS", "https://x.b.test.evil", "PUT"), true, []string{"vary: origin"}},
		{"another origin", forward, ask("OPTIONS", "https://d.test", "PUT"), true, []string{"vary: origin"}},
		{"another origin, ignored", ignore, ask("OPTIONS", "https://d.test", "PUT"), false, []string{"vary: origin"}},
		{"null", ignore, ask("OPTIONS", "null", "PUT"), false, []string{"vary: origin"}},
		{"no origin", ignore, ask("OPTIONS", "", "PUT"), true, []string{"vary: origin"}},
		{"no method asked for", ignore, ask("OPTIONS", "https://d.test", ""), true, []string{"vary: origin"}},
		{"no OPTIONS", ignore, ask("POST", "https://d.test", "PUT"), true, []string{"vary: origin"}},
		{
			"stars", `{allowOrigins: [{exact: "*"}], allowMethods: ["*"], allowHeaders: ["*"]}`, ask("OPTIONS", "https://d.test", "PURGE"), false,
			[]string{"access-control-allow-headers: x-any", "access-control-allow-methods: purge", "access-control-allow-origin: https://d.test", "vary: origin"},
		},
		{
			"the old field", `{allowOrigin: ["https://a.test"]}`, ask("OPTIONS", "https://a.test", "PUT"), false,
			[]string{"access-control-allow-origin: https://a.test", "vary: origin"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, okReply)
			p := serve(t, Options{}, entry("s.test", up.address)+corsRules(tt.policy, ""))
			got := exchangeRaw(t, p.address("outbound"), tt.request, whole(1))
			if status(got) != "200" || (len(up.seen()) == 1) != tt.forwarded {
				t.Errorf("got %q, forwarded %v, want %v", got, len(up.seen()) == 1, tt.forwarded)
			}
			if lines := corsLines(got); !slices.Equal(lines, tt.want) {
				t.Errorf("got %q, want %q", lines, tt.want)
			}
		})
	}
}

// TestCORS_Reply: replies say once what the policy says, and caches are told.
func TestCORS_Reply(t *testing.T) {
	const upstreams = "Access-Control-Allow-Origin: *\r\nACCESS-CONTROL-ALLOW-ORIGIN: https://old.test\r\nAccess-Control-Expose-Headers: x-old\r\nAccess-Control-Allow-Credentials: true\r\n"
	policy := strings.Replace(fullPolicy, "%s", "FORWARD", 1)
	for _, tt := range []struct {
		name, policy, origin, reply string
		want                        []string
	}{
		{
			"allowed", policy, "https://a.test", "",
			[]string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test", "access-control-expose-headers: x-three", "vary: origin"},
		},
		{
			"in the place of the upstream's", policy, "https://a.test", upstreams + "Vary: Accept, Origin\r\n",
			[]string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test", "access-control-expose-headers: x-three", "vary: accept, origin"},
		},
		{
			"as far as the policy says something", `{allowOrigins: [{exact: "https://a.test"}]}`, "https://a.test", upstreams + "Vary: Accept\r\n",
			[]string{"access-control-allow-credentials: true", "access-control-allow-origin: https://a.test", "access-control-expose-headers: x-old", "vary: accept", "vary: origin"},
		},
		{
			"not allowed", policy, "https://d.test", "Access-Control-Allow-Origin: https://d.test\r\nVary: *\r\n",
			[]string{"access-control-allow-origin: https://d.test", "vary: *"},
		},
		{"no origin", policy, "", "", []string{"vary: origin"}},
		{"no origin, and a field with Vary's values", policy, "", "Allow: *\r\nX-By: origin\r\n", []string{"vary: origin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, "HTTP/1.1 200 OK\r\n"+tt.reply+"Content-Length: 2\r\n\r\nok")
			// Header rules come before the policy, which has the last word.
			p := serve(t, Options{}, entry("s.test", up.address)+corsRules(tt.policy, `, headers: {response: {add: {x-added: "1"}}}`))
			request := "GET / HTTP/1.1\r\nHost: s.test\r\nOrigin: " + tt.origin + "\r\n\r\n"
			if tt.origin == "" {
				request = get("s.test")
			}
			got := exchangeRaw(t, p.address("outbound"), request, whole(1))
			if lines := corsLines(got); status(got) != "200" || !slices.Equal(lines, tt.want) {
				t.Errorf("got %q, want %q", lines, tt.want)
			}
			if !strings.Contains(got, "x-added: 1\r\n") || !strings.HasSuffix(got, "\r\n\r\nok") {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestCORS_Refusal: a page may read the proxy's own answers, too.
func TestCORS_Refusal(t *testing.T) {
	p := serve(t, Options{}, corsRules(`{allowOrigins: [{exact: "https://a.test"}]}`, ", fault: {abort: {percentage: {value: 100}, httpStatus: 503}}"))
	got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\nOrigin: https://a.test\r\n\r\n", whole(1))
	if want := []string{"access-control-allow-origin: https://a.test", "vary: origin"}; status(got) != "503" || !slices.Equal(corsLines(got), want) {
		t.Errorf("got %q, want 503 with %q", got, want)
	}
}
