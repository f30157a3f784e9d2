package balancer

import (
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/mesh"
)

// TestWarmFactor holds the formula of Envoy's slow_start.rst.
func TestWarmFactor(t *testing.T) {
	minute := func(least, aggression float64) *mesh.Warmup {
		return &mesh.Warmup{Duration: time.Minute, MinPercent: least, Aggression: aggression}
	}
	for _, tt := range []struct {
		name   string
		warmup *mesh.Warmup
		age    time.Duration
		want   float64
	}{
		{"at first the least", minute(10, 1), 0, .1},
		{"no least: a second's worth", minute(0, 1), 0, 1. / 60},
		{"half of the time", minute(10, 1), 30 * time.Second, .5},
		{"faster at first", minute(10, 2), 15 * time.Second, .5},
		{"slower at first", minute(1, .5), 30 * time.Second, .25},
		{"the time is over", minute(10, 1), time.Minute, 1},
		{"long over", minute(10, 2), time.Hour, 1},
	} {
		if got := warmFactor(tt.warmup, tt.age); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestSet_Warmup: a host that returns gets a share that grows, from a locality
// of its own too, where Envoy's slow start does nothing.
func TestSet_Warmup(t *testing.T) {
	warmup := &mesh.Warmup{Duration: 100 * time.Second, MinPercent: 10, Aggression: 1}
	for _, tt := range []struct {
		name  string
		other string             // the locality of the host that stays
		want  map[int][2]float64 // seconds after the return -> between
	}{
		{"beside another host", "r/z", map[int][2]float64{1: {.08, .10}, 50: {.31, .35}, 101: {.49, .51}}},
		// Priority 0 is worth 1.4 times its health: 14 % at a tenth, and all of the
		// traffic from 72 % on.
		{"alone in the nearest locality", "r2/z", map[int][2]float64{1: {.13, .15}, 50: {.69, .71}, 80: {1, 1}, 101: {1, 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list := []*Host{host(1, "r/z", 1), host(2, tt.other, 1)}
				s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.Random, Warmup: warmup}, nil, Caller{Locality: mesh.ParseLocality("r/z")})
				defer s.Close()
				list[0].Eject("test", time.Hour, false)
				if s.Usable() != 1 {
					t.Fatal("still usable")
				}
				list[0].Restore()
				for second := 0; second <= 101; second++ {
					if want, ok := tt.want[second]; ok {
						if got := shares(t, s, 40_000)[0]; got < want[0]-.01 || got > want[1]+.01 {
							t.Errorf("after %d s: %.3f, want %v", second, got, want)
						}
					}
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// TestSet_WarmupOfNobody: where all hosts are new, none is spared.
func TestSet_WarmupOfNobody(t *testing.T) {
	list := hosts(2, "r/z")
	s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.Random, Warmup: &mesh.Warmup{Duration: time.Hour, MinPercent: 10, Aggression: 1}}, nil, Caller{})
	if got := shares(t, s, 20_000); !near(got[0], .5, 20_000) {
		t.Errorf("shares %v", got)
	}
}

// TestHost_Enters: who warms up: a host that is well again, not one of which something else
// is said; one that has another one's endpoint goes on where that one was.
func TestHost_Enters(t *testing.T) {
	with := func(h *Host, unready string, weight uint32) {
		e := *h.Endpoint()
		e.Unready, e.Weight = unready, weight
		h.Update(&e)
	}
	for _, tt := range []struct {
		name   string
		do     func(*Host)
		grows  bool
		weight uint64
	}{
		{"nothing has happened", func(h *Host) {}, false, 2 * weightUnit},
		{"it weighs more", func(h *Host) { with(h, "", 4) }, false, 4 * weightUnit},
		{"it is ill", func(h *Host) { with(h, "test", 2) }, false, 2 * weightUnit},
		{"it is ill for another reason", func(h *Host) { with(h, "test", 2); with(h, "more", 2) }, false, 2 * weightUnit},
		{"it is well again", func(h *Host) { with(h, "test", 2); with(h, "", 2) }, true, 2 * weightUnit / 10},
		{"it is new", func(h *Host) { h.Enter() }, true, 2 * weightUnit / 10},
		{"it has the place of one that is new", func(h *Host) { o := host(2, "r/z", 1); o.Enter(); h.EnterAs(o) }, true, 2 * weightUnit / 10},
		{"it was ejected, and is back", func(h *Host) { h.Eject("test", time.Hour, true); h.Restore() }, true, 2 * weightUnit / 10},
		{"it has nothing to come back from", func(h *Host) { h.Restore() }, false, 2 * weightUnit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // in which no time passes
				h := host(1, "r/z", 2)
				s := NewSet([]*Host{h}, &mesh.LoadBalancer{Warmup: &mesh.Warmup{Duration: time.Hour, MinPercent: 10, Aggression: 1}}, nil, Caller{})
				tt.do(h)
				if weight, grows := s.weigh(h, time.Now()); weight != tt.weight || grows != tt.grows {
					t.Errorf("it weighs %d, growing: %v; want %d, %v", weight, grows, tt.weight, tt.grows)
				}
			})
		})
	}
}

// TestPeakEWMA: the slow host is left alone, and tried again when its slowness
// is long ago.
func TestPeakEWMA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := hosts(2, "r/z")
		s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.PeakEWMA}, nil, Caller{})
		for range 20 {
			s.Observe(list[0], 100*time.Millisecond)
			s.Observe(list[1], 5*time.Millisecond)
		}
		if got := shares(t, s, 2000); got[0] > 0 {
			t.Errorf("the slow host has %.3f", got[0])
		}
		for range 30 {
			list[1].Begin() // busy enough to be the slower one
		}
		if got := shares(t, s, 2000); got[0] < .999 {
			t.Errorf("the idle host has %.3f beside one with 30 requests under way", got[0])
		}
		for range 30 {
			list[1].End(nil)
		}
		time.Sleep(time.Minute)
		s.Observe(list[1], 5*time.Millisecond)
		if got := shares(t, s, 2000); got[0] < .999 {
			t.Errorf("the host that was slow a minute ago has %.3f", got[0])
		}
		s.Observe(list[0], 5*time.Millisecond)
		s.Observe(list[1], 300*time.Millisecond)
		if got := shares(t, s, 2000); got[1] > 0 {
			t.Errorf("one peak does not count: %.3f", got[1])
		}
	})
}

