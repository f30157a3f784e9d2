package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	stdtls "crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"isthmus/admin"
	"isthmus/deploy"
	"isthmus/mesh"
	"isthmus/tls"
)

// openID is an OpenID provider of a test, with one key.
type openID struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newOpenID(t *testing.T) *openID {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	o := &openID{key: k}
	number := base64.RawURLEncoding.EncodeToString
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/openid-configuration" {
			json.NewEncoder(w).Encode(map[string]string{"issuer": o.URL, "jwks_uri": o.URL + "/keys"})
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "EC", "crv": "P-256", "kid": "k", "x": number(raw[1:33]), "y": number(raw[33:])}}})
	}))
	t.Cleanup(o.Close)
	return o
}

// token signs claims, besides an issuer and an end.
func (o *openID) token(t *testing.T, claims string) string {
	t.Helper()
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	text := part(`{"alg":"ES256","kid":"k"}`) + "." + part(fmt.Sprintf(`{"iss":%q,"sub":"alice","exp":%d,%s}`, o.URL, time.Now().Add(time.Hour).Unix(), claims))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, o.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// TestSecurity_Example: the example's 06 on two clusters takes mTLS alone, of its
// own authority alone; its 07 can only refuse, and with a RequestAuthentication
// for user-service lets in who has everything right.
func TestSecurity_Example(t *testing.T) {
	m := startMesh(t)
	const host = "user-service.production.svc.cluster.remote" // in us-west, seen from us-central
	callers, users := m.node(central, "callers"), m.node(west, "users")
	call := func(method, path, token string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", callers.outbound, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body), res.Header
	}
	if status, body, _ := call("GET", "/", ""); status != 200 || body != "user-service in us-west\n" {
		t.Fatalf("by mTLS to the other cluster: %d %q", status, body)
	}

	// 06: plain text and foreign certificates.
	at := fmt.Sprintf("127.0.0.1:%d", users.inbound)
	if _, err := http.Get("http://" + at + "/"); err == nil {
		t.Error("a sidecar has answered plain text")
	}
	foreign := filepath.Join(t.TempDir(), "foreign")
	a, err := tls.InitAuthority(foreign, mesh.LocalDomain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Issue(tls.Request{ID: "spiffe://cluster.local/ns/production/sa/callers", TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string]string{"foreign": filepath.Join(foreign, "tls"), "own": filepath.Join(m.dir, "certificates", central+"-callers")} {
		c, err := stdtls.LoadX509KeyPair(pair+".crt", pair+".key")
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &stdtls.Config{InsecureSkipVerify: true, Certificates: []stdtls.Certificate{c}}}}
		res, err := client.Get("https://" + at + "/")
		if (err == nil) != (name == "own") {
			t.Errorf("with a certificate that is %s: error %v", name, err)
		}
		if err == nil {
			res.Body.Close()
		}
	}

	// 07 as it is written: user-service reads no tokens.
	text, err := fs.ReadFile(deploy.Examples, "examples/multicluster/07-authentication-authorization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text []byte) {
		t.Helper()
		for _, cluster := range []string{central, west} {
			if err := os.WriteFile(filepath.Join(m.dir, cluster, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("07-authentication-authorization.yaml", text)
	provider := newOpenID(t)
	good := provider.token(t, `"groups":["users"]`)
	eventually(t, "07 holds", func() bool { status, _, _ := call("GET", "/api/x", good); return status == 403 })
	_, body, header := call("GET", "/api/x", good)
	if body != "RBAC: access denied" || !strings.Contains(header.Get("x-isthmus-refusal"), "cross-cluster-authz rules[0]") || !strings.HasSuffix(header.Get("x-isthmus-refusal"), "request.auth.claims[groups]") {
		t.Errorf("refused with %q, %q", body, header.Get("x-isthmus-refusal"))
	}

	// With somebody to read them.
	write("30-tokens.yaml", fmt.Appendf(nil, `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: production}
spec:
  selector: {matchLabels: {app: user-service}}
  jwtRules: [{issuer: %q}]
`, provider.URL))
	eventually(t, "tokens are read", func() bool { status, _, _ := call("GET", "/api/x", good); return status == 200 })
	for _, tt := range []struct {
		name, method, path, token string
		want                      int
	}{
		{"all of it", "GET", "/api/x", good, 200},
		{"another claim", "GET", "/api/x", provider.token(t, `"groups":["guests"]`), 403},
		{"no token", "GET", "/api/x", "", 403},
		{"another path", "GET", "/x", good, 403},
		{"another method", "DELETE", "/api/x", good, 403},
		{"a token of somebody else", "GET", "/api/x", newOpenID(t).token(t, `"groups":["users"]`), 401},
		{"a broken token", "GET", "/api/x", good + "x", 401},
	} {
		if status, body, _ := call(tt.method, tt.path, tt.token); status != tt.want {
			t.Errorf("%s: %d %q, want %d", tt.name, status, body, tt.want)
		}
	}

	// Its two sources are alternatives, so that the namespace alone is enough.
	own, err := tls.OpenAuthority(filepath.Join(m.dir, "certificates"))
	if err != nil {
		t.Fatal(err)
	}
	for account, want := range map[string]int{"production/user-service-sa": 200, "production/other": 200, "staging/user-service-sa": 403} {
		namespace, name, _ := strings.Cut(account, "/")
		if _, err := own.Issue(tls.Request{ID: "spiffe://cluster.local/ns/" + namespace + "/sa/" + name, TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		c, err := stdtls.LoadX509KeyPair(filepath.Join(m.dir, "certificates", "tls.crt"), filepath.Join(m.dir, "certificates", "tls.key"))
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &stdtls.Config{
			InsecureSkipVerify: true, Certificates: []stdtls.Certificate{c}, ServerName: mesh.DestinationSNI(80, "", "user-service.production.svc.cluster.local"),
		}}}
		req, err := http.NewRequest("GET", "https://"+at+"/api/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+good)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", account, res.StatusCode, want)
		}
	}
}

// TestSecurity_Rotation: leaf and root are renewed under load, and no request
// fails. ISTHMUS_ROTATIONS says how often; make rotate does it 50 times.
func TestSecurity_Rotation(t *testing.T) {
	rotations := 2
	if s := os.Getenv("ISTHMUS_ROTATIONS"); s != "" {
		var err error
		if rotations, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	m := startMesh(t)
	root, err := tls.OpenAuthority(filepath.Join(m.dir, "certificates"))
	if err != nil {
		t.Fatal(err)
	}
	rootFile := func(dir string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bundle := rootFile(filepath.Join(m.dir, "certificates"))
	ends := time.Now().Add(30 * time.Hour) // later than those of the beginning
	// renew issues everybody's certificate anew and waits until all have it.
	renew := func(from *tls.Authority, dir string, roots []byte) {
		t.Helper()
		ends = ends.Add(time.Minute)
		files := filepath.Join(m.dir, "certificates")
		replace := func(name string, data []byte) {
			t.Helper()
			temporary := filepath.Join(files, ".new")
			if err := os.WriteFile(temporary, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(temporary, filepath.Join(files, name)); err != nil {
				t.Fatal(err)
			}
		}
		replace("ca.crt", roots)
		for _, n := range m.nodes {
			if _, err := from.Issue(tls.Request{ID: "spiffe://cluster.local/ns/production/sa/" + n.name, TTL: time.Until(ends)}); err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"crt", "key"} {
				b, err := os.ReadFile(filepath.Join(dir, "tls."+kind))
				if err != nil {
					t.Fatal(err)
				}
				replace(n.cluster+"-"+n.name+"."+kind, b)
			}
		}
		for _, n := range m.nodes {
			eventually(t, n.cluster+" "+n.name+" has the new certificate", func() bool {
				_, text := page(fmt.Sprintf("http://127.0.0.1:%d/status?format=json", n.admin), "")
				var s admin.Status
				if json.Unmarshal([]byte(text), &s) != nil {
					return false
				}
				end, err := time.Parse(time.RFC3339, s.IdentityEnds)
				return err == nil && end.After(ends.Add(-30*time.Second))
			})
		}
	}
	// order-service's connections carry ten requests each, so that there are
	// handshakes all the time.
	load := newDemoClient(m.node(central, "callers").outbound).steady(8, 7*time.Millisecond, "order-service.production.global", "catalog-service.production.global")
	start, dir := time.Now(), filepath.Join(m.dir, "certificates")
	for i := range rotations {
		next := filepath.Join(m.dir, fmt.Sprintf("root-%d", i))
		successor, err := tls.InitAuthority(next, mesh.LocalDomain)
		if err != nil {
			t.Fatal(err)
		}
		both := bytes.Join([][]byte{bundle, rootFile(next)}, nil)
		renew(root, dir, both)       // everybody believes both, and shows what the old one vouches for
		renew(successor, next, both) // and now what the new one does
		root, dir, bundle = successor, next, rootFile(next)
	}
	load.stop()
	took := time.Since(start).Seconds()
	sent, failures, _ := load.now()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), sent, failures[0])
	}
	t.Logf("%d rotations of leaf and root in %.0f s, %d requests (%.0f a second), %d failed", rotations, took, sent, float64(sent)/took, len(failures))
}
