// Package ratelimit limits requests by token buckets.
package ratelimit

import (
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// Limit is a local rate limit: one bucket for all requests of a listener, as
// Envoy's local_ratelimit filter has it. Any goroutine may ask it.
type Limit struct {
	bucket            *rate.Limiter
	enabled, enforced float64
}

// New makes a limit whose bucket holds max tokens, is full at first, and gets
// perFill tokens every interval, evenly over the interval. enabled is the part
// of requests, from 0 to 1, that is counted at all; enforced, the part of those
// that is refused when the bucket is empty.
func New(max, perFill uint32, interval time.Duration, enabled, enforced float64) *Limit {
	every := rate.Limit(float64(perFill) / interval.Seconds())
	return &Limit{bucket: rate.NewLimiter(every, int(max)), enabled: enabled, enforced: enforced}
}

// Allow takes a token and reports whether the request may pass.
func (l *Limit) Allow() bool {
	if l.enabled < 1 && rand.Float64() >= l.enabled {
		return true
	}
	if l.bucket.Allow() {
		return true
	}
	return l.enforced < 1 && rand.Float64() >= l.enforced
}
