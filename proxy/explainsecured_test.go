package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"isthmus/config"
	"isthmus/explain"
	"isthmus/tls"
)

// policyDraw draws policies of a namespace.
type policyDraw struct {
	*rapid.T
	namespace, label, issuer string // label: of the proxy that they are for, "app: web"
	strings.Builder
}

// once is true in one of n draws.
func (d *policyDraw) once(n int, what string) bool { return rapid.IntRange(1, n).Draw(d.T, what) == 1 }

// some is a field with one or two of the values.
func (d *policyDraw) some(field string, list ...string) string {
	values := rapid.SliceOfN(rapid.SampledFrom(list), 1, 2).Draw(d.T, field)
	return field + `: ["` + strings.Join(values, `", "`) + `"]`
}

// block is a mapping of some of the fields, at least the first.
func (d *policyDraw) block(fields ...string) string {
	list := fields[:1:1]
	for _, f := range fields[1:] {
		if d.once(4, "field") {
			list = append(list, f)
		}
	}
	if len(list) > 1 && d.once(2, "without the first") {
		list = list[1:]
	}
	return "{" + strings.Join(list, ", ") + "}"
}

// resource writes one, for the proxy or for all of the namespace.
func (d *policyDraw) resource(kind, name, spec string) {
	selector := ""
	if d.once(2, "selector") {
		selector = "selector: {matchLabels: {" + d.label + "}}, "
	}
	fmt.Fprintf(d, "apiVersion: security.istio.io/v1\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec: {%s%s}\n---\n", kind, name, d.namespace, selector, spec)
}

// all draws a mode of mTLS, what tokens are read, and rules that judge requests.
func (d *policyDraw) all() string {
	if mode := rapid.SampledFrom([]string{"", "STRICT", "PERMISSIVE", "DISABLE"}).Draw(d.T, "mode"); mode != "" {
		d.WriteString(peerAuthentication(d.namespace, mode))
	}
	if d.once(2, "tokens") {
		d.resource("RequestAuthentication", "tokens", fmt.Sprintf("jwtRules: [{issuer: %q, forwardOriginalToken: %v, fromHeaders: [{name: %s, prefix: 'Bearer '}]}]",
			d.issuer, rapid.Bool().Draw(d.T, "forward"), rapid.SampledFrom([]string{"authorization", "x-token"}).Draw(d.T, "header")))
	}
	for i := range rapid.IntRange(0, 3).Draw(d.T, "policies") {
		var rules []string
		for range rapid.IntRange(0, 2).Draw(d.T, "rules") {
			rules = append(rules, d.rule())
		}
		d.resource("AuthorizationPolicy", fmt.Sprint("p", i), fmt.Sprintf("action: %s, rules: [%s]",
			rapid.SampledFrom([]string{"ALLOW", "ALLOW", "DENY", "AUDIT"}).Draw(d.T, "action"), strings.Join(rules, ", ")))
	}
	return d.String()
}

