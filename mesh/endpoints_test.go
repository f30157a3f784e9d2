package mesh

import "testing"

// TestApplicationPort: whose word counts for where the application beside a node listens.
func TestApplicationPort(t *testing.T) {
	node := &Node{Namespace: "prod", Address: "10.0.0.1", Labels: map[string]string{"app": "web"}}
	service := &Service{Meta: Meta{Namespace: "prod", Name: "web"}, Selector: map[string]string{"app": "web"}}
	entry := func(address string, ports map[string]uint32) *Workload {
		return &Workload{Meta: Meta{Namespace: "prod", Labels: map[string]string{"app": "web"}}, Address: address, Ports: ports}
	}
	slice := func(address string, ports map[string]uint32) *Workload {
		return &Workload{Meta: Meta{Namespace: "prod", Labels: map[string]string{}}, Address: address, Service: "web.prod", Ports: ports}
	}
	group := func(app string, ports map[string]uint32) *WorkloadGroup {
		return &WorkloadGroup{Meta: Meta{Namespace: "prod"}, GroupLabels: map[string]string{"app": app}, Template: Workload{Ports: ports}}
	}
	number, name := Port{Number: 80, Name: "http", Target: 8080}, Port{Number: 80, Name: "http", TargetName: "web"}
	for _, tt := range []struct {
		what      string
		port      Port
		workloads []*Workload
		groups    []*WorkloadGroup
		want      uint32
		unknown   bool
	}{
		{"the service's", number, nil, nil, 8080, false},
		{"none but its own", Port{Number: 80, Name: "http"}, nil, nil, 80, false},
		{"a name that nobody says", name, []*Workload{entry("10.0.0.1", nil), slice("10.0.0.2", map[string]uint32{"http": 9000})}, []*WorkloadGroup{group("other", map[string]uint32{"http": 9000})}, 80, true},
		{"a WorkloadEntry's", number, []*Workload{entry("10.0.0.2", map[string]uint32{"http": 9000}), entry("10.0.0.1", map[string]uint32{"http": 9001})}, []*WorkloadGroup{group("web", map[string]uint32{"http": 9002})}, 9001, false},
		{"a WorkloadEntry's, of the target's name", name, []*Workload{entry("10.0.0.1", map[string]uint32{"web": 9001})}, nil, 9001, false},
		{"a WorkloadGroup's, for a name", name, []*Workload{entry("10.0.0.1", map[string]uint32{"other": 1})}, []*WorkloadGroup{group("other", map[string]uint32{"http": 1}), group("web", map[string]uint32{"http": 9002})}, 9002, false},
		{"a WorkloadGroup's, for a number", number, nil, []*WorkloadGroup{group("web", map[string]uint32{"http": 9002})}, 8080, false},
		{"an EndpointSlice's, for a name", name, []*Workload{slice("10.0.0.1", map[string]uint32{"http": 9003})}, nil, 9003, false},
		{"an EndpointSlice's, for a number", number, []*Workload{slice("10.0.0.1", map[string]uint32{"http": 15006})}, nil, 8080, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			got, known := ApplicationPort(node, &Config{Workloads: tt.workloads, WorkloadGroups: tt.groups}, service, tt.port)
			if got != tt.want || known == tt.unknown {
				t.Errorf("got %d, known %v; want %d, %v", got, known, tt.want, !tt.unknown)
			}
		})
	}
}
