package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// limitScenarios are what rate limits have to show, in the order in which they
// run. The example's limits are read as they are written.
var limitScenarios = []scenario{
	{"example", "1000 at once and then 100 a second at user-service's sidecar", runLimitsExample},
	{"service", "The gateway asks envoyproxy/ratelimit, which is off, slow and wrong in turn", runLimitsService},
	{"clusters", "Four proxies in two clusters keep 100 a second together", runLimitsClusters},
}

const (
	exampleLimits = "08-rate-limits.yaml"
	limitHost     = "web.test"     // behind gateways
	gatewayListen = "127.0.0.1:80" // in each pod
)

// limitGateway answers by itself: what is looked at is who gets as far.
const limitGateway = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: production}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: production}
spec: {hosts: [web.test], gateways: [gw], http: [{directResponse: {status: 200}}]}
`

var gatewayLabels = map[string]string{"istio": "ingressgateway"}

// startLimits starts some pods with the example's limits, and waits until their
// proxies are ready.
func (r *runner) startLimits(s setup, pods ...*pod) error {
	if err := r.reset(); err != nil {
		return err
	}
	if err := r.world.configure(s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	for _, p := range pods {
		if err := r.world.startPod(p); err != nil {
			return err
		}
		if err := poll(ctx, "the proxy of "+p.name, func() error {
			if err := p.proxy.alive(); err != nil {
				return err
			}
			return p.ask("GET", "http://127.0.0.1:15000/ready", nil, nil)
		}); err != nil {
			return err
		}
	}
	return nil
}

// The load on user-service's sidecar.
const (
	exampleRate    = 1500 // a second
	exampleSeconds = 30   // after the burst
)

// runLimitsExample floods the sidecar of user-service.
func runLimitsExample(r *runner, res *result) error {
	s, err := seedSetup(nil, "08")
	if err != nil {
		return err
	}
	s.labels = map[string]string{"app": "user-service"}
	s.mesh += fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: user-service, namespace: production}\nspec: {selector: {app: user-service}, ports: [{name: http, port: 80, targetPort: %d}]}\n", firstServicePort)
	p := r.world.cluster(central).pods[0]
	if err := r.startLimits(s, p); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	if err := r.world.serving(ctx, p); err != nil {
		return err
	}
	res.setting = fmt.Sprintf("%s, %d GETs a second to the inbound listener", exampleLimits, exampleRate)
	c := newClient(r.world.caller.ns, p.address+":15006")
	defer c.close()
	load := startOpenLoop(c, "user-service.production", exampleRate)
	err = r.sleep((exampleSeconds + 2) * time.Second)
	replies := load.finish()
	if err != nil {
		return err
	}
	// The burst is over when the first is refused.
	burst, over := 0, time.Duration(1<<62)
	for _, x := range replies {
		if x.status == 429 {
			over = min(over, x.end())
		}
	}
	after, bySecond, other := 0, make([]int, exampleSeconds), map[string]int{}
	for _, x := range replies {
		second := int((x.end() - over) / time.Second)
		switch {
		case x.status != 200 && x.status != 429:
			other[x.outcome()]++
		case x.status == 429:
		case x.end() < over:
			burst++
		case second < exampleSeconds:
			after++
			bySecond[second]++
		}
	}
	due := 1000 + 100*over.Seconds()
	rate := float64(after) / exampleSeconds
	res.check(float64(burst) >= 0.98*due && float64(burst) <= 1.02*due, "max_tokens 1000: the burst, and what is filled in during it, within 2 %", "%d let in within %s, %.0f due", burst, ms(over), due)
	res.check(rate >= 98 && rate <= 102, fmt.Sprintf("tokens_per_fill 100 every 1s: over %d s, within 2 %%", exampleSeconds), "%.1f a second", rate)
	res.check(len(other) == 0, "everybody else gets 429", "%d requests, others: %d%s", len(replies), len(other), afterColon(tally(other)))
	res.note("let in, second by second after the burst: %v", bySecond)
	return nil
}

// The load on each of four gateways, and how long each state lasts: gossip takes
// some ten seconds to notice a cut.
var clusterRates = []int{300, 60, 30, 10}

const (
	sharedLimit   = 100
	meetSeconds   = 8
	steadySeconds = 15
	partedSeconds = 25
	longSeconds   = 90 // gossip no longer tries to reach those whom it took for dead
	healSeconds   = 5
)

// runLimitsClusters lets four gateways share a limit, parted and together again,
// twice.
func runLimitsClusters(r *runner, res *result) error {
	s, err := seedSetup(nil, "08")
	if err != nil {
		return err
	}
	s.labels, s.mesh, s.bootstrap = gatewayLabels, s.mesh+limitGateway, "rateLimits: {config: limits.yaml}\n"
	if err := r.world.limitFile("second", sharedLimit); err != nil {
		return err
	}
	a, b := r.world.cluster(central).pods, r.world.cluster(west).pods
	pods := []*pod{a[0], b[0], a[1], b[1]}
	if err := r.startLimits(s, pods...); err != nil {
		return err
	}
	res.setting = fmt.Sprintf("%s, no service; the limit is %d a second, the load %v GETs a second at the gateways of %s, %s, %s and %s", exampleLimits, sharedLimit, clusterRates, pods[0].name, pods[1].name, pods[2].name, pods[3].name)
	var loads []*openLoop
	begin := time.Now()
	for i, p := range pods {
		c := newClient(p.ns, gatewayListen)
		defer c.close()
		loads = append(loads, startOpenLoop(c, limitHost, clusterRates[i]))
	}
	link := r.world.link(central, west)
	cut := func() error { link.set(condition{cut: true}); return nil }
	var ends []time.Duration
	for _, step := range []struct {
		seconds int
		then    func() error
	}{
		{meetSeconds, nil}, {steadySeconds, cut}, {partedSeconds, link.restore}, {healSeconds, nil}, {steadySeconds, cut}, {longSeconds, link.restore}, {healSeconds, nil}, {steadySeconds, nil},
	} {
		if err = r.sleep(time.Duration(step.seconds) * time.Second); err == nil && step.then != nil {
			err = step.then()
		}
		if err != nil {
			break
		}
		ends = append(ends, time.Since(begin))
	}
	var admitted []time.Duration // when
	other := map[string]int{}
	for _, l := range loads {
		for _, x := range l.finish() {
			switch x.status {
			case 200:
				admitted = append(admitted, l.begin.Sub(begin)+x.end())
			case 429:
			default:
				other[x.outcome()]++
			}
		}
	}
	if err != nil {
		return err
	}
	between := func(i int) (float64, []int) { return ratesBetween(admitted, ends[i-1], ends[i]) }
	steady := func(what string, i int) {
		rate, list := between(i)
		res.check(rate >= 0.95*sharedLimit && rate <= 1.1*sharedLimit, what, "%.1f a second", rate)
		res.note("%s: %v", what, list)
	}
	parted := func(what string, i int) {
		rate, list := between(i)
		most := 0
		for _, n := range list {
			most = max(most, n)
		}
		res.check(rate <= 2*sharedLimit && most <= 2*sharedLimit, what+": at most 200 a second", "%.1f a second, %d in one at most", rate, most)
		res.note("%s: %v", what, list)
	}
	healing := func(i int) { // what it has come to is checked by what follows
		_, list := between(i)
		res.note("the link is back: %v", list)
	}
	steady("together: 95 to 110 a second", 1)
	parted(fmt.Sprintf("parted for %d s", partedSeconds), 2)
	healing(3)
	steady(fmt.Sprintf("%d s after the link is back: 95 to 110 a second", healSeconds), 4)
	parted(fmt.Sprintf("parted for %d s", longSeconds), 5)
	healing(6)
	steady(fmt.Sprintf("%d s after it is back from that: 95 to 110 a second", healSeconds), 7)
	res.check(len(other) == 0, "every answer is 200 or 429", "others: %d%s", len(other), afterColon(tally(other)))
	return nil
}

// ratesBetween counts moments from one to another: how many a second there are,
// and how many in each whole second.
func ratesBetween(moments []time.Duration, from, to time.Duration) (float64, []int) {
	n, bySecond := 0, make([]int, (to-from)/time.Second)
	for _, m := range moments {
		if m < from || m >= to {
			continue
		}
		n++
		if i := int((m - from) / time.Second); i < len(bySecond) {
			bySecond[i]++
		}
	}
	return float64(n) / (to - from).Seconds(), bySecond
}

// limitFile writes a limit for the descriptor that the gateways ask with.
func (w *world) limitFile(unit string, requests int) error {
	return os.WriteFile(filepath.Join(w.dir, "limits.yaml"), []byte(limitText(unit, requests)), 0o644)
}

func limitText(unit string, requests int) string {
	return fmt.Sprintf("domain: production\ndescriptors:\n- {key: generic_key, value: default, rate_limit: {unit: %s, requests_per_unit: %d}}\n", unit, requests)
}
