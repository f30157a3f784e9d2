// Package health judges hosts by what requests meet (outlier detection) and by
// looking itself (probes).
//
// A [Tracker] belongs to an upstream and is told the outcome of every try. It
// keeps its notes in a [Record] for each host, which lives as long as the host
// does. What it decides it does to the host, a [Target]: it ejects it for a
// time, or restores it.
//
// Without outlierDetection only connects that fail or time out count: they are
// the proxy's own evidence, which outranks what gossip says, and need no
// policy. Statuses never count without one.
//
// A [Prober] looks at subjects by themselves, applications or endpoints, again
// and again, and holds what it has found out of each.
package health

import (
	"errors"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"isthmus/mesh"
)

// Target is a host that can be kept from traffic. hard says that replies
// rather than connects were the reason. Eject returns when the host gets traffic
// again, which may be later than it was asked for. Release ends what was hard before
// its time.
type Target interface {
	Eject(reason string, d time.Duration, hard bool) (until time.Time)
	Release()
	Restore()
}

// Record is what a Tracker notes of one host.
type Record struct {
	target Target
	dirty  atomic.Bool // anything below is not zero: success has something to do

	mu            sync.Mutex // guards what is below
	connects      uint32     // connect failures in a row
	connectsUntil time.Time  // end of the ejection for them
	errors5xx     uint32     // in a row
	gatewayErrors uint32     // in a row
	localErrors   uint32     // in a row
	timesEjected  uint32     // by replies, decremented for each interval in health
	ejectedUntil  time.Time  // by replies
	counted       bool       // in the tracker's ejected, until ejectedUntil
	lastDecrement time.Time
}

// NewRecord makes the record of a host.
func NewRecord(t Target) *Record { return &Record{target: t} }

// Tracker watches the hosts of one upstream. Its methods may be called by any
// goroutine.
type Tracker struct {
	policy  *mesh.OutlierDetection // nil: connects only
	ejected *atomic.Int32          // hosts ejected now, by replies
	counts  *counts
	hosts   int
	anew    bool         // the policy before has ejected for other things, or for another time
	lapsed  *atomic.Bool // it is this one that such a policy has followed; shared by those that say the same
}

// NewTracker makes the tracker of an upstream with so many hosts. before is
// the upstream's tracker of the snapshot before, whose count goes on; nil for
// none. [Tracker.Keep] is to be told of the hosts that were in that.
func NewTracker(policy *mesh.OutlierDetection, hosts int, before *Tracker) *Tracker {
	t := &Tracker{policy: policy, hosts: hosts, ejected: new(atomic.Int32), counts: new(counts), lapsed: new(atomic.Bool)}
	if before != nil {
		t.ejected, t.counts, t.anew = before.ejected, before.counts, !sameVerdicts(before.policy, policy)
		if t.anew {
			before.lapsed.Store(true)
		} else {
			t.lapsed = before.lapsed
		}
	}
	return t
}

// sameVerdicts reports whether two policies, which may be nil, eject for the same
// things and for the same time.
func sameVerdicts(a, b *mesh.OutlierDetection) bool {
	if a == nil || b == nil {
		return a == b
	}
	verdicts := func(p mesh.OutlierDetection) mesh.OutlierDetection {
		p.Interval, p.MaxEjectionPercent, p.MinHealthPercent, p.Source = 0, 0, 0, mesh.Source{}
		return p
	}
	return reflect.DeepEqual(verdicts(*a), verdicts(*b))
}

