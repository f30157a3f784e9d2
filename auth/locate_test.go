package auth

import (
	"bytes"
	"slices"
	"testing"

	"isthmus/mesh"
)

// TestCheck_Places: where tokens are found, and what is left of the request.
func TestCheck_Places(t *testing.T) {
	token := key().token(claimsOf(""))
	header := func(name, prefix string) *mesh.TokenRule {
		return &mesh.TokenRule{Headers: []mesh.TokenHeader{{Name: name, Prefix: prefix}}}
	}
	params := func(names ...string) *mesh.TokenRule { return &mesh.TokenRule{Params: names} }
	cookies := func(names ...string) *mesh.TokenRule { return &mesh.TokenRule{Cookies: names} }
	forward := func(r *mesh.TokenRule) *mesh.TokenRule {
		r.Forward = true
		return r
	}
	none, anywhere := "none", &mesh.TokenRule{}
	tests := []struct {
		name   string
		rule   *mesh.TokenRule
		target string
		lines  []string
		body   string // of a refusal; "": passes; none: passes without claims
		query  string // that is sent on, with its "?"
		sent   []string
	}{
		{"authorization", anywhere, "/", []string{"A: 1", "Authorization: Bearer " + token, "B: 2"}, "", "", []string{"A: 1", "B: 2"}},
		{"scheme in another case", anywhere, "/", []string{"aUTHORIZATION: bEARER " + token}, "", "", nil},
		{"another scheme", anywhere, "/", []string{"Authorization: Basic " + token}, none, "", []string{"Authorization: Basic " + token}},
		{"scheme alone", anywhere, "/", []string{"Authorization: Bearer"}, none, "", []string{"Authorization: Bearer"}},
		{"no space", anywhere, "/", []string{"Authorization: Bearer" + token}, none, "", []string{"Authorization: Bearer" + token}},
		{"two spaces", anywhere, "/", []string{"Authorization: Bearer  " + token}, textFormat, "", nil},
		{"two tokens in one", anywhere, "/", []string{"Authorization: Bearer " + token + ", Bearer " + token}, textFormat, "", nil},
		{"two authorizations", anywhere, "/", []string{"Authorization: Bearer " + token, "Authorization: Bearer " + token}, textMultiple, "", nil},
		{"two authorizations, one of them another", anywhere, "/", []string{"Authorization: Basic x", "Authorization: Bearer " + token}, textMultiple, "", nil},
		{"header and parameter", anywhere, "/?access_token=" + token, []string{"Authorization: Bearer " + token}, textMultiple, "", nil},
		{"forwarded", forward(&mesh.TokenRule{}), "/", []string{"Authorization: Bearer " + token}, "", "", []string{"Authorization: Bearer " + token}},
		{"parameter by default", anywhere, "/?access_token=" + token, nil, "", "", nil},
		{"no token", anywhere, "/?a=b", []string{"A: 1"}, none, "?a=b", []string{"A: 1"}},

		{"own header", header("X-Token", ""), "/", []string{"x-token: " + token}, "", "", nil},
		{"another's header", header("X-Token", ""), "/", []string{"x-tokem: " + token, "y-token: " + token}, none, "", []string{"x-tokem: " + token, "y-token: " + token}},
		{"own header, empty", header("X-Token", ""), "/", []string{"x-token:"}, textFormat, "", nil},
		{"own header, nothing else counts", header("X-Token", ""), "/?access_token=x", []string{"Authorization: Bearer x"}, none, "?access_token=x", []string{"Authorization: Bearer x"}},
		{"own prefix", header("x-token", "jwt:"), "/", []string{"X-TOKEN: jwt:" + token}, "", "", nil},
		{"own prefix in another case", header("x-token", "jwt:"), "/", []string{"X-TOKEN: JWT:" + token}, none, "", []string{"X-TOKEN: JWT:" + token}},
		{"prefix without its space", header("x-token", "Token"), "/", []string{"x-token: Token  " + token}, "", "", nil},
		{"authorization by name", header("Authorization", "Bearer "), "/", []string{"authorization: BEARER " + token}, "", "", nil},
		{"own header twice", header("x-token", ""), "/", []string{"x-token: " + token, "X-Token: " + token}, textMultiple, "", nil},
		{"two own headers", &mesh.TokenRule{Headers: []mesh.TokenHeader{{Name: "a"}, {Name: "b"}}}, "/", []string{"a: " + token, "b: " + token}, textMultiple, "", nil},
		{"two prefixes of one header", &mesh.TokenRule{Headers: []mesh.TokenHeader{{Name: "a", Prefix: "x "}, {Name: "a"}}}, "/", []string{"a: x " + token}, "", "", nil},

		{"alone", params("t"), "/p?t=" + token, nil, "", "", nil},
		{"first", params("t"), "/p?t=" + token + "&a=%20&b", nil, "", "?a=%20&b", nil},
		{"last", params("t"), "/p?a=%20&b&t=" + token, nil, "", "?a=%20&b", nil},
		{"in between", params("t"), "/p?a=%20&t=" + token + "&&b=?", nil, "", "?a=%20&&b=?", nil},
		{"forwarded parameter", forward(params("t")), "/p?t=" + token, nil, "", "?t=" + token, nil},
		{"encoded name", params("to k"), "/p?%74o+%6B=" + token + "&to=1", nil, "", "?to=1", nil},
		{"encoded name, of all digits", params("0jz9O_"), "/p?%30%6a%7A%39%4f%5F=" + token, nil, "", "", nil},
		{"no digits", params("w"), "/p?%7g=" + token + "&%7:=x&%7/=x&%g7=x&%7@=x", nil, none, "?%7g=" + token + "&%7:=x&%7/=x&%g7=x&%7@=x", nil},
		{"longer name", params("t"), "/p?tt=" + token, nil, none, "?tt=" + token, nil},
		{"shorter name", params("tt"), "/p?t=" + token, nil, none, "?t=" + token, nil},
		{"name in another case", params("t"), "/p?T=" + token, nil, none, "?T=" + token, nil},
		{"broken encoding", params("t"), "/p?%7=" + token, nil, none, "?%7=" + token, nil},
		{"encoded token", params("t"), "/p?t=%65" + token[1:], nil, textFormat, "", nil},
		{"no value", params("t"), "/p?t", nil, textFormat, "", nil},
		{"twice", params("t"), "/p?t=" + token + "&t=" + token, nil, textMultiple, "", nil},
		{"twice, once encoded", params("t"), "/p?t=" + token + "&%74=x", nil, textMultiple, "", nil},
		{"one name twice in the rule", params("t", "t"), "/p?t=" + token, nil, "", "", nil},
		{"two names", params("t", "u"), "/p?t=" + token + "&u=" + token, nil, textMultiple, "", nil},

		{"cookie", cookies("t"), "/", []string{"Cookie: a=b; t=" + token + "; c=d"}, "", "", []string{"Cookie: a=b; t=" + token + "; c=d"}},
		{"quoted cookie", cookies("t"), "/", []string{`Cookie: t="` + token + `"`}, "", "", []string{`Cookie: t="` + token + `"`}},
		{"cookie of two fields", cookies("t"), "/", []string{"Cookie: a=b", "Cookie: t=" + token}, "", "", []string{"Cookie: a=b", "Cookie: t=" + token}},
		{"cookie of another field", cookies("t"), "/", []string{"X-Cookie: t=" + token}, none, "", []string{"X-Cookie: t=" + token}},
		{"cookie twice", cookies("t"), "/", []string{"Cookie: t=" + token + ";t=" + token}, textMultiple, "", nil},
		{"cookie in another case", cookies("t"), "/", []string{"Cookie: T=" + token}, none, "", []string{"Cookie: T=" + token}},
		{"empty cookie", cookies("t"), "/", []string{"Cookie: t="}, textFormat, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rule := *tt.rule
			rule.Issuer, rule.Keys = testIssuer, []byte(keySetOf(key()))
			tokens := newTestTokens(t, &rule)
			r := tokenRequest(t, "GET "+tt.target, tt.lines...)
			c, err := tokens.Check(r)
			if tt.body != "" && tt.body != none {
				wantRefused(t, c, err, 401, tt.body)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (c == nil) != (tt.body == none) {
				t.Errorf("claims %+v", c)
			}
			query := ""
			if r.HasQuery {
				query = "?" + string(r.Query)
			}
			if query != tt.query {
				t.Errorf("query %q, want %q", query, tt.query)
			}
			if got := headers(r); !slices.Equal(got, tt.sent) {
				t.Errorf("sent on %q, want %q", got, tt.sent)
			}
			if string(r.Target) != tt.target {
				t.Errorf("target %q, want %q", r.Target, tt.target)
			}
		})
	}
}

