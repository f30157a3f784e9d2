package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"isthmus/admin"
	"isthmus/ratelimit"
)

// measured skips what takes too long for a test; "make limits-measured" runs it,
// with the path of envoyproxy/ratelimit.
func measured(t *testing.T) (service string) {
	t.Helper()
	if service = os.Getenv("ISTHMUS_MEASURE_LIMITS"); service == "" {
		t.Skip("make limits-measured")
	}
	return service
}

// limitProxy runs the built binary, within a network namespace if there is one,
// and returns where its listeners are.
func limitProxy(t *testing.T, namespace, bootstrap, mesh string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"bootstrap.yaml": bootstrap, "mesh.yaml": mesh} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{program, "run", "--bootstrap", filepath.Join(dir, "bootstrap.yaml"), "--config", filepath.Join(dir, "mesh.yaml")}
	if namespace != "" {
		args = append([]string{"ip", "netns", "exec", namespace}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	log := &lockedBuffer{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s", log)
		}
	})
	addresses := map[string]string{}
	eventually(t, "the proxy is ready", func() bool {
		_, text, ok := strings.Cut(log.String(), "isthmus ready: ")
		text, _, whole := strings.Cut(text, "\n")
		if !ok || !whole {
			return false
		}
		for one := range strings.SplitSeq(text, ", ") {
			name, address, _ := strings.Cut(one, " ")
			addresses[name] = address
		}
		return true
	})
	return addresses
}

// lockedBuffer is a bytes.Buffer for a process to write and a test to read.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// flood sends requests at a rate for as long as ctx lives, over some connections,
// and counts what is let in.
type flood struct{ passed, refused, failed atomic.Int64 }

func startFlood(ctx context.Context, address, host string, perSecond int) *flood {
	f := &flood{}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 5 * time.Second}
	turns := make(chan struct{}, perSecond)
	for range 16 {
		go func() { // ends with ctx
			for range turns {
				req, _ := http.NewRequest("GET", "http://"+address+"/", nil)
				req.Host = host
				res, err := client.Do(req)
				switch {
				case err != nil:
					f.failed.Add(1)
					continue
				case res.StatusCode == 200:
					f.passed.Add(1)
				case res.StatusCode == 429:
					f.refused.Add(1)
				default:
					f.failed.Add(1)
				}
				res.Body.Close()
			}
		}()
	}
	go func() { // ends with ctx
		defer close(turns)
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				select {
				case turns <- struct{}{}:
				default:
				}
			}
		}
	}()
	return f
}

// example is the example's rate limits.
func example(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/examples/multicluster/08-rate-limits.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLimits_Example: 1000 at once and then 100 a second at user-service's
// sidecar, over 30 seconds within 2 %.
func TestLimits_Example(t *testing.T) {
	measured(t)
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer app.Close()
	_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
	at := limitProxy(t, "", `node: {name: u, namespace: production, address: 127.0.0.1, labels: {app: user-service}}
listeners: {outbound: "", inbound: "127.0.0.1:0", metrics: "", admin: "127.0.0.1:0"}
`, example(t)+fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: user-service, namespace: production}
spec: {selector: {app: user-service}, ports: [{name: http, port: 80, targetPort: %s}]}
`, port))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begin := time.Now()
	f := startFlood(ctx, at["inbound"], "user-service.production", 1500)
	eventually(t, "the burst is over", func() bool { return f.refused.Load() > 0 })
	burst, filled := f.passed.Load(), time.Since(begin).Seconds()*100
	from, first := time.Now(), f.passed.Load()
	time.Sleep(30 * time.Second)
	rate := float64(f.passed.Load()-first) / time.Since(from).Seconds()
	t.Logf("burst %d (%.0f had been filled in), then %.2f a second; %d refused, %d failed", burst, filled, rate, f.refused.Load(), f.failed.Load())
	if float64(burst) < 1000 || float64(burst) > 1000+filled+10 || rate < 98 || rate > 102 || f.failed.Load() > 0 {
		t.Errorf("want 1000, then 98 to 102")
	}
}

// gatewayOf makes a gateway on port 80 of an application.
func gatewayOf(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web}
spec:
  hosts: [web.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: %s, ports: {http: %s}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web.test], gateways: [gw], http: [{route: [{destination: {host: web.test}}]}]}
`, host, port)
}

func gatewayNode(more string) string {
	return `node: {name: gw, namespace: istio-system, address: 127.0.0.1, labels: {istio: ingressgateway}}
listeners: {outbound: "", inbound: "", metrics: "", admin: "127.0.0.1:0", gateway: {bind: 127.0.0.1, ports: {80: 0}}}
` + more
}

func send(t *testing.T, address, host string) (status int, took time.Duration) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	begin := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode, time.Since(begin)
}

