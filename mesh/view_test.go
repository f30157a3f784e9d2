package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func node() *Node {
	return &Node{
		Name: "n", Cluster: "us-central", Namespace: "production", RootNamespace: "istio-system", TrustDomain: "cluster.local",
		Locality: ParseLocality("us-central1/a"), Domains: map[string]string{"cluster.remote": "us-west", "cluster.local": "us-central"},
	}
}

func announced(service, cluster, addr string) Endpoint {
	return Endpoint{
		Service: service, Port: Port{Number: 80, Name: "http", Protocol: ProtocolHTTP}, Address: netip.MustParseAddrPort(addr),
		Cluster: cluster, Locality: ParseLocality(cluster + "1/a"), Weight: 1, Source: SourceGossip, Owner: cluster + "/x/y",
	}
}

func registry(c *Config, list ...Endpoint) *Registry {
	return NewRegistry(Known{Node: node(), Config: c, Announced: list, Now: time.Unix(1, 0)})
}

func addresses(list []*Endpoint) string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.Address.String()
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestRegistry_View resolves the names of a service that only gossip knows.
func TestRegistry_View(t *testing.T) {
	r := registry(&Config{}, announced("user.production", "us-central", "10.0.0.1:80"), announced("user.production", "us-west", "10.1.0.1:80"))
	for _, tt := range []struct{ host, full, endpoints string }{
		{"user", "user.production.svc.cluster.local", "10.0.0.1:80"},
		{"user.production", "user.production.svc.cluster.local", "10.0.0.1:80"},
		{"user.production.svc", "user.production.svc.cluster.local", "10.0.0.1:80"},
		{"user.production.svc.cluster.local", "user.production.svc.cluster.local", "10.0.0.1:80"},
		{"User.Production.svc.cluster.local.", "user.production.svc.cluster.local", "10.0.0.1:80"},
		{"user.production.svc.cluster.remote", "user.production.svc.cluster.remote", "10.1.0.1:80"},
		{"user.production.global", "user.production.global", "10.0.0.1:80 10.1.0.1:80"},
		{"user.production.global:80", "user.production.global", "10.0.0.1:80 10.1.0.1:80"},
		{"user.production.svc.cluster.nowhere", "", ""},
		{"user.other", "", ""},
		{"other", "", ""},
		{"user.production.example.com", "", ""},
	} {
		t.Run(tt.host, func(t *testing.T) {
			v, ok := r.View(tt.host)
			if !ok {
				if tt.full != "" {
					t.Fatal("unknown")
				}
				return
			}
			if got := addresses(r.Endpoints(v, 80)); v.Host != tt.full || got != tt.endpoints {
				t.Errorf("%s with %q, want %s with %q", v.Host, got, tt.full, tt.endpoints)
			}
		})
	}
}

