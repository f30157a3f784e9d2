package balancer

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/mesh"
)

// degrade makes an endpoint ask to be spared.
func degrade(h *Host) {
	e := *h.Endpoint()
	e.Degraded = true
	h.Update(&e)
}

// TestSet_Search: who is next when the first choice was tried: the others of its locality,
// then those of localities with a share, then the rest by priority.
func TestSet_Search(t *testing.T) {
	const n = 20_000
	distribute := func(to ...mesh.LocalityShare) *mesh.LocalityLB {
		return &mesh.LocalityLB{Distribute: []mesh.Distribute{{From: "*", To: to}}}
	}
	for _, tt := range []struct {
		name     string
		policy   *mesh.LocalityLB
		hosts    []string // their localities
		degraded []int
		tried    []int
		want     []float64
	}{
		{"within each locality", distribute(mesh.LocalityShare{Locality: "r/a", Percent: 50}, mesh.LocalityShare{Locality: "r/b", Percent: 50}),
			[]string{"r/a", "r/a", "r/b", "r/b"}, nil, []int{0, 2}, []float64{0, .5, 0, .5}},
		{"who is spared and listed before who is not listed", distribute(mesh.LocalityShare{Locality: "r/a", Percent: 100}),
			[]string{"r/a", "r/a", "far/a"}, []int{1}, []int{0}, []float64{0, 1, 0}},
		{"who is not listed by the nearest locality", distribute(mesh.LocalityShare{Locality: "r/a", Percent: 100}),
			[]string{"r/a", "far/a", "r/b"}, nil, []int{0}, []float64{0, 0, 1}},
		{"the next priority", nil, []string{"r/a", "far/a", "r/b"}, nil, []int{0}, []float64{0, 0, 1}},
		{"the one after", nil, []string{"r/a", "far/a", "r/b"}, nil, []int{0, 2}, []float64{0, 1, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list, tried []*Host
			for i, locality := range tt.hosts {
				list = append(list, host(i, locality, 1))
			}
			for _, i := range tt.degraded {
				degrade(list[i])
			}
			for _, i := range tt.tried {
				tried = append(tried, list[i])
			}
			s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.Random, Locality: tt.policy}, nil, Caller{Locality: mesh.ParseLocality("r/a")})
			got := make([]float64, len(list))
			for range n {
				i, ok := s.Pick(tried, 0)
				if !ok {
					t.Fatal("nobody is left")
				}
				got[i] += 1.0 / n
			}
			for i := range list {
				if !near(got[i], tt.want[i], n) {
					t.Errorf("shares %v, want %v\n%s", got, tt.want, s.Describe())
					break
				}
			}
		})
	}
}

// TestSet_Alone: by every algorithm a host that is alone in its locality gets what that has.
func TestSet_Alone(t *testing.T) {
	const n = 20_000
	for _, kind := range allKinds {
		lb := hashed(kind)
		lb.Locality = &mesh.LocalityLB{Distribute: []mesh.Distribute{{From: "*", To: []mesh.LocalityShare{{Locality: "r/a", Percent: 60}, {Locality: "r/b", Percent: 40}}}}}
		s := NewSet([]*Host{host(1, "r/a", 1), host(2, "r/b", 1)}, lb, nil, Caller{Locality: mesh.ParseLocality("r/a")})
		if got := shares(t, s, n); !near(got[0], .6, n) {
			t.Errorf("kind %d: shares %v, want .6 and .4", kind, got)
		}
	}
}

// TestSet_PickBeyond: another locality is the one of the best priority, by a state from before
// some hosts have changed, too.
func TestSet_PickBeyond(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hosts []string
		tried []int
		eject []int
		want  int // -1: nobody
	}{
		{"the nearest", []string{"r/a", "far/a", "r/b"}, []int{0}, nil, 2},
		{"it has failed", []string{"r/a", "far/a", "r/b"}, []int{0}, []int{2}, 1},
		{"the own one after another", []string{"r/a", "r/a", "r/b"}, []int{2}, nil, 0},
		{"all have failed", []string{"r/a", "far/a", "r/b"}, []int{0}, []int{1, 2}, -1},
		{"all were tried", []string{"r/a", "r/a", "r/b"}, []int{1, 2}, nil, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list, tried []*Host
			for i, locality := range tt.hosts {
				list = append(list, host(i, locality, 1))
			}
			s := NewSet(list, nil, nil, Caller{Locality: mesh.ParseLocality("r/a")})
			for _, i := range tt.tried {
				tried = append(tried, list[i])
			}
			for _, i := range tt.eject {
				list[i].Eject("test", time.Hour, true)
			}
			for range 20 {
				i, ok := s.PickBeyond(tried)
				if ok != (tt.want >= 0) || ok && i != tt.want && list[i].Endpoint().Locality != list[tt.want].Endpoint().Locality {
					t.Fatalf("picked %d, %v, want %d", i, ok, tt.want)
				}
			}
		})
	}
}

