package ratelimit

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// pass counts how many of n requests pass.
func pass(l *Limit, n int) (passed int) {
	for range n {
		if l.Allow() {
			passed++
		}
	}
	return passed
}

// TestLimit_Allow: the burst first, then as many as are filled in.
func TestLimit_Allow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1000, 100, time.Second, 1, 1)
		if n := pass(l, 5000); n != 1000 {
			t.Errorf("%d of the first requests pass, want the burst of 1000", n)
		}
		for range 30 {
			time.Sleep(time.Second)
			if n := pass(l, 500); n != 100 {
				t.Fatalf("%d pass a second later, want 100", n)
			}
		}
		time.Sleep(time.Hour)
		if n := pass(l, 5000); n != 1000 {
			t.Errorf("%d pass an hour later, want the burst of 1000", n)
		}
	})
}

// TestLimit_Fractions counts and refuses only parts.
func TestLimit_Fractions(t *testing.T) {
	const n = 20_000
	for _, tt := range []struct {
		name              string
		enabled, enforced float64
		want              float64 // part that passes, with an empty bucket
	}{
		{"all", 1, 1, 0}, {"nothing counts", 0, 1, 1}, {"nothing is refused", 1, 0, 1}, {"half counts", .5, 1, .5}, {"half of a half is refused", .5, .5, .75},
	} {
		l := New(1, 1, 1000*time.Hour, tt.enabled, tt.enforced)
		pass(l, 100) // the bucket is empty now, whatever the draws
		got := float64(pass(l, n)) / n
		if math.Abs(got-tt.want) > 5*math.Sqrt(tt.want*(1-tt.want)/n)+1e-3 {
			t.Errorf("%s: %.3f pass, want %.3f", tt.name, got, tt.want)
		}
	}
}

func TestLimit_AllocatesNothing(t *testing.T) {
	l := New(1, 1, time.Hour, 1, 1)
	if n := testing.AllocsPerRun(1000, func() { l.Allow() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLimit(b *testing.B) {
	l := New(1<<30, 1<<30, time.Second, 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		l.Allow()
	}
}