// TestRegistry_Entry unites ServiceEntries with each other and with the
// service of the name, and resolves the names of services within.
func TestRegistry_Entry(t *testing.T) {
	ports := []Port{{Number: 80, Name: "http", Protocol: ProtocolHTTP}}
	c := &Config{Services: []*Service{
		{
			Meta: Meta{Name: "global", Namespace: "istio-system"}, Hosts: []string{"user.production.global"}, Ports: ports, Resolution: ResolveDNS,
			Endpoints: []*Workload{{Address: "user.production.svc.cluster.remote", Locality: ParseLocality("elsewhere")}, {Address: "vm.example.com"}},
		},
		{Meta: Meta{Name: "a", Namespace: "x"}, Hosts: []string{"api.example.com"}, Ports: ports, Endpoints: []*Workload{{Address: "192.0.2.1", Weight: 3}}},
		{Meta: Meta{Name: "b", Namespace: "y"}, Hosts: []string{"api.example.com"}, Ports: ports, Endpoints: []*Workload{{Address: "192.0.2.2", Ports: map[string]uint32{"http": 8080}}}},
		{Meta: Meta{Name: "c", Namespace: "y"}, Hosts: []string{"hidden.example.com"}, Ports: ports, ExportTo: []string{"."}, Endpoints: []*Workload{{Address: "192.0.2.3"}}},
		{Meta: Meta{Name: "d", Namespace: "y"}, Hosts: []string{"*.wild.example.com"}, Ports: ports, Endpoints: []*Workload{{Address: "192.0.2.4"}}},
	}}
	k := Known{
		Node: node(), Config: c, Now: time.Unix(1, 0),
		Announced: []Endpoint{announced("user.production", "us-central", "10.0.0.1:80"), announced("user.production", "us-west", "10.1.0.1:80")},
		Addresses: map[string][]netip.Addr{"vm.example.com": {netip.MustParseAddr("198.51.100.1")}},
	}
	r := NewRegistry(k)
	for host, want := range map[string]string{
		"user.production.global": "10.0.0.1:80 10.1.0.1:80 198.51.100.1:80",
		"api.example.com":        "192.0.2.1:80 192.0.2.2:8080",
		"a.b.wild.example.com":   "192.0.2.4:80",
	} {
		v, ok := r.View(host)
		if !ok {
			t.Errorf("%s is unknown", host)
			continue
		}
		if got := addresses(r.Endpoints(v, 80)); got != want {
			t.Errorf("%s has %q, want %q", host, got, want)
		}
	}
	for _, host := range []string{"hidden.example.com", "wild.example.com"} {
		if _, ok := r.View(host); ok {
			t.Errorf("%s is known", host)
		}
	}
	if got := r.Unresolved(); !slices.Equal(got, []string{"vm.example.com"}) {
		t.Errorf("names for DNS: %v", got)
	}
	for _, e := range r.All() {
		if e.Address.String() == "10.1.0.1:80" && e.Locality.Region != "us-west1" {
			t.Errorf("%s: the locality %s of an entry hides the endpoint's own", e.Address, e.Locality)
		}
	}
	k.Previous, k.Now = r, time.Unix(9, 0)
	again := NewRegistry(k)
	if !slices.Equal(r.All(), again.All()) {
		t.Error("equal endpoints are not the same ones after a rebuild")
	}
}

// TestRegistry_EntriesOfOthers: what another namespace keeps for itself is as if it
// were not there, beside what it exports, too.
func TestRegistry_EntriesOfOthers(t *testing.T) {
	entry := func(namespace, host, address string, exportTo ...string) *Service {
		return &Service{Meta: Meta{Name: "e", Namespace: namespace}, Hosts: []string{host}, ExportTo: exportTo, Ports: []Port{{Number: 80, Name: "http"}}, Endpoints: []*Workload{{Address: address}}}
	}
	r := registry(&Config{Services: []*Service{
		entry("x", "api.example.com", "192.0.2.1", "."), entry("y", "api.example.com", "192.0.2.2"),
		entry("x", "own.example.com", "192.0.2.3", "."), entry("y", "*.example.com", "192.0.2.4"),
		entry("x", "*.deep.example.com", "192.0.2.5", "."),
	}})
	for host, want := range map[string]string{
		"api.example.com": "192.0.2.2:80", "own.example.com": "192.0.2.4:80", "a.deep.example.com": "192.0.2.4:80",
	} {
		v, ok := r.View(host)
		if !ok {
			t.Errorf("%s is unknown", host)
		} else if got := addresses(r.Endpoints(v, 80)); got != want {
			t.Errorf("%s has %q, want %q", host, got, want)
		}
	}
}

