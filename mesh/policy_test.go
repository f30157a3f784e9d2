package mesh

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	tls, portTLS := &ClientTLS{Mode: TLSDisable}, &ClientTLS{Mode: TLSSimple}
	subsetPool := &ConnectionPool{MaxPending: 2}
	rules := []*DestinationRule{
		rule("wild", "default", "*.global", 1, TrafficPolicy{TLS: tls, LoadBalancer: lb(LeastRequest), PortLevel: map[uint32]*TrafficPolicy{90: {TLS: portTLS}}}),
		rule("global", "default", "s.ns.global", 2, TrafficPolicy{LoadBalancer: global}),
		rule("more", "default", "s.ns.global", 3, TrafficPolicy{LoadBalancer: lb(Random), OutlierDetection: outlier}),
		rule("local", "default", "s.ns.svc.cluster.local", 4, TrafficPolicy{ConnectionPool: pool},
			Subset{Name: "v1", Labels: map[string]string{"version": "v1"}, Policy: TrafficPolicy{ConnectionPool: subsetPool, LoadBalancer: local}}),
		rule("hidden", "other", "s.ns.global", 0, TrafficPolicy{TLS: &ClientTLS{Mode: TLSMutual}}),
		rule("whole", "production", "t.ns.svc.cluster.local", 5, TrafficPolicy{LoadBalancer: global, ConnectionPool: pool, TLS: tls}),
		rule("subsets", "production", "t.ns", 6, TrafficPolicy{OutlierDetection: outlier}, Subset{Name: "v1", Policy: TrafficPolicy{
			LoadBalancer: local, ConnectionPool: subsetPool, PortLevel: map[uint32]*TrafficPolicy{90: {TLS: portTLS}},
		}}),
		rule("the service's", "ns", "t.ns", 7, TrafficPolicy{}, Subset{Name: "v2", Policy: TrafficPolicy{LoadBalancer: local}}),
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
		{"a subset's blocks lie over those of a rule of the same rank", "t.ns.svc.cluster.local", 80, "v1", Policy{LoadBalancer: local, ConnectionPool: subsetPool, OutlierDetection: outlier, TLS: tls, Subset: &rules[6].Subsets[0]}},
		{"for a port, too", "t.ns.svc.cluster.local", 90, "v1", Policy{LoadBalancer: global, ConnectionPool: pool, TLS: portTLS, Subset: &rules[6].Subsets[0]}},
		{"not over those of a rule of a higher one", "t.ns.svc.cluster.local", 80, "v2", Policy{LoadBalancer: global, ConnectionPool: pool, OutlierDetection: outlier, TLS: tls, Subset: &rules[7].Subsets[0]}},
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
// before the service's, the root's and others; within it what selects the client.
func TestRules_Tiers(t *testing.T) {
	const host = "s.ns.svc.cluster.local"
	rules := []*DestinationRule{
		rule("other", "a-other", host, 1, TrafficPolicy{}), rule("root", "istio-system", host, 2, TrafficPolicy{}),
		rule("service", "ns", host, 3, TrafficPolicy{}), rule("second", "production", host, 5, TrafficPolicy{}), rule("first", "production", host, 4, TrafficPolicy{}),
	}
	own := rule("own", "production", host, 6, TrafficPolicy{})
	own.WorkloadSelector = map[string]string{"app": "user"}
	others, foreign := rule("for others", "production", host, 0, TrafficPolicy{}), rule("for another namespace's", "ns", host, 0, TrafficPolicy{})
	others.WorkloadSelector, foreign.WorkloadSelector = map[string]string{"app": "x"}, own.WorkloadSelector
	mesh := rule("of the mesh", "istio-system", "", 0, TrafficPolicy{})
	mesh.Default = true
	rules = append(rules, others, foreign, mesh)
	n := node()
	n.Labels = map[string]string{"app": "user", "version": "v1"}
	var got []string
	for _, d := range NewRules(n, append(rules, own)).Candidates(host, "ns") {
		got = append(got, d.Name)
	}
	if want := []string{"own", "first", "second", "service", "root", "other", "of the mesh"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRules_ShortName: a rule for "name.namespace" is one for that service.
func TestRules_ShortName(t *testing.T) {
	r := NewRules(node(), []*DestinationRule{
		rule("short", "ns", "s.ns", 1, TrafficPolicy{LoadBalancer: lb(Random)}, Subset{Name: "v1"}), rule("entry", "ns", "httpbin.org", 2, TrafficPolicy{}),
	})
	for host, want := range map[string]string{"s.ns.svc.cluster.local": "short", "s.ns.global": "short", "s.ns": "short", "httpbin.org": "entry", "t.ns.svc.cluster.local": ""} {
		got := ""
		for _, d := range r.Candidates(host, "ns") {
			got += d.Name
		}
		if got != want {
			t.Errorf("%s has the rules %q, want %q", host, got, want)
		}
	}
	if p := r.Find("s.ns.svc.cluster.local", "ns", 80, "v1"); p.Subset == nil {
		t.Error("the subset is not found")
	}
}

// TestRules_FormsOfOneName: the forms of a service's name in the own cluster are one name,
// which comes before the service's others.
func TestRules_FormsOfOneName(t *testing.T) {
	r := NewRules(node(), []*DestinationRule{
		rule("global", "ns", "s.ns.global", 1, TrafficPolicy{}), rule("short", "ns", "s.ns", 2, TrafficPolicy{}), rule("full", "ns", "s.ns.svc.cluster.local", 3, TrafficPolicy{}),
		rule("svc", "ns", "s.ns.svc", 4, TrafficPolicy{}), rule("first", "ns", "s.ns.svc.cluster.first", 6, TrafficPolicy{}), rule("remote", "ns", "s.ns.svc.cluster.remote", 5, TrafficPolicy{}),
	})
	for host, want := range map[string]string{
		"s.ns.svc.cluster.local":  "short full svc global first remote",
		"s.ns.svc":                "short full svc global first remote",
		"s.ns.global":             "global short full svc first remote",
		"s.ns.svc.cluster.remote": "remote global short full svc first",
	} {
		var got []string
		for _, d := range r.Candidates(host, "ns") {
			got = append(got, d.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s has the rules %q, want %q", host, got, want)
		}
	}
}

// TestRules_Wildcards: of those that a host lies under, the longest comes first, wherever
// it stands.
func TestRules_Wildcards(t *testing.T) {
	for _, hosts := range [][]string{{"*", "*.ns.global", "*.global"}, {"*.global", "*", "*.ns.global"}, {"*.ns.global", "*.global", "*"}} {
		var rules []*DestinationRule
		for i, host := range hosts {
			rules = append(rules, rule(host, "ns", host, i, TrafficPolicy{}), rule(host+" again", "ns", host, i+10, TrafficPolicy{}))
		}
		rules = append(rules, rule("other", "ns", "*.x.global", 0, TrafficPolicy{}))
		var got []string
		for _, d := range NewRules(node(), rules).Candidates("s.ns.global", "ns") {
			got = append(got, d.Name)
		}
		if want := "*.ns.global, *.ns.global again, *.global, *.global again, *, * again"; strings.Join(got, ", ") != want {
			t.Errorf("of %q: %q, want %s", hosts, got, want)
		}
	}
}

// TestRules_Adaptive: what bounds by how long requests take is that of the first rule which
// asks for it; on the inbound side, which is meant for that, too.
func TestRules_Adaptive(t *testing.T) {
	const host = "s.ns.svc.cluster.local"
	plain, first, second := rule("plain", "ns", host, 1, TrafficPolicy{}), rule("first", "ns", host, 2, TrafficPolicy{}), rule("second", "ns", host, 3, TrafficPolicy{})
	plain.Inbound, first.Adaptive, second.Adaptive, second.Inbound = true, true, true, true
	r := NewRules(node(), []*DestinationRule{plain, first, second})
	if got := r.Find(host, "ns", 80, "").Adaptive; got == nil || *got != first.Source {
		t.Errorf("by %v, want the first", got)
	}
	if got := r.AdaptiveInbound(host, "ns"); got == nil || *got != second.Source {
		t.Errorf("inbound by %v, want the second", got)
	}
	r = NewRules(node(), []*DestinationRule{plain, first})
	if got := r.AdaptiveInbound(host, "ns"); got != nil {
		t.Errorf("inbound by %v, want none", got)
	}
	if got := NewRules(node(), []*DestinationRule{plain}).Find(host, "ns", 80, "").Adaptive; got != nil {
		t.Errorf("by %v, want none", got)
	}
}

// randomPolicy draws a policy, some of whose blocks are there.
func randomPolicy(t *rapid.T, ports bool) TrafficPolicy {
	var p TrafficPolicy
	if rapid.Bool().Draw(t, "loadBalancer") {
		p.LoadBalancer = lb(Random)
	}
	if rapid.Bool().Draw(t, "outlierDetection") {
		p.OutlierDetection = &OutlierDetection{}
	}
	if rapid.Bool().Draw(t, "connectionPool") {
		p.ConnectionPool = &ConnectionPool{}
	}
	if rapid.Bool().Draw(t, "tls") {
		p.TLS = &ClientTLS{}
	}
	if ports && rapid.Bool().Draw(t, "port level") {
		level := randomPolicy(t, false)
		p.PortLevel = map[uint32]*TrafficPolicy{80: &level}
	}
	if rapid.Bool().Draw(t, "retryBudget") {
		p.RetryBudget = &RetryBudget{}
	}
	return p
}

// blocks lists a policy's blocks.
func (p Policy) blocks() []any {
	return []any{p.LoadBalancer, p.OutlierDetection, p.ConnectionPool, p.TLS, p.RetryBudget}
}

// layers are the policies that may give a block for port 80 and a subset, the
// one that wins first: what Istio's reference says, written down plainly. Rules of one
// host and namespace are like one, whose subsets are those of all.
func layers(candidates []*DestinationRule, subset string) (out []TrafficPolicy, defined *Subset) {
	for len(candidates) > 0 {
		first := candidates[0]
		var whole []TrafficPolicy
		for len(candidates) > 0 && candidates[0].Host == first.Host && candidates[0].Namespace == first.Namespace {
			d := candidates[0]
			candidates = candidates[1:]
			own := d.Policy
			if level := own.PortLevel[80]; level != nil {
				own = *level
			}
			i := slices.IndexFunc(d.Subsets, func(s Subset) bool { return s.Name == subset })
			if subset == "" || i < 0 {
				whole = append(whole, own)
				continue
			}
			s := &d.Subsets[i]
			if defined == nil {
				defined = s
			}
			if level := s.Policy.PortLevel[80]; level != nil {
				out = append(out, *level) // what it leaves out is default, the rule's own is gone
			} else {
				out, whole = append(out, s.Policy), append(whole, own)
			}
		}
		out = append(out, whole...)
	}
	return out, defined
}

// TestRules_Merge: whatever rules there are, and in whatever order they are
// read, every block is that of the first layer which has it.
func TestRules_Merge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := []string{"s.ns.global", "s.ns.svc.cluster.local", "s.ns.svc.cluster.remote", "*.global", "*.ns.global", "*"}
		namespaces := []string{"production", "ns", "istio-system", "other"}
		var rules []*DestinationRule
		for i := range rapid.IntRange(1, 10).Draw(t, "rules") {
			d := rule(fmt.Sprint(i), rapid.SampledFrom(namespaces).Draw(t, "namespace"), rapid.SampledFrom(hosts).Draw(t, "host"), i, randomPolicy(t, true))
			if rapid.Bool().Draw(t, "subset") {
				d.Subsets = []Subset{{Name: "v1", Policy: randomPolicy(t, true)}}
			}
			rules = append(rules, d)
		}
		host := rapid.SampledFrom(hosts[:3]).Draw(t, "destination")
		subset := rapid.SampledFrom([]string{"", "v1"}).Draw(t, "destination's subset")
		r := NewRules(node(), rules)
		got := r.Find(host, "ns", 80, subset)

		list, defined := layers(r.Candidates(host, "ns"), subset)
		want := Policy{Subset: defined}
		for _, l := range slices.Backward(list) { // what comes later wins
			want.LoadBalancer = cmp.Or(l.LoadBalancer, want.LoadBalancer)
			want.OutlierDetection = cmp.Or(l.OutlierDetection, want.OutlierDetection)
			want.ConnectionPool = cmp.Or(l.ConnectionPool, want.ConnectionPool)
			want.TLS = cmp.Or(l.TLS, want.TLS)
			want.RetryBudget = cmp.Or(l.RetryBudget, want.RetryBudget)
		}
		if got != want {
			t.Fatalf("blocks %v and subset %p, want %v and %p", got.blocks(), got.Subset, want.blocks(), want.Subset)
		}

		shuffled := slices.Clone(rules)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := NewRules(node(), shuffled).Find(host, "ns", 80, subset); again != got {
			t.Fatalf("read in another order: blocks %v, want %v", again.blocks(), got.blocks())
		}
	})
}

// TestRules_FindInbound: a Sidecar limits its own application, a
// DestinationRule only if it says so.
func TestRules_FindInbound(t *testing.T) {
	const host = "s.production.svc.cluster.local"
	rulePool, sidecarPool, portPool := &ConnectionPool{MaxConnections: 1}, &ConnectionPool{MaxConnections: 2}, &ConnectionPool{MaxConnections: 3}
	clients := rule("clients", "production", host, 1, TrafficPolicy{ConnectionPool: &ConnectionPool{MaxConnections: 9}})
	inbound := rule("inbound", "production", host, 2, TrafficPolicy{ConnectionPool: rulePool})
	inbound.Inbound = true
	sidecar := func(namespace string, selector map[string]string, line int) *Sidecar {
		return &Sidecar{
			Meta: Meta{Namespace: namespace, Source: Source{"f", line}}, Selector: selector,
			Pool: sidecarPool, PortPools: map[uint32]*ConnectionPool{8080: portPool},
		}
	}
	n := *node()
	n.Labels = map[string]string{"app": "s"}
	for _, tt := range []struct {
		name     string
		rules    []*DestinationRule
		sidecars []*Sidecar
		target   uint32
		want     *ConnectionPool
	}{
		{"nothing", nil, nil, 80, nil},
		{"a rule for clients", []*DestinationRule{clients}, nil, 80, nil},
		{"a rule for both sides", []*DestinationRule{clients, inbound}, nil, 80, rulePool},
		{"a Sidecar before it", []*DestinationRule{inbound}, []*Sidecar{sidecar("production", nil, 1)}, 80, sidecarPool},
		{"a Sidecar's port", []*DestinationRule{inbound}, []*Sidecar{sidecar("production", nil, 1)}, 8080, portPool},
		{"a Sidecar that selects it", nil, []*Sidecar{{Meta: Meta{Namespace: "production"}}, sidecar("production", n.Labels, 2)}, 80, sidecarPool},
		{"a Sidecar for others", nil, []*Sidecar{sidecar("production", map[string]string{"app": "x"}, 1), sidecar("other", nil, 1)}, 80, nil},
		{"a Sidecar of another namespace that selects it", nil, []*Sidecar{sidecar("other", n.Labels, 1)}, 80, nil},
		{"the root namespace's that selects it", nil, []*Sidecar{sidecar("istio-system", n.Labels, 1)}, 80, nil},
		{"the first of two", nil, []*Sidecar{{Meta: Meta{Namespace: "production", Source: Source{"f", 2}}}, sidecar("production", nil, 1)}, 80, sidecarPool},
		{"the first of two, in order", nil, []*Sidecar{sidecar("production", nil, 1), {Meta: Meta{Namespace: "production", Source: Source{"f", 2}}}}, 80, sidecarPool},
		{"a Sidecar without a pool", []*DestinationRule{inbound}, []*Sidecar{{Meta: Meta{Namespace: "production"}}}, 80, rulePool},
		{"the root namespace's", nil, []*Sidecar{sidecar("istio-system", nil, 1)}, 80, sidecarPool},
		{"the own namespace's before it", nil, []*Sidecar{sidecar("istio-system", nil, 1), {Meta: Meta{Namespace: "production"}}}, 80, nil},
	} {
		if got := NewRules(&n, tt.rules).FindInbound(tt.sidecars, host, "production", 80, tt.target); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
