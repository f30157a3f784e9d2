// Package control is the only writer: it brings configuration, gossip, DNS and
// probes together into snapshots and publishes them, one after the other.
//
// One goroutine does it. Whoever has news wakes it; what comes within a moment
// is taken together. It never publishes a set with an error, or one that cannot
// be compiled: the snapshot before stays, and [Controller.Status] says why.
package control

import (
	"cmp"
	"context"
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"isthmus/config"
	"isthmus/gossip"
	"isthmus/health"
	"isthmus/history"
	"isthmus/mesh"
)

// Gossip is what control needs of a gossip member; *gossip.Gossip has it.
type Gossip interface {
	Announce([]mesh.Endpoint)
	Endpoints() []gossip.Announced
}

// Options say what is brought together, and who gets it.
type Options struct {
	Node     *mesh.Node
	Paths    []string // of the configuration
	Announce string   // own, direct, through, none
	Inbound  string   // address of the inbound listener; its port is announced

	// Publish takes a snapshot in, or refuses it and goes on with the one
	// before.
	Publish func(*mesh.Snapshot) error
	Logger  *slog.Logger

	ResolvConf, Hosts string // of DNS; default: those of the system

	History *history.Store // of the configuration; nil: one in memory

	Candidates Candidates // that are tried beside it

	Remote  RemoteProbes
	MeshTLS func() (*stdtls.Config, error) // how other proxies are asked by mTLS; nil if Node has no identity

	look func(context.Context, health.Job) health.Found // default: a health.Looker's
}

// Status is what an operator wants to know of it.
type Status struct {
	Ready    bool   `json:"ready"`
	Reason   string `json:"reason,omitempty"` // why not ready
	Snapshot struct {
		Number uint64  `json:"number"`
		Hash   string  `json:"hash"`
		Age    float64 `json:"age"` // seconds
		Error  string  `json:"error"`

		Revision uint64 `json:"revision"` // of the configuration; see package history
		Rollback uint64 `json:"rollback"` // the revision that was brought back; 0: the files are in force
	} `json:"snapshot"`
	Warnings  int `json:"warnings"`
	Endpoints struct {
		Total int `json:"total"`
		Ready int `json:"ready"`
	} `json:"endpoints"`
}

// Controller makes snapshots.
type Controller struct {
	options Options
	log     *slog.Logger
	gossip  Gossip // nil: none
	dns     *resolver
	probes  *probes
	wake    chan struct{}
	done    chan struct{}
	cancel  context.CancelFunc

	history *history.Store

	// What the goroutine works on.
	config   *mesh.Config
	settling *config.Settling // of the files, the candidate's too
	written  bool             // somebody is writing them: they are read when nobody is
	read     int              // resources, since memory was given back

	mu       sync.Mutex // guards what is below
	snapshot *mesh.Snapshot
	unused   error            // why the files, as they are now, are not in force
	refused  error            // why the latest snapshot of the files in force was not taken in
	findings []config.Finding // of the configuration in force; never changed
	warnings int
	reload   bool          // the files are to be read again
	asked    *rollback     // to be made; nil: none
	steered  chan struct{} // closed when what an operator has decided on the candidate is published; nil: nothing is
	trial    *trial        // of a candidate; nil: there is none. Only run changes it
	denied   bool          // the data plane has refused them, so they are tried again; only run looks
	draining bool
}

// How changes are gathered: from the first on for gather, so that the news of
// a whole cluster make one snapshot.
const gather = 50 * time.Millisecond

// New reads the configuration and publishes the first snapshot. An error in
// the configuration is the caller's to report: the proxy must not start.
func New(o Options) (*Controller, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	c := &Controller{
		options: o, log: o.Logger,
		wake: make(chan struct{}, 1), done: make(chan struct{}), history: o.History,
		settling: config.NewSettling(slices.Concat(o.Paths, o.Candidates.Paths)...),
	}
	if c.history == nil {
		c.history, _ = history.Open("", c.log) // in memory, nothing can fail
	}
	first := c.begin()
	if first.err != nil {
		return nil, first.err
	}
	c.config = first.config
	c.dns = newResolver(o.ResolvConf, o.Hosts, c.Wake)
	c.probes = newProbes(o, c.Wake)
	if err := c.update(); err != nil {
		c.closeSources()
		return nil, err
	}
	c.accept(first)
	c.readCandidate()
	return c, nil
}

// Start begins to follow changes: of files, of gossip (nil: none), of DNS. It
// ends with Close.
func (c *Controller) Start(g Gossip) error {
	ctx, cancel := context.WithCancel(context.Background())
	if err := config.Watch(ctx, slices.Concat(c.options.Paths, c.options.Candidates.Paths), c.Reload); err != nil {
		cancel()
		return fmt.Errorf("watch the configuration: %w", err)
	}
	c.cancel, c.gossip = cancel, g
	go c.run(ctx)
	c.Wake()
	return nil
}

