package control

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"isthmus/canary"
	"isthmus/history"
)

// counting is a data plane that has counted what a test says.
type counting struct{ bad atomic.Bool }

func (c *counting) counts() (candidate, current canary.Counts, seen canary.Compare) {
	var a, b canary.Arm
	for range 100 {
		b.Count(canary.Served, time.Millisecond)
		if c.bad.Load() {
			a.Count(canary.Failed, 0)
		} else {
			a.Count(canary.Served, time.Millisecond)
		}
	}
	return a.Counts(), b.Counts(), canary.Compare{}
}

// tried is a controller with a folder for a candidate, and what has come of it.
type tried struct {
	*Controller
	t         *testing.T
	use       *consumer
	counted   *counting
	file      string // of the configuration
	candidate string // of the candidate
	dir       string // of the history
}

func withCandidate(t *testing.T, change func(*canary.Plan)) *tried {
	out := &tried{t: t, counted: &counting{}, candidate: filepath.Join(t.TempDir(), "c.yaml"), dir: t.TempDir()}
	plan := canary.Plan{Steps: []float64{50}, Step: time.Nanosecond, Proxies: 100, Guard: canary.DefaultGuard}
	if change != nil {
		change(&plan)
	}
	out.Controller, out.use, _, out.file = still(t, "none", webService, func(o *Options) {
		o.Candidates = Candidates{Paths: []string{filepath.Dir(out.candidate)}, Plan: plan, Counted: out.counted.counts}
	}, onDisk(t, out.dir))
	return out
}

// put writes a file, "" removes it, and takes the steps that follow.
func (c *tried) put(file, text string) {
	c.t.Helper()
	if text == "" {
		if err := os.Remove(file); err != nil {
			c.t.Fatal(err)
		}
	} else {
		write(c.t, file, text)
	}
	c.Reload()
	catchUp(c.Controller)
}

// look judges once, and takes the steps that follow.
func (c *tried) look() {
	if c.judge() {
		c.step()
		catchUp(c.Controller)
	}
}

