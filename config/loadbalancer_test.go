package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
)

// readPolicy reads one DestinationRule with a trafficPolicy.
func readPolicy(t *testing.T, annotations, policy string) (*mesh.TrafficPolicy, []Finding) {
	t.Helper()
	r := Read([]File{{Name: "d.yaml", Data: fmt.Appendf(nil, `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, annotations: {%s}}
spec:
  host: a.test
  trafficPolicy: {%s}
`, annotations, policy)}}, nil)
	for _, f := range r.Findings {
		if f.Severity == Error {
			t.Fatal(f)
		}
	}
	return &r.Config.DestinationRules[0].Policy, r.Findings
}

func TestRead_LoadBalancer(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		kind         mesh.LoadBalancerKind
		hash         *mesh.HashPolicy
	}{
		{"default", "loadBalancer: {}", mesh.LeastRequest, nil},
		{"least connections, deprecated", "loadBalancer: {simple: LEAST_CONN}", mesh.LeastRequest, nil},
		{"path", `loadBalancer: {consistentHash: {httpHeaderName: ":Path"}}`, mesh.RingHash, &mesh.HashPolicy{Header: ":path", TableSize: 1024}},
		{"header", "loadBalancer: {consistentHash: {httpHeaderName: X-User}}", mesh.RingHash, &mesh.HashPolicy{Header: "x-user", TableSize: 1024}},
		{"ring size", "loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 50}}}", mesh.RingHash, &mesh.HashPolicy{SourceIP: true, TableSize: 50}},
		{"ring size, deprecated", "loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 60}}", mesh.RingHash, &mesh.HashPolicy{SourceIP: true, TableSize: 60}},
		{"maglev", "loadBalancer: {consistentHash: {httpQueryParameterName: q, maglev: {}}}", mesh.Maglev, &mesh.HashPolicy{QueryParam: "q", TableSize: 65537}},
		{"maglev's size", "loadBalancer: {consistentHash: {httpQueryParameterName: q, maglev: {tableSize: 101}}}", mesh.Maglev, &mesh.HashPolicy{QueryParam: "q", TableSize: 101}},
	} {
		p, _ := readPolicy(t, "", tt.policy)
		if p.LoadBalancer.Kind != tt.kind || (tt.hash == nil) != (p.LoadBalancer.Hash == nil) || tt.hash != nil && *tt.hash != *p.LoadBalancer.Hash {
			t.Errorf("%s: kind %v, hash %+v", tt.name, p.LoadBalancer.Kind, p.LoadBalancer.Hash)
		}
	}
	for ttl, want := range map[string]mesh.HashCookie{
		"":           {Name: "c"},
		", ttl: 0s":  {Name: "c", Generate: true},
		", ttl: 90s": {Name: "c", Generate: true, TTL: 90 * time.Second},
	} {
		p, _ := readPolicy(t, "", "loadBalancer: {consistentHash: {httpCookie: {name: c"+ttl+"}}}")
		if c := p.LoadBalancer.Hash.Cookie; c.Name != want.Name || c.Generate != want.Generate || c.TTL != want.TTL {
			t.Errorf("cookie%s: %+v", ttl, c)
		}
	}
}

func TestRead_Warmup(t *testing.T) {
	for _, tt := range []struct {
		policy string
		want   mesh.Warmup
	}{
		{"warmup: {duration: 30s}", mesh.Warmup{Duration: 30 * time.Second, MinPercent: 10, Aggression: 1}},
		{"warmup: {duration: 1m, minimumPercent: 5, aggression: 2}", mesh.Warmup{Duration: time.Minute, MinPercent: 5, Aggression: 2}},
		{"warmupDurationSecs: 20s", mesh.Warmup{Duration: 20 * time.Second, MinPercent: 10, Aggression: 1}},
	} {
		p, _ := readPolicy(t, "", "loadBalancer: {"+tt.policy+"}")
		if got := p.LoadBalancer.Warmup; got == nil || *got != tt.want {
			t.Errorf("%s: %+v", tt.policy, got)
		}
	}
	for policy, want := range map[string]bool{"warmup: {duration: 1s}": false, hashed: false, "warmup: {duration: 1s}, " + hashed: true} {
		_, findings := readPolicy(t, "", "loadBalancer: {"+policy+"}")
		if told := slices.ContainsFunc(findings, func(f Finding) bool { return strings.Contains(f.Message, "there is no warmup with it") }); told != want {
			t.Errorf("%s: findings %v", policy, findings)
		}
	}
}

const hashed = "consistentHash: {useSourceIp: true}"

