package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/canary"
	"isthmus/gossip"
	"isthmus/health"
	"isthmus/mesh"
)

// network answers probes as a test says: by address, as Subject has it.
type network struct {
	mu      sync.Mutex // guards what is below
	answers map[string]string
	jobs    []health.Job
}

func (n *network) probed(o *Options) {
	o.look = func(_ context.Context, j health.Job) health.Found {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.jobs = append(n.jobs, j)
		switch text := n.answers[j.Subject.Address.String()]; text {
		case "":
			return health.Found{}
		case "degraded":
			return health.Found{Degraded: true}
		default:
			return health.Found{Err: errors.New(text)}
		}
	}
}

func (n *network) answer(address, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.answers == nil {
		n.answers = map[string]string{}
	}
	n.answers[address] = text
}

func (n *network) looks() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.jobs)
}

// asked lists at whom was looked, without doubles.
func (n *network) asked() map[health.Subject]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[health.Subject]int{}
	for _, j := range n.jobs {
		out[j.Subject]++
	}
	return out
}

const webGroup = `apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: g}
spec:
  metadata: {labels: {app: web}}
  template: {}
  probe: {failureThreshold: 2, httpGet: {port: 8080, path: /health}}
`

// settle lets probes look, and the controller take in what they find.
func settle(c *Controller, d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	c.step()
	c.step() // what is announced follows from the snapshot
}

// TestController_Settle: who takes another one's place begins with the addresses of names and
// a verdict on the application, or after some time without; then that is ready.
func TestController_Settle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := filepath.Join(t.TempDir(), "hosts")
		write(t, hosts, "192.0.2.1 partner.test\n")
		const partner = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: partner}\nspec: {hosts: [partner.test], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n"
		for _, tt := range []struct{ group, want string }{
			{strings.Replace(webGroup, "failureThreshold: 2", "failureThreshold: 1", 1), "probe: GET /health: 503"},
			{strings.Replace(webGroup, "failureThreshold: 2", "initialDelaySeconds: 60", 1), ""},
		} {
			var net network
			net.answer("127.0.0.1:0", "GET /health: 503")
			c, use, _, _ := still(t, "own", webService+"---\n"+tt.group+partner, net.probed, func(o *Options) { o.Hosts, o.Successor = hosts, true })
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			c.Settle(ctx)
			cancel()
			if n := known(use); n != 2 {
				t.Errorf("%d endpoints, want the partner's and the own one", n)
			}
			if a := use.snapshot().Application; a == nil || a.Unready != tt.want {
				t.Errorf("the application is %+v, want %q", a, tt.want)
			}
			c.closeSources()
		}
	})
}

// TestController_ProbesItsApplication: the sidecar announces what it finds.
func TestController_ProbesItsApplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		c, use, g, file := still(t, "own", webService+"---\n"+webGroup, net.probed)
		const own = "127.0.0.1:0"
		const endpoint = "web.default 127.0.0.1:15006 via"
		c.step()
		check := func(when, want string, degraded bool) {
			t.Helper()
			if got := summary(g.announced); got != strings.TrimSpace(endpoint+" "+want) || g.announced[0].Degraded != degraded {
				t.Errorf("%s: announced %q, degraded %v", when, got, g.announced[0].Degraded)
			}
			if a := use.snapshot().Application; a == nil || a.Unready != want || a.Degraded != degraded {
				t.Errorf("%s: the snapshot says %+v", when, a)
			}
		}
		check("at first", "probe: not yet succeeded", false)
		settle(c, 2*time.Second)
		check("after a success", "", false)
		net.answer(own, "GET /health: 503")
		settle(c, 10*time.Second)
		check("after a failure", "", false)
		write(t, file, webService+"---\n"+strings.Replace(webGroup, "name: g}", "name: g, annotations: {a: b}}", 1))
		c.Reload()
		settle(c, 0)
		check("after a reload", "", false)
		settle(c, 10*time.Second)
		check("after two failures, with a reload between", "probe: GET /health: 503", false)
		write(t, file, broken)
		c.Reload()
		settle(c, 0)
		check("with broken files", "probe: GET /health: 503", false)
		write(t, file, webService+"---\n"+webGroup)
		c.Reload()
		net.answer(own, "degraded")
		settle(c, 10*time.Second)
		check("degraded", "", true)
		net.answer(own, "")
		settle(c, 10*time.Second)
		check("well again", "", false)
		if n := c.Probes(); n.WorkloadsSucceeded != 3 || n.WorkloadsFailed != 2 || n.EndpointsSucceeded != 0 {
			t.Errorf("counted %+v", n)
		}
		c.Drain()
		settle(c, 0)
		if got := summary(g.announced); got != endpoint+" draining" {
			t.Errorf("draining: announced %q", got)
		}
		write(t, file, webService)
		c.Reload()
		settle(c, 0)
		if a := use.snapshot().Application; a != nil {
			t.Errorf("without a probe the snapshot says %+v", a)
		}
	})
}

