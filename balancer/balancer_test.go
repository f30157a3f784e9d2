package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"isthmus/mesh"
)

func host(i int, locality string, weight uint32) *Host {
	return NewHost(&mesh.Endpoint{
		Service: "s", Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80),
		Locality: mesh.ParseLocality(locality), Weight: weight,
	}, nil)
}

func hosts(n int, locality string) []*Host {
	out := make([]*Host, n)
	for i := range out {
		out[i] = host(i, locality, 1)
	}
	return out
}

// shares draws many times and returns the part of each host.
func shares(t testing.TB, s *Set, n int) []float64 {
	t.Helper()
	out := make([]float64, len(s.hosts))
	for range n {
		i, ok := s.Pick(nil, 0)
		if !ok {
			t.Fatal("no host")
		}
		out[i] += 1 / float64(n)
	}
	return out
}

// near allows five standard deviations of n draws.
func near(got, want float64, n int) bool {
	return math.Abs(got-want) <= 5*math.Sqrt(want*(1-want)/float64(n))+1e-9
}

var kinds = map[string]mesh.LoadBalancerKind{"least request": mesh.LeastRequest, "round robin": mesh.RoundRobin, "random": mesh.Random}

// allKinds are the algorithms, for what holds of each of them.
var allKinds = []mesh.LoadBalancerKind{mesh.LeastRequest, mesh.RoundRobin, mesh.Random, mesh.PeakEWMA, mesh.RingHash, mesh.Maglev}

func TestSet_Weights(t *testing.T) {
	const n = 60_000
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			list := []*Host{host(1, "r/z", 1), host(2, "r/z", 2), host(3, "r/z", 3)}
			got := shares(t, NewSet(list, &mesh.LoadBalancer{Kind: kind}, nil, Caller{}), n)
			for i, want := range []float64{1.0 / 6, 2.0 / 6, 3.0 / 6} {
				if !near(got[i], want, n) {
					t.Errorf("host %d has %.3f, want %.3f", i, got[i], want)
				}
			}
		})
	}
}

// TestSet_LeastRequestByWeight: parts are those of the weights, however many
// requests are under way; a host that has just begun to warm up is not starved.
func TestSet_LeastRequestByWeight(t *testing.T) {
	const n = 40_000
	for _, tt := range []struct {
		name    string
		weights []uint32
		want    float64 // of the first
	}{
		{"one and nine", []uint32{10, 90}, .1},
		{"one of eleven, as if it warmed up", []uint32{10, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100}, 1.0 / 101},
	} {
		for _, kind := range []mesh.LoadBalancerKind{mesh.LeastRequest, mesh.PeakEWMA} {
			for _, underWay := range []int{0, 3, 10, 50, 200} {
				var list []*Host
				for i, w := range tt.weights {
					list = append(list, host(i, "r/z", w))
				}
				s := NewSet(list, &mesh.LoadBalancer{Kind: kind}, nil, Caller{})
				random, got := rand.New(rand.NewPCG(1, 2)), 0.0
				var live []*Host
				for range n {
					i, _ := s.Pick(nil, 0)
					if i == 0 {
						got += 1.0 / n
					}
					list[i].Begin()
					s.Observe(list[i], time.Millisecond)
					if live = append(live, list[i]); len(live) > underWay {
						j := random.IntN(len(live))
						live[j].End(nil)
						live = slices.Delete(live, j, j+1)
					}
				}
				if got < .6*tt.want || got > 1.9*tt.want {
					t.Errorf("%s, kind %d, %d under way: %.4f, want about %.4f", tt.name, kind, underWay, got, tt.want)
				}
			}
		}
	}
}

// TestSet_Busy: which algorithms look at how many requests are under way, and that they are
// counted per weight.
func TestSet_Busy(t *testing.T) {
	const n = 20_000
	for _, tt := range []struct {
		name    string
		kind    mesh.LoadBalancerKind
		weights [2]uint32
		busy    [2]int
		want    float64 // of the first
	}{
		{"the less busy", mesh.LeastRequest, [2]uint32{1, 1}, [2]int{5, 0}, 0},
		// Two are drawn by weight: the first one twice in 1 of 25 cases, the second twice in 16.
		{"fewer, but more for its weight", mesh.LeastRequest, [2]uint32{1, 4}, [2]int{1, 3}, 1. / 25},
		{"fewer for its weight, too", mesh.LeastRequest, [2]uint32{1, 4}, [2]int{1, 5}, 9. / 25},
		{"of two as quick, more for its weight", mesh.PeakEWMA, [2]uint32{1, 4}, [2]int{1, 3}, 1. / 25},
		{"of two as quick, fewer for its weight", mesh.PeakEWMA, [2]uint32{1, 4}, [2]int{1, 5}, 9. / 25},
		{"random does not look", mesh.Random, [2]uint32{1, 1}, [2]int{5, 0}, .5},
		{"round robin does not look", mesh.RoundRobin, [2]uint32{1, 1}, [2]int{5, 0}, .5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := []*Host{host(1, "r/z", tt.weights[0]), host(2, "r/z", tt.weights[1])}
			for i, h := range list {
				for range tt.busy[i] {
					h.Begin()
				}
			}
			s := NewSet(list, &mesh.LoadBalancer{Kind: tt.kind}, nil, Caller{})
			for _, h := range list {
				s.Observe(h, 100*time.Millisecond)
			}
			if got := shares(t, s, n)[0]; !near(got, tt.want, n) {
				t.Errorf("the first has %.3f, want %.3f", got, tt.want)
			}
		})
	}
}

