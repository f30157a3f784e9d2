package mesh

import "testing"

func TestParseIdentity(t *testing.T) {
	for id, want := range map[string]Identity{
		"spiffe://cluster.local/ns/production/sa/user": {"cluster.local", "production", "user"},
		"spiffe://cluster.local/ns/production/sa/":     {},
		"spiffe://cluster.local/ns//sa/user":           {},
		"spiffe:///ns/a/sa/b":                          {},
		"spiffe://d/ns/a/sa/b/c":                       {},
		"spiffe://d/x/ns/a/sa/b":                       {},
		"spiffe://d/workload":                          {},
		"cluster.local/ns/a/sa/b":                      {},
		"":                                             {},
	} {
		got, ok := ParseIdentity(id)
		if got != want || ok != (want != Identity{}) || ok && got.String() != id {
			t.Errorf("%q: got %+v, %v", id, got, ok)
		}
	}
}
