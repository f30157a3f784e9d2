package health

import (
	"testing"
	"testing/synctest"
	"time"

	"isthmus/mesh"
)

// target notes what is done to a host.
type target struct {
	ejections []time.Duration
	hard      bool
	ejected   bool
	late      time.Duration // how much longer than asked for it stays out
}

func (h *target) Eject(_ string, d time.Duration, hard bool) time.Time {
	h.ejections, h.hard, h.ejected = append(h.ejections, d), hard, true
	return time.Now().Add(d + h.late)
}
func (h *target) Release() { h.ejected = false }
func (h *target) Restore() { h.ejected = false }

func policy() *mesh.OutlierDetection {
	return &mesh.OutlierDetection{Consecutive5xx: 5, Interval: 10 * time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionPercent: 100}
}

// TestTracker_WithoutPolicy: connects count, with a growing pause; statuses do
// not.
func TestTracker_WithoutPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTracker(nil, 3, nil)
		var h target
		r := NewRecord(&h)
		for range 50 {
			tr.Replied(r, 503)
			tr.Failed(r)
		}
		if h.ejected {
			t.Fatal("ejected for its replies")
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			n := len(h.ejections)
			for range 16 { // many at once are one failure
				tr.ConnectFailed(r)
			}
			if len(h.ejections) != n+1 || h.ejections[n] != want*time.Second {
				t.Fatalf("ejections %v, want one more of %v s", h.ejections, want)
			}
			time.Sleep(h.ejections[n])
		}
		if !h.ejected || h.hard {
			t.Errorf("ejected %v, hard %v; want ejected, and not hard", h.ejected, h.hard)
		}
		tr.Replied(r, 503) // any reply shows that it can be connected to
		if h.ejected {
			t.Error("still ejected after a reply")
		}
		tr.ConnectFailed(r)
		if d := h.ejections[len(h.ejections)-1]; d != time.Second {
			t.Errorf("the pause after a success is %v, want to start anew", d)
		}
	})
}

func TestTracker_Consecutive(t *testing.T) {
	gateway := policy()
	gateway.ConsecutiveGatewayErrors = 2
	split := policy()
	split.SplitLocalOrigin, split.ConsecutiveLocalOrigin = true, 3
	off := policy()
	off.Consecutive5xx = 0
	const (
		failed    = -iota - 1 // a reset or time-out
		refused               // a connect
		connected             // whose bytes are relayed
	)
	for _, tt := range []struct {
		name     string
		policy   *mesh.OutlierDetection
		outcomes []int
		want     int // ejections
	}{
		{"four are not five", policy(), []int{500, 500, 500, 500}, 0},
		{"five", policy(), []int{500, 501, 502, 503, 599}, 1},
		{"a success resets", policy(), []int{500, 500, 500, 500, 200, 500}, 0},
		{"a 404 is a success", policy(), []int{500, 500, 500, 500, 404, 500}, 0},
		{"gateway errors", gateway, []int{502, 504}, 1},
		{"a 500 is no gateway error", gateway, []int{502, 500, 502}, 0},
		{"local errors count as 5xx", policy(), []int{failed, failed, failed, failed, 500}, 1},
		{"local errors apart", split, []int{failed, failed, 500, 500, 500, 500}, 0},
		{"local errors apart, three", split, []int{failed, failed, failed}, 1},
		{"a success resets local errors", policy(), []int{failed, failed, failed, failed, 200, failed}, 0},
		{"a connection that is relayed is a success", policy(), []int{500, 500, 500, 500, connected, 500}, 0},
		{"a connect that fails counts, too", policy(), []int{500, 500, 500, 500, refused}, 2},
		{"a 505 is no gateway error", gateway, []int{502, 505, 501, 502}, 0},
		{"switched off", off, []int{500, 500, 500, 500, 500, 500, 500}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := NewTracker(tt.policy, 3, nil)
			var h target
			r := NewRecord(&h)
			for _, o := range tt.outcomes {
				switch o {
				case failed:
					tr.Failed(r)
				case refused:
					tr.ConnectFailed(r)
				case connected:
					tr.Connected(r)
				default:
					tr.Replied(r, o)
				}
			}
			if len(h.ejections) != tt.want {
				t.Errorf("%d ejections, want %d", len(h.ejections), tt.want)
			}
			if tt.want > 0 && !h.hard {
				t.Error("an ejection for replies is not hard")
			}
		})
	}
}

