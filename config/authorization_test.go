package config

import (
	"fmt"
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestPrefixOf: blocks are compared with addresses of IPv4 as such, in whatever
// way either was written.
func TestPrefixOf(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"10.1.2.3", "10.1.2.3/32"},
		{"10.1.2.3/8", "10.0.0.0/8"},
		{"::ffff:10.1.2.3", "10.1.2.3/32"},
		{"::ffff:10.1.2.3/104", "10.0.0.0/8"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
		{"::ffff:0:0/95", "::fffe:0:0/95"}, // more than IPv4
		{"2001:db8::1/32", "2001:db8::/32"},
		{"10.0.0.0/33", ""},
		{"10.0.0", ""},
		{"", ""},
	} {
		p, ok := prefixOf(tt.text)
		if ok != (tt.want != "") || ok && p.String() != tt.want {
			t.Errorf("%q is %v, %v, want %q", tt.text, p, ok, tt.want)
		}
	}
}

// TestAuthorization_EmptyLists: a list that is there and names nobody lets everybody
// in, as in Istio, and that is said.
func TestAuthorization_EmptyLists(t *testing.T) {
	policy := func(rule string) string {
		return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rules: [" + rule + "]}\n"
	}
	for _, tt := range []struct{ rule, want string }{
		{`{from: [{source: {principals: [], namespaces: [a]}}]}`, "rules[0].from[0].source.principals: is empty, so it asks for nothing"},
		{`{from: [{source: {ipBlocks: [], namespaces: [a]}}]}`, "source.ipBlocks: is empty"},
		{`{to: [{operation: {methods: [GET], notPaths: }}]}`, "operation.notPaths: is empty"},
		{`{to: [{operation: {methods: [GET], ports: []}}]}`, "operation.ports: is empty"},
		{`{when: [{key: source.namespace, values: [], notValues: [a]}]}`, "rules[0].when[0].values: is empty"},
		{`{to: [{operation: {paths: ["/a/{*}"]}}]}`, ""},
		{`{to: [{operation: {methods: [GET]}}]}`, ""},
		{`{}`, ""},
	} {
		checkFinding(t, policy(tt.rule), tt.want, ISM0001)
	}
}

// TestAuthorization_Fields: every field and its negation get to where they are judged, and
// every action.
func TestAuthorization_Fields(t *testing.T) {
	read := func(annotations, spec string) *mesh.AuthorizationPolicy {
		t.Helper()
		r := Read([]File{{Name: "a.yaml", Data: fmt.Appendf(nil, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: prod, annotations: {%s}}
spec: {%s}
`, annotations, spec)}}, nil)
		if len(r.Config.AuthorizationPolicies) != 1 {
			t.Fatalf("%s: %d policies, %v", spec, len(r.Config.AuthorizationPolicies), r.Findings)
		}
		return r.Config.AuthorizationPolicies[0]
	}
	p := read("", `selector: {matchLabels: {app: web}}, action: DENY, rules: [{
  from: [{source: {principals: [p], notPrincipals: [np], requestPrincipals: [r], notRequestPrincipals: [nr], namespaces: [n], notNamespaces: [nn],
    trustDomains: [t], notTrustDomains: [nt], ipBlocks: [10.0.0.0/8], notIpBlocks: [10.1.0.0/16], remoteIpBlocks: [11.0.0.0/8], notRemoteIpBlocks: [11.1.0.0/16]}},
    {source: {serviceAccounts: [a, shop/b], notServiceAccounts: [c]}}],
  to: [{operation: {hosts: [h], notHosts: [nh], ports: ["80"], notPorts: ["81"], methods: [GET], notMethods: [PUT], paths: [/p], notPaths: [/np]}}],
  when: [{key: "request.headers[X-A]", values: [v], notValues: [nv]}, {key: "request.auth.claims[a][b]", values: [v]}, {key: source.ip, values: [10.0.0.0/8], notValues: [10.1.0.0/16]},
    {key: remote.ip, values: [10.0.0.1]}, {key: destination.ip, notValues: [10.0.0.1]}, {key: source.serviceAccount, values: [a]}, {key: connection.sni, notValues: [s]}]}]`)
	if p.Action != mesh.ActionDeny || p.DryRun || p.Selector["app"] != "web" || len(p.Rules) != 1 {
		t.Fatalf("%+v", p)
	}
	rule := p.Rules[0]
	got := fmt.Sprint(rule.From, rule.To)
	want := "[{{[p] [np]} {[r] [nr]} {[n] [nn]} {[] []} {[t] [nt]} {[10.0.0.0/8] [10.1.0.0/16]} {[11.0.0.0/8] [11.1.0.0/16]}} " +
		"{{[] []} {[] []} {[] []} {[prod/a shop/b] [prod/c]} {[] []} {[] []} {[] []}}] [{{[h] [nh]} {[80] [81]} {[GET] [PUT]} {[/p] [/np]}}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got = ""
	for _, w := range rule.When {
		got += fmt.Sprint(w.KeyText(), w.Values, w.Blocks, " ")
	}
	want = "request.headers[x-a]{[v] [nv]} {[] []} request.auth.claims[a][b]{[v] []} {[] []} source.ip{[] []} {[10.0.0.0/8] [10.1.0.0/16]} " +
		"remote.ip{[] []} {[10.0.0.1/32] []} destination.ip{[] []} {[] [10.0.0.1/32]} source.serviceAccount{[prod/a] []} {[] []} connection.sni{[] [s]} {[] []} "
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for action, want := range map[string]mesh.Action{"": mesh.ActionAllow, "action: ALLOW": mesh.ActionAllow, "action: DENY": mesh.ActionDeny, "action: AUDIT": mesh.ActionAudit} {
		if p := read("istio.io/dry-run: 'true'", action); p.Action != want || !p.DryRun {
			t.Errorf("%q: %v, dry run %v", action, p.Action, p.DryRun)
		}
	}
}

// TestAuthorization_Refuses: what says two things, or nothing, is an error, and no policy
// that lets in whom it should not.
func TestAuthorization_Refuses(t *testing.T) {
	for _, tt := range []struct{ spec, want string }{
		{`action: CUSTOM, rules: [{}]`, "provider.name: is missing"},
		{`action: DENY, provider: {name: x}, rules: [{}]`, "provider: goes with action CUSTOM alone"},
		{`rules: [{to: [{operation: {}}]}]`, "is empty"},
		{`rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]`, "cannot stand beside principals or namespaces"},
		{`rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]`, "cannot stand beside principals or namespaces"},
		{`rules: [{from: [{source: {serviceAccounts: [a/b/c]}}]}]`, "is no service account"},
		{`rules: [{from: [{source: {serviceAccounts: ["a*"]}}]}]`, "is no service account"},
		{`rules: [{to: [{operation: {ports: ["0"]}}]}]`, "ports"},
		{`rules: [{to: [{operation: {paths: [""]}}]}]`, "is empty"},
		{`rules: [{when: [{key: "request.headers[]", values: [a]}]}]`, "is none of"},
		{`rules: [{when: [{key: "request.auth.claims[a][]", values: [a]}]}]`, "is none of"},
		{`rules: [{when: [{key: source.ip}]}]`, "has neither values nor notValues"},
	} {
		r := Read([]File{{Name: "a.yaml", Data: []byte("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {" + tt.spec + "}\n")}}, nil)
		found := ""
		for _, f := range r.Findings {
			if f.Severity == Error && strings.Contains(f.String(), tt.want) {
				found = f.String()
			}
		}
		if found == "" {
			t.Errorf("%s: %v, want an error with %q", tt.spec, r.Findings, tt.want)
		}
	}
}
