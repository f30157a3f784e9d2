package config

import (
	"fmt"
	"slices"
	"strings"
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
		{"http", "kubernetes.io/wss", mesh.ProtocolHTTPS},
		{"proxy", "http_proxy", mesh.ProtocolHTTP},
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

// TestEndpointSlice_FQDN: names in the place of addresses are left out, as by kube-proxy.
func TestEndpointSlice_FQDN(t *testing.T) {
	text := "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a-1, labels: {kubernetes.io/service-name: a}}\naddressType: FQDN\nports: [{port: 80}]\nendpoints: [{addresses: [a.test]}]\n"
	checkWarnings(t, text, "f.yaml:4: warning: EndpointSlice default/a-1: addressType: FQDN has no effect")
	if r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil); len(r.Config.Workloads) > 0 {
		t.Errorf("read as %+v", r.Config.Workloads)
	}
}

// TestServiceEntry_ByName: where requests would go to an address that is not seen, they go
// to what DNS gives for their host; a host with * is left out, and said to be.
func TestServiceEntry_ByName(t *testing.T) {
	const http, tls, tcp = "{number: 80, name: http, protocol: HTTP}", "{number: 443, name: tls, protocol: TLS}", "{number: 22, name: ssh, protocol: TCP}"
	for _, tt := range []struct{ name, spec, hosts, want string }{
		{"requests", "hosts: [a.test, b.test], resolution: NONE, ports: [" + http + "]", "a.test b.test", "f.yaml:4: info: ServiceEntry default/s: resolution: NONE sends to the address"},
		{"by default", "hosts: [a.test], ports: [" + http + "]", "a.test", "info: ServiceEntry default/s: resolution: NONE sends to the address"},
		{"TLS", "hosts: [a.test], ports: [" + tls + "]", "a.test", "info: ServiceEntry default/s: resolution: NONE sends to the address"},
		{"TCP", "hosts: [a.test], ports: [" + tcp + "]", "a.test", "warning: ServiceEntry default/s: ports[0]: no application's connection is for port 22"},
		{"a wildcard", "hosts: ['*.a.test'], ports: [" + tls + "]", "", `f.yaml:4: warning: ServiceEntry default/s: hosts[0]: "*.a.test" is left out: with resolution NONE`},
		{"a wildcard of DYNAMIC_DNS", "hosts: ['*.a.test'], resolution: DYNAMIC_DNS, ports: [" + tls + "]", "", `hosts[0]: "*.a.test" is left out: with resolution DYNAMIC_DNS`},
		{"DNS", "hosts: [a.test], resolution: DNS, ports: [" + http + "]", "a.test", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {" + tt.spec + "}\n"
			checkFinding(t, text, tt.want, ISM0077)
			r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil)
			got := ""
			for _, s := range r.Config.Services {
				if got = strings.Join(s.Hosts, " "); s.Resolution != mesh.ResolveDNS {
					t.Errorf("resolution %v", s.Resolution)
				}
			}
			if got != tt.hosts || r.HasErrors() {
				t.Errorf("hosts %q, want %q; findings %v", got, tt.hosts, r.Findings)
			}
		})
	}
	both := "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: [a.test, '*.a.test'], ports: [" + http + "]}\n"
	if r := Read([]File{{Name: "f.yaml", Data: []byte(both)}}, nil); len(r.Config.Services) != 1 || len(r.Config.Services[0].Hosts) != 1 {
		t.Errorf("of a host and a wildcard: %+v", r.Config.Services)
	}
	selector := "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: [a.test], workloadSelector: {labels: {app: a}}, ports: [" + http + "]}\n"
	checkWarnings(t, selector, "workloadSelector: has no effect beside resolution NONE")
}

