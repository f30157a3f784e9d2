package auth

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"isthmus/http1"
	"isthmus/mesh"
)

// asked is a request for a test; its Peer, HTTP and Path are made of texts.
type asked struct {
	method, path, host string
	identity           string
	fields             []string // name: value
	claims             *Claims
	source             string
	remote             string // "": as source
	destination, sni   string
	port               uint32
	tcp                bool
}

func (a asked) request() *Request {
	p := PeerOf(a.identity)
	q := &Request{Peer: &p, Claims: a.claims, Port: a.port, SNI: a.sni}
	if a.source != "" {
		q.Source = netip.MustParseAddr(a.source)
		q.Remote = q.Source
	}
	if a.remote != "" {
		q.Remote = netip.MustParseAddr(a.remote)
	}
	if a.destination != "" {
		q.Destination = netip.MustParseAddr(a.destination)
	}
	if a.tcp {
		return q
	}
	r := &http1.Request{Method: []byte(or(a.method, "GET")), Authority: []byte(or(a.host, "web.prod"))}
	for _, f := range a.fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Fields = append(r.Fields, http1.Field{Name: []byte(name), Value: []byte(value)})
	}
	q.HTTP, q.Path = r, []byte(or(a.path, "/"))
	return q
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func policyOf(a mesh.Action, rules ...*mesh.AuthorizationRule) *mesh.AuthorizationPolicy {
	return &mesh.AuthorizationPolicy{Meta: mesh.Meta{Kind: "AuthorizationPolicy", Namespace: "prod", Name: strings.ToLower(a.String())}, Action: a, Rules: rules}
}

func in(v ...string) mesh.Values    { return mesh.Values{In: v} }
func notIn(v ...string) mesh.Values { return mesh.Values{NotIn: v} }

func from(m ...mesh.PeerMatch) *mesh.AuthorizationRule    { return &mesh.AuthorizationRule{From: m} }
func to(m ...mesh.OperationMatch) *mesh.AuthorizationRule { return &mesh.AuthorizationRule{To: m} }
func when(c ...mesh.Condition) *mesh.AuthorizationRule    { return &mesh.AuthorizationRule{When: c} }

var anything = &mesh.AuthorizationRule{}

// TestRules_Order: Istio's documented order: DENY, then ALLOW, then whether there
// is an ALLOW policy at all.
func TestRules_Order(t *testing.T) {
	get, post := to(mesh.OperationMatch{Methods: in("GET")}), to(mesh.OperationMatch{Methods: in("POST")})
	for _, tt := range []struct {
		name     string
		policies []*mesh.AuthorizationPolicy
		allowed  bool // GET
	}{
		{"none", nil, true},
		{"ALLOW that fits", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, get)}, true},
		{"ALLOW that does not", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, post)}, false},
		{"ALLOW without rules: nothing", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow)}, false},
		{"ALLOW with an empty rule: everything", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, anything)}, true},
		{"one of two ALLOWs", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow), policyOf(mesh.ActionAllow, get)}, true},
		{"DENY that fits", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, get)}, false},
		{"DENY that does not", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, post)}, true},
		{"DENY without rules: nothing", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny)}, true},
		{"DENY with an empty rule: everything", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, anything)}, false},
		{"DENY before ALLOW", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, get), policyOf(mesh.ActionDeny, get)}, false},
		{"DENY that does not fit, and ALLOW", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, get), policyOf(mesh.ActionDeny, post)}, true},
		{"AUDIT decides nothing", []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAudit, get)}, true},
		{"a dry run decides nothing", []*mesh.AuthorizationPolicy{dry(policyOf(mesh.ActionDeny, get)), dry(policyOf(mesh.ActionAllow))}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r := NewRules(tt.policies, nil, nil).Check(asked{}.request()); (r == nil) != tt.allowed {
				t.Errorf("refusal %v, want allowed %v", r, tt.allowed)
			}
		})
	}
}

func dry(p *mesh.AuthorizationPolicy) *mesh.AuthorizationPolicy {
	p.DryRun = true
	return p
}

const alice = "spiffe://cluster.local/ns/prod/sa/alice"

