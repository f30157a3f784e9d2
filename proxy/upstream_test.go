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