// TestEndpoints_Read: Endpoints that somebody has written bring the addresses of a Service,
// unless EndpointSlices do.
func TestEndpoints_Read(t *testing.T) {
	const endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets:\n- addresses: [{ip: 10.0.0.1, nodeName: n}, {ip: 10.0.0.2}]\n  notReadyAddresses: [{ip: 10.0.0.3}]\n  ports: [{name: http, port: 8080, protocol: TCP}, {name: dns, port: 53, protocol: UDP}]\n"
	const service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{name: http, port: 80}]}\n"
	const slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a-1, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.0.0.1]}]\n"
	r := Read([]File{{Name: "f.yaml", Data: []byte(endpoints + service)}}, nil)
	got := ""
	for _, w := range r.Config.Workloads {
		got += fmt.Sprintf("%s %s %v %v; ", w.Service, w.Address, w.Ports, w.Unready)
	}
	if want := "a.default 10.0.0.1 map[http:8080] false; a.default 10.0.0.2 map[http:8080] false; a.default 10.0.0.3 map[http:8080] true; "; got != want || len(r.Findings) > 0 {
		t.Errorf("read as %q, want %q; findings %v", got, want, r.Findings)
	}
	if r := Read([]File{{Name: "f.yaml", Data: []byte(endpoints + slice)}}, nil); len(r.Config.Workloads) != 1 || r.Config.Workloads[0].Kind != "EndpointSlice" {
		t.Errorf("beside a slice: %+v", r.Config.Workloads)
	}
	checkFinding(t, strings.Replace(endpoints, "name: http, port: 8080, protocol: TCP", "name: a, port: 1, protocol: SCTP", 1), "subsets[0].ports: lists none of TCP", ISM0002)
}

// TestService_Kubernetes: what Services say to kube-proxy and DNS.
func TestService_Kubernetes(t *testing.T) {
	service := func(spec string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {" + spec + "}\n"
	}
	const named = "type: ExternalName, externalName: a.test, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]"
	r := Read([]File{{Name: "f.yaml", Data: []byte(service(named))}}, nil)
	if s := r.Config.Services[0]; len(r.Findings) > 0 || s.Resolution != mesh.ResolveDNS || !s.External || s.Selector != nil || len(s.Endpoints) != 1 || s.Endpoints[0].Address != "a.test" || s.Ports[0].Target != 0 {
		t.Errorf("an ExternalName is read as %+v; findings %v", s, r.Findings)
	}
	checkWarnings(t, service("type: ExternalName, externalName: a.test"), "spec.ports: without a port the service gets no traffic")
	if r := Read([]File{{Name: "f.yaml", Data: []byte(service("type: ExternalName, externalName: '*.a.test', ports: [{port: 80}]"))}}, nil); !r.HasErrors() {
		t.Errorf("a name that begins with *: findings %v", r.Findings)
	}
	const quoted = `selector: {app: a}, ports: [{port: 80, name: q, targetPort: "8080"}, {port: 81, name: a, targetPort: web}, {port: 82, name: b, targetPort: ""}]`
	checkWarnings(t, service(quoted), `f.yaml:4: warning: Service default/a: spec.ports[0].targetPort: "8080" is a number in quotes`)
	if p := Read([]File{{Name: "f.yaml", Data: []byte(service(quoted))}}, nil).Config.Services[0].Ports; p[0].Target != 8080 || p[0].TargetName != "" || p[1].TargetName != "web" || mesh.TargetPort(p[2], nil) != 82 {
		t.Errorf("targets that are texts: %+v", p)
	}
	checkWarnings(t, service("internalTrafficPolicy: Local, selector: {app: a}, ports: [{port: 80}]"), "spec.internalTrafficPolicy: Local has no effect")
	checkWarnings(t, service("internalTrafficPolicy: Cluster, selector: {app: a}, ports: [{port: 80}]"), "")
	for _, tt := range []struct{ spec, want string }{
		{"type: externalName, ports: [{port: 80}]", `spec.type: "externalName" is none of ClusterIP, NodePort, LoadBalancer, ExternalName (did you mean "ExternalName"?), so Kubernetes refuses it; it counts as ClusterIP`},
		{"externalName: a.test, ports: [{port: 80}]", "spec.externalName: has no effect, since spec.type is not ExternalName"},
		{"sessionAffinity: clientIP, ports: [{port: 80}]", `spec.sessionAffinity: "clientIP" is none of None, ClientIP`},
		{"internalTrafficPolicy: local, ports: [{port: 80}]", `spec.internalTrafficPolicy: "local" is none of Cluster, Local`},
		{"trafficDistribution: SameZone, ports: [{port: 80}]", `spec.trafficDistribution: "SameZone" is none of PreferSameZone, PreferSameNode, PreferClose`},
		{"trafficDistribution: PreferClose, type: LoadBalancer, ports: [{port: 80}]", ""},
		{"ports: [{name: a, port: 80}, {name: a, port: 81}]", `spec.ports[1].name: "a" is the name of spec.ports[0], too`},
		{"ports: [{name: a, port: 80}, {port: 81}]", "spec.ports[1].name: is missing, which Kubernetes refuses where there are several ports"},
		{"ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]", ""},
	} {
		checkWarnings(t, service(tt.spec), tt.want)
	}
	checkWarnings(t, strings.Replace(service("ports: [{port: 80}]"), "name: a", "name: A", 1), `f.yaml:3: warning: Service default/A: metadata.name: "A" is refused by Kubernetes`)
	checkWarnings(t, strings.Replace(service("ports: [{port: 80}]"), "name: a", "name: a.b", 1), `metadata.name: "a.b" is refused by Kubernetes`)
	checkWarnings(t, strings.Replace(service("ports: [{port: 80}]"), "name: a", "name: a, namespace: Prod", 1), `metadata.namespace: "Prod" is refused by Kubernetes`)
	checkFinding(t, service("trafficDistribution: PreferSameNode, selector: {app: a}, ports: [{port: 80}]"), "info: Service default/a: spec.trafficDistribution: PreferSameNode has no effect", ISM0002)
	checkFinding(t, service("sessionAffinity: ClientIP, selector: {app: a}, ports: [{port: 80}]"), "info: Service default/a: spec.sessionAffinity: ClientIP has no effect, in Istio neither", ISM0002)
}