// TestLatency: a peak counts at once, and what was before it fades: to 1/e in ten seconds.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := host(1, "r/z", 1)
		s := NewSet([]*Host{h}, &mesh.LoadBalancer{Kind: mesh.PeakEWMA}, nil, Caller{})
		for _, tt := range []struct {
			name  string
			after time.Duration
			took  time.Duration
			want  float64 // milliseconds
		}{
			{"the first", 0, 100 * time.Millisecond, 100},
			{"less at the same moment", 0, 10 * time.Millisecond, 100},
			{"less after a while", latencyDecay, 10 * time.Millisecond, 100/math.E + 10*(1-1/math.E)},
			{"less after long", time.Hour, 10 * time.Millisecond, 10},
			{"a peak", 0, 300 * time.Millisecond, 300},
		} {
			time.Sleep(tt.after)
			s.Observe(h, tt.took)
			if got, age := h.latency.load(time.Now()); math.Abs(got/1e6-tt.want) > .01 || age != 0 {
				t.Errorf("%s: %.2f ms, %v ago, want %.2f ms now", tt.name, got/1e6, age, tt.want)
			}
		}
		if got := h.cost(time.Now().Add(latencyDecay), 1); math.Abs(got/1e6-300/math.E) > .01 {
			t.Errorf("after a while a request costs %.2f ms, want %.2f", got/1e6, 300/math.E)
		}
	})
}

// TestPeakEWMA_Unknown: a host that has never answered is tried, and by one request at a time while
// others are quick.
func TestPeakEWMA_Unknown(t *testing.T) {
	list := hosts(2, "r/z")
	s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.PeakEWMA}, nil, Caller{})
	s.Observe(list[0], 100*time.Millisecond)
	for _, want := range []int{1, 0, 0} {
		i, _ := s.Pick(nil, 0)
		if list[i].Begin(); i != want {
			t.Fatalf("host %d is picked, want %d", i, want)
		}
	}
	NewSet(list, nil, nil, Caller{}).Observe(list[1], time.Millisecond)
	if average, _ := list[1].latency.load(time.Now()); average != 0 {
		t.Errorf("a set that does not go by latencies has noted one")
	}
}

