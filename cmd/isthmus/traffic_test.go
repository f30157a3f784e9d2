package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// startProxy runs the built binary with resources in YAML and returns where
// its outbound and metrics listeners are.
func startProxy(t *testing.T, yaml string) (outbound, metrics string) {
	t.Helper()
	return startProxyIn(t, t.TempDir(), "node: {name: n, address: 127.0.0.1}\nlisteners: {", yaml)
}

// startProxyIn does so with files in dir. begin is the beginning of the
// bootstrap file, up to somewhere in the listeners.
func startProxyIn(t *testing.T, dir, begin, yaml string) (outbound, metrics string) {
	t.Helper()
	var ports [3]int
	if err := freePorts([]*int{&ports[0], &ports[1], &ports[2]}); err != nil {
		t.Fatal(err)
	}
	address := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	node := begin + fmt.Sprintf("outbound: %q, inbound: \"127.0.0.1:0\", admin: %q, metrics: %q}\n", address(0), address(1), address(2))
	for name, text := range map[string]string{"node.yaml": node, "mesh.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log strings.Builder
	cmd := exec.Command(program, "run", "--bootstrap", filepath.Join(dir, "node.yaml"), "--config", filepath.Join(dir, "mesh.yaml"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	eventually(t, "the proxy is ready", func() bool {
		status, _ := page("http://"+address(1)+"/ready", "")
		return status == 200
	})
	return address(0), address(2)
}

// service is a ServiceEntry with one endpoint.
func service(t *testing.T, host, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: %s, ports: {http: %s}}]
---
`, host, host, u.Hostname(), u.Port())
}

// rule is a VirtualService of one rule for its own host, in YAML on one line.
func rule(host, http string) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s}
spec:
  hosts: [%s]
  http: [{route: [{destination: {host: %s}}], %s}]
---
`, host, host, host, http)
}

// request sends one with headers, name and value in turn.
func request(t *testing.T, method, address, host, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+address+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// TestTraffic_Fault: a rule that aborts everything, and one that delays.
func TestTraffic_Fault(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served") }))
	defer up.Close()
	outbound, metrics := startProxy(t, service(t, "abort.test", up.URL)+service(t, "delay.test", up.URL)+
		rule("abort.test", "fault: {abort: {percentage: {value: 100}, httpStatus: 418}}")+
		rule("delay.test", "fault: {delay: {percentage: {value: 100}, fixedDelay: 20ms}}"))
	if res, body := request(t, "POST", outbound, "abort.test", "hello"); res.StatusCode != 418 || body != "fault filter abort" {
		t.Errorf("aborted: %d %q", res.StatusCode, body)
	}
	if res, body := request(t, "POST", outbound, "delay.test", "hello"); res.StatusCode != 200 || body != "served" {
		t.Errorf("delayed: %d %q", res.StatusCode, body)
	}
	eventually(t, "both are counted with their flags", func() bool {
		_, text := page("http://"+metrics+"/metrics", "")
		return strings.Contains(text, `response_flags="FI"`) && strings.Contains(text, `response_flags="DI"`)
	})
}

// TestTraffic_CORS: a preflight that the proxy answers, and a reply whose
// fields it replaces.
func TestTraffic_CORS(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		io.WriteString(w, "served "+r.Method)
	}))
	defer up.Close()
	outbound, _ := startProxy(t, service(t, "cors.test", up.URL)+
		rule("cors.test", `corsPolicy: {allowOrigins: [{exact: "https://a.test"}], allowMethods: [PUT], maxAge: 1m}`))
	res, body := request(t, "OPTIONS", outbound, "cors.test", "", "Origin", "https://a.test", "Access-Control-Request-Method", "PUT")
	if h := res.Header; res.StatusCode != 200 || body != "" || h.Get("Access-Control-Allow-Methods") != "PUT" || h.Get("Access-Control-Max-Age") != "60" {
		t.Errorf("preflight: %d %q %v", res.StatusCode, body, h)
	}
	res, body = request(t, "PUT", outbound, "cors.test", "hello", "Origin", "https://a.test")
	if h := res.Header; body != "served PUT" || len(h["Access-Control-Allow-Origin"]) != 1 || h.Get("Access-Control-Allow-Origin") != "https://a.test" || h.Get("Vary") != "Origin" {
		t.Errorf("reply: %q %v", body, h)
	}
	res, body = request(t, "OPTIONS", outbound, "cors.test", "", "Origin", "https://b.test", "Access-Control-Request-Method", "PUT")
	if body != "served OPTIONS" || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("preflight of another origin: %q %v", body, res.Header)
	}
}

