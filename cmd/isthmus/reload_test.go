package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
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
	"isthmus/canary"
	"isthmus/history"
)

// running is the built binary with a folder of configuration.
type running struct {
	dir, outbound, admin string
}

// runProxy starts it. bootstrap is appended to what says who it is, files are
// relative to its folder, and the configuration is what lies in mesh.
func runProxy(t *testing.T, bootstrap string, files map[string]string, args ...string) *running {
	t.Helper()
	var ports [2]int
	if err := freePorts([]*int{&ports[0], &ports[1]}); err != nil {
		t.Fatal(err)
	}
	r := &running{t.TempDir(), fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])}
	r.write(t, "node.yaml", fmt.Sprintf("node: {name: n, address: 127.0.0.1}\nlisteners: {outbound: %q, inbound: \"\", admin: %q, metrics: \"\"}\n%s", r.outbound, r.admin, bootstrap))
	for name, text := range files {
		r.write(t, name, text)
	}
	var log strings.Builder
	cmd := exec.Command(program, append([]string{"run", "--bootstrap", "node.yaml", "--config", "mesh"}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, &log, &log
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
		status, _ := page("http://"+r.admin+"/ready", "")
		return status == 200
	})
	return r
}

// write puts a file in its place as a whole, as ConfigMaps and editors do.
func (r *running) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(filepath.Dir(path), ".new")
	if err := os.WriteFile(whole, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(whole, path); err != nil {
		t.Fatal(err)
	}
}

// overwrite cuts a file off and fills it again, as shells do: of such a file, a
// reader may see the beginning, or nothing.
func (r *running) overwrite(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fetch reads a page of the admin listener as JSON.
func fetch[T any](t *testing.T, r *running, method, path string) (v T) {
	t.Helper()
	q := question{url: "http://" + r.admin, output: "json"}
	body, err := q.send(method, path)
	if err == nil {
		err = json.Unmarshal(body, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// pour sends requests at a rate until stop is closed, by a few connections, and
// returns when all have been answered. The number of each is told to send.
func pour(rate int, stop <-chan struct{}, send func(client *http.Client, n int)) {
	const senders = 8
	var all sync.WaitGroup
	var next atomic.Int64
	for range senders {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 20 * time.Second}
			defer client.CloseIdleConnections()
			tick := time.NewTicker(time.Second * senders / time.Duration(rate))
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					send(client, int(next.Add(1)))
				}
			}
		})
	}
	all.Wait()
}

// versioned is a service of two subsets, each an endpoint that tells its version.
func versioned(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  hosts: [s.test]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  endpoints:\n")
	for _, version := range []string{"even", "odd"} {
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, version) }))
		t.Cleanup(up.Close)
		host, port, err := net.SplitHostPort(up.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  - {address: %s, ports: {http: %s}, labels: {version: %s}}\n", host, port, version)
	}
	return b.String()
}

