package mesh

import (
	"slices"
	"strings"
	"testing"
)

func scopeConfig(egress ...ScopePattern) *Config {
	service := func(name, namespace string) *Service {
		return &Service{Meta: Meta{Name: name, Namespace: namespace}, Selector: map[string]string{"app": name}, Ports: []Port{{Number: 80}}}
	}
	route := func(namespace, host, to string) *VirtualService {
		return &VirtualService{Meta: Meta{Namespace: namespace}, Hosts: []string{host}, Gateways: []string{MeshGateway}, HTTP: []*HTTPRoute{{Route: []RouteDestination{{Destination: Destination{Host: to}}}}}}
	}
	workload := func(name, namespace string) *Workload {
		return &Workload{Meta: Meta{Name: name, Namespace: namespace, Labels: map[string]string{"app": name}}, Address: "10.0.0.1"}
	}
	return &Config{
		Services:         []*Service{service("own", "shop"), service("cart", "shop"), service("pay", "bank"), service("audit", "bank"), {Meta: Meta{Name: "ext", Namespace: "shop"}, Hosts: []string{"api.example"}, Ports: []Port{{Number: 443}}}},
		VirtualServices:  []*VirtualService{route("default", "cart.shop.global", "audit.bank.svc.cluster.local"), route("bank", "pay.bank.global", "other.bank.global")},
		DestinationRules: []*DestinationRule{{Host: "*.global"}, {Host: "pay.bank.global"}, {Host: "cart.shop.svc.cluster.local"}},
		Workloads:        []*Workload{workload("pay", "bank"), workload("cart", "shop"), workload("audit", "bank")},
		Sidecars:         []*Sidecar{{Meta: Meta{Kind: "Sidecar", Namespace: "shop", Name: "default"}, Egress: egress}},
	}
}

// TestScope_Within: what a Sidecar's egress names stays, with what its routes lead
// to and the node's own service; the rest goes.
func TestScope_Within(t *testing.T) {
	node := &Node{Namespace: "shop", Cluster: "c1", RootNamespace: "istio-system", Labels: map[string]string{"app": "own"}, Address: "10.9.9.9"}
	all := []string{"own", "cart", "pay", "audit", "ext"}
	for _, tt := range []struct {
		name   string
		egress []ScopePattern
		node   func(*Node)
		want   []string
	}{
		{"no egress", nil, nil, all},
		{"everything", []ScopePattern{{"*", "*"}}, nil, all},
		{"nothing", []ScopePattern{{"~", "*"}}, nil, []string{"own"}},
		{"the own namespace, and where it routes", []ScopePattern{{".", "*"}}, nil, []string{"own", "cart", "audit", "ext"}},
		{"one service in full", []ScopePattern{{"bank", "pay.bank.svc.cluster.local"}}, nil, []string{"own", "pay"}},
		{"one service by its global name", []ScopePattern{{"*", "pay.bank.global"}}, nil, []string{"own", "pay"}},
		{"one service, short", []ScopePattern{{"bank", "audit"}}, nil, []string{"own", "audit"}},
		{"a suffix", []ScopePattern{{"*", "*.bank.global"}}, nil, []string{"own", "pay", "audit"}},
		{"another namespace's pattern", []ScopePattern{{"shop", "pay.bank.svc.cluster.local"}}, nil, []string{"own"}},
		{"a host of a ServiceEntry", []ScopePattern{{"shop", "*.example"}}, nil, []string{"own", "ext"}},
		{"all but a namespace", []ScopePattern{{"*", "*"}, {"~bank", "*"}}, nil, []string{"own", "cart", "audit", "ext"}}, // cart's route leads to audit
		{"all but a service", []ScopePattern{{"~bank", "pay.bank.svc.cluster.local"}, {"*", "*"}}, nil, []string{"own", "cart", "audit", "ext"}},
		{"all but a service of another namespace", []ScopePattern{{"*", "*"}, {"~shop", "pay.bank.svc.cluster.local"}}, nil, all},
		{"all but a host of a ServiceEntry", []ScopePattern{{"*", "*"}, {"~", "api.example"}}, nil, []string{"own", "cart", "pay", "audit"}},
		{"all but the own namespace", []ScopePattern{{"*", "*"}, {"~.", "*"}}, nil, []string{"own", "pay", "audit"}},
		{"what is named and left out", []ScopePattern{{"bank", "*"}, {"~*", "*"}}, nil, []string{"own"}},
		{"for nobody here", []ScopePattern{{"~", "*"}}, func(n *Node) { n.Namespace = "bank" }, all},
		{"a gateway between clusters", []ScopePattern{{"~", "*"}}, func(n *Node) { n.Through = true }, all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := *node
			if tt.node != nil {
				tt.node(&n)
			}
			c := scopeConfig(tt.egress...)
			within := c.Within(ScopeOf(&n, c))
			var got []string
			for _, s := range within.Services {
				got = append(got, s.Name)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("services %v, want %v", got, tt.want)
			}
			for _, w := range within.Workloads {
				if !slices.Contains(tt.want, w.Name) {
					t.Errorf("workload %s has stayed", w.Name)
				}
			}
			announced := Endpoint{Service: "pay.bank", Port: Port{Number: 80}, Cluster: "c2", Weight: 1}
			r := NewRegistry(Known{Node: &n, Config: within, Announced: []Endpoint{announced}})
			if _, known := r.View("pay.bank.global"); known != slices.Contains(tt.want, "pay") {
				t.Errorf("what gossip brings of pay.bank is known: %v", known)
			}
		})
	}
}

