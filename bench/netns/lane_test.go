package main

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// epoch is when the clock of these tests starts.
var epoch = time.Unix(1_000_000, 0)

func at(n int) time.Time { return epoch.Add(time.Duration(n) * time.Millisecond) }

func text(packets [][]byte) string {
	var s []byte
	for _, p := range packets {
		s = append(s, p...)
	}
	return string(s)
}

func delayed(n int) condition { return condition{delay: time.Duration(n) * time.Millisecond} }

// TestLane_Delay: a packet comes out when its delay is over, not before.
func TestLane_Delay(t *testing.T) {
	l := &lane{now: delayed(5)}
	if _, ok := l.next(); ok {
		t.Error("an empty lane has something to deliver")
	}
	l.admit(at(0), []byte("a"))
	l.admit(at(2), []byte("b"))
	if due, ok := l.next(); !ok || !due.Equal(at(5)) {
		t.Errorf("next is due %v, %v; want 5 ms", due.Sub(epoch), ok)
	}
	for _, step := range []struct {
		at   int
		want string
	}{{4, ""}, {5, "a"}, {6, ""}, {7, "b"}, {100, ""}} {
		if got := text(l.take(at(step.at))); got != step.want {
			t.Errorf("at %d ms: %q, want %q", step.at, got, step.want)
		}
	}
}

// TestLane_KeepsPackets: the caller's buffer is used again for the next one.
func TestLane_KeepsPackets(t *testing.T) {
	l := &lane{}
	buf := []byte("a")
	l.admit(at(0), buf)
	buf[0] = 'x'
	if got := text(l.take(at(0))); got != "a" {
		t.Errorf("delivered %q, want what was sent", got)
	}
}

// TestLane_ConditionChanges while packets are under way.
func TestLane_ConditionChanges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change condition
		want   map[int]string // by the millisecond at which it is looked
		lost   int
	}{
		{"longer delay holds for later ones", delayed(80), map[int]string{5: "a", 80: "", 81: "b"}, 0},
		{"shorter delay does not let them overtake", delayed(1), map[int]string{4: "", 5: "ab"}, 0},
		{"a cut loses what is under way", condition{cut: true}, map[int]string{1000: ""}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &lane{now: delayed(5)}
			l.admit(at(0), []byte("a"))
			l.set(tt.change)
			l.admit(at(1), []byte("b"))
			for _, when := range []int{4, 5, 80, 81, 1000} {
				got := text(l.take(at(when)))
				if got != tt.want[when] {
					t.Errorf("at %d ms: %q, want %q", when, got, tt.want[when])
				}
			}
			if l.lost != tt.lost {
				t.Errorf("%d lost, want %d", l.lost, tt.lost)
			}
		})
	}
}

// TestLane_Loss draws for each packet.
func TestLane_Loss(t *testing.T) {
	draws := []float64{0.04, 0.05, 0.9, 0}
	l := &lane{now: condition{loss: 0.05}, random: func() float64 {
		d := draws[0]
		draws = draws[1:]
		return d
	}}
	var passed []bool
	for range 4 {
		passed = append(passed, l.admit(at(0), []byte("a")))
	}
	if want := []bool{false, true, true, false}; !slices.Equal(passed, want) {
		t.Errorf("passed %v, want %v", passed, want)
	}
}

// TestLane_Capacity: what does not fit is lost, not kept for ever.
func TestLane_Capacity(t *testing.T) {
	l := &lane{now: delayed(1)}
	for range laneCapacity {
		if !l.admit(at(0), nil) {
			t.Fatal("lost below the capacity")
		}
	}
	if l.admit(at(0), nil) {
		t.Error("taken above the capacity")
	}
	l.take(at(1))
	if !l.admit(at(1), nil) {
		t.Error("lost although there is room again")
	}
}

// TestLane_Order: whatever the delays become, packets come out in their order,
// each at its time or later, and none is lost.
func TestLane_Order(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &lane{}
		now, sent, got := 0, "", ""
		earliest := map[byte]int{}
		for i, n := 0, rapid.IntRange(1, 50).Draw(t, "packets"); i < n; i++ {
			delay := rapid.IntRange(0, 20).Draw(t, "delay")
			l.set(delayed(delay))
			p := byte(i)
			l.admit(at(now), []byte{p})
			sent, earliest[p] = sent+string(rune(p)), now+delay
			now += rapid.IntRange(0, 10).Draw(t, "gap")
			for _, out := range l.take(at(now)) {
				got += string(rune(out[0]))
				if now < earliest[out[0]] {
					t.Fatalf("packet %d came at %d ms, before %d", out[0], now, earliest[out[0]])
				}
			}
		}
		for _, out := range l.take(at(now + 20)) {
			got += string(rune(out[0]))
		}
		if got != sent {
			t.Fatalf("came %q, sent %q", got, sent)
		}
	})
}