// TestRules_Fields: what each field fits, as ALLOW.
func TestRules_Fields(t *testing.T) {
	peer := func(m mesh.PeerMatch) *mesh.AuthorizationRule { return from(m) }
	op := func(m mesh.OperationMatch) *mesh.AuthorizationRule { return to(m) }
	path := func(v ...string) *mesh.AuthorizationRule { return op(mesh.OperationMatch{Paths: in(v...)}) }
	header := func(v mesh.Values) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: mesh.KeyHeader, Name: "x-role", Values: v})
	}
	claims := tokenSaying(t, `{"iss":"i","sub":"s","aud":["a","b"],"azp":"p","groups":["users","dev"],"deep":{"er":"x"}}`)
	claim := func(v mesh.Values, names ...string) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: mesh.KeyClaims, Claims: names, Values: v})
	}
	blocks := func(s string) mesh.Blocks { return mesh.Blocks{In: []netip.Prefix{netip.MustParsePrefix(s)}} }
	not := func(b mesh.Blocks) mesh.Blocks { return mesh.Blocks{NotIn: b.In} }
	ten, corner := blocks("10.0.0.0/8"), mesh.Blocks{In: blocks("10.0.0.0/8").In, NotIn: blocks("10.9.0.0/16").In}
	ip := func(k mesh.ConditionKey, b mesh.Blocks) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: k, Blocks: b})
	}
	one := func(k mesh.ConditionKey, v mesh.Values) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: k, Values: v})
	}
	named := func(name string, v mesh.Values) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: mesh.KeyHeader, Name: name, Values: v})
	}
	many := func(more ...string) []string { // so that they are looked up
		var out []string
		for i := range few + 1 {
			out = append(out, fmt.Sprint("filling", i))
		}
		return append(out, more...)
	}
	for _, tt := range []struct {
		name string
		rule *mesh.AuthorizationRule
		ask  asked
		want bool
	}{
		{"a principal", peer(mesh.PeerMatch{Principals: in("cluster.local/ns/prod/sa/alice")}), asked{identity: alice}, true},
		{"another principal", peer(mesh.PeerMatch{Principals: in("cluster.local/ns/prod/sa/bob")}), asked{identity: alice}, false},
		{"a principal in plain text", peer(mesh.PeerMatch{Principals: in("*")}), asked{}, false},
		{"any principal", peer(mesh.PeerMatch{Principals: in("*")}), asked{identity: alice}, true},
		{"a principal's beginning", peer(mesh.PeerMatch{Principals: in("cluster.local/ns/prod/*")}), asked{identity: alice}, true},
		{"a principal's end", peer(mesh.PeerMatch{Principals: in("*/sa/alice")}), asked{identity: alice}, true},
		{"an alias of the own domain", peer(mesh.PeerMatch{Principals: in("old.example/ns/prod/sa/alice")}), asked{identity: alice}, true},
		{"cluster.local for the own domain", peer(mesh.PeerMatch{Principals: in("cluster.local/ns/prod/sa/alice")}), asked{identity: "spiffe://new.example/ns/prod/sa/alice"}, true},
		{"a foreign domain is no alias", peer(mesh.PeerMatch{Principals: in("cluster.local/ns/prod/sa/alice")}), asked{identity: "spiffe://evil.example/ns/prod/sa/alice"}, false},
		{"not a principal", peer(mesh.PeerMatch{Principals: notIn("cluster.local/ns/prod/sa/alice")}), asked{identity: alice}, false},
		{"not an alias of a principal", peer(mesh.PeerMatch{Principals: notIn("old.example/ns/prod/sa/alice")}), asked{identity: alice}, false},
		{"a namespace", peer(mesh.PeerMatch{Namespaces: in("prod")}), asked{identity: alice}, true},
		{"a namespace's beginning", peer(mesh.PeerMatch{Namespaces: in("pr*")}), asked{identity: alice}, true},
		{"a namespace in plain text", peer(mesh.PeerMatch{Namespaces: in("*")}), asked{}, false},
		{"an account", peer(mesh.PeerMatch{ServiceAccounts: in("prod/alice")}), asked{identity: alice}, true},
		{"a trust domain", peer(mesh.PeerMatch{TrustDomains: in("new.example")}), asked{identity: alice}, true},
		{"fields of a source are one", peer(mesh.PeerMatch{Namespaces: in("prod"), Principals: in("x")}), asked{identity: alice}, false},
		{"sources are alternatives", from(mesh.PeerMatch{Namespaces: in("x")}, mesh.PeerMatch{Namespaces: in("prod")}), asked{identity: alice}, true},
		{"an address", peer(mesh.PeerMatch{IPBlocks: blocks("10.0.0.0/8")}), asked{source: "10.1.2.3"}, true},
		{"another address", peer(mesh.PeerMatch{IPBlocks: blocks("10.0.0.0/8")}), asked{source: "11.1.2.3"}, false},
		{"an address in a block that is written by one of its addresses", peer(mesh.PeerMatch{IPBlocks: blocks("10.1.2.3/8")}), asked{source: "10.200.0.1"}, true},
		{"one address", peer(mesh.PeerMatch{IPBlocks: blocks("10.1.2.3/32")}), asked{source: "10.1.2.3"}, true},
		{"the address beside it", peer(mesh.PeerMatch{IPBlocks: blocks("10.1.2.3/32")}), asked{source: "10.1.2.4"}, false},
		{"one of two blocks alike in length", peer(mesh.PeerMatch{IPBlocks: mesh.Blocks{In: append(blocks("11.0.0.0/8").In, ten.In...)}}), asked{source: "10.1.2.3"}, true},
		{"an address of IPv6", peer(mesh.PeerMatch{IPBlocks: blocks("2001:db8::/32")}), asked{source: "2001:db8::7"}, true},
		{"one of IPv4, of a block of IPv6", peer(mesh.PeerMatch{IPBlocks: blocks("::/0")}), asked{source: "10.1.2.3"}, false},
		{"no address", peer(mesh.PeerMatch{IPBlocks: blocks("0.0.0.0/0")}), asked{}, false},
		{"not an address", peer(mesh.PeerMatch{IPBlocks: not(ten)}), asked{source: "10.1.2.3"}, false},
		{"not another address", peer(mesh.PeerMatch{IPBlocks: not(ten)}), asked{source: "11.1.2.3"}, true},
		{"a block but its corner", peer(mesh.PeerMatch{IPBlocks: corner}), asked{source: "10.1.2.3"}, true},
		{"a block's corner", peer(mesh.PeerMatch{IPBlocks: corner}), asked{source: "10.9.2.3"}, false},
		{"a client's address", peer(mesh.PeerMatch{RemoteIPBlocks: ten}), asked{source: "11.1.2.3", remote: "10.1.2.3"}, true},
		{"another client's, who calls by such a one", peer(mesh.PeerMatch{RemoteIPBlocks: ten}), asked{source: "10.1.2.3", remote: "11.1.2.3"}, false},
		{"not a client's address", peer(mesh.PeerMatch{RemoteIPBlocks: not(ten)}), asked{source: "11.1.2.3", remote: "10.1.2.3"}, false},
		{"a caller's address, not the client's", peer(mesh.PeerMatch{IPBlocks: ten}), asked{source: "11.1.2.3", remote: "10.1.2.3"}, false},
		{"another account", peer(mesh.PeerMatch{ServiceAccounts: in("prod/bob")}), asked{identity: alice}, false},
		{"not an account", peer(mesh.PeerMatch{ServiceAccounts: notIn("prod/alice")}), asked{identity: alice}, false},
		{"another trust domain", peer(mesh.PeerMatch{TrustDomains: in("evil.example")}), asked{identity: alice}, false},
		{"not a trust domain", peer(mesh.PeerMatch{TrustDomains: notIn("old.example")}), asked{identity: alice}, false},
		{"another namespace", peer(mesh.PeerMatch{Namespaces: in("shop")}), asked{identity: alice}, false},
		{"not a namespace", peer(mesh.PeerMatch{Namespaces: notIn("prod")}), asked{identity: alice}, false},
		{"another token's principal", peer(mesh.PeerMatch{RequestPrincipals: in("i/t")}), asked{claims: claims}, false},
		{"another method", op(mesh.OperationMatch{Methods: in("GET")}), asked{method: "POST"}, false},
		{"not a method", op(mesh.OperationMatch{Methods: notIn("POST")}), asked{method: "POST"}, false},
		{"another host", op(mesh.OperationMatch{Hosts: in("web.prod")}), asked{host: "web.prod.evil"}, false},
		{"one of many namespaces", peer(mesh.PeerMatch{Namespaces: in(many("prod")...)}), asked{identity: alice}, true},
		{"none of many namespaces", peer(mesh.PeerMatch{Namespaces: in(many()...)}), asked{identity: alice}, false},
		{"not one of many namespaces", peer(mesh.PeerMatch{Namespaces: notIn(many("prod")...)}), asked{identity: alice}, false},
		{"one of many, by its beginning", peer(mesh.PeerMatch{Namespaces: in(many("pr*")...)}), asked{identity: alice}, true},
		{"one of many, by its end", peer(mesh.PeerMatch{Namespaces: in(many("*od")...)}), asked{identity: alice}, true},
		{"one of many methods", op(mesh.OperationMatch{Methods: in(many("GET")...)}), asked{}, true},
		{"none of many methods", op(mesh.OperationMatch{Methods: in(many()...)}), asked{}, false},
		{"not one of many methods", op(mesh.OperationMatch{Methods: notIn(many("GET")...)}), asked{}, false},
		{"one of many paths, by its beginning", path(many("/a*")...), asked{path: "/ab"}, true},
		{"one of many paths, by its end", path(many("*b")...), asked{path: "/ab"}, true},
		{"one of many paths, by a template", path(many("/{*}/b")...), asked{path: "/a/b"}, true},
		{"a token's principal", peer(mesh.PeerMatch{RequestPrincipals: in("i/s")}), asked{claims: claims}, true},
		{"any token", peer(mesh.PeerMatch{RequestPrincipals: in("*")}), asked{claims: claims}, true},
		{"any token, without one", peer(mesh.PeerMatch{RequestPrincipals: in("*")}), asked{}, false},
		{"no token", peer(mesh.PeerMatch{RequestPrincipals: notIn("*")}), asked{}, true},

		{"a host in any case", op(mesh.OperationMatch{Hosts: in("WEB.prod")}), asked{host: "web.PROD"}, true},
		{"a host with a port", op(mesh.OperationMatch{Hosts: in("web.prod")}), asked{host: "web.prod:80"}, true},
		{"a host and its port", op(mesh.OperationMatch{Hosts: in("web.prod:81")}), asked{host: "web.prod:80"}, false},
		{"a host, and the port that is asked for", op(mesh.OperationMatch{Hosts: in("web.prod:80")}), asked{host: "web.prod:80"}, true},
		{"not another host", op(mesh.OperationMatch{Hosts: notIn("web.prod")}), asked{host: "web.shop"}, true},
		{"no host", op(mesh.OperationMatch{Hosts: in("web.prod")}), asked{host: ":80"}, false},
		{"a host's end", op(mesh.OperationMatch{Hosts: in("*.prod")}), asked{host: "web.prod:80"}, true},
		{"not a host, and its port", op(mesh.OperationMatch{Hosts: notIn("web.prod")}), asked{host: "web.prod:80"}, false},
		{"a method", op(mesh.OperationMatch{Methods: in("GET")}), asked{method: "GET"}, true},
		{"a method in another case", op(mesh.OperationMatch{Methods: in("GET")}), asked{method: "get"}, false},
		{"a port", op(mesh.OperationMatch{Ports: in("8080")}), asked{port: 8080}, true},
		{"another port", op(mesh.OperationMatch{Ports: in("8080")}), asked{port: 80}, false},
		{"not a port", op(mesh.OperationMatch{Ports: notIn("8080")}), asked{port: 8080}, false},
		{"a path", path("/a"), asked{path: "/a"}, true},
		{"a path's beginning", path("/api/*"), asked{path: "/api/x"}, true},
		{"a path's beginning, and not the folder's brother", path("/api/*"), asked{path: "/apix"}, false},
		{"a path's end", path("*.html"), asked{path: "/a/b.html"}, true},
		{"a path in another case", path("/a"), asked{path: "/A"}, false},
		{"a path's end alone", path("*/b"), asked{path: "/b"}, true},
		{"another end of a path", path("*.html"), asked{path: "/a/b.htm"}, false},
		{"a path that is shorter than an end", path("*/index.html"), asked{path: "/x"}, false},
		{"a path's beginning alone", path("/api/*"), asked{path: "/api/"}, true},
		{"any path", path("*"), asked{path: "/"}, true},
		{"a template's other segments", path("/a/{*}/c"), asked{path: "/x/b/c"}, false},
		{"a template's last segment", path("/a/{*}/c"), asked{path: "/a/b/d"}, false},
		{"a template's end, within a segment", path("/{**}/c"), asked{path: "/a/bc"}, false},
		{"a template's end alone", path("/{**}/c"), asked{path: "/c"}, false},
		{"a path that is shorter than a template's end", path("/{**}/index.html"), asked{path: "/x"}, false},
		{"a template's segment", path("/a/{*}/c"), asked{path: "/a/b/c"}, true},
		{"a template's segment is one", path("/a/{*}/c"), asked{path: "/a/b/b/c"}, false},
		{"a template's segment is not empty", path("/a/{*}/c"), asked{path: "/a//c"}, false},
		{"a template's rest", path("/a/{**}"), asked{path: "/a/b/c"}, true},
		{"a template's rest may be empty", path("/a/{**}"), asked{path: "/a/"}, true},
		{"a template's rest is below", path("/a/{**}"), asked{path: "/a"}, false},
		{"a template's end", path("/{**}/c"), asked{path: "/a/b/c"}, true},
		{"a template's other end", path("/{**}/c"), asked{path: "/a/b/d"}, false},
		{"a template and what follows", path("/a/{*}"), asked{path: "/a/b/"}, false},
		{"not a path", op(mesh.OperationMatch{Paths: notIn("/a")}), asked{path: "/a"}, false},
		{"operations are alternatives", to(mesh.OperationMatch{Paths: in("/x")}, mesh.OperationMatch{Methods: in("GET")}), asked{}, true},

		{"a header", header(in("admin")), asked{fields: []string{"X-Role: admin"}}, true},
		{"a header that is not there", header(in("*")), asked{}, false},
		{"not a header that is not there", header(notIn("admin")), asked{}, true},
		{"a header of two lines, for ALLOW", header(in("admin")), asked{fields: []string{"x-role: admin", "x-role: x"}}, false},
		{"not a header, of two lines", header(notIn("admin")), asked{fields: []string{"x-role: x", "x-role: admin"}}, false},
		{"a claim of a list", claim(in("users", "admins"), "groups"), asked{claims: claims}, true},
		{"another claim of a list", claim(in("admins"), "groups"), asked{claims: claims}, false},
		{"a nested claim", claim(in("x"), "deep", "er"), asked{claims: claims}, true},
		{"a claim without a token", claim(in("users"), "groups"), asked{}, false},
		{"not a claim, without a token", claim(notIn("users"), "groups"), asked{}, true},
		{"an audience", when(mesh.Condition{Key: mesh.KeyAudiences, Values: in("b")}), asked{claims: claims}, true},
		{"a presenter", when(mesh.Condition{Key: mesh.KeyPresenter, Values: in("p")}), asked{claims: claims}, true},
		{"conditions are one", when(mesh.Condition{Key: mesh.KeyPresenter, Values: in("p")}, mesh.Condition{Key: mesh.KeyAudiences, Values: in("z")}), asked{claims: claims}, false},
		{"a namespace as a condition", when(mesh.Condition{Key: mesh.KeySourceNamespace, Values: in("prod")}), asked{identity: alice}, true},
		{"a principal as a condition, by an alias", when(mesh.Condition{Key: mesh.KeySourcePrincipal, Values: in("old.example/ns/prod/sa/alice")}), asked{identity: alice}, true},
		{"a port as a condition", when(mesh.Condition{Key: mesh.KeyDestinationPort, Values: in("8080")}), asked{port: 8080}, true},

		{"another port as a condition", one(mesh.KeyDestinationPort, in("8080")), asked{port: 808}, false},
		{"another namespace as a condition", one(mesh.KeySourceNamespace, in("shop")), asked{identity: alice}, false},
		{"another principal as a condition", one(mesh.KeySourcePrincipal, in("new.example/ns/prod/sa/bob")), asked{identity: alice}, false},
		{"an account as a condition", one(mesh.KeySourceServiceAccount, in("prod/alice")), asked{identity: alice}, true},
		{"another account as a condition", one(mesh.KeySourceServiceAccount, in("prod/bob")), asked{identity: alice}, false},
		{"a trust domain as a condition, by an alias", one(mesh.KeySourceTrustDomain, in("old.example")), asked{identity: alice}, true},
		{"another trust domain as a condition", one(mesh.KeySourceTrustDomain, in("evil.example")), asked{identity: alice}, false},
		{"a server name", one(mesh.KeySNI, in("*.shop")), asked{sni: "web.shop"}, true},
		{"another server name", one(mesh.KeySNI, in("*.shop")), asked{sni: "web.evil"}, false},
		{"an address as a condition", ip(mesh.KeySourceIP, ten), asked{source: "10.1.2.3", remote: "11.1.2.3"}, true},
		{"another address as a condition", ip(mesh.KeySourceIP, ten), asked{source: "11.1.2.3", remote: "10.1.2.3"}, false},
		{"not an address as a condition", ip(mesh.KeySourceIP, not(ten)), asked{source: "10.1.2.3"}, false},
		{"a client's address as a condition", ip(mesh.KeyRemoteIP, ten), asked{source: "11.1.2.3", remote: "10.1.2.3"}, true},
		{"another client's address as a condition", ip(mesh.KeyRemoteIP, ten), asked{source: "10.1.2.3", remote: "11.1.2.3"}, false},
		{"a destination's address", ip(mesh.KeyDestinationIP, ten), asked{source: "11.1.2.3", destination: "10.1.2.3"}, true},
		{"another destination's address", ip(mesh.KeyDestinationIP, ten), asked{source: "10.1.2.3", destination: "11.1.2.3"}, false},
		{"a token's principal as a condition", one(mesh.KeyRequestPrincipal, in("i/s")), asked{claims: claims}, true},
		{"another token's principal as a condition", one(mesh.KeyRequestPrincipal, in("i/t")), asked{claims: claims}, false},
		{"another audience", one(mesh.KeyAudiences, in("c")), asked{claims: claims}, false},
		{"not one of the audiences", one(mesh.KeyAudiences, notIn("b")), asked{claims: claims}, false},
		{"another presenter", one(mesh.KeyPresenter, in("q")), asked{claims: claims}, false},
		{"another nested claim", claim(in("y"), "deep", "er"), asked{claims: claims}, false},
		{"not a claim of a list", claim(notIn("users"), "groups"), asked{claims: claims}, false},
		{"another header", header(in("admin")), asked{fields: []string{"x-rolf: admin", "x-rol: admin", "x-roles: admin"}}, false},
		{"a header beside another", header(in("admin")), asked{fields: []string{"x-role: admin", "x-rolf: x"}}, true},
		{"any header", header(in("*")), asked{fields: []string{"x-role: x"}}, true},
		{"any header, which is empty", header(in("*")), asked{fields: []string{"x-role: "}}, false},
		{"a header with any letter", named("x_az", in("x")), asked{fields: []string{"X_AZ: x"}}, true},
		{"the host as a header, by its other name", named("host", in("WEB.prod")), asked{host: "web.prod:80"}, true},
		{"this method as a header", named(":method", in("GET")), asked{}, true},
		{"this path as a header", named(":path", in("/a")), asked{path: "/a"}, true},
		{"the method as a header", when(mesh.Condition{Key: mesh.KeyHeader, Name: ":method", Values: in("GET")}), asked{method: "POST"}, false},
		{"the path as a header", when(mesh.Condition{Key: mesh.KeyHeader, Name: ":path", Values: in("/a")}), asked{path: "/b"}, false},
		{"the host as a header", when(mesh.Condition{Key: mesh.KeyHeader, Name: ":authority", Values: in("web.prod")}), asked{host: "WEB.prod:80"}, true},
		{"another host as a header", when(mesh.Condition{Key: mesh.KeyHeader, Name: "host", Values: in("web.prod")}), asked{host: "web.shop"}, false},
		{"a key that nobody knows", one(mesh.KeySNI+1, in("*")), asked{}, false},

		{"a connection and a principal", peer(mesh.PeerMatch{Principals: in("*")}), asked{tcp: true, identity: alice}, true},
		{"a connection and a token", peer(mesh.PeerMatch{RequestPrincipals: notIn("*")}), asked{tcp: true}, false},
		{"a connection and a method", op(mesh.OperationMatch{Methods: in("GET")}), asked{tcp: true}, false},
		{"a connection and a port", op(mesh.OperationMatch{Ports: in("1")}), asked{tcp: true, port: 1}, true},
		{"a connection and a header", header(notIn("x")), asked{tcp: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, tt.rule)}, []string{"new.example", "old.example", "cluster.local"}, nil)
			if r := rules.Check(tt.ask.request()); (r == nil) != tt.want {
				t.Errorf("refusal %v, want allowed %v", r, tt.want)
			}
			// Where it is found by its index, the rule itself is not to fit more.
			if m := rules.allow.policies[0].match(tt.ask.request()); (m != nil) != tt.want {
				t.Errorf("the rule fits: %v, want %v", m != nil, tt.want)
			}
		})
	}
}

