package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Goals of HTTP/2 where nothing is lost: what its windows and its one connection
// cost, beside HTTP/1.1 over the same line.
const (
	distanceShare = 0.75                   // of the bytes a second of a large body, which differ by a tenth or two from run to run
	distanceAdded = 2 * distanceDelay      // to the median of small requests beside it
	held          = 64 << 10 / 0.040 / 1e6 // MB a second of a window that does not grow
)

// distances measures and reports.
func (o options) distances(r *runner) error {
	list, err := r.distances()
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if err != nil {
		return err
	}
	page, good := distancePage(list, o.command(), machine(), r.window)
	fmt.Print("\n", page)
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(page), 0o644); err != nil {
			return err
		}
	}
	if !good {
		return errMissed
	}
	return nil
}

// distanceChecks are the goals.
func distanceChecks(list []distance) *result {
	res := &result{}
	var http1, http2 distance
	failed := 0
	for _, d := range list {
		failed += d.failed
		switch {
		case d.loss > 0:
		case d.protocol == "HTTP/2":
			http2 = d
		default:
			http1 = d
		}
	}
	for _, side := range []struct {
		what string
		a, b beside
	}{{"reply", http1.down, http2.down}, {"request", http1.up, http2.up}} {
		res.check(side.b.large >= distanceShare*side.a.large, fmt.Sprintf("nothing lost: a large %s over HTTP/2 has at least %.0f %% of HTTP/1.1's bytes a second", side.what, 100*distanceShare),
			"%s of %s MiB/s", mib(side.b.large), mib(side.a.large))
		res.check(side.b.small.p50-side.a.small.p50 <= distanceAdded, fmt.Sprintf("nothing lost: small requests beside it take at most %s longer than over HTTP/1.1 (median)", ms(distanceAdded)),
			"%s, %s", ms(side.b.small.p50), ms(side.a.small.p50))
	}
	res.check(failed == 0, "no request fails", "%d failed", failed)
	return res
}

// distancePage is the Markdown document, and whether all goals are met.
func distancePage(list []distance, command, machine string, window time.Duration) (string, bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "# What do HTTP/1.1 and HTTP/2 make of a long line?\n\nMade by `make distance`, which ran `%s`.\n%s\n\n## In short\n\n", command, machine)
	writeRow(&b, "between the proxies", "packets lost", "large reply, MiB/s", "large request, MiB/s", "small requests alone: p50, p99", "beside the reply", "beside the request")
	writeRow(&b, "---", "---:", "---:", "---:", "---:", "---:", "---:")
	for _, d := range list {
		writeRow(&b, d.protocol, fmt.Sprintf("%.0f %%", 100*d.loss), mib(d.down.large), mib(d.up.large), d.alone.both(), d.down.small.both(), d.up.small.both())
	}
	fmt.Fprintf(&b, `
**Nothing lost.** HTTP/2's windows begin with 64 KiB, which would be %.1f MB/s over 40 ms; they grow with what comes, up to
4 MiB. All requests share one connection, so that what a small one waits for is what was given to it before: a frame or two that are
gathered, and 32 KiB in the kernel (TCP_NOTSENT_LOWAT), not the megabytes that it would take.

**One in a hundred lost.** TCP (%s) halves what is under way with each loss, for either protocol: that bounds a large body, not
the line. Over HTTP/1.1 small requests have connections of their own. Over HTTP/2 all that follows a lost packet on its connection
waits until it has been sent again, a round trip at least, small requests behind large bodies too: TCP hands over bytes in order, and no
proxy can have them sooner. Besides, the frames before them go at the speed that is left. Where lines lose packets and large bodies go beside
small requests, let them go over HTTP/1.1 (a port named `+"`http`, without `h2UpgradePolicy`"+`).

`, held, congestion)
	res := distanceChecks(list)
	b.WriteString("## Goals\n\n")
	writeRow(&b, "what has to hold", "measured", "")
	writeRow(&b, "---", "---", "---")
	for _, c := range res.checks {
		writeRow(&b, c.what, c.got, verdict(c.ok))
	}
	fmt.Fprintf(&b, `
## How it was measured

A caller's proxy in %s and a sidecar in %s, each in a network namespace, in plain text. The line between carries %.0f Mbit/s with a
round trip of %v, buffers what comes in another %v, loses packets at random as said, and is made of TUN devices and a relay; packets that
find its buffer full are lost besides. Congestion control is %s. The proxies speak HTTP/1.1 or, by `+"`h2UpgradePolicy: UPGRADE`"+`, HTTP/2 to
each other; client and application speak HTTP/1.1. One large body goes on all the time, and its bytes are counted where they come
out. Small requests are %d GETs a second, sent when they are due, for %v after a first second; latency counts from then. All
processes share the machine's CPUs: differences below 20 ms say nothing, nor do those of large bodies below a fifth.
`, central, west, distanceRate*8/1e6, 2*distanceDelay, distanceBuffer, congestion, smallRate, window)
	return b.String(), res.ok()
}

// both are the quantiles that matter.
func (l latencies) both() string { return ms(l.p50) + ", " + ms(l.p99) }

func mib(bytes float64) string { return fmt.Sprintf("%.1f", bytes/(1<<20)) }

// String is a case in short, for who waits for the next one.
func (d distance) String() string {
	return fmt.Sprintf("%s, %.0f %% lost: small alone %s; reply %s MiB/s, beside it %s; request %s MiB/s, beside it %s; %d failed",
		d.protocol, 100*d.loss, d.alone.both(), mib(d.down.large), d.down.small.both(), mib(d.up.large), d.up.small.both(), d.failed)
}
