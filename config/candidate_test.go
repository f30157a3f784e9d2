package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLoadCandidate: its resources take the place of others, are new, or take
// others away; nothing of the files is changed by that.
func TestLoadCandidate(t *testing.T) {
	service := func(name, more string, port string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + more + "}\nspec: {ports: [{name: http, port: " + port + "}]}\n---\n"
	}
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := put("base.yaml", service("a", "", "80")+service("b", "", "80")+service("c", "", "80"))
	folder := filepath.Join(dir, "candidate")
	if r := LoadCandidate([]string{base}, []string{folder}, nil); r != nil {
		t.Errorf("a folder that is not there: %+v", r)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if r := LoadCandidate([]string{base}, []string{folder}, nil); r != nil {
		t.Errorf("an empty folder: %+v", r)
	}
	put("candidate/a.yaml", service("a", "", "81")+service("b", ", annotations: {isthmus.io/removed: 'true'}", "80")+service("d", "", "82"))
	r := LoadCandidate([]string{base}, []string{folder}, nil)
	var got []string
	for _, s := range r.Config.Services {
		got = append(got, s.Name+" "+filepath.Base(s.Source.File))
	}
	if s := strings.Join(got, ", "); s != "c base.yaml, a a.yaml, d a.yaml" || r.HasErrors() || len(r.Resources) != 3 {
		t.Errorf("%s with %v", s, r.Findings)
	}
	if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == ISM0008 }) {
		t.Errorf("that a candidate lies over others is said: %v", r.Findings)
	}
	same := Load([]string{base}, nil)
	if len(same.Config.Services) != 3 || same.Config.Hash == r.Config.Hash {
		t.Errorf("the files alone: %d services, hash %s and %s", len(same.Config.Services), same.Config.Hash, r.Config.Hash)
	}
	put("candidate/b.yaml", service("d", "", "83"))
	if r := LoadCandidate([]string{base}, []string{folder}, nil); !r.HasErrors() {
		t.Error("two of one name in one layer are no error")
	}
	put("candidate/b.yaml", "kind: [")
	if r := LoadCandidate([]string{base}, []string{folder}, nil); !r.HasErrors() {
		t.Error("what is not YAML is no error")
	}
}
