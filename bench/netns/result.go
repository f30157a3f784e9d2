package main

import (
	"fmt"
	"math"
	"time"
)

// check is one thing that has to hold.
type check struct {
	what string
	got  string
	ok   bool
}

// result is what a scenario has shown.
type result struct {
	scenario scenario
	setting  string

	measured      bool // figures say something
	figures       figures
	event         time.Duration // in the load
	showsClean    bool          // the time until no request is touched says something
	amplification float64       // requests that applications saw for each that clients sent; 0: not measured

	checks []check
	notes  []string
	err    error // it could not be carried out
}

func (r *result) check(ok bool, what, got string, args ...any) {
	r.checks = append(r.checks, check{what, fmt.Sprintf(got, args...), ok})
}

func (r *result) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// ok reports whether every check holds.
func (r *result) ok() bool {
	for _, c := range r.checks {
		if !c.ok {
			return false
		}
	}
	return r.err == nil
}

// noneFailed is the goal of every scenario with another way to go.
func (r *result) noneFailed() {
	r.check(r.measured && r.figures.failed == 0, "no request fails", "%d of %d failed%s", r.figures.failed, r.figures.sent, afterColon(tally(r.figures.errors)))
}

// maxAmplification is the most requests that applications may see for each
// request of a client.
const maxAmplification = 1.2

func (r *result) amplified() {
	r.check(r.amplification > 0 && r.amplification <= maxAmplification, fmt.Sprintf("retry amplification at most %.1f", maxAmplification), "%.2f", r.amplification)
}

// share checks that n draws of a share came as often as they should: five
// standard deviations are missed once in two million runs.
func (r *result) share(what string, got, n int, share float64) {
	sigma := math.Sqrt(float64(n) * share * (1 - share))
	want := float64(n) * share
	r.check(math.Abs(float64(got)-want) <= 5*sigma, fmt.Sprintf("%s: %.0f %%", what, 100*share), "%d of %d (%.1f %%)", got, n, 100*float64(got)/float64(n))
}

func afterColon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}
