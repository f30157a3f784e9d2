package deploy

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"

	"isthmus/config"
)

var update = flag.Bool("update", false, "write what follows from other files")

type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Record, Expr string
			Labels, Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) (r rules) {
	t.Helper()
	text, err := os.ReadFile("prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRules_Runbooks: each alert has a grade and a page, and each page an alert
// and its grade.
func TestRules_Runbooks(t *testing.T) {
	const pages = "../docs/runbooks"
	index, err := os.ReadFile(filepath.Join(pages, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"README.md"}
	tested, err := os.ReadFile("prometheus/rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			want = append(want, r.Alert+".md")
			grade := r.Labels["severity"]
			if !slices.Contains([]string{"P1", "P2", "P3", "P4"}, grade) {
				t.Errorf("%s has severity %q", r.Alert, grade)
			}
			if r.Annotations["runbook_url"] != "docs/runbooks/"+r.Alert+".md" || r.Annotations["summary"] == "" {
				t.Errorf("%s has annotations %v", r.Alert, r.Annotations)
			}
			page, err := os.ReadFile(filepath.Join(pages, r.Alert+".md"))
			if err != nil {
				t.Error(err)
				continue
			}
			for _, part := range []string{"# " + r.Alert + " (" + grade + ")\n", "\n## What it means\n", "\n## What to look at\n", "\n## What to do\n"} {
				if !bytes.Contains(page, []byte(part)) {
					t.Errorf("the page of %s lacks %q", r.Alert, part)
				}
			}
			if line := "| [" + r.Alert + "](" + r.Alert + ".md) | " + grade + " |"; !bytes.Contains(index, []byte(line)) {
				t.Errorf("the list of runbooks lacks %q", line)
			}
			if !bytes.Contains(tested, []byte("- name: "+r.Alert+"\n")) {
				t.Errorf("nothing tests %s", r.Alert)
			}
		}
	}
	files, err := os.ReadDir(pages)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(want, f.Name()) {
			t.Errorf("%s is the page of no alert", f.Name())
		}
	}
}

// TestPrometheusRule: the operator's resource has the rules of the file.
func TestPrometheusRule(t *testing.T) {
	const file = "kubernetes/prometheusrule.yaml"
	text, err := os.ReadFile("prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, groups, _ := strings.Cut(string(text), "\ngroups:")
	head, _, ok := strings.Cut(string(got), "\nspec:\n")
	if !ok {
		t.Fatal("no spec")
	}
	var want strings.Builder
	want.WriteString(head + "\nspec:\n")
	for line := range strings.Lines("groups:" + groups) {
		if strings.TrimSpace(line) != "" {
			want.WriteString("  ")
		}
		want.WriteString(line)
	}
	if want.String() == string(got) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what follows from rules.yaml: run go test ./deploy -update", file)
	}
	if err := os.WriteFile(file, []byte(want.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// failures are what counts as such, each with what of it does not, as the rules have it.
var failures = map[string]string{
	`response_code=~"5..|0"`:                  `response_flags!~".*DC.*"`,
	`grpc_response_status=~"2|4|12|13|14|15"`: `response_flags!~".*(DC|RL|NR|DPE)"`,
}

// TestDashboards: what Grafana reads is whole, and counts failures as the rules do.
func TestDashboards(t *testing.T) {
	rules, err := os.ReadFile("prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for failed, but := range failures {
		if !bytes.Contains(rules, []byte(failed+","+but)) {
			t.Errorf("the rules count %s without %s", failed, but)
		}
	}
	files, err := filepath.Glob("grafana/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			UID, Title string
			Panels     []struct {
				ID          int
				Type, Title string
				GridPos     struct{ X, Y, W, H int }
				Targets     []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &board); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		ids := map[int]bool{}
		for _, p := range board.Panels {
			if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %d %q is there twice, has no title or sticks out", file, p.ID, p.Title)
			}
			ids[p.ID] = true
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: panel %q asks for nothing", file, p.Title)
			}
			for _, q := range p.Targets {
				for failed, but := range failures {
					if strings.Contains(q.Expr, failed) != strings.Contains(q.Expr, failed+","+but) {
						t.Errorf("%s: panel %q counts as failures what the rules do not: %s without %s", file, p.Title, failed, but)
					}
				}
			}
		}
		if board.UID == "" || len(board.Panels) == 0 {
			t.Errorf("%s: %+v", file, board)
		}
	}
}

// TestManifests: every manifest is of a kind, Kubernetes' own have no field that it
// does not know, and their parts fit together.
func TestManifests(t *testing.T) {
	var services []core.Service
	var pods []core.PodTemplateSpec
	configs := map[string]core.ConfigMap{}
	err := filepath.WalkDir("kubernetes", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for dec := yaml.NewDecoder(f); ; {
			var m map[string]any
			if err := dec.Decode(&m); err != nil {
				if err != io.EOF {
					t.Errorf("%s: %v", path, err)
				}
				return nil
			}
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var what struct {
				APIVersion, Kind string
				Metadata         struct{ Name, Namespace string }
			}
			if err := json.Unmarshal(text, &what); err != nil || what.APIVersion == "" || what.Kind == "" || what.Metadata.Name == "" || what.Metadata.Namespace == "" {
				t.Errorf("%s: %+v, %v", path, what, err)
			}
			read := func(v any) {
				dec := json.NewDecoder(bytes.NewReader(text))
				dec.DisallowUnknownFields()
				if err := dec.Decode(v); err != nil {
					t.Errorf("%s: %s %s: %v", path, what.Kind, what.Metadata.Name, err)
				}
			}
			switch what.APIVersion + " " + what.Kind {
			case "v1 Service":
				var s core.Service
				read(&s)
				services = append(services, s)
			case "apps/v1 Deployment":
				var d apps.Deployment
				read(&d)
				if !fits(d.Spec.Selector.MatchLabels, d.Spec.Template.Labels) {
					t.Errorf("%s: the Deployment %s does not select its own pods", path, d.Name)
				}
				d.Spec.Template.Namespace = d.Namespace
				pods = append(pods, d.Spec.Template)
			case "v1 ConfigMap":
				var m core.ConfigMap
				read(&m)
				configs[m.Namespace+"/"+m.Name] = m
				if b := m.Data["isthmus.yaml"]; b != "" && !strings.Contains(b, "stateDir: "+state) {
					t.Errorf("%s: the bootstrap file of %s keeps nothing in %s", path, m.Name, state)
				}
			default:
				if !strings.HasPrefix(what.APIVersion, "monitoring.coreos.com/") {
					t.Errorf("%s: who knows %s %s?", path, what.APIVersion, what.Kind)
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if !slices.ContainsFunc(pods, func(p core.PodTemplateSpec) bool {
			return p.Namespace == s.Namespace && fits(s.Spec.Selector, p.Labels)
		}) {
			t.Errorf("the Service %s/%s selects nobody", s.Namespace, s.Name)
		}
	}
	for _, p := range pods {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			for _, probe := range []*core.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
				if probe != nil && probe.HTTPGet == nil {
					t.Errorf("a probe of %s asks nothing", c.Name)
				}
			}
			if p.Labels["isthmus"] == "true" {
				checkRestricted(t, &c)
			}
			if c.Name == "isthmus" {
				checkProxy(t, &p.Spec, &c)
				checkBootstrap(t, p.Namespace, &p.Spec, &c, configs)
			}
		}
	}
}

// fits reports whether labels have all that a selector asks for.
func fits(selector, labels map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// checkRestricted: a namespace may ask for the Pod Security Standard "restricted",
// which refuses a pod for any of its containers.
func checkRestricted(t *testing.T, c *core.Container) {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the restricted standard refuses %s: %+v", c.Name, s)
	}
}

// state is where the proxies of the manifests keep what outlasts their containers.
const state = "/var/lib/isthmus"

// checkProxy: it is probed at its ports, which it may open, it has a folder to write
// to, and who drains is not killed before that is over.
func checkProxy(t *testing.T, pod *core.PodSpec, c *core.Container) {
	t.Helper()
	for _, probe := range []*core.Probe{c.ReadinessProbe, c.LivenessProbe} {
		if probe == nil || !slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.ContainerPort == probe.HTTPGet.Port.IntVal }) {
			t.Errorf("%s is not probed at one of its ports: %+v", c.Image, probe)
		}
	}
	// Beside an application it is there first, and last.
	if slices.ContainsFunc(pod.Containers, func(o core.Container) bool { return o.Name != c.Name }) &&
		(len(pod.InitContainers) == 0 || pod.InitContainers[0].Name != c.Name || c.RestartPolicy == nil || *c.RestartPolicy != core.ContainerRestartPolicyAlways || c.StartupProbe == nil) {
		t.Errorf("%s is not there for all of its application's time", c.Image)
	}
	for _, p := range c.Ports {
		if p.ContainerPort < 1024 {
			t.Errorf("port %d is not for who is not root", p.ContainerPort)
		}
	}
	i := slices.IndexFunc(c.VolumeMounts, func(m core.VolumeMount) bool { return m.MountPath == state })
	if i < 0 || !slices.ContainsFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == c.VolumeMounts[i].Name && v.EmptyDir != nil }) {
		t.Errorf("nothing can be written to %s", state)
	}
	const drain = 30 // seconds, the default of drain.timeout
	if g := pod.TerminationGracePeriodSeconds; g == nil || *g <= drain {
		t.Errorf("killed after %v", g)
	}
}