// TestStrip_SameName: names are tokens, in any case; bytes beyond letters have
// none.
func TestStrip_SameName(t *testing.T) {
	for _, tt := range []struct {
		name, lower    string
		same, variable bool
	}{
		{"X-A", "x-a", true, true},
		{"x_a", "x-a", false, true},
		{"X-A", "x_a", false, true},
		{"x-ab", "x-a", false, false},
		{"x-b", "x-a", false, false},
		{"x\x0da", "x-a", false, false}, // "-" without bit 0x20
		{"[", "{", false, false},
		{"\u212a", "k  ", false, false}, // KELVIN SIGN folds to "k" in Unicode
	} {
		if got := sameName([]byte(tt.name), []byte(tt.lower)); got != tt.same {
			t.Errorf("sameName(%q, %q) = %v", tt.name, tt.lower, got)
		}
		if got := sameVariable([]byte(tt.name), []byte(tt.lower)); got != tt.variable {
			t.Errorf("sameVariable(%q, %q) = %v", tt.name, tt.lower, got)
		}
	}
}

// FuzzParams: a parameter that is found is taken off, and nothing else.
func FuzzParams(f *testing.F) {
	for _, seed := range []string{"t=x", "a&t=x&b", "&t=&", "t", "%74=1", "a=b", "t=1&t=2", "%7", "a=t=b&t=c"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		r := tokenRequest(t, "GET /")
		r.Query, r.HasQuery = bytes.Clone(query), true
		var found foundToken
		n := findParams(r.Query, []string{"t"}, &found, 0)
		segments := bytes.Split(query, []byte("&"))
		kept := slices.DeleteFunc(slices.Clone(segments), func(s []byte) bool {
			name, _, _ := bytes.Cut(s, []byte("="))
			return isParam(name, "t")
		})
		if n != len(segments)-len(kept) {
			t.Fatalf("%q: found %d", query, n)
		}
		if n != 1 {
			return
		}
		found.remove(r)
		if want := bytes.Join(kept, []byte("&")); !bytes.Equal(r.Query, want) {
			t.Errorf("%q: left %q, want %q", query, r.Query, want)
		}
	})
}
