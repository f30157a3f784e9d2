package config

import (
	"os"
	"strings"
	"testing"
)

// TestLoad_MultiCluster holds what is said of a set of resources as their authors
// write them, in deploy/examples: every document is read, none is an error.
func TestLoad_MultiCluster(t *testing.T) {
	r := Load([]string{"../deploy/examples/multicluster"}, nil)
	var got strings.Builder
	for _, f := range r.Findings {
		got.WriteString(f.String() + "\n")
	}
	if r.HasErrors() {
		t.Errorf("the set has errors")
	}
	golden := "testdata/multicluster.findings"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("findings differ from %s (UPDATE_GOLDEN=1 rewrites it)\ngot:\n%s\nwant:\n%s", golden, got.String(), want)
	}
	c := r.Config
	for _, n := range []struct {
		what      string
		got, want int
	}{
		{"services", len(c.Services), 3},
		{"workloads", len(c.Workloads), 1},
		{"workload groups", len(c.WorkloadGroups), 1},
		{"gateways", len(c.Gateways), 1},
		{"virtual services", len(c.VirtualServices), 4},
		{"destination rules", len(c.DestinationRules), 5},
	} {
		if n.got != n.want {
			t.Errorf("%d %s, want %d", n.got, n.what, n.want)
		}
	}
}
