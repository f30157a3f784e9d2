// Package control is the only writer: it brings configuration, gossip, DNS and
// probes together into snapshots and publishes them, one after the other.
//
// One goroutine does it. Whoever has news wakes it; what comes within a moment
// is taken together. It never publishes a set with an error, or one that cannot
// be compiled: the snapshot before stays, and [Controller.Status] says why.
package control

import (
	"context"
	stdtls "crypto/tls"
	"log/slog"
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

	// Judge says what else is wrong with a configuration that can be read; nil: nothing.
	Judge func(*mesh.Config) []config.Finding

	History *history.Store // of the configuration; nil: one in memory

	Candidates Candidates // that are tried beside it

	// Successor says that this process takes the place of one that was running: the
	// application beside it has been, too, and is ready until it fails.
	Successor bool

	Remote  RemoteProbes
	MeshTLS func() (*stdtls.Config, error) // how other proxies are asked by mTLS; nil if Node has no identity

	look func(context.Context, health.Job) health.Found // default: a health.Looker's
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
	files    string           // hash of what was last read of them
	seen     config.Seen      // the files, the candidate's too, before they were first read
	settling *config.Settling // of the same
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
	trials   uint64        // that have begun
	denied   time.Time     // when they are tried again, which the data plane has refused; zero: it has not. Only run looks
	draining bool
}

// How changes are gathered: from the first on for gather, so that the news of
// a whole cluster make one snapshot.
const gather = 50 * time.Millisecond

// What a step takes grows with the mesh: 0.1 s with 10,000 endpoints and 5,000 services,
// of whom some change all the time. The next one waits restFor times as long, mostRest at
// most, so that requests have the processors.
const (
	restFor  = 4
	mostRest = time.Second
)

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
		seen:     config.See(slices.Concat(o.Paths, o.Candidates.Paths)),
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
	c.dns.log = c.log
	c.probes = newProbes(o, c.Wake)
	if err := c.update(); err != nil {
		c.closeSources()
		return nil, err
	}
	c.accept(first)
	c.readCandidate()
	return c, nil
}

// Settle waits, before Start, until what is learnt from elsewhere than files and gossip is
// known as far as it can be had: addresses of names, and how the application beside this
// proxy is; or until ctx is over. It is for a process that takes another one's place, and is
// to know as much as that.
func (c *Controller) Settle(ctx context.Context) {
	for !c.settled() && ctx.Err() == nil {
		time.Sleep(settleLook)
	}
	c.note(&c.refused, c.update())
	c.Wake()
}

// settleLook is how often it is looked.
const settleLook = 10 * time.Millisecond

// settled reports whether each name was looked up once, and the application looked at.
func (c *Controller) settled() bool {
	return c.dns.asked() && c.probes.lookedAt(probedWorkloads(c.options.Node, c.config))
}

// Start begins to follow changes: of files, of gossip (nil: none), of DNS. It
// ends with Close.
func (c *Controller) Start(g Gossip) {
	ctx, cancel := context.WithCancel(context.Background())
	config.Watch(ctx, slices.Concat(c.options.Paths, c.options.Candidates.Paths), c.seen, c.Reload)
	c.cancel, c.gossip = cancel, g
	if g != nil && len(g.Endpoints()) > 0 { // which an earlier life has heard of: requests may come at once
		c.note(&c.refused, c.update())
	}
	go c.run(ctx)
	c.Wake()
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
	var rested time.Time
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
		case <-time.After(max(gather, time.Until(rested))):
		}
		select {
		case <-c.wake: // taken along
		default:
		}
		wait, began := c.await(), time.Now()
		if due := c.step(); wait == 0 {
			wait = due
		}
		rested = time.Now().Add(min(restFor*time.Since(began), mostRest))
		if wait > 0 {
			again.Reset(wait)
		}
		if c.read > 0 {
			spare.Reset(giveBackAfter)
		}
	}
}

// tryAgain is when a configuration is published again that the data plane has
// refused: somebody else may have had a port.
const tryAgain = 5 * time.Second

// step reads the files again if that was asked for, and publishes what is
// known. News from gossip and DNS never wait for files that cannot be used. It returns
// when to take the next one without any news: if the data plane has refused what the
// files say, or they may not be all yet; 0: never.
func (c *Controller) step() (again time.Duration) {
	c.mu.Lock()
	due, asked := c.due(), c.asked
	decided := c.steered != nil || c.trial != nil && c.trial.due
	// What is only tried again comes after what is decided.
	reload := due && !c.written && asked == nil && (c.reload || !decided)
	if asked != nil && due || decided && (asked != nil || due && !c.written) { // one thing after the other
		defer c.Wake()
	}
	if asked == nil && !reload && c.steered != nil {
		defer close(c.steered)
		c.steered = nil
	}
	c.reload, c.asked = due && !reload, nil
	c.mu.Unlock()
	before := c.config
	var next *loaded
	switch {
	case asked != nil:
		if next = c.revive(asked.number); next.err != nil {
			asked.done <- next.err
			next = nil
		}
	case reload:
		if next, again = c.loadChanged(); again > 0 {
			c.mu.Lock()
			c.reload = true
			c.mu.Unlock()
		}
	default:
		next = c.promoted()
	}
	if next != nil {
		c.config = next.config
	}
	err := c.update()
	denied := err != nil && next != nil && next.origin == history.FromFiles
	switch {
	case denied:
		c.denied = time.Now().Add(tryAgain)
	case reload, next != nil && err == nil:
		c.denied = time.Time{}
	}
	if next != nil {
		if denied || err == nil {
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
	if reload || asked != nil && c.history.Hold().Origin == history.FromRollback {
		c.readCandidate()
	}
	if !c.denied.IsZero() {
		again = max(time.Until(c.denied), time.Millisecond)
	}
	return again
}

// due reports whether the files are to be read: somebody has asked for it, or it is time to
// try again what the data plane has refused. The caller holds mu.
func (c *Controller) due() bool {
	return c.reload || !c.denied.IsZero() && !time.Now().Before(c.denied)
}
