package mesh

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
	"unsafe"
)

// TestCompact: a copy says the same, holds nothing of the original, and what was
// shared in it is shared in the copy.
func TestCompact(t *testing.T) {
	pattern, err := NewPattern("a|b")
	if err != nil {
		t.Fatal(err)
	}
	rule := &HTTPRoute{
		Name:  "r",
		Match: []*HTTPMatch{{URI: &StringMatch{Kind: MatchRegex, Value: "a|b", Regex: pattern}}},
		Route: []RouteDestination{{Destination: Destination{Host: "s.default"}, Weight: 3}}, Timeout: time.Second,
	}
	c := &Config{
		Hash:             "0123",
		Services:         []*Service{{Meta: Meta{Name: "s", Namespace: "default", Source: Source{File: "f.yaml", Line: 1}}, Selector: map[string]string{"app": "s"}, Ports: []Port{{Name: "http", Number: 80}}}},
		Workloads:        []*Workload{{Address: netip.MustParseAddr("192.0.2.1").String(), Meta: Meta{Labels: map[string]string{}}}},
		VirtualServices:  []*VirtualService{{Hosts: []string{"s"}, HTTP: []*HTTPRoute{rule, rule}}},
		DestinationRules: []*DestinationRule{},
	}
	d := compact(c)
	if !reflect.DeepEqual(c, d) {
		t.Fatalf("%+v, want %+v", d, c)
	}
	before, after := c.VirtualServices[0], d.VirtualServices[0]
	if after == before || after.HTTP[0] == rule || after.HTTP[0] != after.HTTP[1] || after.HTTP[0].Match[0] == rule.Match[0] {
		t.Error("rules are the original's, or no longer one")
	}
	if d.DestinationRules == nil || d.Sidecars != nil || d.Workloads[0].Labels == nil {
		t.Error("what was empty is not there, or what was not there is empty")
	}
	if unsafe.StringData(d.Services[0].Source.File) == unsafe.StringData(c.Services[0].Source.File) {
		t.Error("a text is the original's")
	}
	d.Services[0].Selector["app"] = "other"
	if c.Services[0].Selector["app"] != "s" {
		t.Error("a map is the original's")
	}
}