// TestTracker_EjectionTimeGrows with each ejection, and shrinks with each
// interval in health.
func TestTracker_EjectionTimeGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTracker(policy(), 3, nil)
		var h target
		r := NewRecord(&h)
		eject := func() time.Duration {
			n := len(h.ejections)
			for i := range 5 {
				if tr.Replied(r, 500); i < 4 && len(h.ejections) > n {
					t.Fatalf("ejected after %d errors", i+1)
				}
			}
			d := h.ejections[len(h.ejections)-1]
			time.Sleep(d)
			return d
		}
		for i, want := range []time.Duration{30, 60, 90} {
			if d := eject(); d != want*time.Second {
				t.Errorf("ejection %d is for %v, want %v s", i+1, d, want)
			}
		}
		time.Sleep(20 * time.Second) // two intervals
		tr.Replied(r, 200)
		if d := eject(); d != 60*time.Second {
			t.Errorf("after two intervals in health: %v, want 60 s", d)
		}
		for range 10 {
			eject()
		}
		if d := eject(); d != maxEjection {
			t.Errorf("again and again: %v, want %v", d, maxEjection)
		}
		p := policy()
		p.BaseEjectionTime = 2 * maxEjection
		tr, h = NewTracker(p, 3, nil), target{}
		r = NewRecord(&h)
		for range 2 {
			if d := eject(); d != 2*maxEjection {
				t.Errorf("with a base that is longer: %v", d)
			}
		}
	})
}

// TestTracker_ReplyAfterConnect: a reply shows that the host can be connected to, whatever
// it says.
func TestTracker_ReplyAfterConnect(t *testing.T) {
	tr := NewTracker(policy(), 3, nil)
	var h target
	r := NewRecord(&h)
	for range 2 {
		tr.ConnectFailed(r)
		tr.Replied(r, 500)
	}
	if len(h.ejections) != 2 || h.ejections[1] != firstConnectBackoff {
		t.Errorf("ejections %v, want two of %v", h.ejections, firstConnectBackoff)
	}
}

// TestTracker_Keep: an ejection for replies ends with the policy that has asked for it, and
// goes on over what changes nothing about that.
func TestTracker_Keep(t *testing.T) {
	with := func(change func(p *mesh.OutlierDetection)) *mesh.OutlierDetection {
		p := policy()
		change(p)
		return p
	}
	for _, tt := range []struct {
		name  string
		after *mesh.OutlierDetection
		ends  bool
	}{
		{"the same in another line", with(func(p *mesh.OutlierDetection) { p.Source.Line = 9 }), false},
		{"more may be out", with(func(p *mesh.OutlierDetection) { p.MaxEjectionPercent, p.MinHealthPercent = 50, 10 }), false},
		{"none", nil, true},
		{"a shorter time", with(func(p *mesh.OutlierDetection) { p.BaseEjectionTime = time.Second }), true},
		{"switched off", with(func(p *mesh.OutlierDetection) { p.Consecutive5xx = 0 }), true},
		{"other statuses", with(func(p *mesh.OutlierDetection) { p.ErrorCodes = []int{500} }), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := NewTracker(policy(), 2, nil)
				var h, other target
				r, connects := NewRecord(&h), NewRecord(&other)
				for range 5 {
					before.Replied(r, 503)
				}
				before.ConnectFailed(connects)
				after := NewTracker(tt.after, 2, before)
				after.Keep(r)
				after.Keep(connects)
				if now, _, _ := after.Ejections(); h.ejected == tt.ends || (now == 0) != tt.ends || !other.ejected {
					t.Errorf("ejected %v, %d counted, and %v the one that cannot be connected to", h.ejected, now, other.ejected)
				}
				after.Replied(r, 200)
				if h.ejected == tt.ends {
					t.Errorf("ejected %v after a success", h.ejected)
				}
				time.Sleep(31 * time.Second)
				if now, _, _ := after.Ejections(); now != 0 {
					t.Errorf("%d count as ejected when all time is over", now)
				}
			})
		})
	}
}

// TestTracker_LateVerdicts: requests that began by a policy which is gone, one or several snapshots
// ago, eject nobody by it when they fail, and do as long as it asks for the same.
func TestTracker_LateVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		last   *mesh.OutlierDetection
		ejects bool
	}{
		{"gone", nil, false},
		{"for another time", &mesh.OutlierDetection{Consecutive5xx: 5, BaseEjectionTime: time.Second, MaxEjectionPercent: 100}, false},
		{"the same", policy(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := NewTracker(policy(), 2, nil)
				second := NewTracker(policy(), 2, first)
				NewTracker(tt.last, 2, second)
				for _, old := range []*Tracker{first, second} {
					var h target
					r := NewRecord(&h)
					for range 5 {
						old.Replied(r, 503)
					}
					if h.ejected != tt.ejects {
						t.Errorf("ejected: %v", h.ejected)
					}
					old.Forget(r)
				}
				time.Sleep(time.Hour) // all timers
			})
		})
	}
}

// TestTracker_LateReply: a reply of a request sent before an ejection does not
// end it.
func TestTracker_LateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTracker(policy(), 3, nil)
		var h target
		r := NewRecord(&h)
		for range 5 {
			tr.Replied(r, 500)
		}
		tr.Replied(r, 200)
		if !h.ejected {
			t.Fatal("a late reply has ended the ejection")
		}
		time.Sleep(30 * time.Second)
		tr.Replied(r, 200)
		if h.ejected {
			t.Fatal("a success after the ejection's time does not restore")
		}
	})
}