func TestSet_RoundRobinTakesTurns(t *testing.T) {
	s := NewSet(hosts(4, "r/z"), &mesh.LoadBalancer{Kind: mesh.RoundRobin}, nil, Caller{})
	first, _ := s.Pick(nil, 0)
	for n := 1; n < 12; n++ {
		if i, _ := s.Pick(nil, 0); i != (first+n)%4 {
			t.Fatalf("pick %d is host %d, want %d", n, i, (first+n)%4)
		}
	}
}

// TestSet_RoundRobinBegins: a set is made anew whenever an endpoint comes or goes; the
// first of them do not get the first requests of all proxies each time.
func TestSet_RoundRobinBegins(t *testing.T) {
	begun := map[int]bool{}
	for range 100 {
		i, _ := NewSet(hosts(1000, "r/z"), &mesh.LoadBalancer{Kind: mesh.RoundRobin}, nil, Caller{}).Pick(nil, 0)
		begun[i] = true
	}
	if len(begun) < 50 {
		t.Errorf("100 sets of 1000 hosts begin with %d of them", len(begun))
	}
}

// TestSet_RoundRobinByWeight: turns are as many as weights say at any time, and evenly
// spread, however many hosts there are and however little one of them weighs.
func TestSet_RoundRobinByWeight(t *testing.T) {
	many := make([]uint32, 10_000)
	for i := range many {
		many[i] = 1 + uint32(i%100)
	}
	one := slices.Repeat([]uint32{100}, 10_000)
	one[17] = 10
	for _, tt := range []struct {
		name    string
		weights []uint32
		turns   int
	}{
		{"two", []uint32{1, 2}, 1000},
		{"a heavy one", []uint32{5, 1, 1}, 1000},
		{"many", many, 1_000_000},
		{"a light one of many", one, 1_000_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, total := make([]*Host, len(tt.weights)), uint32(0)
			for i, w := range tt.weights {
				list[i] = host(i, "r/z", w)
				total += w
			}
			s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.RoundRobin}, nil, Caller{})
			got, last := make([]int, len(list)), make([]int, len(list))
			for n := 1; n <= tt.turns; n++ {
				i, _ := s.Pick(nil, 0)
				got[i]++
				share := float64(tt.weights[i]) / float64(total)
				if since := n - last[i]; float64(since) > 4/share+1 {
					t.Fatalf("host %d has no turn for %d, at a share of %v", i, since, share)
				}
				last[i] = n
			}
			for i, w := range tt.weights {
				if want := float64(tt.turns) * float64(w) / float64(total); math.Abs(float64(got[i])-want) > 4 {
					t.Errorf("host %d has %d turns of %d, want %.1f", i, got[i], tt.turns, want)
				}
			}
		})
	}
}

// TestSet_Lags: many hosts of which some change all the time are not looked through for each
// request; who has failed gets none all the same, and when all of a priority have, the next
// gets it all.
func TestSet_Lags(t *testing.T) {
	for _, kind := range allKinds {
		synctest.Test(t, func(t *testing.T) { // in which no time passes
			list := append(hosts(lagFrom, "r/z"), hosts(lagFrom, "other/z")...)
			s := NewSet(list, hashed(kind), nil, Caller{Locality: mesh.ParseLocality("r/z")})
			first := s.current()
			computed := 0
			for n := range lagFrom {
				if n != 7 {
					list[n].Eject("refused", time.Hour, false)
				}
				i, ok := s.Pick(list[lagFrom-3:lagFrom-1], uint64(n))
				if !ok || i != 7 && i <= n { // of the next priority, where too few are left
					t.Fatalf("kind %d: after %d have failed, host %d is picked, %v", kind, n, i, ok)
				}
				if st := s.state.Load(); st != first {
					first, computed = st, computed+1
				}
			}
			if computed > lagFrom/4 {
				t.Errorf("kind %d: the state was computed %d times for %d changes", kind, computed, lagFrom)
			}
			list[7].Eject("refused", time.Hour, false)
			if i, ok := s.Pick(nil, 12345); !ok || i < lagFrom {
				t.Errorf("kind %d: when all of the first priority have failed, host %d is picked, %v", kind, i, ok)
			}
			if n := s.Usable(); n != lagFrom {
				t.Errorf("kind %d: %d hosts are usable, want %d", kind, n, lagFrom)
			}
			for _, h := range list {
				h.Close() // its timer
			}
		})
	}
}