// TestRegistry_Selection picks workloads by labels, their ports and clusters.
func TestRegistry_Selection(t *testing.T) {
	c := &Config{
		Services: []*Service{{
			Meta: Meta{Name: "order", Namespace: "production"}, Selector: map[string]string{"app": "order"},
			Ports: []Port{{Number: 80, Name: "http", Target: 8080}, {Number: 90, Name: "admin", TargetName: "adm"}},
		}},
		Workloads: []*Workload{
			{Meta: Meta{Namespace: "production", Labels: map[string]string{"app": "order", "version": "v2"}}, Address: "10.10.10.10", Ports: map[string]uint32{"http": 81, "adm": 91}, ServiceAccount: "sa"},
			{Meta: Meta{Namespace: "production", Labels: map[string]string{"app": "order"}}, Address: "10.10.10.11", Network: "us-west"},
			{Meta: Meta{Namespace: "production", Labels: map[string]string{"app": "other"}}, Address: "10.10.10.12"},
			{Meta: Meta{Namespace: "elsewhere", Labels: map[string]string{"app": "order"}}, Address: "10.10.10.13"},
			{Meta: Meta{Namespace: "production"}, Service: "order.production", Address: "10.10.10.14", Unready: true},
			{Meta: Meta{Namespace: "production"}, Service: "order.production", Address: "10.10.10.15", Ports: map[string]uint32{"admin": 9090}},
			{Meta: Meta{Namespace: "production"}, Service: "order.production", Address: "10.10.10.16", Ports: map[string]uint32{"": 7070}},
		},
	}
	r := registry(c)
	var got []string
	for _, e := range r.All() {
		got = append(got, strings.Join([]string{e.Address.String(), e.Cluster, e.Identity, e.Unready}, " "))
	}
	want := []string{
		"10.10.10.10:81 us-central spiffe://cluster.local/ns/production/sa/sa ",
		"10.10.10.14:8080 us-central  not ready",
		"10.10.10.16:8080 us-central  ",
		"10.10.10.11:8080 us-west  ",
		"10.10.10.10:91 us-central spiffe://cluster.local/ns/production/sa/sa ",
		"10.10.10.14:90 us-central  not ready",
		"10.10.10.15:9090 us-central  ",
		"10.10.10.16:90 us-central  ",
		"10.10.10.11:90 us-west  ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestView_Port(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ports []Port
		ask   uint32
		want  uint32
	}{
		{"the only one", []Port{{Number: 9090}}, 0, 9090},
		{"80 of several", []Port{{Number: 9090}, {Number: 80}}, 0, 80},
		{"the only HTTP one", []Port{{Number: 9090, Protocol: ProtocolHTTP}, {Number: 5432, Protocol: ProtocolTCP}}, 0, 9090},
		{"several and none is 80", []Port{{Number: 9090, Protocol: ProtocolHTTP}, {Number: 9091, Protocol: ProtocolHTTP}}, 0, 0},
		{"named", []Port{{Number: 9090}, {Number: 80}}, 9090, 9090},
		{"unknown", []Port{{Number: 80}}, 81, 0},
	} {
		v := View{Ports: tt.ports}
		if p, ok := v.Port(tt.ask); p.Number != tt.want || ok != (tt.want != 0) {
			t.Errorf("%s: port %d, %v, want %d", tt.name, p.Number, ok, tt.want)
		}
	}
}

func TestView_RelayPort(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ports []Port
		ask   uint32
		want  uint32
	}{
		{"the only one", []Port{{Number: 80, Protocol: ProtocolHTTP}}, 0, 80},
		{"the only one of the protocol", []Port{{Number: 80, Protocol: ProtocolHTTP}, {Number: 5432, Protocol: ProtocolTCP}}, 0, 5432},
		{"two of the protocol", []Port{{Number: 5432, Protocol: ProtocolTCP}, {Number: 5433, Protocol: ProtocolTCP}}, 0, 0},
		{"none of the protocol", []Port{{Number: 80, Protocol: ProtocolHTTP}, {Number: 81, Protocol: ProtocolHTTP}}, 0, 0},
		{"named, of another protocol", []Port{{Number: 80, Protocol: ProtocolHTTP}, {Number: 5432, Protocol: ProtocolTCP}}, 80, 80},
		{"unknown", []Port{{Number: 80, Protocol: ProtocolTCP}}, 81, 0},
	} {
		v := View{Ports: tt.ports}
		if p, ok := v.RelayPort(tt.ask, ProtocolTCP); p.Number != tt.want || ok != (tt.want != 0) {
			t.Errorf("%s: port %d, %v, want %d", tt.name, p.Number, ok, tt.want)
		}
	}
}