// TestRules_Aliases: whom a principal means in a mesh whose trust domain is
// new.example, and was old.example.
func TestRules_Aliases(t *testing.T) {
	for _, tt := range []struct {
		principal string
		means     []string // of the trust domains below, under any of which alice may call
	}{
		{"new.example/ns/prod/sa/alice", []string{"new.example", "old.example"}},
		{"old.example/ns/prod/sa/alice", []string{"new.example", "old.example"}},
		{"cluster.local/ns/prod/sa/alice", []string{"new.example", "old.example"}}, // and not whoever calls himself so
		{"evil.example/ns/prod/sa/alice", []string{"evil.example"}},
		{"*/ns/prod/sa/alice", []string{"new.example", "old.example", "cluster.local", "evil.example"}},
		{"*w.example/ns/prod/sa/alice", []string{"new.example", "old.example"}},
		{"*example/ns/prod/sa/alice", []string{"new.example", "old.example", "evil.example"}},
		{"new.example/*", []string{"new.example", "old.example"}},
		{"new.*", []string{"new.example"}},
	} {
		for _, domain := range []string{"new.example", "old.example", "cluster.local", "evil.example"} {
			for name, v := range map[string]mesh.Values{"": in(tt.principal), "not ": notIn(tt.principal)} {
				rule := from(mesh.PeerMatch{Principals: v})
				r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, rule)}, []string{"new.example", "old.example"}, nil).
					Check(asked{identity: "spiffe://" + domain + "/ns/prod/sa/alice"}.request())
				if got, want := r == nil, slices.Contains(tt.means, domain) == (name == ""); got != want {
					t.Errorf("%s%s, and alice of %s: allowed %v, want %v", name, tt.principal, domain, got, want)
				}
			}
		}
	}
}

