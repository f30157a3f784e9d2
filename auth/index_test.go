package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"isthmus/mesh"
)

// TestRules_IndexChangesNothing: rules found by the index are those that asking
// each would find.
func TestRules_IndexChangesNothing(t *testing.T) {
	values := func(of ...string) *rapid.Generator[mesh.Values] {
		word := rapid.SliceOfN(rapid.SampledFrom(of), 0, 2)
		return rapid.Custom(func(t *rapid.T) mesh.Values {
			v := mesh.Values{In: word.Draw(t, "in"), NotIn: word.Draw(t, "notIn")}
			if rapid.IntRange(0, 9).Draw(t, "many") == 0 { // so that they are looked up
				for i := range few {
					v.In, v.NotIn = append(v.In, fmt.Sprint("in", i)), append(v.NotIn, fmt.Sprint("not", i))
				}
			}
			return v
		})
	}
	blocks := rapid.Custom(func(t *rapid.T) (b mesh.Blocks) {
		list := rapid.SliceOfN(rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "0.0.0.0/0", "::/0", "fe80::/10"}), 0, 2)
		for _, s := range list.Draw(t, "in") {
			b.In = append(b.In, netip.MustParsePrefix(s))
		}
		for _, s := range list.Draw(t, "notIn") {
			b.NotIn = append(b.NotIn, netip.MustParsePrefix(s))
		}
		return b
	})
	paths := values("/a", "/a/b", "/a/*", "/*", "*b", "*", "/a/{*}", "/{**}/b", "/a*")
	spaces := values("prod", "shop", "*", "pr*")
	principals := values("cluster.local/ns/prod/sa/a", "cluster.local/ns/shop/sa/a", "*", "*/sa/a")
	accounts := values("prod/a", "shop/a")
	teams := values("a", "b", "A", "a*", "*", strings.Repeat("a", keyLength))
	groups := values("g", "h", "g*", "*", "")
	callers := values("issuer/a", "issuer/*", "*")
	hosts := values("web.prod", "Web.Prod:80", "*.prod", "*prod", "*b.prod:80", "web.*", "*", "prod.", "*.", ".prod")
	rapid.Check(t, func(t *rapid.T) {
		maybe := func(what string) bool { return rapid.IntRange(0, 2).Draw(t, what) == 0 }
		var rules []*mesh.AuthorizationRule
		for range rapid.IntRange(1, 6).Draw(t, "rules") {
			r := &mesh.AuthorizationRule{}
			for range rapid.IntRange(0, 2).Draw(t, "from") {
				var m mesh.PeerMatch
				if maybe("by namespace") {
					m.Namespaces = spaces.Draw(t, "namespaces")
				}
				if maybe("by principal") {
					m.Principals = principals.Draw(t, "principals")
				}
				if maybe("by account") {
					m.ServiceAccounts = accounts.Draw(t, "accounts")
				}
				if maybe("by caller") {
					m.RequestPrincipals = callers.Draw(t, "callers")
				}
				if maybe("by address") {
					m.IPBlocks, m.RemoteIPBlocks = blocks.Draw(t, "source"), blocks.Draw(t, "remote")
				}
				r.From = append(r.From, m)
			}
			for range rapid.IntRange(0, 2).Draw(t, "to") {
				var m mesh.OperationMatch
				if maybe("by path") {
					m.Paths = paths.Draw(t, "paths")
				}
				if maybe("by host") {
					m.Hosts = hosts.Draw(t, "hosts")
				}
				if maybe("by method") {
					m.Methods = in(rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "methods"))
				}
				r.To = append(r.To, m)
			}
			if maybe("when header") {
				name := rapid.SampledFrom([]string{"x-team", "x-other", ":path"}).Draw(t, "name")
				r.When = append(r.When, mesh.Condition{Key: mesh.KeyHeader, Name: name, Values: teams.Draw(t, "team")})
			}
			if maybe("when claim") {
				path := rapid.SampledFrom([][]string{{"groups"}, {"a", "b"}}).Draw(t, "path of the claim")
				r.When = append(r.When, mesh.Condition{Key: mesh.KeyClaims, Claims: path, Values: groups.Draw(t, "group")})
			}
			if maybe("when") {
				r.When = append(r.When, rapid.SampledFrom([]mesh.Condition{
					{Key: mesh.KeySourceNamespace, Values: in("prod")},
					{Key: mesh.KeySourcePrincipal, Values: in("cluster.local/ns/prod/sa/a", "*")},
					{Key: mesh.KeySourceServiceAccount, Values: notIn("prod/a")},
					{Key: mesh.KeyRequestPrincipal, Values: in("issuer/a")},
					{Key: mesh.KeyHeader, Name: "host", Values: in("Web.prod")},
					{Key: mesh.KeySourceIP, Blocks: mesh.Blocks{In: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
				}).Draw(t, "condition"))
			}
			rules = append(rules, r)
		}
		action := rapid.SampledFrom([]mesh.Action{mesh.ActionAllow, mesh.ActionDeny}).Draw(t, "action")
		compiled := NewRules([]*mesh.AuthorizationPolicy{policyOf(action, rules...)}, nil, nil)
		set := &compiled.allow
		if action == mesh.ActionDeny {
			set = &compiled.deny
		}
		q := asked{
			path: rapid.SampledFrom([]string{"/a", "/a/", "/a/b", "/b", "/a/b/c", "/ab", "*", "//", "/a" + strings.Repeat("/", 99) + "b"}).Draw(t, "path"), method: rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "method"),
			host:     rapid.SampledFrom([]string{"web.prod", "WEB.prod:80", "a.b.prod.", "prod", "prod:80", "b.prod:80", ".prod", "web.", strings.Repeat(".", 99) + "prod", strings.Repeat("a", hostLength) + ".prod"}).Draw(t, "host"),
			identity: rapid.SampledFrom([]string{"", "spiffe://cluster.local/ns/prod/sa/a", "spiffe://cluster.local/ns/shop/sa/a", "spiffe://x/y"}).Draw(t, "identity"),
			source:   rapid.SampledFrom([]string{"", "10.1.2.3", "10.1.9.9", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:10.1.2.3"}).Draw(t, "address"),
			claims:   rapid.SampledFrom([]*Claims{nil, {Principal: "issuer/a", root: &claim{}}, {Principal: "issuer/b", root: &claim{members: map[string]*claim{"groups": {values: []string{"h", "g"}}, "a": {members: map[string]*claim{"b": {values: []string{"g"}}}}}}}}).Draw(t, "claims"),
			fields:   rapid.SliceOfN(rapid.SampledFrom([]string{"x-team: a", "X-Team: b", "x-team: A", "x-team: ", "x-other: a", "x-tea: a", "x-team: " + strings.Repeat("a", keyLength)}), 0, 3).Draw(t, "fields"),
			tcp:      rapid.Bool().Draw(t, "tcp"),
		}.request()
		want := false
		for _, p := range set.policies {
			want = want || p.match(q) != nil
		}
		if got := set.find(q) != nil; got != want {
			t.Fatalf("the index finds a rule: %v, asking each: %v", got, want)
		}
	})
}

// TestRules_IndexFinds: a rule that is found by one thing stays found, whatever else
// there is to look up.
func TestRules_IndexFinds(t *testing.T) {
	block := func(s string) mesh.Blocks { return mesh.Blocks{In: []netip.Prefix{netip.MustParsePrefix(s)}} }
	header := func(v mesh.Values) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: mesh.KeyHeader, Name: "x-team", Values: v})
	}
	group := func(v mesh.Values) *mesh.AuthorizationRule {
		return when(mesh.Condition{Key: mesh.KeyClaims, Claims: []string{"groups"}, Values: v})
	}
	kinds := []struct {
		name         string
		fits, misses *mesh.AuthorizationRule
	}{
		{"always", to(mesh.OperationMatch{Methods: in("GET")}), to(mesh.OperationMatch{Methods: in("POST")})},
		{"principal", from(mesh.PeerMatch{Principals: in("cluster.local/ns/prod/sa/alice")}), from(mesh.PeerMatch{Principals: in("cluster.local/ns/prod/sa/bob")})},
		{"namespace", from(mesh.PeerMatch{Namespaces: in("prod")}), from(mesh.PeerMatch{Namespaces: in("shop")})},
		{"account", from(mesh.PeerMatch{ServiceAccounts: in("prod/alice")}), from(mesh.PeerMatch{ServiceAccounts: in("prod/bob")})},
		{"source", from(mesh.PeerMatch{IPBlocks: block("10.0.0.0/8")}), from(mesh.PeerMatch{IPBlocks: block("11.0.0.0/9")})},
		{"remote", from(mesh.PeerMatch{RemoteIPBlocks: block("10.0.0.0/8")}), from(mesh.PeerMatch{RemoteIPBlocks: block("11.0.0.0/9")})},
		{"path", to(mesh.OperationMatch{Paths: in("/a/b.c")}), to(mesh.OperationMatch{Paths: in("/a/b.d")})},
		{"caller", from(mesh.PeerMatch{RequestPrincipals: in("i/s")}), from(mesh.PeerMatch{RequestPrincipals: in("i/t")})},
		{"folder", to(mesh.OperationMatch{Paths: in("/a/*")}), to(mesh.OperationMatch{Paths: in("/a/x*")})},
		{"ending", to(mesh.OperationMatch{Paths: in("*.c")}), to(mesh.OperationMatch{Paths: in("*.d")})},
		{"host", to(mesh.OperationMatch{Hosts: in("web.prod")}), to(mesh.OperationMatch{Hosts: in("web.shop")})},
		{"domain", to(mesh.OperationMatch{Hosts: in("*.prod")}), to(mesh.OperationMatch{Hosts: in("*x.prod")})},
		{"header", header(in("a")), header(in("bb"))},
		{"claim", group(in("g")), group(in("h"))},
	}
	q := func() *Request {
		return asked{path: "/a/b.c", host: "web.prod:80", identity: alice, source: "10.1.2.3", fields: []string{"x-team: a", "x-team: "},
			claims: &Claims{Principal: "i/s", root: &claim{members: map[string]*claim{"groups": {values: []string{"g", "i"}}}}}}.request()
	}
	for i := range kinds {
		var rules []*mesh.AuthorizationRule
		for j, k := range kinds {
			if rules = append(rules, k.misses); i == j {
				rules = append(rules, k.fits)
			}
		}
		r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, rules...)}, nil, nil)
		if refusal := r.Check(q()); refusal == nil || refusal.Rule != i+1 {
			t.Errorf("%s: %+v, want rule %d", kinds[i].name, refusal, i+1)
		}
	}
	var none []*mesh.AuthorizationRule
	for _, k := range kinds {
		none = append(none, k.misses)
	}
	if refusal := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, none...)}, nil, nil).Check(q()); refusal != nil {
		t.Errorf("none fits: %+v", refusal)
	}
}

