package proxy

import (
	"fmt"
	"net/netip"
	"testing"

	"isthmus/mesh"
)

// TestWorkloadPort: the port of the application is found as its own proxy finds it, among
// services and workloads of one name, or at one address, too.
func TestWorkloadPort(t *testing.T) {
	service := func(namespace string, ports ...mesh.Port) *mesh.Service {
		return &mesh.Service{Meta: mesh.Meta{Name: "web", Namespace: namespace}, Selector: map[string]string{"app": "web"}, Ports: ports}
	}
	workload := func(namespace, address, app string, port uint32) *mesh.Workload {
		return &mesh.Workload{Meta: mesh.Meta{Namespace: namespace, Labels: map[string]string{"app": app}}, Address: address, Ports: map[string]uint32{"http": port}}
	}
	tb := &table{snapshot: &mesh.Snapshot{Config: &mesh.Config{
		Services: []*mesh.Service{
			service("other", mesh.Port{Number: 80, Name: "http", Target: 9000}),
			service("prod", mesh.Port{Number: 80, Name: "http", Target: 8080}, mesh.Port{Number: 81, Name: "metrics", Target: 8081}),
		},
		Workloads: []*mesh.Workload{workload("other", "10.0.0.2", "web", 1), workload("prod", "10.0.0.2", "api", 2), workload("prod", "10.0.0.2", "web", 3), workload("prod", "10.0.0.3", "web", 4)},
	}}}
	for _, tt := range []struct {
		name, service, address string
		number                 uint32
		via                    bool
		want                   uint32
	}{
		{"at its own address", "web.prod", "10.0.0.2:7000", 80, false, 7000},
		{"the Service's", "web.prod", "10.0.0.1:15006", 80, true, 8080},
		{"another port", "web.prod", "10.0.0.1:15006", 81, true, 8081},
		{"another namespace's", "web.other", "10.0.0.1:15006", 80, true, 9000},
		{"a WorkloadEntry's", "web.prod", "10.0.0.2:15006", 80, true, 3},
		{"another one's", "web.prod", "10.0.0.3:15006", 80, true, 4},
		{"no Service", "web.gone", "10.0.0.1:15006", 80, true, 80},
		{"no port of it", "web.prod", "10.0.0.1:15006", 82, true, 82},
	} {
		e := &mesh.Endpoint{Service: tt.service, Port: mesh.Port{Number: tt.number}, Address: netip.MustParseAddrPort(tt.address), Via: tt.via}
		if got := tb.workloadPort(e); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// BenchmarkWorkloadPort is what is asked of each endpoint of a service for which ports have
// modes of mTLS, at each snapshot.
func BenchmarkWorkloadPort(b *testing.B) {
	c := &mesh.Config{}
	for i := range 5000 {
		c.Services = append(c.Services, &mesh.Service{Meta: mesh.Meta{Name: fmt.Sprint("service-", i), Namespace: "production"}, Ports: []mesh.Port{{Number: 80, Name: "http"}}})
		c.Workloads = append(c.Workloads, &mesh.Workload{Meta: mesh.Meta{Namespace: "production"}, Address: fmt.Sprintf("10.1.%d.%d", i>>8, i&255)})
	}
	tb := &table{snapshot: &mesh.Snapshot{Config: c}}
	e := &mesh.Endpoint{Service: "service-4999.production", Port: mesh.Port{Number: 80}, Address: netip.MustParseAddrPort("10.0.0.1:15006"), Via: true}
	for b.Loop() {
		tb.workloadPort(e)
	}
}