func TestServiceOf(t *testing.T) {
	for host, want := range map[string]string{
		"a.ns.svc.cluster.local": "a.ns cluster.local", "a.ns.svc": "a.ns svc", "a.ns.global": "a.ns global", "a.ns.svc.x": "a.ns x",
		"a.ns": "", "a": "", "": "", "a.ns.svc.": "", "a.ns.svcx": "", "a.ns.globalx": "", "x.a.ns.svc": "",
		".ns.svc": "", "a..svc": "", "..svc": "", "*.ns.global": "", "a.ns.example.com": "",
	} {
		got, service, suffix, ok := "", "", "", false
		if service, suffix, ok = ServiceOf(host); ok {
			got = service + " " + suffix
		}
		if got != want || !ok && service+suffix != "" {
			t.Errorf("%q is of %q, want %q", host, got, want)
		}
	}
}

func TestNormalizeHost(t *testing.T) {
	for host, want := range map[string]string{
		"A.Test": "a.test", "a.test.": "a.test", "a.test:80": "a.test", "a.test.:80": "a.test", "[2001:DB8::1]:80": "[2001:db8::1]", "[2001:db8::1]": "[2001:db8::1]", "": "", ":80": "",
	} {
		if got := NormalizeHost(host); got != want {
			t.Errorf("%q is %q, want %q", host, got, want)
		}
	}
	for address, want := range map[string]string{"10.0.0.7": "10.0.0.7", "::ffff:10.0.0.7": "10.0.0.7", "2001:db8::7": "[2001:db8::7]"} {
		if got := AddressHost(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is %q, want %q", address, got, want)
		}
	}
}

