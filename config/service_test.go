package config

import (
	"testing"

	core "k8s.io/api/core/v1"

	"isthmus/mesh"
)

// TestService_Protocols: what a port speaks is said by its appProtocol, or else by how its
// name begins.
func TestService_Protocols(t *testing.T) {
	for _, tt := range []struct {
		name, app string
		want      mesh.Protocol
	}{
		{"http", "", mesh.ProtocolHTTP},
		{"http-metrics", "", mesh.ProtocolHTTP},
		{"http2", "", mesh.ProtocolHTTP2},
		{"grpc-api", "", mesh.ProtocolGRPC},
		{"grpc-web", "", mesh.ProtocolGRPCWeb},
		{"grpc-web-api", "", mesh.ProtocolGRPCWeb},
		{"mysql", "", mesh.ProtocolTCP},
		{"api", "", mesh.ProtocolUnknown},
		{"api", "grpc-web", mesh.ProtocolGRPCWeb},
		{"http", "grpc", mesh.ProtocolGRPC},
		{"http", "kubernetes.io/h2c", mesh.ProtocolHTTP2},
		{"grpc", "kubernetes.io/ws", mesh.ProtocolHTTP},
		{"grpc", "unheard-of", mesh.ProtocolGRPC},
	} {
		p := core.ServicePort{Name: tt.name}
		if tt.app != "" {
			p.AppProtocol = &tt.app
		}
		got := kubernetesProtocol(&p)
		if got != tt.want {
			t.Errorf("%s, %q: %v, want %v", tt.name, tt.app, got, tt.want)
		}
		var read mesh.Protocol
		if text, _ := got.MarshalText(); read.UnmarshalText(text) != nil || read != got {
			t.Errorf("%v is read as %v", got, read)
		}
	}
}

// TestEndpointSlice_Transport: addresses for which a slice lists ports of UDP alone serve
// none that this proxy knows of the service; without any port the Service says which.
func TestEndpointSlice_Transport(t *testing.T) {
	for ports, want := range map[string]int{
		"": 1, "{name: dns, port: 53, protocol: UDP}": 0, "{name: a, port: 1, protocol: SCTP}": 0,
		"{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}": 1, "{port: 80}": 1, "{port: 80, protocol: HTTP}": 1,
	} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a-1, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4\nports: [" + ports + "]\nendpoints: [{addresses: [10.0.0.1]}]\n")}}, nil)
		if r.HasErrors() || len(r.Config.Workloads) != want {
			t.Errorf("%s: %d addresses, want %d; findings %v", ports, len(r.Config.Workloads), want, r.Findings)
		}
	}
}
