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
	if state, reason := list[1].State(); state != Ejected || reason == "" {
		t.Errorf("state %v (%s)", state, reason)
	}
	g.Shut(false)
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
