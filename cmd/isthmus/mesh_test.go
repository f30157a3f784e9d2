package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the isthmus that the tests drive, built once with the race
// detector of the tests themselves left out: it is what users run.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "isthmus-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "isthmus")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// connectTimeouts are those of the example, which a handshake on a machine that
// is busy with other tests does not keep to.
var connectTimeouts = regexp.MustCompile(`connectTimeout: [0-9]+ms`)

// startMesh runs the two clusters of the demonstration with the built binary. more
// is for every bootstrap file.
func startMesh(t *testing.T, more ...string) *demoMesh {
	t.Helper()
	m, err := newDemoMesh(t.TempDir(), strings.Join(more, ""))
	if err != nil {
		t.Fatal(err)
	}
	m.program = program
	rules, err := filepath.Glob(filepath.Join(m.dir, "*", "09-*.yaml"))
	if err != nil || len(rules) == 0 {
		t.Fatal("no file with timeouts: ", err)
	}
	for _, file := range rules {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, connectTimeouts.ReplaceAll(text, []byte("connectTimeout: 2s")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			for _, n := range m.nodes {
				if log, err := os.ReadFile(n.log); err == nil {
					t.Logf("%s in %s:\n%s", n.name, n.cluster, log)
				}
			}
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.start(ctx); err != nil {
		t.Fatal(err)
	}
	return m
}

// within checks a share of n draws: five standard deviations are missed once
// in two million runs.
func within(t *testing.T, what string, got, n int, share float64) {
	t.Helper()
	sigma := math.Sqrt(float64(n) * share * (1 - share))
	if want := float64(n) * share; math.Abs(float64(got)-want) > 5*sigma {
		t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, got, n, want, 5*sigma)
	}
}

// eventually waits for something that gossip or a file brings.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestMesh_Routes sends real requests through two clusters and checks what
// each rule of the example does with them.
func TestMesh_Routes(t *testing.T) {
	m := startMesh(t)
	gateway := newDemoClient(m.node(central, "callers").gateway)
	fromCentral := newDemoClient(m.node(central, "callers").outbound)
	fromWest := newDemoClient(m.node(west, "callers").outbound)
	const n = 2000

	t.Run("geo-location", func(t *testing.T) {
		for _, tt := range []struct {
			location, by string
		}{
			{"us-central", "user-service.us-central"},
			{"us-west", "user-service.us-west"},
			{"elsewhere", "user-service.us-central"},
			{"US-WEST", "user-service.us-central"}, // exact means exact
			{"", "user-service.us-central"},
		} {
			var header []string
			if tt.location != "" {
				header = []string{"geo-location", tt.location}
			}
			if got := gateway.count(20, "user-service.example.com", header...); got[tt.by] != 20 {
				t.Errorf("geo-location %q: served by %v, want all by %s", tt.location, got, tt.by)
			}
		}
	})
	t.Run("host of no rule", func(t *testing.T) {
		if status, _, err := gateway.get("nobody.example.com", "/"); status != 404 {
			t.Errorf("status %d, error %v; want 404", status, err)
		}
		if status, _, err := gateway.get("user-service.example.org", "/"); status != 404 {
			t.Errorf("status %d, error %v; want 404", status, err)
		}
	})
	t.Run("70/30", func(t *testing.T) {
		got := fromCentral.count(n, "payment-service.production.global")
		within(t, "local", got["payment-service.us-central"], n, 0.7)
		within(t, "remote", got["payment-service.us-west"], n, 0.3)
	})
	t.Run("premium, and 90/10 for others", func(t *testing.T) {
		if got := fromCentral.count(50, "catalog-service.production.global", "user-type", "premium"); got["catalog-service.us-west"] != 50 {
			t.Errorf("premium: %v, want all by us-west", got)
		}
		got := fromCentral.count(n, "catalog-service.production.global")
		within(t, "local", got["catalog-service.us-central"], n, 0.9)
		within(t, "backup", got["catalog-service.us-west"], n, 0.1)
	})
	t.Run("80/20 by locality, both ways", func(t *testing.T) {
		got := fromCentral.count(n, "order-service.production.global")
		within(t, "from central to central", got["order-service.us-central"], n, 0.8)
		within(t, "from central to west", got["order-service.us-west"], n, 0.2)
		got = fromWest.count(n, "order-service.production.global")
		within(t, "from west to west", got["order-service.us-west"], n, 0.8)
		within(t, "from west to central", got["order-service.us-central"], n, 0.2)
	})
	t.Run("names of a service", func(t *testing.T) {
		for host, by := range map[string]string{
			"user-service":                                 "user-service.us-central",
			"user-service.production":                      "user-service.us-central",
			"user-service.production.svc":                  "user-service.us-central",
			"user-service.production.svc.cluster.local":    "user-service.us-central",
			"user-service.production.svc.cluster.remote":   "user-service.us-west",
			"User-Service.Production.svc.cluster.remote":   "user-service.us-west",
			"user-service.production.svc.cluster.local.":   "user-service.us-central",
			"user-service.production.svc.cluster.local:80": "user-service.us-central",
		} {
			if got := fromCentral.count(5, host); got[by] != 5 {
				t.Errorf("%s: %v, want all by %s", host, got, by)
			}
		}
		for _, host := range []string{"user-service.other", "user-service.production.svc.cluster.nowhere", "user-service.production.svc.cluster.local:81", "unknown"} {
			if status, _, err := fromCentral.get(host, "/"); status != 404 {
				t.Errorf("%s: status %d, error %v; want 404", host, status, err)
			}
		}
	})
	t.Run("standby of weight 0", func(t *testing.T) {
		const host = "inventory-service.production.global"
		if got := fromCentral.count(200, host); got["inventory-service.us-central"] != 200 {
			t.Fatalf("%v, want all by us-central", got)
		}
		m.killCluster(central)
		if got := fromCentral.count(200, host); got["inventory-service.us-west"] != 200 {
			t.Errorf("with the primary dead: %v, want all by us-west", got)
		}
		if err := m.startCluster(central, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the primary serves again", func() bool {
			return fromCentral.count(20, host)["inventory-service.us-central"] == 20
		})
	})
}

