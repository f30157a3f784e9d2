package config

import "testing"

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
