package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// tokenIssuer is an OpenID provider with one key.
type tokenIssuer struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	down atomic.Bool
}

func newTokenIssuer(t testing.TB) *tokenIssuer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &tokenIssuer{key: k}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case i.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/.well-known/openid-configuration":
			json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
		default:
			point := k.PublicKey
			number := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
			raw, _ := point.Bytes()
			json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "x": number(raw[1:33]), "y": number(raw[33:])}}})
		}
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *tokenIssuer) token(claims map[string]any) string {
	for name, v := range map[string]any{"iss": i.URL, "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()} {
		if _, ok := claims[name]; !ok {
			claims[name] = v
		}
	}
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]string{"alg": "ES256", "kid": "1"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		panic(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func tokensOf(i *tokenIssuer, app string) string {
	return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: prod}
spec:
  selector: {matchLabels: {app: %s}}
  jwtRules:
  - {issuer: %q, outputClaimToHeaders: [{header: x-user, claim: sub}]}
---
`, app, i.URL)
}

// tokensAtEdge is the same for a gateway.
func tokensAtEdge(i *tokenIssuer) string {
	return strings.NewReplacer("namespace: prod", "namespace: istio-system", "app: web", "istio: ingressgateway").Replace(tokensOf(i, "web"))
}

// withToken is get by somebody who has a token.
func withToken(host, token string) string {
	return "GET / HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + token + "\r\n\r\n"
}
