package accesslog

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxGathered is how many bytes of what lines are made of may wait: some 9,000
	// exchanges. What comes on top is lost.
	maxGathered = 2 << 20

	// writeFrom is how many of them are made lines at once, without waiting for more:
	// some 1,400 exchanges. What the lines cost depends on it; docs/adr/015 says how.
	writeFrom = 320 << 10

	// writeSize is how many bytes of lines are written by one call, or one line more:
	// few enough that the processor's cache still has them, many enough that the call
	// itself does not count. docs/adr/015 has what others cost.
	writeSize = 256 << 10

	// gatherFor is how long a line may wait for others: short enough for whoever
	// watches the log, long enough that a busy proxy writes ten times a second.
	gatherFor = 100 * time.Millisecond

	// lookEvery is how often the log looks whether its file is still at its path.
	lookEvery = time.Second

	// tellEvery is how often at the most it is told that lines are lost.
	tellEvery = time.Minute

	// closeWithin bounds how long Close waits for the disk.
	closeWithin = time.Second
)

// Options say where a log goes and what its lines are.
type Options struct {
	Path   string // "/dev/stdout" and "/dev/stderr" are the process's own
	Format *Format
	Rule   Rule         // what is logged where nothing else says so
	On     bool         // whether anything is
	Logger *slog.Logger // is told that lines are lost, and why; nil: [slog.Default]

	// open opens the file at a path; tests bring others. Nil: as it says.
	open func(path string) (io.WriteCloser, error)
}

// Log is an access log. Its methods may be called by any goroutine.
type Log struct {
	options Options
	format  atomic.Pointer[Format]
	written atomic.Uint64
	lost    atomic.Uint64

	mu       sync.Mutex // guards what is below
	path     string
	gathered batch
	closed   bool

	wake   chan struct{} // of capacity 1: there are lines, or many, or the end has come
	reopen atomic.Bool
	done   chan struct{} // closed when the writer has ended
}

// New starts a log. The file is opened at once where something is logged, else with
// the first line. Its goroutine ends with Close.
func New(o Options) *Log {
	l := &Log{options: o, path: o.Path, wake: make(chan struct{}, 1), done: make(chan struct{})}
	l.format.Store(o.Format)
	if o.Logger == nil {
		l.options.Logger = slog.Default()
	}
	if l.options.open == nil {
		l.options.open = openPath
	}
	go l.run()
	return l
}

// Rule is what is logged where nothing else says so, and whether anything is.
func (l *Log) Rule() (r Rule, on bool) { return l.options.Rule, l.options.On }

// Format is that of the lines.
func (l *Log) Format() *Format { return l.format.Load() }

// Move has the lines to come go to another path, in another format.
func (l *Log) Move(path string, f *Format) {
	l.mu.Lock()
	l.path = path
	l.mu.Unlock()
	l.format.Store(f)
}

// Record logs an exchange if the rule wants it. It never waits for the disk, and
// for others that log only as long as they keep what their lines are made of.
func (l *Log) Record(r *Rule, e *Entry) {
	if !r.wants(e) {
		return
	}
	l.mu.Lock()
	before := l.gathered.size()
	if l.closed || before >= maxGathered {
		l.mu.Unlock()
		l.lost.Add(1)
		return
	}
	l.gathered.add(l.Format(), e)
	after := l.gathered.size()
	l.mu.Unlock()
	if before == 0 || before < writeFrom && after >= writeFrom {
		l.signal()
	}
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Lines returns how many lines were written, and how many could not be.
func (l *Log) Lines() (written, lost uint64) { return l.written.Load(), l.lost.Load() }

// Reopen opens the file at the path anew before the next line, as after it was
// moved away.
func (l *Log) Reopen() { l.reopen.Store(true) }

// Close writes what has gathered and ends the log. A disk that does not answer
// is not waited for long.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
	select {
	case <-l.done:
	case <-time.After(closeWithin):
	}
}

// run writes what gathers. New starts it; it ends after Close.
func (l *Log) run() {
	defer close(l.done)
	w := &writer{log: l}
	defer w.close()
	if l.options.On {
		if err := w.ready(); err != nil {
			l.options.Logger.Warn("the access log cannot be written: its lines are lost until it can be", "error", err)
		}
	}
	due := time.NewTimer(gatherFor)
	due.Stop()
	waits := false // due is running
	var spare batch
	for {
		late := false
		select {
		case <-l.wake:
		case <-due.C:
			waits, late = false, true
		}
		if l.waiting() < writeFrom && !late {
			// A timer is not set again for each write: that costs more than the write.
			if !waits {
				due.Reset(gatherFor)
				waits = true
			}
			continue
		}
		l.mu.Lock()
		full := l.gathered
		l.gathered = spare
		closed := l.closed
		l.mu.Unlock()
		w.tell(w.writeAll(&full))
		spare = l.giveBack(full)
		if closed {
			return
		}
	}
}

// giveBack has the next exchanges use the memory of those before, unless some have
// begun to use other memory: the processor's cache has it still. It returns what is
// not in use.
func (l *Log) giveBack(b batch) (spare batch) {
	if b.size() > 2*writeFrom {
		return batch{} // that was an outage
	}
	b.reset()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.gathered.records) == 0 {
		b, l.gathered = l.gathered, b
	}
	return b
}

// waiting is how many bytes have gathered; so many that it does not matter once
// the end has come.
func (l *Log) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return maxGathered
	}
	return l.gathered.size()
}