func (d *policyDraw) rule() string {
	var parts []string
	if d.once(2, "from") {
		parts = append(parts, "from: [{source: "+d.block(
			d.some("principals", "cluster.local/ns/shop/sa/frontend", "*/sa/x", "*"), d.some("notPrincipals", "cluster.local/ns/ops/*", "cluster.local/ns/shop/sa/frontend"),
			d.some("namespaces", "shop", "ops", "s*"), d.some("requestPrincipals", "*", d.issuer+"/alice", "nobody"), d.some("notRequestPrincipals", "*"),
			d.some("ipBlocks", "127.0.0.0/8", "10.0.0.0/8"), d.some("notRemoteIpBlocks", "127.0.0.1", "10.0.0.0/8"))+"}]")
	}
	if d.once(2, "to") {
		parts = append(parts, "to: [{operation: "+d.block(
			d.some("paths", "/api/*", "/admin", "*/x", "/{*}/x"), d.some("notPaths", "/api/*", "/admin"), d.some("methods", "GET", "PUT"),
			d.some("hosts", "web.prod", "s.test", "*.test"), d.some("ports", "80", "8080"))+"}]")
	}
	if d.once(2, "when") {
		key := rapid.SampledFrom([]string{"request.headers[x]", "request.auth.claims[groups]", "source.namespace"}).Draw(d.T, "key")
		parts = append(parts, "when: [{key: \""+key+"\", "+d.some(rapid.SampledFrom([]string{"values", "notValues"}).Draw(d.T, "values"), "users", "one", "shop", "*")+"}]")
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// TestExplain_AsSecuredTraffic: whatever the policies of a sidecar and of a
// gateway, whoever calls, and whatever token comes along: what is said of a request
// is what becomes of it.
func TestExplain_AsSecuredTraffic(t *testing.T) {
	tr, issuer := newTrust(t), newTokenIssuer(t)
	application := servedBy(t, 1)[0]
	o := proxyOf("prod", "web", tr.identity("prod", "web"))
	o.Inbound = "127.0.0.1:0"
	sidecar := serve(t, o, webService(application))
	o = atEdge()
	o.NumTrustedProxies, o.Identity = 1, tr.identity("istio-system", "edge")
	o.Node.Identity = o.Identity.Identity().ID
	// Modes of mTLS are for what a proxy calls as well, unless that is outside.
	atGateway := edge("s.test") + "---\n" + strings.Replace(entry("s.test", application), "MESH_INTERNAL", "MESH_EXTERNAL", 1)
	gw := serve(t, o, atGateway)

	callers := map[string]*tls.Own{"": nil, "frontend": tr.identity("shop", "frontend"), "x": tr.identity("ops", "x")}
	hour := time.Now().Add(time.Hour).Unix()
	tokens := map[string]string{
		"": "", "of a user": issuer.token(map[string]any{"groups": []string{"users"}, "exp": hour}), "of nobody": issuer.token(map[string]any{"exp": hour}),
		"of bob": issuer.token(map[string]any{"sub": "bob", "exp": hour}), "expired": issuer.token(map[string]any{"exp": hour - 7200}),
		"of another": issuer.token(map[string]any{"iss": "https://other.example", "exp": hour}), "none": "nonsense",
	}
	for _, side := range []struct {
		name, listener, host, namespace, label, base string
		p                                            *Proxy
	}{
		{"sidecar", "inbound", "web.prod", "prod", "app: web", webService(application), sidecar},
		{"gateway", "gateway:80", "s.test", "istio-system", "istio: ingressgateway", atGateway, gw},
	} {
		t.Run(side.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				d := &policyDraw{T: rt, namespace: side.namespace, label: side.label, issuer: issuer.URL}
				yaml := side.base + d.all()
				if r := config.Read([]config.File{{Name: "test.yaml", Data: []byte(yaml)}}, side.p.node); r.HasErrors() {
					rt.Fatal(r.Findings, yaml)
				}
				publish(t, side.p, yaml)
				ask := func(q explain.Question, caller *tls.Own) string {
					head := q.Method + " " + q.URL[len("http://"+side.host):] + " HTTP/1.1\r\nhost: " + side.host + "\r\nconnection: close\r\n"
					for _, f := range q.Fields {
						head += f.Name + ": " + f.Value + "\r\n"
					}
					if caller == nil {
						return exchangeRaw(t, side.p.address(side.listener), head+"\r\n", nil)
					}
					return overTLSAt(t, side.p.address(side.listener), asCaller(caller, ""), head+"\r\n")
				}
				for range rapid.IntRange(1, 6).Draw(rt, "requests") {
					q := explain.Question{Listener: side.listener, Address: netip.MustParseAddr("127.0.0.1")}
					q.Method = rapid.SampledFrom([]string{"GET", "PUT", "OPTIONS"}).Draw(rt, "method")
					q.URL = "http://" + side.host + rapid.SampledFrom([]string{"/", "/api/x", "/admin", "/b/x", "/api/../admin", "/%61pi/x", "/api?x=one", "/api/%2e%2e/admin"}).Draw(rt, "path")
					var caller *tls.Own
					if side.listener == "inbound" {
						caller = callers[rapid.SampledFrom([]string{"", "frontend", "x"}).Draw(rt, "caller")]
						if id := caller.Identity(); id != nil {
							q.Caller = id.ID
						}
					}
					token := tokens[rapid.SampledFrom([]string{"", "of a user", "of nobody", "of bob", "expired", "of another", "none"}).Draw(rt, "token")]
					if token != "" {
						q.Fields = append(q.Fields, explain.Field{Name: rapid.SampledFrom([]string{"Authorization", "x-token"}).Draw(rt, "where"), Value: "Bearer " + token})
					}
					if rapid.Bool().Draw(rt, "x") {
						q.Fields = append(q.Fields, explain.Field{Name: "x", Value: rapid.SampledFrom([]string{"one", "two"}).Draw(rt, "value")})
					}
					if rapid.Bool().Draw(rt, "forwarded") {
						q.Fields = append(q.Fields, explain.Field{Name: "x-forwarded-for", Value: "10.1.1.1"})
					}
					var e *explain.Explanation
					await(t, "the keys, which come with the first token", until(func() bool {
						var err error
						if e, err = side.p.Explain(q); err != nil {
							rt.Fatal(err)
						}
						if e.Access != nil && e.Access.Token == "unverified" {
							ask(q, caller)
							return false
						}
						return true
					}))
					text := ask(q, caller)
					got := readReply(rt, text)
					problem := ""
					if e.Access != nil && e.Access.Refused != "" {
						if got.status != 0 && got.status < 400 {
							problem = fmt.Sprintf("status %d over a connection that should not come about", got.status)
						}
					} else {
						problem = disagree(e, got)
					}
					if problem != "" {
						var b strings.Builder
						explain.Write(&b, e)
						rt.Fatalf("%s\nrequest: %+v\ngot: %q\nexplained:\n%s\nconfiguration:\n%s", problem, q, text, b.String(), yaml)
					}
				}
			})
		})
	}
}