// TestReload_UnderLoad: a hundred configurations one after the other, every
// fifth of them bad, half of them written in place, under a thousand requests a
// second. None fails, and none sees the one half of a set and the other half of
// another: the rule that says its number in the reply, the rule's destination,
// and the subset of it in another file always belong together.
func TestReload_UnderLoad(t *testing.T) {
	service := versioned(t)
	generation := func(n int) (route, rule string) {
		version := []string{"even", "odd"}[n%2]
		route = fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s}\nspec:\n  hosts: [s.test]\n  http: [{route: [{destination: {host: s.test, subset: g%d}}], headers: {response: {set: {x-generation: '%d'}}}}]\n", n, n)
		rule = fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s}\nspec: {host: s.test, subsets: [{name: g%d, labels: {version: %s}}]}\n", n, version)
		return route, rule
	}
	route, rule := generation(0)
	p := runProxy(t, "", map[string]string{"mesh/service.yaml": service, "mesh/route.yaml": route, "mesh/rule.yaml": rule})

	stop := make(chan struct{})
	var sent atomic.Int64
	var mu sync.Mutex // guards failures and seen
	var failures []string
	seen := map[string]bool{}
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		pour(1000, stop, func(client *http.Client, n int) {
			sent.Add(1)
			req, _ := http.NewRequest("GET", "http://"+p.outbound+"/", nil)
			req.Host = "s.test"
			what := ""
			res, err := client.Do(req)
			generation := ""
			if err != nil {
				what = err.Error()
			} else {
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				generation = res.Header.Get("X-Generation")
				var number int
				fmt.Sscan(generation, &number)
				if want := []string{"even", "odd"}[number%2]; err != nil || res.StatusCode != 200 || string(body) != want {
					what = fmt.Sprintf("%d %q of generation %s, %v", res.StatusCode, body, generation, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[generation] = true; what != "" {
				failures = append(failures, what)
			}
		})
	}()
	reload := func() {
		q := question{url: "http://" + p.admin, output: "json"}
		if _, err := q.send("POST", "/reload"); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= 100; n++ {
		route, rule := generation(n)
		bad := n%10 == 0
		if bad {
			route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s}\nspec: {hosts: [s.test], http: [{rout"
		}
		before := fetch[[]history.Revision](t, p, "GET", "/config/history")[0].Number
		put := p.write
		if n%4 < 2 {
			put = p.overwrite
		}
		put(t, "mesh/route.yaml", route)
		if n%10 == 5 { // meanwhile nobody defines the route's subset
			reload()
			time.Sleep(300 * time.Millisecond)
		}
		put(t, "mesh/rule.yaml", rule)
		reload()
		eventually(t, fmt.Sprintf("generation %d", n), func() bool {
			if bad {
				last := fetch[[]history.Revision](t, p, "GET", "/config/history")[0]
				return last.Number > before && last.Refused()
			}
			mu.Lock()
			defer mu.Unlock()
			return seen[fmt.Sprint(n)]
		})
	}
	close(stop)
	<-done
	t.Logf("%d requests over %d generations, %d failed", sent.Load(), len(seen), len(failures))
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), sent.Load(), failures[0])
	}
	if len(seen) != 91 {
		t.Errorf("%d generations were seen, want the first and the 90 good ones", len(seen))
	}
}

// TestCanary_TakenBack: a candidate by which a tenth of the requests goes nowhere
// is taken back by itself; the damage is that of the requests that it got until
// then, and none comes after.
func TestCanary_TakenBack(t *testing.T) {
	service := versioned(t)
	const rules = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s}\nspec:\n  hosts: [s.test]\n  http:\n"
	p := runProxy(t, "canary: {paths: [candidate], shadow: 0s, steps: [10], step: 1h}\n", map[string]string{
		"mesh/service.yaml": service, "mesh/route.yaml": rules + "  - route: [{destination: {host: s.test}}]\n",
	})
	stop := make(chan struct{})
	var sent, failed atomic.Int64
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		pour(1000, stop, func(client *http.Client, n int) {
			path := "/"
			if n%10 == 0 {
				path = "/tenth"
			}
			req, _ := http.NewRequest("GET", "http://"+p.outbound+path, nil)
			req.Host = "s.test"
			res, err := client.Do(req)
			if err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if sent.Add(1); err != nil || res.StatusCode != 200 {
				failed.Add(1)
			}
		})
	}()
	state := func() admin.Canary { return fetch[admin.Canary](t, p, "GET", "/config/canary") }
	eventually(t, "load", func() bool { return sent.Load() > 500 })
	if failed.Load() != 0 {
		t.Fatalf("%d requests failed before there was a candidate", failed.Load())
	}
	begin := time.Now()
	p.write(t, "candidate/route.yaml", rules+"  - {match: [{uri: {prefix: /tenth}}], route: [{destination: {host: nowhere.test}}]}\n  - route: [{destination: {host: s.test}}]\n")
	eventually(t, "the candidate is taken back", func() bool { return state().State == canary.Returned })
	took, damage := time.Since(begin), failed.Load()
	after := sent.Load()
	eventually(t, "more load", func() bool { return sent.Load() > after+2000 })
	close(stop)
	<-done
	c := state()
	t.Logf("taken back after %v, %s; %d of %d requests failed", took.Round(10*time.Millisecond), c.Why, damage, after)
	if damage == 0 || damage > after/50 {
		t.Errorf("%d of %d requests failed, want some, and at most one of fifty", damage, after)
	}
	if late := failed.Load() - damage; late > 8 { // one for each sender may have been under way
		t.Errorf("%d requests failed after it was taken back", late)
	}
	if r := fetch[[]history.Revision](t, p, "GET", "/config/history")[0]; r.Origin != history.FromCandidate || r.Error != c.Why {
		t.Errorf("the history has %+v", r)
	}
}

