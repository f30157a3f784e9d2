package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestLoad_Overlay: a resource of a later path stands in the place of an earlier
// one, whole, and that is said; twice in one path it is a mistake.
func TestLoad_Overlay(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(host, pool string) string {
		return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s}\nspec: {host: %s.test, trafficPolicy: {connectionPool: {tcp: {maxConnections: %s}}}}\n---\n", host, host, pool)
	}
	write("base/a.yaml", rule("a", "1")+rule("b", "2"))
	write("prod/z.yaml", rule("a", "10"))
	write("prod/eu/z.yaml", rule("c", "3"))
	base, prod := filepath.Join(dir, "base"), filepath.Join(dir, "prod")
	pools := func(r *Result) string {
		var out []string
		for _, d := range r.Config.DestinationRules {
			out = append(out, fmt.Sprintf("%s=%d", d.Name, d.Policy.ConnectionPool.MaxConnections))
		}
		return strings.Join(out, " ")
	}
	r := Load([]string{base, prod}, nil)
	if got := pools(r); got != "b=2 c=3 a=10" || r.HasErrors() {
		t.Errorf("rules %s, findings %v", got, r.Findings)
	}
	said := slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Code == ISM0008 && f.Severity == Info && f.Line == 1 && strings.HasSuffix(f.File, "base/a.yaml") && strings.Contains(f.Message, "prod/z.yaml:1")
	})
	if !said {
		t.Errorf("nothing is said of what does not hold: %v", r.Findings)
	}
	if r := Load([]string{prod, base}, nil); pools(r) != "c=3 a=1 b=2" {
		t.Errorf("the other way round: %s", pools(r))
	}
	if r := Load([]string{dir}, nil); !r.HasErrors() {
		t.Error("twice in one path is taken")
	}
	write("less/a.yaml", strings.Replace(rule("a", "1"), "{name: a}", "{name: a, annotations: {isthmus.io/removed: 'true'}}", 1))
	if r := Load([]string{base, prod, filepath.Join(dir, "less")}, nil); pools(r) != "b=2 c=3" || r.HasErrors() {
		t.Errorf("with one removed: %s, findings %v", pools(r), r.Findings)
	}
	less := filepath.Join(dir, "less")
	nothing := func(r *Result) bool {
		return slices.ContainsFunc(r.Findings, func(f Finding) bool {
			return f.Severity == Warning && strings.Contains(f.Message, "takes nothing away")
		})
	}
	if r := Load([]string{base, less}, nil); nothing(r) || pools(r) != "b=2" {
		t.Errorf("one removed: %s, findings %v", pools(r), r.Findings)
	}
	if r := Load([]string{less, base}, nil); pools(r) != "a=1 b=2" {
		t.Errorf("removed before it is there: %s, findings %v", pools(r), r.Findings)
	}
	if r := Load([]string{less}, nil); !nothing(r) || pools(r) != "" {
		t.Errorf("removed where there is none: %s, findings %v", pools(r), r.Findings)
	}
	write("knative/a.yaml", "apiVersion: other.dev/v1\nkind: DestinationRule\nmetadata: {name: a}\n---\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n")
	if r := Load([]string{base, filepath.Join(dir, "knative")}, nil); pools(r) != "a=1 b=2" || r.HasErrors() {
		t.Errorf("beside a kind of others by the same name: %s, findings %v", pools(r), r.Findings)
	}
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
	if r := Read([]File{{Name: "a", Data: []byte(secret)}, {Name: "b", Data: []byte(secret), Layer: 1}}, nil); r.Secrets != 2 {
		t.Errorf("%d Secrets are counted, also of those that do not hold: 2 must be", r.Secrets)
	}
	// What does not hold is not judged, either.
	write("broken/a.yaml", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {hots: x}\n")
	if r := Load([]string{filepath.Join(dir, "broken"), prod}, nil); r.HasErrors() {
		t.Errorf("what is overridden is refused: %v", r.Findings)
	}
}

// TestRead_OverlayIsLast: of any layers, what holds of each resource is what the
// last layer that has it says.
func TestRead_OverlayIsLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]int{}
		var files []File
		for layer := range rapid.IntRange(1, 4).Draw(t, "layers") {
			var text strings.Builder
			for _, name := range []string{"a", "b", "c"} {
				if rapid.Bool().Draw(t, name) {
					n := rapid.IntRange(1, 1000).Draw(t, "value")
					want[name] = n
					fmt.Fprintf(&text, "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s}\nspec: {host: %s.test, trafficPolicy: {connectionPool: {tcp: {maxConnections: %d}}}}\n---\n", name, name, n)
				}
			}
			files = append(files, File{Name: fmt.Sprintf("%d.yaml", layer), Data: []byte(text.String()), Layer: layer})
		}
		r := Read(files, nil)
		if r.HasErrors() || len(r.Config.DestinationRules) != len(want) {
			t.Fatalf("%d rules, want %v; findings %v", len(r.Config.DestinationRules), want, r.Findings)
		}
		for _, d := range r.Config.DestinationRules {
			if got := int(d.Policy.ConnectionPool.MaxConnections); got != want[d.Name] {
				t.Errorf("%s: %d, want %d", d.Name, got, want[d.Name])
			}
		}
	})
}

// FuzzRead_Overlay: whatever two layers say, reading ends, and each of them alone
// and both together are read alike twice.
func FuzzRead_Overlay(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n"), []byte("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 81}]}\n"))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service, metadata: {name: a}}]\n"), []byte("kind: Service\n"))
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		files := []File{{Name: "lower.yaml", Data: lower}, {Name: "upper.yaml", Data: upper, Layer: 1}}
		r, again := Read(files, nil), Read(files, nil)
		if len(r.Findings) != len(again.Findings) || len(r.Config.Services) != len(again.Config.Services) {
			t.Errorf("read twice, %d and %d findings", len(r.Findings), len(again.Findings))
		}
		for _, g := range r.Findings {
			if g.Code == ISM0008 && g.File != "lower.yaml" {
				t.Errorf("the later path is overridden: %s", g)
			}
		}
	})
}