// TestRules_Forbid: what forbids cannot be talked out of it.
func TestRules_Forbid(t *testing.T) {
	header := func(v mesh.Values) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: mesh.KeyHeader, Name: "x-role", Values: v})
	}
	for _, tt := range []struct {
		name   string
		rule   *mesh.AuthorizationRule
		ask    asked
		denied bool
	}{
		{"a header among others", header(in("guest")), asked{fields: []string{"x-role: admin", "x-role: guest"}}, true},
		{"all but a header", header(notIn("admin")), asked{fields: []string{"x-role: admin", "x-role: guest"}}, true},
		{"all but a header, which is there", header(notIn("admin")), asked{fields: []string{"x-role: admin"}}, false},
		{"all but a header, which is not there", header(notIn("admin")), asked{}, true},
		{"all but a principal, in plain text", from(mesh.PeerMatch{Principals: notIn("cluster.local/ns/prod/sa/alice")}), asked{}, true},
		{"a host whatever its port", to(mesh.OperationMatch{Hosts: in("secret.prod")}), asked{host: "secret.prod:80"}, true},
		{"a host with a dot at its end", to(mesh.OperationMatch{Hosts: in("secret.prod")}), asked{host: "secret.prod."}, true},
		{"a connection, by what is asked of requests", to(mesh.OperationMatch{Methods: in("GET"), Ports: in("1")}), asked{tcp: true, port: 1}, true},
		{"a connection, by a path and a port", to(mesh.OperationMatch{Paths: in("/x"), Ports: in("1")}), asked{tcp: true, port: 1}, true},
		{"a connection, by a token", from(mesh.PeerMatch{RequestPrincipals: in("i/s"), Namespaces: in("prod")}), asked{tcp: true, identity: alice}, true},
		{"a connection of another namespace, by a token", from(mesh.PeerMatch{RequestPrincipals: in("i/s"), Namespaces: in("shop")}), asked{tcp: true, identity: alice}, false},
		{"a connection, by a header", header(in("guest")), asked{tcp: true}, true},
		{"a connection, by a claim", when(mesh.Condition{Key: mesh.KeyClaims, Claims: []string{"a"}, Values: in("x")}), asked{tcp: true}, true},
		{"a connection, by a host and a folder", to(mesh.OperationMatch{Hosts: in("x.test"), Paths: in("/x/*")}), asked{tcp: true}, true},
		{"a connection to another port", to(mesh.OperationMatch{Methods: in("GET"), Ports: in("1")}), asked{tcp: true, port: 2}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, tt.rule)}, nil, nil).Check(tt.ask.request())
			if (r != nil) != tt.denied {
				t.Errorf("refusal %v, want denied %v", r, tt.denied)
			}
		})
	}
}