// TestLint_Names: what is to have the endpoints of a service by its full name is named where no
// file defines that, since DNS is not asked for it.
func TestLint_Names(t *testing.T) {
	const known = "---\napiVersion: v1\nkind: Service\nmetadata: {name: known, namespace: prod}\nspec: {selector: {app: a}, ports: [{port: 80}]}\n"
	alias := func(name string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  type: ExternalName\n  externalName: " + name + "\n  ports: [{port: 80}]\n" + known
	}
	entry := func(host, spec string) string {
		return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  hosts: [" + host + "]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n" + spec + known
	}
	for _, tt := range []struct{ name, text, want string }{
		{"an alias of a service", alias("known.prod.svc.cluster.local"), ""},
		{"by another of its names", alias("Known.prod.svc.cluster.remote."), ""},
		{"an alias of nobody", alias("knwon.prod.svc.cluster.local"), `f.yaml:6: warning: Service default/a: spec.externalName: no file defines the service knwon.prod of "knwon.prod.svc.cluster.local" (did you mean "known.prod.svc.cluster.local"?), and DNS is not asked`},
		{"an alias of what DNS knows", alias("a.test"), ""},
		{"a short name, for which DNS is asked", alias("other.prod"), ""},
		{"an endpoint", entry("a.test", "  resolution: DNS\n  endpoints:\n  - address: b.test\n  - address: other.prod.global\n"), `f.yaml:10: warning: ServiceEntry default/s: endpoints[1].address: no file defines the service other.prod`},
		{"a host", entry("other.prod.svc.cluster.local", "  resolution: DNS\n"), `ServiceEntry default/s: hosts[0]: no file defines the service other.prod`},
		{"a host that has addresses", entry("other.prod.svc.cluster.local", "  resolution: STATIC\n  endpoints: [{address: 10.0.0.1}]\n"), ""},
		{"a host of a service", entry("known.prod.global", "  resolution: DNS\n"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) { checkFinding(t, tt.text, tt.want, ISM0014) })
	}
}

// TestRead_TypedList: resources of a list of one kind do not say which that is.
func TestRead_TypedList(t *testing.T) {
	const service = "{metadata: {name: a}, spec: {selector: {app: a}, ports: [{port: 80}]}}"
	for list, want := range map[string]string{
		"apiVersion: v1\nkind: ServiceList\nmetadata: {resourceVersion: '7'}\nitems: [" + service + "]\n": "",
		"apiVersion: v1\nkind: List\nitems: [" + service + "]\n":                                          "kind: is missing",
		"apiVersion: v1\nkind: ServiceList\nitems: [{kind: Service, metadata: {name: a}, spec: {}}]\n":    "apiVersion: is missing",
	} {
		r := Read([]File{{Name: "f.yaml", Data: []byte(list)}}, nil)
		if want == "" && (r.HasErrors() || len(r.Config.Services) != 1) || want != "" && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.String(), want) }) {
			t.Errorf("%s: findings %v, want %q", list, r.Findings, want)
		}
	}
}

