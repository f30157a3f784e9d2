package proxy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestUpstream_Prepared: when endpoints of an upstream in use have changed, requests do not
// wait until it is worked out anew who gets what, which takes the longer the more there are.
func TestUpstream_Prepared(t *testing.T) {
	const many = 2000
	of := func(n int) string {
		var endpoints strings.Builder
		for i := range n {
			fmt.Fprintf(&endpoints, "{address: 10.0.%d.%d}, ", i/250, i%250+1)
		}
		return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: many}\nspec: {hosts: [many.test], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [" + endpoints.String() + "]}\n---\n" +
			destinationRule("many.test", "loadBalancer: {consistentHash: {httpHeaderName: x-user}}")
	}
	p := serve(t, Options{}, of(many))
	inUse := func() *upstream {
		table := p.table.Load()
		for k, target := range table.targets {
			if k.host == "many.test" {
				return p.makeUpstream(table, target)
			}
		}
		t.Fatal("no target")
		return nil
	}
	inUse()
	publish(t, p, of(many+1))
	u := inUse()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, ok := u.set.Pick(nil, 12345)
	runtime.ReadMemStats(&after)
	if made := after.TotalAlloc - before.TotalAlloc; !ok || made > many*16 {
		t.Errorf("a host is picked: %v; %d bytes were made for it", ok, made)
	}
}

// TestUpstream_FailoverPriority: which cluster the proxy is in counts, without a label that
// says so.
func TestUpstream_FailoverPriority(t *testing.T) {
	far, near := replying(t, okReply), replying(t, okReply)
	services := strings.Replace(entry("s.test", far.address, near.address), "locality: r1/z1}", "locality: r1/z1, labels: {topology.istio.io/cluster: c2}}", 1)
	p := serve(t, Options{}, services+destinationRule("s.test", "loadBalancer: {localityLbSetting: {failoverPriority: [topology.istio.io/cluster]}}"))
	for range 20 {
		askPath(p, t, "/", "")
	}
	if n := len(near.seen()); n != 20 {
		t.Errorf("%d of 20 requests went to the own cluster", n)
	}
}
