package mesh

import (
	"net/netip"
	"slices"
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
	const own = "10.1.0.1:15006 10.1.0.1:80"
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
		"web.prod": "10.1.0.1:15006 10.1.0.1:80 10.1.0.2:80 10.1.0.3:80 10.1.0.4:80",
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
