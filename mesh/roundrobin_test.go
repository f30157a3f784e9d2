package mesh

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestRegistry_RoundRobin: a proxy keeps to one address of those that DNS gives, and not
// all proxies to the same one.
func TestRegistry_RoundRobin(t *testing.T) {
	addresses := func(node string, texts ...string) []string {
		k := Known{
			Node: &Node{Name: node, Cluster: "c1", Namespace: "default"}, Now: time.Now(), Addresses: map[string][]netip.Addr{},
			Config: &Config{Services: []*Service{{
				Meta: Meta{Name: "web", Namespace: "default"}, Hosts: []string{"web.test"}, Resolution: ResolveDNSRoundRobin,
				Ports: []Port{{Number: 80, Name: "http", Protocol: ProtocolHTTP}},
			}}},
		}
		for _, s := range texts {
			k.Addresses["web.test"] = append(k.Addresses["web.test"], netip.MustParseAddr(s))
		}
		var out []string
		for _, e := range NewRegistry(k).All() {
			out = append(out, e.Address.Addr().String())
		}
		return out
	}
	all := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1", "2001:db8::2"}
	met := map[string]int{}
	for i := range 100 {
		node := fmt.Sprint("n", i)
		one := addresses(node, all...)
		if len(one) != 1 || !netip.MustParseAddr(one[0]).Is4() {
			t.Fatalf("%s: endpoints %v, want one of IPv4", node, one)
		}
		met[one[0]]++
		for _, gone := range all[:4] {
			if gone == one[0] {
				continue
			}
			var left []string
			for _, a := range all {
				if a != gone {
					left = append(left, a)
				}
			}
			if after := addresses(node, left...); len(after) != 1 || after[0] != one[0] {
				t.Errorf("%s: %v without %s, which it does not use; want %v", node, after, gone, one)
			}
		}
	}
	if len(met) != 4 {
		t.Errorf("100 proxies go to %v", met)
	}
	if got := addresses("n1", "2001:db8::1"); len(got) != 1 {
		t.Errorf("endpoints %v of a name that has IPv6 alone, want one", got)
	}
	if got := addresses("n1"); len(got) != 0 {
		t.Errorf("endpoints %v of a name without addresses", got)
	}
}
