package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestVerify_Algorithms(t *testing.T) {
	ec := func(c elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) }
	keys := []tokenKey{
		{"1", "RS256", rsaKeyA()}, {"1", "RS384", rsaKeyA()}, {"1", "RS512", rsaKeyA()},
		{"1", "PS256", rsaKeyA()}, {"1", "PS384", rsaKeyA()}, {"1", "PS512", rsaKeyA()},
		{"1", "ES256", ec(elliptic.P256())}, {"1", "ES384", ec(elliptic.P384())}, {"1", "ES512", ec(elliptic.P521())},
		{"1", "EdDSA", edKeyA()},
	}
	for _, k := range keys {
		t.Run(k.alg, func(t *testing.T) {
			tokens := newTestTokens(t, tokenRuleOf(k))
			token := k.token(claimsOf(""))
			if c, err := tokens.Check(bearerRequest(t, token)); err != nil || c.Subject != "me" {
				t.Fatal(c, err)
			}
			dot := strings.LastIndexByte(token, '.')
			signature := must(base64.RawURLEncoding.DecodeString(token[dot+1:]))
			for name, bad := range map[string][]byte{
				"a bit of it":     append([]byte{signature[0] ^ 1}, signature[1:]...),
				"shorter":         signature[1:],
				"longer":          append(bytes.Clone(signature), 0),
				"longer in front": append([]byte{0}, signature...),
				"zero":            make([]byte, len(signature)),
				"one byte":        {1},
			} {
				c, err := tokens.Check(bearerRequest(t, token[:dot+1]+b64(bad)))
				if err == nil {
					t.Errorf("signature with %s: passed", name)
					continue
				}
				wantRefused(t, c, err, 401, textSignature)
			}
		})
	}
}

