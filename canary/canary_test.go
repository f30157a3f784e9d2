package canary

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// count makes counts of requests of which some failed, some were refused, and
// the others took as long as the list says, in turn.
func count(n, failed, refused int, took ...time.Duration) Counts {
	var a Arm
	for i := range n {
		switch {
		case i < failed:
			a.Count(Failed, time.Second)
		case i < failed+refused:
			a.Count(Refused, 0)
		default:
			a.Count(Served, took[i%len(took)])
		}
	}
	a.Count(Gone, time.Hour) // nobody's fault
	return a.Counts()
}

func TestGuard_Worse(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name      string
		candidate Counts
		current   Counts
		want      string
	}{
		{"alike", count(1000, 0, 0, 10*ms), count(9000, 0, 0, 10*ms), ""},
		{"nothing yet", count(0, 0, 0), count(9000, 0, 0, 10*ms), ""},
		{"nothing to compare with", count(100, 100, 0), count(0, 0, 0), ""},
		{"a tenth fails", count(100, 10, 0, 10*ms), count(900, 0, 0, 10*ms), "10 % (10 of 100) of its requests failed, 0 % (0 of 900) of the others"},
		{"few failures", count(40, 4, 0, 10*ms), count(900, 0, 0, 10*ms), ""},
		{"all fail alike", count(100, 60, 0, 10*ms), count(900, 500, 0, 10*ms), ""},
		{"less than a point", count(10000, 80, 0, 10*ms), count(90000, 0, 0, 10*ms), ""},
		{"refusals", count(100, 0, 30, 10*ms), count(900, 0, 9, 10*ms), "30 % (30 of 100) of its requests were refused"},
		{"better", count(100, 0, 0, 1*ms), count(900, 90, 90, 10*ms), ""},
		{"twice as slow", count(200, 0, 0, 20*ms), count(900, 0, 0, 10*ms), "100 % (200 of 200) of its requests took longer than"},
		{"a little slower", count(200, 0, 0, 12*ms), count(900, 0, 0, 10*ms), ""},
		{"a slow tail", count(1000, 0, 0, 10*ms, 10*ms, 10*ms, 10*ms, 50*ms), count(9000, 0, 0, 10*ms), "20 % (200 of 1000) of its requests took longer"},
		{"too fast to tell", count(200, 0, 0, 900*time.Microsecond), count(900, 0, 0, 300*time.Microsecond), ""},
	} {
		if got := DefaultGuard.Worse(tt.candidate, tt.current); tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestGuard_Chance: a candidate that is as good as what is in force is seldom
// taken back, however often one looks.
func TestGuard_Chance(t *testing.T) {
	random, returned := rand.New(rand.NewPCG(1, 2)), 0
	const trials = 300
	for range trials {
		var a, b Arm
		for i := range 4000 {
			o := Served
			if random.Float64() < 0.02 {
				o = Failed
			}
			took := time.Duration(random.ExpFloat64() * float64(20*time.Millisecond))
			if random.Float64() < 0.1 {
				a.Count(o, took)
			} else {
				b.Count(o, took)
			}
			if i%100 == 0 && DefaultGuard.Worse(a.Counts(), b.Counts()) != "" {
				returned++
				break
			}
		}
	}
	if returned > trials/50 {
		t.Errorf("%d of %d good candidates were taken back", returned, trials)
	}
}

func TestCounts_Quantile(t *testing.T) {
	c := count(100, 10, 10, 10*time.Millisecond)
	if q := c.Quantile(0.9); q < 10*time.Millisecond || q > 13*time.Millisecond {
		t.Errorf("nine tenths within %v, want about 10 ms", q)
	}
	if (&Counts{}).Quantile(0.9) != 0 {
		t.Error("a quantile of nothing")
	}
}

// TestTrial_Stages: by time and by requests, to promotion, or back.
func TestTrial_Stages(t *testing.T) {
	plan := Plan{Shadow: time.Minute, Steps: []float64{1, 50}, Step: 5 * time.Minute, Requests: 100, Guard: DefaultGuard}
	now := time.Unix(0, 0)
	few, many := count(10, 0, 0, time.Millisecond), count(200, 0, 0, time.Millisecond)
	tr := Begin(plan, now)
	for _, tt := range []struct {
		after     time.Duration
		candidate Counts
		state     State
		percent   float64
	}{
		{30 * time.Second, few, Shadow, 0},
		{40 * time.Second, few, Partial, 1},
		{4 * time.Minute, many, Partial, 1},
		{2 * time.Minute, few, Partial, 1}, // too few requests
		{time.Hour, many, Partial, 50},
		{time.Minute, many, Partial, 50},
		{5 * time.Minute, many, Promoted, 0},
		{time.Hour, many, Promoted, 0},
	} {
		now = now.Add(tt.after)
		before := *tr
		changed := tr.Advance(now, tt.candidate, many)
		if tr.State != tt.state || tr.Percent() != tt.percent || changed != (before.State != tr.State || before.Stage != tr.Stage) {
			t.Fatalf("at %v: %s, %g %%, changed %v; want %s, %g %%", now.Sub(time.Unix(0, 0)), tr.State, tr.Percent(), changed, tt.state, tt.percent)
		}
	}

	tr = Begin(Plan{Steps: []float64{10}, Step: time.Minute, Guard: DefaultGuard}, now)
	if tr.State != Partial || tr.Percent() != 10 {
		t.Errorf("without a shadow: %s, %g %%", tr.State, tr.Percent())
	}
	if !tr.Advance(now, count(100, 50, 0, time.Millisecond), many) || tr.State != Returned || !strings.HasPrefix(tr.Why, "taken back at 10 % of the requests: 50 % (50 of 100)") {
		t.Errorf("a bad one: %s, %q", tr.State, tr.Why)
	}
}

// TestTrial_Doubtful: a candidate of whose requests more fail than the guard allows does
// not go on, though chance may explain it; it is not taken back for that either.
func TestTrial_Doubtful(t *testing.T) {
	plan := Plan{Steps: []float64{50}, Step: time.Second, Requests: 5, Guard: DefaultGuard}
	alone := plan
	alone.Steps = []float64{100}
	for _, tt := range []struct {
		name               string
		plan               Plan
		candidate, current Counts
		want               State
	}{
		{"all fail, and there are too few to be certain", plan, count(9, 9, 0, 0), count(7, 0, 0, 0), Partial},
		{"all fail, and that is certain", plan, count(12, 12, 0, 0), count(12, 0, 0, 0), Returned},
		{"two of ten fail", plan, count(10, 2, 0, 0), count(100, 0, 0, 0), Partial},
		{"two of two hundred fail", plan, count(200, 2, 0, 0), count(100, 0, 0, 0), Promoted},
		{"two of ten fail, as of the others", plan, count(10, 2, 0, 0), count(10, 2, 0, 0), Promoted},
		{"some are refused", plan, count(10, 0, 2, 0), count(100, 0, 0, 0), Partial},
		{"some fail, and there are no others yet", plan, count(10, 2, 0, 0), Counts{}, Partial},
		{"none fails, and there are no others yet", plan, count(10, 0, 0, 0), Counts{}, Promoted},
		{"some fail, and there will be no others", alone, count(10, 2, 0, 0), Counts{}, Promoted},
		{"no request at all", Plan{Steps: []float64{50}, Step: time.Second, Guard: DefaultGuard}, Counts{}, Counts{}, Promoted},
	} {
		tr := Begin(tt.plan, time.Unix(0, 0))
		if tr.Advance(time.Unix(60, 0), tt.candidate, tt.current); tr.State != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, tr.State, tt.want)
		}
		if stays := tt.want == Partial; stays != strings.HasSuffix(tr.Why, "more than the guard allows, and too few to be certain") {
			t.Errorf("%s: why %q", tt.name, tr.Why)
		}
	}
	tr := Begin(plan, time.Unix(0, 0))
	tr.Advance(time.Unix(60, 0), count(10, 2, 0, 0), count(100, 0, 0, 0))
	if want := "20 % (2 of 10) of its requests failed, 0 % (0 of 100) of the others: "; !strings.HasPrefix(tr.Why, want) {
		t.Errorf("why %q, want %q", tr.Why, want)
	}
	if tr.Advance(time.Unix(61, 0), count(200, 2, 0, 0), count(200, 0, 0, 0)); tr.State != Promoted || tr.Why != "" {
		t.Errorf("when it is over: %s, %q", tr.State, tr.Why)
	}
}

// TestDifferences: counted by kind, bounded, with an example each.
func TestDifferences(t *testing.T) {
	var d Differences
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				d.Compared()
				d.Add(Difference{Kind: "route", Current: "a", Candidate: "b"}, func() string { return "GET x/" })
			}
		})
	}
	all.Wait()
	for i := range maxDifferences + 10 {
		d.Add(Difference{Kind: "route", Current: "a", Candidate: string(rune(1000 + i))}, func() string { return "" })
	}
	c := d.Seen()
	if c.Compared != 800+maxDifferences+10 || c.Different != 400+maxDifferences+10 || len(c.Differences) != maxDifferences || c.Differences[0].Count != 400 || c.Differences[0].Example != "GET x/" {
		t.Errorf("%d compared, %d different, %d told apart, the first %+v", c.Compared, c.Different, len(c.Differences), c.Differences[0])
	}
}