// TestEndpointSlice_Region: which region a zone lies in is said by how its name ends.
func TestEndpointSlice_Region(t *testing.T) {
	for zone, want := range map[string]string{"us-west1-a": "us-west1", "us-east-1a": "us-east-1", "ap-southeast-2c": "ap-southeast-2", "us-gov-west-1b": "us-gov-west-1", "eastus-2": "eastus", "us-south-1": "us-south", "cn-hangzhou-b": "cn-hangzhou", "nyc1": "", "a-": "a"} {
		if got := regionOf(zone); got != want {
			t.Errorf("%s lies in %q, want %q", zone, got, want)
		}
	}
}

// TestServiceEntry_Addresses: those that name the host for requests are read, and what of
// them has no effect is said.
func TestServiceEntry_Addresses(t *testing.T) {
	const http, tcp = "{number: 80, name: http, protocol: HTTP}", "{number: 22, name: ssh, protocol: TCP}"
	entry := func(addresses, ports string) string {
		return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: [a.test], resolution: DNS, addresses: [" + addresses + "], ports: [" + ports + "]}\n"
	}
	for _, tt := range []struct{ addresses, ports, read, want string }{
		{"10.0.0.1, 10.0.0.2/32, 'fd00::1'", http, "[10.0.0.1 10.0.0.2 fd00::1]", ""},
		{"10.0.0.1", http + ", " + tcp, "[10.0.0.1]", ""},
		{"10.0.0.1", tcp, "[10.0.0.1]", "f.yaml:4: warning: ServiceEntry default/s: addresses: has no effect yet on connections"},
		{"10.0.0.1, 10.0.0.0/8", http, "[10.0.0.1]", "addresses: has no effect yet on connections"},
		{"", http, "[]", ""},
	} {
		checkFinding(t, entry(tt.addresses, tt.ports), tt.want, ISM0003)
		r := Read([]File{{Name: "f.yaml", Data: []byte(entry(tt.addresses, tt.ports))}}, nil)
		if got := fmt.Sprint(r.Config.Services[0].Addresses); got != tt.read || r.HasErrors() {
			t.Errorf("%s: read as %s, want %s; findings %v", tt.addresses, got, tt.read, r.Findings)
		}
	}
}

// TestServiceEntry_UDP: a port of UDP is nobody's, and said to be; its endpoints may have
// a number for it.
func TestServiceEntry_UDP(t *testing.T) {
	const text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  hosts: [a.test]\n  resolution: STATIC\n" +
		"  ports:\n  - {number: 53, name: dns, protocol: UDP}\n  - {number: 80, name: http, protocol: HTTP}\n  endpoints: [{address: 10.0.0.1, ports: {dns: 5353, http: 8080}}]\n"
	r := Read([]File{{Name: "f.yaml", Data: []byte(text)}}, nil)
	if ports := r.Config.Services[0].Ports; len(ports) != 1 || ports[0].Number != 80 {
		t.Errorf("ports %v, want 80 alone", ports)
	}
	checkFinding(t, text, "f.yaml:8: warning: ServiceEntry default/s: ports[0].protocol: UDP is not proxied", ISM0001)
}

// TestServiceEntry_NoEndpointLeft: of endpoints none of which can be sent to, DNS is not
// asked for the host in their place.
func TestServiceEntry_NoEndpointLeft(t *testing.T) {
	for _, endpoint := range []string{"address: 'unix:///run/a.sock'", "network: other"} {
		r := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: ['*.a.test'], resolution: DNS, ports: [{number: 80, name: http}], endpoints: [{" + endpoint + "}]}\n")}}, nil)
		known := mesh.NewRegistry(mesh.Known{Node: &mesh.Node{}, Config: r.Config})
		if _, ok := known.View("x.a.test"); !ok || r.HasErrors() || len(known.Unresolved()) > 0 {
			t.Errorf("%s: known: %v; DNS is asked for %v; findings %v", endpoint, ok, known.Unresolved(), r.Findings)
		}
	}
}
