// Command peers measures Isthmus beside HAProxy and nginx, on loopback and one
// after the other: each is started with one thread on CPU 0, gets the same
// requests from wrk on CPU 1, where the upstream is too, and is stopped again.
// Rounds alternate, so that a noisy moment hits all alike; the table gives
// medians and the ratio to HAProxy of the same run.
//
// What counts is the CPU time of the proxy for each request (user and system,
// from /proc): it hardly depends on how fast the load is, which throughput
// does, since the load's CPU is the bottleneck here.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is a proxy to measure.
type peer struct {
	name    string
	version []string
	files   func(dir string, port, upstream int) map[string]string
	args    func(dir string) []string
}

// load is a kind of requests.
type load struct {
	name string
	args []string
}

var loads = []load{
	{"keep-alive, 64 connections, 1 KiB", []string{"-c", "64"}},
	{"a connection for each request", []string{"-c", "64", "-H", "Connection: close"}},
}

// usualHeaders are what requests carry beside Host.
var usualHeaders = []string{
	"-H", "User-Agent: bench/1.0 (X11; Linux x86_64)", "-H", "Accept: application/json, text/plain, */*",
	"-H", "Accept-Encoding: gzip, deflate", "-H", "Accept-Language: en-US,en;q=0.9",
	"-H", "X-Request-Id: 7f3c0a52-5f0e-4c0b-9a55-0c4f8f2d9e11",
	"-H", "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}

func main() {
	isthmus := flag.String("isthmus", "bin/isthmus", "the binary to measure")
	rounds := flag.Int("rounds", 5, "how often each is measured")
	seconds := flag.Int("seconds", 4, "how long each time")
	out := flag.String("out", "", "file to write the table to, as well")
	serve := flag.String("serve", "", "be the upstream, at this address")
	flag.Parse()
	if *serve != "" {
		log.Fatal(upstream(*serve))
	}
	if runtime.NumCPU() < 2 {
		log.Fatal("two CPUs are needed: one for the proxy, one for the load")
	}
	path, err := filepath.Abs(*isthmus)
	check(err)
	table := measure(peers(path), *rounds, *seconds)
	fmt.Print(table)
	if *out != "" {
		text := "# How fast is it?\n\nMade by `make bench-peers`. " + machine() + "\n\n" + table
		check(os.WriteFile(*out, []byte(text), 0o644))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// upstream answers with 1 KiB, as fast as it can.
func upstream(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	body := strings.Repeat("x", 1024)
	reply := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: upstream\r\nContent-Length: 1024\r\n\r\n" + body)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { // ends with the connection
			defer c.Close()
			buf := make([]byte, 16<<10)
			for n := 0; ; {
				m, err := c.Read(buf[n:])
				if err != nil {
					return
				}
				n += m
				if n >= 4 && string(buf[n-4:n]) == "\r\n\r\n" {
					n = 0
					if _, err := c.Write(reply); err != nil {
						return
					}
				}
			}
		}()
	}
}

func peers(isthmus string) []peer {
	return []peer{
		{
			name: "isthmus", version: []string{isthmus, "version"},
			files: func(dir string, port, up int) map[string]string {
				return map[string]string{
					"node.yaml": fmt.Sprintf(`node: {name: bench, cluster: c1, locality: r1/z1, namespace: default, address: 127.0.0.1, labels: {istio: ingressgateway}}
listeners: {outbound: "", inbound: "", admin: "", metrics: "", gateway: {bind: 127.0.0.1, ports: {80: %d}}}
`, port),
					"mesh.yaml": fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s}
spec:
  hosts: [s.bench]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: %d}, locality: r1/z1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s}
spec:
  hosts: ["*"]
  gateways: [gw]
  http: [{route: [{destination: {host: s.bench}}]}]
`, up),
				}
			},
			args: func(dir string) []string {
				return []string{isthmus, "run", "--bootstrap", filepath.Join(dir, "node.yaml"), "--config", filepath.Join(dir, "mesh.yaml")}
			},
		},
		{
			name: "haproxy", version: []string{"haproxy", "-v"},
			files: func(dir string, port, up int) map[string]string {
				return map[string]string{"haproxy.cfg": fmt.Sprintf(`global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
frontend in
  bind 127.0.0.1:%d
  default_backend out
backend out
  server s1 127.0.0.1:%d
`, port, up)}
			},
			args: func(dir string) []string { return []string{"haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")} },
		},
		{
			name: "nginx", version: []string{"nginx", "-v"},
			files: func(dir string, port, up int) map[string]string {
				return map[string]string{"nginx.conf": fmt.Sprintf(`daemon off;
worker_processes 1;
pid %[3]s/nginx.pid;
error_log %[3]s/error.log error;
events { worker_connections 16384; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path %[3]s/cb; proxy_temp_path %[3]s/pt; fastcgi_temp_path %[3]s/ft; uwsgi_temp_path %[3]s/ut; scgi_temp_path %[3]s/st;
  upstream out { server 127.0.0.1:%[2]d; keepalive 2048; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:%[1]d backlog=4096;
    location / {
      proxy_pass http://out;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`, port, up, dir)}
			},
			args: func(dir string) []string {
				return []string{"nginx", "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", filepath.Join(dir, "nginx.conf")}
			},
		},
	}
}

// row is what was measured of one peer under one load, a value for each round.
type row struct{ cpu, rps, p50, p99 []float64 }

func measure(list []peer, rounds, seconds int) string {
	dir, err := os.MkdirTemp("", "peers-")
	check(err)
	defer os.RemoveAll(dir)
	check(os.Chmod(dir, 0o755)) // nginx's worker is another user
	up := freePort()
	self, err := os.Executable()
	check(err)
	u := start([]string{self, "-serve", fmt.Sprintf("127.0.0.1:%d", up)}, "1")
	defer u.stop()
	waitFor(up)

	rows := map[string]*row{}
	for round := range rounds {
		for _, p := range list {
			port := freePort()
			home := filepath.Join(dir, p.name)
			check(os.MkdirAll(home, 0o755))
			for name, text := range p.files(home, port, up) {
				check(os.WriteFile(filepath.Join(home, name), []byte(text), 0o644))
			}
			proc := start(p.args(home), "0")
			waitFor(port)
			res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			check(err)
			if body, _ := io.ReadAll(res.Body); len(body) != 1024 {
				log.Fatalf("%s: a body of %d bytes", p.name, len(body))
			}
			res.Body.Close()
			for _, l := range loads {
				wrk(l, port, 1) // warm up
				before := proc.cpu()
				n, rps, p50, p99 := wrk(l, port, seconds)
				key := l.name + " " + p.name
				if rows[key] == nil {
					rows[key] = &row{}
				}
				r := rows[key]
				r.cpu = append(r.cpu, (proc.cpu()-before)/float64(n)*1e6)
				r.rps, r.p50, r.p99 = append(r.rps, rps), append(r.p50, p50), append(r.p99, p99)
				fmt.Fprintf(os.Stderr, "round %d, %s, %s: %.1f µs a request\n", round+1, l.name, p.name, r.cpu[len(r.cpu)-1])
			}
			proc.stop()
		}
	}
	return table(list, rows, rounds, seconds)
}

func table(list []peer, rows map[string]*row, rounds, seconds int) string {
	var b strings.Builder
	for _, l := range loads {
		fmt.Fprintf(&b, "## %s%s\n\n| | CPU µs a request | of HAProxy's | requests a second | p50 µs | p99 µs |\n| --- | --- | --- | --- | --- | --- |\n", strings.ToUpper(l.name[:1]), l.name[1:])
		base := median(rows[l.name+" haproxy"].cpu)
		for _, p := range list {
			r := rows[l.name+" "+p.name]
			fmt.Fprintf(&b, "| %s | %.1f | %.2f | %.0f | %.0f | %.0f |\n", p.name, median(r.cpu), median(r.cpu)/base, median(r.rps), median(r.p50), median(r.p99))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "Medians of %d rounds of %d s. One thread each, on a CPU of its own; load and upstream share the other, which bounds the throughput.\n", rounds, seconds)
	for _, p := range list {
		out, _ := exec.Command(p.version[0], p.version[1:]...).CombinedOutput()
		line, _, _ := strings.Cut(string(out), "\n")
		fmt.Fprintf(&b, "\n- %s: %s", p.name, strings.TrimSuffix(strings.TrimSpace(line), " - https://haproxy.org/"))
	}
	b.WriteByte('\n')
	return b.String()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func waitFor(port int) {
	for range 500 {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	log.Fatalf("nobody listens on port %d", port)
}

// process is a peer in a session of its own.
type process struct{ cmd *exec.Cmd }

func start(args []string, cpu string) process {
	cmd := exec.Command("taskset", append([]string{"-c", cpu}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	check(cmd.Start())
	return process{cmd}
}

func (p process) stop() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	done := make(chan struct{})
	go func() { p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
}

// tick is the unit of times in /proc (USER_HZ), which is 100 on every Linux.
const tick = 100

// cpu is how many seconds all processes of the session have computed.
func (p process) cpu() float64 {
	var ticks int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // has just ended
		}
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+2:])
		if session, _ := strconv.Atoi(fields[3]); session != p.cmd.Process.Pid {
			continue
		}
		for _, i := range []int{11, 12, 13, 14} { // utime stime cutime cstime
			n, _ := strconv.Atoi(fields[i])
			ticks += n
		}
	}
	return float64(ticks) / tick
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkQuantile = regexp.MustCompile(`\s(50|99)%\s+([\d.]+)(us|ms|s)`)
)

// wrk sends requests and returns how many, how fast, and how long they took.
func wrk(l load, port, seconds int) (n int, rps, p50, p99 float64) {
	args := append([]string{"-c", "1", "wrk", "-t", "1", "-d", fmt.Sprint(seconds), "--latency"}, l.args...)
	args = append(append(args, usualHeaders...), fmt.Sprintf("http://127.0.0.1:%d/", port))
	out, err := exec.Command("taskset", args...).CombinedOutput()
	if err != nil {
		log.Fatalf("wrk: %v\n%s", err, out)
	}
	text := string(out)
	if strings.Contains(text, "Non-2xx") {
		log.Fatalf("not all replies were good:\n%s", text)
	}
	n, _ = strconv.Atoi(wrkRequests.FindStringSubmatch(text)[1])
	rps, _ = strconv.ParseFloat(wrkRate.FindStringSubmatch(text)[1], 64)
	unit := map[string]float64{"us": 1, "ms": 1e3, "s": 1e6}
	for _, m := range wrkQuantile.FindAllStringSubmatch(text, -1) {
		v, _ := strconv.ParseFloat(m[2], 64)
		if m[1] == "50" {
			p50 = v * unit[m[3]]
		} else {
			p99 = v * unit[m[3]]
		}
	}
	return n, rps, p50, p99
}

// machine says what this was measured on.
func machine() string {
	model := "an unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(b); m != nil {
			model = string(m[1])
		}
	}
	return fmt.Sprintf("%s, %d CPUs, %s.", model, runtime.NumCPU(), runtime.Version())
}
