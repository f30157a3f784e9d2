package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"isthmus/deploy"
	"isthmus/mesh"
	"isthmus/tls"
)

// The two clusters of the demonstration.
const (
	central = "us-central"
	west    = "us-west"
)

// demoServices are the services that run in both clusters. user-service and
// order-service have a proxy each, since the example selects them by one label
// and limits the former's requests; the others share one.
var demoServices = []string{"user-service", "payment-service", "inventory-service", "catalog-service", "order-service"}

// demoDomains say which cluster the suffixes in the example's host names mean,
// for whom lives in us-central.
var demoDomains = map[string]string{"cluster.local": central, "cluster.remote": west, "cluster.backup": west, "cluster.premium": west}

// demoMesh is two clusters on loopback: a process for each proxy, and the
// applications of both in this one.
type demoMesh struct {
	dir     string
	more    string // behind each bootstrap file
	program string // isthmus itself
	nodes   []*demoNode
	apps    []*demoApp
}

// demoNode is one proxy.
type demoNode struct {
	name, cluster string
	labels        map[string]string
	sidecar       bool // it has applications beside it; else it is for callers
	alone         bool // it is on the machine outside of Kubernetes: no gossip, and little configuration

	outbound, inbound, gateway, admin, gossip int // ports on 127.0.0.1

	mu     sync.Mutex // guards cmd and exited
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	log    string        // file of its standard error
}

// demoApp is a sample application: it answers who and where it is.
type demoApp struct {
	service, cluster string
	address          string // IP
	port             int
	probed           []*int // ports at which it answers besides
	server           *http.Server
}

// elsewhere is where the example's machine outside of Kubernetes is: the
// order-service of us-west, once more, behind a proxy that gossips with nobody.
// A file says where it is.
const elsewhere = "127.0.0.2"

// newDemoMesh lays out configuration and ports in a folder, which it owns. more is
// what proxies' bootstrap files say besides.
func newDemoMesh(dir, more string) (*demoMesh, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &demoMesh{dir: dir, more: more, program: program}
	for _, cluster := range []string{central, west} {
		for _, s := range demoServices {
			m.apps = append(m.apps, &demoApp{service: s, cluster: cluster, address: "127.0.0.1"})
		}
		shared := map[string]string{"version": "v1"}
		for _, s := range demoServices[1:4] {
			shared[s] = "yes"
		}
		m.nodes = append(m.nodes,
			&demoNode{name: "callers", cluster: cluster, labels: map[string]string{"istio": "ingressgateway"}},
			&demoNode{name: "users", cluster: cluster, labels: map[string]string{"app": "user-service", "version": "v1"}, sidecar: true},
			&demoNode{name: "services", cluster: cluster, labels: shared, sidecar: true},
			&demoNode{name: "orders", cluster: cluster, labels: map[string]string{"app": "order-service", "version": "v2"}, sidecar: true},
		)
	}
	// The example's probe has one port for all workloads of the group, which is
	// another one in each cluster here.
	m.apps = append(m.apps, &demoApp{
		service: "order-service", cluster: west, address: elsewhere,
		probed: []*int{&m.app(central, "order-service").port, &m.app(west, "order-service").port},
	})
	m.nodes = append(m.nodes, &demoNode{name: "machine", cluster: west, labels: map[string]string{"app": "order-service", "version": "v2"}, sidecar: true, alone: true})
	return m, m.layOut()
}

// machine is the application at the example's WorkloadEntry.
func (m *demoMesh) machine() *demoApp { return m.apps[len(m.apps)-1] }

