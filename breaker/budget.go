package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Budget holds the retries under way to a part of the requests under way: when
// everything fails, retries must not become the load that keeps it failing.
//
// Envoy counts the retries themselves among the requests, so that its 20 % make
// a quarter more load; here, the part is one of the requests on their first
// try, and 20 % are 20 %.
//
// A part alone cannot tell retries that help from those that do not: where one
// of two endpoints fails, half of the requests need a retry, and get their reply
// by it. So the default budget lends some beyond the part. A retry that succeeds
// pays one back; when everything fails, nothing is paid back, and the part is all
// there is.
type Budget struct {
	retries atomic.Int32

	mu       sync.Mutex // guards what is below
	lent     int32      // and not paid back
	lastLent time.Time
}

const (
	// lentLeast and lentPart bound what is lent: ten, as many as Finagle's budget
	// allows in any second, or a tenth of the requests under way.
	lentLeast = 10
	lentPart  = 10

	// forgiven is when a loan is, if none was made since: Finagle's budget has
	// forgotten by then, too.
	forgiven = 10 * time.Second
)

// Limits are those of a retry budget.
type Limits struct {
	Percent float64 // of the requests on their first try (retryBudget.percent)
	Least   int32   // what is allowed in any case (retryBudget.minRetryConcurrency)
	Most    int32   // connectionPool.http.maxRetries; 0: no more than Percent says
	Lends   bool    // whether retries beyond Percent are lent; no budget of Envoy's does
}

// DefaultLimits are those of an upstream without a retryBudget of its own.
// The figures are Envoy's and Istio's.
var DefaultLimits = Limits{Percent: 20, Least: 3, Lends: true}

// Begin takes a place for a retry of a request, which counts among active, the
// requests under way. If ok, End gives the place back.
func (b *Budget) Begin(l Limits, active int32) (ok bool) {
	for {
		n := b.retries.Load()
		if !l.allow(n, active) {
			return b.borrow(l, n, active)
		}
		if b.retries.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// borrow is Begin for a retry beyond the part.
func (b *Budget) borrow(l Limits, n, active int32) bool {
	if !l.Lends || l.Most > 0 && n >= l.Most {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lent >= max(lentLeast, active/lentPart) {
		if time.Since(b.lastLent) < forgiven {
			return false
		}
		b.lent = 0
	}
	b.lent++
	b.lastLent = time.Now()
	b.retries.Add(1)
	return true
}

// allow decides over one more retry beside n.
func (l Limits) allow(n, active int32) bool {
	if l.Most > 0 && n >= l.Most {
		return false
	}
	// The one who asks leaves his first try for a retry.
	first := float64(active - n - 1)
	return n < l.Least || float64(n+1) <= first*l.Percent/100
}

// End gives back what Begin took, for a retry that has brought a reply or has
// not.
func (b *Budget) End(succeeded bool) {
	b.retries.Add(-1)
	if !succeeded {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent = max(0, b.lent-1)
}

// Retries returns how many are under way.
func (b *Budget) Retries() int32 { return b.retries.Load() }