// TestSet_LagsBeyond: nor are they looked through by requests that ask whether there is
// another one, or for one of another locality.
func TestSet_LagsBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		list := append(hosts(lagFrom, "r/z"), hosts(lagFrom, "other/z")...)
		s := NewSet(list, nil, nil, Caller{Locality: mesh.ParseLocality("r/z")})
		first := s.current()
		for n := range lagFrom / 2 {
			list[n].Eject("refused", time.Hour, false)
			list[lagFrom+n].Eject("refused", time.Hour, false)
			if !s.Several() {
				t.Fatal("there is no other one")
			}
			if i, ok := s.PickBeyond(list[:1]); !ok || i <= lagFrom+n {
				t.Fatalf("after %d have failed, host %d is picked, %v", n, i, ok)
			}
		}
		if s.state.Load() != first {
			t.Error("the state was computed")
		}
		for n := range lagFrom {
			list[lagFrom+n].Eject("refused", time.Hour, false)
		}
		if i, ok := s.PickBeyond(list[:1]); ok {
			t.Errorf("host %d is picked, which has failed", i)
		}
		for _, h := range list {
			h.Close() // its timer
		}
	})
}

// TestPriorityLoads holds Envoy's published tables (priority.rst): two levels,
// then three.
func TestPriorityLoads(t *testing.T) {
	for _, tt := range []struct {
		healthy []int
		want    []int
	}{
		{[]int{100, 100}, []int{100, 0}},
		{[]int{72, 72}, []int{100, 0}},
		{[]int{71, 71}, []int{99, 1}},
		{[]int{50, 50}, []int{70, 30}},
		{[]int{25, 100}, []int{35, 65}},
		{[]int{25, 25}, []int{50, 50}},
		{[]int{0, 100}, []int{0, 100}},

		{[]int{100, 100, 100}, []int{100, 0, 0}},
		{[]int{72, 72, 100}, []int{100, 0, 0}},
		{[]int{71, 71, 100}, []int{99, 1, 0}},
		{[]int{50, 60, 100}, []int{70, 30, 0}},
		{[]int{50, 10, 100}, []int{70, 14, 16}},
		{[]int{0, 100, 100}, []int{0, 100, 0}},
		{[]int{0, 72, 100}, []int{0, 100, 0}},
		{[]int{0, 71, 100}, []int{0, 99, 1}},
		{[]int{0, 0, 0}, []int{0, 0, 0}},
	} {
		var levels []level
		for _, h := range tt.healthy {
			levels = append(levels, level{all: 100, good: uint64(h)})
		}
		loads := priorityLoads(levels, 0)
		for i, l := range loads {
			if int(math.Round(l.good*100)) != tt.want[i] {
				t.Errorf("healthy %v: loads %v, want %v", tt.healthy, loads, tt.want)
				break
			}
		}
	}
}

// TestPriorityLoads_Panic holds Envoy's tables (panic_threshold.rst), whose
// threshold is 50 %, but for two lines of its second one: 50 and 60 % make 70
// and 30, and 25 and 100 % make 35 and 65 by priority.rst and by the text.
func TestPriorityLoads_Panic(t *testing.T) {
	for _, tt := range []struct {
		healthy [2]int
		panicAt int
		want    [2]int
		panics  [2]bool
	}{
		{[2]int{72, 100}, 50, [2]int{100, 0}, [2]bool{}},
		{[2]int{71, 100}, 50, [2]int{99, 1}, [2]bool{}},
		{[2]int{50, 100}, 50, [2]int{70, 30}, [2]bool{}},
		{[2]int{25, 100}, 50, [2]int{35, 65}, [2]bool{}},
		{[2]int{0, 100}, 50, [2]int{0, 100}, [2]bool{}},
		{[2]int{72, 72}, 50, [2]int{100, 0}, [2]bool{}},
		{[2]int{71, 71}, 50, [2]int{99, 1}, [2]bool{}},
		{[2]int{50, 60}, 50, [2]int{70, 30}, [2]bool{}},
		{[2]int{25, 25}, 50, [2]int{50, 50}, [2]bool{true, true}},
		{[2]int{5, 65}, 50, [2]int{8, 92}, [2]bool{true, false}},
		{[2]int{5, 65}, 0, [2]int{8, 92}, [2]bool{}},
		{[2]int{0, 0}, 50, [2]int{50, 50}, [2]bool{true, true}},
		{[2]int{65, 5}, 50, [2]int{93, 7}, [2]bool{false, true}},
		{[2]int{50, 0}, 50, [2]int{100, 0}, [2]bool{false, true}},
		{[2]int{0, 0}, 0, [2]int{0, 0}, [2]bool{}},
	} {
		loads := priorityLoads([]level{{all: 100, good: uint64(tt.healthy[0])}, {all: 100, good: uint64(tt.healthy[1])}}, tt.panicAt)
		for i, l := range loads {
			if int(math.Round(l.good*100)) != tt.want[i] || l.panicking != tt.panics[i] {
				t.Errorf("healthy %v, threshold %d: %+v, want loads %v, panics %v", tt.healthy, tt.panicAt, loads, tt.want, tt.panics)
				break
			}
		}
	}
}

