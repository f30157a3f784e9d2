package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// scenario is one thing that goes wrong.
type scenario struct {
	name  string
	title string
	run   func(*runner, *result) error
}

// scenarios are all of them, in the order in which they run.
var scenarios = []scenario{
	{"latency", "A link's delay grows from 5 to 80 ms", runLatency},
	{"loss", "A link loses 5 % of its packets", runLoss},
	{"link-down", "A link's interfaces go down", runLinkDown},
	{"black-hole", "A link drops everything without a word", runBlackHole},
	{"black-hole-connect", "The same, where connecting may take as long as Istio lets it", runBlackHoleConnect},
	{"half-open", "A link carries requests, and drops what comes back", runHalfOpen},
	{"slow", "One endpoint takes 500 ms longer", runSlow},
	{"errors", "One endpoint answers 503 to everything", runErrors},
	{"cluster-killed", "Every process of a cluster is killed", runClusterKilled},
	{"cluster-returns", "The cluster comes back", runClusterReturns},
	{"overload", "Everything answers 503", runOverload},
	{"seed-order", "order-service of 04-latency-routing.yaml", runSeedOrder},
	{"seed-payment", "payment-service of 04-latency-routing.yaml", runSeedPayment},
	{"seed-inventory", "inventory-service of 05-failover.yaml", runSeedInventory},
	{"seed-catalog", "catalog-service of 05-failover.yaml", runSeedCatalog},
	{"seed-outliers", "outlierDetection of 09-circuit-breakers.yaml", runSeedOutliers},
	{"seed-pool-payment", "connectionPool of payment-service, 09-circuit-breakers.yaml", runSeedPoolPayment},
	{"seed-pool-order", "connectionPool of order-service, 09-circuit-breakers.yaml", runSeedPoolOrder},
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// chooseScenarios picks by names separated by commas.
func chooseScenarios(names string) ([]scenario, error) {
	var out []scenario
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-scenario %s: write some of %s", name, strings.Join(scenarioNames(), ","))
		}
		out = append(out, scenarios[i])
	}
	return out, nil
}

// runner runs scenarios in a world.
type runner struct {
	ctx    context.Context
	world  *world
	rate   int           // requests a second
	window time.Duration // how long to watch after an event
	lost   int           // requests that applications had seen when they were killed

	service string   // the binary of the rate limit service
	redis   *process // nil: it does not run
}

// run starts everything anew for a scenario, so that none inherits what the
// proxies learned in another.
func (r *runner) run(s scenario) *result {
	res := &result{scenario: s}
	r.lost = 0
	res.err = s.run(r, res)
	if r.ctx.Err() != nil {
		res.err = r.ctx.Err()
	}
	return res
}