// TestRegistry_Ports: a service has the ports that its files give it, or else those that
// gossip brings; a ServiceEntry of its name adds its own.
func TestRegistry_Ports(t *testing.T) {
	port := func(n uint32) Port { return Port{Number: n, Name: fmt.Sprint("http-", n), Protocol: ProtocolHTTP} }
	heard := func(service string, n uint32) Endpoint {
		e := announced(service, "us-central", "10.0.0.1:80")
		e.Port = port(n)
		return e
	}
	r := registry(&Config{Services: []*Service{
		{Meta: Meta{Name: "filed", Namespace: "shop"}, Ports: []Port{port(80)}},
		{Meta: Meta{Name: "e", Namespace: "bank"}, Hosts: []string{"filed.shop.global"}, Ports: []Port{port(80), port(82)}},
		{Meta: Meta{Name: "f", Namespace: "bank"}, Hosts: []string{"api.test"}, Ports: []Port{port(443)}},
		{Meta: Meta{Name: "own", Namespace: "shop"}, ExportTo: []string{"."}, Ports: []Port{port(80)}},
	}}, heard("filed.shop", 81), heard("heard.shop", 80), heard("heard.shop", 81), heard("heard.shop", 80), heard("none", 80))
	for host, want := range map[string]string{
		"filed.shop": "shop [80]", "filed.shop.global": "shop [80 82]", "heard.shop": "shop [80 81]", "api.test": "bank [443]", "own.shop": "", "none": "",
	} {
		got := ""
		if v, ok := r.View(host); ok {
			var ports []uint32
			for _, p := range v.Ports {
				ports = append(ports, p.Number)
			}
			got = fmt.Sprint(v.Namespace, " ", ports)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	if got, want := r.Services(), []string{"filed.shop", "heard.shop", "own.shop"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	if got, want := r.EntryHosts(), []string{"api.test", "filed.shop.global"}; !slices.Equal(got, want) {
		t.Errorf("hosts of entries %v, want %v", got, want)
	}
	for service, want := range map[string][]string{
		"a.shop":       {"a.shop", "a.shop.svc", "a.shop.global", "a.shop.svc.cluster.local", "a.shop.svc.cluster.remote"},
		"a.production": {"a.production", "a.production.svc", "a.production.global", "a.production.svc.cluster.local", "a.production.svc.cluster.remote", "a"},
	} {
		if got := r.Names(service); !slices.Equal(got, want) {
			t.Errorf("%s has the names %v, want %v", service, got, want)
		}
	}
}

// TestRegistry_OneAddress: of what several say of one address the ready one counts, but of
// files what this proxy has found out itself.
func TestRegistry_OneAddress(t *testing.T) {
	heard := func(owner, unready string) Endpoint {
		e := announced("web.production", "us-central", "10.0.0.1:80")
		e.Owner, e.Unready = owner, unready
		return e
	}
	filed := &Workload{Meta: Meta{Namespace: "production", Labels: map[string]string{"app": "web"}}, Address: "10.0.0.1", Unready: true}
	for _, tt := range []struct {
		name string
		file bool
		list []Endpoint
		want string // owner and why it is not ready
	}{
		{"the ready one", false, []Endpoint{heard("a", "down"), heard("b", "")}, "b "},
		{"the first of two that are ready", false, []Endpoint{heard("a", ""), heard("b", "")}, "a "},
		{"the first of two that are not", false, []Endpoint{heard("a", "down"), heard("b", "gone")}, "a down"},
		{"not one that is not ready", false, []Endpoint{heard("a", ""), heard("b", "gone")}, "a "},
		{"a file's, whatever others say", true, []Endpoint{heard("a", "")}, " not ready"},
	} {
		c := &Config{Services: []*Service{{Meta: Meta{Name: "web", Namespace: "production"}, Selector: map[string]string{"app": "web"}, Ports: []Port{{Number: 80, Name: "http", Protocol: ProtocolHTTP}}}}}
		if tt.file {
			c.Workloads = []*Workload{filed}
		}
		all := registry(c, tt.list...).All()
		if len(all) != 1 || all[0].Owner+" "+all[0].Unready != tt.want {
			t.Errorf("%s: %d endpoints, the first %+v, want %q", tt.name, len(all), all[0], tt.want)
		}
	}
}

// TestRegistry_Selects: whoever bears all labels is selected, with what it says of itself;
// an EndpointSlice is for services of its own namespace.
func TestRegistry_Selects(t *testing.T) {
	c := &Config{
		Services: []*Service{{Meta: Meta{Name: "web", Namespace: "production"}, Selector: map[string]string{"app": "web", "tier": "front"}, Ports: []Port{{Number: 80, Name: "http"}}}},
		Workloads: []*Workload{
			{Meta: Meta{Namespace: "production", Labels: map[string]string{"app": "web", "tier": "front", "version": "v2"}}, Address: "10.0.0.1", Weight: 7, Locality: ParseLocality("r/z")},
			{Meta: Meta{Namespace: "production", Labels: map[string]string{"app": "web"}}, Address: "10.0.0.2"},
			{Meta: Meta{Namespace: "production", Labels: map[string]string{"tier": "front", "app": "x"}}, Address: "10.0.0.3"},
			{Meta: Meta{Namespace: "production", Labels: map[string]string{"app": "web", "tier": "front", "topology.istio.io/cluster": "us-east"}}, Address: "10.0.0.4", Network: "us-west"},
			{Meta: Meta{Namespace: "shop"}, Service: "web.production", Address: "10.0.0.5"},
		},
	}
	all := registry(c).All()
	if got := addresses(all); got != "10.0.0.1:80 10.0.0.4:80" {
		t.Fatalf("endpoints %s", got)
	}
	e := all[0]
	if e.Weight != 7 || e.Locality != ParseLocality("r/z") || e.Labels["version"] != "v2" || e.Cluster != "us-central" || !e.Since.Equal(time.Unix(1, 0)) {
		t.Errorf("%+v", e)
	}
	if other := all[1]; other.Weight != 1 || other.Cluster != "us-east" {
		t.Errorf("%+v", other)
	}
}

// TestRegistry_EntryOfOnePart: an endpoint of a ServiceEntry that is the name of a service
// in one cluster has that cluster's endpoints, of that port, with what the entry adds.
func TestRegistry_EntryOfOnePart(t *testing.T) {
	west := announced("user.production", "us-west", "10.1.0.1:80")
	west.Locality, west.Weight = Locality{}, 2
	admin := announced("user.production", "us-west", "10.1.0.1:81")
	admin.Port = Port{Number: 81, Name: "admin"}
	c := &Config{Services: []*Service{{
		Meta: Meta{Name: "e", Namespace: "production"}, Hosts: []string{"west.test"}, Resolution: ResolveDNS,
		Ports:     []Port{{Number: 8080, Name: "http"}},
		Endpoints: []*Workload{{Address: "user.production.svc.cluster.remote", Ports: map[string]uint32{"http": 80}, Locality: ParseLocality("r"), Weight: 5, Meta: Meta{Labels: map[string]string{"a": "b"}}}},
	}}}
	r := registry(c, announced("user.production", "us-central", "10.0.0.1:80"), west, admin)
	v, ok := r.View("west.test")
	if !ok {
		t.Fatal("unknown")
	}
	list := r.Endpoints(v, 8080)
	if len(list) != 1 || list[0].Address.String() != "10.1.0.1:80" {
		t.Fatalf("endpoints %q", addresses(list))
	}
	if e := list[0]; e.Locality.Region != "r" || e.Weight != 5 || e.Labels["a"] != "b" || e.Cluster != "us-west" || e.Port.Number != 8080 {
		t.Errorf("%+v", e)
	}
	if got := r.Endpoints(v, 80); len(got) != 0 {
		t.Errorf("of a port that it has not: %q", addresses(got))
	}
}

func TestEndpoint_DerivedLabels(t *testing.T) {
	e := Endpoint{Cluster: "c", Locality: ParseLocality("r/z/s"), Labels: map[string]string{"zone": "declared"}}
	for name, want := range map[string]string{
		"region": "r", "zone": "declared", "subzone": "s", "cluster": "c", "topology.kubernetes.io/region": "r",
		"topology.kubernetes.io/zone": "z", "topology.istio.io/cluster": "c", "topology.istio.io/subzone": "s",
	} {
		if got, ok := e.Label(name); !ok || got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, ok := e.Label("version"); ok {
		t.Error("version is derived from nothing")
	}
}

func TestLocality_Matches(t *testing.T) {
	l := ParseLocality("us-west1/a/rack")
	for pattern, want := range map[string]bool{
		"*": true, "us-west1": true, "us-west1/*": true, "us-west1/a": true, "us-west1/a/*": true, "us-west1/a/rack": true,
		"us-west": false, "us-west1/b": false, "us-west1/a/other": false, "us-east1/*": false,
	} {
		if got := l.Matches(pattern); got != want {
			t.Errorf("%s matches %s: %v, want %v", l, pattern, got, want)
		}
	}
}

// TestRegistry_DNSHosts: a ServiceEntry without endpoints is asked of DNS by its
// host, also where that has the shape of a service's short name; one whose host
// is a service's has the service's endpoints.
func TestRegistry_DNSHosts(t *testing.T) {
	entry := func(host string) *Service {
		return &Service{Meta: Meta{Kind: "ServiceEntry", Namespace: "prod", Name: host}, Hosts: []string{host}, Resolution: ResolveDNS, Ports: []Port{{Number: 80, Name: "http"}}}
	}
	r := NewRegistry(Known{
		Node: &Node{Namespace: "prod", Cluster: "c1"},
		Config: &Config{Services: []*Service{
			{Meta: Meta{Kind: "Service", Namespace: "prod", Name: "web"}, Ports: []Port{{Number: 80, Name: "http"}}},
			entry("api.github.com"), entry("httpbin.org"), entry("backend"), entry("web.prod"), entry("gone.prod.global"),
		}},
		Addresses: map[string][]netip.Addr{"httpbin.org": {netip.MustParseAddr("198.51.100.1")}},
	})
	if got, want := r.Unresolved(), []string{"api.github.com", "backend", "httpbin.org"}; !slices.Equal(got, want) {
		t.Errorf("DNS is asked of %q, want %q", got, want)
	}
	v, ok := r.View("httpbin.org")
	if !ok || len(r.Endpoints(v, 80)) != 1 {
		t.Errorf("httpbin.org has the view %+v, want one endpoint", v)
	}
}

// TestRegistry_Unasked: where DNS is not asked, an address that nobody has stands
// for each name, the same one wherever the name is, with what files say of it.
func TestRegistry_Unasked(t *testing.T) {
	entry := func(host string, names ...string) *Service {
		s := &Service{Meta: Meta{Kind: "ServiceEntry", Namespace: "prod", Name: host}, Hosts: []string{host}, Resolution: ResolveDNS, Ports: []Port{{Number: 80, Name: "http"}}}
		for _, n := range names {
			s.Endpoints = append(s.Endpoints, &Workload{Address: n, Ports: map[string]uint32{"http": 8080}, Locality: Locality{Region: "r"}})
		}
		return s
	}
	r := NewRegistry(Known{
		Node:    &Node{Cluster: "c"},
		Config:  &Config{Services: []*Service{entry("a.test", "x.test", "y.test", "10.0.0.1"), entry("b.test", "X.test."), entry("c.test")}},
		Unasked: true,
	})
	for host, want := range map[string][]string{"a.test": {"10.0.0.1:8080", "x.test:8080", "y.test:8080"}, "b.test": {"x.test:8080"}, "c.test": {"c.test:80"}} {
		v, _ := r.View(host)
		var got []string
		for _, e := range r.Endpoints(v, 80) {
			address := e.Address.String()
			if name, ok := r.StandsFor(e.Address.Addr()); ok {
				address = fmt.Sprintf("%s:%d", name, e.Address.Port())
			}
			got = append(got, address)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", host, got, want)
		}
	}
}

// TestRegistry_ExternalName: a Service of this type is what its name leads to, by DNS or in
// the mesh, by any of the Service's own names.
func TestRegistry_ExternalName(t *testing.T) {
	alias := func(name, to string) *Service {
		return &Service{Meta: Meta{Kind: "Service", Namespace: "production", Name: name}, Resolution: ResolveDNS, External: true, Ports: []Port{{Number: 80}}, Endpoints: []*Workload{{Address: to}}}
	}
	r := NewRegistry(Known{
		Node:      &Node{Cluster: "us-central", Namespace: "production"},
		Config:    &Config{Services: []*Service{alias("out", "a.test"), alias("in", "user.production.svc.cluster.local"), alias("self", "self.production"), alias("far", "far-off"), alias("far-off", "in.production.svc.cluster.local."), alias("ab", "ba.production.svc"), alias("ba", "ab")}, Workloads: []*Workload{{Meta: Meta{Namespace: "production"}, Address: "192.0.2.9", Ports: map[string]uint32{"": 80}, Service: "out.production"}}},
		Announced: []Endpoint{announced("user.production", "us-central", "10.0.0.1:80")},
		Addresses: map[string][]netip.Addr{"a.test": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}},
	})
	for host, want := range map[string]string{"out": "192.0.2.1:80 192.0.2.2:80", "out.production.svc.cluster.local": "192.0.2.1:80 192.0.2.2:80", "in": "10.0.0.1:80", "self": "", "far": "10.0.0.1:80", "ab": ""} {
		v, ok := r.View(host)
		if !ok || !v.External || addresses(r.Endpoints(v, 80)) != want {
			t.Errorf("%s: %+v with %q, want %q", host, v, addresses(r.Endpoints(v, 80)), want)
		}
	}
	if v, _ := r.View("far"); r.Endpoints(v, 80)[0].Forward != "user.production" {
		t.Errorf("in the mesh: %+v", r.Endpoints(v, 80)[0])
	}
	if v, ok := r.View("user"); !ok || v.External {
		t.Errorf("a service that is none: %+v", v)
	}
	if got := r.Unresolved(); !slices.Equal(got, []string{"a.test"}) {
		t.Errorf("DNS is asked for %v", got)
	}
}

// TestRegistry_MayBeHeard: of names that nobody bears, gossip may bring full ones of services,
// in clusters that the node has domains for.
func TestRegistry_MayBeHeard(t *testing.T) {
	r := registry(&Config{}, announced("user.production", "us-west", "10.1.0.1:80"))
	for host, want := range map[string]bool{
		"order.production.global": true, "Order.production.svc.cluster.remote.": true, "order.production.svc.cluster.local": true, "order.production.svc": true,
		"order.production.svc.cluster.nowhere": false, "order.production": false, "order": false, "api.example.com": false,
		"user.production.svc.cluster.local": false, // it is known, elsewhere
	} {
		if got := r.MayBeHeard(host); got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}
