package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"isthmus/handover"
)

// handed is a proxy that is replaced, with a file of its own for the program.
type handed struct {
	t       *testing.T
	dir     string
	program string
	admin   string
	current int // the process in charge
}

// runHanded starts it. Whatever of it is left is killed in the end.
func runHanded(t *testing.T, dir, bootstrap, admin string) *handed {
	t.Helper()
	return runHandedAs(t, dir, bootstrap, admin, nil)
}

// runHandedAs starts it in a way of its own. Where the system does not allow that, the test
// is skipped.
func runHandedAs(t *testing.T, dir, bootstrap, admin string, as *syscall.SysProcAttr) *handed {
	t.Helper()
	h := &handed{t: t, dir: dir, program: filepath.Join(dir, "isthmus"), admin: admin}
	h.install(program)
	if err := os.WriteFile(filepath.Join(dir, "node.yaml"), []byte(bootstrap), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(h.program, "run", "--bootstrap", "node.yaml", "--config", "mesh")
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = dir, log, log, as
	if err := cmd.Start(); as != nil && err != nil {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	h.current = cmd.Process.Pid
	go cmd.Wait()
	t.Cleanup(func() {
		for _, m := range regexp.MustCompile(`successor=(\d+)`).FindAllStringSubmatch(h.log(), -1) {
			pid, _ := strconv.Atoi(m[1])
			syscall.Kill(pid, syscall.SIGKILL)
		}
		cmd.Process.Kill()
		if t.Failed() {
			t.Logf("%s:\n%s", dir, h.log())
		}
	})
	eventually(t, "the proxy is ready", func() bool {
		status, _ := page("http://"+admin+"/ready", "")
		return status == http.StatusOK
	})
	return h
}

// install puts a program in the place of the one that runs, as packages do.
func (h *handed) install(from string) {
	h.t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(h.program+".new", text, 0o755)
	}
	if err == nil {
		err = os.Rename(h.program+".new", h.program)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *handed) log() string {
	text, _ := os.ReadFile(filepath.Join(h.dir, "log"))
	return string(text)
}

// handOver asks for it, and returns what the log says of it, up to an end.
func (h *handed) handOver(end string) string {
	h.t.Helper()
	before := len(h.log())
	if err := syscall.Kill(h.current, syscall.SIGUSR2); err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, end, func() bool { return strings.Contains(h.log()[before:], end) })
	said := h.log()[before:]
	if m := regexp.MustCompile(`msg="handed over" successor=(\d+)`).FindStringSubmatch(said); m != nil {
		h.current, _ = strconv.Atoi(m[1])
	}
	return said
}

// TestHandOver: a proxy is replaced by newer programs, by none that is any good, and with
// files that are not, while requests go on, by kept connections, new ones and one of HTTP/2, to a
// service that it knows by gossip alone. None fails.
func TestHandOver(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	t.Cleanup(app.Close)
	_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
	var ports [7]int
	var all []*int
	for i := range ports {
		all = append(all, &ports[i])
	}
	if err := freePorts(all); err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	callee := &running{dir: t.TempDir()}
	callee.write(t, "mesh/service.yaml", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: prod}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: %s}]}\n", port))
	runHanded(t, callee.dir, fmt.Sprintf(`node: {name: callee, address: 127.0.0.1, cluster: far, namespace: prod, labels: {app: web}}
listeners: {outbound: "", inbound: %q, admin: %q, metrics: ""}
gossip: {bind: %q, advertise: %q}
`, at(0), at(1), at(2), at(2)), at(1))
	caller := &running{dir: t.TempDir()}
	const nothing = "apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: prod}\nspec: {ports: [{name: http, port: 80}]}\n"
	caller.write(t, "mesh/service.yaml", nothing)
	bootstrap := fmt.Sprintf(`node: {name: caller, address: 127.0.0.1, cluster: near, namespace: prod}
listeners: {outbound: %q, inbound: "", admin: %q, metrics: %q}
gossip: {bind: %q, advertise: %q, join: [%q]}
drain: {timeout: 3s}
`, at(3), at(4), at(6), at(5), at(5), at(2))
	h := runHanded(t, caller.dir, bootstrap, at(4))
	ask := func(client *http.Client) error {
		req, err := http.NewRequest("GET", "http://"+at(3)+"/", nil)
		if err != nil {
			return err
		}
		req.Host = "web.prod.global"
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err == nil && (res.StatusCode != 200 || string(body) != "here") {
			err = fmt.Errorf("status %d: %s", res.StatusCode, body)
		}
		return err
	}
	eventually(t, "the service is known", func() bool { return ask(http.DefaultClient) == nil })
	http.DefaultClient.CloseIdleConnections()
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	shared := &http.Client{Transport: &http.Transport{Protocols: &http2}, Timeout: 20 * time.Second}
	t.Cleanup(shared.CloseIdleConnections)
	var sent atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		pour(400, stop, func(client *http.Client, n int) {
			switch n % 3 {
			case 0:
				client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
			case 1:
				client = shared
			}
			if err := ask(client); err != nil {
				t.Errorf("request %d: %v", n, err)
			}
			sent.Add(1)
		})
	}()
	flow := func() { // some requests more
		t.Helper()
		before := sent.Load()
		eventually(t, "requests go on", func() bool { return sent.Load() > before+200 })
	}
	script := func(text string) string {
		file := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	flow()
	for _, tt := range []struct {
		name, program string
		config        string
		node          string // the bootstrap file
		end           string // what the log says then
		taken         bool   // another process is in charge
	}{
		{"the same program", program, nothing, bootstrap, "drained", true},
		{"and once more", program, nothing, bootstrap, "drained", true},
		{"files with an error", program, "kind: Nonsense: x", bootstrap, "everything goes on as before", false},
		{"an admin port that somebody has", program, nothing, strings.Replace(bootstrap, at(4), "127.0.0.1:"+port, 1), "everything goes on as before", false},
		{"a port for gossip that somebody has", program, nothing, strings.ReplaceAll(bootstrap, at(5), "127.0.0.1:"+port), "everything goes on as before", false},
		{"an address for gossip that is not here", program, nothing, strings.Replace(bootstrap, at(5), fmt.Sprintf("192.0.2.1:%d", ports[5]), 1), "everything goes on as before", false},
		{"a program that ends", script("exit 3\n"), nothing, bootstrap, "everything goes on as before", false},
		{"a program that ends when it is its turn", script("echo prepared >&3; read go <&3; exit 4\n"), nothing, bootstrap, "drained", true},
		{"a good one again", program, nothing, bootstrap, "drained", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			h.install(tt.program)
			if tt.config != nothing {
				caller.overwrite(t, "mesh/service.yaml", tt.config)
				defer caller.overwrite(t, "mesh/service.yaml", nothing)
			}
			caller.overwrite(t, "node.yaml", tt.node)
			before := h.current
			said := h.handOver(tt.end)
			if taken := h.current != before; taken != tt.taken {
				t.Errorf("another process is in charge: %v, want %v:\n%s", taken, tt.taken, said)
			}
			flow()
			if tt.taken {
				eventually(t, "the process before is gone", func() bool { return syscall.Kill(before, 0) != nil })
			}
			for _, page := range []string{"http://" + at(4) + "/ready", "http://" + at(6) + "/healthz/ready"} {
				res, err := http.Get(page)
				if err != nil || res.StatusCode != http.StatusOK {
					t.Errorf("%s: %v, %v", page, res, err)
				}
			}
			flow()
		})
	}
	close(stop)
	<-done
	t.Logf("%d requests", sent.Load())
}