func TestTracker_MaxEjectionPercent(t *testing.T) {
	for _, tt := range []struct {
		hosts   int
		percent uint32
		want    int
	}{{10, 10, 1}, {10, 50, 5}, {3, 10, 1}, {2, 10, 1}, {1, 10, 0}, {10, 100, 10}, {10, 0, 0}, {2, 0, 0}} {
		p := policy()
		p.MaxEjectionPercent = tt.percent
		tr := NewTracker(p, tt.hosts, nil)
		ejected := 0
		for range tt.hosts {
			var h target
			r := NewRecord(&h)
			for range 5 {
				tr.Replied(r, 500)
			}
			if h.ejected {
				ejected++
			}
		}
		if ejected != tt.want {
			t.Errorf("%d %% of %d hosts: %d ejected, want %d", tt.percent, tt.hosts, ejected, tt.want)
		}
		sum := NewTracker(p, tt.hosts, nil)
		sum.Inherit(tr)
		sum.Inherit(tr)
		for who, n := range map[*Tracker]int{tr: 1, sum: 2} {
			if _, ejections, refused := who.Ejections(); int(ejections) != n*tt.want || int(refused) != n*(tt.hosts-tt.want) {
				t.Errorf("%d %% of %d hosts: counted %d and %d that were refused", tt.percent, tt.hosts, ejections, refused)
			}
		}
	}
}

// TestTracker_PlaceReturns: who was ejected takes a place for as long as it is out,
// and no longer, whether any request goes to it after that or not.
func TestTracker_PlaceReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy()
		p.MaxEjectionPercent = 10
		tr := NewTracker(p, 3, nil)
		hosts, records := make([]target, 3), make([]*Record, 3)
		for i := range hosts {
			records[i] = NewRecord(&hosts[i])
		}
		hosts[0].late = 3 * time.Second
		eject := func(i int) {
			for range 5 {
				tr.Replied(records[i], 500)
			}
			synctest.Wait()
		}
		now := func() int { n, _, _ := tr.Ejections(); return n }
		eject(0)
		time.Sleep(32 * time.Second)
		if eject(1); hosts[1].ejected || now() != 1 {
			t.Fatalf("%d are ejected at a time, want one", now())
		}
		tr.ConnectFailed(records[0]) // it stays out until then
		time.Sleep(3900 * time.Millisecond)
		if eject(1); hosts[1].ejected || now() != 1 {
			t.Fatalf("%d are ejected at a time, want one: the other one's ejection goes on", now())
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if now() != 0 {
			t.Errorf("%d count as ejected after their time", now())
		}
		if eject(1); !hosts[1].ejected || now() != 1 {
			t.Errorf("the second is not ejected after the time of the first: %d", now())
		}
		tr.Forget(records[1])
		if eject(2); !hosts[2].ejected || now() != 1 {
			t.Errorf("no place after one that is gone: %d", now())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if now() != 0 {
			t.Errorf("%d count as ejected in the end", now())
		}
	})
}

func TestTracker_SuccessAllocatesNothing(t *testing.T) {
	tr := NewTracker(policy(), 3, nil)
	r := NewRecord(&target{})
	if n := testing.AllocsPerRun(1000, func() { tr.Replied(r, 200) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestTracker_ErrorCodes: the statuses that the policy names are errors, and no
// others.
func TestTracker_ErrorCodes(t *testing.T) {
	p := policy()
	p.ErrorCodes = []int{429, 502}
	for _, tt := range []struct {
		name     string
		statuses []int
		ejected  bool
	}{
		{"named", []int{429, 429, 429, 429, 429}, true},
		{"both", []int{429, 502, 429, 502, 429}, true},
		{"a 5xx that is not named", []int{500, 500, 500, 500, 500, 503, 503}, false},
		{"one between is a success", []int{429, 429, 429, 429, 500, 429, 429}, false},
	} {
		tr := NewTracker(p, 3, nil)
		var h target
		r := NewRecord(&h)
		for _, s := range tt.statuses {
			tr.Replied(r, s)
		}
		if h.ejected != tt.ejected {
			t.Errorf("%s: ejected %v", tt.name, h.ejected)
		}
	}
	gateway := policy()
	gateway.ErrorCodes, gateway.Consecutive5xx, gateway.ConsecutiveGatewayErrors = []int{429, 502}, 0, 2
	tr := NewTracker(gateway, 3, nil)
	var h target
	r := NewRecord(&h)
	for range 10 {
		tr.Replied(r, 429)
	}
	if h.ejected {
		t.Error("a 429 is no gateway's error")
	}
	tr.Replied(r, 502)
	if tr.Replied(r, 502); !h.ejected {
		t.Error("two gateway errors, and not ejected")
	}
}
