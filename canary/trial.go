package canary

import (
	"fmt"
	"time"
)

// Plan says how a candidate is tried.
type Plan struct {
	Shadow   time.Duration // for how long decisions are compared, and none is the candidate's
	Sample   float64       // percent of requests whose decisions are compared meanwhile
	Steps    []float64     // percent of requests that the candidate decides, one step after the other
	Step     time.Duration // how long each lasts at least
	Requests uint64        // that the candidate must have decided in each step, too
	Sticky   string        // the header by which requests belong to one side
	Proxies  float64       // percent of proxies that take part
	Guard    Guard
}

// DefaultPlan holds where nothing else is said: a quarter of an hour, with one
// request of a hundred at first.
var DefaultPlan = Plan{
	Shadow: time.Minute, Sample: 1, Steps: []float64{1, 10, 50}, Step: 5 * time.Minute, Requests: 100,
	Sticky: "x-request-id", Proxies: 100, Guard: DefaultGuard,
}

// State is how far a trial has come.
type State string

// The states.
const (
	None     State = ""         // there is no candidate
	Waiting  State = "waiting"  // other proxies try it
	Shadow   State = "shadow"   // decisions are compared
	Partial  State = "percent"  // it decides for a part of the requests
	Returned State = "returned" // it was worse, and decides nothing
	Promoted State = "promoted" // it decides for all
	Rejected State = "refused"  // it cannot be used at all
)

// Live reports whether the data plane has to do with the candidate beside what
// is in force.
func (s State) Live() bool { return s == Shadow || s == Partial }

// Trial is a candidate's way. It is used by one goroutine.
type Trial struct {
	Plan
	State State
	Stage int       // counted from 0, shadow included; with each the counts begin anew
	Since time.Time // of the stage
	Why   string    // of Returned and Rejected; of one on its way, why it does not go on though its time is over
}

// Begin makes a trial.
func Begin(p Plan, now time.Time) *Trial {
	t := &Trial{Plan: p, State: Shadow, Since: now}
	if p.Shadow == 0 {
		t.next(now)
	}
	return t
}

// Percent is the part of the requests that the candidate decides.
func (t *Trial) Percent() float64 {
	if t.State != Partial {
		return 0
	}
	return t.Steps[t.Stage-1]
}

// next goes to the next stage.
func (t *Trial) next(now time.Time) {
	if t.Stage == len(t.Steps) {
		t.State, t.Why = Promoted, ""
		return
	}
	t.Stage++
	t.State, t.Since, t.Why = Partial, now, ""
}

// Advance judges by what was counted in this stage, and reports whether the
// stage or state is another one now.
func (t *Trial) Advance(now time.Time, candidate, current Counts) bool {
	if !t.State.Live() {
		return false
	}
	if why := t.Guard.Worse(candidate, current); why != "" {
		t.Return(why)
		return true
	}
	lasts := t.Step
	if t.State == Shadow {
		lasts = t.Shadow
	}
	if now.Sub(t.Since) < lasts || t.State == Partial && candidate.Requests < t.Requests {
		return false
	}
	alone := t.Percent() == 100 && current.Requests == 0 // there is nobody to compare it with, nor will be
	if doubt := t.Guard.Doubt(candidate, current); !alone && doubt != "" {
		t.Why = doubt
		return false
	}
	t.next(now)
	return true
}

// TakenBack is how the reason of a candidate begins that was taken back.
const TakenBack = "taken back "

// Return takes the candidate back.
func (t *Trial) Return(why string) {
	stage := "in shadow"
	switch t.State {
	case Partial:
		stage = fmt.Sprintf("at %g %% of the requests", t.Percent())
	case Promoted:
		stage = "as it was to hold for all"
	}
	t.State, t.Why = Returned, TakenBack+stage+": "+why
}