// TestPriorityLoads_Degraded holds Envoy's table (degraded.rst).
func TestPriorityLoads_Degraded(t *testing.T) {
	for _, tt := range []struct{ good, degraded, panicAt, toGood, toDegraded int }{
		{100, 0, 0, 100, 0},
		{71, 0, 0, 100, 0},
		{71, 29, 0, 99, 1},
		{25, 65, 0, 35, 65},
		{5, 0, 0, 100, 0},
		{0, 40, 0, 0, 100},
		{30, 30, 50, 50, 50}, // both are well, by the threshold
	} {
		l := priorityLoads([]level{{all: 100, good: uint64(tt.good), degraded: uint64(tt.degraded)}}, tt.panicAt)[0]
		if int(math.Round(l.good*100)) != tt.toGood || int(math.Round(l.degraded*100)) != tt.toDegraded || l.panicking {
			t.Errorf("%d good and %d degraded: %+v, want %d and %d", tt.good, tt.degraded, l, tt.toGood, tt.toDegraded)
		}
	}
}

// TestPriorityLoads_Rest: what rounding leaves over goes to the first that has a load, though that
// be of hosts that ask to be spared.
func TestPriorityLoads_Rest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		levels []level
		want   string
	}{
		{"in full health", []level{{all: 100}, {all: 100, good: 10}, {all: 100, good: 10}, {all: 100, good: 10}}, "0 0, 34 0, 33 0, 33 0, "},
		{"to be spared", []level{{all: 100}, {all: 100, degraded: 10}, {all: 100, degraded: 10}, {all: 100, degraded: 10}}, "0 0, 0 34, 0 33, 0 33, "},
	} {
		got := ""
		for _, l := range priorityLoads(tt.levels, 0) {
			got += fmt.Sprintf("%.0f %.0f, ", l.good*100, l.degraded*100)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestPriorityLoads_AddUp: whatever the health, loads add up to 1, or to 0 where nobody can
// serve, and who has nobody to carry it gets nothing.
func TestPriorityLoads_AddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		levels := make([]level, rapid.IntRange(1, 5).Draw(t, "priorities"))
		for i := range levels {
			all := rapid.Uint64Range(1, 300).Draw(t, "all")
			good := rapid.Uint64Range(0, all).Draw(t, "good")
			levels[i] = level{all: all, good: good, degraded: rapid.Uint64Range(0, all-good).Draw(t, "degraded")}
		}
		sum, want := 0.0, 0.0
		for i, l := range priorityLoads(levels, rapid.SampledFrom([]int{0, 50}).Draw(t, "threshold")) {
			good, degraded := levels[i].available(levels[i].good), levels[i].available(levels[i].degraded)
			if sum += l.good + l.degraded; good+degraded > 0 || l.panicking {
				want = 1
			}
			if !l.panicking && (l.good > 0 && good == 0 || l.degraded > 0 && degraded == 0) {
				t.Errorf("priority %d of %+v gets %+v", i, levels, l)
			}
		}
		if math.Abs(sum-want) > 1e-9 {
			t.Errorf("%+v get %v in all, want %v", levels, sum, want)
		}
	})
}

// TestPlan_LocalityWeights holds Envoy's table (locality_weight.rst): weight 1
// for X, 2 for Y, which is well.
func TestPlan_LocalityWeights(t *testing.T) {
	for _, tt := range []struct{ healthy, toX, toY int }{
		{100, 33, 67}, {70, 33, 67}, {69, 32, 68}, {50, 26, 74}, {25, 15, 85}, {0, 0, 100},
	} {
		list := append(hosts(100, "x"), hosts(100, "y")...)
		for i := tt.healthy; i < 100; i++ {
			list[i].Eject("test", time.Hour, true)
		}
		lb := &mesh.LoadBalancer{Locality: &mesh.LocalityLB{Distribute: []mesh.Distribute{{
			From: "*", To: []mesh.LocalityShare{{Locality: "x", Percent: 33}, {Locality: "y", Percent: 67}},
		}}}}
		s := NewSet(list, lb, nil, Caller{Locality: mesh.ParseLocality("z")})
		got := s.current()
		var x, y uint64
		before := uint64(0)
		for _, g := range got.groups {
			if g.locality == "x" {
				x += g.until - before
			} else {
				y += g.until - before
			}
			before = g.until
		}
		if gotX, gotY := percent(x, got.total), percent(y, got.total); gotX != tt.toX || gotY != tt.toY {
			t.Errorf("%d %% of X healthy: %d and %d %%, want %d and %d", tt.healthy, gotX, gotY, tt.toX, tt.toY)
		}
	}
}

func percent(part, of uint64) int { return int(math.Round(100 * float64(part) / float64(of))) }