// Close ends the controller's goroutines. Start must have been called.
func (c *Controller) Close() {
	c.cancel()
	<-c.done
	c.closeSources()
}

func (c *Controller) closeSources() {
	c.probes.close()
	c.dns.close()
}

// Wake says that something may have changed.
func (c *Controller) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Reload has the files read again.
func (c *Controller) Reload() {
	c.mu.Lock()
	c.reload = true
	c.mu.Unlock()
	c.Wake()
}

// Drain announces that this proxy is going, so that nobody sends it new
// requests; Status is no longer ready.
func (c *Controller) Drain() {
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	c.Wake()
}

// run makes a snapshot after every change. Start starts it; it ends with ctx.
func (c *Controller) run(ctx context.Context) {
	defer close(c.done)
	// The clock goes on for endpoints that are to be dropped.
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	again := time.NewTimer(tryAgain)
	again.Stop() // until something is refused
	spare := time.NewTimer(giveBackAfter)
	defer spare.Stop()
	var look <-chan time.Time
	if len(c.options.Candidates.Paths) > 0 {
		t := time.NewTicker(trialLook)
		defer t.Stop()
		look = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-look:
			if !c.judge() {
				continue
			}
		case <-again.C:
		case <-spare.C:
			c.giveBack()
			continue
		case <-c.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(gather):
		}
		select {
		case <-c.wake: // taken along
		default:
		}
		wait := c.await()
		if !c.step() {
			wait = cmp.Or(wait, tryAgain)
		}
		if wait > 0 {
			again.Reset(wait)
		}
		if c.read > 0 {
			spare.Reset(giveBackAfter)
		}
	}
}

// await says when to look again at files that are to be read while somebody is
// writing them; 0: they can be read, or need not be.
func (c *Controller) await() time.Duration {
	c.mu.Lock()
	due := c.reload || c.denied
	c.mu.Unlock()
	if c.written = false; !due {
		return 0
	}
	wait, late := c.settling.Wait()
	if late != nil {
		c.note(&c.unused, errors.New(late.String()))
	}
	c.written = wait > 0
	return wait
}

// tryAgain is when a configuration is published again that the data plane has
// refused: somebody else may have had a port.
const tryAgain = 5 * time.Second

// step reads the files again if that was asked for, and publishes what is
// known. News from gossip and DNS never wait for files that cannot be used. It
// is false if the data plane has refused what the files say.
func (c *Controller) step() bool {
	c.mu.Lock()
	reload, asked := (c.reload || c.denied) && !c.written, c.asked
	c.reload, c.asked = (c.reload || c.denied) && c.written, nil
	steered := c.steered
	c.steered = nil
	c.mu.Unlock()
	if steered != nil {
		defer close(steered)
	}
	before := c.config
	var next *loaded
	switch {
	case asked != nil:
		if next = c.revive(asked.number); next.err != nil {
			asked.done <- next.err
			next = nil
		}
	case reload:
		next = c.loadChanged()
	default:
		next = c.promoted()
	}
	if next != nil {
		c.config = next.config
	}
	err := c.update()
	c.denied = err != nil && next != nil && next.origin == history.FromFiles
	if next != nil {
		if c.denied || err == nil {
			c.note(&c.unused, err)
		}
		switch {
		case err == nil:
			c.accept(next)
		case next.origin == history.FromPromotion:
			c.cannotPromote(err)
		default:
			c.refuse(next, err)
		}
		if asked != nil {
			asked.done <- err
		}
		if err != nil {
			c.config = before
			err = c.update()
		}
	}
	c.note(&c.refused, err)
	if reload || asked != nil {
		c.readCandidate()
	}
	return !c.denied
}

// note remembers why something is not used, for Status; nil: it is.
func (c *Controller) note(reason *error, err error) {
	c.mu.Lock()
	said := *reason != nil && err != nil && (*reason).Error() == err.Error()
	*reason = err
	c.mu.Unlock()
	if err != nil && !said {
		c.log.Error("what is new is not used, the snapshot before stays", "error", err)
	}
}

// maxReported bounds how many findings an error tells of.
const maxReported = 20

// loaded is a configuration that was read, and what is kept of it.
type loaded struct {
	config    *mesh.Config
	files     []history.File // nil: they cannot be kept
	resources []history.Resource
	findings  []config.Finding
	warnings  int
	err       error // why it must not be used

	origin history.Origin
	of     uint64 // of FromRollback
}

// load reads the files. An error lists what is wrong, a line each.
func (c *Controller) load() *loaded {
	defer beThrifty()()
	return c.take(config.Load(c.options.Paths, c.options.Node), history.FromFiles)
}

