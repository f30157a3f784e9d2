package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestView_Pod: a Pod that EndpointSlices, or a StatefulSet's label, give a name is asked
// for by that before any name of its service, in the clusters that this one is for.
func TestView_Pod(t *testing.T) {
	pod := func(name, address string) *Workload {
		return &Workload{Meta: Meta{Namespace: "prod"}, Service: "web.prod", Address: address, Hostname: name}
	}
	announced := func(cluster, address, label string) Endpoint {
		return Endpoint{Service: "web.prod", Port: Port{Number: 80, Name: "http"}, Address: netip.MustParseAddrPort(address), Cluster: cluster, Labels: map[string]string{PodLabel: label}, Via: true}
	}
	gateway := announced("c2", "10.2.0.9:15006", "web-0")
	gateway.Relayed = true
	service := func(namespace, name string) *Service {
		return &Service{Meta: Meta{Kind: "Service", Namespace: namespace, Name: name}, Ports: []Port{{Number: 80, Name: "http"}}}
	}
	alias := service("prod", "alias")
	alias.Resolution, alias.Endpoints = ResolveDNS, []*Workload{{Address: "web.prod.svc.cluster.local"}}
	r := NewRegistry(Known{
		Node: &Node{Namespace: "prod", Cluster: "c1", Domains: map[string]string{"cluster.remote": "c2"}},
		Config: &Config{
			Services: []*Service{service("prod", "web"), service("web", "web-1"), service("prod", "plain"), alias, {
				Meta: Meta{Kind: "ServiceEntry", Namespace: "prod", Name: "own"}, Hosts: []string{"web-2.web.prod.svc.cluster.local"},
				Ports: []Port{{Number: 80, Name: "http"}}, Endpoints: []*Workload{{Address: "192.0.2.9"}},
			}},
			Workloads: []*Workload{pod("web-0", "10.1.0.1"), pod("web-1", "10.1.0.2"), pod("web-2", "10.1.0.3"), pod("", "10.1.0.4")},
		},
		Announced: []Endpoint{announced("c1", "10.1.0.1:15006", ""), announced("c2", "10.2.0.1:15006", "Web-0"), announced("c2", "10.2.0.2:15006", "web-7"), gateway},
	})
	const own = "10.1.0.1:15006"
	for host, want := range map[string]string{
		"web-0.web": own, "web-0.web.prod": own, "web-0.web.prod.svc": own, "WEB-0.web.prod.svc.cluster.local.": own,
		"web-0.web.prod.svc.cluster.remote": "10.2.0.1:15006",
		"web-0.web.prod.global":             own + " 10.2.0.1:15006",
		"web-7.web.prod.global":             "10.2.0.2:15006", "web-7.web.prod": "unknown",
		"web-1.web":      "", // a service of namespace web
		"web-1.web.prod": "10.1.0.2:80",
		// What an entry says of the name holds.
		"web-2.web.prod.svc.cluster.local": "192.0.2.9:80",
		"web-9.web.prod":                   "unknown", "web-0.plain.prod": "unknown", "web-0": "unknown", ".web.prod": "unknown", "web-0.other.prod": "unknown",
		"web-0.alias.prod": "unknown", "x.web-0.web.prod": "unknown",
		"web.prod": "10.1.0.1:15006 10.1.0.2:80 10.1.0.3:80 10.1.0.4:80",
	} {
		got := "unknown"
		if v, ok := r.View(host); ok {
			got = addresses(r.Endpoints(v, 80))
			if v.Pod != "" && v.ServiceHost() != "web.prod.svc.cluster.local" && v.ServiceHost() != "web.prod.svc.cluster.remote" && v.ServiceHost() != "web.prod.global" {
				t.Errorf("%s is of %s", host, v.ServiceHost())
			}
		}
		if got != want {
			t.Errorf("%s has %q, want %q", host, got, want)
		}
	}
	if v, _ := r.View("web-0.web"); v.Host != "web-0.web.prod.svc.cluster.local" {
		t.Errorf("the full name is %s", v.Host)
	}
}