// TestSet_Localities spreads over localities as the policy says.
func TestSet_Localities(t *testing.T) {
	const n = 20_000
	list := []*Host{host(1, "r1/a/x", 1), host(2, "r1/a/y", 1), host(3, "r1/b", 1), host(4, "r2/a", 1), host(5, "r3/a", 1)}
	from := mesh.ParseLocality("r1/a/x")
	distribute := &mesh.LocalityLB{Distribute: []mesh.Distribute{
		{From: "r9/*", To: []mesh.LocalityShare{{Locality: "r9/*", Percent: 100}}},
		{From: "r1/*", To: []mesh.LocalityShare{{Locality: "r1/*", Percent: 60}, {Locality: "r2/*", Percent: 40}}},
	}}
	for _, tt := range []struct {
		name  string
		lb    *mesh.LocalityLB
		from  mesh.Locality
		eject []int
		want  []float64
	}{
		{"the own subzone first", nil, from, nil, []float64{1, 0, 0, 0, 0}},
		{"then the zone", nil, from, []int{0}, []float64{0, 1, 0, 0, 0}},
		{"then the region", nil, from, []int{0, 1}, []float64{0, 0, 1, 0, 0}},
		{"then all others", nil, from, []int{0, 1, 2}, []float64{0, 0, 0, .5, .5}},
		{"failover to a region", &mesh.LocalityLB{Failover: []mesh.Failover{{From: "r1", To: "r3"}}}, from, []int{0, 1, 2}, []float64{0, 0, 0, 0, 1}},
		{"switched off", &mesh.LocalityLB{Disabled: true}, from, nil, []float64{.2, .2, .2, .2, .2}},
		{"own locality unknown", nil, mesh.Locality{}, nil, []float64{.2, .2, .2, .2, .2}},
		{"distribute", distribute, from, nil, []float64{.2, .2, .2, .4, 0}},
		{"distribute, a listed one cannot serve", distribute, from, []int{3}, []float64{1. / 3, 1. / 3, 1. / 3, 0, 0}},
		{"distribute spills to the unlisted last", distribute, from, []int{0, 1, 2, 3}, []float64{0, 0, 0, 0, 1}},
		{"distribute spills to the near unlisted first", &mesh.LocalityLB{Distribute: []mesh.Distribute{
			{From: "*", To: []mesh.LocalityShare{{Locality: "r3/*", Percent: 100}, {Locality: "r1/b", Percent: 0}}},
		}}, from, []int{4, 0}, []float64{0, 1, 0, 0, 0}},
		{"distribute, nothing for here", distribute, mesh.ParseLocality("r3/a"), nil, []float64{.2, .2, .2, .2, .2}},
		{"failoverPriority", &mesh.LocalityLB{FailoverPriority: []string{"region=r3"}}, from, nil, []float64{0, 0, 0, 0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, h := range list {
				h.Restore()
			}
			for _, i := range tt.eject {
				list[i].Eject("test", time.Hour, true)
			}
			s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.Random, Locality: tt.lb}, nil, Caller{Locality: tt.from})
			defer s.Close()
			got, told := shares(t, s, n), s.Shares()
			for i := range list {
				if !near(got[i], tt.want[i], n) || math.Abs(told[i].Part-tt.want[i]) > 1e-5 || told[i].LastResort {
					t.Errorf("shares %v, told %+v, want %v\n%s", got, told, tt.want, s.Describe())
					break
				}
			}
		})
	}
}

// TestSet_FailoverPriority: labels are compared with those of the proxy, derived ones included.
func TestSet_FailoverPriority(t *testing.T) {
	at := func(i int, cluster, locality string, labels map[string]string) *Host {
		h := host(i, locality, 1)
		e := *h.Endpoint()
		e.Cluster, e.Labels = cluster, labels
		h.Update(&e)
		return h
	}
	list := []*Host{at(1, "east", "r1/a", nil), at(2, "west", "r1/a", map[string]string{"version": "v1"}), at(3, "west", "r2/a", nil)}
	caller := Caller{Cluster: "west", Locality: mesh.ParseLocality("r1/a"), Labels: map[string]string{"version": "v1"}}
	for _, tt := range []struct {
		name   string
		labels []string
		want   []float64
	}{
		{"the own cluster", []string{"topology.istio.io/cluster"}, []float64{0, .5, .5}},
		{"another one, by name", []string{"topology.istio.io/cluster=east"}, []float64{1, 0, 0}},
		{"the own cluster, and the region in it", []string{"topology.istio.io/cluster", "topology.kubernetes.io/region"}, []float64{0, 1, 0}},
		{"a label of the proxy's own", []string{"version"}, []float64{0, 1, 0}},
		{"one that nobody bears", []string{"network"}, []float64{1. / 3, 1. / 3, 1. / 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const n = 20_000
			s := NewSet(list, &mesh.LoadBalancer{Kind: mesh.Random, Locality: &mesh.LocalityLB{FailoverPriority: tt.labels}}, nil, caller)
			defer s.Close()
			got := shares(t, s, n)
			for i := range list {
				if !near(got[i], tt.want[i], n) {
					t.Errorf("shares %v, want %v\n%s", got, tt.want, s.Describe())
					break
				}
			}
		})
	}
}