const dbGroup = `apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db-1}
spec: {address: 10.0.0.9, labels: {app: db}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: g}
spec:
  metadata: {labels: {app: db}}
  template: {}
  probe: {failureThreshold: 1, tcpSocket: {port: 5433}}
`

// TestController_ProbesForCandidate: what is found of a workload holds for a candidate, too,
// which would fail where the files in force know better.
func TestController_ProbesForCandidate(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "c.yaml"), webService)
	synctest.Test(t, func(t *testing.T) {
		var net network
		c, use, _, _ := still(t, "none", dbGroup, net.probed, func(o *Options) {
			o.Candidates = Candidates{Paths: []string{dir}, Plan: canary.DefaultPlan}
		})
		for _, finds := range []string{"", "refused", ""} {
			net.answer("10.0.0.9:0", finds)
			settle(c, 10*time.Second)
			want := strings.TrimSuffix("db.default 10.0.0.9:5432 probe: "+finds, " probe: ")
			s := use.snapshot()
			if s.Candidate == nil {
				t.Fatal("there is no candidate")
			}
			for of, r := range map[string]*mesh.Registry{"in force": s.Registry, "on trial": s.Candidate.Registry} {
				var list []mesh.Endpoint
				for _, e := range r.All() {
					list = append(list, *e)
				}
				if got := summary(list); got != want {
					t.Errorf("finds %q, %s: %q, want %q", finds, of, got, want)
				}
			}
		}
	})
}

// TestController_ProbesWorkloads: a WorkloadEntry of a group is looked at where
// it is, and what is found is announced for it.
func TestController_ProbesWorkloads(t *testing.T) {
	for announce, endpoint := range map[string]string{
		"direct":  "db.default 10.0.0.9:5432 relayed",
		"through": "db.default 127.0.0.1:15006 via relayed",
	} {
		t.Run(announce, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var net network
				c, use, g, _ := still(t, announce, dbGroup, net.probed)
				for _, tt := range []struct{ finds, want string }{
					{"", ""}, {"refused", " probe: refused"}, {"", ""},
				} {
					net.answer("10.0.0.9:0", tt.finds)
					settle(c, 10*time.Second)
					if got := summary(g.announced); got != endpoint+tt.want {
						t.Errorf("finds %q: announced %q", tt.finds, got)
					}
				}
				if use.snapshot().Application != nil {
					t.Error("the application of another proxy is taken for the own one")
				}
			})
		})
	}
}

