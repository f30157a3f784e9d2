package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
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

// demoMesh is two clusters on loopback: a process for each proxy, and the
// applications of both in this one.
type demoMesh struct {
	dir     string
	more    string // behind each bootstrap file
	program string // isthmus itself
	nodes   []*demoNode
	apps    []*demoApp
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
