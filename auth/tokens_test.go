package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
)

const testIssuer = "https://issuer.test"

// b64 is what tokens are written in.
func b64[T ~string | ~[]byte](data T) string {
	return base64.RawURLEncoding.EncodeToString([]byte(data))
}

// tokenKey signs with the standard library alone, so that the tests do not
// believe what the package believes.
type tokenKey struct {
	kid, alg string
	private  crypto.Signer
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Keys are made once: RSA ones take long.
var (
	rsaKeyA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsaKeyB = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKeyA  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ecKeyB  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	edKeyA  = sync.OnceValue(func() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, 32)) })
)

// key is what most tests sign with, since it is the fastest.
func key() tokenKey { return tokenKey{"a", "ES256", ecKeyA()} }

func hashOf(alg string) crypto.Hash {
	return map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[max(0, len(alg)-3):]]
}

// sign makes a token of a header and a payload in JSON.
func (k tokenKey) sign(header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	return signed + "." + b64(k.signature(signed))
}

func (k tokenKey) signature(signed string) []byte {
	if private, ok := k.private.(ed25519.PrivateKey); ok {
		return ed25519.Sign(private, []byte(signed))
	}
	hash := hashOf(k.alg)
	h := hash.New()
	h.Write([]byte(signed))
	digest := h.Sum(nil)
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		if k.alg[0] == 'P' {
			return must(rsa.SignPSS(rand.Reader, private, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(rand.Reader, private, hash, digest))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, digest)
		n := (private.Params().BitSize + 7) / 8
		return append(must(r.FillBytes(make([]byte, n)), err), s.FillBytes(make([]byte, n))...)
	}
	panic("no such key")
}

// token signs claims with an ordinary header.
func (k tokenKey) token(payload string) string {
	kid := ""
	if k.kid != "" {
		kid = fmt.Sprintf(`"kid":%q,`, k.kid)
	}
	return k.sign(fmt.Sprintf(`{%s"alg":%q,"typ":"JWT"}`, kid, k.alg), payload)
}

