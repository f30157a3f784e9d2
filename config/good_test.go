package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"isthmus/mesh"
)

func readGood(t *testing.T) *mesh.Config {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/good.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var files []File
	for _, f := range archive.Files {
		files = append(files, File{Name: f.Name, Data: f.Data})
	}
	r := Read(files, nil)
	for _, f := range r.Findings {
		if f.Severity == Error {
			t.Errorf("%s", f)
		}
	}
	return r.Config
}

// TestRead_Converts checks what becomes of spellings and defaults.
func TestRead_Converts(t *testing.T) {
	c := readGood(t)
	s := c.Services[0]
	if p := s.Ports; p[0].Protocol != mesh.ProtocolHTTP || p[0].TargetName != "web" || p[1].Protocol != mesh.ProtocolGRPC {
		t.Errorf("ports %+v", p)
	}
	if dns := c.Services[slices.IndexFunc(c.Services, func(s *mesh.Service) bool { return s.Name == "dns" })]; len(dns.Ports) != 2 || dns.Ports[0].Name != "dns-tcp" {
		t.Errorf("ports of TCP alone: %+v", dns.Ports)
	}
	dated := c.Services[slices.IndexFunc(c.Services, func(s *mesh.Service) bool { return s.Name == "dated" })]
	rule := c.DestinationRules[slices.IndexFunc(c.DestinationRules, func(d *mesh.DestinationRule) bool { return d.Name == "dated" })]
	if dated.Labels["built"] != "2026-01-02" || dated.Selector["built"] != "2026-01-02" || rule.Subsets[0].Labels["built"] != "2026-01-02" {
		t.Errorf("dates in labels: %+v, %+v", dated, rule)
	}
	w := c.Workloads[0]
	if w.Address != "10.0.0.1" || w.Ports["http"] != 8080 || w.Locality.String() != "r/z/s" || w.Weight != 3 || w.Labels["a"] != "b" {
		t.Errorf("workload %+v", w)
	}
	if e := c.Workloads[1]; e.Service != "a.default" || !e.Unready || e.Locality.String() != "us-west1/us-west1-a" {
		t.Errorf("endpoint of a slice %+v", e)
	}
	labelled := c.Workloads[slices.IndexFunc(c.Workloads, func(w *mesh.Workload) bool { return w.Name == "labelled" })]
	if got := mesh.LabelText(labelled.Labels); got != "app=a,tier=db,version=v2" {
		t.Errorf("labels of a WorkloadEntry: %s", got)
	}
	d := c.DestinationRules[0]
	if d.Host != "s.ns.svc.cluster.local" || d.Policy.ConnectionPool.MaxConnections != 5 || d.Policy.ConnectionPool.ConnectTimeout != 1500*time.Millisecond ||
		d.Policy.PortLevel[80].LoadBalancer.Kind != mesh.RoundRobin {
		t.Errorf("rule %+v", d)
	}
	v := c.VirtualServices[0]
	if v.Gateways[0] != "mesh" || v.HTTP[0].Match[1].Headers[0].Kind != mesh.MatchPresent || v.HTTP[1].Route[0].Host != "a.test" {
		t.Errorf("virtual service %+v", v)
	}
	if rw := v.HTTP[1].Rewrite; rw.Regex.ReplaceAllString("/xyz", rw.Substitution) != "/x$yz" {
		t.Errorf("rewrite to %q", rw.Substitution)
	}
	if r := v.HTTP[1].Retries; r.On != mesh.Retry5xx|mesh.RetryReset|mesh.RetryRetriableStatusCodes || r.Codes[0] != 503 || !r.Explicit {
		t.Errorf("retries %+v", r)
	}
}

// TestLoad_ConfigMapMount reads each file of a Kubernetes mount once.
func TestLoad_ConfigMapMount(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "..2026_01_01")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{port: 80}]}\n"
	for _, err := range []error{
		os.WriteFile(filepath.Join(data, "a.yaml"), []byte(text), 0o644),
		os.Symlink("..2026_01_01", filepath.Join(dir, "..data")),
		os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := Load([]string{dir}, nil)
	if r.HasErrors() || len(r.Config.Services) != 1 {
		t.Errorf("%d services, findings %v", len(r.Config.Services), r.Findings)
	}
}

func TestLoad_Unreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, "broken.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, want string
	}{
		{filepath.Join(dir, "missing"), "no such file or folder"},
		{dir, "broken.yaml: error: no such file or folder"},
	} {
		r := Load([]string{tt.path}, nil)
		if !r.HasErrors() || !strings.Contains(r.Findings[0].String(), tt.want) {
			t.Errorf("%s: findings %v, want %q", tt.path, r.Findings, tt.want)
		}
	}
	if r := Load(nil, nil); !r.HasErrors() {
		t.Error("no path at all is no error")
	}
}

// TestRead_Bombs: aliases that expand to billions, or into themselves.
func TestRead_Bombs(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		prev := string(rune('a'+i-1)) + "0"
		name := string(rune('a'+i)) + "0"
		b.WriteString(name + ": &" + name + " [" + strings.Repeat("*"+prev+",", 9) + "*" + prev + "]\n")
	}
	for name, text := range map[string]string{"billion laughs": b.String(), "nested": strings.Repeat("[", 100_000)} {
		if r := Read([]File{{Name: "bomb.yaml", Data: []byte(text)}}, nil); !r.HasErrors() {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestRead_Foreign: what lies beside resources and is none is left out, and said to be; of
// what may be one, what is missing is an error.
func TestRead_Foreign(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		errors     int
	}{
		{"a chart's values", "replicaCount: 2\nimage: {repository: a}\n", 0},
		{"a dashboard", `{"title": "a", "uid": "b", "panels": [], "version": 3}`, 0},
		{"an empty one", "{}", 0},
		{"a patch's steps", "- op: replace\n  path: /spec/replicas\n  value: 2\n- {op: remove, path: /a}\n", 0},
		{"resources in the place of a List", "- {apiVersion: v1, kind: Service, metadata: {name: a}}\n- {op: remove, path: /a}\n", 1},
		{"words", "- a\n- b\n", 1},
		{"a List that does not say so", "items:\n- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {}}\n", 2},
		{"a resource within", "web: {apiVersion: v1, kind: Service, metadata: {name: a}}\n", 2},
		{"what names kinds within", "rbac: {apiVersion: v1}\nof: [{kind: a}]\nitems: [{name: a}]\n", 0},
		{"a slip", "apiversion: v1\nKind: Service\n", 2},
		{"one letter", "apiVersion: v1\nkin: Service\n", 1},
		{"both forgotten", "metadata: {name: a}\nrules: []\n", 2},
		{"all but what it is about", "spec: {rules: []}\n", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Read([]File{{Name: "f.yaml", Data: []byte(tt.text)}}, nil)
			if r.Count(Error) != tt.errors || tt.errors == 0 && (len(r.Findings) != 1 || r.Findings[0].Code != ISM0006 || r.Findings[0].Severity != Warning) {
				t.Errorf("findings %v, want %d errors, or one warning", r.Findings, tt.errors)
			}
		})
	}
}