// TestSet_TrialEverywhere: a host on trial gets one request at a time, however it is come by.
func TestSet_TrialEverywhere(t *testing.T) {
	for _, kind := range allKinds {
		list := []*Host{host(1, "r/a", 1), host(2, "r/a", 1), host(3, "r/b", 1)}
		onTrial(list[0])
		onTrial(list[2])
		s := NewSet(list, hashed(kind), nil, Caller{})
		a, b := list[0].Begin(), list[2].Begin()
		for hash := range uint64(200) {
			if i, ok := s.Pick(nil, hash); !ok || i != 1 {
				t.Fatalf("kind %d: host %d is picked, %v, while the others are tried", kind, i, ok)
			}
		}
		if i, ok := s.PickBeyond(list[:2]); ok {
			t.Errorf("kind %d: host %d is picked from another locality", kind, i)
		}
		list[0].End(a)
		list[2].End(b)
		seen := map[int]bool{}
		for hash := range uint64(200) {
			i, _ := s.Pick(nil, mix(hash))
			seen[i] = true
		}
		if i, ok := s.PickBeyond(list[:2]); !ok || i != 2 || len(seen) != 3 {
			t.Errorf("kind %d: afterwards %v are picked, and host %d, %v, from another locality", kind, seen, i, ok)
		}
	}
}

// TestSet_LagsBeyondAll: when all that many hosts' last state knows beyond a locality have
// failed, those count that are back since.
func TestSet_LagsBeyondAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		list := append(hosts(lagFrom, "r/z"), host(lagFrom, "other/z", 1), host(lagFrom+1, "other/z", 1))
		s := NewSet(list, nil, nil, Caller{Locality: mesh.ParseLocality("r/z")})
		list[lagFrom].Eject("test", time.Hour, true)
		s.current()
		list[lagFrom].Restore()
		list[lagFrom+1].Eject("test", time.Hour, true)
		if i, ok := s.PickBeyond(list[:1]); !ok || i != lagFrom {
			t.Errorf("picked %d, %v", i, ok)
		}
		for _, h := range list {
			h.Close() // its timer
		}
	})
}

// TestSet_Several: whether there is another one for a request to go to.
func TestSet_Several(t *testing.T) {
	for n := range 4 {
		s := NewSet(hosts(n, "r/z"), nil, nil, Caller{})
		if got := s.Several(); got != (n > 1) || s.Usable() != n {
			t.Errorf("of %d hosts there are several: %v, usable: %d", n, got, s.Usable())
		}
		if _, ok := s.PickLastResort(nil, 0); ok != (n > 0) {
			t.Errorf("of %d hosts one is a last resort: %v", n, ok)
		}
	}
}

// TestHashing_Anywhere: what has no hash goes to all hosts alike, by a state from before some
// have changed, too.
func TestHashing_Anywhere(t *testing.T) {
	for name, kind := range hashKinds {
		t.Run(name, func(t *testing.T) {
			list := hosts(4, "r/z")
			s := NewSet(list, hashed(kind), nil, Caller{})
			before := s.current()
			for state, pick := range map[string]func() (int, bool){
				"now": func() (int, bool) { return s.Pick(nil, 0) }, "before": func() (int, bool) { return s.pickChanged(before, nil, 0) },
			} {
				seen := map[int]bool{}
				for range 200 {
					i, ok := pick()
					if !ok {
						t.Fatal("nobody is picked")
					}
					seen[i] = true
				}
				if len(seen) != len(list) {
					t.Errorf("%s: %v are picked, want all", state, seen)
				}
			}
			h := rand.Uint64() | 1
			want, _ := s.Pick(nil, h)
			for range 20 {
				if i, ok := s.pickChanged(before, nil, h); !ok || i != want {
					t.Fatalf("by the state before, %d is picked, %v, want %d", i, ok, want)
				}
			}
		})
	}
}