// TestHandOver_Told: what a proxy is told while its successor reads its files is not lost: one
// that is to end or to drain has none, and of another replacement the successor hears.
func TestHandOver_Told(t *testing.T) {
	for _, tt := range []struct {
		name string
		tell func(t *testing.T, h *handed)
		late bool     // told when the hand-over cannot be stopped any more, by a successor that ends then
		says []string // the log, in the end
		here int      // what the first process says at /ready then; 0: it is gone
	}{
		{"to end", func(t *testing.T, h *handed) { post(t, h, "/quitquitquit", 200) }, false, []string{"told to end", "drained"}, 0},
		{"to end, late", func(t *testing.T, h *handed) { post(t, h, "/quitquitquit", 200) }, true, []string{"not handed over, and gossip is over", "msg=draining"}, 0},
		{"to drain", func(t *testing.T, h *handed) { post(t, h, "/drain", 200) }, false, []string{"told to end, or to drain"}, 503},
		{"to drain, late", func(t *testing.T, h *handed) { post(t, h, "/drain", 409) }, true, []string{"takes its place", "handed over"}, 0},
		{"to be replaced again", func(t *testing.T, h *handed) { syscall.Kill(h.current, syscall.SIGUSR2) }, false, []string{"handed over", "handed over"}, 0},
		{"to roll back", func(t *testing.T, h *handed) {
			r := &running{dir: h.dir}
			r.overwrite(t, "mesh/service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: worse, namespace: prod}\nspec: {ports: [{name: http, port: 80}]}\n")
			eventually(t, "the worse one is in force", func() bool { return strings.Contains(h.log(), "revision=2") })
			post(t, h, "/config/rollback?to=1", 200)
		}, false, []string{"not handed over"}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var admin, outbound, gossip int
			if err := freePorts([]*int{&admin, &outbound, &gossip}); err != nil {
				t.Fatal(err)
			}
			r := &running{dir: t.TempDir()}
			r.write(t, "mesh/service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: prod}\nspec: {ports: [{name: http, port: 80}]}\n")
			h := runHanded(t, r.dir, fmt.Sprintf(`node: {name: a, address: 127.0.0.1, cluster: near, namespace: prod}
listeners: {outbound: "127.0.0.1:%d", inbound: "", admin: "127.0.0.1:%d", metrics: ""}
gossip: {bind: "127.0.0.1:%d"}
drain: {timeout: 2s}
`, outbound, admin, gossip), fmt.Sprintf("127.0.0.1:%d", admin))
			slow, begun, proceed := filepath.Join(t.TempDir(), "slow"), filepath.Join(r.dir, "begun"), filepath.Join(r.dir, "proceed")
			before, after := "", fmt.Sprintf("exec %s \"$@\"", program)
			if tt.late {
				before, after = "echo prepared >&3; read go <&3", "exit 4"
			}
			if err := os.WriteFile(slow, fmt.Appendf(nil, "#!/bin/sh\n%s\ntouch %s\nuntil [ -e %s ]; do sleep 0.02; done\n%s\n", before, begun, proceed, after), 0o755); err != nil {
				t.Fatal(err)
			}
			h.install(slow)
			syscall.Kill(h.current, syscall.SIGUSR2)
			eventually(t, "the successor begins", func() bool {
				_, err := os.Stat(begun)
				return err == nil
			})
			tt.tell(t, h)
			r.write(t, "proceed", "")
			eventually(t, "the log says all", func() bool {
				said := h.log()
				for _, want := range tt.says {
					_, after, ok := strings.Cut(said, want)
					if !ok {
						return false
					}
					said = after
				}
				return true
			})
			if tt.here != 0 {
				if status, _ := page("http://"+h.admin+"/ready", ""); status != tt.here {
					t.Errorf("/ready: %d, want %d", status, tt.here)
				}
			} else {
				eventually(t, "the first process is gone", func() bool { return syscall.Kill(h.current, 0) != nil })
			}
		})
	}
}

