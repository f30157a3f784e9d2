package accesslog

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
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
		n := w.makeLines(&full)
		spare = l.giveBack(full)
		if n > 0 {
			w.tell(w.write(w.lines, n))
		}
		if cap(w.lines) > 8*writeFrom {
			w.lines = nil // that was an outage
		}
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

// writer is what the log's goroutine knows of the file.
type writer struct {
	log    *Log
	file   io.WriteCloser // nil: not open
	path   string         // where it was opened
	looked time.Time      // when it was last looked whether the file is at the path
	torn   bool           // the last line written is not whole
	lines  []byte         // memory for lines
	told   uint64         // how many lost lines the process's log has been told of
	toldAt time.Time
	source source // of the values in them
}

// makeLines makes the lines of a batch, and returns how many. One that breaks costs
// the batch, not the process.
func (w *writer) makeLines(b *batch) (made uint64) {
	defer func() {
		if r := recover(); r != nil {
			made, w.source = 0, source{}
			w.log.lost.Add(uint64(len(b.records)))
			w.told += uint64(len(b.records))
			w.log.options.Logger.Error("panic while making lines of the access log", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	w.source.texts = b.texts
	w.lines = w.lines[:0]
	for i := range b.records {
		w.lines = b.records[i].appendLine(w.lines, &w.source)
	}
	return uint64(len(b.records))
}

var errTooSlow = errors.New("requests ended faster than their lines could be written")

// tell says that lines are lost, and why: because of err, or, if that is nil, since
// the file did not take the ones before soon enough.
func (w *writer) tell(err error) {
	lost := w.log.lost.Load()
	if lost == w.told || time.Since(w.toldAt) < tellEvery {
		return
	}
	if err == nil {
		err = errTooSlow
	}
	w.log.options.Logger.Warn("lines of the access log are lost", "lines", lost-w.told, "error", err)
	w.told, w.toldAt = lost, time.Now()
}

// write writes lines; those that cannot be are lost.
func (w *writer) write(p []byte, lines uint64) error {
	if err := w.ready(); err != nil {
		w.log.lost.Add(lines)
		return err
	}
	if w.torn {
		if _, err := w.file.Write([]byte("\n")); err != nil {
			w.log.lost.Add(lines)
			return err
		}
		w.torn = false
	}
	n, err := w.file.Write(p)
	if err == nil {
		w.log.written.Add(lines)
		return nil
	}
	whole := uint64(bytes.Count(p[:n], []byte("\n")))
	w.log.written.Add(whole)
	w.log.lost.Add(lines - whole)
	w.torn = n > 0 && p[n-1] != '\n'
	w.close() // whatever is wrong with it, the next one may be better
	return err
}

// ready opens the file where it is not open, or no longer at its path.
func (w *writer) ready() error {
	w.log.mu.Lock()
	path := w.log.path
	w.log.mu.Unlock()
	moved := w.log.reopen.Swap(false) || path != w.path
	if f, ok := w.file.(*os.File); ok && !moved && time.Since(w.looked) >= lookEvery {
		w.looked = time.Now()
		moved = !isAt(f, path)
	}
	if moved {
		w.close()
		w.torn = false
	}
	if w.file != nil {
		return nil
	}
	f, err := w.log.options.open(path)
	if err != nil {
		return err
	}
	w.file, w.path, w.looked = f, path, time.Now()
	return nil
}

func (w *writer) close() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// isAt reports whether the path still leads to an open file.
func isAt(f *os.File, path string) bool {
	is, err := f.Stat()
	if err != nil {
		return false
	}
	at, err := os.Stat(path)
	return err == nil && os.SameFile(is, at)
}

// openPath opens a file, to append to it. The process's own output is never opened
// anew: it may be a socket.
func openPath(path string) (io.WriteCloser, error) {
	switch path {
	case "/dev/stdout":
		return process{os.Stdout}, nil
	case "/dev/stderr":
		return process{os.Stderr}, nil
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
}

// process is an output of the process, which others use, too.
type process struct{ io.Writer }

// Close leaves it open.
func (process) Close() error { return nil }