// FuzzRules: no text of a policy makes judging fail, and a policy that forbids
// everything stays one.
func FuzzRules(f *testing.F) {
	f.Add("/api/*", "cluster.local/ns/a/sa/b", "x-role", "admin", "/api/x", alice)
	f.Add("/{*}/{**}", "*", "", "*a", "/a//b", "spiffe://a")
	f.Add("{**}/x", "/", ":path", "", "", "")
	f.Fuzz(func(t *testing.T, path, principal, header, value, asks, identity string) {
		rule := &mesh.AuthorizationRule{
			From: []mesh.PeerMatch{{Principals: in(principal), Namespaces: notIn(value)}},
			To:   []mesh.OperationMatch{{Paths: mesh.Values{In: []string{path}, NotIn: []string{value}}, Hosts: in(value)}},
			When: []mesh.Condition{{Key: mesh.KeyHeader, Name: strings.ToLower(header), Values: in(value)}},
		}
		q := asked{path: asks, identity: identity, fields: []string{header + ": " + value}}.request()
		for _, a := range []mesh.Action{mesh.ActionAllow, mesh.ActionDeny} {
			r := NewRules([]*mesh.AuthorizationPolicy{policyOf(a, rule)}, []string{"cluster.local", value}, nil)
			linear := policyOfCompiled(r, a).match(q) != nil
			if refused := r.Check(q) != nil; refused == (linear == (a == mesh.ActionAllow)) {
				t.Errorf("%v: refused %v although asking each rule says %v", a, refused, linear)
			}
		}
		if NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, anything)}, nil, nil).Check(q) == nil {
			t.Error("a policy that forbids everything lets something pass")
		}
	})
}

