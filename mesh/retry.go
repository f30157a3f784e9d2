package mesh

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// RetryOn is a set of conditions under which a request is tried again: the
// words of Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on that Istio
// accepts.
type RetryOn uint32

// The conditions. Codes listed as numbers are in [Retries.Codes].
const (
	Retry5xx RetryOn = 1 << iota
	RetryGatewayError
	RetryReset
	RetryResetBeforeRequest
	RetryConnectFailure
	RetryRetriable4xx
	RetryRefusedStream
	RetryRetriableStatusCodes
	RetryRetriableHeaders
	RetryEnvoyRateLimited
	RetryHTTP3PostConnectFailure
	RetryCancelled
	RetryDeadlineExceeded
	RetryInternal
	RetryResourceExhausted
	RetryUnavailable
)

// RetryWords maps the words to the conditions.
var RetryWords = map[string]RetryOn{
	"5xx":                        Retry5xx,
	"gateway-error":              RetryGatewayError,
	"reset":                      RetryReset,
	"reset-before-request":       RetryResetBeforeRequest,
	"connect-failure":            RetryConnectFailure,
	"retriable-4xx":              RetryRetriable4xx,
	"refused-stream":             RetryRefusedStream,
	"retriable-status-codes":     RetryRetriableStatusCodes,
	"retriable-headers":          RetryRetriableHeaders,
	"envoy-ratelimited":          RetryEnvoyRateLimited,
	"http3-post-connect-failure": RetryHTTP3PostConnectFailure,
	"cancelled":                  RetryCancelled,
	"deadline-exceeded":          RetryDeadlineExceeded,
	"internal":                   RetryInternal,
	"resource-exhausted":         RetryResourceExhausted,
	"unavailable":                RetryUnavailable,
}

// Words returns the words of a set, in the order of their conditions.
func (on RetryOn) Words() []string {
	var out []string
	for word, condition := range RetryWords {
		if on&condition != 0 {
			out = append(out, word)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(RetryWords[a], RetryWords[b]) })
	return out
}

// Retries is Istio's HTTPRetry.
type Retries struct {
	Attempts      int           // tries after the first; 0: none
	PerTryTimeout time.Duration // 0: the route's timeout
	On            RetryOn
	Codes         []int         // status codes listed in retryOn
	Backoff       time.Duration // base of the jittered back-off; 0: 25 ms

	RemoteLocalities    bool  // retryRemoteLocalities
	IgnorePreviousHosts *bool // nil: true
	Explicit            bool  // from a file; what it names is done for every method

	Source Source
}

// defaultBackoff is the base of Envoy's back-off.
const defaultBackoff = 25 * time.Millisecond

// LongestBackoff is the most that is waited before the nth retry: (2^n-1) times
// the base, at most ten times the base, as Envoy does.
func (r *Retries) LongestBackoff(n int) time.Duration {
	base := cmp.Or(r.Backoff, defaultBackoff)
	return min(Times(1<<min(n, rising)-1, base), Times(10, base))
}

// rising is from which retry on the waits are alike: 2^4-1 is more than ten.
const rising = 4

// LongestBackoffs is the most that is waited before all retries together.
func (r *Retries) LongestBackoffs() (sum time.Duration) {
	for n := 1; n <= min(r.Attempts, rising); n++ {
		sum += r.LongestBackoff(n)
	}
	return sum + Times(r.Attempts-rising, r.LongestBackoff(rising))
}

// Times is n times d, at most some seventy years, so that a few of them can be added
// up; 0 for a negative n.
func Times(n int, d time.Duration) time.Duration {
	const most = math.MaxInt64 / 4
	if n <= 0 || d <= 0 {
		return 0
	}
	if time.Duration(n) > most/d {
		return most
	}
	return time.Duration(n) * d
}

// DefaultRetries is the policy of routes that name none: Istio's two attempts
// on what is safe (istio: pilot/pkg/networking/core/route/retry/retry.go).
var DefaultRetries = &Retries{
	Attempts: 2,
	On:       RetryConnectFailure | RetryRefusedStream | RetryUnavailable | RetryCancelled | RetryRetriableStatusCodes,
}
