package mesh

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func rule(name, namespace, host string, line int, p TrafficPolicy, subsets ...Subset) *DestinationRule {
	return &DestinationRule{Meta: Meta{Name: name, Namespace: namespace, Source: Source{"f", line}}, Host: host, Policy: p, Subsets: subsets}
}

func lb(k LoadBalancerKind) *LoadBalancer { return &LoadBalancer{Kind: k} }

// TestRules_Find puts the blocks of several rules together.
func TestRules_Find(t *testing.T) {
	global, local := lb(RoundRobin), lb(Random)
	outlier, pool := &OutlierDetection{Consecutive5xx: 1}, &ConnectionPool{MaxPending: 1}
	tls, portTLS := &ClientTLS{Mode: "DISABLE"}, &ClientTLS{Mode: "SIMPLE"}
	subsetPool := &ConnectionPool{MaxPending: 2}
	rules := []*DestinationRule{
		rule("wild", "default", "*.global", 1, TrafficPolicy{TLS: tls, LoadBalancer: lb(LeastRequest), PortLevel: map[uint32]*TrafficPolicy{90: {TLS: portTLS}}}),
		rule("global", "default", "s.ns.global", 2, TrafficPolicy{LoadBalancer: global}),
		rule("more", "default", "s.ns.global", 3, TrafficPolicy{LoadBalancer: lb(Random), OutlierDetection: outlier}),
		rule("local", "default", "s.ns.svc.cluster.local", 4, TrafficPolicy{ConnectionPool: pool},
			Subset{Name: "v1", Labels: map[string]string{"version": "v1"}, Policy: TrafficPolicy{ConnectionPool: subsetPool, LoadBalancer: local}}),
		rule("hidden", "other", "s.ns.global", 0, TrafficPolicy{TLS: &ClientTLS{Mode: "MUTUAL"}}),
	}
	rules[4].ExportTo = []string{"."}
	r := NewRules(node(), rules)
	for _, tt := range []struct {
		name, host string
		port       uint32
		subset     string
		want       Policy
	}{
		{"blocks of two rules, a wildcard's last", "s.ns.global", 80, "", Policy{LoadBalancer: global, OutlierDetection: outlier, ConnectionPool: pool, TLS: tls}},
		{"found across names; wildcards only for their own", "s.ns.svc.cluster.local", 80, "", Policy{LoadBalancer: global, OutlierDetection: outlier, ConnectionPool: pool}},
		{"a remote name", "s.ns.svc.cluster.remote", 80, "", Policy{LoadBalancer: global, OutlierDetection: outlier, ConnectionPool: pool}},
		{"a subset's blocks lie over its rule's", "s.ns.svc.cluster.local", 80, "v1", Policy{LoadBalancer: local, OutlierDetection: outlier, ConnectionPool: subsetPool, Subset: &rules[3].Subsets[0]}},
		{"a subset found across names", "s.ns.svc.cluster.remote", 80, "v1", Policy{LoadBalancer: global, OutlierDetection: outlier, ConnectionPool: subsetPool, Subset: &rules[3].Subsets[0]}},
		{"port level replaces its rule's top level", "s.ns.global", 90, "", Policy{LoadBalancer: global, OutlierDetection: outlier, ConnectionPool: pool, TLS: portTLS}},
		{"nobody's", "x.ns.svc.cluster.local", 80, "", Policy{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := r.Find(tt.host, "ns", tt.port, tt.subset); got != tt.want {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestRules_Tiers: among rules for one host, the client's namespace comes
// before the service's, the root's and others.
func TestRules_Tiers(t *testing.T) {
	const host = "s.ns.svc.cluster.local"
	rules := []*DestinationRule{
		rule("other", "a-other", host, 1, TrafficPolicy{}), rule("root", "istio-system", host, 2, TrafficPolicy{}),
		rule("service", "ns", host, 3, TrafficPolicy{}), rule("second", "production", host, 5, TrafficPolicy{}), rule("first", "production", host, 4, TrafficPolicy{}),
	}
	var got []string
	for _, d := range NewRules(node(), rules).Candidates(host, "ns") {
		got = append(got, d.Name)
	}
	if want := []string{"first", "second", "service", "root", "other"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRules_OrderDoesNotMatter: the order in which files are read changes
// nothing.
func TestRules_OrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := []string{"s.ns.global", "s.ns.svc.cluster.local", "s.ns.svc.cluster.remote", "*.global", "*.ns.global", "*"}
		namespaces := []string{"production", "ns", "istio-system", "other"}
		var rules []*DestinationRule
		for i := range rapid.IntRange(1, 12).Draw(t, "rules") {
			p := TrafficPolicy{}
			if rapid.Bool().Draw(t, "lb") {
				p.LoadBalancer = lb(Random)
			}
			if rapid.Bool().Draw(t, "outlier") {
				p.OutlierDetection = &OutlierDetection{}
			}
			if rapid.Bool().Draw(t, "pool") {
				p.ConnectionPool = &ConnectionPool{}
			}
			rules = append(rules, rule(fmt.Sprint(i), rapid.SampledFrom(namespaces).Draw(t, "namespace"), rapid.SampledFrom(hosts).Draw(t, "host"), i, p))
		}
		host := rapid.SampledFrom(hosts[:3]).Draw(t, "destination")
		want := NewRules(node(), rules).Find(host, "ns", 80, "")
		shuffled := slices.Clone(rules)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := NewRules(node(), shuffled).Find(host, "ns", 80, ""); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		// Every block comes from the first candidate that has it.
		for _, d := range NewRules(node(), rules).Candidates(host, "ns") {
			if d.Policy.LoadBalancer != nil {
				if want.LoadBalancer != d.Policy.LoadBalancer {
					t.Fatalf("loadBalancer is not that of %s", d.Name)
				}
				break
			}
		}
	})
}