// again starts with what the process before has left.
func (c *tried) again() {
	c.t.Helper()
	o := c.options
	onDisk(c.t, c.dir)(&o)
	next, err := New(o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(next.closeSources)
	c.Controller = next
	catchUp(next)
}

func (c *tried) want(when string, state canary.State, inForce, candidate string) {
	c.t.Helper()
	s := c.use.snapshot()
	tries := ""
	if s.Candidate != nil {
		tries = s.Candidate.Config.Services[0].Name
	}
	if got := c.Candidate(); got.State != state || s.Config.Services[0].Name != inForce || tries != candidate {
		c.t.Errorf("%s: %s (%s), %s in force, %q on trial; want %s, %s, %q", when, got.State, got.Why, s.Config.Services[0].Name, tries, state, inForce, candidate)
	}
}

// other is a candidate by which web goes and another service comes.
func other(name string) string {
	return strings.Replace(webService, "name: web}", "name: web, annotations: {isthmus.io/removed: 'true'}}", 1) + "---\n" + renamed(name)
}

// TestController_CandidateReturns: one that is worse decides nothing any longer,
// over a restart too, until it is another one or somebody asks for it.
func TestController_CandidateReturns(t *testing.T) {
	c := withCandidate(t, nil)
	c.want("without one", canary.None, "web", "")
	c.counted.bad.Store(true)
	c.put(c.candidate, other("api"))
	c.want("new", canary.Partial, "web", "api")
	c.look()
	c.want("worse", canary.Returned, "web", "")
	if why := c.Candidate().Why; !strings.HasPrefix(why, "taken back at 50 % of the requests: 100 % (100 of 100) of its requests failed") {
		t.Errorf("why %q", why)
	}
	if r := c.history.List()[0]; r.Origin != history.FromCandidate || !r.Refused() || !c.history.List()[1].InForce {
		t.Errorf("the history has %+v", r)
	}
	c.again()
	c.want("started again", canary.Returned, "web", "")
	if n := c.Candidate().Candidate.Requests; n > 0 {
		t.Errorf("%d requests are shown of one that has not been tried", n)
	}
	if err := c.Steer("promote"); err == nil {
		t.Error("one that was taken back can be promoted")
	}
	if err := c.Steer("retry"); err != nil {
		t.Error(err)
	}
	catchUp(c.Controller)
	c.want("tried again", canary.Partial, "web", "api")
	if err := c.Steer("return"); err != nil {
		t.Error(err)
	}
	catchUp(c.Controller)
	c.want("by hand", canary.Returned, "web", "")
	c.put(c.candidate, other("more"))
	c.want("another one", canary.Partial, "web", "more")
	c.put(c.candidate, "kind: [")
	c.want("a broken one", canary.Rejected, "web", "")
	if s := c.Status().Snapshot; s.Error != "" {
		t.Errorf("a broken candidate is an error of what is in force: %s", s.Error)
	}
	c.put(c.candidate, webService)
	c.want("one that says the same", canary.None, "web", "")
	c.put(c.candidate, other("more"))
	c.put(c.file, broken)
	c.want("beside broken files", canary.None, "web", "")
	c.put(c.file, webService+"# new\n")
	c.want("over new files", canary.Partial, "web", "more")
	c.put(c.candidate, "")
	c.want("gone", canary.None, "web", "")
}

// TestController_CandidateStays: of one that is in doubt the log says once that it stays
// in its stage, and why; when that is over, it goes on.
func TestController_CandidateStays(t *testing.T) {
	var log bytes.Buffer // judge writes to it, in this goroutine
	var failed atomic.Uint64
	failed.Store(2)
	c := withCandidate(t, nil)
	c.log = slog.New(slog.NewTextHandler(&log, nil))
	c.options.Candidates.Counted = func() (candidate, current canary.Counts, seen canary.Compare) {
		candidate.Requests, candidate.Failed, current.Requests = 10, failed.Load(), 100
		return candidate, current, seen
	}
	c.put(c.candidate, other("api"))
	for range 3 {
		c.look()
	}
	c.want("in doubt", canary.Partial, "web", "api")
	const why = "20 % (2 of 10) of its requests failed, 0 % (0 of 100) of the others"
	if got := c.Candidate().Why; !strings.HasPrefix(got, why) || strings.Count(log.String(), why) != 1 {
		t.Errorf("why %q; the log: %s", got, log.String())
	}
	failed.Store(0)
	c.look()
	c.want("no longer", canary.Promoted, "api", "")
	if got := c.Candidate().Why; got != "" {
		t.Errorf("promoted, why %q", got)
	}
}

// TestController_CandidatePromoted: one that is not worse comes into force, and
// stays so until either's files change.
func TestController_CandidatePromoted(t *testing.T) {
	c := withCandidate(t, func(p *canary.Plan) { p.Shadow = time.Nanosecond })
	c.put(c.candidate, other("api"))
	c.want("new", canary.Shadow, "web", "api")
	c.look()
	c.want("after the shadow", canary.Partial, "web", "api")
	c.look()
	c.want("not worse", canary.Promoted, "api", "")
	if r := c.history.Current(); r.Origin != history.FromPromotion || !r.Kept {
		t.Errorf("the history has %+v", r)
	}
	c.Reload()
	catchUp(c.Controller)
	c.want("read again", canary.Promoted, "api", "")
	c.again()
	c.want("started again", canary.Promoted, "api", "")
	write(t, c.file, broken)
	c.again()
	c.want("started beside broken files", canary.None, "api", "")
	c.put(c.file, webService)
	c.want("with files as they were", canary.Promoted, "api", "")
	c.put(c.candidate, "kind: [")
	c.want("with a candidate that cannot be used", canary.Rejected, "api", "")
	c.again()
	c.want("started again with it", canary.Rejected, "api", "")
	c.put(c.candidate, other("api"))
	c.want("with the candidate as it was", canary.Promoted, "api", "")

	if err := rollBack(t, c.Controller, 1); err != nil {
		t.Fatal(err)
	}
	c.want("rolled back", canary.None, "web", "")
	c.again()
	c.want("rolled back, started again", canary.None, "web", "")
	c.put(c.file, webService+"# new\n")
	c.want("over new files", canary.Shadow, "web", "api")
	if err := c.Steer("promote"); err != nil {
		t.Error(err)
	}
	catchUp(c.Controller)
	c.want("by hand", canary.Promoted, "api", "")
	c.put(c.file, renamed("api"))
	c.put(c.candidate, "")
	c.want("moved into the configuration", canary.None, "api", "")

	c.put(c.candidate, renamed("more"))
	c.look()
	c.use.mu.Lock()
	c.use.refuse, c.use.acceptHash = errors.New("a port is in use"), c.config.Hash
	c.use.mu.Unlock()
	c.look()
	c.want("what cannot be published", canary.Returned, "api", "")
	if why := c.Candidate().Why; why != "taken back as it was to hold for all: it cannot be published: a port is in use" {
		t.Errorf("why %q", why)
	}
}

// TestController_CandidateUnread: what could not be read of a candidate, or of the files that
// it lies over, is no part of its hash; without it, it is another one all the same.
func TestController_CandidateUnread(t *testing.T) {
	c := withCandidate(t, nil)
	link := filepath.Join(filepath.Dir(c.candidate), "link.yaml")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	c.put(c.candidate, other("api"))
	c.want("with a link to nothing", canary.Rejected, "web", "")
	c.put(link, "")
	c.want("without", canary.Partial, "web", "api")

	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	c.Reload()
	catchUp(c.Controller)
	c.want("with it again", canary.Rejected, "web", "")
	c.again()
	c.want("started again", canary.Rejected, "web", "")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	c.again()
	c.want("started again without", canary.Partial, "web", "api")
	c.counted.bad.Store(true)
	c.look()
	c.want("worse", canary.Returned, "web", "")
	c.again()
	c.want("worse, started again", canary.Returned, "web", "")
}

// TestController_CandidateProxies: some proxies try, the others wait.
func TestController_CandidateProxies(t *testing.T) {
	c := withCandidate(t, func(p *canary.Plan) { p.Proxies = 0 })
	c.put(c.candidate, other("api"))
	c.want("none takes part", canary.Waiting, "web", "")
}

// TestController_SteeredWhileReading: what an operator, or the guard, has decided just as
// the files are to be read, or a revision to be brought back, is done, and waited for.
func TestController_SteeredWhileReading(t *testing.T) {
	c := withCandidate(t, nil)
	c.put(c.candidate, other("api"))
	c.want("new", canary.Partial, "web", "api")
	if err := c.Steer("promote"); err != nil {
		t.Fatal(err)
	}
	c.Reload()
	c.gossip = nil // which would have it take one step more
	steered := c.steered
	for catching := true; catching; {
		select {
		case <-c.wake:
			c.step()
		default:
			catching = false
		}
		select {
		case <-steered:
			c.want("as soon as it is said to hold", canary.Promoted, "api", "")
		default:
		}
	}
	if steered == nil || c.steered != nil {
		t.Error("who waits for what has been decided does not hear of it")
	}
	c.want("with files that are read", canary.Promoted, "api", "")

	c = withCandidate(t, nil)
	c.put(c.candidate, other("api"))
	if !c.judge() {
		t.Error("the guard does not promote what is not worse")
	}
	c.gossip = nil
	c.Reload()
	catchUp(c.Controller)
	c.want("by the guard, with files that are read", canary.Promoted, "api", "")
}

// TestController_SteeredWhileJudged: operators decide while the guard does.
func TestController_SteeredWhileJudged(t *testing.T) {
	c := withCandidate(t, func(p *canary.Plan) { p.Requests = 1000 }) // more than are counted
	c.put(c.candidate, other("api"))
	done := make(chan struct{})
	go func() { // ends by itself
		defer close(done)
		for range 200 {
			c.Steer("return")
			c.Steer("retry")
			c.Candidate()
		}
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		c.judge()
		c.step()
	}
	catchUp(c.Controller)
	c.want("in the end", canary.Partial, "web", "api")
}

// TestController_ReadBesideRollback: files that are to be read just as a revision is to be
// brought back that cannot be are read.
func TestController_ReadBesideRollback(t *testing.T) {
	c, use, _, file := still(t, "none", webService)
	write(t, file, renamed("api"))
	c.Reload()
	c.mu.Lock()
	c.asked = &rollback{1000, make(chan error, 1)} // there is none
	asked := c.asked
	c.mu.Unlock()
	catchUp(c)
	if err := <-asked.done; err == nil {
		t.Error("brought back")
	}
	if name := use.snapshot().Config.Services[0].Name; name != "api" {
		t.Errorf("in force: %s, want what the files say", name)
	}
}

// TestController_TriesNothing: who waits for a candidate that is not looked at is told why.
func TestController_TriesNothing(t *testing.T) {
	c := withCandidate(t, nil)
	c.put(c.file, renamed("api"))
	back := make(chan error, 1)
	c.mu.Lock()
	c.asked = &rollback{1, back}
	c.mu.Unlock()
	c.Wake()
	catchUp(c.Controller)
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file, text, state, why string
	}{
		{c.candidate, other("cart"), "", "the rollback to revision 1 holds"},
		{c.file, renamed("store"), "percent", ""},
		{c.file, "kind: Service\n", "", "cannot be used"},
		{c.file, renamed("store"), "percent", ""},
	} {
		c.put(tt.file, tt.text)
		if now := c.Candidate(); string(now.State) != tt.state || !strings.Contains(now.Why, tt.why) || tt.why == "" && now.Why != "" {
			t.Errorf("after %s: state %q, why %q, want %q, %q", tt.text, now.State, now.Why, tt.state, tt.why)
		}
	}
}

// TestController_SteeredBesideRefused: who waits for what he has decided hears of it though
// the files that are read just then are refused by the data plane, and tried again.
func TestController_SteeredBesideRefused(t *testing.T) {
	c := withCandidate(t, nil)
	c.put(c.candidate, other("api"))
	c.gossip = nil // which would have it take one step more
	if err := c.Steer("promote"); err != nil {
		t.Fatal(err)
	}
	c.use.refuse, c.use.acceptHash = errors.New("a port is in use"), c.config.Hash
	write(t, c.file, renamed("store"))
	c.Reload()
	for steps := 0; len(c.wake) > 0; steps++ {
		if steps == 10 {
			t.Fatal("one step leads to the next for ever")
		}
		<-c.wake
		c.step()
	}
	if c.steered != nil {
		t.Error("who waits does not hear of it")
	}
	if c.denied.IsZero() {
		t.Error("the files are not tried again")
	}
}
