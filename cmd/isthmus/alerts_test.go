package main

import (
	"context"
	"crypto/rand"
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"isthmus/tls"
)

// TestAlerts has a real Prometheus watch real proxies, breaks one thing after
// the other and mends it: each alert fires, and is over. The rules are those of
// deploy, made hasty. It wants the program prometheus, and some minutes:
// ISTHMUS_PROMETHEUS=/usr/bin/prometheus, as make alerts does it.
func TestAlerts(t *testing.T) {
	prometheus := os.Getenv("ISTHMUS_PROMETHEUS")
	if prometheus == "" {
		t.Skip("ISTHMUS_PROMETHEUS names no prometheus")
	}
	w := newAlertWorld(t, prometheus)
	fired, ran := map[string]bool{}, 0
	var mute *silent
	defer func() {
		if mute != nil {
			mute.leave()
		}
	}()
	stories := []struct {
		name   string
		alerts []string
		breaks func(t *testing.T)
		mends  func(t *testing.T)
	}{
		{
			name: "the application fails", alerts: []string{"IsthmusServiceFailing", "IsthmusServiceErrors", "IsthmusLinkFailing", "IsthmusRetriesExhausted"},
			breaks: func(*testing.T) { w.status.Store(503) }, mends: func(*testing.T) { w.status.Store(200) },
		},
		{
			name: "what fails is ejected", alerts: []string{"IsthmusEjections", "IsthmusNoHealthyEndpoint", "IsthmusEndpointsUnhealthy"},
			breaks: func(t *testing.T) {
				w.config(t, "outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 100}", "")
				w.status.Store(503)
			},
			mends: func(t *testing.T) { w.status.Store(200); w.config(t, "", "") },
		},
		{
			name: "the application is slow", alerts: []string{"IsthmusSlow"},
			breaks: func(*testing.T) { w.delay.Store(int64(1500 * time.Millisecond)) }, mends: func(*testing.T) { w.delay.Store(0) },
		},
		{
			name: "too many at once", alerts: []string{"IsthmusOverflow"},
			breaks: func(t *testing.T) {
				w.config(t, "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 1}}", "")
				w.delay.Store(int64(time.Second))
			},
			mends: func(t *testing.T) { w.delay.Store(0); w.config(t, "", "") },
		},
		{
			name: "a cluster dies", alerts: []string{"IsthmusDown", "IsthmusMembersDead", "IsthmusClusterSilent", "IsthmusLinkBroken"},
			breaks: func(*testing.T) { w.callee.kill() }, mends: func(t *testing.T) { w.callee.start(t, program) },
		},
		{
			name: "files with a warning", alerts: []string{"IsthmusConfigWarnings"},
			breaks: func(t *testing.T) {
				w.config(t, "", "---\napiVersion: networking.istio.io/v1\nkind: Nonsense\nmetadata: {name: x}\n")
			}, mends: func(t *testing.T) { w.config(t, "", "") },
		},
		{
			name: "files that are refused", alerts: []string{"IsthmusConfigRefused"},
			breaks: func(t *testing.T) { w.config(t, "", "---\nnot: {a: resource") }, mends: func(t *testing.T) { w.config(t, "", "") },
		},
		{
			name: "a certificate ends", alerts: []string{"IsthmusCertificateEnds", "IsthmusCertificateEndsNow"},
			breaks: func(t *testing.T) { w.issue(t, w.caller, 30*time.Minute) }, mends: func(t *testing.T) { w.issue(t, w.caller, 24*time.Hour) },
		},
		{
			name: "a root ends", alerts: []string{"IsthmusRootEnds"},
			breaks: func(t *testing.T) { w.rootEnds(t, 10*24*time.Hour) }, mends: func(t *testing.T) { w.rootEnds(t, 1000*24*time.Hour) },
		},
		{
			name: "a key that does not fit", alerts: []string{"IsthmusCertificateNotUsed"},
			breaks: func(t *testing.T) { w.write(t, "caller.key", "no key at all\n") }, mends: func(t *testing.T) { w.issue(t, w.caller, 24*time.Hour) },
		},
		{
			name: "drained", alerts: []string{"IsthmusNotReady"},
			breaks: func(t *testing.T) {
				res, err := http.Post("http://"+w.callee.admin+"/drain", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
			},
			mends: func(t *testing.T) { w.callee.kill(); w.callee.start(t, program) },
		},
		{
			name: "no room for the log, and nobody takes spans", alerts: []string{"IsthmusAccessLogLost", "IsthmusSpansLost"},
			breaks: func(t *testing.T) {
				w.caller.kill()
				w.caller.more = "accessLog: {path: /dev/full, format: text}\ntracing: {sampling: 100, zipkin: {address: \"127.0.0.1:1\"}}\n"
				w.caller.start(t, program)
			},
			mends: func(t *testing.T) {
				w.caller.kill()
				w.caller.more = ""
				w.caller.start(t, program)
			},
		},
		{
			name: "many idle clients", alerts: []string{"IsthmusFileDescriptors"},
			breaks: func(t *testing.T) {
				w.caller.kill()
				w.caller.files, w.caller.more = 200, "overload: {connections: 200}\n"
				w.caller.start(t, program)
				w.crowd(t, 150)
			},
			mends: func(t *testing.T) {
				w.crowd(t, 0)
				w.caller.kill()
				w.caller.files, w.caller.more = 0, ""
				w.caller.start(t, program)
			},
		},
		{
			name: "more clients than may be connected", alerts: []string{"IsthmusOverload"},
			breaks: func(t *testing.T) {
				w.caller.kill()
				w.caller.more = "overload: {connections: 30}\n"
				w.caller.start(t, program)
				w.crowd(t, 60)
			},
			mends: func(t *testing.T) {
				w.crowd(t, 0)
				w.caller.kill()
				w.caller.more = ""
				w.caller.start(t, program)
			},
		},
		{
			name: "two versions", alerts: []string{"IsthmusVersionsDiffer"},
			breaks: func(t *testing.T) {
				w.callee.kill()
				w.callee.start(t, w.otherVersion(t))
			},
			mends: func(t *testing.T) { w.callee.kill(); w.callee.start(t, program) },
		},
		{
			name: "news that do not come", alerts: []string{"IsthmusGossipBehind"},
			breaks: func(t *testing.T) { mute = joinSilent(t, w.caller.gossip) },
			mends:  func(t *testing.T) { mute.speak(t) },
		},
		{
			name: "too many to be told apart", alerts: []string{"IsthmusMetricsOverflow"},
			breaks: func(t *testing.T) {
				w.config(t, "", manyEndpoints())
				// Some hundreds of the endpoints, of whichever service comes last, are too many.
				for i := range 100 * manyHosts {
					w.ask(t, fmt.Sprintf("many%d.test", i%manyHosts))
				}
			},
			mends: func(t *testing.T) { w.config(t, "", "") },
		},
	}
	for _, tt := range stories {
		ok := t.Run(tt.name, func(t *testing.T) {
			ran++
			w.wait(t, "none is firing before", func(firing []string) bool { return !overlap(firing, tt.alerts) })
			tt.breaks(t)
			seen := map[string]bool{}
			w.wait(t, fmt.Sprintf("all of %v have fired", tt.alerts), func(firing []string) bool {
				for _, name := range firing {
					seen[name] = true
				}
				for _, name := range tt.alerts {
					if !seen[name] {
						return false
					}
				}
				return true
			})
			tt.mends(t)
			w.wait(t, "all are over", func(firing []string) bool { return !overlap(firing, tt.alerts) })
			for _, name := range tt.alerts {
				fired[name] = true
			}
		})
		if !ok {
			break
		}
	}
	if t.Failed() || ran < len(stories) {
		return
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(w.rules, -1) {
		if name := m[1]; !fired[name] {
			t.Errorf("nothing has made %s fire", name)
		}
	}
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// alertWorld is two proxies, who call each other over a border, an application
// that does as it is told, and a Prometheus that watches.
type alertWorld struct {
	dir, rules     string
	caller, callee *alertProxy
	authority      *tls.Authority
	api            string

	status atomic.Int64
	delay  atomic.Int64 // nanoseconds

	idle []net.Conn
}

// alertProxy is a process of the world's.
type alertProxy struct {
	w                                         *alertWorld
	name, cluster                             string
	outbound, inbound, admin, metrics, gossip string
	more                                      string // of the bootstrap file
	files                                     int    // descriptors that it may have; 0: as many as we
	cmd                                       *exec.Cmd
}

func newAlertWorld(t *testing.T, prometheus string) *alertWorld {
	w := &alertWorld{dir: t.TempDir()}
	w.status.Store(200)
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"caller.log", "callee.log", "prometheus.log"} {
				text, _ := os.ReadFile(filepath.Join(w.dir, name))
				t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
			}
		}
	})
	app := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(w.delay.Load()))
		rw.WriteHeader(int(w.status.Load()))
	}))
	t.Cleanup(app.Close)
	var err error
	if w.authority, err = tls.InitAuthority(filepath.Join(w.dir, "ca"), "cluster.local"); err != nil {
		t.Fatal(err)
	}
	ports := make([]int, 11)
	var all []*int
	for i := range ports {
		all = append(all, &ports[i])
	}
	if err := freePorts(all); err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	w.caller = &alertProxy{w: w, name: "caller", cluster: "near", outbound: at(0), inbound: at(1), admin: at(2), metrics: at(3), gossip: at(4)}
	w.callee = &alertProxy{w: w, name: "callee", cluster: "far", outbound: at(5), inbound: at(6), admin: at(7), metrics: at(8), gossip: at(9)}
	_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
	w.write(t, "callee.d/service.yaml", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: prod}\nspec: {selector: {app: callee}, ports: [{name: http, port: 80, targetPort: %s}]}\n", port))
	w.config(t, "", "")
	for _, p := range []*alertProxy{w.caller, w.callee} {
		w.issue(t, p, 24*time.Hour)
		p.start(t, program)
		t.Cleanup(p.kill)
	}
	t.Cleanup(func() { w.crowd(t, 0) })
	w.load(t)
	w.watch(t, prometheus, at(10))
	return w
}