// TestHandOver_Killed: a successor whose predecessor is killed takes its place, though the port
// of gossip is closed a moment later than it learns of that. The test is the predecessor.
func TestHandOver_Killed(t *testing.T) {
	var admin, port int
	if err := freePorts([]*int{&admin, &port}); err != nil {
		t.Fatal(err)
	}
	r := &running{dir: t.TempDir()}
	r.write(t, "mesh/service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: prod}\nspec: {ports: [{name: http, port: 80}]}\n")
	gossip := fmt.Sprintf("127.0.0.1:%d", port)
	r.write(t, "node.yaml", fmt.Sprintf(`node: {name: a, address: 127.0.0.1, cluster: near, namespace: prod}
listeners: {outbound: "127.0.0.1:0", inbound: "", admin: "127.0.0.1:%d", metrics: ""}
gossip: {bind: %q}
`, admin, gossip))
	l, err := net.Listen("tcp", gossip)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	args := os.Args
	os.Args = []string{program, "run", "--bootstrap", filepath.Join(r.dir, "node.yaml"), "--config", filepath.Join(r.dir, "mesh")}
	next, err := handover.Start(program, nil, gossip)
	os.Args = args
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(next.PID, syscall.SIGKILL) })
	if err := next.Prepared(t.Context().Done()); err != nil {
		t.Fatal(err)
	}
	next.Release()
	time.Sleep(100 * time.Millisecond) // it tries
	l.Close()
	eventually(t, "the successor is ready", func() bool {
		status, _ := page(fmt.Sprintf("http://127.0.0.1:%d/ready", admin), "")
		return status == http.StatusOK
	})
}

// TestHandOver_First: the first process of a container is not replaced, since the container
// would end with it.
func TestHandOver_First(t *testing.T) {
	var admin int
	if err := freePorts([]*int{&admin}); err != nil {
		t.Fatal(err)
	}
	r := &running{dir: t.TempDir()}
	r.write(t, "mesh/service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: prod}\nspec: {ports: [{name: http, port: 80}]}\n")
	h := runHandedAs(t, r.dir, fmt.Sprintf("node: {name: a, address: 127.0.0.1}\nlisteners: {outbound: \"127.0.0.1:0\", inbound: \"\", admin: \"127.0.0.1:%d\", metrics: \"\"}\n", admin),
		fmt.Sprintf("127.0.0.1:%d", admin), &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		})
	h.handOver("this is the first process of a container")
	if status, _ := page("http://"+h.admin+"/ready", ""); status != http.StatusOK {
		t.Errorf("/ready: %d", status)
	}
}

// TestPassOn: what this process is told after its successor was told is refused, and not lost.
func TestPassOn(t *testing.T) {
	s := &server{quit: make(chan struct{})}
	s.passOn(t.Context(), wishes{}, -1) // nothing
	if err := s.Quit(); err == nil {
		t.Error("it is told to end, and nobody ends")
	}
	s = &server{quit: make(chan struct{})}
	if err := s.Quit(); err != nil {
		t.Error(err)
	}
	<-s.quit
}

func post(t *testing.T, h *handed, path string, want int) {
	t.Helper()
	res, err := http.Post("http://"+h.admin+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != want {
		t.Errorf("%s: %s, want %d", path, res.Status, want)
	}
}