// TestVerify_Attacks are those that tokens are forged with (Wycheproof's
// json_web_signature vectors, RFC 8725, and what libraries got wrong).
func TestVerify_Attacks(t *testing.T) {
	a, r := key(), tokenKey{"r", "RS256", rsaKeyA()}
	stranger := tokenKey{"a", "ES256", ecKeyB()}
	strangerRSA := tokenKey{"r", "RS256", rsaKeyB()}
	claims := claimsOf("")
	good := a.token(claims)
	parts := strings.Split(good, ".")
	header, payload, signature := parts[0], parts[1], parts[2]
	raw := must(base64.RawURLEncoding.DecodeString(signature))
	other := a.token(claimsOf(`"admin":true`))
	spki := must(x509.MarshalPKIXPublicKey(r.private.Public()))
	hs := func(header string, secret []byte) string {
		signed := b64(header) + "." + b64(claims)
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(signed))
		return signed + "." + b64(m.Sum(nil))
	}
	withHeader := func(h string) string { return a.sign(h, claims) }
	withPayload := func(p string) string { return a.token(p) }
	der := func() string {
		h := sha256.Sum256([]byte(header + "." + payload))
		return header + "." + payload + "." + b64(must(ecdsa.SignASN1(rand.Reader, ecKeyA(), h[:])))
	}
	n := elliptic.P256().Params().N
	rs := func(r, s *big.Int) string {
		return header + "." + payload + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	nonCanonical := func(part string) string { // the same bytes, other bits left over
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		for _, c := range alphabet {
			other := part[:len(part)-1] + string(c)
			if b, err := base64.RawURLEncoding.DecodeString(other); err == nil && other != part && b64(b) == part {
				return other
			}
		}
		t.Fatalf("%s has no other spelling", part)
		return ""
	}
	iss := func(more string) string { return fmt.Sprintf(`{"iss":%q%s}`, testIssuer, more) }

	tests := []struct {
		name, token, body string
	}{
		{"alg none", b64(`{"alg":"none"}`) + "." + payload + ".", textFormat},
		{"alg none with a signature", b64(`{"alg":"none"}`) + "." + payload + "." + signature, textAlgorithm},
		{"alg None", b64(`{"alg":"None"}`) + "." + payload + "." + signature, textAlgorithm},
		{"alg NONE", b64(`{"alg":"NONE"}`) + "." + payload + "." + signature, textAlgorithm},
		{"alg nOnE", b64(`{"alg":"nOnE"}`) + "." + payload + "." + signature, textAlgorithm},
		{"alg empty", withHeader(`{"alg":"","kid":"a"}`), textAlgorithm},
		{"alg missing", withHeader(`{"kid":"a"}`), textAlgorithm},
		{"alg null", withHeader(`{"alg":null,"kid":"a"}`), textAlgorithm},
		{"alg a list", withHeader(`{"alg":["ES256"],"kid":"a"}`), textAlgorithm},
		{"alg a number", withHeader(`{"alg":256,"kid":"a"}`), textAlgorithm},
		{"alg in lower case", withHeader(`{"alg":"es256","kid":"a"}`), textAlgorithm},
		{"alg with a space", withHeader(`{"alg":"ES256 ","kid":"a"}`), textAlgorithm},
		{"alg ES256K", withHeader(`{"alg":"ES256K","kid":"a"}`), textAlgorithm},
		{"alg of encryption", withHeader(`{"alg":"RSA-OAEP","kid":"a"}`), textAlgorithm},
		{"alg by another name", withHeader(`{"ALG":"ES256","kid":"a"}`), textAlgorithm},
		{"HS256 with the public key in PEM", hs(`{"alg":"HS256","kid":"r"}`, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), textAlgorithm},
		{"HS256 with the public key in DER", hs(`{"alg":"HS256","kid":"r"}`, spki), textAlgorithm},
		{"HS256 with the modulus", hs(`{"alg":"HS256","kid":"r"}`, rsaKeyA().N.Bytes()), textAlgorithm},
		{"HS256 with the set's secret", hs(`{"alg":"HS256","kid":"h"}`, []byte("secret")), textAlgorithm},
		{"RS256 with the set's secret", hs(`{"alg":"RS256","kid":"h"}`, []byte("secret")), textNoKey},

		{"embedded jwk", stranger.sign(fmt.Sprintf(`{"alg":"ES256","jwk":%s}`, stranger.jwk("")), claims), textSignature},
		{"embedded jwk with a kid", stranger.sign(fmt.Sprintf(`{"alg":"ES256","kid":"a","jwk":%s}`, stranger.jwk("")), claims), textSignature},
		{"jku", stranger.sign(`{"alg":"ES256","kid":"a","jku":"http://127.0.0.1:1/"}`, claims), textSignature},
		{"x5u", stranger.sign(`{"alg":"ES256","kid":"a","x5u":"http://127.0.0.1:1/"}`, claims), textSignature},
		{"x5c", strangerRSA.sign(fmt.Sprintf(`{"alg":"RS256","kid":"r","x5c":[%q]}`, base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(strangerRSA.private.Public())))), claims), textSignature},
		{"kid of a path", withHeader(`{"alg":"ES256","kid":"../../../../dev/null"}`), textNoKey},
		{"kid of SQL", withHeader(`{"alg":"ES256","kid":"a' OR '1'='1"}`), textNoKey},
		{"kid of a command", withHeader(`{"alg":"ES256","kid":"a|sleep 10"}`), textNoKey},
		{"kid with NUL", withHeader(`{"alg":"ES256","kid":"a\u0000"}`), textNoKey},
		{"kid a number", withHeader(`{"alg":"ES256","kid":1}`), textHeader},
		{"kid a list", withHeader(`{"alg":"ES256","kid":["a"]}`), textHeader},
		{"kid null", withHeader(`{"alg":"ES256","kid":null}`), textHeader},
		{"kid of another's key", withHeader(`{"alg":"ES256","kid":"r"}`), textNoKey},
		{"wrong key type", a.sign(`{"alg":"RS256","kid":"a"}`, claims), textNoKey},
		{"RSA key for another alg", tokenKey{"only", "RS384", rsaKeyA()}.token(claims), textNoKey},
		{"key for encryption", tokenKey{"enc", "ES256", ecKeyA()}.token(claims), textNoKey},
		{"key without verify", tokenKey{"ops", "ES256", ecKeyA()}.token(claims), textNoKey},
		{"PS256 as RS256", tokenKey{"r", "PS256", rsaKeyA()}.sign(`{"alg":"RS256","kid":"r"}`, claims), textSignature},
		{"RS256 as PS256", r.sign(`{"alg":"PS256","kid":"r"}`, claims), textSignature},
		{"RS256 as RS512", r.sign(`{"alg":"RS512","kid":"r"}`, claims), textSignature},
		{"ES256 as ES384", withHeader(`{"alg":"ES384","kid":"a"}`), textNoKey},
		{"crit", withHeader(`{"alg":"ES256","kid":"a","crit":["exp"],"exp":1}`), textHeader},
		{"crit empty", withHeader(`{"alg":"ES256","kid":"a","crit":[]}`), textHeader},
		{"crit null", withHeader(`{"alg":"ES256","kid":"a","crit":null}`), textHeader},
		{"b64 false", withHeader(`{"alg":"ES256","kid":"a","b64":false}`), textHeader},
		{"b64 a string", withHeader(`{"alg":"ES256","kid":"a","b64":"true"}`), textHeader},
		{"b64 false, payload as it is", func() string {
			s := b64(`{"alg":"ES256","kid":"a","b64":false,"crit":["b64"]}`) + "." + claims
			return s + "." + b64(a.signature(s))
		}(), textFormat},

		{"signature stripped", header + "." + payload + ".", textFormat},
		{"signature and its dot stripped", header + "." + payload, textFormat},
		{"signature of another token", header + "." + payload + "." + other[strings.LastIndexByte(other, '.')+1:], textSignature},
		{"payload of another token", header + "." + strings.Split(other, ".")[1] + "." + signature, textSignature},
		{"a stranger's key of the same kid", stranger.token(claims), textSignature},
		{"a stranger's key without a kid", tokenKey{"", "ES256", ecKeyB()}.token(claims), textSignature},
		{"ECDSA r and s zero", rs(new(big.Int), new(big.Int)), textSignature},
		{"ECDSA r zero", rs(new(big.Int), big.NewInt(1)), textSignature},
		{"ECDSA s zero", rs(big.NewInt(1), new(big.Int)), textSignature},
		{"ECDSA r and s the order", rs(n, n), textSignature},
		{"ECDSA s too large", rs(big.NewInt(1), n), textSignature},
		{"ECDSA r and s exchanged", header + "." + payload + "." + b64(append(bytes.Clone(raw[32:]), raw[:32]...)), textSignature},
		{"ECDSA in DER", der(), textSignature},
		{"signature truncated", header + "." + payload + "." + b64(raw[:63]), textSignature},
		{"signature truncated to r", header + "." + payload + "." + b64(raw[:32]), textSignature},
		{"payload truncated", header + "." + payload[:len(payload)-4] + "." + signature, textPayload},

		{"empty", "", textFormat}, // "Authorization: Bearer" loses its space: see below
		{"one part", "abc", textFormat},
		{"two dots", "..", textFormat},
		{"no header", "." + payload + "." + signature, textFormat},
		{"no payload", header + ".." + signature, textFormat},
		{"three dots", good + ".", textFormat},
		{"five parts", header + "." + payload + "." + signature + "." + signature + "." + signature, textFormat},
		{"many dots", strings.Repeat(".", maxToken), textFormat},
		{"padding", good + "=", textFormat},
		{"padding of the header", header + "==." + payload + "." + signature, textFormat},
		{"space in front of a part", header + ". " + payload + "." + signature, textFormat},
		{"tab at the end of a part", header + "\t." + payload + "." + signature, textFormat},
		{"standard alphabet", header + "." + payload + "." + strings.Repeat("+/", 43), textFormat},
		{"percent", header + "." + payload + ".%41" + signature[1:], textFormat},
		{"beyond ASCII", header + "." + payload + "." + "é" + signature, textFormat},
		{"other bits left over", header + "." + payload + "." + nonCanonical(signature), textFormat},
		{"one character too many", header + "." + payload + "." + signature[:len(signature)-1], textFormat},
		{"JSON serialisation", `{"payload":"` + payload + `","protected":"` + header + `","signature":"` + signature + `"}`, textFormat},

		{"header no JSON", withHeader(`{"alg":"ES256","kid":"a"`), textHeader},
		{"header a list", withHeader(`["alg","ES256"]`), textHeader},
		{"header null", withHeader(`null`), textHeader},
		{"header with bytes behind it", withHeader(`{"alg":"ES256","kid":"a"}x`), textHeader},
		{"two headers", withHeader(`{"alg":"ES256","kid":"a"}{"alg":"none"}`), textHeader},
		{"header not UTF-8", withHeader("{\"alg\":\"ES256\",\"kid\":\"a\",\"x\":\"\xff\"}"), textHeader},
		{"two algs", withHeader(`{"alg":"none","alg":"ES256","kid":"a"}`), textHeader},
		{"two algs, one escaped", withHeader(`{"\u0061lg":"none","alg":"ES256","kid":"a"}`), textHeader},
		{"two kids", withHeader(`{"alg":"ES256","kid":"x","kid":"a"}`), textHeader},
		{"payload no JSON", withPayload(`hello`), textPayload},
		{"payload a string", withPayload(`"hello"`), textPayload},
		{"payload a list", withPayload(`[` + claims + `]`), textPayload},
		{"payload with bytes behind it", withPayload(claims + `}`), textPayload},
		{"payload with NUL behind it", withPayload(claims + "\x00"), textPayload},
		{"two payloads", withPayload(claims + claims), textPayload},
		{"byte order mark", withPayload("\ufeff" + claims), textPayload},
		{"payload not UTF-8", withPayload(iss(",\"x\":\"\xc3\x28\"")), textPayload},
		{"two iss", withPayload(`{"iss":"x","iss":"` + testIssuer + `"}`), textPayload},
		{"two exp", withPayload(iss(`,"exp":1,"exp":99999999999`)), textPayload},
		{"two aud", withPayload(iss(`,"aud":"x","aud":"y"`)), textPayload},
		{"two members within", withPayload(iss(`,"o":[{"a":1,"a":2}]`)), textPayload},
		{"nested deep", withPayload(iss(`,"o":` + strings.Repeat("[", 33) + strings.Repeat("]", 33))), textPayload},
		{"nested very deep", withPayload(iss(`,"o":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000))), textPayload},

		{"iss with a slash", withPayload(`{"iss":"` + testIssuer + `/"}`), textIssuer},
		{"iss in another case", withPayload(`{"iss":"` + strings.ToUpper(testIssuer) + `"}`), textIssuer},
		{"iss by another name", withPayload(`{"Iss":"` + testIssuer + `"}`), textIssuer},
		{"iss with a space", withPayload(`{"iss":" ` + testIssuer + `"}`), textIssuer},
		{"iss empty", withPayload(`{"iss":""}`), textIssuer},
		{"iss missing", withPayload(`{}`), textIssuer},
		{"iss a list", withPayload(`{"iss":["` + testIssuer + `"]}`), textPayload},
		{"iss null", withPayload(`{"iss":null}`), textPayload},
		{"sub a number", withPayload(iss(`,"sub":1`)), textPayload},
		{"aud a number", withPayload(iss(`,"aud":1`)), textPayload},
		{"aud null", withPayload(iss(`,"aud":null`)), textPayload},
		{"aud an object", withPayload(iss(`,"aud":{"x":1}`)), textPayload},
		{"aud a list with a number", withPayload(iss(`,"aud":["x",1]`)), textPayload},
		{"exp a string", withPayload(iss(`,"exp":"99999999999"`)), textPayload},
		{"exp null", withPayload(iss(`,"exp":null`)), textPayload},
		{"exp true", withPayload(iss(`,"exp":true`)), textPayload},
		{"exp a list", withPayload(iss(`,"exp":[99999999999]`)), textPayload},
		{"exp negative", withPayload(iss(`,"exp":-1`)), textPayload},
		{"exp overflows", withPayload(iss(`,"exp":1e400`)), textPayload},
		{"exp zero", withPayload(iss(`,"exp":0`)), textExpired},
		{"exp minus zero", withPayload(iss(`,"exp":-0.0`)), textExpired},
		{"exp underflows", withPayload(iss(`,"exp":1e-400`)), textExpired},
		{"exp in hexadecimal", withPayload(iss(`,"exp":0x7fffffff`)), textPayload},
		{"exp NaN", withPayload(iss(`,"exp":NaN`)), textPayload},
		{"nbf a string", withPayload(iss(`,"nbf":"0"`)), textPayload},
		{"nbf negative", withPayload(iss(`,"nbf":-1`)), textPayload},
		{"nbf overflows", withPayload(iss(`,"nbf":1e400`)), textPayload},
		{"nbf far off", withPayload(iss(`,"nbf":1e300`)), textNotYet},
		{"iat a string", withPayload(iss(`,"iat":"0"`)), textPayload},
		{"iat overflows", withPayload(iss(`,"iat":1e400`)), textPayload},
		{"expired, whoever signed", stranger.token(iss(`,"exp":1`)), textExpired},
	}
	rule := tokenRuleOf(a)
	rule.Headers = nil
	rule.Keys = []byte(jwks(a.jwk(""), r.jwk(`,"use":"sig","key_ops":["verify"]`),
		tokenKey{"only", "RS256", rsaKeyA()}.jwk(`,"alg":"RS256"`),
		tokenKey{"enc", "ES256", ecKeyA()}.jwk(`,"use":"enc"`),
		tokenKey{"ops", "ES256", ecKeyA()}.jwk(`,"key_ops":["sign"]`),
		fmt.Sprintf(`{"kty":"oct","kid":"h","k":%q}`, b64("secret")),
		fmt.Sprintf(`{"kty":"oct","kid":"none","alg":"none","k":%q}`, b64("secret")),
	))
	tokens := newTestTokens(t, rule)
	group := tokens.groups[0]
	// Those that are good, so that the others are refused for their fault alone.
	for name, token := range map[string]string{
		"plain":                    good,
		"RSA":                      r.token(claims),
		"without a kid":            tokenKey{"", "ES256", ecKeyA()}.token(claims),
		"kid empty":                withHeader(`{"alg":"ES256","kid":""}`),
		"b64 true":                 withHeader(`{"alg":"ES256","kid":"a","b64":true}`),
		"no exp":                   withPayload(iss("")),
		"exp far off":              withPayload(iss(`,"exp":1e300`)),
		"exp with an exponent":     withPayload(iss(`,"exp":9.9e9`)),
		"nbf zero":                 withPayload(iss(`,"nbf":0`)),
		"white space in the JSON":  withPayload(" {\"iss\" :\n\"" + testIssuer + "\"}\t"),
		"an escaped iss":           withPayload(`{"iss":"` + strings.ReplaceAll(testIssuer, "/", `\/`) + `"}`),
		"an embedded jwk, unused":  a.sign(fmt.Sprintf(`{"alg":"ES256","kid":"a","jwk":%s}`, stranger.jwk("")), claims),
		"aud empty":                withPayload(iss(`,"aud":[]`)),
		"nested as deep as may be": withPayload(iss(`,"o":` + strings.Repeat("[", 31) + strings.Repeat("]", 31))),
	} {
		if _, err := group.check([]byte(token), time.Now().UnixNano()); err != nil {
			t.Errorf("%s: refused: %v", name, err)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := group.check([]byte(tt.token), time.Now().UnixNano())
			if v != nil {
				t.Error("it is believed")
			}
			wantRefused(t, nil, err, 401, tt.body)
		})
	}
	t.Run("a new line, which cannot come in a field", func(t *testing.T) {
		for _, s := range []string{"\n", "\r\n", "\r"} {
			for i := range len(good) {
				if _, err := parseToken([]byte(good[:i] + s + good[i:])); err == nil {
					t.Fatalf("%q at %d is read", s, i)
				}
			}
		}
	})
	t.Run("every byte counts", func(t *testing.T) {
		for i := range len(good) {
			for _, c := range []byte("Aa0-_.=x \x00\xff") {
				if c == good[i] {
					continue
				}
				if _, err := group.check([]byte(good[:i]+string(rune(c))+good[i+1:]), time.Now().UnixNano()); err == nil {
					t.Fatalf("%q at %d passes", c, i)
				}
			}
		}
	})
	t.Run("every length counts", func(t *testing.T) {
		for i := range len(good) {
			if _, err := group.check([]byte(good[:i]), time.Now().UnixNano()); err == nil {
				t.Fatalf("the first %d bytes pass", i)
			}
		}
	})
}

// TestVerify_Size: a token that is too long costs nothing but its reading.
func TestVerify_Size(t *testing.T) {
	tokens := newTestTokens(t, tokenRuleOf(key()))
	group := tokens.groups[0]
	now := time.Now().UnixNano()
	fits := key().token(claimsOf(fmt.Sprintf(`"x":%q`, strings.Repeat("x", maxToken*3/4-500))))
	if _, err := group.check([]byte(fits), now); err != nil || len(fits) < maxToken-1000 {
		t.Fatalf("%d bytes: %v", len(fits), err)
	}
	for name, token := range map[string][]byte{
		"signed":    []byte(key().token(claimsOf(fmt.Sprintf(`"x":%q`, strings.Repeat("x", maxToken))))),
		"10 MB":     bytes.Repeat([]byte("A"), 10<<20),
		"10 M dots": bytes.Repeat([]byte("."), 10<<20),
	} {
		var err *TokenError
		// The error and what it says; decoding any of it would be megabytes.
		if n := testing.AllocsPerRun(10, func() { _, err = group.check(token, now) }); n > 10 {
			t.Errorf("%s: %v allocations", name, n)
		}
		wantRefused(t, nil, err, 401, textFormat)
	}
	token := bytes.Repeat([]byte("A"), 10<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		group.check(token, now)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("ten times 10 MB cost %d bytes", n)
	}
}

func TestParseKeySet(t *testing.T) {
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	a := key()
	tests := []struct {
		name, set string
		keys      int
		err       string
	}{
		{"one", keySetOf(a), 1, ""},
		{"the same twice", keySetOf(a, a), 1, ""},
		{"a private one gives its public half", jwks(strings.TrimSuffix(a.jwk(""), "}") + `,"d":"` + b64(must(ecKeyA().Bytes())) + `"}`), 1, ""},
		{"of types unknown here", jwks(`{"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA"}`, a.jwk("")), 1, ""},
		{"a broken one beside", jwks(`{"kty":"RSA"}`, `7`, `null`, `{}`, a.jwk("")), 1, ""},
		{"RSA of 1024 bits", jwks(tokenKey{"r", "RS256", small}.jwk("")), 0, "bits"},
		{"RSA of 16384 bits", jwks(fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, b64(bytes.Repeat([]byte{0xff}, 2048)))), 0, "bits"},
		{"RSA of exponent 1", jwks(fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQ"}`, b64(rsaKeyA().N.Bytes()))), 0, "exponent"},
		{"secrets", jwks(`{"kty":"oct","k":"c2VjcmV0"}`), 0, "type is oct"},
		{"encryption", jwks(a.jwk(`,"use":"enc"`)), 0, "use"},
		{"operations", jwks(a.jwk(`,"key_ops":["encrypt"]`)), 0, "key_ops"},
		{"for a secret's algorithm", jwks(tokenKey{"r", "RS256", rsaKeyA()}.jwk(`,"alg":"HS256"`)), 0, "cannot be for"},
		{"for another key's algorithm", jwks(a.jwk(`,"alg":"ES384"`)), 0, "cannot be for"},
		{"a point not on the curve", jwks(fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q}`, b64(make([]byte, 32)), b64(bytes.Repeat([]byte{1}, 32)))), 0, ""},
		{"a curve for exchange", jwks(fmt.Sprintf(`{"kty":"OKP","crv":"X25519","x":%q}`, b64(make([]byte, 32)))), 0, ""},
		{"none", jwks(), 0, "empty"},
		{"too many", jwks(strings.Split(strings.Repeat(a.jwk("")+"\n", maxKeys+1), "\n")[:maxKeys+1]...), 0, "at most"},
		{"no list", `{}`, 0, "no list"},
		{"list of something else", `{"keys":{"a":1}}`, 0, "no list"},
		{"a key alone", a.jwk(""), 0, "no list"},
		{"PEM", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}})), 0, "no JSON object"},
		{"nothing", ``, 0, "no JSON object"},
		{"null", `null`, 0, "no list"},
		{"HTML", `<html>`, 0, "no JSON object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parseKeySet([]byte(tt.set))
			if tt.keys > 0 {
				if err != nil || len(s.keys) != tt.keys {
					t.Fatalf("%v, %v", s, err)
				}
				for _, k := range s.keys {
					if public := k.key.(*ecdsa.PublicKey); !public.Equal(ecKeyA().Public()) {
						t.Errorf("another key: %T", public)
					}
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}

// FuzzToken: whatever is sent, nothing panics, and nothing passes that is not
// signed with a key of the set, as the standard library sees it.
func FuzzToken(f *testing.F) {
	rsaKey, ecKey := rsaKeyA(), ecKeyA()
	r, e := tokenKey{"r", "RS256", rsaKey}, tokenKey{"e", "ES256", ecKey}
	tokens := newTestTokens(f, tokenRuleOf(r, e))
	f.Add(r.token(claimsOf("")))
	f.Add(e.token(claimsOf(`"aud":["a"],"scope":"a b"`)))
	f.Add(tokenKey{"", "PS256", rsaKey}.token(claimsOf("")))
	f.Add(b64(`{"alg":"none"}`) + "." + b64(claimsOf("")) + ".")
	f.Add("a.b.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		v, refused := tokens.groups[0].check([]byte(token), time.Now().UnixNano())
		if refused != nil {
			if refused.Status != 401 || refused.Body == "" || v != nil {
				t.Errorf("%+v", refused)
			}
			return
		}
		parts := strings.Split(token, ".")
		if len(parts) != 3 || len(token) > maxToken {
			t.Fatalf("passed: %q", token)
		}
		var h struct{ Alg string }
		if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(parts[0])), &h); err != nil {
			t.Fatal(err)
		}
		hash := hashOf(h.Alg)
		d := hash.New()
		d.Write([]byte(parts[0] + "." + parts[1]))
		digest, signature, ok := d.Sum(nil), must(base64.RawURLEncoding.DecodeString(parts[2])), false
		switch h.Alg[:2] {
		case "RS":
			ok = rsa.VerifyPKCS1v15(&rsaKey.PublicKey, hash, digest, signature) == nil
		case "PS":
			ok = rsa.VerifyPSS(&rsaKey.PublicKey, hash, digest, signature, nil) == nil
		case "ES":
			ok = len(signature) == 64 && hash == crypto.SHA256 &&
				ecdsa.Verify(&ecKey.PublicKey, digest, new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
		}
		if !ok {
			t.Errorf("passed without a signature: %q", token)
		}
	})
}

// FuzzParse: a token that can be read says in every claim what encoding/json
// reads there, and has one spelling.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"alg":"ES256","kid":"a"}`), []byte(`{"iss":"a","exp":1.5,"aud":["a","b"],"o":{"p":[1,true,null]}}`))
	f.Add([]byte(`{"alg":"RS256","crit":[]}`), []byte(`{}`))
	f.Add([]byte(`{"alg":"PS512"} `), []byte(`{"iss":"\ud800","iss":1}`))
	f.Add([]byte(`{"alg":"EdDSA","b64":true}`), []byte(`{"exp":1e400}`))
	f.Add([]byte(`{"alg":"ES384"}`), []byte(`{"":1e700}`))
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		token := b64(header) + "." + b64(payload) + "." + b64("signature")
		j, refused := parseToken([]byte(token))
		if refused != nil {
			if j != nil || refused.Status != 401 {
				t.Errorf("%+v", refused)
			}
			return
		}
		if !bytes.Equal(j.payload, payload) || string(j.signature) != "signature" {
			t.Errorf("payload %q, signature %q", j.payload, j.signature)
		}
		var members map[string]any
		d := json.NewDecoder(bytes.NewReader(header))
		d.UseNumber()
		if err := d.Decode(&members); err != nil {
			t.Fatal(err)
		}
		_, critical := members["crit"]
		if kid, _ := members["kid"].(string); members["alg"] != j.alg || kid != j.kid || critical {
			t.Errorf("header %q read as alg %q, kid %q", header, j.alg, j.kid)
		}
		var claims map[string]any
		d = json.NewDecoder(bytes.NewReader(payload))
		d.UseNumber() // a claim that is no time may be 1e400
		if err := d.Decode(&claims); err != nil || len(claims) != len(j.claims.members) {
			t.Fatalf("%q: %v", payload, err)
		}
		if iss, _ := claims["iss"].(string); iss != j.issuer {
			t.Errorf("issuer %q, want %q", j.issuer, iss)
		}
		if n, ok := claims["exp"].(json.Number); ok {
			exp, err := n.Float64()
			if err != nil || exp < 0 || j.expires != int64(min(exp, maxSeconds)*1e9) {
				t.Errorf("exp %s read as %d", n, j.expires)
			}
		}
	})
}