// TestController_ProbesOtherClusters: endpoints of other clusters are looked at
// by this proxy for itself alone, once for each address, service and port.
func TestController_ProbesOtherClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		c, use, g, _ := still(t, "direct", "", net.probed, func(o *Options) {
			o.Remote = RemoteProbes{Interval: 5 * time.Second, Timeout: time.Second}
		})
		endpoint := func(cluster, address string, port uint32, via bool) gossip.Announced {
			return gossip.Announced{Endpoint: mesh.Endpoint{
				Service: "far.default", Port: mesh.Port{Number: port}, Address: netip.MustParseAddrPort(address), Cluster: cluster, Weight: 1,
				Via: via, Source: mesh.SourceGossip, Owner: "x",
			}}
		}
		g.others = []gossip.Announced{
			endpoint("c2", "10.2.0.1:15006", 80, true),
			endpoint("c2", "10.2.0.1:15006", 81, true),
			endpoint("c2", "10.2.0.2:8080", 80, false),
			endpoint("c1", "10.1.0.1:15006", 80, true),
		}
		settle(c, 0)
		state := func() string {
			var out []string
			for _, e := range use.snapshot().Registry.All() {
				if e.Unready != "" {
					out = append(out, fmt.Sprintf("%s %d %s", e.Address, e.Port.Number, e.Unready))
				}
			}
			return strings.Join(out, ", ")
		}
		settle(c, 5*time.Second)
		if got := state(); got != "" {
			t.Errorf("all answer, but %s", got)
		}
		want := []health.Subject{
			{Address: netip.MustParseAddrPort("10.2.0.1:15006"), Service: "far.default", Port: 80},
			{Address: netip.MustParseAddrPort("10.2.0.1:15006"), Service: "far.default", Port: 81},
			{Address: netip.MustParseAddrPort("10.2.0.2:8080")},
		}
		asked := net.asked()
		for _, s := range want {
			if asked[s] != 1 {
				t.Errorf("%+v looked at %d times within an interval", s, asked[s])
			}
		}
		if len(asked) != len(want) {
			t.Errorf("looked at %v", asked)
		}
		net.answer("10.2.0.1:15006", "probe: GET /: 500")
		net.answer("10.2.0.2:8080", "refused")
		settle(c, 5*time.Second)
		if got := state(); got != "" {
			t.Errorf("after one failure: %s", got)
		}
		settle(c, 5*time.Second)
		if got := state(); got != "10.2.0.1:15006 80 cannot be reached: probe: GET /: 500, 10.2.0.2:8080 80 cannot be reached: refused, 10.2.0.1:15006 81 cannot be reached: probe: GET /: 500" {
			t.Errorf("after two failures: %s", got)
		}
		if len(g.announced) != 0 {
			t.Errorf("announced %q", summary(g.announced))
		}
		net.answer("10.2.0.1:15006", "")
		net.answer("10.2.0.2:8080", "")
		settle(c, 5*time.Second)
		if got := state(); got != "" {
			t.Errorf("after one success: %s", got)
		}
	})
}

// TestController_ProbesInPlain: an endpoint that a DestinationRule has spoken to in plain text may
// be one with which there is no trust in common.
func TestController_ProbesInPlain(t *testing.T) {
	const rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %d}\nspec: {host: %q, trafficPolicy: {%s}}\n---\n"
	rules := fmt.Sprintf(rule, 1, "*.svc.cluster.remote", "tls: {mode: DISABLE}") +
		fmt.Sprintf(rule, 2, "port.default.global", "portLevelSettings: [{port: {number: 81}, tls: {mode: DISABLE}}]") +
		fmt.Sprintf(rule, 3, "mtls.default.svc.cluster.remote", "tls: {mode: ISTIO_MUTUAL}")
	for _, tt := range []struct {
		name, yaml string
		plain      []string
	}{
		{"rules", rules, []string{"far.default 80 c2", "port.default 81 c3"}},
		{"none", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var net network
				c, _, g, _ := still(t, "direct", tt.yaml, net.probed, func(o *Options) {
					o.Remote = RemoteProbes{Interval: 5 * time.Second, Timeout: time.Second}
					n := *o.Node
					n.Identity, n.Domains = "spiffe://cluster.local/ns/default/sa/default", map[string]string{"cluster.remote": "c2"}
					o.Node = &n
				})
				names := map[string]string{}
				for i, at := range []string{"far.default 80 c2", "far.default 80 c3", "port.default 80 c3", "port.default 81 c3", "mtls.default 80 c2"} {
					e := mesh.Endpoint{
						Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}), 15006), Weight: 1,
						Via: true, Identity: "spiffe://cluster.local/ns/default/sa/far", Source: mesh.SourceGossip, Owner: "x",
					}
					fmt.Sscan(at, &e.Service, &e.Port.Number, &e.Cluster)
					names[e.Address.String()] = at
					g.others = append(g.others, gossip.Announced{Endpoint: e})
				}
				settle(c, 0)
				settle(c, 5*time.Second)
				var plain []string
				for s := range net.asked() {
					if !s.Secure {
						t.Errorf("%s is not asked by mTLS", names[s.Address.String()])
					}
					if s.Plain {
						plain = append(plain, names[s.Address.String()])
					}
				}
				slices.Sort(plain)
				if !slices.Equal(plain, tt.plain) || len(net.asked()) != len(names) {
					t.Errorf("in plain text %q of %d, want %q of %d", plain, len(net.asked()), tt.plain, len(names))
				}
			})
		})
	}
}

// TestController_RemoteProbesOff looks at nobody.
func TestController_RemoteProbesOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		c, _, g, _ := still(t, "none", "", net.probed)
		g.hear(3)
		c.step()
		settle(c, time.Minute)
		if n := net.looks(); n != 0 {
			t.Errorf("%d looks", n)
		}
	})
}