// jwk is the public key; extra members are `,"use":"sig"` and the like.
func (k tokenKey) jwk(extra string) string {
	if k.kid != "" {
		extra += fmt.Sprintf(`,"kid":%q`, k.kid)
	}
	switch public := k.private.Public().(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q%s}`, b64(public.N.Bytes()), b64(big.NewInt(int64(public.E)).Bytes()), extra)
	case *ecdsa.PublicKey:
		point := must(public.Bytes())[1:]
		return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q%s}`, public.Params().Name, b64(point[:len(point)/2]), b64(point[len(point)/2:]), extra)
	case ed25519.PublicKey:
		return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q%s}`, b64(public), extra)
	}
	panic("no such key")
}

func jwks(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func keySetOf(keys ...tokenKey) string {
	var list []string
	for _, k := range keys {
		list = append(list, k.jwk(""))
	}
	return jwks(list...)
}

// claimsOf are valid claims, with others appended.
func claimsOf(more string) string {
	if more != "" {
		more = "," + more
	}
	return fmt.Sprintf(`{"iss":%q,"sub":"me","exp":%d%s}`, testIssuer, time.Now().Add(time.Hour).Unix(), more)
}

// tokenRuleOf is a rule with keys of its own.
func tokenRuleOf(keys ...tokenKey) *mesh.TokenRule {
	return &mesh.TokenRule{Issuer: testIssuer, Keys: []byte(keySetOf(keys...))}
}

func newTestTokens(t testing.TB, rules ...*mesh.TokenRule) *Tokens {
	t.Helper()
	k := NewKeys(KeysOptions{})
	t.Cleanup(k.Close)
	return NewTokens(rules, k)
}

// tokenRequest parses a request; lines are "Name: value".
func tokenRequest(t testing.TB, line string, lines ...string) *http1.Request {
	t.Helper()
	var r http1.Request
	head := line + " HTTP/1.1\r\nHost: app.test\r\n" + strings.Join(append(lines, ""), "\r\n") + "\r\n"
	n, err := r.Parse([]byte(head), http1.Limits{HeadBytes: 1 << 20})
	if err != nil || n != len(head) {
		t.Fatalf("%q: %d bytes, %v", head, n, err)
	}
	return &r
}

func bearerRequest(t testing.TB, token string, lines ...string) *http1.Request {
	return tokenRequest(t, "GET /", append(lines, "Authorization: Bearer "+token)...)
}

// headers returns the fields beside Host as lines.
func headers(r *http1.Request) (out []string) {
	for _, f := range r.Fields {
		if f.ID != http1.Host {
			out = append(out, string(f.Name)+": "+string(f.Value))
		}
	}
	return out
}

// wantRefused checks that a request is refused as it should be.
func wantRefused(t *testing.T, claims *Claims, err *TokenError, status int, body string) {
	t.Helper()
	if claims != nil {
		t.Errorf("claims %+v", claims)
	}
	if err == nil {
		t.Fatalf("passed, want %d %s", status, body)
	}
	if err.Status != status || err.Body != body {
		t.Errorf("%d %v, want %d %s", err.Status, err, status, body)
	}
	if want := status == http.StatusUnauthorized; (err.Challenge == `Bearer realm="isthmus", error="invalid_token"`) != want {
		t.Errorf("challenge %q with %d", err.Challenge, status)
	}
}

func TestCheck_Passes(t *testing.T) {
	tokens := newTestTokens(t, tokenRuleOf(key()))
	r := bearerRequest(t, key().token(claimsOf(`"aud":["x","y"],"azp":"app"`)), "X-Other: 1")
	c, err := tokens.Check(r)
	if err != nil {
		t.Fatal(err)
	}
	if c.Issuer != testIssuer || c.Subject != "me" || c.Principal != testIssuer+"/me" || c.Presenter != "app" || !slices.Equal(c.Audiences, []string{"x", "y"}) {
		t.Errorf("claims %+v", c)
	}
	if got := headers(r); !slices.Equal(got, []string{"X-Other: 1"}) {
		t.Errorf("sent on: %q", got)
	}
}

func TestCheck_NoRules(t *testing.T) {
	k := NewKeys(KeysOptions{})
	defer k.Close()
	tokens := NewTokens(nil, k)
	if tokens != nil {
		t.Error("there is a judge without rules")
	}
	r := bearerRequest(t, "x")
	if c, err := tokens.Check(r); c != nil || err != nil || len(headers(r)) != 1 {
		t.Error(c, err, headers(r))
	}
}

func TestClaims_Principal(t *testing.T) {
	tokens := newTestTokens(t, tokenRuleOf(key()))
	c, err := tokens.Check(bearerRequest(t, key().token(fmt.Sprintf(`{"iss":%q}`, testIssuer))))
	if err != nil || c.Principal != "" || c.Presenter != "" || c.Audiences != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestCheck_Rules: one rule that is satisfied is enough, and no other's keys,
// audiences or places count for it.
func TestCheck_Rules(t *testing.T) {
	a, b := key(), tokenKey{"b", "ES256", ecKeyB()}
	claims := func(iss, aud string) string { return fmt.Sprintf(`{"iss":%q,"sub":"s","aud":%q}`, iss, aud) }
	rules := []*mesh.TokenRule{
		{Issuer: "one", Keys: []byte(keySetOf(a))},
		{Issuer: "two", Keys: []byte(keySetOf(b)), Audiences: []string{"x"}},
		{Issuer: "two", Keys: []byte(keySetOf(a)), Audiences: []string{"y"}},
		{Issuer: "three", Keys: []byte(keySetOf(a)), Headers: []mesh.TokenHeader{{Name: "X-Token"}}},
		{Issuer: "five", Keys: []byte(keySetOf(a)), Headers: []mesh.TokenHeader{{Name: "X-Other"}}, Forward: true},
		{Issuer: "six", Keys: []byte(keySetOf(a)), Headers: []mesh.TokenHeader{{Name: "X-Other"}}},
		{Issuer: "seven", Keys: []byte(jwks(a.jwk(`,"alg":"ES256"`)))},
		{Issuer: "eight", Keys: []byte(jwks(tokenKey{"r", "RS256", rsaKeyA()}.jwk(`,"alg":"RS512"`)))},
		{Issuer: "", Keys: []byte(keySetOf(a))}, // which the configuration refuses
		{Issuer: "broken", Keys: []byte(`{"keys":`)},
		{Issuer: "secret", Keys: []byte(jwks(`{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}`))},
	}
	tests := []struct {
		name   string
		lines  []string
		issuer string // "": refused
		status int
		body   string
	}{
		{"the first", []string{"Authorization: Bearer " + a.token(claims("one", "z"))}, "one", 0, ""},
		{"the second", []string{"Authorization: Bearer " + b.token(claims("two", "x"))}, "two", 0, ""},
		{"another of the same issuer", []string{"Authorization: Bearer " + a.token(claims("two", "y"))}, "two", 0, ""},
		{"the other's audience", []string{"Authorization: Bearer " + a.token(claims("two", "x"))}, "", 401, textNoKey},
		{"nobody's audience", []string{"Authorization: Bearer " + a.token(claims("two", "z"))}, "", 403, textAudience},
		{"no audience", []string{"Authorization: Bearer " + a.token(`{"iss":"two"}`)}, "", 403, textAudience},
		{"the other's key", []string{"Authorization: Bearer " + b.token(claims("one", "z"))}, "", 401, textNoKey},
		{"an issuer without a rule", []string{"Authorization: Bearer " + a.token(claims("four", "x"))}, "", 401, textIssuer},
		{"no issuer", []string{"Authorization: Bearer " + a.token(`{"sub":"s"}`)}, "", 401, textIssuer},
		{"an empty issuer", []string{"Authorization: Bearer " + a.token(claims("", "x"))}, "", 401, textIssuer},
		{"its own place", []string{"X-Token: " + a.token(claims("three", "x"))}, "three", 0, ""},
		{"its own place, which is like the one before", []string{"X-Other: " + a.token(claims("five", "x"))}, "five", 0, ""},
		{"the place of one like it", []string{"X-Token: " + a.token(claims("five", "x"))}, "", 401, textIssuer},
		{"another of the same place", []string{"X-Other: " + a.token(claims("six", "x"))}, "six", 0, ""},
		{"a key that names its algorithm", []string{"Authorization: Bearer " + a.token(claims("seven", "x"))}, "seven", 0, ""},
		{"another algorithm than that of the key", []string{"Authorization: Bearer " + tokenKey{"r", "RS256", rsaKeyA()}.token(claims("eight", "x"))}, "", 401, textNoKey},
		{"another rule's place", []string{"Authorization: Bearer " + a.token(claims("three", "x"))}, "", 401, textIssuer},
		{"one good, one bad", []string{"Authorization: Bearer " + a.token(claims("one", "x")) + "x", "X-Token: " + a.token(claims("three", "x"))}, "three", 0, ""},
		{"one bad, one missing", []string{"Authorization: Bearer x"}, "", 401, textFormat},
		{"two bad: who knows the issuer says why", []string{"X-Token: " + a.token(`{"iss":"three","exp":1}`), "Authorization: Bearer " + a.token(claims("three", ""))}, "", 401, textExpired},
		{"broken keys", []string{"Authorization: Bearer " + a.token(claims("broken", "x"))}, "", 503, textFetch},
		{"keys that are secrets", []string{"Authorization: Bearer " + a.token(claims("secret", "x"))}, "", 503, textFetch},
	}
	tokens := newTestTokens(t, rules...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second time from the cache
				r := tokenRequest(t, "GET /", tt.lines...)
				c, err := tokens.Check(r)
				if tt.issuer == "" {
					wantRefused(t, c, err, tt.status, tt.body)
					continue
				}
				if err != nil || c.Issuer != tt.issuer {
					t.Fatalf("%+v, %v", c, err)
				}
				// What was good goes, unless its own rule forwards it.
				if sent := len(headers(r)); sent != len(tt.lines)-1 && tt.issuer != "five" || sent != len(tt.lines) && tt.issuer == "five" {
					t.Errorf("sent on %q", headers(r))
				}
			}
		})
	}
}

// TestCheck_PlaceOfCache: a token that is known from one place does not pass in
// a place where its rule does not look.
func TestCheck_PlaceOfCache(t *testing.T) {
	tokens := newTestTokens(t,
		&mesh.TokenRule{Issuer: testIssuer, Keys: []byte(keySetOf(key())), Headers: []mesh.TokenHeader{{Name: "x-token"}}},
		&mesh.TokenRule{Issuer: "other", Keys: []byte(keySetOf(key()))})
	token := key().token(claimsOf(""))
	if _, err := tokens.Check(tokenRequest(t, "GET /", "x-token: "+token)); err != nil {
		t.Fatal(err)
	}
	c, err := tokens.Check(bearerRequest(t, token))
	wantRefused(t, c, err, 401, textIssuer)
}

// TestCheck_Times: the skew's edges, with and without the cache.
func TestCheck_Times(t *testing.T) {
	tests := []struct {
		name   string
		claims string // %d is the offset added to now
		offset time.Duration
		body   string // "": passes
	}{
		{"exp 59 s ago", `"exp":%d`, -59 * time.Second, ""},
		{"exp 60 s ago", `"exp":%d`, -60 * time.Second, textExpired},
		{"exp 61 s ago", `"exp":%d`, -61 * time.Second, textExpired},
		{"exp 59.5 s ago", `"exp":%d.5`, -60 * time.Second, ""},
		{"nbf in 59 s", `"nbf":%d`, 59 * time.Second, ""},
		{"nbf in 60 s", `"nbf":%d`, 60 * time.Second, ""},
		{"nbf in 60.5 s", `"nbf":%d.5`, 60 * time.Second, textNotYet},
		{"nbf in 61 s", `"nbf":%d`, 61 * time.Second, textNotYet},
		{"iat in an hour", `"iat":%d`, time.Hour, ""},
		{"neither", `"n":%d`, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tokens := newTestTokens(t, tokenRuleOf(key()))
				token := key().token(fmt.Sprintf(`{"iss":%q,`+tt.claims+`}`, testIssuer, time.Now().Add(tt.offset).Unix()))
				for range 2 {
					c, err := tokens.Check(bearerRequest(t, token))
					if tt.body != "" {
						wantRefused(t, c, err, 401, tt.body)
					} else if err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// TestCheck_Expires: a cached token does not outlive itself, and one that is too
// early becomes valid.
func TestCheck_Expires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTestTokens(t, tokenRuleOf(key()))
		now := time.Now().Unix()
		token := key().token(fmt.Sprintf(`{"iss":%q,"nbf":%d,"exp":%d}`, testIssuer, now+100, now+200))
		for _, step := range []struct {
			at   time.Duration // since the start
			body string
		}{{0, textNotYet}, {39 * time.Second, textNotYet}, {40 * time.Second, ""}, {259 * time.Second, ""}, {260 * time.Second, textExpired}} {
			time.Sleep(time.Until(time.Unix(now, 0).Add(step.at)))
			c, err := tokens.Check(bearerRequest(t, token))
			if step.body != "" {
				wantRefused(t, c, err, 401, step.body)
			} else if err != nil {
				t.Fatalf("at %v: %v", step.at, err)
			}
		}
	})
}

func TestClaims_Values(t *testing.T) {
	rule := tokenRuleOf(key())
	rule.Spaced = []string{"roles"}
	tokens := newTestTokens(t, rule)
	deep := strings.Repeat(`{"d":`, 8) + `"x"` + strings.Repeat("}", 8)
	c, err := tokens.Check(bearerRequest(t, key().token(claimsOf(`"s":"a b","scope":" r  w","permission":"p","roles":"x y","list":["a",1,"b"],
		"n":1.50,"i":-7,"t":true,"f":false,"null":null,"o":{"p":{"q":["v"]},"scope":"a b"},"e":"","scp":["a b"],"d.e":"dot","deep":`+deep))))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path []string
		want []string
	}{
		{[]string{"s"}, []string{"a b"}},
		{[]string{"scope"}, []string{"r", "w"}},
		{[]string{"permission"}, []string{"p"}},
		{[]string{"roles"}, []string{"x", "y"}},
		{[]string{"scp"}, []string{"a b"}},
		{[]string{"list"}, []string{"a", "b"}},
		{[]string{"n"}, []string{"1.50"}},
		{[]string{"i"}, []string{"-7"}},
		{[]string{"t"}, []string{"true"}},
		{[]string{"f"}, []string{"false"}},
		{[]string{"e"}, []string{""}},
		{[]string{"null"}, nil},
		{[]string{"o"}, nil},
		{[]string{"o", "p"}, nil},
		{[]string{"o", "p", "q"}, []string{"v"}},
		{[]string{"o", "p", "q", "v"}, nil},
		{[]string{"o", "scope"}, []string{"a b"}},
		{[]string{"s", "x"}, nil},
		{[]string{"S"}, nil},
		{[]string{"d.e"}, []string{"dot"}},
		{[]string{"d", "e"}, nil},
		{nil, nil},
		{[]string{"deep", "d", "d", "d", "d", "d", "d", "d"}, nil},
		{[]string{"deep", "d", "d", "d", "d", "d", "d", "d", "d"}, nil}, // the text, but too deep
		{[]string{"iss"}, []string{testIssuer}},
	} {
		if got := c.Values(tt.path...); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.path, got, tt.want)
		}
	}
	if got := (*Claims)(nil).Values("iss"); got != nil {
		t.Errorf("without claims: %q", got)
	}
}

func TestCheck_Outputs(t *testing.T) {
	rule := tokenRuleOf(key())
	rule.PayloadHeader = "X-Payload"
	rule.ClaimHeaders = []mesh.ClaimHeader{
		{Header: "X-Sub", Claim: "sub"}, {Header: "x-bool", Claim: "b"}, {Header: "x-int", Claim: "i"}, {Header: "x-nested", Claim: "o.p"},
		{Header: "x-url", Claim: "https://a.test/role"}, {Header: "x-float", Claim: "f"}, {Header: "x-exponent", Claim: "e"}, {Header: "x-list", Claim: "l"},
		{Header: "x-object", Claim: "o"}, {Header: "x-none", Claim: "none"}, {Header: "x-null", Claim: "null"}, {Header: "x-lines", Claim: "lines"},
		{Header: "x-empty", Claim: "empty"}, {Header: "content-length", Claim: "i"}, {Header: "bad name", Claim: "i"},
	}
	tokens := newTestTokens(t, rule)
	spoofed := []string{
		"X-SUB: admin", "x-sub: root", "X_Sub: admin", "x-payload: x", "x-none: x", "x-object: x", "x-lines: x", "x-empty: x", "x-float: x",
		"Connection: x-sub, x-payload", "X-Kept: 1",
	}
	payload := claimsOf(`"b":true,"i":-12,"o":{"p":"q"},"https://a.test/role":"r","f":1.5,"e":1e3,"l":["a"],"null":null,"lines":"a\r\nx-admin: 1","empty":""`)
	for _, round := range []string{"fresh", "cached"} {
		t.Run(round, func(t *testing.T) {
			r := bearerRequest(t, key().token(payload), spoofed...)
			if _, err := tokens.Check(r); err != nil {
				t.Fatal(err)
			}
			want := []string{"Connection: x-sub, x-payload", "X-Kept: 1", "x-payload: " + b64(payload), "x-sub: me", "x-bool: true", "x-int: -12", "x-nested: q", "x-url: r"}
			if got := headers(r); !slices.Equal(got, want) {
				t.Errorf("sent on\n%q, want\n%q", got, want)
			}
			if r.Hop {
				t.Error("the names that Connection lists are still to be taken off")
			}
		})
	}
	t.Run("without a token", func(t *testing.T) {
		r := tokenRequest(t, "GET /", spoofed...)
		if c, err := tokens.Check(r); c != nil || err != nil {
			t.Fatal(c, err)
		}
		if got := headers(r); !slices.Equal(got, []string{"Connection: x-sub, x-payload", "X-Kept: 1"}) {
			t.Errorf("sent on: %q", got)
		}
	})
	t.Run("preflight", func(t *testing.T) {
		r := tokenRequest(t, "OPTIONS /", append(spoofed, "Origin: https://a", "Access-Control-Request-Method: GET", "Authorization: Bearer bad")...)
		if c, err := tokens.Check(r); c != nil || err != nil {
			t.Fatal(c, err)
		}
		if _, ok := r.Lookup([]byte("x-sub")); ok {
			t.Errorf("sent on: %q", headers(r))
		}
	})
}

func TestCheck_Preflight(t *testing.T) {
	tokens := newTestTokens(t, tokenRuleOf(key()))
	for _, tt := range []struct {
		name, line string
		lines      []string
		passes     bool
	}{
		{"preflight", "OPTIONS /", []string{"Origin: https://a", "Access-Control-Request-Method: GET"}, true},
		{"no origin", "OPTIONS /", []string{"Access-Control-Request-Method: GET"}, false},
		{"no method asked for", "OPTIONS /", []string{"Origin: https://a"}, false},
		{"empty method", "OPTIONS /", []string{"Origin: https://a", "Access-Control-Request-Method:"}, false},
		{"another method", "GET /", []string{"Origin: https://a", "Access-Control-Request-Method: GET"}, false},
		{"lower case", "options /", []string{"Origin: https://a", "Access-Control-Request-Method: GET"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tokens.Check(tokenRequest(t, tt.line, append(tt.lines, "Authorization: Bearer x")...))
			if tt.passes {
				if c != nil || err != nil {
					t.Error(c, err)
				}
				return
			}
			wantRefused(t, c, err, 401, textFormat)
		})
	}
}

// TestCheck_RulesChange: a new snapshot with other rules does not believe what
// the old one did.
func TestCheck_RulesChange(t *testing.T) {
	k := NewKeys(KeysOptions{})
	defer k.Close()
	token := key().token(claimsOf(`"aud":"x"`))
	check := func(r *mesh.TokenRule) *TokenError {
		_, err := NewTokens([]*mesh.TokenRule{r}, k).Check(bearerRequest(t, token))
		return err
	}
	rule := tokenRuleOf(key())
	if err := check(rule); err != nil {
		t.Fatal(err)
	}
	narrow := *rule
	narrow.Audiences = []string{"y"}
	if err := check(&narrow); err == nil || err.Status != 403 {
		t.Errorf("other audiences: %v", err)
	}
	other := *rule
	other.Keys = []byte(keySetOf(tokenKey{"a", "ES256", ecKeyB()}))
	if err := check(&other); err == nil || err.Body != textSignature {
		t.Errorf("other keys: %v", err)
	}
	if err := check(rule); err != nil {
		t.Errorf("the first again: %v", err)
	}
}

func TestTokenError(t *testing.T) {
	cause := errors.New("why")
	if e := refuseToken("text", cause); e.Error() != "text: why" || !errors.Is(e, cause) {
		t.Error(e)
	}
	if e := refuseToken("text", nil); e.Error() != "text" {
		t.Error(e)
	}
}

// TestCheck_Concurrent is for the race detector: requests, while key sets change
// and snapshots come and go.
func TestCheck_Concurrent(t *testing.T) {
	issuer := newFakeIssuer(keySetOf(key()))
	k := NewKeys(KeysOptions{Client: issuer.client(), Dir: t.TempDir()})
	defer k.Close()
	rule := &mesh.TokenRule{Issuer: testIssuer, KeysURI: "https://issuer.test/keys", PayloadHeader: "x-payload"}
	var list []string
	for i := range 20 {
		list = append(list, key().token(claimsOf(fmt.Sprintf(`"n":%d`, i))))
	}
	unknown := tokenKey{"unknown", "ES256", ecKeyB()}.token(claimsOf(""))
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			tokens := NewTokens([]*mesh.TokenRule{rule}, k)
			for i := range 200 {
				token, want := list[(i+worker)%len(list)], 0
				if i%10 == 0 {
					token, want = unknown, 401
				}
				r := bearerRequest(t, token)
				c, err := tokens.Check(r)
				if err != nil && err.Status != want || err == nil && (want != 0 || c.Values("n") == nil) {
					t.Errorf("%v, want %d", err, want)
				}
				if i%50 == 0 {
					tokens = NewTokens([]*mesh.TokenRule{rule}, k)
					k.Retain(tokens)
				}
				k.Status()
			}
		})
	}
	wg.Wait()
}

// TestPayload_IsJSON: what upstreams get can be read by them.
func TestPayload_IsJSON(t *testing.T) {
	rule := tokenRuleOf(key())
	rule.PayloadHeader = "x-payload"
	r := bearerRequest(t, key().token(claimsOf(`"ü":"ß"`)))
	if _, err := newTestTokens(t, rule).Check(r); err != nil {
		t.Fatal(err)
	}
	value, _ := r.Lookup([]byte("x-payload"))
	var got map[string]any
	if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(string(value))), &got); err != nil || got["ü"] != "ß" {
		t.Errorf("%s: %v", value, err)
	}
}

// TestTokens_Preview: nobody is asked for keys, and nothing is remembered of a
// token that nobody has verified.
func TestTokens_Preview(t *testing.T) {
	keys := NewKeys(KeysOptions{})
	keys.Close()
	rule := &mesh.TokenRule{Issuer: "https://issuer.test", KeysURI: "https://issuer.test/keys"}
	tokens := NewTokens([]*mesh.TokenRule{rule}, keys)
	token := "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0Iiwic3ViIjoiYWxpY2UifQ.AAAA" // {"alg":"RS256"} {"iss":"https://issuer.test","sub":"alice"}
	ask := func() *http1.Request {
		var r http1.Request
		head := "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer " + token + "\r\n\r\n"
		if n, err := r.Parse([]byte(head), http1.Limits{}); n == 0 || err != nil {
			t.Fatal(n, err)
		}
		return &r
	}
	claims, unverified, bad := tokens.Preview(ask())
	if bad != nil || !unverified || claims.Principal != "https://issuer.test/alice" {
		t.Errorf("claims %+v, unverified %v, refused %v", claims, unverified, bad)
	}
	if c, bad := tokens.Check(ask()); c != nil || bad == nil || bad.Status != 503 {
		t.Errorf("the token that nobody verified is taken: %+v, %v", c, bad)
	}
}
