package main

import (
	"fmt"
	"time"
)

// turns is how often each of the peers that run at once has its turn in a round, for
// a second each. What the machine does meanwhile comes to all of them alike: one that
// is measured after the other may differ by 5 % without any cause of its own.
const turns = 8

// aboutTurns says how it is done.
const aboutTurns = "Both run at once and are loaded in turn, for a second each, so that both have the same from the machine. " +
	"The file is emptied before each turn, so that its memory is some that the machine has used before."

// afterwards is how long a proxy may take until it has written and sent what it knows
// of requests.
const afterwards = 1500 * time.Millisecond

// roundTogether measures a case with peers that run at once.
func (b *bench) roundTogether(res results, c benchCase, round int) {
	list := c.who(b.peers)
	var all []values
	if !b.insist(fmt.Sprintf("round %d of %d [%s]", round+1, b.rounds, c.name), func() (err error) {
		all, err = c.together(b, list)
		return err
	}) {
		return
	}
	for i, p := range list {
		b.note(res, c, p, round, all[i])
	}
}

// inTurns measures a load on peers that run at once.
func inTurns(l load) func(b *bench, list []peer) ([]values, error) {
	return func(b *bench, list []peer) (all []values, err error) {
		err = b.withAll(list, l.path, nil, func(targets []target) error {
			all, err = b.takeTurns(l, targets)
			return err
		})
		return all, err
	}
}

// withAll starts peers, and lets work use them. Those of started run already.
func (b *bench) withAll(list []peer, path string, started []target, work func([]target) error) error {
	if len(list) == 0 {
		return work(started)
	}
	return b.with(list[0], path, func(t target) error {
		if err := b.withAll(list[1:], path, append(started, t), work); err != nil {
			return fmt.Errorf("%s: %w", list[0].name, err)
		}
		return nil
	})
}

// takeTurns loads targets in turn, and returns the figures of each.
func (b *bench) takeTurns(l load, targets []target) ([]values, error) {
	results := make([][]loadResult, len(targets))
	spent := make([]float64, len(targets)) // seconds of CPU: until the first turn, then from there
	for turn := range turns + 1 {          // the first one is for warming up
		for i := range targets {
			if turn%2 == 1 { // who follows whom shall not matter
				i = len(targets) - 1 - i
			}
			t := targets[i]
			if err := t.empty(l.emptied); err != nil {
				return nil, err
			}
			r, err := b.send(l, t, 1)
			if err != nil {
				return nil, err
			}
			if turn > 0 {
				results[i] = append(results[i], r)
			}
		}
		if turn > 0 && turn < turns {
			continue
		}
		if err := b.sleep(afterwards); err != nil {
			return nil, err
		}
		for i, t := range targets {
			spent[i] = t.proc.cpu() - spent[i]
		}
	}
	all := make([]values, len(targets))
	for i, t := range targets {
		if err := t.complete(l.emptied, results[i][turns-1].requests); err != nil {
			return nil, err
		}
		all[i] = sum(results[i], spent[i])
	}
	return all, nil
}

// send sends a load's requests for so many seconds.
func (b *bench) send(l load, t target, seconds int) (loadResult, error) {
	if l.rate == 0 {
		return b.wrk(l, t, seconds)
	}
	r, err := b.generate(t, l, seconds)
	return loadResult{requests: r.Requests, rps: float64(r.Requests) / float64(seconds), p50: r.P50, p99: r.P99}, err
}

// sum are the figures of a target's turns, which have cost so many seconds of CPU.
func sum(list []loadResult, cpu float64) values {
	v := values{}
	requests := 0
	for _, r := range list {
		requests += r.requests
		n := float64(len(list))
		v["rps"] += r.rps / n
		v["p50"] += r.p50 / n
		v["p99"] += r.p99 / n
		v[lost] += float64(r.lost)
	}
	v["cpu"] = cpu / float64(requests) * 1e6
	return v
}
