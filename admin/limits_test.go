package admin

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestWriteLimits: what is left is what would be let in, and what a filter does
// not enforce would have been refused.
func TestWriteLimits(t *testing.T) {
	left := 0.9
	var b strings.Builder
	WriteLimits(&b, []Limit{
		{Name: "EnvoyFilter a/b", Kind: "local", Listeners: []string{"inbound"}, Source: "f.yaml:3", Allowed: 5, Limited: 7, Refused: 3, WouldRefuse: 1,
			Buckets: []Bucket{{Limit: 10, PerFill: 2, Interval: 60, Remaining: &left}, {Descriptor: "user=bob", Limit: 1, PerFill: 1, Interval: 1, Shadow: true}, {Limit: 3, PerFill: 3, Interval: 1, PerConnection: true}}},
		{Name: "EnvoyFilter a/c", Kind: "service", Where: "h:80 r", Domain: "d", State: "down", Failed: 9},
		{Name: "EnvoyFilter a/c", Kind: "service", Where: "h:80 r", Domain: "e", Candidate: true},
		{Name: "d a=b", Kind: "rule", Domain: "d", Buckets: []Bucket{{Descriptor: "a=b", Interval: 60}}},
		{Name: "d a=c", Kind: "rule", Domain: "d"},
		{Name: "web", Kind: "concurrency", Buckets: []Bucket{{Limit: 20}}},
		{Name: "EnvoyFilter a/d", Kind: "local", Off: true, Buckets: []Bucket{{Limit: 1, PerFill: 1, Interval: 1}}},
	})
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	for i, want := range []string{
		"LIMIT KIND WHERE BUCKET LEFT ALLOWED REFUSED WOULD REFUSE UNKNOWN SOURCE STATE",
		"EnvoyFilter a/b local inbound 10, 2 every 1m0s 0 5 3 5 0 f.yaml:3 -",
		"user=bob: 1, 1 every 1s (counts only) -",
		"3, 3 every 1s, each connection -",
		"EnvoyFilter a/c service h:80 r domain d - 0 0 0 9 - down",
		"EnvoyFilter a/c service candidate: h:80 r domain e - 0 0 0 0 - -",
		"d a=b rule - a=b: 0, 0 every 1m0s - 0 0 0 0 - -",
		"d a=c rule - unlimited - 0 0 0 0 - -",
		"web concurrency - 20 under way at most - 0 0 0 0 - -",
		"EnvoyFilter a/d local - 1, 1 every 1s - 0 0 0 0 - off: filter_enabled is 0",
	} {
		if i >= len(got) || got[i] != want {
			t.Errorf("line %d is not %q:\n%s", i+1, want, b.String())
		}
	}
}

type limitsOf []Limit

func (l limitsOf) Describe(out chan<- *prometheus.Desc) { out <- limitsDesc }
func (l limitsOf) Collect(out chan<- prometheus.Metric) { collectLimits(out, l) }

// TestCollectLimits: limits that differ by nothing but where they stand are told apart,
// and those that differ by nothing count together, whichever comes first.
func TestCollectLimits(t *testing.T) {
	ways := []Limit{{Name: "outbound|80||web", Kind: "concurrency", Allowed: 3}, {Name: "outbound|80||web", Kind: "concurrency", Allowed: 4}}
	filters := []Limit{{Name: "EnvoyFilter a/b", Kind: "local", Source: "f.yaml:3", Allowed: 1}, {Name: "EnvoyFilter a/b", Kind: "local", Source: "f.yaml:9", Allowed: 2}}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(limitsOf(append(ways, filters...)))
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	got := map[string]float64{}
	for _, m := range families[0].Metric {
		text := ""
		for _, l := range m.Label {
			text += l.GetValue() + " "
		}
		got[text] = m.Counter.GetValue()
	}
	want := map[string]float64{"concurrency outbound|80||web allowed  ": 7, "local EnvoyFilter a/b allowed  ": 1, "local EnvoyFilter a/b allowed f.yaml:9 ": 2}
	for text, n := range want {
		if got[text] != n {
			t.Errorf("%q is %v, want %v; there are %v", text, got[text], n, got)
		}
	}
}
