package control

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"isthmus/config"
	"isthmus/history"
)

// rollback is one that an operator has asked for.
type rollback struct {
	number uint64
	done   chan error // of room for one
}

// rollbackTimeout bounds how long one waits for its turn.
const rollbackTimeout = 30 * time.Second

// Rollback brings a revision of the configuration back. It holds until the files
// change again, over a restart too where the history is on disk.
func (c *Controller) Rollback(ctx context.Context, number uint64) (history.Revision, error) {
	r, _, _, err := c.history.Content(number)
	switch {
	case err != nil:
		return history.Revision{}, err
	case r.Refused():
		return history.Revision{}, fmt.Errorf("revision %d was never in force: %s", number, r.Error)
	case r.Hash == c.history.Current().Hash:
		return history.Revision{}, fmt.Errorf("revision %d is what is in force", number)
	}
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	ask := &rollback{number, make(chan error, 1)}
	c.mu.Lock()
	busy := c.asked != nil
	if !busy {
		c.asked = ask
	}
	c.mu.Unlock()
	if busy {
		return history.Revision{}, fmt.Errorf("another rollback is under way")
	}
	c.Wake()
	select {
	case err := <-ask.done:
		if err != nil {
			return history.Revision{}, err
		}
		return c.history.Current(), nil
	case <-ctx.Done():
		return history.Revision{}, fmt.Errorf("roll back to revision %d: %w", number, ctx.Err())
	}
}

// begin reads what the process starts with: the files, or the revision that was
// brought back before the restart against these same files.
func (c *Controller) begin() *loaded {
	l := c.load()
	h := c.history.Hold()
	if h.Revision == 0 {
		return l
	}
	if c.holds(h, l) {
		back := c.revive(h.Revision)
		if back.err == nil {
			back.origin = h.Origin
			c.log.Warn("the files are not in force until they change: an earlier revision, or a promoted one, holds", "revision", h.Revision, "origin", string(h.Origin))
			return back
		}
		c.log.Error("what was rolled back to cannot be used, the files are", "revision", h.Revision, "error", back.err)
	}
	c.history.SetHold(history.Hold{})
	return l
}

// revive reads a revision anew.
func (c *Controller) revive(number uint64) *loaded {
	r, files, _, err := c.history.Content(number)
	if err != nil {
		return &loaded{err: err}
	}
	read := make([]config.File, len(files))
	for i, f := range files {
		read[i] = config.File(f)
	}
	l := c.take(config.Read(read, c.options.Node), history.FromRollback)
	l.config.Hash, l.of = r.Hash, number // of the files as they were, with what is not kept of them
	return l
}

// loadChanged reads the files again. Nil: nothing new is to be published.
func (c *Controller) loadChanged() *loaded {
	l := c.load()
	switch h := c.history.Hold(); {
	case c.holds(h, l):
		c.note(&c.unused, nil) // not for an error: somebody wants it so
		return nil
	case l.err != nil:
		c.note(&c.unused, l.err)
		c.refuse(l, l.err)
		return nil
	case l.config.Hash == c.config.Hash: // touched, or put back as they were
		c.note(&c.unused, nil)
		c.history.SetHold(history.Hold{})
		return nil
	}
	return l
}

// accept keeps what has come into force.
func (c *Controller) accept(l *loaded) {
	hold := history.Hold{Origin: l.origin}
	switch l.origin {
	case history.FromRollback:
		hold.Revision, hold.Against = l.of, c.filesHash()
	case history.FromPromotion:
		hold.Against = l.config.Hash
	default:
		hold = history.Hold{}
	}
	c.mu.Lock()
	c.findings, c.warnings = l.findings, l.warnings
	snapshot := c.snapshot.Number
	c.mu.Unlock()
	if c.history.Current().Hash != l.config.Hash {
		r := c.history.Add(history.Revision{Hash: l.config.Hash, Time: time.Now(), Origin: l.origin, Of: l.of, Snapshot: snapshot}, l.files, l.resources)
		c.log.Info("configuration in force", "revision", r.Number, "hash", r.Hash, "origin", string(r.Origin), "of", r.Of,
			"added", len(r.Changes.Added), "removed", len(r.Changes.Removed), "changed", len(r.Changes.Changed))
	}
	if l.origin == history.FromPromotion {
		hold.Revision = c.history.Current().Number
	}
	c.history.SetHold(hold)
}

// holds reports whether a revision that was brought into force against the files
// is to stay: they are as they were. A promoted candidate is against its own, too.
func (c *Controller) holds(h history.Hold, files *loaded) bool {
	switch {
	case h.Revision == 0:
		return false
	case h.Origin == history.FromPromotion:
		r := config.LoadCandidate(c.options.Paths, c.options.Candidates.Paths, c.options.Node)
		return r != nil && r.Config.Hash == h.Against
	}
	return h.Against == files.config.Hash
}

// largeSet is how many resources make it worth to give the memory back that reading
// them took, several times what stays: the runtime would keep it for minutes, and
// requests, which allocate nothing, never have it collected. giveBackAfter is when:
// what is read is compiled, and compared with what others announce, before.
const (
	largeSet      = 1000
	giveBackAfter = time.Second
)

// thrifty is Go's GOGC while files are read. Most of what reading makes is forgotten
// at once: at 100, the default, the process grew larger meanwhile, and was some MiB
// larger afterwards. Reading 10,000 Services takes 1.1 s of CPU time in the place
// of 0.9 at 50.
const thrifty = 20

// beThrifty sets it until the function is called that it returns, unless the
// environment has set less, or none.
func beThrifty() (enough func()) {
	before := debug.SetGCPercent(thrifty)
	if before < thrifty {
		debug.SetGCPercent(before)
	}
	return func() { debug.SetGCPercent(before) }
}

// giveBack does so if many have been read.
func (c *Controller) giveBack() {
	if c.read > largeSet {
		runtime.GC() // buffers that are kept for the next user go with the second
		debug.FreeOSMemory()
	}
	c.read = 0
}

// filesHash is that of the files as they are.
func (c *Controller) filesHash() string {
	if h := c.history.Hold(); h.Revision != 0 && h.Origin == history.FromRollback {
		return h.Against // they have not changed, or the hold would be over
	}
	return config.Load(c.options.Paths, c.options.Node).Config.Hash
}

// refuse keeps what was not taken in, once.
func (c *Controller) refuse(l *loaded, err error) {
	if list := c.history.List(); len(list) > 0 && list[0].Hash == l.config.Hash && list[0].Error == err.Error() {
		return
	}
	c.history.Add(history.Revision{Hash: l.config.Hash, Time: time.Now(), Origin: l.origin, Of: l.of, Error: err.Error()}, l.files, l.resources)
}
