package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func dial(t *testing.T, b *Breaker, outcome func(Permit)) bool {
	t.Helper()
	p, ok := b.Dial()
	if ok {
		outcome(p)
	}
	return ok
}

// TestBreaker goes once round: closed, open, one trial, open, one trial,
// closed.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards states
		var states []State
		b := New(func(s State) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, s)
		})
		want := func(list ...State) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(states) != len(list) {
				t.Fatalf("states %v, want %v", states, list)
			}
			for i := range list {
				if states[i] != list[i] {
					t.Fatalf("states %v, want %v", states, list)
				}
			}
		}
		for range tripAfter - 1 {
			dial(t, b, Permit.Failed)
		}
		b.Succeeded() // a reply shows that the cluster lives
		for range tripAfter - 1 {
			dial(t, b, Permit.Failed)
		}
		dial(t, b, Permit.Connected) // and so does a dial
		want()
		for range tripAfter {
			if !dial(t, b, Permit.Failed) {
				t.Fatal("refused too early")
			}
		}
		want(Open)
		if dial(t, b, Permit.Connected) {
			t.Fatal("dialled while open")
		}
		b.Succeeded() // the reply of a request sent before proves nothing now
		want(Open)

		time.Sleep(2 * openFor)
		want(Open, HalfOpen)
		trial, ok := b.Dial()
		if !ok {
			t.Fatal("no trial")
		}
		if dial(t, b, Permit.Connected) {
			t.Fatal("a second dial beside the trial")
		}
		trial.Failed()
		want(Open, HalfOpen, Open)

		time.Sleep(2 * openFor)
		trial, _ = b.Dial()
		trial.Abandoned() // the request's own deadline came first
		want(Open, HalfOpen, Open, HalfOpen)
		if !dial(t, b, Permit.Connected) {
			t.Fatal("no trial after one that proved nothing")
		}
		want(Open, HalfOpen, Open, HalfOpen, Closed)
		if !dial(t, b, Permit.Connected) || b.troubled.Load() {
			t.Fatal("not closed for good")
		}
	})
}

// TestBreaker_AtOnce: dials that were under way together trip it too, and what
// they report late does no harm.
func TestBreaker_AtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var state atomic.Uint32
		b := New(func(s State) { state.Store(uint32(s)) })
		var permits []Permit
		for range 10 {
			p, _ := b.Dial()
			permits = append(permits, p)
		}
		for _, p := range permits {
			p.Failed()
		}
		if s := State(state.Load()); s != Open {
			t.Fatalf("state %v", s)
		}
		time.Sleep(2 * openFor)
		synctest.Wait()
		if !dial(t, b, Permit.Connected) || State(state.Load()) != Closed {
			t.Fatalf("state %v after a success", state.Load())
		}
	})
}

// TestBreaker_Race: a success at the moment when the breaker opens does not make
// it forget that it has, so that its trial can close it.
func TestBreaker_Race(t *testing.T) {
	for range 50_000 {
		var state atomic.Uint32
		b := New(func(s State) { state.Store(uint32(s)) })
		var permits [tripAfter]Permit
		for i := range permits {
			permits[i], _ = b.Dial()
		}
		dial(t, b, Permit.Failed)
		var both sync.WaitGroup
		both.Go(b.Succeeded)
		both.Go(func() {
			for _, p := range permits {
				p.Failed()
			}
		})
		both.Wait()
		if s := State(state.Load()); s != Closed && !b.troubled.Load() {
			t.Fatalf("state %v, and every dial is allowed", s)
		}
	}
}

func TestBreaker_AllocatesNothing(t *testing.T) {
	b := New(func(State) {})
	if n := testing.AllocsPerRun(1000, func() {
		p, _ := b.Dial()
		p.Connected()
		b.Succeeded()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestBudget(t *testing.T) {
	part := Limits{Percent: 20, Least: 3}
	for _, tt := range []struct {
		name   string
		limits Limits
		active int32
		want   int
	}{
		{"the least", part, 1, 3},
		{"a fifth of the first tries", part, 100, 16}, // 16 of 84
		{"of many", part, 1200, 200},
		{"the least, and what is lent", DefaultLimits, 1, 3 + 10},
		{"a fifth of the first tries, and what is lent", DefaultLimits, 100, 16 + 10},
		{"of many, and what is lent", DefaultLimits, 1200, 200 + 120},
		{"maxRetries below what is lent", Limits{Percent: 20, Least: 3, Most: 5, Lends: true}, 1, 5},
		{"maxRetries below it", Limits{Percent: 20, Least: 3, Most: 2}, 100, 2},
		{"maxRetries above it", Limits{Percent: 20, Least: 3, Most: 50}, 100, 16},
		{"none at all", Limits{Percent: 0, Least: 0}, 100, 0},
		{"only the least", Limits{Percent: 0, Least: 5}, 100, 5},
	} {
		var b Budget
		n := 0
		for b.Begin(tt.limits, tt.active) {
			n++
		}
		if n != tt.want || b.Retries() != int32(tt.want) {
			t.Errorf("%s: %d retries beside %d requests, want %d", tt.name, n, tt.active, tt.want)
		}
	}
}

// TestBudget_Lends: retries that succeed pay for others; those that fail do so
// when everybody has forgotten.
func TestBudget_Lends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		run := func(n int, succeed bool) (allowed int) {
			for range n {
				if b.Begin(Limits{Lends: true}, 8) {
					allowed++
					b.End(succeed)
				}
			}
			return allowed
		}
		if n := run(1000, true); n != 1000 {
			t.Errorf("%d retries that succeed, want all 1000", n)
		}
		if n := run(1000, false); n != 10 {
			t.Errorf("%d retries that fail, want 10", n)
		}
		time.Sleep(9 * time.Second)
		if n := run(10, false); n != 0 {
			t.Errorf("%d after nine seconds, want none", n)
		}
		time.Sleep(2 * time.Second)
		if n := run(1000, false); n != 10 {
			t.Errorf("%d after eleven seconds, want 10", n)
		}
	})
}

// TestBudget_Properties: whatever begins and ends, retries are no more than a
// fifth of the first tries, or the least.
func TestBudget_Properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b Budget
		active, retries := int32(0), int32(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				active++
			case 2:
				limits := Limits{Percent: 20, Least: 3}
				if retries < active && b.Begin(limits, active) {
					retries++
					if first := active - retries; retries > limits.Least && float64(retries) > .2*float64(first) {
						t.Fatalf("%d retries beside %d first tries", retries, first)
					}
				}
			case 3:
				if retries > 0 {
					b.End(rapid.Bool().Draw(t, "succeeded"))
					retries--
					active-- // its request is over too
				}
			}
			if b.Retries() != retries {
				t.Fatalf("counts %d, want %d", b.Retries(), retries)
			}
		}
	})
}
