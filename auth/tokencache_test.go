package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"isthmus/http1"
	"isthmus/mesh"
)

// cachedCheck returns a check of a token that is known.
func cachedCheck(t testing.TB, rule *mesh.TokenRule, token string) func() {
	t.Helper()
	tokens := newTestTokens(t, rule)
	r := bearerRequest(t, token, "Accept: */*", "User-Agent: test", "X-Request-Id: 1", "Accept-Encoding: gzip", "X-Forwarded-For: 192.0.2.1")
	fields := slices.Clone(r.Fields)
	r.Fields = make([]http1.Field, 0, 16)
	check := func() {
		r.Fields = append(r.Fields[:0], fields...)
		c, err := tokens.Check(r)
		if err != nil || c.Values("scope")[1] != "b" {
			t.Error("refused", err)
		}
	}
	check()
	return check
}

func cacheKeyOf(n int) cacheKey {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return cacheKey{token: sha256.Sum256(b[:])}
}

func (c *tokenCache) len() (n int) {
	for i := range c.shards {
		n += len(c.shards[i].young) + len(c.shards[i].old)
	}
	return n
}

func (c *tokenCache) bytes() (n int) {
	for i := range c.shards {
		for _, g := range []map[cacheKey]*verified{c.shards[i].young, c.shards[i].old} {
			for _, v := range g {
				n += v.size
			}
		}
	}
	return n
}

func TestTokenCache_Bounded(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
	}{{"many", 1}, {"large", 64 << 10}, {"too large", shardBytes + 1}} {
		t.Run(tt.name, func(t *testing.T) {
			c := &tokenCache{}
			for n := range 40_000 {
				c.put(cacheKeyOf(n), &verified{size: tt.size})
				if tt.size > shardBytes && c.get(cacheKeyOf(n)) != nil {
					t.Fatal("kept")
				}
			}
			if n, limit := c.len(), 2*cacheShards*shardTokens; n > limit || tt.size == 1 && n < limit/2 {
				t.Errorf("%d tokens, at most %d", n, limit)
			}
			if n, limit := c.bytes(), 2*cacheShards*shardBytes; n > limit {
				t.Errorf("%d bytes, at most %d", n, limit)
			}
		})
	}
}

// TestTokenCache_KeepsWhatIsUsed: a token that is asked for stays, whatever
// passes by.
func TestTokenCache_KeepsWhatIsUsed(t *testing.T) {
	c := &tokenCache{}
	used := &verified{size: 1}
	c.put(cacheKeyOf(-1), used)
	for n := range 40_000 {
		c.put(cacheKeyOf(n), &verified{size: 1})
		if c.get(cacheKeyOf(-1)) != used {
			t.Fatalf("gone after %d others", n)
		}
	}
	if c.get(cacheKeyOf(0)) != nil {
		t.Error("one that nobody asked for is still there")
	}
}

func TestTokenCache_Delete(t *testing.T) {
	c := &tokenCache{}
	for n := range 10 * cacheShards * shardTokens {
		c.put(cacheKeyOf(n), &verified{size: 3})
		if n%2 == 0 {
			if c.delete(cacheKeyOf(n)); c.get(cacheKeyOf(n)) != nil {
				t.Fatal("one that was deleted is still there")
			}
		}
		if n%7 == 0 { // the same again
			c.put(cacheKeyOf(n), &verified{size: 5})
		}
	}
	for i := range c.shards {
		for k := range maps.Clone(c.shards[i].old) {
			if c.delete(k); c.get(k) != nil {
				t.Fatal("an old one that was deleted is still there")
			}
		}
		want := 0
		for k, v := range c.shards[i].young {
			want += v.size
			if c.shards[i].old[k] != nil {
				t.Fatal("a token of both generations")
			}
		}
		if got := c.shards[i].bytes; got != want {
			t.Errorf("shard %d: %d bytes noted, %d there", i, got, want)
		}
	}
}

// TestVerified_Size: what an entry is taken to need is not less than what it
// needs, so that the bound of the cache holds.
func TestVerified_Size(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills the heap")
	}
	for _, tt := range []struct{ name, claims string }{
		{"small", ""},
		{"ordinary", benchClaims},
		{"many claims", manyClaims(300)},
		{"long list", `"l":["` + strings.Repeat(`a","`, 500) + `a"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const n = 200
			rule := tokenRuleOf(key())
			rule.PayloadHeader = "x-payload"
			tokens := newTestTokens(t, rule)
			token := []byte(key().token(claimsOf(tt.claims)))
			keep := make(map[cacheKey]*verified)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			size := 0
			for i := range n {
				j, err := parseToken(token)
				if err != nil {
					t.Fatal(err)
				}
				set := tokens.groups[0].rules[0].keys.current.Load()
				v := newVerified(j, tokens.groups[0].rules[0], set, set.keys[0])
				keep[cacheKeyOf(i)] = v
				size += v.size
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			needs := int(after.HeapAlloc-before.HeapAlloc) / n
			t.Logf("token of %d bytes: taken for %d bytes, needs %d", len(token), size/n, needs)
			if needs > size/n {
				t.Errorf("needs %d bytes, taken for %d", needs, size/n)
			}
			runtime.KeepAlive(keep)
		})
	}
}

func manyClaims(n int) string {
	var list []string
	for i := range n {
		list = append(list, `"c`+string(rune('a'+i%26))+string(rune('a'+i/26%26))+`":1`)
	}
	return strings.Join(list, ",")
}

// payload of an ordinary token: with ES256 it has about 600 bytes, with RS256 900.
const benchClaims = `"aud":["account","orders"],"azp":"web","scope":"a b","email":"somebody@example.test","email_verified":true,` +
	`"jti":"1c8b4d3e-6a36-4f0d-8d20-0d9f9a5c1d11","realm_access":{"roles":["offline_access","uma_authorization","user"]}`

func BenchmarkTokens_Cached(b *testing.B) {
	for _, k := range []tokenKey{key(), {"r", "RS256", rsaKeyA()}} {
		b.Run(k.alg, func(b *testing.B) {
			token := k.token(claimsOf(benchClaims))
			check := cachedCheck(b, tokenRuleOf(k), token)
			b.ReportMetric(float64(len(token)), "B/token")
			b.ReportAllocs()
			for b.Loop() {
				check()
			}
		})
	}
}

func BenchmarkTokens_Verify(b *testing.B) {
	for _, k := range []tokenKey{key(), {"r", "RS256", rsaKeyA()}, {"p", "PS256", rsaKeyA()}, {"e", "EdDSA", edKeyA()}} {
		b.Run(k.alg, func(b *testing.B) {
			token := []byte(k.token(claimsOf(benchClaims)))
			tokens := newTestTokens(b, tokenRuleOf(k))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tokens.groups[0].judge(token, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