func policyOfCompiled(r *Rules, a mesh.Action) *policy {
	if a == mesh.ActionDeny {
		return r.deny.policies[0]
	}
	return r.allow.policies[0]
}

// thousand are 1,000 rules of the kinds that people write.
func thousand() []*mesh.AuthorizationPolicy {
	var rules []*mesh.AuthorizationRule
	for i := range 1000 {
		r := &mesh.AuthorizationRule{From: []mesh.PeerMatch{{Principals: in(fmt.Sprintf("cluster.local/ns/team-%d/sa/app", i))}}}
		switch i % 3 {
		case 1:
			r = &mesh.AuthorizationRule{To: []mesh.OperationMatch{{Methods: in("GET", "POST"), Paths: in(fmt.Sprintf("/api/v%d/*", i))}}}
		case 2:
			r = &mesh.AuthorizationRule{From: []mesh.PeerMatch{{Namespaces: in(fmt.Sprintf("team-%d", i))}}, To: []mesh.OperationMatch{{Paths: in(fmt.Sprintf("/x/%d", i))}}}
		}
		rules = append(rules, r)
	}
	return []*mesh.AuthorizationPolicy{policyOf(mesh.ActionAllow, rules...), policyOf(mesh.ActionDeny, rules...)}
}

func BenchmarkRules_1000(b *testing.B) {
	r := NewRules(thousand()[1:], nil, nil) // which nothing matches: all that can fit is looked at
	q := asked{path: "/api/other/thing", identity: alice}.request()
	b.ReportAllocs()
	for b.Loop() {
		if r.Check(q) != nil {
			b.Fatal("refused")
		}
	}
}

