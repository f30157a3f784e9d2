package main

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	"isthmus/deploy"
)

// seedFolder is configuration as its owner wrote it. What it sets is observed,
// setting by setting.
const seedFolder = "examples/multicluster/"

// seedSetup runs files of seedFolder, chosen by how their names begin, with
// sidecars for services.
func seedSetup(services []string, prefixes ...string) (setup, error) {
	var text strings.Builder
	for _, p := range prefixes {
		files, err := fs.Glob(deploy.Examples, seedFolder+p+"*.yaml")
		if err != nil || len(files) != 1 {
			return setup{}, fmt.Errorf("%s has %d files that begin with %s, want one: %v", seedFolder, len(files), p, err)
		}
		data, err := fs.ReadFile(deploy.Examples, files[0])
		if err != nil {
			return setup{}, err
		}
		text.Write(data)
		text.WriteString("\n---\n")
	}
	return setup{services: services, mesh: text.String()}, nil
}

// seedServices are the services that the files are about.
var seedServices = services[1:]

// startSeed runs all of the configuration and returns a client of it.
func (r *runner) startSeed(res *result, s setup, err error, setting string) (*client, error) {
	if err == nil {
		err = r.reset()
	}
	if err == nil {
		res.setting = setting
		err = r.world.start(r.ctx, s)
	}
	if err != nil {
		return nil, err
	}
	return newClient(r.world.caller.ns, outbound), nil
}

const allSeed = "04-latency-routing.yaml, 05-failover.yaml, 09-circuit-breakers.yaml together, sidecars everywhere"

func (r *runner) startAllSeed(res *result) (*client, error) {
	s, err := seedSetup(seedServices, "04", "05", "09")
	return r.startSeed(res, s, err, allSeed)
}

// byCluster counts replies of status 200 by the cluster that served them, and
// all others by what became of them.
func byCluster(replies []reply) map[string]int {
	out := map[string]int{}
	for _, x := range replies {
		if x.failed() {
			out[x.outcome()]++
			continue
		}
		out[x.by[:max(0, strings.LastIndexByte(x.by, '-'))]]++
	}
	return out
}

// draws is how many requests a share is measured with: its standard deviation
// is then at most 1.1 %.
const draws = 2000

// allServedBy checks that n requests are answered with 200 by one cluster.
func (res *result) allServedBy(what, cluster string, replies []reply) {
	got := byCluster(replies)
	res.check(got[cluster] == len(replies), what+": all served by "+cluster, "%s", tally(got))
}

func runSeedOrder(r *runner, res *result) error {
	c, err := r.startAllSeed(res)
	if err != nil {
		return err
	}
	defer c.close()
	const host = "order-service.production.global"
	got := byCluster(closedLoop(c, 8, draws, host))
	res.share("distribute, to us-central1/*", got[central], draws, 0.8)
	res.share("distribute, to us-west1/*", got[west], draws, 0.2)
	return r.ejection(res, c, host, "order-service", 5, 30*time.Second)
}

// ejection makes one endpoint answer 503 and sends requests one after the
// other: so many go there, none for a time, then a trial.
func (r *runner) ejection(res *result, c *client, host, service string, errors int, base time.Duration) error {
	bad := r.world.pod(central + "-0")
	if err := bad.turn(service, knobs{Status: 503}); err != nil {
		return err
	}
	const pause = 10 * time.Millisecond // 100 requests a second at most, so that the others on the machine have room
	answered, other := 0, map[string]int{}
	var last, again time.Time
	for begin := time.Now(); time.Since(begin) < base+20*time.Second && again.IsZero(); {
		x := c.get(host)
		switch {
		case x.by != bad.name && x.failed():
			other[x.outcome()]++
		case x.by != bad.name:
		case time.Since(last) < time.Second || answered < errors:
			answered, last = answered+1, time.Now()
		default:
			again = time.Now()
		}
		if err := r.sleep(pause); err != nil {
			return err
		}
	}
	res.check(answered == errors, fmt.Sprintf("consecutive5xxErrors %d: no request goes there after as many", errors), "%d went there", answered)
	if again.IsZero() {
		res.check(false, fmt.Sprintf("baseEjectionTime %v: then a trial", base), "none in %v", base+20*time.Second)
	} else {
		out := again.Sub(last)
		res.check(out >= base-100*time.Millisecond && out < base+10*time.Second, fmt.Sprintf("baseEjectionTime %v: then a trial", base), "after %.1f s", out.Seconds())
	}
	res.check(len(other) == 0, "the other endpoints serve meanwhile", "%d outcomes other than 200%s", len(other), afterColon(tally(other)))
	return nil
}

func runSeedPayment(r *runner, res *result) error {
	c, err := r.startAllSeed(res)
	if err != nil {
		return err
	}
	defer c.close()
	const host, service = "payment-service.production.global", "payment-service"
	got := byCluster(closedLoop(c, 8, draws, host))
	res.share("weight 70, cluster.local", got[central], draws, 0.7)
	res.share("weight 30, cluster.remote", got[west], draws, 0.3)

	x, seen, err := r.unanswered(c, host, service)
	if err != nil {
		return err
	}
	res.endsAfter("perTryTimeout 2s, no reply", x, 504, 2*time.Second)
	res.check(seen == 1, "retryOn connect-failure,refused-stream: a time-out is not tried again", "applications saw %d", seen)
	for _, p := range r.world.cluster(central).pods {
		p.kill()
	}
	res.allServedBy("cluster.local killed", west, closedLoop(c, 8, 500, host))
	return nil
}

