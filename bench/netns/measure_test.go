package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func millis(list ...int) []time.Duration {
	var out []time.Duration
	for _, n := range list {
		out = append(out, time.Duration(n)*time.Millisecond)
	}
	return out
}

func TestQuantile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, tt := range []struct {
		name   string
		sorted []int
		q      float64
		want   int
	}{
		{"one", []int{7}, 0.99, 7},
		{"median of two is the lower one", []int{1, 2}, 0.5, 1},
		{"median of three", []int{1, 2, 3}, 0.5, 2},
		{"99th of a hundred", hundred, 0.99, 99},
		{"first of a hundred", hundred, 0, 1},
		{"all of a hundred", hundred, 1, 100},
		{"99th of ten is the last", hundred[:10], 0.99, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := quantile(millis(tt.sorted...), tt.q); got != time.Duration(tt.want)*time.Millisecond {
				t.Errorf("got %v, want %d ms", got, tt.want)
			}
		})
	}
}

// sent is a reply to a request due at so many milliseconds.
func sent(due, took, status int, by string) reply {
	return reply{due: time.Duration(due) * time.Millisecond, took: time.Duration(took) * time.Millisecond, status: status, by: by}
}

// replies of a load: it warms up for 1 s, the event comes after 2 s.
func sampleReplies() []reply {
	return []reply{
		sent(0, 900, 503, ""),              // while it warms up
		sent(1000, 10, 200, "us-west-0"),   //
		sent(1100, 10, 200, "us-west-1"),   //
		sent(1200, 200, 200, "us-west-0"),  // late before the event
		sent(1990, 150, 200, "eu-west-0"),  // under way when it came, delayed by it
		sent(2010, 10, 200, "eu-west-0"),   //
		sent(2100, 120, 200, "eu-west-1"),  // delayed
		sent(2150, 10, 503, ""),            // failed
		sent(4000, 130, 200, "us-west-1"),  // a trial
		sent(4500, 10, 200, "us-west-1"),   //
		{due: 4 * time.Second, err: "EOF"}, // failed
	}
}

func TestEvaluate(t *testing.T) {
	f := evaluate(sampleReplies(), time.Second, 2*time.Second, 100*time.Millisecond)
	if f.sent != 10 || f.failed != 2 || f.errors["503"] != 1 || f.errors["EOF"] != 1 {
		t.Errorf("%d sent, %d failed, %v", f.sent, f.failed, f.errors)
	}
	if f.before.n != 3 || f.during.n != 7 || f.late != 1 {
		t.Errorf("%d before, %d during, %d late; want 3, 7, 1", f.before.n, f.during.n, f.late)
	}
	if f.before.p50 != 10*time.Millisecond || f.before.max != 200*time.Millisecond || f.added() != -50*time.Millisecond {
		t.Errorf("before %+v, added %v", f.before, f.added())
	}
	if len(f.touched) != 5 || f.clean != 2130*time.Millisecond {
		t.Errorf("%d touched, the last after %v; want 5 and 2.13 s", len(f.touched), f.clean)
	}
	var waves []string
	for _, w := range f.waves() {
		waves = append(waves, describe(w, 2*time.Second))
	}
	if got := f.firstWave(2 * time.Second); got != 220*time.Millisecond {
		t.Errorf("the first wave ends after %v, want 220 ms", got)
	}
	want := []string{
		"3 requests due -10 ms to 150 ms after the event, answered by 220 ms, the slowest in 150 ms; failed: 1 × 503",
		"2 requests due 2000 ms to 2000 ms after the event, answered by 2130 ms, the slowest in 130 ms; failed: 1 × EOF",
	}
	if !slices.Equal(waves, want) {
		t.Errorf("waves\n%s\nwant\n%s", strings.Join(waves, "\n"), strings.Join(want, "\n"))
	}
}

func TestEvaluate_Nothing(t *testing.T) {
	f := evaluate(nil, time.Second, 2*time.Second, time.Second)
	if f.sent != 0 || f.clean != 0 || f.added() != 0 || len(f.waves()) != 0 || f.firstWave(0) != 0 {
		t.Errorf("%+v", f)
	}
}

func TestPerSecond(t *testing.T) {
	if got := perSecond(sampleReplies(), west, 4*time.Second, 2); !slices.Equal(got, []int{2, 0}) {
		t.Errorf("us-west after 4 s: %v, want 2 0", got)
	}
	if got := perSecond(sampleReplies(), west, time.Second, 4); !slices.Equal(got, []int{3, 0, 0, 2}) {
		t.Errorf("us-west after 1 s: %v, want 3 0 0 2", got)
	}
}

func TestDueAt(t *testing.T) {
	for _, tt := range []struct {
		i, rate int
		want    time.Duration
	}{{0, 300, 0}, {300, 300, time.Second}, {1, 200, 5 * time.Millisecond}, {900_000, 300, 3000 * time.Second}} {
		if got := dueAt(tt.i, tt.rate); got != tt.want {
			t.Errorf("dueAt(%d, %d) = %v, want %v", tt.i, tt.rate, got, tt.want)
		}
	}
}

// returning builds replies of a cluster whose requests a second are given,
// after four seconds at 100 a second and some away.
func returningReplies(rates []int) (replies []reply, event, back time.Duration) {
	event, back = 4*time.Second, 8*time.Second
	add := func(from time.Duration, rate int) {
		for i := range rate {
			replies = append(replies, reply{due: from + dueAt(i, rate), status: 200, by: west + "-0"})
		}
	}
	for s := range 4 {
		add(time.Duration(s)*time.Second, 100)
	}
	for s, rate := range rates {
		add(back+time.Duration(s)*time.Second, rate)
	}
	return replies, event, back
}

func TestComesBack(t *testing.T) {
	seconds := int(watched/time.Second) - 1
	series := func(f func(s int) int) []int {
		out := make([]int, seconds)
		for s := range out {
			out[s] = f(s)
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		rates []int
		want  []bool // slow start, no herd, back
	}{
		{"a ramp", series(func(s int) int { return min(100, 10*s) }), []bool{true, true, true}},
		{"at once", series(func(int) int { return 100 }), []bool{false, true, true}},
		{"a herd", series(func(s int) int { return map[bool]int{true: 300, false: 100}[s == 5] * min(s, 1) }), []bool{false, false, true}},
		{"not all of it", series(func(s int) int { return min(50, 5*s) }), []bool{true, true, false}},
		{"never", series(func(int) int { return 0 }), []bool{false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := &result{}
			replies, event, back := returningReplies(tt.rates)
			res.event = event
			res.comesBack(replies, back)
			var got []bool
			for _, c := range res.checks {
				got = append(got, c.ok)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v: %+v", got, tt.want, res.checks)
			}
		})
	}
}
