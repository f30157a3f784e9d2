package control

import (
	"context"
	"fmt"
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
// brought back before the restart against these same files. Files that changed and
// cannot be used end that no more than they do while the proxy runs.
func (c *Controller) begin() *loaded {
	l := c.load()
	h := c.history.Hold()
	same := c.holds(h, l)
	if h.Revision == 0 || !same && l.err == nil {
		return l
	}
	back := c.held(h)
	if back.err != nil {
		c.log.Error("what was rolled back to cannot be used, the files are", "revision", h.Revision, "error", back.err)
		return l
	}
	if !same {
		c.note(&c.unused, l.err)
		c.refuse(l, l.err)
	}
	c.log.Warn("the files are not in force until they change: an earlier revision, or a promoted one, holds", "revision", h.Revision, "origin", string(h.Origin))
	return back
}

// held reads what holds anew. What a rollback has brought back was kept once more as a
// revision of its own, which is in force and so stays; the one that it was before may be
// too old by now.
func (c *Controller) held(h history.Hold) *loaded {
	back := c.revive(h.Revision)
	if now := c.history.Current(); back.err != nil && now.Origin == history.FromRollback && now.Of == h.Revision {
		back = c.revive(now.Number)
	}
	back.origin, back.of = h.Origin, h.Revision
	return back
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

// tellWarnings says how many warnings a configuration has that has come into force, and
// the first of them: that a folder is empty, perhaps.
func (c *Controller) tellWarnings(l *loaded) {
	for _, f := range l.findings {
		if f.Severity == config.Warning {
			c.log.Warn("the configuration has warnings: isthmus validate says them all, with --admin those of a running proxy", "warnings", l.warnings, "first", f.String())
			return
		}
	}
}

// accept keeps what has come into force.
func (c *Controller) accept(l *loaded) {
	hold := history.Hold{Origin: l.origin}
	switch l.origin {
	case history.FromRollback:
		hold.Revision, hold.Against = l.of, c.filesHash()
	case history.FromPromotion:
		hold.Against = l.config.Hash
		if before := c.history.Hold(); before.Origin == l.origin && before.Against == hold.Against { // it held before a restart
			hold.Files = before.Files
		} else {
			hold.Files = c.filesHash()
		}
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
			"resources", len(l.resources), "added", len(r.Changes.Added), "removed", len(r.Changes.Removed), "changed", len(r.Changes.Changed))
		c.tellWarnings(l)
	}
	if l.origin == history.FromPromotion {
		hold.Revision = c.history.Current().Number
	}
	c.history.SetHold(hold)
}

// holds reports whether a revision that was brought into force against the files
// is to stay: they are as they were. A promoted candidate is against its own, too, and
// stays where these have changed to what cannot be used.
func (c *Controller) holds(h history.Hold, files *loaded) bool {
	switch {
	case h.Revision == 0:
		return false
	case h.Origin == history.FromPromotion:
		r := config.LoadCandidate(c.options.Paths, c.options.Candidates.Paths, c.options.Node)
		return r != nil && (r.Config.Hash == h.Against || r.HasErrors() && files.err == nil && files.config.Hash == h.Files)
	}
	return h.Against == files.config.Hash
}

// filesHash is that of the files as they were last read: somebody may be writing them,
// and what comes of that is a change.
func (c *Controller) filesHash() string {
	if h := c.history.Hold(); h.Revision != 0 && h.Origin == history.FromRollback {
		return h.Against // they have not changed, or the hold would be over
	}
	return c.files
}

// refuse keeps what was not taken in, once.
func (c *Controller) refuse(l *loaded, err error) {
	if list := c.history.List(); len(list) > 0 && list[0].Hash == l.config.Hash && list[0].Error == err.Error() {
		return
	}
	c.history.Add(history.Revision{Hash: l.config.Hash, Time: time.Now(), Origin: l.origin, Of: l.of, Error: err.Error()}, l.files, l.resources)
}
