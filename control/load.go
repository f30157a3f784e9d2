package control

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"isthmus/config"
	"isthmus/history"
	"isthmus/mesh"
)

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

// await says when to look again at files that are to be read while somebody is
// writing them; 0: they can be read, or need not be.
func (c *Controller) await() time.Duration {
	c.mu.Lock()
	due := c.due()
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

// load reads the files. An error lists what is wrong, a line each.
func (c *Controller) load() *loaded {
	defer beThrifty()()
	l := c.take(config.Load(c.options.Paths, c.options.Node), history.FromFiles)
	c.files = l.config.Hash
	return l
}

// loadChanged reads the files again. Nil: nothing new is to be published, or not yet;
// then wait says when to look again.
func (c *Controller) loadChanged() (l *loaded, wait time.Duration) {
	l = c.load()
	defer func() {
		if wait == 0 {
			c.settling.Trust()
		}
	}()
	switch h := c.history.Hold(); {
	case c.holds(h, l):
		c.note(&c.unused, nil) // not for an error: somebody wants it so
		return nil, 0
	case l.err != nil:
		c.note(&c.unused, l.err)
		c.refuse(l, l.err)
		return nil, 0
	case l.config.Hash == c.config.Hash: // touched, or put back as they were
		c.note(&c.unused, nil)
		c.history.SetHold(history.Hold{})
		return nil, 0
	}
	if f := c.missing(l); f != nil {
		c.settling.Doubt()
		if wait, _ = c.settling.Wait(); wait > 0 {
			c.log.Info("what is new names what is not there, and may not be all yet: it is waited for", "finding", f.String())
			return nil, wait
		}
	}
	return l, 0
}

// missing returns a finding about a name, of a subset say, that nobody defines and that
// the configuration in force does not have; nil: there is none. Who writes several files
// one after the other comes by such states, and requests would fail meanwhile.
func (c *Controller) missing(l *loaded) *config.Finding {
	c.mu.Lock()
	before := c.findings
	c.mu.Unlock()
	known := map[config.Finding]bool{}
	for i := range before {
		if before[i].Code == config.IST0101 {
			known[before[i].Anywhere()] = true
		}
	}
	for i := range l.findings {
		f := &l.findings[i]
		if f.Code == config.IST0101 && !known[f.Anywhere()] {
			return f
		}
	}
	return nil
}

// take makes use of what was read.
func (c *Controller) take(r *config.Result, origin history.Origin) *loaded {
	c.read += len(r.Resources)
	if c.options.Judge != nil && !r.HasErrors() {
		r.Add(c.options.Judge(r.Config)...)
	}
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

// maxReported bounds how many findings an error tells of.
const maxReported = 20

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