// TestMesh_ClusterKilled kills every process of a cluster under a steady load
// of GETs: nobody's request fails.
func TestMesh_ClusterKilled(t *testing.T) {
	m := startMesh(t)
	client := newDemoClient(m.node(central, "callers").outbound)
	hosts := []string{"order-service.production.global", "catalog-service.production.global", "inventory-service.production.global", "payment-service.production.global"}
	load := client.steady(16, 4*time.Millisecond, hosts...)
	reach := func(n int) {
		eventually(t, "load", func() bool { sent, _, _ := load.now(); return sent >= n })
	}
	reach(1000)
	m.killCluster(central)
	sent, _, _ := load.now()
	reach(sent + 4000)
	if err := m.startCluster(central, false); err != nil {
		t.Fatal(err)
	}
	// order-service has outlier detection: its endpoint stays out for the 30 s of
	// baseEjectionTime. The others are back as soon as a connection succeeds.
	eventually(t, "the cluster serves again", func() bool {
		return client.count(40, "catalog-service.production.global")["catalog-service.us-central"] > 0
	})
	sent, _, _ = load.now()
	reach(sent + 1000)
	load.stop()
	sent, failures, by := load.now()
	t.Logf("%d requests, %d failed; served by %v", sent, len(failures), by)
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), sent, failures[0])
	}
	if by["order-service.us-west"] == 0 || by["order-service.us-central"] == 0 {
		t.Errorf("served by %v, want both clusters", by)
	}
}

// TestMesh_RateLimit: the example gives user-service's sidecars 1000 requests
// at once, then 100 a second.
func TestMesh_RateLimit(t *testing.T) {
	m := startMesh(t)
	client := newDemoClient(m.node(central, "callers").outbound)
	begin := time.Now()
	got := client.count(1500, "user-service.production.svc.cluster.local")
	filled := int(time.Since(begin).Seconds() * 100)
	passed, refused := got["user-service.us-central"], got["Too Many Requests"]
	if passed+refused != 1500 || passed < 1000 || passed > 1000+filled+1 {
		t.Errorf("%v in %v, want 1000 and at most %d more to pass", got, time.Since(begin), filled)
	}
}

// TestMesh_LeaveAndReturn ends a cluster's proxies with SIGTERM: they say
// goodbye, so their endpoints are gone at once, and no request fails.
func TestMesh_LeaveAndReturn(t *testing.T) {
	m := startMesh(t)
	callers := m.node(central, "callers")
	client := newDemoClient(callers.outbound)
	load := client.steady(8, 4*time.Millisecond, "order-service.production.global")
	m.node(west, "orders").signal(syscall.SIGTERM)
	eventually(t, "the endpoint is gone", func() bool {
		list, err := callers.endpoints()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Service == "order-service.production" && e.Cluster == west && e.Source == "gossip" {
				return false
			}
		}
		return true
	})
	load.stop()
	if sent, failures, _ := load.now(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), sent, failures[0])
	}
}
