package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// probedApp is an application with a health page.
type probedApp struct {
	cluster string
	port    int
	status  atomic.Int32 // of /health
	asked   atomic.Int32 // requests by proxies that want to know whether it is there
	server  *httptest.Server
}

func (a *probedApp) start(t *testing.T) {
	t.Helper()
	l, err := listenAgain(fmt.Sprintf("127.0.0.1:%d", a.port))
	if err != nil {
		t.Fatal(err)
	}
	a.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-served-by", a.cluster)
		if r.Header.Get("x-isthmus-probe") != "" {
			a.asked.Add(1)
		}
		if r.URL.Path == "/health" {
			w.WriteHeader(int(a.status.Load()))
		}
	}))
	a.server.Listener.Close()
	a.server.Listener = l
	a.server.Start()
}

const probesConfig = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: %[1]d}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web}
spec:
  metadata: {labels: {app: web}}
  template: {}
  probe: {periodSeconds: 1, failureThreshold: 1, httpGet: {path: /health, port: %[1]d}}
`

const plainConfig = `apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: %d}]}
`

// startProbed runs a sidecar of an application in each of two clusters.
func startProbed(t *testing.T, config string) (m *demoMesh, apps [2]*probedApp, metrics [2]int) {
	t.Helper()
	m = &demoMesh{dir: t.TempDir(), program: program}
	var ports []*int
	for i, cluster := range []string{central, west} {
		n := &demoNode{name: "web", cluster: cluster}
		m.nodes = append(m.nodes, n)
		apps[i] = &probedApp{cluster: cluster}
		apps[i].status.Store(http.StatusOK)
		ports = append(ports, &n.outbound, &n.inbound, &n.admin, &n.gossip, &metrics[i], &apps[i].port)
	}
	if err := freePorts(ports); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i, n := range m.nodes {
			n.signal(syscall.SIGTERM)
			apps[i].server.Close()
			if log, err := os.ReadFile(n.log); err == nil && t.Failed() {
				t.Logf("%s:\n%s", n.cluster, log)
			}
		}
	})
	for i, n := range m.nodes {
		apps[i].start(t)
		dir := filepath.Join(m.dir, n.cluster)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{
			filepath.Join(dir, "mesh.yaml"): fmt.Sprintf(config, apps[i].port),
			m.bootstrapFile(n): fmt.Sprintf(`
node: {name: web, address: 127.0.0.1, cluster: %s, labels: {app: web}}
listeners: {outbound: "127.0.0.1:%d", inbound: "127.0.0.1:%d", admin: "127.0.0.1:%d", metrics: "127.0.0.1:%d"}
gossip: {bind: "127.0.0.1:%d", advertise: "127.0.0.1:%d", join: ["127.0.0.1:%d"]}
probes: {remote: {interval: 200ms}}
drain: {timeout: 1s}
`, n.cluster, n.outbound, n.inbound, n.admin, metrics[i], n.gossip, n.gossip, m.nodes[0].gossip),
		} {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.startNode(n); err != nil {
			t.Fatal(err)
		}
	}
	return m, apps, metrics
}

// reasonOf is what a proxy says of a cluster's endpoint of a service; "ready"
// if it is that.
func reasonOf(n *demoNode, service, cluster string) string {
	list, err := n.endpoints()
	if err != nil {
		return err.Error()
	}
	for _, e := range list {
		if e.Service == service && e.Cluster == cluster {
			if e.Healthy {
				return "ready"
			}
			return e.Reason
		}
	}
	return "unknown"
}

// TestProbes_Workload: an application says that it is not well; the proxy of
// another cluster stops sending to it, and goes on when it is well again.
func TestProbes_Workload(t *testing.T) {
	m, apps, metrics := startProbed(t, probesConfig)
	near := m.nodes[0]
	is := func(want string) {
		t.Helper()
		eventually(t, "the other cluster's endpoint is "+want, func() bool { return reasonOf(near, "web.default", west) == want })
	}
	is("ready")
	eventually(t, "the own endpoint is ready", func() bool { return reasonOf(near, "web.default", central) == "ready" })
	client := newDemoClient(near.outbound)
	if got := client.count(200, "web.default.global"); got[central]+got[west] != 200 || got[west] == 0 {
		t.Fatalf("all are well: served by %v, want both clusters", got)
	}
	apps[1].status.Store(http.StatusServiceUnavailable)
	is("probe: GET /health: 503")
	if got := client.count(200, "web.default.global"); got[central] != 200 {
		t.Errorf("one is not: served by %v, want all by %s", got, central)
	}
	out, err := exec.Command(program, "endpoints", "--admin", fmt.Sprintf("http://127.0.0.1:%d", near.admin)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "probe: GET /health: 503") {
		t.Errorf("isthmus endpoints: %v\n%s", err, out)
	}
	apps[1].status.Store(http.StatusOK)
	is("ready")
	if got := client.count(200, "web.default.global"); got[west] == 0 || got[central]+got[west] != 200 {
		t.Errorf("well again: served by %v, want both clusters", got)
	}
	if _, text := page(fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics[1]), ""); !strings.Contains(text, `isthmus_probes_total{of="workload",result="failure"}`) {
		t.Error("the metrics page has no isthmus_probes_total")
	}
}

// TestProbes_Remote: nobody has said how to probe the application; when it is
// gone, the proxy of another cluster finds out without a request.
func TestProbes_Remote(t *testing.T) {
	m, apps, _ := startProbed(t, plainConfig)
	near := m.nodes[0]
	is := func(want string) {
		t.Helper()
		eventually(t, "the other cluster's endpoint is "+want, func() bool { return reasonOf(near, "plain.default", west) == want })
	}
	is("ready")
	apps[1].server.Close()
	is("cannot be reached: connection refused")
	apps[1].start(t)
	is("ready")
	m.nodes[1].kill()
	eventually(t, "the endpoint of a proxy that was killed is not ready", func() bool {
		reason := reasonOf(near, "plain.default", west)
		return reason != "ready" && strings.Contains(reason, "connection refused")
	})
	if n := apps[0].asked.Load() + apps[1].asked.Load(); n != 0 {
		t.Errorf("%d questions between proxies have reached an application", n)
	}
}
