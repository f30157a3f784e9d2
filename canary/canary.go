// Package canary judges a configuration by live requests: an [Arm] counts what
// becomes of those that one of two configurations decides, a [Guard] says when
// one of them is worse, [Differences] gathers where they decide otherwise, and a
// [Trial] leads from one stage to the next, to promotion or back.
//
// It sends nothing and reads no clock: the data plane counts, and the control
// side asks.
package canary

import (
	"sync/atomic"
	"time"
)

// Outcome is what has become of a request.
type Outcome uint8

// The outcomes.
const (
	Served  Outcome = iota
	Failed          // 5xx, what means the same in gRPC, or a reply that broke off
	Refused         // 4xx and its like, by Isthmus or by the application that it went to
	Gone            // the client did not wait, or the proxy ended: nobody's fault
)

// bounds are the upper bounds of the buckets in which durations are counted:
// from 1/4 ms on, each a quarter more than the one before, up to a minute.
var bounds = func() (b [buckets - 1]time.Duration) {
	d := float64(250 * time.Microsecond)
	for i := range b {
		b[i] = time.Duration(d)
		d *= 1.25
	}
	return b
}()

const buckets = 58

// Arm counts the requests that one configuration decides. Its methods may be
// called by any goroutine.
type Arm struct {
	outcomes  [4]atomic.Uint64
	durations [buckets]atomic.Uint64 // of those that were served
}

// Count counts a request.
func (a *Arm) Count(o Outcome, took time.Duration) {
	a.outcomes[o].Add(1)
	if o != Served {
		return
	}
	low, high := 0, buckets-1
	for low < high {
		if m := (low + high) / 2; took <= bounds[m] {
			high = m
		} else {
			low = m + 1
		}
	}
	a.durations[low].Add(1)
}

// Counts returns what was counted.
func (a *Arm) Counts() (c Counts) {
	c.Failed, c.Refused = a.outcomes[Failed].Load(), a.outcomes[Refused].Load()
	c.Requests = a.outcomes[Served].Load() + c.Failed + c.Refused
	for i := range c.durations {
		c.durations[i] = a.durations[i].Load()
	}
	return c
}

// Counts are those of an [Arm] at one moment. Clients that did not wait are none
// of its requests.
type Counts struct {
	Requests uint64 `json:"requests"`
	Failed   uint64 `json:"failed"`
	Refused  uint64 `json:"refused"`

	durations [buckets]uint64
}

// served is how many requests were.
func (c *Counts) served() uint64 { return c.Requests - c.Failed - c.Refused }

// Quantile returns a duration that a share of the served requests did not take
// longer than, about; 0 if there were none.
func (c *Counts) Quantile(share float64) time.Duration {
	if i := c.bucket(share); i >= 0 {
		return bounds[min(i, len(bounds)-1)]
	}
	return 0
}

// bucket returns the bucket of a quantile, -1 if nothing was served.
func (c *Counts) bucket(share float64) int {
	total, sum := c.served(), uint64(0)
	for i, n := range c.durations {
		if sum += n; n > 0 && float64(sum) >= share*float64(total) {
			return i
		}
	}
	return -1
}

// beyond is how many of the served requests took longer than a duration, about.
func (c *Counts) beyond(d time.Duration) (n uint64) {
	for i := range c.durations {
		if i == len(bounds) || bounds[i] > d {
			n += c.durations[i]
		}
	}
	return n
}
