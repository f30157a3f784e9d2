package accesslog

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"time"
	"unsafe"
)

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

// writeAll makes the lines of a batch and writes them, and returns what was wrong
// with the last that are lost.
func (w *writer) writeAll(b *batch) (failed error) {
	w.source.texts = b.texts
	for left := b.records; len(left) > 0; {
		n := w.makeLines(left)
		if n == 0 {
			return failed
		}
		if err := w.write(w.lines, uint64(n)); err != nil {
			failed = err
		}
		left = left[n:]
	}
	return failed
}

// lead is how many bytes before they are written memory for lines is asked for: about
// as many as a line of Istio's JSON has.
const lead = 768

// makeLines makes lines of records, as many as are written together, and returns how
// many. One that breaks costs all of them, not the process: then there are none.
func (w *writer) makeLines(records []record) (made int) {
	defer func() {
		if r := recover(); r != nil {
			made, w.source = 0, source{}
			w.log.lost.Add(uint64(len(records)))
			w.told += uint64(len(records))
			w.log.options.Logger.Error("panic while making lines of the access log", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	w.lines = w.lines[:0]
	for made < len(records) && len(w.lines) < writeSize {
		// The last lines that were made here are long written, and the processor's
		// caches have had other things to keep since.
		if next := w.lines[len(w.lines):cap(w.lines)]; len(next) > 2*lead {
			for i := lead; i < 2*lead; i += prefetched {
				prefetch(unsafe.Pointer(&next[i]))
			}
		}
		w.lines = records[made].appendLine(w.lines, &w.source)
		made++
	}
	return made
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
