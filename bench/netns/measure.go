package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// figures are what a load tells of an event that came in its midst.
type figures struct {
	sent   int
	failed int
	errors map[string]int // by status or error

	before, during latencies // answered before the event; all others

	touched []reply       // failed or delayed, and answered after the event; by their end
	clean   time.Duration // from the event until the last of touched was answered; 0: none
	late    int           // as many were delayed as long before the event

	all []reply
}

// latencies are quantiles of a set of replies.
type latencies struct {
	n             int
	p50, p99, max time.Duration
}

// evaluate looks at the replies of a load whose first warm-up is left out. A
// reply counts as touched by the event if it failed or took at least delayed.
func evaluate(replies []reply, warmUp, event, delayed time.Duration) figures {
	f := figures{errors: map[string]int{}, all: replies}
	var before, during []time.Duration
	for _, r := range replies {
		if r.end() < warmUp {
			continue
		}
		f.sent++
		if r.failed() {
			f.failed++
			f.errors[r.outcome()]++
		}
		if r.end() < event {
			before = append(before, r.took)
			if r.failed() || r.took >= delayed {
				f.late++
			}
			continue
		}
		during = append(during, r.took)
		if r.failed() || r.took >= delayed {
			f.touched = append(f.touched, r)
			f.clean = max(f.clean, r.end()-event)
		}
	}
	slices.SortFunc(f.touched, func(a, b reply) int { return cmp.Compare(a.end(), b.end()) })
	f.before, f.during = latenciesOf(before), latenciesOf(during)
	return f
}

// added is by how much the 99th percentile has grown.
func (f figures) added() time.Duration { return f.during.p99 - f.before.p99 }

func latenciesOf(list []time.Duration) latencies {
	if len(list) == 0 {
		return latencies{}
	}
	slices.Sort(list)
	return latencies{len(list), quantile(list, 0.50), quantile(list, 0.99), list[len(list)-1]}
}

// quantile is the smallest of the sorted durations that at least a share q of
// them do not exceed (nearest rank).
func quantile(sorted []time.Duration, q float64) time.Duration {
	rank := int(q * float64(len(sorted)))
	if float64(rank) < q*float64(len(sorted)) {
		rank++
	}
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// waves are the touched replies in groups: those that end within half a second
// of each other are one wave. The first is of requests that nobody could have
// kept from what happened; later ones are trials.
func (f figures) waves() [][]reply {
	const gap = 500 * time.Millisecond
	var out [][]reply
	for i := 0; i < len(f.touched); {
		j := i + 1
		for j < len(f.touched) && f.touched[j].end()-f.touched[j-1].end() < gap {
			j++
		}
		out = append(out, f.touched[i:j])
		i = j
	}
	return out
}

// firstWave is the time from the event until the last request of the first
// wave was answered.
func (f figures) firstWave(event time.Duration) time.Duration {
	waves := f.waves()
	if len(waves) == 0 {
		return 0
	}
	first := waves[0]
	return first[len(first)-1].end() - event
}

func describe(wave []reply, event time.Duration) string {
	longest, errors := time.Duration(0), map[string]int{}
	first, last := wave[0].due, wave[0].due
	for _, r := range wave {
		longest, first, last = max(longest, r.took), min(first, r.due), max(last, r.due)
		if r.failed() {
			errors[r.outcome()]++
		}
	}
	s := fmt.Sprintf("%d requests due %s to %s after the event, answered by %s, the slowest in %s", len(wave), ms(first-event), ms(last-event), ms(wave[len(wave)-1].end()-event), ms(longest))
	if len(wave) == 1 {
		s = fmt.Sprintf("1 request due %s after the event, answered in %s", ms(first-event), ms(longest))
		if wave[0].by != "" {
			s += " by " + wave[0].by
		}
	}
	if len(errors) > 0 {
		s += "; failed: " + tally(errors)
	}
	return s
}

// tally is a map of counts in words, in the order of its keys.
func tally(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d × %s", m[k], cmp.Or(k, "nobody")))
	}
	return strings.Join(parts, ", ")
}

// perSecond counts the replies that pods of a cluster gave in each second
// after a moment.
func perSecond(replies []reply, cluster string, from time.Duration, seconds int) []int {
	out := make([]int, seconds)
	for _, r := range replies {
		if s := int((r.end() - from) / time.Second); r.end() >= from && s < seconds && strings.HasPrefix(r.by, cluster+"-") {
			out[s]++
		}
	}
	return out
}

// ms is a duration in milliseconds.
func ms(d time.Duration) string {
	if d > -10*time.Millisecond && d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
