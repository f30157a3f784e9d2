package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSoak has two clusters live through the same troubles over and over, under
// load by HTTP/1.1 and HTTP/2, with everything logged: a cluster is killed and comes
// back, a proxy leaves and returns, files change. No request fails, and what a proxy
// takes that has been there all the time is in the end what it took after the second
// round, by which pools are filled. ISTHMUS_SOAK says how long; make soak does it.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("ISTHMUS_SOAK"))
	if err != nil {
		t.Skip("ISTHMUS_SOAK is not set: make soak does this")
	}
	m := startMesh(t, "accessLog: {path: /dev/null, format: json}\n")
	witnesses := []*demoNode{m.node(central, "callers"), m.node(west, "callers"), m.node(west, "services")}
	hosts := []string{"order-service.production.global", "catalog-service.production.global", "inventory-service.production.global", "payment-service.production.global"}
	var loads []*steadyLoad
	for _, n := range witnesses[:2] {
		shared := newDemoClient(n.outbound)
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		shared.client.Transport.(*http.Transport).Protocols = p
		loads = append(loads, newDemoClient(n.outbound).steady(8, 4*time.Millisecond, hosts...), shared.steady(8, 4*time.Millisecond, hosts...))
	}
	sent := func() (n int) {
		for _, l := range loads {
			some, _, _ := l.now()
			n += some
		}
		return n
	}
	more := func(n int) {
		n += sent()
		eventually(t, "load", func() bool { return sent() >= n })
	}
	client := newDemoClient(witnesses[0].outbound)
	var after []map[string]float64 // each round
	for begin, round := time.Now(), 1; time.Since(begin) < length || round <= 3; round++ {
		m.killCluster(central)
		more(5000)
		if err := m.startCluster(central, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the cluster serves again", func() bool {
			return client.count(40, "catalog-service.production.global")["catalog-service.us-central"] > 0
		})
		m.node(west, "orders").signal(syscall.SIGTERM)
		more(5000)
		if err := m.startNode(m.node(west, "orders")); err != nil {
			t.Fatal(err)
		}
		for _, cluster := range []string{central, west} {
			text := fmt.Sprintf(soakRule, round, round)
			if err := os.WriteFile(filepath.Join(m.dir, cluster, "90-soak.yaml"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "everybody has the new files", func() bool {
			for _, n := range witnesses {
				if _, text := page(fmt.Sprintf("http://127.0.0.1:%d/routes", n.admin), ""); !strings.Contains(text, fmt.Sprintf("soak%d.test", round)) {
					return false
				}
			}
			return true
		})
		more(5000)
		now := map[string]float64{}
		for _, n := range witnesses {
			for what, v := range costs(t, n) {
				now[n.of(what)] = v
			}
		}
		after = append(after, now)
		w := witnesses[0]
		t.Logf("round %d after %.0f s, %d requests: the callers' proxy has %.0f goroutines, %.0f files, %.1f MiB", round, time.Since(begin).Seconds(), sent(),
			now[w.of("go_goroutines")], now[w.of("process_open_fds")], now[w.of("process_resident_memory_bytes")]/(1<<20))
	}
	failed := 0
	for _, l := range loads {
		l.stop()
		_, failures, _ := l.now()
		if failed += len(failures); len(failures) > 0 {
			t.Errorf("%d requests failed, the first: %s", len(failures), failures[0])
		}
	}
	t.Logf("%d rounds, %d requests, %d failed", len(after), sent(), failed)
	for what, v := range after[len(after)-1] {
		if before := after[1][what]; v > 1.3*before {
			t.Errorf("%s: %.0f, and %.0f after the second round", what, v, before)
		}
	}
}

const soakRule = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: soak, namespace: production}
spec:
  hosts: [soak%d.test]
  http: [{directResponse: {status: 200, body: {string: "%d"}}}]
`

// of names a figure of the proxy's.
func (n *demoNode) of(what string) string { return n.cluster + " " + n.name + " " + what }

// cost is a line of the metrics that says what a process takes.
var cost = regexp.MustCompile(`(?m)^(go_goroutines|process_open_fds|process_resident_memory_bytes) (\S+)$`)

func costs(t *testing.T, n *demoNode) map[string]float64 {
	t.Helper()
	_, text := page(fmt.Sprintf("http://127.0.0.1:%d/metrics", n.admin), "")
	out := map[string]float64{}
	for _, match := range cost.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		out[match[1]] = v
	}
	if len(out) != 3 {
		t.Fatalf("%s in %s says %v of what it takes, in\n%s", n.name, n.cluster, out, text)
	}
	return out
}
