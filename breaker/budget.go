package breaker

import "sync/atomic"

// Budget holds the retries under way to a part of the requests under way: when
// everything fails, retries must not become the load that keeps it failing.
//
// Envoy counts the retries themselves among the requests, so that its 20 % make
// a quarter more load; here, the part is one of the requests on their first
// try, and 20 % are 20 %.
type Budget struct {
	retries atomic.Int32
}

// Limits are those of a retry budget.
type Limits struct {
	Percent float64 // of the requests on their first try (retryBudget.percent)
	Least   int32   // what is allowed in any case (retryBudget.minRetryConcurrency)
	Most    int32   // connectionPool.http.maxRetries; 0: no more than Percent says
}

// DefaultLimits are those of an upstream without a retryBudget of its own.
// The figures are Envoy's and Istio's.
var DefaultLimits = Limits{Percent: 20, Least: 3}

// Begin takes a place for a retry of a request, which counts among active, the
// requests under way. If ok, End gives the place back.
func (b *Budget) Begin(l Limits, active int32) (ok bool) {
	for {
		n := b.retries.Load()
		if !l.allow(n, active) {
			return false
		}
		if b.retries.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Allows reports whether Begin would succeed now.
func (b *Budget) Allows(l Limits, active int32) bool { return l.allow(b.retries.Load(), active) }

// allow decides over one more retry beside n.
func (l Limits) allow(n, active int32) bool {
	if l.Most > 0 && n >= l.Most {
		return false
	}
	// The one who asks leaves his first try for a retry.
	first := float64(active - n - 1)
	return n < l.Least || float64(n+1) <= first*l.Percent/100
}

// End gives back what Begin took.
func (b *Budget) End() { b.retries.Add(-1) }

// Retries returns how many are under way.
func (b *Budget) Retries() int32 { return b.retries.Load() }
