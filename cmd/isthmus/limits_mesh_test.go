package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestLimits_Clusters: four proxies in two clusters, each in a network namespace
// of its own, keep 100 requests a second together under a load that is not even;
// parted, each cluster lets in 100 at most; five seconds after the link is back it
// is 100 again.
func TestLimits_Clusters(t *testing.T) {
	measured(t)
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	// Each namespace has a link to here, for the load, and one to the other.
	for i, ns := range []string{"isthmus-limits-1", "isthmus-limits-2"} {
		exec.Command("ip", "netns", "delete", ns).Run() // of a test that was killed
		ip("netns add " + ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "delete", ns).Run() })
		near := fmt.Sprintf("isthlim%d", i+1)
		exec.Command("ip", "link", "delete", near).Run()
		ip(fmt.Sprintf("link add %s type veth peer name load netns %s", near, ns))
		t.Cleanup(func() { exec.Command("ip", "link", "delete", near).Run() })
		ip(fmt.Sprintf("address add 10.231.%d.1/24 dev %s", i+1, near))
		ip("link set " + near + " up")
		ip(fmt.Sprintf("-n %s address add 10.231.%d.2/24 dev load", ns, i+1))
		ip("-n " + ns + " link set load up")
		ip("-n " + ns + " link set lo up")
	}
	ip("-n isthmus-limits-1 link add mesh type veth peer name mesh netns isthmus-limits-2")
	for i := range 2 {
		ip(fmt.Sprintf("-n isthmus-limits-%d address add 10.231.3.%d/24 dev mesh", i+1, i+1))
		ip(fmt.Sprintf("-n isthmus-limits-%d link set mesh up", i+1))
	}
	link := func(state string) { ip("-n isthmus-limits-1 link set mesh " + state) }

	limits := t.TempDir() + "/limits.yaml"
	if err := os.WriteFile(limits, []byte("domain: production\ndescriptors:\n- {key: generic_key, value: default, rate_limit: {unit: second, requests_per_unit: 100}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mesh := example(t) + `
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web.test], gateways: [gw], http: [{directResponse: {status: 200}}]}
`
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var floods []*flood
	for i, rate := range []int{300, 60, 30, 10} {
		cluster := i%2 + 1
		at := limitProxy(t, fmt.Sprintf("isthmus-limits-%d", cluster), fmt.Sprintf(`node: {name: p%d, cluster: c%d, namespace: istio-system, address: 10.231.3.%d, labels: {istio: ingressgateway}}
listeners: {outbound: "", inbound: "", metrics: "", admin: "127.0.0.1:0", gateway: {bind: 10.231.%d.2, ports: {80: %d}}}
gossip: {bind: "10.231.3.%d:%d", join: ["10.231.3.1:7001", "10.231.3.2:7002"]}
rateLimits: {config: %q}
`, i+1, cluster, cluster, cluster, 8001+i, cluster, 7001+i, limits), mesh)
		floods = append(floods, startFlood(ctx, at["gateway:80"], "web.test", rate))
	}
	passed := func() (n int64) {
		for _, f := range floods {
			n += f.passed.Load()
		}
		return n
	}
	// count returns what is let in a second, on an average, and all seconds.
	count := func(seconds int) (mean float64, all []int64) {
		begin, first := time.Now(), passed()
		for last := first; len(all) < seconds; {
			time.Sleep(time.Until(begin.Add(time.Duration(len(all)+1) * time.Second)))
			next := passed()
			all, last = append(all, next-last), next
		}
		return float64(passed()-first) / time.Since(begin).Seconds(), all
	}
	check := func(what string, mean, least, most float64, all []int64) {
		t.Helper()
		t.Logf("%s: %.1f a second: %v", what, mean, all)
		if mean < least || mean > most {
			t.Errorf("%s: %.1f are let in a second, want %.0f to %.0f", what, mean, least, most)
		}
	}
	count(8) // until all have met, and the bucket is empty
	mean, all := count(15)
	check("together", mean, 95, 110, all)
	link("down")
	mean, all = count(20)
	check("parted", mean, 60, 200, all)
	link("up")
	_, healing := count(5)
	t.Logf("healing: %v", healing)
	mean, all = count(15)
	check("together again", mean, 95, 110, all)
	for _, f := range floods {
		if n := f.failed.Load(); n > 0 {
			t.Errorf("%d requests have failed", n)
		}
	}
}