// TestCanary_Promoted: a good one goes by all stages and is in force in the end,
// without a failed request.
func TestCanary_Promoted(t *testing.T) {
	service := versioned(t)
	p := runProxy(t, "canary: {shadow: 100ms, sample: 50, steps: [10, 50], step: 100ms, requests: 20}\nstateDir: state\n", map[string]string{
		"mesh/service.yaml": service,
		"mesh/route.yaml":   "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s}\nspec: {host: s.test, subsets: [{name: even, labels: {version: even}}, {name: odd, labels: {version: odd}}]}\n---\n" + to("even"),
		"new/route.yaml":    to("odd"),
	}, "--canary", "new")
	stop, done := make(chan struct{}), make(chan struct{})
	var odd, even, failed atomic.Int64
	go func() { // ends with stop
		defer close(done)
		pour(500, stop, func(client *http.Client, n int) {
			req, _ := http.NewRequest("GET", "http://"+p.outbound+"/", nil)
			req.Host = "s.test"
			res, err := client.Do(req)
			if err != nil {
				failed.Add(1)
				return
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			switch string(body) {
			case "odd":
				odd.Add(1)
			case "even":
				even.Add(1)
			default:
				failed.Add(1)
			}
		})
	}()
	eventually(t, "the candidate is in force", func() bool {
		return fetch[[]history.Revision](t, p, "GET", "/config/history")[0].Origin == history.FromPromotion
	})
	before := even.Load()
	at := odd.Load()
	eventually(t, "more load", func() bool { return odd.Load() > at+500 })
	close(stop)
	<-done
	if late := even.Load() - before; late > 8 || failed.Load() > 0 || before == 0 {
		t.Errorf("%d requests to what was in force before, %d after the promotion; %d failed", before, late, failed.Load())
	}
	c := fetch[admin.Canary](t, p, "GET", "/config/canary")
	if c.Compared == 0 || len(c.Differences) != 1 || c.Differences[0].Kind != "destination" {
		t.Errorf("compared %+v", c.Compare)
	}
	if out, err := exec.Command(program, "config", "canary", "--admin", "http://"+p.admin).CombinedOutput(); err != nil || !strings.Contains(string(out), "promoted: it is in force until the files change") {
		t.Errorf("%s, %v", out, err)
	}
}

// TestCanary_Steered: what an operator decides holds for the very next request.
func TestCanary_Steered(t *testing.T) {
	answer := func(status int) string {
		return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s}\nspec: {hosts: [s.test], http: [{directResponse: {status: %d}}]}\n", status)
	}
	p := runProxy(t, "canary: {paths: [candidate], shadow: 1h}\n", map[string]string{"mesh/route.yaml": answer(201)})
	ask := func(when string, want int) {
		t.Helper()
		if status, _ := page("http://"+p.outbound+"/", "s.test"); status != want {
			t.Errorf("%s: status %d, want %d", when, status, want)
		}
	}
	p.write(t, "candidate/route.yaml", answer(202))
	eventually(t, "the candidate is in shadow", func() bool { return fetch[admin.Canary](t, p, "GET", "/config/canary").State == canary.Shadow })
	ask("in shadow", 201)
	if c := fetch[admin.Canary](t, p, "POST", "/config/canary?do=promote"); c.State != canary.Promoted {
		t.Errorf("it is %s, want promoted", c.State)
	}
	ask("promoted", 202)
}

// TestCanary_Retried: one that is tried again is judged by what it does from then on.
func TestCanary_Retried(t *testing.T) {
	entry := func(name, path string, h http.HandlerFunc) string {
		up := httptest.NewServer(h)
		t.Cleanup(up.Close)
		host, port, err := net.SplitHostPort(up.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: %s}\nspec: {hosts: [%s], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: %s, ports: {http: %s}}]}\n---\n", name, path, host, port)
	}
	var mended atomic.Bool
	services := entry("old", "old.test", func(w http.ResponseWriter, r *http.Request) {}) + entry("new", "new.test", func(w http.ResponseWriter, r *http.Request) {
		if !mended.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	route := func(host string) string {
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s}\nspec: {hosts: [s.test], http: [{route: [{destination: {host: " + host + "}}]}]}\n"
	}
	p := runProxy(t, "canary: {paths: [candidate], shadow: 0s, steps: [50], step: 1h}\n", map[string]string{"mesh/services.yaml": services, "mesh/route.yaml": route("old.test"), "candidate/route.yaml": route("new.test")})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		pour(500, stop, func(client *http.Client, n int) {
			req, _ := http.NewRequest("GET", "http://"+p.outbound, nil)
			req.Host = "s.test"
			if res, err := client.Do(req); err == nil {
				res.Body.Close()
			}
		})
	}()
	defer func() { close(stop); <-done }()
	state := func() admin.Canary { return fetch[admin.Canary](t, p, "GET", "/config/canary") }
	eventually(t, "the candidate is taken back", func() bool { return state().State == canary.Returned })
	failed := state().Candidate.Failed
	mended.Store(true)
	fetch[admin.Canary](t, p, "POST", "/config/canary?do=retry")
	var now admin.Canary
	eventually(t, "it is taken back, or has decided as many requests as before", func() bool {
		now = state()
		return now.State != canary.Partial || now.Candidate.Requests > failed+500
	})
	if now.State != canary.Partial || now.Candidate.Failed > 0 {
		t.Errorf("tried again: %s, %+v; %s", now.State, now.Candidate, now.Why)
	}
}

