package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"isthmus/canary"
	"isthmus/config"
	"isthmus/history"
	"isthmus/mesh"
)

// Candidates say where a configuration to be tried is found, and how it is tried.
type Candidates struct {
	Paths []string // none: nothing is tried
	Plan  canary.Plan

	// Counted returns what the data plane has counted of the stage that it was
	// last told of.
	Counted func() (candidate, current canary.Counts, seen canary.Compare)
}

// trial is a candidate on its way.
type trial struct {
	*canary.Trial
	number  uint64 // of trials that have begun; 0: this one has not
	set     *loaded
	changes history.Changes
	due     bool // it is to come into force now
}

// trialLook is how often a trial on its way is judged: a candidate that fails all
// that it gets does so for that long at most, once that is certain.
const trialLook = 250 * time.Millisecond

// readCandidate finds out whether there is something to be tried. A candidate is
// one with the files that it lies over: a change of either begins anew.
func (c *Controller) readCandidate() {
	if len(c.options.Candidates.Paths) == 0 {
		return
	}
	c.mu.Lock()
	last := c.trial
	c.mu.Unlock()
	hold := c.history.Hold()
	if c.triesNothing(hold) != "" {
		c.setTrial(nil) // nor is it read: somebody may be writing it
		return
	}
	r := config.LoadCandidate(c.options.Paths, c.options.Candidates.Paths, c.options.Node)
	if r == nil {
		c.setTrial(nil)
		return
	}
	set := c.take(r, history.FromCandidate)
	// What cannot be read is no part of the hash.
	if last != nil && last.set.config.Hash == set.config.Hash && fmt.Sprint(last.set.err) == fmt.Sprint(set.err) {
		return
	}
	c.setTrial(c.newTrial(set, hold, time.Now()))
}

// triesNothing says why no candidate is tried, whatever there is of one; "": it would be.
func (c *Controller) triesNothing(h history.Hold) string {
	c.mu.Lock()
	unused := c.unused
	c.mu.Unlock()
	switch {
	case h.Origin == history.FromRollback && h.Revision != 0:
		return fmt.Sprintf("the rollback to revision %d holds: until the files of the configuration change, nothing is tried", h.Revision)
	case unused != nil:
		return "the files of the configuration cannot be used: until they can, nothing is tried"
	}
	return ""
}

// newTrial begins with a candidate, unless it is known how that ends.
func (c *Controller) newTrial(set *loaded, hold history.Hold, now time.Time) *trial {
	t := &trial{Trial: &canary.Trial{Plan: c.options.Candidates.Plan, Since: now}, set: set}
	current := c.history.Current()
	if _, _, resources, err := c.history.Content(current.Number); err == nil {
		t.changes = history.Compare(resources, set.resources)
	}
	hash := set.config.Hash
	switch {
	case set.err != nil:
		t.State, t.Why = canary.Rejected, set.err.Error()
		c.refuse(set, set.err)
	case hold.Revision != 0 && hold.Against == hash:
		t.State = canary.Promoted
	case current.Kept && t.changes.Empty():
		return nil // the files say the same
	case c.takenBack(hash) != "":
		t.State, t.Why = canary.Returned, c.takenBack(hash)
	case xxhash.Sum64String(hash+c.options.Node.Member())%10_000 >= uint64(100*t.Proxies):
		t.State = canary.Waiting
	default:
		c.mu.Lock()
		c.start(t, now)
		c.mu.Unlock()
	}
	return t
}

// start begins with a trial, or anew. The caller holds mu.
func (c *Controller) start(t *trial, now time.Time) {
	c.trials++
	t.Trial, t.number = canary.Begin(t.Plan, now), c.trials
}

// takenBack returns why a candidate was taken back before; "": it was not.
func (c *Controller) takenBack(hash string) string {
	for _, r := range c.history.List() {
		if r.Origin == history.FromCandidate && r.Hash == hash && strings.HasPrefix(r.Error, canary.TakenBack) { // and not refused before it was tried
			return r.Error
		}
	}
	return ""
}

// setTrial has a candidate tried; nil: none.
func (c *Controller) setTrial(t *trial) {
	var now canary.Trial // as it is put there; then operators decide about it
	if t != nil {
		now = *t.Trial
	}
	c.mu.Lock()
	before := c.trial
	c.trial = t
	c.mu.Unlock()
	switch {
	case t != nil && now.State == canary.Rejected:
		c.log.Error("the candidate configuration is not used", "hash", t.set.config.Hash, "error", now.Why)
	case t != nil:
		c.log.Info("candidate configuration", "hash", t.set.config.Hash, "state", string(now.State), "percent", now.Percent(),
			"added", len(t.changes.Added), "removed", len(t.changes.Removed), "changed", len(t.changes.Changed))
	case before != nil:
		c.log.Info("there is no candidate configuration any longer", "hash", before.set.config.Hash)
	}
	if t != nil || before != nil {
		c.Wake()
	}
}

// judge looks at the trial that is under way, and reports whether there is
// something to be done.
func (c *Controller) judge() bool {
	c.mu.Lock()
	t, number := c.trial, uint64(0)
	if s := c.snapshot.Candidate; t != nil && t.State.Live() && s != nil && s.Trial == t.number && s.Stage == t.Stage {
		number = t.number // of what is counted
	}
	c.mu.Unlock()
	if number == 0 {
		return false
	}
	candidate, current, _ := c.options.Candidates.Counted()
	c.mu.Lock()
	if t.number != number { // begun anew meanwhile
		c.mu.Unlock()
		return false
	}
	before := t.Why
	moved := t.Advance(time.Now(), candidate, current)
	t.due = t.State == canary.Promoted
	now := *t.Trial
	c.mu.Unlock()
	switch {
	case moved:
		c.tellTrial(t.set, now, candidate, current)
	case now.Why != "" && before == "":
		c.log.Warn("the candidate configuration stays in its stage until that is certain, or over: isthmus config canary promote or return decides", "hash", t.set.config.Hash,
			"percent", now.Percent(), "why", now.Why)
	}
	return moved
}