// TestRules_Nearest: a refusal names the rule of which most fits, and what does
// not.
func TestRules_Nearest(t *testing.T) {
	p := policyOf(mesh.ActionAllow,
		&mesh.AuthorizationRule{Source: mesh.Source{File: "a.yaml", Line: 9}, To: []mesh.OperationMatch{{Methods: in("POST")}}, From: []mesh.PeerMatch{{Namespaces: in("x")}}},
		&mesh.AuthorizationRule{
			Source: mesh.Source{File: "a.yaml", Line: 12}, To: []mesh.OperationMatch{{Methods: in("GET")}}, From: []mesh.PeerMatch{{Namespaces: in("prod")}},
			When: []mesh.Condition{{Key: mesh.KeyClaims, Claims: []string{"groups"}, Values: in("users")}},
		})
	r := NewRules([]*mesh.AuthorizationPolicy{p}, nil, nil).Check(asked{identity: alice}.request())
	if r == nil {
		t.Fatal("allowed")
	}
	if got, want := r.Error(), "no AuthorizationPolicy allows it; nearest is AuthorizationPolicy prod/allow rules[1] (a.yaml:12), but for when[0] request.auth.claims[groups]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	d := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, anything)}, nil, nil).Check(asked{}.request())
	if d == nil || !strings.HasSuffix(d.Error(), "forbids it") {
		t.Errorf("got %v", d)
	}
}