// take makes use of what was read.
func (c *Controller) take(r *config.Result, origin history.Origin) *loaded {
	c.read += len(r.Resources)
	l := &loaded{config: r.Config, resources: r.Resources, findings: r.Findings, warnings: r.Count(config.Warning), origin: origin}
	files := make([]history.File, len(r.Files))
	for i, f := range r.Files {
		files[i] = history.File(f)
	}
	if files, n, ok := history.Redact(files); ok && n == r.Secrets {
		l.files = files
	}
	var errs []error
	for _, f := range r.Findings {
		if f.Severity == config.Error {
			errs = append(errs, errors.New(f.String()))
		}
	}
	if n := len(errs); n > maxReported {
		errs = append(errs[:maxReported], fmt.Errorf("and %d more: isthmus validate lists all", n-maxReported))
	}
	l.err = errors.Join(errs...)
	return l
}

// update publishes a snapshot of what is known now, if it differs from the one
// before.
func (c *Controller) update() error {
	c.mu.Lock()
	last := c.snapshot
	c.mu.Unlock()
	if c.gossip != nil && last != nil && last.Config == c.config {
		c.gossip.Announce(c.announcements()) // nothing is promised that is not in force
	}
	now := time.Now()
	workloads := probedWorkloads(c.options.Node, c.config)
	application, probed := c.probes.health(workloads)
	announced, suspects := c.announced(now, application)
	known := mesh.Known{
		Node: c.options.Node, Config: c.config,
		Announced: announced, Addresses: c.dns.answers(), Probed: probed, Now: now,
	}
	if last != nil {
		known.Previous = last.Registry
		known.Unreachable = c.probes.unreachable(last.Registry)
	}
	reg := mesh.NewRegistry(known)
	unresolved := reg.Unresolved()
	candidate := c.candidate(known, reg)
	if candidate != nil {
		unresolved = slices.Concat(unresolved, candidate.Registry.Unresolved())
	}
	c.dns.watch(unresolved)
	if last != nil && last.Config == c.config && sameEndpoints(last.Registry, reg) && reflect.DeepEqual(last.Application, application) && sameCandidate(last.Candidate, candidate) {
		c.probes.watch(workloads, suspects, reg)
		return nil
	}
	s := &mesh.Snapshot{
		Number: 1, Time: now, Node: c.options.Node, Config: c.config, Registry: reg, Rules: mesh.NewRules(c.options.Node, c.config.DestinationRules),
		Application: application, Candidate: candidate,
	}
	if last != nil {
		s.Number = last.Number + 1
	}
	if err := c.options.Publish(s); err != nil {
		return err
	}
	c.probes.watch(workloads, suspects, reg)
	c.mu.Lock()
	c.snapshot = s
	c.mu.Unlock()
	if c.gossip != nil {
		c.Wake() // what is announced follows from the snapshot
	}
	c.log.Info("snapshot published", "number", s.Number, "config", s.Config.Hash, "endpoints", len(reg.All()))
	return nil
}

// sameEndpoints compares by pointer: a registry keeps those that are equal.
func sameEndpoints(a, b *mesh.Registry) bool {
	return slices.Equal(a.All(), b.All()) && reflect.DeepEqual(a.Services(), b.Services())
}

// announced is what gossip knows, with what probing has found out of members
// that died, and this proxy's own endpoints. suspects are the endpoints of
// members that died.
func (c *Controller) announced(now time.Time, application *mesh.Health) (out []mesh.Endpoint, suspects []health.Subject) {
	if c.gossip == nil {
		own := c.ownEndpoints(application)
		for i := range own {
			own[i].Source = mesh.SourceFile
		}
		return own, nil
	}
	for _, a := range c.gossip.Endpoints() {
		if !a.OwnerDead {
			out = append(out, a.Endpoint)
			continue
		}
		s := c.probes.subjectOf(&a.Endpoint)
		suspects = append(suspects, s)
		if state := c.probes.endpoints.State(s); state.Failing != "" {
			if now.Sub(state.Since) > dropAfter {
				continue
			}
			a.Unready = fmt.Sprintf("%s died; %s", a.Owner, state.Failing)
		}
		out = append(out, a.Endpoint)
	}
	return out, suspects
}

// Snapshot returns the current snapshot.
func (c *Controller) Snapshot() *mesh.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot
}

// Findings returns what there is to say of the configuration in force. The
// slice must not be changed.
func (c *Controller) Findings() []config.Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.findings
}

// Status returns the current state.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s Status
	s.Ready = c.snapshot != nil && !c.draining
	if c.draining {
		s.Reason = "draining"
	}
	s.Snapshot.Number = c.snapshot.Number
	s.Snapshot.Hash = c.snapshot.Config.Hash
	s.Snapshot.Age = time.Since(c.snapshot.Time).Seconds()
	if err := cmp.Or(c.unused, c.refused); err != nil {
		s.Snapshot.Error = err.Error()
	}
	s.Snapshot.Revision = c.history.Current().Number
	if h := c.history.Hold(); h.Origin == history.FromRollback {
		s.Snapshot.Rollback = h.Revision
	}
	s.Warnings = c.warnings
	for _, e := range c.snapshot.Registry.All() {
		s.Endpoints.Total++
		if e.Unready == "" {
			s.Endpoints.Ready++
		}
	}
	return s
}
