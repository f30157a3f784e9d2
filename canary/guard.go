package canary

import (
	"fmt"
	"math"
	"time"
)

// Guard says by how much the candidate may be worse than what is in force.
type Guard struct {
	Failed  float64 // percentage points more of failed requests
	Refused float64 // percentage points more of refused ones
	Slower  float64 // percent by which nine of ten requests may take longer
}

// DefaultGuard holds where nothing else is said.
var DefaultGuard = Guard{Failed: 1, Refused: 1, Slower: 50}

const (
	// fewest is how many bad requests are an argument at all: fewer may be
	// anybody's bad luck.
	fewest = 5

	// certainty is by how many standard errors two shares have to differ. It is
	// looked at several times a second, for minutes: at four, chance alone takes a
	// good candidate back once in some hundred trials at most (TestGuard_Chance).
	certainty = 4

	// slowShare is how many of the requests are beyond the ninth of ten by nature,
	// and slowMore how many percentage points more have to be for them to be slow.
	slowShare = 0.9
	slowMore  = 5

	// least is the difference in duration that anybody would notice.
	least = 2 * time.Millisecond
)

// Worse says in what the candidate is worse than what is in force; "": in nothing
// that is certain.
func (g Guard) Worse(candidate, current Counts) string {
	a, b := &candidate, &current
	if worse(a.Failed, a.Requests, b.Failed, b.Requests, g.Failed) {
		return failed(a, b)
	}
	if worse(a.Refused, a.Requests, b.Refused, b.Requests, g.Refused) {
		return refused(a, b)
	}
	usual := b.Quantile(slowShare)
	limit := max(time.Duration(float64(usual)*(1+g.Slower/100)), usual+least)
	if usual > 0 && worse(a.beyond(limit), a.served(), b.beyond(limit), b.served(), slowMore) {
		return fmt.Sprintf("%s of its requests took longer than %v, %s of the others", share(a.beyond(limit), a.served()), limit.Round(100*time.Microsecond), share(b.beyond(limit), b.served()))
	}
	return ""
}

// Doubt says of what the candidate's requests have more than the guard allows, failures
// or refusals, be it by chance: no reason to take it back, and none to go on. "": of
// neither.
func (g Guard) Doubt(candidate, current Counts) string {
	a, b := &candidate, &current
	more := func(k, l uint64, points float64) bool {
		others := 0.0
		if b.Requests > 0 {
			others = float64(l) / float64(b.Requests)
		}
		return k > 0 && 100*(float64(k)/float64(a.Requests)-others) > points
	}
	const rest = ": more than the guard allows, and too few to be certain"
	switch {
	case more(a.Failed, b.Failed, g.Failed):
		return failed(a, b) + rest
	case more(a.Refused, b.Refused, g.Refused):
		return refused(a, b) + rest
	}
	return ""
}

func failed(a, b *Counts) string {
	return fmt.Sprintf("%s of its requests failed, %s of the others", share(a.Failed, a.Requests), share(b.Failed, b.Requests))
}

func refused(a, b *Counts) string {
	return fmt.Sprintf("%s of its requests were refused, %s of the others", share(a.Refused, a.Requests), share(b.Refused, b.Requests))
}

// worse reports whether k of n is more than l of m by some percentage points, and
// certainly so (a test of two proportions with a pooled share).
func worse(k, n, l, m uint64, points float64) bool {
	if k < fewest || m == 0 {
		return false
	}
	p, q := float64(k)/float64(n), float64(l)/float64(m)
	if 100*(p-q) <= points {
		return false
	}
	pooled := float64(k+l) / float64(n+m)
	deviation := math.Sqrt(pooled * (1 - pooled) * (1/float64(n) + 1/float64(m)))
	return deviation > 0 && (p-q)/deviation > certainty
}

func share(k, n uint64) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("%.3g %% (%d of %d)", 100*float64(k)/float64(n), k, n)
}