// TestRules_NearestOfMany: of very many rules, the nearest is found among those that
// a request meets in what they are looked up by.
func TestRules_NearestOfMany(t *testing.T) {
	var rules []*mesh.AuthorizationRule
	for i := range 1000 {
		rules = append(rules, &mesh.AuthorizationRule{
			From: []mesh.PeerMatch{{Principals: in(fmt.Sprintf("cluster.local/ns/team-%d/sa/app", i))}},
			To:   []mesh.OperationMatch{{Methods: in("GET")}},
		})
	}
	r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, rules...)}, nil, nil)
	q := asked{identity: "spiffe://cluster.local/ns/team-900/sa/app", method: "PUT"}.request()
	if got := r.Check(q); got == nil || got.Rule != 900 || got.Field != "to[0].operation.methods" {
		t.Errorf("got %v, want the rule of team-900, but for the method", got)
	}
	if got := r.Check(asked{identity: alice}.request()); got == nil || got.Policy == nil || !strings.HasSuffix(got.Field, "principals") {
		t.Errorf("got %v, want some rule, but for the principal", got)
	}
}

// TestRules_NearestRule: the rule of which the most fits is told, wherever it stands.
func TestRules_NearestRule(t *testing.T) {
	rule := func(fits string) *mesh.AuthorizationRule {
		r := &mesh.AuthorizationRule{
			From: []mesh.PeerMatch{{Namespaces: in("x")}}, To: []mesh.OperationMatch{{Methods: in("POST")}},
			When: []mesh.Condition{{Key: mesh.KeySNI, Values: in("x")}},
		}
		switch fits {
		case "from":
			r.From[0].Namespaces = in("prod")
		case "to":
			r.To[0].Methods = in("GET")
		case "when":
			r.When[0].Values = in("web")
		}
		return r
	}
	for _, fits := range []string{"from", "to", "when"} {
		for want, rules := range [][]*mesh.AuthorizationRule{{rule(fits), rule("")}, {rule(""), rule(fits)}} {
			r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, rules...)}, nil, nil).Check(asked{identity: alice, sni: "web"}.request())
			if r == nil || r.Rule != want {
				t.Errorf("%s: nearest is %+v, want rule %d", fits, r, want)
			}
		}
	}
}

