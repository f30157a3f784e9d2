package mesh

import (
	"math"
	"testing"
	"time"
)

// TestRetries_LongestBackoffs: the sum of all waits, however many there are.
func TestRetries_LongestBackoffs(t *testing.T) {
	for _, attempts := range []int{0, 1, 2, 4, 5, 9} {
		r := Retries{Attempts: attempts, Backoff: time.Second}
		var want time.Duration
		for n := 1; n <= attempts; n++ {
			want += r.LongestBackoff(n)
		}
		if got := r.LongestBackoffs(); got != want {
			t.Errorf("%d retries: %v, want %v", attempts, got, want)
		}
	}
	for n, want := range []time.Duration{0, 1, 3, 7, 10, 10, 10} {
		if got := (&Retries{Backoff: time.Second}).LongestBackoff(n); got != want*time.Second {
			t.Errorf("before retry %d: %v, want %v", n, got, want*time.Second)
		}
	}
	if got := (&Retries{}).LongestBackoff(1); got != 25*time.Millisecond {
		t.Errorf("where nothing is said: %v", got)
	}
	for n := range 20 {
		long := Retries{Backoff: 200_000 * time.Hour}
		if d := long.LongestBackoff(n); d < 0 || n > 0 && d < long.Backoff {
			t.Errorf("before retry %d: %v", n, d)
		}
	}
	begin := time.Now()
	r := Retries{Attempts: math.MaxInt32, Backoff: time.Hour}
	if got := r.LongestBackoffs() + Times(math.MaxInt32, time.Hour); got < 100*365*24*time.Hour || time.Since(begin) > time.Second {
		t.Errorf("%v, after %v", got, time.Since(begin))
	}
	if Times(3, 2*time.Second) != 6*time.Second || Times(-1, time.Second) != 0 || Times(1, -1) != 0 {
		t.Error("times")
	}
}