// TestCanary_NotPromoted: who promotes what cannot come into force is told why.
func TestCanary_NotPromoted(t *testing.T) {
	taken, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := runProxy(t, "canary: {paths: [candidate], shadow: 1h}\n", map[string]string{
		"mesh/a.yaml":      "# nothing\n",
		"candidate/a.yaml": "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {servers: [{port: {number: " + port + ", name: http, protocol: HTTP}, hosts: ['*']}]}\n",
	})
	eventually(t, "the candidate is in shadow", func() bool { return fetch[admin.Canary](t, p, "GET", "/config/canary").State == canary.Shadow })
	out, err := exec.Command(program, "config", "canary", "promote", "--admin", "http://"+p.admin).CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "isthmus: taken back as it was to hold for all: it cannot be published: ") || !strings.Contains(string(out), "address already in use") {
		t.Errorf("%s%v", out, err)
	}
}

// to is a VirtualService that sends to a subset.
func to(subset string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s}\nspec: {hosts: [s.test], http: [{route: [{destination: {host: s.test, subset: " + subset + "}}]}]}\n"
}

// TestSignals_WhileStarting: what asks for a reload, or for the log to be opened anew,
// ends no proxy that is not ready yet; of those that end it, the second does at once,
// unless it is the first one again, sent to the process and to its group.
func TestSignals_WhileStarting(t *testing.T) {
	for _, tt := range []struct {
		name    string
		signals []syscall.Signal
		apart   time.Duration
		ends    bool
	}{
		{"wishes", []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1}, 200 * time.Millisecond, false},
		{"two that end it", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 200 * time.Millisecond, true},
		{"one sent twice", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 20 * time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "mesh.yaml")
			empty := func() {
				if err := os.WriteFile(file, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			empty() // somebody may be about to write it: the start waits for three seconds
			cmd := exec.Command(program, "run", "--config", file)
			cmd.Env = append(os.Environ(), "ISTHMUS_LISTENERS_OUTBOUND=127.0.0.1:0", "ISTHMUS_LISTENERS_INBOUND=", "ISTHMUS_LISTENERS_ADMIN=", "ISTHMUS_LISTENERS_METRICS=")
			said, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() })
			time.Sleep(time.Second)
			var sent []time.Time
			for _, s := range tt.signals {
				empty()
				sent = append(sent, time.Now())
				cmd.Process.Signal(s)
				time.Sleep(tt.apart)
			}
			if gap := sent[1].Sub(sent[0]); tt.apart < oneSignal && gap > oneSignal*3/4 {
				t.Skipf("this machine is too busy: %v between two signals", gap)
			}
			late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
			defer late.Stop()
			ready := false
			for lines := bufio.NewScanner(said); !ready && lines.Scan(); {
				ready = strings.HasPrefix(lines.Text(), "isthmus ready")
			}
			if ready == tt.ends {
				t.Errorf("it has become ready: %v", ready)
			}
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
}

// TestRun_NobodyReads: a proxy whose lines nobody reads any more, those of the access log
// and its own, goes on.
func TestRun_NobodyReads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var outbound int
	if err := freePorts([]*int{&outbound}); err != nil {
		t.Fatal(err)
	}
	bootstrap, file := filepath.Join(dir, "isthmus.yaml"), filepath.Join(dir, "mesh.yaml")
	for path, text := range map[string]string{
		bootstrap: fmt.Sprintf("listeners: {outbound: 127.0.0.1:%d, inbound: '', admin: '', metrics: ''}\naccessLog: {path: /dev/stdout}\n", outbound),
		file:      "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s}\nspec: {hosts: [s.test], http: [{directResponse: {status: 201}}]}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "run", "--bootstrap", bootstrap, "--config", file)
	lines, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for words := bufio.NewScanner(said); words.Scan() && !strings.HasPrefix(words.Text(), "isthmus ready"); {
	}
	lines.Close()
	said.Close()
	for range 3 { // lines come 100 ms after their requests
		if status, _ := page(fmt.Sprintf("http://127.0.0.1:%d/", outbound), "s.test"); status != 201 {
			t.Fatalf("status %d, want 201", status)
		}
		time.Sleep(300 * time.Millisecond)
	}
}