// unanswered sends a request that no application answers, and returns how many of them
// have seen it.
func (r *runner) unanswered(c *client, host, service string) (x reply, seen int, err error) {
	if err := r.world.turnAll(service, knobs{Hold: true}); err != nil {
		return x, 0, err
	}
	x = c.timed(host)
	if seen, err = r.world.requests(service); err != nil {
		return x, 0, err
	}
	return x, seen, r.world.turnAll(service, knobs{})
}

// endsAfter checks the status of a reply and how long it took: not less, and
// at most a quarter of a second more, which is much for a machine and little
// for the time-outs here.
func (res *result) endsAfter(what string, x reply, status int, d time.Duration) {
	res.check(x.status == status && x.took >= d-5*time.Millisecond && x.took < d+250*time.Millisecond,
		fmt.Sprintf("%s: %d after %v", what, status, d), "%s after %s", x.outcome(), ms(x.took))
}

func runSeedInventory(r *runner, res *result) error {
	c, err := r.startAllSeed(res)
	if err != nil {
		return err
	}
	defer c.close()
	const host, service = "inventory-service.production.global", "inventory-service"
	const n = 8000
	replies := closedLoop(c, 64, n, host)
	res.allServedBy("weights 100 and 0", central, replies)
	delayed := 0
	for _, x := range replies {
		if x.took >= 5*time.Second {
			delayed++
		}
	}
	// Eight are expected; none or more than 25 come once in three thousand runs.
	res.check(delayed > 0 && delayed <= 25, fmt.Sprintf("fault.delay 0.1 %% of %d requests by 5 s", n), "%d took 5 s or longer", delayed)

	x, seen, err := r.unanswered(c, host, service)
	if err != nil {
		return err
	}
	res.endsAfter("timeout 5s, no reply", x, 504, 5*time.Second)
	res.check(seen == 3, "perTryTimeout 2s, attempts 2 on gateway-error: three tries in 5 s", "applications saw %d", seen)
	for _, p := range r.world.cluster(central).pods {
		p.kill()
	}
	res.allServedBy("cluster.local killed, the standby of weight 0 takes over", europe, closedLoop(c, 8, 500, host))
	return nil
}

func runSeedCatalog(r *runner, res *result) error {
	c, err := r.startAllSeed(res)
	if err != nil {
		return err
	}
	defer c.close()
	const host, service = "catalog-service.production.global", "catalog-service"
	res.allServedBy("user-type: premium", europe, closedLoop(c, 8, 200, host, "user-type", "premium"))
	got := byCluster(closedLoop(c, 8, draws, host))
	res.share("weight 90, cluster.local", got[central], draws, 0.9)
	res.share("weight 10, cluster.backup", got[europe], draws, 0.1)

	bad := r.world.pod(central + "-0")
	if err := bad.turn(service, knobs{Status: 503}); err != nil {
		return err
	}
	replies := closedLoop(c, 8, 500, host)
	failed := len(replies) - byCluster(replies)[central] - byCluster(replies)[europe]
	res.check(failed == 0, "attempts 3 on 5xx, one endpoint answers 503: no request fails", "%d of %d failed", failed, len(replies))

	if err := bad.turn(service, knobs{Hold: true}); err != nil {
		return err
	}
	replies = closedLoop(c, 20, 100, host)
	var took []time.Duration
	failed = 0
	for _, x := range replies {
		if x.failed() {
			failed++
		}
		if x.took >= 500*time.Millisecond {
			took = append(took, x.took)
		}
	}
	slow := latenciesOf(took)
	ok := failed == 0 && slow.n > 0 && took[0] >= time.Second-5*time.Millisecond && slow.max < 1250*time.Millisecond
	res.check(ok, "perTryTimeout 1s, one endpoint hangs: another one answers after 1 s", "%d of %d failed, %d were held up, the longest %s", failed, len(replies), slow.n, ms(slow.max))
	return bad.turn(service, knobs{})
}

func runSeedOutliers(r *runner, res *result) error {
	s, err := seedSetup(seedServices, "09")
	c, err := r.startSeed(res, s, err, "09-circuit-breakers.yaml alone, sidecars everywhere")
	if err != nil {
		return err
	}
	defer c.close()
	for _, t := range []struct {
		service, host, percent string
		errors                 int
	}{
		{"payment-service", "payment-service.production.svc.cluster.local", "maxEjectionPercent 10 of 2", 7},
		{"order-service", "order-service.production.global", "maxEjectionPercent 20 of 6", 5},
	} {
		first, second := r.world.pod(central+"-0"), r.world.pod(central+"-1")
		if err := first.turn(t.service, knobs{Status: 503}); err != nil {
			return err
		}
		replies := closedLoop(c, 1, 200, t.host)
		n := servedBy(replies, first)
		res.check(n == t.errors, fmt.Sprintf("%s: consecutive errors %d: no request goes there after as many", t.service, t.errors), "%d of %d went there", n, len(replies))
		if err := second.turn(t.service, knobs{Status: 503}); err != nil {
			return err
		}
		replies = closedLoop(c, 1, 200, t.host)
		n = servedBy(replies, second)
		res.check(n > 2*t.errors, fmt.Sprintf("%s: %s: a second one is not ejected", t.service, t.percent), "%d of %d went there", n, len(replies))
	}
	return nil
}

func servedBy(replies []reply, p *pod) int {
	n := 0
	for _, x := range replies {
		if x.by == p.name {
			n++
		}
	}
	return n
}
