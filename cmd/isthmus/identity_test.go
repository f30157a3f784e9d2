package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
	"isthmus/tls"
)

// identityMesh is a folder with an authority, resources that all proxies read, and
// the proxies' bootstrap files.
type identityMesh struct {
	t   *testing.T
	dir string
	a   *tls.Authority
}

func newIdentityMesh(t *testing.T, yaml string) *identityMesh {
	t.Helper()
	m := &identityMesh{t: t, dir: t.TempDir()}
	a, err := tls.InitAuthority(m.dir, mesh.LocalDomain)
	if err != nil {
		t.Fatal(err)
	}
	m.a = a
	m.write("mesh.yaml", yaml)
	return m
}

func (m *identityMesh) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// issue makes NAME.crt and NAME.key for a service account.
func (m *identityMesh) issue(name, namespace, account string) {
	m.t.Helper()
	id, err := tls.SPIFFEID(mesh.LocalDomain, namespace, account)
	if err == nil {
		_, err = m.a.Issue(tls.Request{ID: id, TTL: time.Hour})
	}
	for _, kind := range []string{".crt", ".key"} {
		if err == nil {
			err = os.Rename(filepath.Join(m.dir, "tls"+kind), filepath.Join(m.dir, name+kind))
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// run starts a proxy of a namespace's service account, named like it, with more
// lines of its bootstrap file, and waits until it is ready. more has its admin
// listener.
func (m *identityMesh) run(name, namespace, admin, more string, configs ...string) *exec.Cmd {
	m.t.Helper()
	m.issue(name, namespace, name)
	m.write(name+".yaml", fmt.Sprintf("certificates: {cert: %[1]s.crt, key: %[1]s.key, ca: ca.crt}\n%s", name, more))
	return m.start(name, admin, configs...)
}

// start starts a proxy whose files are there.
func (m *identityMesh) start(name, admin string, configs ...string) *exec.Cmd {
	m.t.Helper()
	args := []string{"run", "--bootstrap", filepath.Join(m.dir, name+".yaml")}
	for _, c := range append(configs, "mesh.yaml") {
		args = append(args, "--config", filepath.Join(m.dir, c))
	}
	cmd := exec.Command(program, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if m.t.Failed() {
			m.t.Logf("%s:\n%s", name, log.String())
		}
	})
	eventually(m.t, name+" is ready", func() bool {
		status, _ := page("http://"+admin+"/ready", "")
		return status == 200
	})
	return cmd
}

// addresses are free ones on loopback.
func addresses(t *testing.T, n int) (out []string) {
	t.Helper()
	ports := make([]int, n)
	list := make([]*int, n)
	for i := range ports {
		list[i] = &ports[i]
	}
	if err := freePorts(list); err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		out = append(out, fmt.Sprintf("127.0.0.1:%d", p))
	}
	return out
}

// clientCertEcho is an application that answers with x-forwarded-client-cert.
func clientCertEcho(t *testing.T) (port string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("x-forwarded-client-cert"))
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// TestSecurity_Through: a service of another cluster is reached through its
// gateway alone, and both the service and its policies see who has called; a caller
// whom the policy does not name is refused, and so is who says by gossip that he is
// the service.
func TestSecurity_Through(t *testing.T) {
	at := addresses(t, 14)
	m := newIdentityMesh(t, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: %s}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: prod}
spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]}]}
`, clientCertEcho(t)))
	host, port, _ := strings.Cut(at[0], ":")
	m.write("behind.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web, namespace: prod}
spec: {address: %s, ports: {http: %s}, labels: {app: web, security.istio.io/tlsMode: istio}, serviceAccount: web}
`, host, port))
	listeners := func(outbound, inbound, admin string) string {
		return fmt.Sprintf("listeners: {outbound: %q, inbound: %q, admin: %q, metrics: \"\"}\n", outbound, inbound, admin)
	}
	gossip := func(own, join, announce string) string {
		return fmt.Sprintf("gossip: {bind: %q, advertise: %[1]q, join: [%q], announce: %s}\n", own, join, announce)
	}
	m.run("web", "prod", at[1], "node: {name: web, cluster: us-west, namespace: prod, serviceAccount: web, address: 127.0.0.1, labels: {app: web}}\n"+listeners("", at[0], at[1]))
	m.run("eastwest", "istio-system", at[3], "node: {name: eastwest, cluster: us-west, namespace: istio-system, serviceAccount: eastwest, address: 127.0.0.1}\n"+
		listeners("", at[2], at[3])+gossip(at[4], at[4], "through"), "behind.yaml")
	for i, name := range []string{"frontend", "stranger"} {
		outbound, admin, own := at[5+3*i], at[6+3*i], at[7+3*i]
		m.run(name, "shop", admin, fmt.Sprintf("node: {name: %s, cluster: us-central, namespace: shop, serviceAccount: %[1]s, address: 127.0.0.1}\ndomains: {cluster.east: us-east}\n", name)+
			listeners(outbound, "", admin)+gossip(own, at[4], "none"))
		get := func() (*http.Response, string) {
			return request(t, "GET", outbound, "web.prod.global", "", "x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/frontend")
		}
		eventually(t, "the gateway is known", func() bool { res, _ := get(); return res.StatusCode != 503 })
		res, body := get()
		if name == "stranger" {
			if res.StatusCode != 403 || !strings.Contains(res.Header.Get("x-isthmus-refusal"), "prod/web rules[0]") {
				t.Errorf("a stranger got %d %q, %v", res.StatusCode, body, res.Header)
			}
			continue
		}
		want := "By=spiffe://cluster.local/ns/prod/sa/web;Hash="
		if res.StatusCode != 200 || !strings.HasPrefix(body, want) || !strings.HasSuffix(body, ";URI=spiffe://cluster.local/ns/shop/sa/frontend") || strings.Contains(body, ",") {
			t.Errorf("the application was told %d %q, want it to begin with %q and to end with the caller, and nobody between", res.StatusCode, body, want)
		}
	}

	// Somebody with the gossip's word and a certificate, but of another account.
	m.issue("impostor", "shop", "impostor")
	m.write("impostor.yaml", fmt.Sprintf("certificates: {cert: impostor.crt, key: impostor.key, ca: ca.crt}\nnode: {name: impostor, cluster: us-east, namespace: prod, serviceAccount: web, address: 127.0.0.1, labels: {app: web}}\n%s%s",
		listeners("", at[11], at[12]), gossip(at[13], at[4], "own")))
	m.start("impostor", at[12])
	eventually(t, "the impostor is known", func() bool {
		res, _ := request(t, "GET", at[5], "web.prod.svc.cluster.east", "")
		return res.Header.Get("x-isthmus-refusal") == "" && res.StatusCode == 503 && endpointsOf(t, at[6], "us-east") > 0
	})
	for range 10 {
		if res, body := request(t, "GET", at[5], "web.prod.svc.cluster.east", ""); res.StatusCode != 503 {
			t.Fatalf("from an impostor: %d %q", res.StatusCode, body)
		}
		if res, body := request(t, "GET", at[5], "web.prod.global", ""); res.StatusCode != 200 {
			t.Fatalf("beside an impostor: %d %q", res.StatusCode, body)
		}
	}
}