// TestRules_Needs: what is dear to find out is found out for whoever looks at it, and
// for nobody else.
func TestRules_Needs(t *testing.T) {
	ten := mesh.Blocks{In: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, tt := range []struct {
		name         string
		rule         *mesh.AuthorizationRule
		want, custom Needs
	}{
		{"nothing", from(mesh.PeerMatch{Namespaces: in("a"), IPBlocks: ten}), Needs{}, Needs{}},
		{"a client's address", from(mesh.PeerMatch{RemoteIPBlocks: ten}), Needs{Remote: true}, Needs{Remote: true}},
		{"not a client's address", from(mesh.PeerMatch{RemoteIPBlocks: mesh.Blocks{NotIn: ten.In}}), Needs{Remote: true}, Needs{Remote: true}},
		{"a client's address as a condition", when(mesh.Condition{Key: mesh.KeyRemoteIP, Blocks: ten}), Needs{Remote: true}, Needs{Remote: true}},
		{"a destination's address", when(mesh.Condition{Key: mesh.KeyDestinationIP, Blocks: ten}), Needs{Destination: true}, Needs{Destination: true}},
		{"whom a token is about", from(mesh.PeerMatch{RequestPrincipals: in("*")}), Needs{}, Needs{EarlyClaims: true}},
		{"that, as a condition", when(mesh.Condition{Key: mesh.KeyRequestPrincipal, Values: in("*")}), Needs{}, Needs{EarlyClaims: true}},
		{"audiences", when(mesh.Condition{Key: mesh.KeyAudiences, Values: in("*")}), Needs{}, Needs{EarlyClaims: true}},
		{"a presenter", when(mesh.Condition{Key: mesh.KeyPresenter, Values: in("*")}), Needs{}, Needs{EarlyClaims: true}},
		{"claims", when(mesh.Condition{Key: mesh.KeyClaims, Claims: []string{"a"}, Values: in("*")}), Needs{}, Needs{EarlyClaims: true}},
	} {
		for _, a := range []mesh.Action{mesh.ActionAllow, mesh.ActionDeny, mesh.ActionAudit, mesh.ActionCustom} {
			want := tt.want
			if a == mesh.ActionCustom {
				want = tt.custom
			}
			// A rule that looks at nothing takes nothing back.
			r := NewRules([]*mesh.AuthorizationPolicy{policyOf(a, tt.rule, anything)}, nil, nil)
			if got := r.Needs(); got != want || r.HasCustom() != (a == mesh.ActionCustom) {
				t.Errorf("%s, for %v: %+v, want %+v", tt.name, a, got, want)
			}
		}
	}
	if none := (*Rules)(nil); none.Needs() != (Needs{}) || none.HasCustom() {
		t.Error("no rules need something")
	}
}

// TestRules_Custom: every policy that fits is asked for, until one says no.
func TestRules_Custom(t *testing.T) {
	get, post := to(mesh.OperationMatch{Methods: in("GET")}), to(mesh.OperationMatch{Methods: in("POST")})
	var policies []*mesh.AuthorizationPolicy
	tallies := map[string]*Tally{}
	for i, r := range []*mesh.AuthorizationRule{get, post, get, get} {
		p := policyOf(mesh.ActionCustom, r)
		p.Name = fmt.Sprint(i)
		policies = append(policies, p)
		tallies[p.Name] = &Tally{}
	}
	r := NewRules(policies, nil, func(p *mesh.AuthorizationPolicy) *Tally { return tallies[p.Name] })
	got := ""
	r.Custom(asked{}.request(), func(p *mesh.AuthorizationPolicy) bool { got += p.Name; return p.Name != "2" })
	if got != "02" {
		t.Errorf("asked %s, want 02", got)
	}
	for name, want := range map[string]uint64{"0": 1, "1": 0, "2": 1, "3": 0} {
		if n := tallies[name].Matched.Load(); n != want {
			t.Errorf("policy %s matched %d times, want %d", name, n, want)
		}
	}
	if refusal := r.Check(asked{}.request()); refusal != nil {
		t.Errorf("those that ask others decide by themselves: %v", refusal)
	}
	(*Rules)(nil).Custom(asked{}.request(), func(*mesh.AuthorizationPolicy) bool { t.Error("asked for nobody"); return true })
}

// TestRules_Audited: the first policy of action AUDIT that fits is told of, no other.
func TestRules_Audited(t *testing.T) {
	get, post := to(mesh.OperationMatch{Methods: in("GET")}), to(mesh.OperationMatch{Methods: in("POST")})
	audits := func(name string, r *mesh.AuthorizationRule) *mesh.AuthorizationPolicy {
		p := policyOf(mesh.ActionAudit, r)
		p.Name = name
		return p
	}
	for _, tt := range []struct {
		name     string
		policies []*mesh.AuthorizationPolicy
		want     string
	}{
		{"one", []*mesh.AuthorizationPolicy{audits("a", get)}, "a"},
		{"one that does not fit", []*mesh.AuthorizationPolicy{audits("a", post)}, ""},
		{"the second", []*mesh.AuthorizationPolicy{audits("a", post), audits("b", get)}, "b"},
		{"two", []*mesh.AuthorizationPolicy{audits("a", get), audits("b", get)}, "a"},
		{"a dry run", []*mesh.AuthorizationPolicy{dry(audits("a", get)), dry(policyOf(mesh.ActionDeny, get))}, ""},
	} {
		q, got := asked{}.request(), ""
		if r := NewRules(tt.policies, nil, nil).Check(q); r != nil {
			t.Errorf("%s: refused: %v", tt.name, r)
		}
		if q.Audited != nil {
			got = q.Audited.Name
		}
		if got != tt.want {
			t.Errorf("%s: audited by %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRules_Tally(t *testing.T) {
	counts := map[string]*Tally{}
	tally := func(p *mesh.AuthorizationPolicy) *Tally {
		counts[p.Action.String()] = &Tally{}
		return counts[p.Action.String()]
	}
	r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionAudit, anything), dry(policyOf(mesh.ActionDeny, anything)), policyOf(mesh.ActionAllow, anything)}, nil, tally)
	r.Check(asked{}.request())
	if len(counts) != 3 {
		t.Errorf("counters of %d policies, want 3", len(counts))
	}
	for action, c := range counts {
		if c.Matched.Load() != 1 {
			t.Errorf("%s matched %d times, want once", action, c.Matched.Load())
		}
	}
}

// tokenSaying is what a token with a payload would say.
func tokenSaying(t *testing.T, payload string) *Claims {
	t.Helper()
	part := base64.RawURLEncoding.EncodeToString
	j, bad := parseToken([]byte(part([]byte(`{"alg":"ES256"}`)) + "." + part([]byte(payload)) + "." + part(make([]byte, 64))))
	if bad != nil {
		t.Fatal(bad)
	}
	return j.claimsFor(nil)
}

// TestRules_NearestField: a refusal names the field of each alternative that does
// not fit.
func TestRules_NearestField(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule mesh.AuthorizationRule
		want string
	}{
		{"both callers", mesh.AuthorizationRule{From: []mesh.PeerMatch{{Principals: in("x")}, {Namespaces: in("y")}}}, "from[0].source.principals and from[1].source.namespaces"},
		{"one operation", mesh.AuthorizationRule{To: []mesh.OperationMatch{{Methods: in("GET"), Paths: in("/nowhere")}}}, "to[0].operation.paths"},
		{"a port", mesh.AuthorizationRule{To: []mesh.OperationMatch{{Ports: in("1")}}}, "to[0].operation.ports"},
		{"a token", mesh.AuthorizationRule{From: []mesh.PeerMatch{{RequestPrincipals: in("*")}}}, "from[0].source.requestPrincipals"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, &tt.rule)}, nil, nil).Check(asked{identity: alice}.request())
			if r == nil || r.Field != tt.want {
				t.Errorf("got %v, want the field %s", r, tt.want)
			}
		})
	}
}