// TestRead_AlgorithmAnnotation: it makes a policy where there is none, and
// leaves alone what names an algorithm.
func TestRead_AlgorithmAnnotation(t *testing.T) {
	const annotation = "isthmus.io/load-balancer: peak-ewma"
	if p, _ := readPolicy(t, annotation, ""); p.LoadBalancer == nil || p.LoadBalancer.Kind != mesh.PeakEWMA {
		t.Errorf("without a policy: %+v", p.LoadBalancer)
	}
	if p, _ := readPolicy(t, annotation, "portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: LEAST_REQUEST}}]"); p.PortLevel[80].LoadBalancer.Kind != mesh.PeakEWMA {
		t.Errorf("of a port: %+v", p.PortLevel[80].LoadBalancer)
	}
	if p, _ := readPolicy(t, annotation, "portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]"); p.PortLevel[80].LoadBalancer == nil || p.PortLevel[80].LoadBalancer.Kind != mesh.PeakEWMA {
		t.Errorf("of a port that names no algorithm: %+v", p.PortLevel[80].LoadBalancer)
	}
	r := Read([]File{{Name: "d.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, annotations: {" + annotation + "}}\nspec:\n  host: a.test\n  subsets: [" +
		"{name: a}, {name: b, trafficPolicy: {loadBalancer: {}}}, {name: c, trafficPolicy: {loadBalancer: {simple: RANDOM}}}, {name: d, trafficPolicy: {tls: {mode: SIMPLE}}}]\n")}}, nil)
	if rule := r.Config.DestinationRules[0]; rule.Subsets[0].Policy.LoadBalancer != nil || rule.Subsets[1].Policy.LoadBalancer.Kind != mesh.PeakEWMA ||
		rule.Subsets[2].Policy.LoadBalancer.Kind != mesh.Random || rule.Subsets[3].Policy.LoadBalancer != nil || rule.Policy.LoadBalancer.Kind != mesh.PeakEWMA {
		t.Errorf("of subsets: %+v", rule)
	}
	p, findings := readPolicy(t, annotation, "loadBalancer: {simple: RANDOM}")
	if p.LoadBalancer.Kind != mesh.Random || len(findings) == 0 || !strings.Contains(findings[0].String(), "has no effect") {
		t.Errorf("beside RANDOM: %+v, %v", p.LoadBalancer, findings)
	}
}

// TestRead_FailoverPriority: labels of a locality are refused beside failover, as in Istio.
func TestRead_FailoverPriority(t *testing.T) {
	for _, tt := range []struct{ setting, want string }{
		{"failover: [{from: a, to: b}], failoverPriority: [app, topology.istio.io/network, topology.kubernetes.io/region=a]", ""},
		{"failoverPriority: [topology.kubernetes.io/region, topology.kubernetes.io/zone]", ""},
		{"failover: [{from: a, to: b}], failoverPriority: [app, topology.kubernetes.io/region]", "error: DestinationRule default/r: trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[1]: topology.kubernetes.io/region cannot stand beside failover"},
		{"failover: [{from: a, to: b}], failoverPriority: [topology.istio.io/subzone]", "failoverPriority[0]: topology.istio.io/subzone cannot"},
	} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec: {host: a.test, trafficPolicy: {loadBalancer: {localityLbSetting: {" + tt.setting + "}}}}\n")}}, nil)
		if r.HasErrors() != (tt.want != "") || tt.want != "" && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.String(), tt.want) }) {
			t.Errorf("%s: %v, want %q", tt.setting, r.Findings, tt.want)
		}
	}
}

// TestRead_DistributeWins: priorities beside shares are read over, with a word, as in Istio.
func TestRead_DistributeWins(t *testing.T) {
	p, findings := readPolicy(t, "", `loadBalancer: {localityLbSetting: {distribute: [{from: "*", to: {"a/*": 100}}], failoverPriority: [app]}}`)
	if l := p.LoadBalancer.Locality; l == nil || len(l.Distribute) != 1 || l.FailoverPriority != nil {
		t.Errorf("%+v", l)
	}
	if len(findings) != 1 || findings[0].Severity != Warning || !strings.Contains(findings[0].String(), "failoverPriority: has no effect beside distribute") {
		t.Errorf("%v", findings)
	}
}

func TestRead_RetryBudget(t *testing.T) {
	p, _ := readPolicy(t, "", "retryBudget: {}")
	if b := p.RetryBudget; b.Percent != 20 || b.MinConcurrency != 3 {
		t.Errorf("default: %+v", b)
	}
	p, _ = readPolicy(t, "", "retryBudget: {percent: 5, minRetryConcurrency: 10, budgetInterval: 2s}")
	if b := p.RetryBudget; b.Percent != 5 || b.MinConcurrency != 10 || b.Interval != 2*time.Second {
		t.Errorf("%+v", b)
	}
}

func TestRead_ZoneAware(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		want         mesh.LocalityLB
		warning      string
	}{
		{"on", "loadBalancer: {zoneAwareLbSetting: {enabled: true}}", mesh.LocalityLB{LeastHosts: 6}, ""},
		{"off", "loadBalancer: {zoneAwareLbSetting: {enabled: false}}", mesh.LocalityLB{Disabled: true}, ""},
		{"from how many on", "loadBalancer: {zoneAwareLbSetting: {enabled: true, minClusterSize: 3}}", mesh.LocalityLB{LeastHosts: 3}, ""},
		{"with regions", "loadBalancer: {zoneAwareLbSetting: {enabled: true, failover: [{from: a, to: b}]}}",
			mesh.LocalityLB{LeastHosts: 6, Failover: []mesh.Failover{{From: "a", To: "b"}}}, ""},
		{"not with a hash", "loadBalancer: {consistentHash: {useSourceIp: true}, zoneAwareLbSetting: {enabled: true}}", mesh.LocalityLB{}, "zones are not balanced with it"},
	} {
		p, findings := readPolicy(t, "", tt.policy)
		if !reflect.DeepEqual(*p.LoadBalancer.Locality, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, *p.LoadBalancer.Locality, tt.want)
		}
		warned := slices.ContainsFunc(findings, func(f Finding) bool { return tt.warning != "" && strings.Contains(f.Message, tt.warning) })
		if warned != (tt.warning != "") {
			t.Errorf("%s: findings %v", tt.name, findings)
		}
	}
}