// BenchmarkRules_1000Alike are rules of one kind, each with its own value.
func BenchmarkRules_1000Alike(b *testing.B) {
	of := func(format string, i int) mesh.Values { return in(fmt.Sprintf(format, i)) }
	block := func(i int) mesh.Blocks {
		return mesh.Blocks{In: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}}
	}
	for _, kind := range []struct {
		name string
		rule func(i int) *mesh.AuthorizationRule
	}{
		{"hosts", func(i int) *mesh.AuthorizationRule { return to(mesh.OperationMatch{Hosts: of("*.team-%d.example", i)}) }},
		{"tokens", func(i int) *mesh.AuthorizationRule {
			return from(mesh.PeerMatch{RequestPrincipals: of("issuer/%d", i)})
		}},
		{"blocks", func(i int) *mesh.AuthorizationRule { return from(mesh.PeerMatch{IPBlocks: block(i)}) }},
		{"paths of one caller", func(i int) *mesh.AuthorizationRule {
			r := to(mesh.OperationMatch{Paths: of("/api/v%d/*", i)})
			r.From = []mesh.PeerMatch{{Principals: in(strings.TrimPrefix(alice, "spiffe://"))}}
			return r
		}},
		{"ends of paths", func(i int) *mesh.AuthorizationRule { return to(mesh.OperationMatch{Paths: of("*-%d.json", i)}) }},
		{"headers", func(i int) *mesh.AuthorizationRule {
			return &mesh.AuthorizationRule{When: []mesh.Condition{{Key: mesh.KeyHeader, Name: "x-team", Values: of("team-%d", i)}}}
		}},
		{"claims", func(i int) *mesh.AuthorizationRule {
			return &mesh.AuthorizationRule{When: []mesh.Condition{{Key: mesh.KeyClaims, Claims: []string{"groups"}, Values: of("team-%d", i)}}}
		}},
		// Of these, each has to be asked.
		{"beginnings of headers", func(i int) *mesh.AuthorizationRule {
			return &mesh.AuthorizationRule{When: []mesh.Condition{{Key: mesh.KeyHeader, Name: "x-team", Values: of("team-%d-*", i)}}}
		}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			var rules []*mesh.AuthorizationRule
			for i := range 1000 {
				rules = append(rules, kind.rule(i))
			}
			r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, rules...)}, nil, nil)
			q := asked{path: "/api/other/thing", host: "web.team.example", identity: alice, source: "192.0.2.1", fields: []string{"x-team: other"}, claims: &Claims{root: &claim{members: map[string]*claim{"groups": {values: []string{"other", "another"}}}}}}.request()
			b.ReportAllocs()
			for b.Loop() {
				if r.Check(q) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkRules_Refused: a refusal says which rule of a thousand came nearest.
func BenchmarkRules_Refused(b *testing.B) {
	r := NewRules(thousand()[:1], nil, nil)
	q := asked{path: "/api/other/thing", identity: alice}.request()
	b.ReportAllocs()
	for b.Loop() {
		if r.Check(q) == nil {
			b.Fatal("allowed")
		}
	}
}

// BenchmarkRules_Long: what a client sends at length costs no more for it.
func BenchmarkRules_Long(b *testing.B) {
	var rules []*mesh.AuthorizationRule
	for i := range 1000 {
		rules = append(rules, to(mesh.OperationMatch{Paths: in(fmt.Sprintf("/api/v%d/*", i))}))
	}
	r := NewRules([]*mesh.AuthorizationPolicy{policyOf(mesh.ActionDeny, rules...)}, nil, nil)
	q := asked{path: strings.Repeat("/", 50_000)}.request()
	for b.Loop() {
		if r.Check(q) != nil {
			b.Fatal("refused")
		}
	}
}
