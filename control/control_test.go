package control

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"isthmus/gossip"
	"isthmus/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func node() *mesh.Node {
	return &mesh.Node{
		Name: "n", Address: "127.0.0.1", Cluster: "c1", Namespace: "default", ServiceAccount: "sa", TrustDomain: "td", Identity: "spiffe://td/ns/default/sa/sa",
		Locality: mesh.ParseLocality("r1/z1"), Labels: map[string]string{"app": "web", "version": "v1"},
	}
}

// consumer takes snapshots as the data plane does.
type consumer struct {
	mu     sync.Mutex // guards what is below
	last   *mesh.Snapshot
	refuse error

	acceptHash string // of the only configuration that is taken in spite of refuse; "": none
}

func (c *consumer) publish(s *mesh.Snapshot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil && s.Config.Hash != c.acceptHash {
		return c.refuse
	}
	c.last = s
	return nil
}

func (c *consumer) snapshot() *mesh.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// crowd is a gossip member whose neighbours do what a test says.
type crowd struct {
	mu        sync.Mutex // guards what is below
	announced []mesh.Endpoint
	others    []gossip.Announced
}

func (c *crowd) Announce(list []mesh.Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announced = slices.Clone(list)
}

func (c *crowd) Endpoints() []gossip.Announced {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Clone(c.others)
	for _, e := range c.announced {
		e.Source = mesh.SourceGossip
		out = append(out, gossip.Announced{Endpoint: e})
	}
	return out
}

const webService = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

func begin(t *testing.T, announce, yaml string) (*Controller, *consumer, *crowd, string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "mesh.yaml")
	write(t, file, yaml)
	var use consumer
	c, err := New(Options{
		Node: node(), Paths: []string{dir}, Announce: announce, Inbound: "0.0.0.0:15006", Publish: use.publish,
		Logger: slog.New(slog.DiscardHandler), ResolvConf: os.DevNull, Hosts: os.DevNull,
	})
	if err != nil {
		t.Fatal(err)
	}
	g := &crowd{}
	c.Start(g)
	t.Cleanup(c.Close)
	return c, &use, g, file
}

// TestController_ChangedBeforeStart: what changes while the proxy is being put together
// is not lost.
func TestController_ChangedBeforeStart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mesh.yaml")
	write(t, file, webService)
	var use consumer
	c, err := New(Options{
		Node: node(), Paths: []string{dir}, Announce: "none", Publish: use.publish,
		Logger: slog.New(slog.DiscardHandler), ResolvConf: os.DevNull, Hosts: os.DevNull,
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(webService, "name: web}", "name: other}", 1))
	c.Start(&crowd{})
	t.Cleanup(c.Close)
	eventually(t, "the change is in force", func() bool { return use.snapshot().Config.Services[0].Name == "other" })
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// TestController_Reload: good files take effect, bad ones leave what was and
// are told of.
func TestController_Reload(t *testing.T) {
	c, use, _, file := begin(t, "none", webService)
	first := use.snapshot()
	if first == nil || first.Number != 1 {
		t.Fatalf("first snapshot %+v", first)
	}
	write(t, file, "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {prots: []}\n")
	eventually(t, "the error is told", func() bool { return c.Status().Snapshot.Error != "" })
	if e := c.Status().Snapshot.Error; !strings.Contains(e, "mesh.yaml:4") || !strings.Contains(e, `"ports"`) {
		t.Errorf("error %q, want file, line and a suggestion", e)
	}
	if use.snapshot() != first && use.snapshot().Config.Hash != first.Config.Hash {
		t.Error("a broken set was published")
	}
	write(t, file, strings.Replace(webService, "name: web}", "name: api}", 1))
	eventually(t, "the good set is used", func() bool {
		_, ok := use.snapshot().Registry.View("api.default")
		return ok && c.Status().Snapshot.Error == ""
	})
	if n := use.snapshot().Number; n <= first.Number {
		t.Errorf("snapshot number %d after %d", n, first.Number)
	}
}

// TestController_RefusedByTheDataPlane keeps the snapshot before.
func TestController_RefusedByTheDataPlane(t *testing.T) {
	c, use, _, file := begin(t, "none", webService)
	use.mu.Lock()
	use.refuse = errors.New("port in use")
	use.mu.Unlock()
	write(t, file, strings.Replace(webService, "name: web}", "name: api}", 1))
	eventually(t, "the refusal is told", func() bool { return strings.Contains(c.Status().Snapshot.Error, "port in use") })
	if _, ok := c.Snapshot().Registry.View("web.default"); !ok {
		t.Error("the snapshot before is gone")
	}
}

// TestNew_RefusesStrict: what cannot be enforced must not be run with.
func TestNew_RefusesStrict(t *testing.T) {
	for name, yaml := range map[string]string{
		"strict": "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {mtls: {mode: STRICT}}\n",
	} {
		file := filepath.Join(t.TempDir(), "a.yaml")
		write(t, file, yaml)
		var use consumer
		n := node()
		n.Identity = ""
		_, err := New(Options{Node: n, Paths: []string{file}, Publish: use.publish})
		if err == nil || !strings.Contains(err.Error(), file+":") {
			t.Errorf("%s: error %v, want one with the file", name, err)
		}
		if use.snapshot() != nil {
			t.Errorf("%s: a snapshot was published", name)
		}
	}
	file := filepath.Join(t.TempDir(), "a.yaml")
	write(t, file, "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {mtls: {mode: PERMISSIVE}}\n")
	var use consumer
	c, err := New(Options{Node: node(), Paths: []string{file}, Publish: use.publish})
	if err != nil {
		t.Fatalf("PERMISSIVE allows plain text: %v", err)
	}
	c.closeSources()
}

// TestNew_ManyErrors tells of some, and how many there are besides.
func TestNew_ManyErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	write(t, file, strings.Repeat("apiVersion: v1\nkind: Service\nmetadata: {}\n---\n", maxReported+5))
	_, err := New(Options{Node: node(), Paths: []string{file}})
	if err == nil || strings.Count(err.Error(), "\n") != maxReported || !strings.HasSuffix(err.Error(), "and 5 more: isthmus validate lists all") {
		t.Errorf("error %v", err)
	}
}