// TestSet_Close: hosts outlive the sets of many snapshots, and keep nothing of them.
func TestSet_Close(t *testing.T) {
	gate := NewGate()
	h := NewHost(host(1, "r/z", 1).Endpoint(), gate)
	for range 3 {
		NewSet([]*Host{h}, nil, nil, Caller{}).Close()
	}
	if len(h.watchers)+len(gate.watchers) > 0 {
		t.Errorf("%d sets are kept by the host, %d by the gate", len(h.watchers), len(gate.watchers))
	}
}

// TestPlan_Priority: labels come before localities, the earlier label before the later one, and
// a region to fail over to is that of the own region alone.
func TestPlan_Priority(t *testing.T) {
	for _, tt := range []struct {
		name string
		lb   mesh.LocalityLB
		want [7]int // of the endpoints below
	}{
		{"localities", mesh.LocalityLB{}, [7]int{0, 1, 2, 4, 4, 0, 0}},
		{"failover", mesh.LocalityLB{Failover: []mesh.Failover{{From: "r2", To: "r3"}, {From: "r1", To: "r2"}}}, [7]int{0, 1, 2, 3, 4, 0, 0}},
		{"labels", mesh.LocalityLB{FailoverPriority: []string{"version", "tier=db"}}, [7]int{0, 0, 0, 0, 0, 1, 2}},
		{"labels, then localities", mesh.LocalityLB{FailoverPriority: []string{"version", "tier=db"}, Failover: []mesh.Failover{{From: "r1", To: "r2"}}},
			[7]int{0, 1, 2, 3, 4, 5, 10}},
		{"zones are balanced", mesh.LocalityLB{LeastHosts: 6}, [7]int{0, 0, 0, 4, 4, 0, 0}},
		{"labels, then regions", mesh.LocalityLB{LeastHosts: 6, FailoverPriority: []string{"version", "tier=db"}}, [7]int{0, 0, 0, 4, 4, 5, 10}},
		{"a label that nobody bears", mesh.LocalityLB{FailoverPriority: []string{"none"}}, [7]int{1, 1, 1, 1, 1, 1, 1}},
		{"distribute", mesh.LocalityLB{Distribute: []mesh.Distribute{{From: "r1/*", To: []mesh.LocalityShare{{Locality: "r2/*", Percent: 100}, {Locality: "r3/*", Percent: 0}}}}},
			[7]int{1, 2, 3, 0, 5, 1, 1}},
		{"switched off", mesh.LocalityLB{Disabled: true, FailoverPriority: []string{"version"}}, [7]int{}},
	} {
		p := newPlan(&mesh.LoadBalancer{Locality: &tt.lb}, Caller{Locality: mesh.ParseLocality("r1/a/x"), Labels: map[string]string{"version": "v1"}})
		both := map[string]string{"version": "v1", "tier": "db"}
		for i, e := range []mesh.Endpoint{
			{Locality: mesh.ParseLocality("r1/a/x"), Labels: both}, {Locality: mesh.ParseLocality("r1/a/y"), Labels: both}, {Locality: mesh.ParseLocality("r1/b/x"), Labels: both},
			{Locality: mesh.ParseLocality("r2/a/x"), Labels: both}, {Locality: mesh.ParseLocality("r3/a/x"), Labels: both},
			{Locality: mesh.ParseLocality("r1/a/x"), Labels: map[string]string{"version": "v1"}}, {Locality: mesh.ParseLocality("r1/a/x"), Labels: map[string]string{"tier": "db"}},
		} {
			if got := p.priority(&e); got != tt.want[i] {
				t.Errorf("%s: endpoint %d has priority %d, want %d", tt.name, i, got, tt.want[i])
			}
		}
	}
}