// checkBootstrap: the proxy can use the bootstrap file that it is started with, whatever
// family the pod's address is of, finds the files that this names, and listens where the
// pod says.
func checkBootstrap(t *testing.T, namespace string, pod *core.PodSpec, c *core.Container, configs map[string]core.ConfigMap) {
	t.Helper()
	if i := slices.Index(c.Args, "--bootstrap"); len(c.Args) == 0 || c.Args[0] != "run" || i < 0 || !slices.Contains(c.Args, "--config") {
		t.Fatalf("%s is started with %v", c.Image, c.Args)
	}
	file := c.Args[slices.Index(c.Args, "--bootstrap")+1]
	volume := func(path string) *core.Volume {
		for _, m := range c.VolumeMounts {
			for i := range pod.Volumes {
				if strings.HasPrefix(path, m.MountPath+"/") && pod.Volumes[i].Name == m.Name {
					return &pod.Volumes[i]
				}
			}
		}
		return nil
	}
	v := volume(file)
	if v == nil || v.ConfigMap == nil {
		t.Fatalf("%s is mounted from no ConfigMap", file)
	}
	text := configs[namespace+"/"+v.ConfigMap.Name].Data[filepath.Base(file)]
	path := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.0.0.1", "fd00::1"} {
		values := map[string]string{"metadata.name": "pod-1", "status.podIP": address}
		var environ []string
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
				e.Value = values[e.ValueFrom.FieldRef.FieldPath]
			}
			environ = append(environ, e.Name+"="+e.Value)
		}
		b, warnings, err := config.LoadBootstrap(path, environ)
		if err != nil || len(warnings) > 0 || b.Node.Address != address || b.Node.Name != "pod-1" || b.Node.Namespace != namespace {
			t.Errorf("the bootstrap file of %s at %s: %+v, %v, %v", namespace, address, b, warnings, err)
			continue
		}
		for _, key := range b.Gossip.Keys {
			if volume(key) == nil {
				t.Errorf("%s is not mounted", key)
			}
		}
		listened := []string{}
		for _, l := range []string{b.Listeners.Inbound, b.Listeners.Metrics, b.Gossip.Bind} {
			if _, port, err := net.SplitHostPort(l); err == nil {
				listened = append(listened, port)
			}
		}
		for _, bound := range b.Listeners.Gateway.Ports {
			listened = append(listened, strconv.Itoa(int(bound)))
		}
		for _, p := range c.Ports {
			if !slices.Contains(listened, strconv.Itoa(int(p.ContainerPort))) {
				t.Errorf("nobody listens at port %d (%s) of %s: %v", p.ContainerPort, p.Name, c.Image, listened)
			}
		}
	}
}

// TestDockerfile: what is behind https can be asked, by a user that Kubernetes can
// tell is not root.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" /etc/ssl/certs/ca-certificates.crt\n", "\nUSER 65532:65532\n"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %q", want)
		}
	}
}
