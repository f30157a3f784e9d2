package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestRoutes_LeaveNothing: whoever looks at the routes sees where they lead, and no
// upstream, member or series of it comes of that.
func TestRoutes_LeaveNothing(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{}, entry("used.test", up.address)+entry("idle.test", "10.0.0.1:80", "10.0.0.2:80")+
		destinationRule("idle.test", "loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {}}}")+
		virtualService("split.test", "route: [{destination: {host: idle.test}, weight: 70}, {destination: {host: nobody.test}, weight: 30}]"),
		mesh.Endpoint{Service: "ill.default", Port: mesh.Port{Name: "http", Number: 80, Protocol: mesh.ProtocolHTTP}, Address: netip.MustParseAddrPort("10.0.0.3:80"), Cluster: "c2", Source: mesh.SourceGossip, Owner: "c2/default/ill", Unready: "probe failed"})
	requests, connections := len(p.Requests().List()), len(p.Connections().List())
	routes := func() string {
		var b strings.Builder
		for _, r := range p.Routes() {
			for _, d := range r.Destinations {
				fmt.Fprintf(&b, "%s to %s: %v %d/%d\n", r.Host, d.Host, d.Known, d.Usable, d.Endpoints)
			}
		}
		return b.String()
	}
	before := routes()
	for _, want := range []string{"used.test to used.test: true 1/1\n", "idle.test to idle.test: true 2/2\n", "split.test to idle.test: true 2/2\nsplit.test to nobody.test: false 0/0\n", "true 0/1\n"} {
		if !strings.Contains(before, want) {
			t.Errorf("no %q in\n%s", want, before)
		}
	}
	if n := len(p.Upstreams()); n != 0 {
		t.Errorf("%d upstreams, of which none is used", n)
	}
	if a, b := len(p.Requests().List()), len(p.Connections().List()); a != requests || b != connections {
		t.Errorf("counters of %d and %d combinations of labels, there were %d and %d", a, b, requests, connections)
	}
	table := p.table.Load()
	for _, target := range table.targets {
		p.makeUpstream(table, target)
	}
	if after := routes(); after != before {
		t.Errorf("with upstreams that are made:\n%s, without:\n%s", after, before)
	}
}

// TestRoutes_LookOnce: of many routes that lead to one place, that is looked at once: a
// thousand routes to a service of ten thousand endpoints took a minute.
func TestRoutes_LookOnce(t *testing.T) {
	p := serve(t, Options{}, entry("one.test", "10.0.0.1:80")+
		virtualService("a.test", "route: [{destination: {host: one.test}}]")+
		virtualService("b.test", "{match: [{uri: {prefix: /x}}], route: [{destination: {host: one.test}, weight: 50}, {destination: {host: one.test}, weight: 50}]}"))
	looks := map[upstreamKey]int{}
	for k, target := range p.table.Load().targets {
		resolve := target.resolve
		target.resolve = func() resolved {
			looks[k]++
			return resolve()
		}
	}
	p.Routes()
	if len(looks) == 0 {
		t.Error("no target was looked at")
	}
	for k, n := range looks {
		if n != 1 {
			t.Errorf("%v was looked at %d times", k, n)
		}
	}
}