// layOut reserves ports and writes every file.
func (m *demoMesh) layOut() error {
	var ports []*int
	for _, n := range m.nodes {
		ports = append(ports, &n.outbound, &n.inbound, &n.gateway, &n.admin, &n.gossip)
	}
	for _, a := range m.apps {
		ports = append(ports, &a.port)
	}
	if err := freePorts(ports); err != nil {
		return err
	}
	var key [32]byte
	rand.Read(key[:])
	if err := os.WriteFile(filepath.Join(m.dir, "gossip.key"), []byte(base64.StdEncoding.EncodeToString(key[:])+"\n"), 0o600); err != nil {
		return err
	}
	for _, cluster := range []string{central, west} {
		if err := m.writeConfig(cluster); err != nil {
			return err
		}
	}
	if err := m.writeMachine(); err != nil {
		return err
	}
	if err := m.issue(); err != nil {
		return err
	}
	for _, n := range m.nodes {
		if err := os.WriteFile(m.bootstrapFile(n), []byte(m.bootstrap(n)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The ports of the demonstration lie below those that Linux gives to outgoing
// connections, or one of these could take the port of who is killed for a
// while.
const firstPort, lastPort = 10_000, 32_000

// freePorts finds ports that nobody listens on.
func freePorts(ports []*int) error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for _, p := range ports {
		for {
			*p = firstPort + mathrand.IntN(lastPort-firstPort)
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *p))
			if err == nil {
				held = append(held, l)
				break
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				return err
			}
		}
	}
	return nil
}

// issue gives every proxy a certificate of one authority, by which they speak
// mTLS to each other.
func (m *demoMesh) issue() error {
	dir := filepath.Join(m.dir, "certificates")
	a, err := tls.InitAuthority(dir, mesh.LocalDomain)
	if err != nil {
		return err
	}
	for _, n := range m.nodes {
		id, err := tls.SPIFFEID(mesh.LocalDomain, "production", n.name)
		if err != nil {
			return err
		}
		if _, err := a.Issue(tls.Request{ID: id, TTL: 24 * time.Hour}); err != nil {
			return err
		}
		for _, kind := range []string{"crt", "key"} {
			if err := os.Rename(filepath.Join(dir, "tls."+kind), filepath.Join(dir, n.cluster+"-"+n.name+"."+kind)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeMachine writes what the proxy on the machine has to know: its service, and
// that nobody speaks plain text.
func (m *demoMesh) writeMachine() error {
	dir := filepath.Join(m.dir, "machine")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "service.yaml"), []byte(fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: order-service, namespace: production}
spec: {selector: {app: order-service}, ports: [{name: http, port: 80, targetPort: %d}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`, m.machine().port)), 0o644)
}

// withoutTokens is the file of the example that refuses every request to
// user-service: it asks for a claim of tokens that nobody reads there.
const withoutTokens = "07-"

// writeConfig writes the example as the proxies of one cluster read it. The
// applications of both clusters share 127.0.0.1 here, so the target ports
// differ from the example's 8080.
func (m *demoMesh) writeConfig(cluster string) error {
	dir := filepath.Join(m.dir, cluster)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	const root = "examples/multicluster"
	files, err := fs.ReadDir(deploy.Examples, root)
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), withoutTokens) {
			continue
		}
		data, err := fs.ReadFile(deploy.Examples, path.Join(root, f.Name()))
		if err != nil {
			return err
		}
		text := string(data)
		for file, service := range map[string]string{"01-": "user-service", "02-": "order-service"} {
			if strings.HasPrefix(f.Name(), file) {
				text = strings.ReplaceAll(text, "targetPort: 8080", fmt.Sprintf("targetPort: %d", m.app(cluster, service).port))
			}
		}
		// The demonstration has less patience than the example.
		text = strings.ReplaceAll(text, "initialDelaySeconds: 5", "initialDelaySeconds: 0")
		text = strings.ReplaceAll(text, "periodSeconds: 30", "periodSeconds: 1")
		text = strings.ReplaceAll(text, "path: /health\n      port: 8080", fmt.Sprintf("path: /health\n      port: %d", m.app(cluster, "order-service").port))
		// The example's WorkloadEntry is a machine in us-west.
		text = strings.ReplaceAll(text, "address: 10.10.10.10\n  ports:\n    http: 80\n", fmt.Sprintf("address: %s\n  network: %s\n  ports:\n    http: %d\n", elsewhere, west, m.node(west, "machine").inbound))
		if err := os.WriteFile(filepath.Join(dir, f.Name()), []byte(text), 0o644); err != nil {
			return err
		}
	}
	var more strings.Builder
	for _, s := range demoServices[1:4] {
		fmt.Fprintf(&more, `apiVersion: v1
kind: Service
metadata: {name: %s, namespace: production}
spec:
  selector: {%s: "yes"}
  ports: [{name: http, port: 80, targetPort: %d}]
---
`, s, s, m.app(cluster, s).port)
	}
	return os.WriteFile(filepath.Join(dir, "20-more-services.yaml"), []byte(more.String()), 0o644)
}

func (m *demoMesh) app(cluster, service string) *demoApp {
	for _, a := range m.apps {
		if a.cluster == cluster && a.service == service {
			return a
		}
	}
	return nil
}

func (m *demoMesh) node(cluster, name string) *demoNode {
	for _, n := range m.nodes {
		if n.cluster == cluster && n.name == name {
			return n
		}
	}
	return nil
}

func (m *demoMesh) bootstrapFile(n *demoNode) string {
	return filepath.Join(m.dir, n.cluster+"-"+n.name+".yaml")
}

// demoLocality is where a cluster is.
func demoLocality(cluster string) string { return cluster + "1/" + cluster + "1-a" }

func (m *demoMesh) bootstrap(n *demoNode) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node:\n  name: %s\n  address: 127.0.0.1\n  cluster: %s\n  locality: %s\n  namespace: production\n  serviceAccount: %s\n  labels:\n", n.name, n.cluster, demoLocality(n.cluster), n.name)
	for k, v := range n.labels {
		fmt.Fprintf(&b, "    %s: %q\n", k, v)
	}
	b.WriteString("domains:\n")
	for d, c := range demoDomains {
		if n.cluster == west { // seen from there, the others are the others
			c = map[string]string{central: west, west: central}[c]
		}
		fmt.Fprintf(&b, "  %s: %s\n", d, c)
	}
	inbound := ""
	switch {
	case n.alone:
		inbound = fmt.Sprintf("%s:%d", elsewhere, n.inbound)
	case n.sidecar:
		inbound = fmt.Sprintf("127.0.0.1:%d", n.inbound)
	}
	certificate := filepath.Join("certificates", n.cluster+"-"+n.name)
	fmt.Fprintf(&b, `listeners:
  outbound: 127.0.0.1:%d
  inbound: %q
  gateway: {bind: 127.0.0.1, ports: {80: %d}}
  admin: 127.0.0.1:%d
  metrics: ""
certificates: {cert: %s.crt, key: %s.key, ca: certificates/ca.crt}
drain: {timeout: 5s}
%s`, n.outbound, inbound, n.gateway, n.admin, certificate, certificate, m.more)
	if n.alone {
		return b.String()
	}
	fmt.Fprintf(&b, `gossip:
  bind: 127.0.0.1:%d
  advertise: 127.0.0.1:%d
  join: [127.0.0.1:%d, 127.0.0.1:%d]
  keys: [gossip.key]
`, n.gossip, n.gossip, m.node(central, "callers").gossip, m.node(west, "callers").gossip)
	return b.String()
}

// start starts all applications and proxies, and waits until every proxy is
// ready and knows all the others.
func (m *demoMesh) start(ctx context.Context) error {
	for _, cluster := range []string{central, west} {
		if err := m.startCluster(cluster, true); err != nil {
			return err
		}
	}
	return m.settled(ctx)
}

// startCluster starts the applications and sidecars of a cluster, and its
// callers' proxy too if all says so.
func (m *demoMesh) startCluster(cluster string, all bool) error {
	for _, a := range m.apps {
		if a.cluster == cluster {
			if err := a.start(); err != nil {
				return err
			}
		}
	}
	for _, n := range m.nodes {
		if n.cluster == cluster && (n.sidecar || all) {
			if err := m.startNode(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// killCluster kills the applications and sidecars of a cluster. Those who call
// them, on another machine as it were, live on.
func (m *demoMesh) killCluster(cluster string) {
	for _, n := range m.nodes {
		if n.cluster == cluster && n.sidecar {
			n.kill()
		}
	}
	for _, a := range m.apps {
		if a.cluster == cluster {
			a.server.Close()
		}
	}
}

func (m *demoMesh) startNode(n *demoNode) error {
	n.log = filepath.Join(m.dir, n.cluster+"-"+n.name+".log")
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	config := filepath.Join(m.dir, n.cluster)
	if n.alone {
		config = filepath.Join(m.dir, "machine")
	}
	cmd := exec.Command(m.program, "run", "--bootstrap", m.bootstrapFile(n), "--config", config)
	// Whatever ISTHMUS_ variables this process has are not meant for the children.
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ISTHMUS_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for us alone
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { // ends with the process
		cmd.Wait()
		close(exited)
	}()
	n.mu.Lock()
	n.cmd, n.exited = cmd, exited
	n.mu.Unlock()
	return nil
}

func (n *demoNode) kill() {
	n.signal(syscall.SIGKILL)
}

// signal sends a signal and waits for the process to end.
func (n *demoNode) signal(s os.Signal) {
	n.mu.Lock()
	cmd, exited := n.cmd, n.exited
	n.cmd = nil
	n.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(s)
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		cmd.Process.Kill()
		<-exited
	}
}

// stop ends everything, the proxies in order.
func (m *demoMesh) stop() {
	var wg sync.WaitGroup
	for _, n := range m.nodes {
		wg.Go(func() { n.signal(syscall.SIGTERM) })
	}
	wg.Wait()
	for _, a := range m.apps {
		if a.server != nil {
			a.server.Close()
		}
	}
}

// settled waits until the callers' proxies know every service of both clusters
// as healthy.
func (m *demoMesh) settled(ctx context.Context) error {
	for _, n := range m.nodes {
		for !n.alone {
			missing, err := m.missing(n)
			if err == nil && missing == 0 {
				break
			}
			if err := n.alive(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s in %s still misses %d endpoints: %w", n.name, n.cluster, missing, errors.Join(err, ctx.Err()))
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// missing counts the announced endpoints that a proxy does not know as healthy.
func (m *demoMesh) missing(n *demoNode) (int, error) {
	list, err := n.endpoints()
	if err != nil {
		return 0, err
	}
	want := map[string]bool{}
	for _, a := range m.apps {
		want[a.service+".production "+a.cluster] = true
	}
	for _, e := range list {
		if e.Healthy && e.Source == "gossip" {
			delete(want, e.Service+" "+e.Cluster)
		}
	}
	return len(want), nil
}

// alive returns the last words of a proxy that has ended by itself.
func (n *demoNode) alive() error {
	n.mu.Lock()
	exited := n.exited
	running := n.cmd != nil
	n.mu.Unlock()
	if !running {
		return nil
	}
	select {
	case <-exited:
		return fmt.Errorf("the proxy %s in %s has ended: %s", n.name, n.cluster, lastLine(n.log))
	default:
		return nil
	}
}

func lastLine(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	last := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		last = s.Text()
	}
	return last
}

// start opens the application's ports.
func (a *demoApp) start() error {
	a.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("x-served-by", a.service+"."+a.cluster)
		fmt.Fprintf(w, "%s in %s\n", a.service, a.cluster)
	})}
	addresses := []string{fmt.Sprintf("127.0.0.1:%d", a.port)}
	for _, port := range a.probed {
		addresses = append(addresses, fmt.Sprintf("%s:%d", a.address, *port))
	}
	for _, address := range addresses {
		l, err := listenAgain(address)
		if err != nil {
			return err
		}
		go a.server.Serve(l) // ends with Close
	}
	return nil
}

// listenAgain opens a port; that of one that was just closed may still be
// taken.
func listenAgain(address string) (l net.Listener, err error) {
	for range 50 {
		if l, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return l, err
}