// endpointsOf counts the endpoints of a cluster that a proxy knows.
func endpointsOf(t *testing.T, admin, cluster string) int {
	t.Helper()
	_, text := page("http://"+admin+"/endpoints?format=json", "")
	return strings.Count(text, fmt.Sprintf("%q: %q", "cluster", cluster))
}

// TestSecurity_KeySetsOutliveRestarts: an issuer that is away while a proxy starts
// is nobody's outage, unless the proxy has never heard of its keys.
func TestSecurity_KeySetsOutliveRestarts(t *testing.T) {
	at := addresses(t, 2)
	provider := newOpenID(t)
	m := newIdentityMesh(t, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: %s}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: prod}
spec: {jwtRules: [{issuer: %q}]}
`, clientCertEcho(t), provider.URL))
	proxy := m.run("web", "prod", at[1], fmt.Sprintf("node: {name: web, namespace: prod, serviceAccount: web, labels: {app: web}}\nstateDir: state\nlisteners: {outbound: \"\", inbound: %q, admin: %q, metrics: \"\"}\n", at[0], at[1]))
	ask := func(claims string) (int, string) {
		res, body := request(t, "GET", at[0], "web.prod", "", "authorization", "Bearer "+provider.token(t, claims))
		return res.StatusCode, body
	}
	eventually(t, "the key set is there", func() bool { status, _ := ask(`"n":1`); return status == 200 })
	eventually(t, "it is kept on disk", func() bool {
		kept, _ := filepath.Glob(filepath.Join(m.dir, "state", "keysets", "*.json"))
		return len(kept) > 0
	})
	provider.Close()
	restart := func() {
		t.Helper()
		proxy.Process.Kill()
		proxy.Wait()
		proxy = m.start("web", at[1])
	}
	restart()
	if status, body := ask(`"n":2`); status != 200 {
		t.Errorf("after a restart without the issuer: %d %q", status, body)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, "state")); err != nil {
		t.Fatal(err)
	}
	restart()
	if status, body := ask(`"n":3`); status != 503 || !strings.Contains(body, provider.URL) {
		t.Errorf("without anything kept: %d %q, want 503 and the reason", status, body)
	}
}