// TestScope_Names: whom the endpoints of what is within the scope name is known as well,
// by one name after the other, and nobody else.
func TestScope_Names(t *testing.T) {
	n := &Node{Namespace: "shop", Cluster: "c1"}
	service := func(name, namespace, to string, hosts ...string) *Service {
		s := &Service{Meta: Meta{Name: name, Namespace: namespace}, Hosts: hosts, Resolution: ResolveDNS, Ports: []Port{{Number: 80}}}
		if to != "" {
			s.Endpoints = []*Workload{{Address: to}}
		}
		return s
	}
	c := &Config{
		Services: []*Service{
			service("real", "bank", ""), service("more", "bank", ""), service("hidden", "bank", ""), service("behind", "bank", "real.bank.svc.cluster.local"),
			service("alias", "shop", "Behind.bank.svc.cluster.local."), service("entry", "shop", "more.bank.global", "entry.example"), service("other", "bank", "hidden.bank.svc"),
		},
		Sidecars: []*Sidecar{{Meta: Meta{Namespace: "shop"}, Egress: []ScopePattern{{"shop", "*"}}}},
	}
	var got []string
	for _, s := range c.Within(ScopeOf(n, c)).Services {
		got = append(got, s.Name)
	}
	if want := []string{"real", "more", "behind", "alias", "entry"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
}

// TestScope_KeepsRules: what is said of a service that stays, stays.
func TestScope_KeepsRules(t *testing.T) {
	n := &Node{Namespace: "shop", Cluster: "c1", Labels: map[string]string{"app": "own"}}
	c := scopeConfig(ScopePattern{".", "*"})
	c = c.Within(ScopeOf(n, c))
	if len(c.VirtualServices) != 1 || len(c.DestinationRules) != 2 || c.Scope == nil {
		t.Errorf("%d VirtualServices, %d DestinationRules", len(c.VirtualServices), len(c.DestinationRules))
	}
}

// TestScope_KeepsRulesOfOthers: what a namespace says of a host that another one
// declares stays with it: how TLS is spoken to it, say.
func TestScope_KeepsRulesOfOthers(t *testing.T) {
	n := &Node{Namespace: "shop", Cluster: "c1"}
	entry := func(host string) *Service {
		return &Service{Meta: Meta{Namespace: "edge", Name: "e"}, Hosts: []string{host}, Ports: []Port{{Number: 443}}}
	}
	c := &Config{
		Services: []*Service{entry("api.partner.example"), entry("*.wild.example"), entry("other.example"), {Meta: Meta{Namespace: "bank", Name: "pay"}}},
		Sidecars: []*Sidecar{{Meta: Meta{Namespace: "shop"}, Egress: []ScopePattern{{"edge", "api.partner.example"}, {"edge", "*.wild.example"}, {"bank", "pay.bank.svc.cluster.local"}}}},
	}
	for _, host := range []string{"api.partner.example", "a.wild.example", "other.example", "pay.bank", "fee.bank"} {
		c.DestinationRules = append(c.DestinationRules, &DestinationRule{Meta: Meta{Namespace: "shop"}, Host: host})
	}
	var got []string
	for _, d := range c.Within(ScopeOf(n, c)).DestinationRules {
		got = append(got, d.Host)
	}
	if want := []string{"api.partner.example", "a.wild.example", "pay.bank"}; !slices.Equal(got, want) {
		t.Errorf("rules for %q, want %q", got, want)
	}
}

// TestScope_HostsOfTwoParts: a ServiceEntry for github.com is none for the service
// github of the namespace com; reviews.prod is one.
func TestScope_HostsOfTwoParts(t *testing.T) {
	n := &Node{Namespace: "shop", Cluster: "c1"}
	entry := func(host string) *Service {
		return &Service{Meta: Meta{Namespace: "edge", Name: host}, Hosts: []string{host}, Ports: []Port{{Number: 443}}}
	}
	c := &Config{
		Services: []*Service{entry("github.com"), entry("*.example"), {Meta: Meta{Namespace: "prod", Name: "reviews"}}},
		Sidecars: []*Sidecar{{Meta: Meta{Namespace: "shop"}, Egress: []ScopePattern{{"*", "*.svc.cluster.local"}}}},
	}
	for _, host := range []string{"github.com", "api.example", "reviews.prod"} {
		c.VirtualServices = append(c.VirtualServices, &VirtualService{Meta: Meta{Namespace: "edge"}, Hosts: []string{host}})
		c.DestinationRules = append(c.DestinationRules, &DestinationRule{Meta: Meta{Namespace: "edge"}, Host: host})
	}
	var got []string
	within := c.Within(ScopeOf(n, c))
	for _, s := range within.Services {
		got = append(got, s.Name)
	}
	for _, v := range within.VirtualServices {
		got = append(got, v.Hosts[0])
	}
	for _, d := range within.DestinationRules {
		got = append(got, d.Host)
	}
	if want := []string{"reviews", "reviews.prod", "reviews.prod"}; !slices.Equal(got, want) {
		t.Errorf("within are %q, want %q", got, want)
	}
}

// TestScope_KeepsHelpers: services that the proxy itself asks stay.
func TestScope_KeepsHelpers(t *testing.T) {
	n := &Node{Namespace: "shop", Cluster: "c1", RootNamespace: "istio-system", Asks: []string{"spans.infra", "limits"}}
	everywhere := FilterScope{Meta: Meta{Namespace: "istio-system"}}
	c := scopeConfig(ScopePattern{"~", "*"})
	c.RateLimitFilters = []*RateLimitFilter{{FilterScope: everywhere, Global: &GlobalRateLimit{Cluster: "outbound|8081||audit.bank.svc.cluster.local"}}}
	c.HelperClusters = []*HelperCluster{{FilterScope: everywhere, Cluster: "rls", Addresses: []string{"pay.bank.svc.cluster.local:8081"}}}
	c.Tracing.Collectors = []Collector{{Host: "api.example"}}
	c.RequestAuthentications = []*RequestAuthentication{
		{Meta: Meta{Namespace: "shop"}, Rules: []*TokenRule{{Issuer: "https://issuer.test", KeysURI: "http://keys.infra.global:8080/keys"}, {Issuer: "https://known.infra.svc", Keys: []byte("{}")}}},
		{Meta: Meta{Namespace: "bank"}, Rules: []*TokenRule{{Issuer: "https://others.infra.svc"}}},
	}
	for _, key := range []string{"keys.infra", "known.infra", "others.infra", "spans.infra", "limits.shop"} {
		name, namespace, _ := strings.Cut(key, ".")
		c.Services = append(c.Services, &Service{Meta: Meta{Name: name, Namespace: namespace}})
	}
	var got []string
	for _, s := range c.Within(ScopeOf(n, c)).Services {
		got = append(got, s.Name)
	}
	if want := []string{"pay", "audit", "ext", "keys", "spans", "limits"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
}

// TestScope_KeepsPolicies: policies of the proxy's namespace, of the root's and of those
// whose services it knows stay: what callees ask for, too.
func TestScope_KeepsPolicies(t *testing.T) {
	n := &Node{Namespace: "shop", Cluster: "c1", RootNamespace: "istio-system", Address: "10.9.9.9"}
	c := scopeConfig(ScopePattern{"bank", "pay"})
	for _, namespace := range []string{"shop", "istio-system", "bank", "far"} {
		m := Meta{Namespace: namespace}
		c.AuthorizationPolicies = append(c.AuthorizationPolicies, &AuthorizationPolicy{Meta: m})
		c.RequestAuthentications = append(c.RequestAuthentications, &RequestAuthentication{Meta: m})
		c.PeerAuthentications = append(c.PeerAuthentications, &PeerAuthentication{Meta: m})
		c.WorkloadGroups = append(c.WorkloadGroups, &WorkloadGroup{Meta: m})
	}
	c.Workloads = append(c.Workloads,
		&Workload{Meta: Meta{Name: "self", Namespace: "shop"}, Address: "10.9.9.9"}, &Workload{Meta: Meta{Name: "its neighbour", Namespace: "shop"}, Address: "10.9.9.8"},
		&Workload{Meta: Meta{Name: "of its address", Namespace: "far"}, Address: "10.9.9.9"},
		&Workload{Meta: Meta{Name: "named", Namespace: "bank"}, Service: "pay.bank"}, &Workload{Meta: Meta{Name: "named far", Namespace: "far"}, Service: "x.far"})
	within := c.Within(ScopeOf(n, c))
	want := []string{"shop", "istio-system", "bank"}
	for kind, got := range map[string][]string{
		"AuthorizationPolicies":  namespacesOf(within.AuthorizationPolicies, func(p *AuthorizationPolicy) Meta { return p.Meta }),
		"RequestAuthentications": namespacesOf(within.RequestAuthentications, func(r *RequestAuthentication) Meta { return r.Meta }),
		"PeerAuthentications":    namespacesOf(within.PeerAuthentications, func(p *PeerAuthentication) Meta { return p.Meta }),
		"WorkloadGroups":         namespacesOf(within.WorkloadGroups, func(g *WorkloadGroup) Meta { return g.Meta }),
	} {
		if !slices.Equal(got, want) {
			t.Errorf("%s of %v, want %v", kind, got, want)
		}
	}
	var workloads []string
	for _, w := range within.Workloads {
		workloads = append(workloads, w.Name)
	}
	if want := []string{"pay", "self", "named"}; !slices.Equal(workloads, want) {
		t.Errorf("workloads %v, want %v", workloads, want)
	}
}

func namespacesOf[T any](list []*T, meta func(*T) Meta) (out []string) {
	for _, v := range list {
		out = append(out, meta(v).Namespace)
	}
	return out
}

// TestScope_Infers: where routes of any kind lead to is known, and whom the proxy asks for
// leave; a gateway knows everything.
func TestScope_Infers(t *testing.T) {
	n := &Node{Namespace: "shop", Cluster: "c1", RootNamespace: "istio-system", Labels: map[string]string{"app": "x"}, Domains: map[string]string{"cluster.remote": "c2"}}
	for _, tt := range []struct {
		name   string
		egress ScopePattern
		change func(*Config)
		want   bool // whether far.bank is known
	}{
		{"nothing", ScopePattern{"~", "*"}, func(*Config) {}, false},
		{"a mirror", ScopePattern{".", "*"}, func(c *Config) {
			c.VirtualServices[0].HTTP[0].Mirrors = []Mirror{{Destination: Destination{Host: "far.bank.global"}}}
		}, true},
		{"a route of TLS", ScopePattern{".", "*"}, func(c *Config) {
			c.VirtualServices[0].TLS = []*TCPRoute{{Route: []RouteDestination{{Destination: Destination{Host: "far.bank.global"}}}}}
		}, true},
		{"a route of TCP", ScopePattern{".", "*"}, func(c *Config) {
			c.VirtualServices[0].TCP = []*TCPRoute{{Route: []RouteDestination{{Destination: Destination{Host: "far.bank.global"}}}}}
		}, true},
		{"routes of others", ScopePattern{".", "*"}, func(c *Config) {
			c.VirtualServices[1].TCP = []*TCPRoute{{Route: []RouteDestination{{Destination: Destination{Host: "far.bank.global"}}}}}
		}, false},
		{"routes of every host", ScopePattern{"~", "*"}, func(c *Config) {
			c.VirtualServices[0].Hosts, c.VirtualServices[0].HTTP[0].Route[0].Host = []string{"*"}, "far.bank.global"
		}, true},
		{"a delegate", ScopePattern{"~", "*"}, func(c *Config) {
			c.VirtualServices[0].Hosts, c.VirtualServices[0].HTTP[0].Route[0].Host = nil, "far.bank.global"
		}, true},
		{"an authorization service", ScopePattern{"~", "*"}, func(c *Config) {
			c.AuthorizationProviders = []*AuthorizationProvider{{Service: "far.bank.svc.cluster.local"}}
		}, true},
		{"an authorization service with its namespace", ScopePattern{"~", "*"}, func(c *Config) {
			c.AuthorizationProviders = []*AuthorizationProvider{{Service: "bank/far.bank.svc.cluster.local"}}
		}, true},
		{"a collector", ScopePattern{"~", "*"}, func(c *Config) { c.Collectors = []*Collector{{Host: "far.bank.global"}} }, true},
		{"a rate limit service, by an address", ScopePattern{"~", "*"}, func(c *Config) {
			c.RateLimitFilters = []*RateLimitFilter{{FilterScope: FilterScope{Meta: Meta{Namespace: "istio-system"}}, Global: &GlobalRateLimit{Cluster: "far.bank.svc:8081"}}}
		}, true},
		{"a rate limit service, by its name", ScopePattern{"~", "*"}, func(c *Config) {
			c.RateLimitFilters = []*RateLimitFilter{{FilterScope: FilterScope{Meta: Meta{Namespace: "istio-system"}}, Global: &GlobalRateLimit{Cluster: "far.bank.svc"}}}
		}, true},
		{"a rate limit service of others", ScopePattern{"~", "*"}, func(c *Config) {
			c.RateLimitFilters = []*RateLimitFilter{{FilterScope: FilterScope{Meta: Meta{Namespace: "bank"}}, Global: &GlobalRateLimit{Cluster: "far.bank.svc"}}, {FilterScope: FilterScope{Meta: Meta{Namespace: "istio-system"}}}}
			c.HelperClusters = []*HelperCluster{{FilterScope: FilterScope{Meta: Meta{Namespace: "bank"}}, Cluster: "rls", Addresses: []string{"far.bank.svc:1"}}}
		}, false},
		{"its name in another cluster", ScopePattern{"*", "far.bank.svc.cluster.remote"}, func(*Config) {}, true},
		{"its name in no cluster", ScopePattern{"*", "far.bank.svc.cluster.nowhere"}, func(*Config) {}, false},
		{"its short name", ScopePattern{"*", "far.bank"}, func(*Config) {}, true},
		{"a gateway", ScopePattern{"~", "*"}, func(c *Config) { c.Gateways = []*Gateway{{Selector: map[string]string{"app": "x"}}} }, true},
		{"another gateway", ScopePattern{"~", "*"}, func(c *Config) { c.Gateways = []*Gateway{{Selector: map[string]string{"app": "y"}}} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := scopeConfig(tt.egress)
			c.Services = append(c.Services, &Service{Meta: Meta{Name: "far", Namespace: "bank"}, Ports: []Port{{Number: 80}}})
			tt.change(c)
			if got := slices.ContainsFunc(c.Within(ScopeOf(n, c)).Services, func(s *Service) bool { return s.Name == "far" }); got != tt.want {
				t.Errorf("known %v, want %v", got, tt.want)
			}
		})
	}
}