// tellTrial says in the log, and in the history, where the trial of a set has come to.
func (c *Controller) tellTrial(set *loaded, now canary.Trial, candidate, current canary.Counts) {
	if now.State == canary.Returned {
		c.log.Error("the candidate configuration is taken back", "hash", set.config.Hash, "why", now.Why, "failed", candidate.Failed, "of", candidate.Requests)
		c.refuse(set, errors.New(now.Why))
		return
	}
	c.log.Info("the candidate configuration goes on", "hash", set.config.Hash, "state", string(now.State), "percent", now.Percent(),
		"requests", candidate.Requests, "failed", candidate.Failed, "refused", candidate.Refused, "others", current.Requests)
}

// promoted returns the candidate that is to come into force now; nil: none is.
func (c *Controller) promoted() *loaded {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trial == nil || !c.trial.due {
		return nil
	}
	c.trial.due = false
	next := *c.trial.set
	next.origin = history.FromPromotion
	return &next
}

// cannotPromote takes a candidate back that the data plane does not take.
func (c *Controller) cannotPromote(err error) {
	c.mu.Lock()
	t := c.trial
	t.Return("it cannot be published: " + err.Error())
	now := *t.Trial
	c.mu.Unlock()
	c.tellTrial(t.set, now, canary.Counts{}, canary.Counts{})
}

// candidate makes the part of a snapshot that is on trial; nil: nothing is. in is
// what the files in force make of what is known.
func (c *Controller) candidate(known mesh.Known, in *mesh.Registry) *mesh.Candidate {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.trial
	if t == nil || !t.State.Live() {
		return nil
	}
	known.Config, known.Previous, known.Beside = t.set.config, nil, in
	_, known.Probed = c.probes.health(probedWorkloads(c.options.Node, known.Config)) // by probes of the files in force
	if last := c.snapshot; last != nil && last.Candidate != nil {
		known.Previous = last.Candidate.Registry
	}
	out := &mesh.Candidate{
		Config: known.Config, Registry: mesh.NewRegistry(known), Rules: mesh.NewRules(known.Node, known.Config.DestinationRules),
		Trial: t.number, Stage: t.Stage, Share: share(t.Percent()), Sample: share(t.Sample), Sticky: t.Sticky,
	}
	return out
}

func share(percent float64) mesh.Fraction {
	return mesh.Fraction(math.Round(percent / 100 * float64(mesh.AllRequests)))
}

// sameCandidate reports whether two snapshots have the same on trial, as far as
// requests could tell.
func sameCandidate(a, b *mesh.Candidate) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Trial == b.Trial && a.Stage == b.Stage && sameEndpoints(a.Registry, b.Registry)
}

// Candidate is what an operator wants to know of the one that is tried.
type Candidate struct {
	State              canary.State
	Hash               string
	Why                string // of its state; of None, why nothing is tried
	Percent            float64
	Stage, Stages      int
	Since              time.Time
	Changes            history.Changes
	Candidate, Current canary.Counts // of this stage
	Seen               canary.Compare
}

// Candidate returns how far a candidate has come.
func (c *Controller) Candidate() Candidate {
	out := Candidate{Seen: canary.Compare{Differences: []canary.Difference{}}, Changes: history.Compare(nil, nil)}
	c.mu.Lock()
	t, begun := c.trial, false
	if t != nil {
		begun = t.number > 0
		out.State, out.Hash, out.Why, out.Percent, out.Changes = t.State, t.set.config.Hash, t.Why, t.Percent(), t.changes
		out.Stage, out.Stages, out.Since = t.Stage, len(t.Steps), t.Since
	}
	c.mu.Unlock()
	if t == nil && len(c.options.Candidates.Paths) > 0 {
		out.Why = c.triesNothing(c.history.Hold())
	}
	if begun && c.options.Candidates.Counted != nil { // else it would be another's
		out.Candidate, out.Current, out.Seen = c.options.Candidates.Counted()
	}
	return out
}

// Steer has an operator decide in the place of the guard: "promote" a candidate
// now, "return" it, or "retry" one that was taken back.
func (c *Controller) Steer(do string) error {
	c.mu.Lock()
	t := c.trial
	err := c.decide(t, do)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	if c.steered == nil {
		c.steered = make(chan struct{})
	}
	now := *t.Trial
	c.mu.Unlock()
	c.tellTrial(t.set, now, canary.Counts{}, canary.Counts{})
	c.Wake()
	return nil
}

// AwaitSteered waits until what Steer has decided holds for requests, or ctx is
// over.
func (c *Controller) AwaitSteered(ctx context.Context) {
	c.mu.Lock()
	steered := c.steered
	c.mu.Unlock()
	if steered == nil {
		return
	}
	select {
	case <-steered:
	case <-ctx.Done():
	}
}

// decide does so. The caller holds mu.
func (c *Controller) decide(t *trial, do string) error {
	switch {
	case do != "promote" && do != "return" && do != "retry":
		return fmt.Errorf("%q: write promote, return or retry", do)
	case t == nil:
		return errors.New("there is no candidate")
	case do == "retry" && t.State != canary.Returned, do != "retry" && !t.State.Live():
		return fmt.Errorf("the candidate is %s: %s is not for it", t.State, do)
	case do == "retry":
		c.start(t, time.Now())
	case do == "promote":
		t.State, t.due = canary.Promoted, true
	default:
		t.Return("an operator has asked for it")
	}
	return nil
}