// TestTraffic_Mirror: copies that fail, and that the metrics tell of.
func TestTraffic_Mirror(t *testing.T) {
	hosts := make(chan string, 2)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served") }))
	defer up.Close()
	shadow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		hosts <- r.Host + " " + string(b)
		panic(http.ErrAbortHandler)
	}))
	defer shadow.Close()
	outbound, metrics := startProxy(t, service(t, "mirror.test", up.URL)+service(t, "new.test", shadow.URL)+
		rule("mirror.test", "mirror: {host: new.test}"))
	if res, body := request(t, "POST", outbound, "mirror.test", "hello"); res.StatusCode != 200 || body != "served" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	if got := <-hosts; got != "mirror.test hello" {
		t.Errorf("the mirror got %q", got)
	}
	eventually(t, "the copy is counted", func() bool {
		_, text := page("http://"+metrics+"/metrics", "")
		return strings.Contains(text, `isthmus_mirrored_requests_total{outcome="failed"} 1`)
	})
}

// TestTraffic_Relay: TLS by its server name, beside HTTP on one port, and the
// metrics of it.
func TestTraffic_Relay(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served over TLS") }))
	defer up.Close()
	address := strings.TrimPrefix(up.URL, "https://")
	outbound, metrics := startProxy(t, strings.Replace(service(t, "tls.test", up.URL), "name: http, protocol: HTTP", "name: http, protocol: TLS", 1))
	transport := up.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, outbound)
	}
	transport.TLSClientConfig.ServerName = "" // as the URL says
	transport.TLSClientConfig.InsecureSkipVerify = true
	client := &http.Client{Transport: transport}
	res, err := client.Get("https://tls.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "served over TLS" || address == outbound {
		t.Errorf("got %q", b)
	}
	if _, err := client.Get("https://nobody.test/"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a name that nobody knows: %v", err)
	}
	transport.CloseIdleConnections()
	eventually(t, "both are counted", func() bool {
		_, text := page("http://"+metrics+"/metrics", "")
		return strings.Contains(text, `istio_tcp_connections_closed_total{`) && strings.Contains(text, `response_flags="NR"`) && strings.Contains(text, `destination_service="tls.test"`)
	})
}

// TestTraffic_HTTPS: a gateway of the built binary, with a certificate by
// "isthmus certs" in its credentialDir.
func TestTraffic_HTTPS(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("x-forwarded-proto")) }))
	defer up.Close()
	dir := t.TempDir()
	shop := filepath.Join(dir, "credentials", "shop")
	for _, args := range [][]string{{"certs", "init", "--dir", shop}, {"certs", "issue", "--dir", shop, "--dns", "shop.test"}} {
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var port int
	if err := freePorts([]*int{&port}); err != nil {
		t.Fatal(err)
	}
	startProxyIn(t, dir, fmt.Sprintf("node: {name: n, address: 127.0.0.1, labels: {istio: edge}}\ncredentialDir: credentials\nlisteners: {gateway: {bind: 127.0.0.1, ports: {443: %d}}, ", port),
		service(t, "up.test", up.URL)+`apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: edge}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.test], tls: {mode: SIMPLE, credentialName: shop}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec: {hosts: [shop.test], gateways: [edge], http: [{route: [{destination: {host: up.test}}]}]}
`)
	root, err := os.ReadFile(filepath.Join(shop, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
		},
	}}
	res, err := client.Get("https://shop.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "https" || res.TLS.Version != tls.VersionTLS13 {
		t.Errorf("got %q over version %x", b, res.TLS.Version)
	}
}