// reset ends what ran before.
func (r *runner) reset() error {
	r.world.stop()
	for _, l := range r.world.links {
		if err := l.restore(); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits, or returns the reason why the program ends.
func (r *runner) sleep(d time.Duration) error {
	select {
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// How long the load runs before an event: connections are opened and gossip
// settles while it warms up; then comes what the event is compared with.
const (
	warmUp = 2 * time.Second
	calm   = 4 * time.Second
)

// delayedBy is what a request takes at least that has met a dead endpoint
// under the policy: most of a time-out. A new connection over the longest link
// and a request on it take three quarters of that.
func (p policy) delayedBy() time.Duration { return p.perTryTimeout * 8 / 10 }

// steady sends an open load, lets something happen in its midst, and fills the
// result's figures with what became of the requests.
func (r *runner) steady(res *result, p policy, happens func() error) error {
	return r.steadyFor(res, p, r.window, happens)
}

func (r *runner) steadyFor(res *result, p policy, window time.Duration, happens func() error) error {
	if err := r.reset(); err != nil {
		return err
	}
	res.setting = p.String()
	if err := r.world.start(r.ctx, p.setup()); err != nil {
		return err
	}
	c := newClient(r.world.caller.ns, outbound)
	defer c.close()
	load := startOpenLoop(c, webHost, r.rate)
	err := r.sleep(warmUp + calm)
	if err == nil {
		res.event = load.since()
		err = happens()
	}
	if err == nil {
		err = r.sleep(window)
	}
	replies := load.finish()
	if err != nil {
		return err
	}
	res.measured = true
	res.figures = evaluate(replies, warmUp, res.event, p.delayedBy())
	seen, err := r.world.requests("web")
	res.amplification = float64(seen+r.lost) / float64(len(replies))
	r.describe(res, replies)
	return err
}

// describe adds what there is to know besides the figures.
func (r *runner) describe(res *result, replies []reply) {
	before, during := map[string]int{}, map[string]int{}
	for _, x := range replies {
		switch {
		case x.due < warmUp:
		case x.end() < res.event:
			before[x.by]++
		default:
			during[x.by]++
		}
	}
	res.note("served before: %s", tally(before))
	res.note("served after: %s", tally(during))
	if res.figures.late > 0 {
		res.note("%d requests were as late before the event", res.figures.late)
	}
}

// traced is steady for events after which some endpoints cannot be reached:
// which requests met them, and until when, says something.
func (r *runner) traced(res *result, p policy, happens func() error) error {
	err := r.steady(res, p, happens)
	res.showsClean = true
	for _, w := range res.figures.waves() {
		res.note("touched: %s", describe(w, res.event))
	}
	r.reasons(res)
	res.noneFailed()
	res.amplified()
	return err
}

// reasons notes what the callers' proxy holds against which endpoints.
func (r *runner) reasons(res *result) {
	list, err := r.world.caller.endpoints()
	if err != nil {
		res.note("the callers' proxy does not say what it knows of endpoints: %v", err)
		return
	}
	for _, e := range list {
		if !e.Healthy {
			res.note("the callers' proxy says of %s in %s: %s", e.Address, e.Cluster, e.Reason)
		}
	}
}

func runLatency(r *runner, res *result) error {
	err := r.steady(res, wan, func() error {
		r.world.link(central, west).set(condition{delay: 80 * time.Millisecond})
		return nil
	})
	res.noneFailed()
	res.amplified()
	return err
}

func runLoss(r *runner, res *result) error {
	err := r.steady(res, wan, func() error {
		r.world.link(central, west).set(condition{delay: nearDelay, loss: 0.05})
		return nil
	})
	res.noneFailed()
	res.amplified()
	return err
}

func runLinkDown(r *runner, res *result) error {
	return r.traced(res, lan, func() error { return r.world.link(central, west).down() })
}

func runBlackHole(r *runner, res *result) error { return r.blackHole(res, lan) }

// runBlackHoleConnect leaves connectTimeout as it is, which most do: a try then
// ends before a connection is known to fail.
func runBlackHoleConnect(r *runner, res *result) error {
	p := lan
	p.connectTimeout = 0
	return r.blackHole(res, p)
}

func (r *runner) blackHole(res *result, p policy) error {
	err := r.traced(res, p, func() error {
		r.world.link(central, west).set(condition{delay: nearDelay, cut: true})
		return nil
	})
	const most = 300 * time.Millisecond
	first, f := res.figures.firstWave(res.event), res.figures
	res.check(res.measured && first <= most, "300 ms after the cut, none of those is stuck that ran into it", "the last one was answered after %s", ms(first))
	later := len(slices.Concat(f.waves()[min(1, len(f.waves())):]...))
	res.check(res.measured && f.clean <= most, "no later request is held up either, as a trial", "%d were in %v, the last one answered after %s", later, r.window, ms(f.clean))
	return err
}

func runHalfOpen(r *runner, res *result) error {
	return r.traced(res, lan, func() error {
		r.world.link(central, west).cutTowards(r.world.cluster(central))
		return nil
	})
}

// badPod is the endpoint that misbehaves.
const badPod = west + "-0"

func runSlow(r *runner, res *result) error {
	return r.traced(res, lan, func() error { return r.turnBad(knobs{Delay: 500 * time.Millisecond}) })
}

func runErrors(r *runner, res *result) error {
	return r.traced(res, lan, func() error { return r.turnBad(knobs{Status: 503}) })
}

// turnBad turns the knobs of the endpoint that misbehaves, and keeps what it
// has counted.
func (r *runner) turnBad(k knobs) error {
	p := r.world.pod(badPod)
	c, err := p.counts("web")
	if err != nil {
		return err
	}
	r.lost += c.Requests
	return p.turn("web", k)
}

// killCluster kills every process of a cluster; its machines go on, and refuse
// connections.
func (r *runner) killCluster(name string) error {
	for _, p := range r.world.cluster(name).pods {
		c, err := p.counts("web")
		if err != nil {
			return err
		}
		r.lost += c.Requests
	}
	for _, p := range r.world.cluster(name).pods {
		p.kill()
	}
	return nil
}

func runClusterKilled(r *runner, res *result) error {
	err := r.traced(res, lan, func() error { return r.killCluster(west) })
	const most = 50 * time.Millisecond
	res.check(res.measured && res.figures.added() <= most, "at most 50 ms added to the 99th percentile", "%s", ms(res.figures.added()))
	return err
}

func runOverload(r *runner, res *result) error {
	if err := r.reset(); err != nil {
		return err
	}
	res.setting = "attempts 3 on 5xx, no outlierDetection, no maxRetries"
	if err := r.world.start(r.ctx, overload); err != nil {
		return err
	}
	c := newClient(r.world.caller.ns, outbound)
	defer c.close()
	for _, concurrent := range []int{100, 300} {
		if err := r.world.turnAll("web", knobs{Status: 503}); err != nil {
			return err
		}
		n := 20 * concurrent
		replies := closedLoop(c, concurrent, n, webHost)
		if err := r.ctx.Err(); err != nil {
			return err
		}
		seen, err := r.world.requests("web")
		if err != nil {
			return err
		}
		outcomes := map[string]int{}
		for _, x := range replies {
			outcomes[x.outcome()]++
		}
		res.amplification = float64(seen) / float64(n)
		res.check(res.amplification <= maxAmplification, fmt.Sprintf("retry amplification at most %.1f at %d concurrent requests", maxAmplification, concurrent), "%.2f: applications saw %d for %d", res.amplification, seen, n)
		res.note("clients at %d concurrent requests got %s", concurrent, tally(outcomes))
	}
	return nil
}