// TestSet_Degraded: endpoints that ask to be spared get what those in full health cannot
// carry, of each locality that is listed, too.
func TestSet_Degraded(t *testing.T) {
	distribute := &mesh.LocalityLB{Distribute: []mesh.Distribute{{From: "*", To: []mesh.LocalityShare{{Locality: "r/a", Percent: 50}, {Locality: "r/b", Percent: 50}}}}}
	for _, tt := range []struct {
		name     string
		policy   *mesh.LocalityLB
		hosts    []string
		degraded []int
		want     []float64
	}{
		{"of one locality", nil, []string{"r/a", "r/a", "r/a", "r/a"}, []int{1, 2, 3}, []float64{.35, .65 / 3, .65 / 3, .65 / 3}},
		{"before the next priority", nil, []string{"r/a", "r/a", "r/b"}, []int{1}, []float64{.7, 0, .3}},
		{"of listed localities", distribute, []string{"r/a", "r/a", "r/b", "r/b"}, []int{1, 3}, []float64{.35, .15, .35, .15}},
		{"of one listed locality", distribute, []string{"r/a", "r/b", "far/a"}, []int{1}, []float64{.7, .3, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []*Host
			for i, locality := range tt.hosts {
				list = append(list, host(i, locality, 1))
			}
			for _, i := range tt.degraded {
				degrade(list[i])
			}
			s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.Random, Locality: tt.policy}, nil, Caller{Locality: mesh.ParseLocality("r/a")})
			for i, got := range s.Shares() {
				if math.Abs(got.Part-tt.want[i]) > 1e-5 {
					t.Errorf("shares %+v, want %v\n%s", s.Shares(), tt.want, s.Describe())
					break
				}
			}
		})
	}
}

// TestSet_HardlyAnybody: where of the listed localities fewer than one in a hundred is well, the
// others serve; where that is so of all, who is well in the first priority.
func TestSet_HardlyAnybody(t *testing.T) {
	listed := &mesh.LocalityLB{Distribute: []mesh.Distribute{{From: "*", To: []mesh.LocalityShare{{Locality: "r/a", Percent: 100}}}}}
	for _, tt := range []struct {
		name   string
		policy *mesh.LocalityLB
		other  int // hosts elsewhere, of which one is well
		want   int
	}{
		{"but another one", listed, 1, 150},
		{"anywhere", nil, 150, 0},
		{"anywhere, of those that are listed", listed, 150, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := append(hosts(150, "r/a"), hosts(tt.other, "far/a")...)
			for i, h := range list {
				if i%150 != 0 {
					h.Eject("test", time.Hour, true)
					defer h.Close() // its timer
				}
			}
			s := NewSet(list, &mesh.LoadBalancer{Locality: tt.policy}, nil, Caller{Locality: mesh.ParseLocality("r/a")})
			if got := s.Shares()[tt.want].Part; got != 1 {
				t.Errorf("it has %v", got)
			}
			for range 20 {
				if i, ok := s.Pick(nil, 0); !ok || i != tt.want {
					t.Fatalf("host %d is picked, %v, want %d", i, ok, tt.want)
				}
			}
		})
	}
}

// TestSet_ChangedSince: by a state from before, who asks to be spared since is passed over, and
// who serves though it is ejected, since too few are well, serves.
func TestSet_ChangedSince(t *testing.T) {
	list := hosts(2, "r/z")
	s := NewSet(list, nil, nil, Caller{})
	before := s.current()
	degrade(list[0])
	for range 100 {
		if i, ok := s.pickChanged(before, nil, 0); ok && i == 0 {
			t.Fatal("the one that asks to be spared is picked")
		}
	}
	list = hosts(4, "r/z")
	s = NewSet(list, nil, &mesh.OutlierDetection{MinHealthPercent: 50}, Caller{})
	for _, h := range list {
		h.Eject("test", time.Hour, true)
		defer h.Close() // its timer
	}
	if _, ok := s.pickChanged(s.current(), nil, 0); !ok {
		t.Error("nobody is picked, though health is ignored")
	}
}

// TestPlan_Unknown: where a proxy does not know where it is itself, endpoints of which nobody does are
// no better than others, and labels hold still.
func TestPlan_Unknown(t *testing.T) {
	nowhere := mesh.Endpoint{Labels: map[string]string{"version": "v2"}}
	far := mesh.Endpoint{Locality: mesh.ParseLocality("r/a"), Labels: map[string]string{"version": "v1"}}
	for _, tt := range []struct {
		name string
		lb   *mesh.LoadBalancer
		want [2]int // of nowhere and far
	}{
		{"no policy", nil, [2]int{0, 0}},
		{"failover", &mesh.LoadBalancer{Locality: &mesh.LocalityLB{Failover: []mesh.Failover{{From: "r", To: "s"}}}}, [2]int{0, 0}},
		{"labels", &mesh.LoadBalancer{Locality: &mesh.LocalityLB{FailoverPriority: []string{"version"}}}, [2]int{1, 0}},
	} {
		p := newPlan(tt.lb, Caller{Labels: map[string]string{"version": "v1"}})
		if got := [2]int{p.priority(&nowhere), p.priority(&far)}; got != tt.want {
			t.Errorf("%s: priorities %v, want %v", tt.name, got, tt.want)
		}
	}
}