// Keep goes on with a host of the snapshot before. If the policy that has ejected it for
// its replies is gone, or says otherwise now, it need not wait for a time that nobody asks
// for any more.
func (t *Tracker) Keep(r *Record) {
	if !t.anew {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.policy == nil {
		r.timesEjected = 0
	}
	if now := time.Now(); now.Before(r.ejectedUntil) {
		r.ejectedUntil, r.lastDecrement = now, now
		t.uncount(r)
		r.target.Release()
	}
}

// IsOurs reports whether a connection could not be made since this process, or this
// machine, has no room for one: that says nothing of the endpoint, nor of the way there.
func IsOurs(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// How long a host that cannot be connected to is left alone: a second at
// first, doubled with each failure after that.
const (
	firstConnectBackoff = time.Second
	maxConnectBackoff   = 30 * time.Second
)

// ConnectFailed notes that a host could not be connected to.
func (t *Tracker) ConnectFailed(r *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.connectsUntil) {
		return // one of many that were under way when the first one failed
	}
	r.dirty.Store(true)
	r.connects++
	d := min(firstConnectBackoff<<min(r.connects-1, 10), maxConnectBackoff)
	r.connectsUntil = now.Add(d)
	if until := r.target.Eject("connect failed", d, false); r.counted && until.After(r.ejectedUntil) {
		t.holdPlace(r, until)
	}
	t.localError(r)
}

// Failed notes that a host broke off, stalled, or talked nonsense.
func (t *Tracker) Failed(r *Record) {
	if t.policy == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty.Store(true)
	t.localError(r)
}

// Replied notes the status of a reply.
func (t *Tracker) Replied(r *Record, status int) {
	if t.policy == nil || !t.isError(status) {
		if r.dirty.Load() {
			t.succeeded(r)
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty.Store(true)
	r.connects, r.localErrors, r.connectsUntil = 0, 0, time.Time{}
	t.serverError(r, status >= 502 && status <= 504)
}

// Connected notes that a host has taken a connection whose bytes are relayed: there
// is no more to see of it, so it counts as a success (as Envoy's TCP proxy tells its
// outlier detector).
func (t *Tracker) Connected(r *Record) {
	if r.dirty.Load() {
		t.succeeded(r)
	}
}

// isError reports whether the policy counts a status as an error.
func (t *Tracker) isError(status int) bool {
	if codes := t.policy.ErrorCodes; codes != nil {
		return slices.Contains(codes, status)
	}
	return status >= 500
}

// succeeded forgets errors in a row. Any reply shows that the host can be
// connected to.
func (t *Tracker) succeeded(r *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connects, r.localErrors, r.connectsUntil = 0, 0, time.Time{}
	r.errors5xx, r.gatewayErrors = 0, 0
	if now := time.Now(); !now.Before(r.ejectedUntil) {
		r.target.Restore() // else it is the reply of a request sent before the ejection
	}
	t.decrement(r)
	r.dirty.Store(r.timesEjected > 0)
}

// localError counts an error that came from this side of the connection. The
// caller holds r.mu.
func (t *Tracker) localError(r *Record) {
	if t.policy == nil {
		return
	}
	if !t.policy.SplitLocalOrigin {
		t.serverError(r, true)
		return
	}
	r.localErrors++
	if n := t.policy.ConsecutiveLocalOrigin; n > 0 && r.localErrors >= n {
		t.eject(r, "consecutive local origin failures")
	}
}

// serverError counts a 5xx, or what counts as one. The caller holds r.mu.
func (t *Tracker) serverError(r *Record, gateway bool) {
	r.errors5xx++
	if gateway {
		r.gatewayErrors++
	} else {
		r.gatewayErrors = 0
	}
	switch p := t.policy; {
	case p.ConsecutiveGatewayErrors > 0 && r.gatewayErrors >= p.ConsecutiveGatewayErrors:
		t.eject(r, "consecutive gateway errors")
	case p.Consecutive5xx > 0 && r.errors5xx >= p.Consecutive5xx:
		t.eject(r, "consecutive 5xx")
	}
}

// maxEjection is Envoy's max_ejection_time, unless baseEjectionTime is longer.
const maxEjection = 300 * time.Second

// eject takes a host out for baseEjectionTime, multiplied by how often that
// has happened. The caller holds r.mu.
func (t *Tracker) eject(r *Record, reason string) {
	if t.lapsed.Load() {
		return // a request that began by a policy which is gone; what is counted, the next one may go by
	}
	r.errors5xx, r.gatewayErrors, r.localErrors = 0, 0, 0
	now := time.Now()
	if now.Before(r.ejectedUntil) {
		return // a reply of a request sent before
	}
	t.uncount(r) // if its time has ended at this very moment
	if !t.mayEject() {
		t.counts.refused.Add(1)
		return
	}
	t.counts.ejections.Add(1)
	r.timesEjected++
	r.counted = true
	base := t.policy.BaseEjectionTime
	d := min(base*time.Duration(r.timesEjected), max(maxEjection, base))
	t.holdPlace(r, r.target.Eject(reason, d, true))
	r.lastDecrement = r.ejectedUntil
}

// holdPlace keeps the place of a host that is ejected until a time. The caller
// holds r.mu.
func (t *Tracker) holdPlace(r *Record, until time.Time) {
	r.ejectedUntil = until
	time.AfterFunc(time.Until(until), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		t.uncount(r) // unless it is ejected for longer by now
	})
}

// counts are a tracker's over all snapshots.
type counts struct {
	ejections, refused atomic.Uint64
}

// Ejections returns how many hosts are ejected now, by replies, how often any
// was, and how often maxEjectionPercent forbade it.
func (t *Tracker) Ejections() (now int, ejections, refused uint64) {
	return int(t.ejected.Load()), t.counts.ejections.Load(), t.counts.refused.Load()
}

// Inherit adds the ejections that another tracker, which is gone, has counted.
func (t *Tracker) Inherit(o *Tracker) {
	t.counts.ejections.Add(o.counts.ejections.Load())
	t.counts.refused.Add(o.counts.refused.Load())
}

// mayEject takes a place among the hosts that may be out at once:
// maxEjectionPercent of all, but one where there are two or more.
func (t *Tracker) mayEject() bool {
	limit := int32(uint64(t.hosts) * uint64(t.policy.MaxEjectionPercent) / 100)
	if limit == 0 && t.hosts >= 2 && t.policy.MaxEjectionPercent > 0 {
		limit = 1
	}
	for {
		n := t.ejected.Load()
		if n >= limit {
			return false
		}
		if t.ejected.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// uncount gives the place of a host back whose ejection's time is over, even if no
// request has found out how it is. The caller holds r.mu.
func (t *Tracker) uncount(r *Record) {
	if r.counted && !time.Now().Before(r.ejectedUntil) {
		r.counted = false
		t.ejected.Add(-1)
	}
}

// decrement lowers the multiplier by one for every interval that the host has
// spent in health. The caller holds r.mu.
func (t *Tracker) decrement(r *Record) {
	if t.policy == nil || t.policy.Interval <= 0 {
		return
	}
	for now := time.Now(); r.timesEjected > 0 && now.Sub(r.lastDecrement) >= t.policy.Interval; {
		r.timesEjected--
		r.lastDecrement = r.lastDecrement.Add(t.policy.Interval)
	}
}

// Forget gives back what a host that is gone has taken.
func (t *Tracker) Forget(r *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counted {
		r.counted = false
		t.ejected.Add(-1)
	}
}