// TestHost_Trial: after its time an ejected host gets one request at a time,
// until one succeeds.
func TestHost_Trial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := hosts(2, "r/z")
		s := NewSet(list, nil, nil, Caller{})
		defer s.Close()
		list[0].Eject("test", time.Second, false)
		for range 50 {
			if i, ok := s.Pick(nil, 0); !ok || i != 1 {
				t.Fatalf("picked %d, %v while the other is ejected", i, ok)
			}
		}
		time.Sleep(1200 * time.Millisecond) // a tenth of jitter
		synctest.Wait()
		if state, reason := list[0].State(); state != OnTrial || reason != "test" {
			t.Fatalf("state %v (%s), want on trial", state, reason)
		}
		if i, ok := s.Pick([]*Host{list[1]}, 0); !ok || i != 0 {
			t.Fatal("the host on trial is not picked")
		}
		trial := list[0].Begin()
		if _, ok := s.Pick([]*Host{list[1]}, 0); ok {
			t.Fatal("a second request during the trial")
		}
		list[0].End(trial)
		if _, ok := s.Pick([]*Host{list[1]}, 0); !ok {
			t.Fatal("no request after the first, which did not succeed")
		}
		list[0].Begin()
		list[0].Restore()
		if _, ok := s.Pick([]*Host{list[1]}, 0); !ok || s.Usable() != 2 {
			t.Fatal("not usable after a success")
		}
		if state, reason := list[0].State(); state != Usable || reason != "" {
			t.Fatalf("state %v (%s) after a success", state, reason)
		}
	})
}

// TestSet_DistributePanics: minHealthPercent is of the localities listed, and all
// of their hosts serve when it is not reached.
func TestSet_DistributePanics(t *testing.T) {
	const n = 20_000
	lb := &mesh.LoadBalancer{Kind: mesh.Random, Locality: &mesh.LocalityLB{Distribute: []mesh.Distribute{
		{From: "*", To: []mesh.LocalityShare{{Locality: "r/a", Percent: 50}, {Locality: "r/b", Percent: 50}}},
	}}}
	for _, tt := range []struct {
		name    string
		percent uint32
		eject   []int
		want    []float64
	}{
		{"none asked for", 0, []int{0, 1, 2}, []float64{0, 0, 0, 1, 0}},
		{"too few", 50, []int{0, 1, 2}, []float64{.25, .25, .25, .25, 0}},
		{"nobody, but others", 50, []int{0, 1, 2, 3}, []float64{0, 0, 0, 0, 1}},
		{"nobody at all", 50, []int{0, 1, 2, 3, 4}, []float64{.2, .2, .2, .2, .2}},
		{"enough", 50, []int{0}, []float64{0, 1. / 3, 1. / 3, 1. / 3, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := []*Host{host(1, "r/a", 1), host(2, "r/b", 1), host(3, "r/b", 1), host(4, "r/b", 1), host(5, "far", 1)}
			for _, i := range tt.eject {
				list[i].Eject("test", time.Hour, true)
			}
			s := NewSet(list, lb, &mesh.OutlierDetection{MinHealthPercent: tt.percent}, Caller{Locality: mesh.ParseLocality("r/a")})
			got := shares(t, s, n)
			for i := range list {
				if !near(got[i], tt.want[i], n) {
					t.Errorf("shares %v, want %v\n%s", got, tt.want, s.Describe())
					break
				}
			}
		})
	}
}

// TestHost_EjectedTwice: a dial that fails late does not end what outlier detection
// has begun, nor the other way round.
func TestHost_EjectedTwice(t *testing.T) {
	type ejection struct {
		reason string
		d      time.Duration
		hard   bool
	}
	dial, replies := ejection{"connect failed", time.Second, false}, ejection{"consecutive 5xx", 30 * time.Second, true}
	longDial, shortReplies := ejection{"connect failed", 30 * time.Second, false}, ejection{"consecutive 5xx", time.Second, true}
	for _, tt := range []struct {
		name   string
		first  ejection
		after  time.Duration
		second ejection
		until  time.Duration // from the first on
		reason string
		hard   bool
	}{
		{"a dial during a hard one", replies, 0, dial, 30 * time.Second, "consecutive 5xx", true},
		{"a dial towards its end", shortReplies, 500 * time.Millisecond, longDial, 30 * time.Second, "consecutive 5xx", true},
		{"replies after a dial", longDial, 0, shortReplies, 30 * time.Second, "consecutive 5xx", true},
		{"two dials", dial, 500 * time.Millisecond, longDial, 30 * time.Second, "connect failed", false},
		{"a dial after a hard one", shortReplies, 2 * time.Second, dial, 3 * time.Second, "connect failed", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := host(1, "r/z", 1)
				start := time.Now()
				h.Eject(tt.first.reason, tt.first.d, tt.first.hard)
				time.Sleep(tt.after)
				synctest.Wait()
				h.Eject(tt.second.reason, tt.second.d, tt.second.hard)
				time.Sleep(time.Until(start.Add(tt.until - time.Millisecond)))
				if state, reason := h.State(); state != Ejected || reason != tt.reason || h.LastResort() == tt.hard {
					t.Errorf("state %v (%s), last resort %v shortly before the end", state, reason, h.LastResort())
				}
				time.Sleep(tt.until / 5)
				synctest.Wait()
				if state, _ := h.State(); state != OnTrial {
					t.Errorf("state %v after the end", state)
				}
			})
		})
	}
}