// TestLimits_Service: the example's gateway asks the real envoyproxy/ratelimit
// with Redis: a limit of three a minute; off, slow by 100 ms and wrong, requests
// pass, or with failure_mode_deny do not.
func TestLimits_Service(t *testing.T) {
	service := measured(t)
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer app.Close()

	// The service, behind a relay that can be off, slow and wrong.
	var redis, grpc, debug, plain int
	if err := freePorts([]*int{&redis, &grpc, &debug, &plain}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	limits := filepath.Join(dir, "ratelimit", "config")
	if err := os.MkdirAll(limits, 0o700); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(limits, "c.yaml"), []byte("domain: production\ndescriptors:\n- {key: generic_key, value: default, rate_limit: {unit: day, requests_per_unit: 3}}\n"), 0o600)
	run := func(env []string, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), env...)
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
	answers := func(port int) func() bool {
		return func() bool {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				c.Close()
			}
			return err == nil
		}
	}
	run(nil, "redis-server", "--port", fmt.Sprint(redis), "--bind", "127.0.0.1", "--save", "")
	eventually(t, "redis", answers(redis))
	run([]string{"USE_STATSD=false", "REDIS_SOCKET_TYPE=tcp", fmt.Sprintf("REDIS_URL=127.0.0.1:%d", redis), "RUNTIME_ROOT=" + dir, "RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false",
		"HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1", fmt.Sprintf("GRPC_PORT=%d", grpc), fmt.Sprintf("DEBUG_PORT=%d", debug), fmt.Sprintf("PORT=%d", plain)}, service)
	eventually(t, "the rate limit service", answers(grpc))
	relay := newRelay(t, fmt.Sprintf("127.0.0.1:%d", grpc))

	cluster := fmt.Sprintf("clusters: {rate_limit_service: %q}\n", relay.address)
	open := limitProxy(t, "", gatewayNode(cluster), example(t)+gatewayOf(app.Listener.Addr().String()))
	shut := limitProxy(t, "", gatewayNode(cluster), strings.Replace(example(t), "domain: production\n", "domain: production\n          failure_mode_deny: true\n", 1)+gatewayOf(app.Listener.Addr().String()))

	var got []int
	for range 5 {
		status, _ := send(t, open["gateway:80"], "web.test")
		got = append(got, status)
	}
	if fmt.Sprint(got) != "[200 200 200 429 429]" {
		t.Errorf("by the service: %v, want three let in", got)
	}
	for _, tt := range []struct {
		name string
		mode relayMode
		most time.Duration // of one request: the example's time-out is 100 ms
	}{{"off", relayOff, time.Second}, {"slow", relaySlow, time.Second}, {"wrong", relayWrong, time.Second}} {
		relay.set(tt.mode)
		for range 5 {
			status, took := send(t, open["gateway:80"], "web.test")
			if status != 200 || took > tt.most {
				t.Errorf("%s: %d in %v, want 200", tt.name, status, took)
			}
			status, took = send(t, shut["gateway:80"], "web.test")
			if status != 500 || took > tt.most {
				t.Errorf("%s, with failure_mode_deny: %d in %v, want 500", tt.name, status, took)
			}
		}
		relay.set(relayWell)
		eventually(t, "the service is asked again", func() bool {
			status, _ := send(t, open["gateway:80"], "web.test")
			other, _ := send(t, shut["gateway:80"], "web.test")
			return status == 429 && other == 429
		})
	}
}

// relayMode is what a relay does to what passes.
type relayMode int32

const (
	relayWell  relayMode = iota
	relayOff             // refuses
	relaySlow            // 100 ms for each answer
	relayWrong           // answers with what is no HTTP/2
)

// relay passes TCP connections on.
type relay struct {
	address, to string
	mode        atomic.Int32
	mu          sync.Mutex // guards conns
	conns       []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: l.Addr().String(), to: to}
	t.Cleanup(func() { l.Close(); r.set(relayOff) })
	go func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
	return r
}

// set changes the mode, and ends the connections of the one before.
func (r *relay) set(m relayMode) {
	r.mode.Store(int32(m))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// serve ends when either side does.
func (r *relay) serve(c net.Conn) {
	defer c.Close()
	mode := relayMode(r.mode.Load())
	if mode == relayOff {
		return
	}
	r.mu.Lock()
	r.conns = append(r.conns, c)
	r.mu.Unlock()
	if mode == relayWrong {
		c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"))
		var b [1 << 10]byte
		for {
			if _, err := c.Read(b[:]); err != nil {
				return
			}
		}
	}
	up, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer up.Close()
	copyTo := func(to, from net.Conn, delay time.Duration) {
		defer to.Close()
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			time.Sleep(delay)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	delay := time.Duration(0)
	if mode == relaySlow {
		delay = 100 * time.Millisecond
	}
	go copyTo(up, c, 0)
	copyTo(c, up, delay)
}

// TestLimits_Command: limits that proxies keep together and serve, looked at by
// "isthmus limits".
func TestLimits_Command(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer app.Close()
	limits := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(limits, []byte("domain: production\ndescriptors:\n- {key: generic_key, value: default, rate_limit: {unit: day, requests_per_unit: 3}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := limitProxy(t, "", gatewayNode(fmt.Sprintf("rateLimits: {config: %q, serve: '127.0.0.1:0'}\n", limits)), example(t)+gatewayOf(app.Listener.Addr().String()))
	var got []int
	for range 3 {
		status, _ := send(t, at["gateway:80"], "web.test")
		got = append(got, status)
	}
	client := ratelimit.NewService("s", "s", func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", at["ratelimit"])
	})
	defer client.Close()
	var d ratelimit.Descriptors
	d.Add("generic_key", []byte("default"))
	d.End(1)
	if v, err := client.Ask(10*time.Second, "production", &d); err != nil || !v.Over {
		t.Errorf("by the protocol: %+v, %v; want it over the limit", v, err)
	}
	status, _ := send(t, at["gateway:80"], "web.test")
	if got = append(got, status); fmt.Sprint(got) != "[200 200 200 429]" {
		t.Errorf("%v, want three let in", got)
	}
	out, err := exec.Command(program, "limits", "--admin", at["admin"], "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []admin.Limit
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Kind != "shared" || list[0].Allowed != 3 || list[0].Refused != 1 || list[1].Kind != "rule" || list[1].Allowed != 3 || list[1].Refused != 2 {
		t.Errorf("shown: %s", out)
	}
}
