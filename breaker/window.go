package breaker

import (
	"math"
	"sync"
	"time"
)

// Window counts what has happened in the last of a time. Of the time before the
// current interval it takes as much as still lies in the window, as if that had
// been even.
type Window struct {
	interval time.Duration

	mu          sync.Mutex // guards what is below
	from        time.Time  // when the current interval has begun
	now, before int        // counted in it, and in the one before
}

// NewWindow makes a window of a length.
func NewWindow(interval time.Duration) *Window { return &Window{interval: interval} }

// Interval is the length of the window.
func (w *Window) Interval() time.Duration { return w.interval }

// Add counts one.
func (w *Window) Add() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn(time.Now())
	w.now++
}

// Count returns how many have been counted within the window.
func (w *Window) Count() int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := time.Now()
	w.turn(t)
	left := 1 - float64(t.Sub(w.from))/float64(w.interval)
	return int32(min(math.MaxInt32, w.now+int(math.Round(left*float64(w.before)))))
}

// turn begins new intervals. The caller holds mu.
func (w *Window) turn(t time.Time) {
	switch passed := t.Sub(w.from); {
	case passed < w.interval:
	case passed < 2*w.interval:
		w.from, w.now, w.before = w.from.Add(w.interval), 0, w.now
	default:
		w.from, w.now, w.before = t, 0, 0
	}
}