// TestHost_EjectedAfterSuccess: of an ejection that a success has ended nothing is left to the next one.
func TestHost_EjectedAfterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := host(1, "r/z", 1)
		h.Eject("consecutive 5xx", time.Hour, true)
		h.Restore()
		h.Eject("connect failed", time.Second, false)
		if state, reason := h.State(); state != Ejected || reason != "connect failed" || !h.LastResort() {
			t.Errorf("state %v (%s), last resort %v", state, reason, h.LastResort())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if state, _ := h.State(); state != OnTrial {
			t.Errorf("state %v after its time", state)
		}
	})
}

// TestHost_TrialBesideOld: requests that began before an ejection, or in a trial
// before it, do not keep the host from its trial.
func TestHost_TrialBesideOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := hosts(2, "r/z")
		s := NewSet(list, nil, nil, Caller{})
		defer s.Close()
		var old []*Trial
		for range 3 {
			old = append(old, list[0].Begin())
			list[0].Eject("test", time.Second, true)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if i, ok := s.Pick([]*Host{list[1]}, 0); !ok || i != 0 {
				t.Fatalf("not picked with %d old requests under way", len(old))
			}
		}
		trial := list[0].Begin()
		for _, o := range old {
			list[0].End(o)
		}
		if _, ok := s.Pick([]*Host{list[1]}, 0); ok {
			t.Fatal("a second request during the trial")
		}
		if list[0].End(trial); list[0].Active() != 0 {
			t.Errorf("%d under way in the end", list[0].Active())
		}
	})
}

// TestSet_LastResort: who may be tried when nobody is good.
func TestSet_LastResort(t *testing.T) {
	list := hosts(3, "r/z")
	s := NewSet(list, nil, nil, Caller{})
	list[0].Eject("connect failed", time.Hour, false)
	list[1].Eject("5xx", time.Hour, true)
	e := *list[2].Endpoint()
	e.Unready = "announcer died"
	list[2].Update(&e)
	if _, ok := s.Pick(nil, 0); ok {
		t.Fatal("somebody is good")
	}
	seen := map[int]bool{}
	for range 200 {
		i, ok := s.PickLastResort(nil, 0)
		if !ok {
			t.Fatal("no last resort")
		}
		seen[i] = true
	}
	if !seen[0] || seen[1] || !seen[2] {
		t.Errorf("last resorts %v, want 0 and 2", seen)
	}
	if got, want := s.Shares(), []Share{{Part: .5, LastResort: true}, {}, {Part: .5, LastResort: true}}; !slices.Equal(got, want) {
		t.Errorf("shares %+v, want %+v", got, want)
	}
}