// TestGate: hosts behind a gate come and go together.
func TestGate(t *testing.T) {
	g := NewGate()
	near := host(1, "r/z", 1)
	list := []*Host{near}
	for i := 2; i < 5; i++ {
		h := host(i, "r2/z", 1)
		list = append(list, NewHost(h.Endpoint(), g))
	}
	s := NewSet(list, nil, nil, Caller{})
	defer s.Close()
	if s.Usable() != 4 {
		t.Fatalf("%d usable", s.Usable())
	}
	g.Shut(true)
	if s.Usable() != 1 {
		t.Fatalf("%d usable behind a shut gate", s.Usable())
	}
	list[2].Eject("test", time.Hour, true)
	for i, want := range []string{"", "cluster cannot be reached", "test"} {
		if state, reason := list[i].State(); (state == Ejected) != (want != "") || reason != want {
			t.Errorf("host %d: state %v (%s), want %q", i, state, reason, want)
		}
	}
	g.Shut(false)
	list[2].Restore()
	for i, h := range list {
		if state, reason := h.State(); state != Usable || reason != "" {
			t.Errorf("host %d: state %v (%s) when the gate is open", i, state, reason)
		}
	}
	if _, ok := s.Pick([]*Host{near}, 0); !ok || s.Usable() != 4 {
		t.Fatal("not usable when the gate is open")
	}
}

// TestHost_Look: a host that could not be connected to stays out until a look
// finds it well; one whose replies were bad needs none.
func TestHost_Look(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := host(1, "r/z", 1)
		var looks atomic.Int32
		var well atomic.Bool
		h.Look(func() bool { looks.Add(1); return well.Load() })
		state := func() State { s, _ := h.State(); return s }
		h.Eject("connect failed", time.Second, false)
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if n := looks.Load(); n < 2 || n > 3 || state() != Ejected {
			t.Fatalf("%d looks, state %v", n, state())
		}
		well.Store(true)
		time.Sleep(lookAgain)
		synctest.Wait()
		if state() != OnTrial {
			t.Fatalf("state %v after a look that found it well", state())
		}
		before := looks.Load()
		h.Eject("consecutive 5xx", time.Second, true)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if looks.Load() != before || state() != OnTrial {
			t.Errorf("%d looks after replies, state %v", looks.Load()-before, state())
		}
		h.Eject("connect failed", time.Second, false)
		h.Close()
		time.Sleep(time.Minute)
		if looks.Load() != before {
			t.Error("a look at a host that is gone")
		}
	})
}

// TestHost_LookMeanwhile: what befalls a host while it is looked at holds, whatever is found.
func TestHost_LookMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		name      string
		meanwhile func(*Host)
		well      bool
		want      State
		looks     int32 // within a minute
	}{
		{"nothing", func(*Host) {}, true, OnTrial, 1},
		{"it is ejected for its replies", func(h *Host) { h.Eject("consecutive 5xx", time.Hour, true) }, true, Ejected, 1},
		{"a request has succeeded", func(h *Host) { h.Restore() }, true, Usable, 1},
		{"a request has succeeded, and the look has not", func(h *Host) { h.Restore() }, false, Usable, 1},
		{"it is gone", func(h *Host) { h.Close() }, false, Ejected, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := host(1, "r/z", 1)
				var looks atomic.Int32
				h.Look(func() bool { looks.Add(1); tt.meanwhile(h); return tt.well })
				h.Eject("connect failed", time.Second, false)
				time.Sleep(time.Minute)
				synctest.Wait()
				if state, _ := h.State(); state != tt.want || looks.Load() != tt.looks {
					t.Errorf("state %v after %d looks, want %v after %d", state, looks.Load(), tt.want, tt.looks)
				}
				h.Close() // its timer
			})
		})
	}
}

// TestHost_Release: an ejection for replies ends with a look that finds the host well; one for
// connects goes on.
func TestHost_Release(t *testing.T) {
	for _, tt := range []struct {
		name  string
		eject bool
		hard  bool
		well  bool
		want  State
	}{
		{"replies", true, true, true, OnTrial},
		{"replies, and it cannot be connected to", true, true, false, Ejected},
		{"connects", true, false, true, Ejected},
		{"none", false, false, true, Usable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := host(1, "r/z", 1)
				h.Look(func() bool { return tt.well })
				if tt.eject {
					h.Eject("test", time.Hour, tt.hard)
				}
				h.Release()
				synctest.Wait()
				if state, _ := h.State(); state != tt.want || !h.LastResort() {
					t.Errorf("state %v, last resort %v, want %v and that", state, h.LastResort(), tt.want)
				}
				h.Close() // its timer
			})
		})
	}
}

// TestHost_EjectionsEndApart: proxies that have ejected a host at one moment do not all try it
// at another one.
func TestHost_EjectionsEndApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		ends := map[time.Duration]bool{}
		for range 50 {
			h := host(1, "r/z", 1)
			d := time.Until(h.Eject("test", time.Minute, false))
			if d < time.Minute || d > 66*time.Second {
				t.Fatalf("an ejection for a minute lasts %v", d)
			}
			ends[d] = true
			h.Close() // its timer
		}
		if len(ends) < 10 {
			t.Errorf("50 ejections end at %d times", len(ends))
		}
	})
}
