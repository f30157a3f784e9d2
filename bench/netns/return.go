package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The return of a cluster: it is away long enough for its endpoints to be
// ejected, and is watched until its slow start is over.
const (
	away      = 4 * time.Second
	returning = 10 * time.Second // warmup.duration
	watched   = returning + 12*time.Second
)

// runClusterReturns kills a cluster, starts it again, and looks at how its
// traffic comes back: not all at once, and all of it in the end.
func runClusterReturns(r *runner, res *result) error {
	p := lan
	p.ejection, p.warmup = 3*time.Second, returning
	var back time.Duration // from the kill to the return
	err := r.steadyFor(res, p, watched, func() error {
		if err := r.killCluster(west); err != nil {
			return err
		}
		begin := time.Now()
		if err := r.sleep(away); err != nil {
			return err
		}
		for _, pod := range r.world.cluster(west).pods {
			if err := r.world.startPod(pod); err != nil {
				return err
			}
		}
		back = time.Since(begin)
		return nil
	})
	if err != nil {
		return err
	}
	res.noneFailed()
	res.amplified()
	res.comesBack(res.figures.all, res.event+back)
	return nil
}

// comesBack checks the traffic of the cluster that returns at a moment.
func (res *result) comesBack(replies []reply, at time.Duration) {
	rates := perSecond(replies, west, at, int(watched/time.Second)-1)
	before := perSecond(replies, west, res.event-calm, int(calm/time.Second)-1)
	steady := mean(before)
	res.note("requests a second to %s, before: %s; in each second after its processes were started again: %s", west, join(before), join(rates))
	first := slices.IndexFunc(rates, func(n int) bool { return n > 0 })
	if first < 0 {
		res.check(false, "the cluster serves again", "not within %v", watched)
		return
	}
	// The second in which it begins to serve is seldom a whole one: the next one
	// is what says how it begins.
	begins := rates[min(first+1, len(rates)-1)]
	res.check(float64(begins) <= steady/2, "slow start: at most half of its share in its first whole second", "%d a second of %.0f", begins, steady)
	most := slices.Max(rates)
	res.check(float64(most) <= 1.5*steady, "no herd: never more than one and a half times its share", "%d a second of %.0f", most, steady)
	end := mean(rates[len(rates)-4:])
	res.check(end >= 0.8*steady, fmt.Sprintf("its share is back %v after its return", watched-2*time.Second), "%.0f a second of %.0f", end, steady)
}

func mean(list []int) float64 {
	sum := 0
	for _, n := range list {
		sum += n
	}
	return float64(sum) / float64(max(len(list), 1))
}

func join(list []int) string { return strings.Trim(fmt.Sprint(list), "[]") }