// TestSet_Properties: whatever has happened to the hosts, a pick is a good,
// untried one that is free, if there is any, and nothing else; by a state from before, too.
func TestSet_Properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []*Host
		for i := range rapid.IntRange(1, 12).Draw(t, "hosts") {
			list = append(list, host(i, rapid.SampledFrom([]string{"r1/a", "r1/b", "r2/a", ""}).Draw(t, "locality"), rapid.Uint32Range(0, 4).Draw(t, "weight")))
		}
		locality := rapid.SampledFrom([]*mesh.LocalityLB{
			nil, {Disabled: true}, {Failover: []mesh.Failover{{From: "r1", To: "r2"}}}, {FailoverPriority: []string{"region"}},
			{Distribute: []mesh.Distribute{{From: "*", To: []mesh.LocalityShare{{Locality: "r1/a", Percent: 70}, {Locality: "r2/*", Percent: 30}}}}},
		}).Draw(t, "policy")
		lb := hashed(rapid.SampledFrom(allKinds).Draw(t, "kind"))
		lb.Locality, lb.Hash.TableSize = locality, 101
		if rapid.Bool().Draw(t, "warmup") {
			lb.Warmup = &mesh.Warmup{Duration: time.Hour, MinPercent: 10, Aggression: 1}
		}
		s := NewSet(list, lb, nil, Caller{Locality: mesh.ParseLocality("r1/a")})
		defer s.Close()
		before := s.current()
		var tried []*Host
		good, last := map[*Host]bool{}, map[*Host]bool{}
		for _, h := range list {
			good[h], last[h] = true, true
			switch rapid.IntRange(0, 7).Draw(t, "fate") {
			case 0:
				hard := rapid.Bool().Draw(t, "hard")
				h.Eject("test", time.Hour, hard)
				good[h], last[h] = false, !hard
			case 1:
				e := *h.Endpoint()
				e.Unready = "test"
				h.Update(&e)
				good[h] = false
			case 2:
				e := *h.Endpoint()
				e.Degraded = true
				h.Update(&e)
			case 3:
				h.Enter()
			case 4:
				onTrial(h)
			case 5:
				onTrial(h)
				h.Begin()
				good[h] = false
			}
			if rapid.Bool().Draw(t, "tried") {
				tried = append(tried, h)
			}
		}
		away := func(h *Host) bool {
			return !slices.ContainsFunc(tried, func(t *Host) bool { return t.Endpoint().Locality == h.Endpoint().Locality })
		}
		left := func(of map[*Host]bool, also func(*Host) bool) (n int) {
			for _, h := range list {
				if of[h] && !contains(tried, h) && also(h) {
					n++
				}
			}
			return n
		}
		for range 20 {
			hash := rapid.Uint64().Draw(t, "hash")
			for _, pick := range []struct {
				name string
				of   map[*Host]bool
				also func(*Host) bool
				pick func() (int, bool)
				all  bool // it finds one, if there is any
			}{
				{"Pick", good, func(*Host) bool { return true }, func() (int, bool) { return s.Pick(tried, hash) }, true},
				{"PickBeyond", good, away, func() (int, bool) { return s.PickBeyond(tried) }, true},
				{"PickLastResort", last, func(*Host) bool { return true }, func() (int, bool) { return s.PickLastResort(tried, hash) }, true},
				{"before", good, func(*Host) bool { return true }, func() (int, bool) { return s.pickChanged(before, tried, hash) }, false},
			} {
				i, ok := pick.pick()
				if n := left(pick.of, pick.also); ok != (n > 0) && (ok || pick.all) {
					t.Fatalf("%s: ok is %v with %d hosts left", pick.name, ok, n)
				}
				if ok && (!pick.of[list[i]] || contains(tried, list[i]) || !pick.also(list[i])) {
					t.Fatalf("%s: picked host %d: good %v, tried %v, of another locality %v", pick.name, i, good[list[i]], contains(tried, list[i]), away(list[i]))
				}
			}
		}
	})
}

// onTrial is a host whose ejection is over.
func onTrial(h *Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trial.Store(new(Trial))
	h.state.Store(uint32(OnTrial))
	h.changed()
}

func TestSet_PickAllocatesNothing(t *testing.T) {
	for _, kind := range allKinds {
		s := NewSet(hosts(10, "r/z"), hashed(kind), nil, Caller{})
		if n := testing.AllocsPerRun(1000, func() { s.Pick(nil, 12345) }); n != 0 {
			t.Errorf("kind %d: %v allocations", kind, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, k := range []struct {
		name    string
		kind    mesh.LoadBalancerKind
		weights uint32 // 1 to this
	}{
		{"LeastRequest", mesh.LeastRequest, 1}, {"LeastRequestByWeight", mesh.LeastRequest, 3}, {"RoundRobin", mesh.RoundRobin, 1}, {"RoundRobinByWeight", mesh.RoundRobin, 3},
		{"PeakEWMA", mesh.PeakEWMA, 1}, {"PeakEWMAByWeight", mesh.PeakEWMA, 3}, {"RingHash", mesh.RingHash, 1}, {"Maglev", mesh.Maglev, 1},
	} {
		for _, n := range []int{10, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", k.name, n), func(b *testing.B) {
				list := make([]*Host, n)
				for i := range list {
					list[i] = host(i, "r/z", 1+uint32(i)%k.weights)
				}
				s := NewSet(list, hashed(k.kind), nil, Caller{Locality: mesh.ParseLocality("r/z")})
				s.Pick(nil, 1)
				b.ReportAllocs()
				for hash := uint64(0); b.Loop(); hash = mix(hash) {
					s.Pick(nil, hash)
				}
			})
		}
	}
}

// BenchmarkRebuild is what a change of one host's health costs the request
// that comes next.
func BenchmarkRebuild(b *testing.B) {
	for _, k := range []struct {
		name    string
		kind    mesh.LoadBalancerKind
		weights uint32 // 1 to this
	}{
		{"LeastRequest", mesh.LeastRequest, 1}, {"RoundRobinByWeight", mesh.RoundRobin, 3},
	} {
		for _, n := range []int{10, 1000, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", k.name, n), func(b *testing.B) {
				list := make([]*Host, n)
				for i := range list {
					list[i] = host(i, "r/z", 1+uint32(i)%k.weights)
				}
				s := NewSet(list, &mesh.LoadBalancer{Kind: k.kind}, nil, Caller{Locality: mesh.ParseLocality("r/z")})
				for b.Loop() {
					s.version.Add(1)
					s.current()
				}
			})
		}
	}
}

// BenchmarkPick_Changing is a pick where a host changes before each.
func BenchmarkPick_Changing(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := NewSet(hosts(n, "r/z"), nil, nil, Caller{Locality: mesh.ParseLocality("r/z")})
			for b.Loop() {
				s.version.Add(1)
				s.Pick(nil, 0)
			}
		})
	}
}