func summary(list []mesh.Endpoint) string {
	var out []string
	for _, e := range list {
		s := e.Service + " " + e.Address.String()
		if e.Via {
			s += " via"
		}
		if e.Relayed {
			s += " relayed"
		}
		if e.Unready != "" {
			s += " " + e.Unready
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestController_Announces what gossip.announce says.
func TestController_Announces(t *testing.T) {
	const yaml = webService + `---
apiVersion: v1
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
kind: WorkloadEntry
metadata: {name: db-2}
spec: {address: 10.9.9.9, network: c2, labels: {app: db}}
`
	for announce, want := range map[string]string{
		"own":     "web.default 127.0.0.1:15006 via",
		"direct":  "db.default 10.0.0.9:5432 relayed, web.default 127.0.0.1:15006 via",
		"through": "db.default 127.0.0.1:15006 via relayed, web.default 127.0.0.1:15006 via",
		"none":    "",
	} {
		t.Run(announce, func(t *testing.T) {
			c, _, g, _ := begin(t, announce, yaml)
			said := func() string {
				g.mu.Lock()
				defer g.mu.Unlock()
				return summary(g.announced)
			}
			eventually(t, "announced "+want, func() bool { return said() == want })
			if announce != "own" {
				return
			}
			g.mu.Lock()
			e := g.announced[0]
			g.mu.Unlock()
			if e.Identity != "spiffe://td/ns/default/sa/sa" || e.Labels["version"] != "v1" || e.Locality.String() != "r1/z1" || e.Cluster != "c1" {
				t.Errorf("announced %+v", e)
			}
			c.Drain()
			eventually(t, "draining is announced", func() bool { return strings.HasSuffix(said(), " draining") })
			if s := c.Status(); s.Ready || s.Reason != "draining" {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestController_KnownAtStart: what gossip knows from an earlier life is published before
// Start returns, and so before the proxy says that it is ready.
func TestController_KnownAtStart(t *testing.T) {
	var use consumer
	c, err := New(Options{Node: node(), Paths: []string{t.TempDir()}, Announce: "none", Publish: use.publish, Logger: slog.New(slog.DiscardHandler), ResolvConf: os.DevNull, Hosts: os.DevNull})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(&crowd{others: []gossip.Announced{{OwnerDead: true, Endpoint: mesh.Endpoint{
		Service: "s.default", Port: mesh.Port{Number: 80}, Address: netip.MustParseAddrPort("127.0.0.1:1"), Cluster: "c2", Weight: 1, Source: mesh.SourceGossip, Owner: "c2/default/x",
	}}}})
	t.Cleanup(c.Close)
	if n := len(use.snapshot().Registry.All()); n != 1 {
		t.Errorf("%d endpoints, want the one that was known", n)
	}
}

// TestController_DeadOwner: endpoints of a member that died stay until probes
// find them dead, too.
func TestController_DeadOwner(t *testing.T) {
	c, use, g, _ := begin(t, "none", "# nothing\n")
	e := mesh.Endpoint{
		Service: "s.default", Port: mesh.Port{Number: 80}, Address: netip.MustParseAddrPort("127.0.0.1:1"), Cluster: "c2", Weight: 1,
		Source: mesh.SourceGossip, Owner: "c2/default/x",
	}
	say := func(dead bool) {
		g.mu.Lock()
		g.others = []gossip.Announced{{Endpoint: e, OwnerDead: dead}}
		g.mu.Unlock()
		c.Wake()
	}
	unready := func() string {
		for _, e := range use.snapshot().Registry.All() {
			return e.Unready
		}
		return "gone"
	}
	say(false)
	eventually(t, "the endpoint is there", func() bool { return unready() == "" })
	say(true)
	eventually(t, "a probe finds it dead", func() bool { return strings.Contains(unready(), "c2/default/x died") })
	say(false)
	eventually(t, "its owner is back", func() bool { return unready() == "" })
}