// write writes a file of the world's as a whole.
func (w *alertWorld) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

// config writes what the caller's proxy is to do: policy is a part of a
// DestinationRule's, more goes behind it all.
func (w *alertWorld) config(t *testing.T, policy, more string) {
	t.Helper()
	if policy != "" {
		policy = ", " + policy
	}
	w.write(t, "caller.d/mesh.yaml", fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {selector: {app: callee}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: prod}
spec:
  hosts: [web.prod.global]
  http: [{match: [{method: {exact: GET}}], route: [{destination: {host: web.prod.global}}], retries: {attempts: 2, retryOn: 5xx}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: prod}
spec:
  host: web.prod.global
  trafficPolicy: {retryBudget: {percent: 1, minRetryConcurrency: 1}%s}
%s`, policy, more))
}

// issue gives a proxy a certificate.
func (w *alertWorld) issue(t *testing.T, p *alertProxy, ttl time.Duration) {
	t.Helper()
	id, err := tls.SPIFFEID("cluster.local", "prod", p.name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.authority.Issue(tls.Request{ID: id, TTL: ttl}); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"ca/tls.key": p.name + ".key", "ca/tls.crt": p.name + ".crt"} {
		if err := os.Rename(filepath.Join(w.dir, from), filepath.Join(w.dir, to)); err != nil {
			t.Fatal(err)
		}
	}
}

// rootEnds has the authority's certificate end so much later: the same one otherwise, so
// that it vouches for what it has issued.
func (w *alertWorld) rootEnds(t *testing.T, later time.Duration) {
	t.Helper()
	pair, err := stdtls.LoadX509KeyPair(filepath.Join(w.dir, "ca/ca.crt"), filepath.Join(w.dir, "ca/ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	root := pair.Leaf
	root.NotAfter = time.Now().Add(later)
	der, err := x509.CreateCertificate(rand.Reader, root, root, root.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "ca/ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// start starts the proxy as program has it, and waits until it is ready.
func (p *alertProxy) start(t *testing.T, program string) {
	t.Helper()
	p.w.write(t, p.name+".yaml", fmt.Sprintf(`node: {name: %[1]s, address: 127.0.0.1, cluster: %[2]s, namespace: prod, serviceAccount: %[1]s, labels: {app: %[1]s}}
listeners: {outbound: %[3]q, inbound: %[4]q, admin: %[5]q, metrics: %[6]q}
certificates: {cert: %[1]s.crt, key: %[1]s.key, ca: ca/ca.crt}
gossip: {bind: %[7]q, advertise: %[7]q, join: [%[8]q, %[9]q]}
drain: {timeout: 1s}
%[10]s`, p.name, p.cluster, p.outbound, p.inbound, p.admin, p.metrics, p.gossip, p.w.caller.gossip, p.w.callee.gossip, p.more))
	command := fmt.Sprintf("exec %s run --bootstrap %s.yaml --config %s.d", program, p.name, p.name)
	if p.files > 0 {
		command = fmt.Sprintf("ulimit -n %d; ", p.files) + command
	}
	out, err := os.OpenFile(filepath.Join(p.w.dir, p.name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.Command("/bin/sh", "-c", command)
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "ISTHMUS_") })
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.w.dir, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, p.name+" is ready", func() bool {
		status, _ := page("http://"+p.admin+"/ready", "")
		return status == http.StatusOK
	})
}

func (p *alertProxy) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.cmd = nil
	}
}

// otherVersion builds the program as another release.
func (w *alertWorld) otherVersion(t *testing.T) string {
	t.Helper()
	path := filepath.Join(w.dir, "isthmus-other")
	build := exec.Command("go", "build", "-ldflags", "-X main.release=v0.0.0-other", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	return path
}

// crowd has n clients connected that say nothing more.
func (w *alertWorld) crowd(t *testing.T, n int) {
	for _, c := range w.idle {
		c.Close()
	}
	w.idle = nil
	for range n {
		c, err := net.Dial("tcp", w.caller.outbound)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\n")
		w.idle = append(w.idle, c)
	}
}

// load sends requests until the test is over.
func (w *alertWorld) load(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	t.Cleanup(func() { stop(); workers.Wait() })
	client := newDemoClient(0)
	client.address = w.caller.outbound
	client.client.Transport = &http.Transport{
		MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.caller.outbound)
		},
	}
	for range 8 {
		workers.Go(func() {
			for ctx.Err() == nil {
				client.get("web.prod.global", "/") // however it ends
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
}

// ask asks for a host until it is known. What answers does not matter.
func (w *alertWorld) ask(t *testing.T, host string) {
	t.Helper()
	eventually(t, host+" is known", func() bool {
		r, err := http.NewRequest("GET", "http://"+w.caller.outbound+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode != http.StatusNotFound
	})
}

// watch starts Prometheus with the rules of deploy, in which what takes minutes
// takes seconds.
func (w *alertWorld) watch(t *testing.T, prometheus, listen string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w.rules = string(text)
	hasty := regexp.MustCompile(`for: \w+`).ReplaceAllString(w.rules, "for: 1s")
	hasty = strings.NewReplacer("[5m]", "[6s]", "interval: 15s", "interval: 1s", "age_seconds) > 60", "age_seconds) > 5").Replace(hasty)
	w.write(t, "rules.yaml", hasty)
	w.write(t, "prometheus.yaml", fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs: [{job_name: isthmus, metrics_path: /stats/prometheus, static_configs: [{targets: [%q, %q]}]}]
`, w.caller.metrics, w.callee.metrics))
	out, err := os.Create(filepath.Join(w.dir, "prometheus.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(prometheus, "--config.file="+filepath.Join(w.dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(w.dir, "tsdb"), "--web.listen-address="+listen, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	w.api = "http://" + listen
	eventually(t, "Prometheus is ready", func() bool {
		status, _ := page(w.api+"/-/ready", "")
		return status == http.StatusOK
	})
}

// firing asks Prometheus which alerts are firing.
func (w *alertWorld) firing(t *testing.T) (names []string) {
	t.Helper()
	status, text := page(w.api+"/api/v1/alerts", "")
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels map[string]string
				State  string
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); status != http.StatusOK || err != nil {
		t.Fatalf("%d %v: %s", status, err, text)
	}
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	return names
}

// wait waits for alerts, two minutes at most.
func (w *alertWorld) wait(t *testing.T, what string, ok func(firing []string) bool) {
	t.Helper()
	var firing []string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if firing = w.firing(t); ok(firing) {
			return
		}
	}
	t.Fatalf("%s: not within two minutes; firing are %v", what, firing)
}