// TestRegistry_ProxiedPods: a Pod whose proxy announces it is asked through that alone, whatever
// EndpointSlices say besides of its address, and is as ready as both say.
func TestRegistry_ProxiedPods(t *testing.T) {
	http, admin := Port{Number: 80, Name: "http", Target: 8080}, Port{Number: 90, Name: "admin", Target: 9090}
	slice := func(address string, unready bool) *Workload {
		return &Workload{Meta: Meta{Namespace: "prod"}, Service: "web.prod", Address: address, Hostname: "web-0", Locality: Locality{Region: "r", Zone: "z"}, Unready: unready}
	}
	announced := func(address string, port Port) Endpoint {
		return Endpoint{Service: "web.prod", Port: port, Address: netip.MustParseAddrPort(address), Cluster: "c1", Via: true, Source: SourceGossip}
	}
	elsewhere, draining, relayed := announced("10.0.0.1:15006", http), announced("10.0.0.4:15006", http), announced("10.0.0.5:15006", http)
	elsewhere.Cluster, draining.Unready, relayed.Relayed = "c2", "draining", true
	located := announced("10.0.0.3:15006", http)
	located.Locality, located.Hostname = Locality{Region: "own"}, "own-0"
	r := NewRegistry(Known{
		Node: &Node{Namespace: "prod", Cluster: "c1"},
		Config: &Config{
			Services: []*Service{{Meta: Meta{Kind: "Service", Namespace: "prod", Name: "web"}, Ports: []Port{http, admin}, Selector: map[string]string{"app": "web"}}},
			Workloads: []*Workload{
				slice("10.0.0.1", false), slice("10.0.0.2", true), slice("10.0.0.3", true), slice("10.0.0.3", false), slice("10.0.0.4", false), slice("10.0.0.5", false),
				{Meta: Meta{Namespace: "prod", Labels: map[string]string{"app": "web"}}, Address: "10.0.0.1", Ports: map[string]uint32{"http": 7070, "admin": 7071}}, // a WorkloadEntry may be another one at that address
			},
		},
		Announced: []Endpoint{announced("10.0.0.1:15006", http), announced("10.0.0.2:15006", http), announced("10.0.0.2:15006", admin), located, draining, relayed, elsewhere},
	})
	var got []string
	for _, e := range r.All() {
		got = append(got, fmt.Sprint(e.Port.Name, " ", e.Address, " ", e.Cluster, " ", e.Locality, " ", e.Hostname, " ", e.Unready))
	}
	want := []string{
		"http 10.0.0.1:7070 c1   ",
		"http 10.0.0.1:15006 c1 r/z web-0 ",
		"http 10.0.0.2:15006 c1 r/z web-0 not ready",
		"http 10.0.0.3:15006 c1 own own-0 ",
		"http 10.0.0.4:15006 c1 r/z web-0 draining",
		"http 10.0.0.5:8080 c1 r/z web-0 ",
		"http 10.0.0.5:15006 c1   ",
		"http 10.0.0.1:15006 c2   ",
		"admin 10.0.0.1:7071 c1   ",
		"admin 10.0.0.1:9090 c1 r/z web-0 ",
		"admin 10.0.0.2:15006 c1 r/z web-0 not ready",
		"admin 10.0.0.3:9090 c1 r/z web-0 ",
		"admin 10.0.0.4:9090 c1 r/z web-0 ",
		"admin 10.0.0.5:9090 c1 r/z web-0 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestRegistry_ProxiedPodsOfTwoAddresses: a Pod whose proxy announces one of its addresses is asked
// at that alone, of whichever family it is; its readiness is that of the Pod, not of its neighbours.
func TestRegistry_ProxiedPodsOfTwoAddresses(t *testing.T) {
	http, admin := Port{Number: 80, Name: "http", Target: 8080}, Port{Number: 90, Name: "admin", Target: 9090}
	slice := func(pod, address string, unready bool) *Workload {
		return &Workload{Meta: Meta{Namespace: "prod"}, Service: "web.prod", Address: address, Pod: pod, Hostname: pod, Unready: unready}
	}
	announced := func(address, cluster string) Endpoint {
		return Endpoint{Service: "web.prod", Port: http, Address: netip.MustParseAddrPort(address), Cluster: cluster, Via: true, Source: SourceGossip}
	}
	relayed := announced("[fd00::4]:15006", "c1")
	relayed.Relayed = true
	r := NewRegistry(Known{
		Node: &Node{Namespace: "prod", Cluster: "c1"},
		Config: &Config{
			Services: []*Service{{Meta: Meta{Kind: "Service", Namespace: "prod", Name: "web"}, Ports: []Port{http, admin}}},
			Workloads: []*Workload{
				slice("a", "10.0.0.1", false), slice("a", "fd00::1", false),
				slice("b", "10.0.0.2", true), slice("b", "fd00::2", true),
				slice("c", "10.0.0.3", false), slice("c", "fd00::3", false),
				slice("d", "10.0.0.4", false), slice("d", "fd00::4", false),
				slice("", "10.0.0.5", false), slice("", "fd00::5", false),
			},
		},
		Announced: []Endpoint{announced("10.0.0.1:15006", "c1"), announced("[fd00::2]:15006", "c1"), announced("10.0.0.3:15006", "c2"), relayed, announced("10.0.0.5:15006", "c1")},
	})
	var got []string
	for _, e := range r.All() {
		got = append(got, fmt.Sprint(e.Port.Name, " ", e.Address, " ", e.Cluster, " ", e.Pod(), " ", e.Unready))
	}
	want := []string{
		"http 10.0.0.1:15006 c1 a ",
		"http 10.0.0.3:8080 c1 c ",
		"http 10.0.0.4:8080 c1 d ",
		"http 10.0.0.5:15006 c1  ",
		"http [fd00::2]:15006 c1 b not ready",
		"http [fd00::3]:8080 c1 c ",
		"http [fd00::4]:8080 c1 d ",
		"http [fd00::4]:15006 c1  ",
		"http [fd00::5]:8080 c1  ", // nobody says whose it is
		"http 10.0.0.3:15006 c2  ",
		"admin 10.0.0.1:9090 c1 a ",
		"admin 10.0.0.2:9090 c1 b not ready",
		"admin 10.0.0.3:9090 c1 c ",
		"admin 10.0.0.4:9090 c1 d ",
		"admin 10.0.0.5:9090 c1  ",
		"admin [fd00::1]:9090 c1 a ",
		"admin [fd00::2]:9090 c1 b not ready",
		"admin [fd00::3]:9090 c1 c ",
		"admin [fd00::4]:9090 c1 d ",
		"admin [fd00::5]:9090 c1  ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestScope_Pod: a Sidecar that lets a service in lets in its Pods, and what is routed to a
// Pod, or written for one, brings or needs the service.
func TestScope_Pod(t *testing.T) {
	node := &Node{Namespace: "shop", Cluster: "c1", Labels: map[string]string{"app": "own"}}
	config := func(egress, name string) *Config {
		c := scopeConfig(ScopePattern{"bank", egress})
		c.Workloads = append(c.Workloads, &Workload{Meta: Meta{Namespace: "bank"}, Service: "pay.bank", Address: "10.0.0.7", Hostname: "pay-0"})
		vs := *c.VirtualServices[0]
		vs.Hosts, vs.HTTP = []string{name}, nil
		c.VirtualServices[1].HTTP[0].Route[0].Host = name
		c.VirtualServices[1].Hosts = []string{"audit.bank.global"}
		c.VirtualServices = append(c.VirtualServices, &vs)
		return c
	}
	for egress, want := range map[string]bool{"pay": true, "audit": true, "other": false} {
		for _, name := range []string{"pay-0.pay.bank.svc.cluster.local", "pay-0.pay.bank.global", "pay-0.pay.bank.svc", "pay-0.pay.bank"} {
			c := config(egress, name)
			within := c.Within(ScopeOf(node, c))
			_, known := NewRegistry(Known{Node: node, Config: within}).View("pay-0.pay.bank")
			written := slices.ContainsFunc(within.VirtualServices, func(v *VirtualService) bool { return v.Hosts[0] == name })
			if known != want || written != want {
				t.Errorf("egress bank/%s: the Pod is known as %s: %v, its VirtualService: %v, want %v", egress, name, known, written, want)
			}
		}
	}
	// A host that a ServiceEntry bears is no service of which others would be Pods.
	c := config("audit", "www.api.example")
	if s := ScopeOf(node, c); s.AdmitsHost("shop", "api.example") {
		t.Error("a route to www.api.example brings api.example")
	}
	// In the service's own namespace a Pod has a shorter name still.
	c = config("audit", "pay-0.pay")
	c.Sidecars[0].Namespace = "bank"
	node = &Node{Namespace: "bank", Cluster: "c1", Labels: map[string]string{"app": "own"}}
	if _, known := NewRegistry(Known{Node: node, Config: c.Within(ScopeOf(node, c))}).View("pay-0.pay"); !known {
		t.Error("a route to pay-0.pay does not bring the Pod")
	}
}
