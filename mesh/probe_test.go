package mesh

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestProbedWorkloads says whom a proxy looks at.
func TestProbedWorkloads(t *testing.T) {
	workload := func(kind, namespace, address, app string) *Workload {
		w := &Workload{Meta: Meta{Kind: kind, Namespace: namespace, Name: address, Labels: map[string]string{"app": app, "version": "v1"}}, Address: address}
		return w
	}
	all := []*Workload{
		workload("WorkloadEntry", "default", "10.0.0.1", "web"), // the node's own address
		workload("WorkloadEntry", "default", "10.0.0.2", "web"),
		workload("WorkloadEntry", "default", "10.0.0.3", "db"),
		workload("WorkloadEntry", "other", "10.0.0.4", "web"),
		workload("EndpointSlice", "default", "10.0.0.5", "web"),
	}
	for _, tt := range []struct {
		name   string
		node   Node
		labels map[string]string
		probe  *Probe
		want   []string
	}{
		{"a sidecar", Node{Labels: map[string]string{"app": "web"}}, map[string]string{"app": "web"}, &Probe{}, []string{"own", "own 10.0.0.1", "10.0.0.2"}},
		{"a proxy of others", Node{Labels: map[string]string{"app": "client"}}, map[string]string{"app": "web"}, &Probe{}, []string{"10.0.0.1", "10.0.0.2"}},
		{"a group without a probe", Node{Labels: map[string]string{"app": "web"}}, map[string]string{"app": "web"}, nil, nil},
		{"a group without labels", Node{Labels: map[string]string{"app": "web"}}, nil, &Probe{}, nil},
		{"a command", Node{Labels: map[string]string{"app": "web"}, AllowExec: true}, map[string]string{"app": "web"}, &Probe{Kind: ProbeExec}, []string{"own", "own 10.0.0.1"}},
		{"a command, not allowed", Node{Labels: map[string]string{"app": "web"}}, map[string]string{"app": "web"}, &Probe{Kind: ProbeExec}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.node.Namespace, tt.node.Address = "default", "10.0.0.1"
			c := &Config{Workloads: all, WorkloadGroups: []*WorkloadGroup{{Meta: Meta{Namespace: "default"}, GroupLabels: tt.labels, Probe: tt.probe}}}
			var got []string
			for _, p := range ProbedWorkloads(&tt.node, c) {
				who := ""
				if p.Own {
					who = "own "
				}
				if p.Workload != nil {
					who += p.Workload.Address
				}
				got = append(got, strings.TrimSpace(who))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("probes %v, want %v", got, tt.want)
			}
		})
	}
}

// TestRegistry_Probed: what probes find is said of the endpoint.
func TestRegistry_Probed(t *testing.T) {
	web := &Workload{Meta: Meta{Kind: "WorkloadEntry", Namespace: "default", Labels: map[string]string{"app": "web"}}, Address: "10.0.0.2"}
	far := Endpoint{Service: "web.default", Port: Port{Number: 80}, Address: netip.MustParseAddrPort("10.9.0.1:80"), Cluster: "c2", Source: SourceGossip}
	known := Known{
		Node: &Node{Cluster: "c1", Namespace: "default"},
		Config: &Config{
			Services:  []*Service{{Meta: Meta{Namespace: "default", Name: "web"}, Ports: []Port{{Number: 80}}, Selector: map[string]string{"app": "web"}}},
			Workloads: []*Workload{web},
		},
		Announced: []Endpoint{far, {
			// What was announced of it a moment ago, or is by another proxy.
			Service: "web.default", Port: Port{Number: 80}, Address: netip.MustParseAddrPort("10.0.0.2:80"), Cluster: "c1", Source: SourceGossip, Relayed: true,
		}},
		Probed:      map[*Workload]Health{web: {Unready: "probe: GET /: 503", Degraded: true}},
		Unreachable: map[EndpointKey]string{far.Key(): "cannot be reached"},
	}
	all := NewRegistry(known).All()
	if len(all) != 2 || all[0].Unready != "probe: GET /: 503" || !all[0].Degraded || all[1].Unready != "cannot be reached" || all[1].Degraded {
		for _, e := range all {
			t.Errorf("%+v", e)
		}
	}
}
