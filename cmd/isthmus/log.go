package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// newLogger makes the process's log, and what steers its level while it runs.
func newLogger(w io.Writer, level string) (*slog.Logger, *slog.LevelVar, error) {
	var l slog.LevelVar
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, nil, usageError{fmt.Errorf("--log-level %s: write debug, info, warn or error", level)}
		}
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: &l})), &l, nil
}

// maxWaiting bounds the lines that wait for somebody to take them.
const maxWaiting = 256 << 10

// flushWithin is how long the end of the process waits for its last lines to be taken.
const flushWithin = time.Second

// patientLog passes lines on to a writer that may not take them, as a pipe that nobody
// reads: whoever has something to say, a request that is refused or the only writer of
// snapshots, does not wait for that. Lines that find no room are lost, and counted in a
// line of their own.
type patientLog struct {
	to   io.Writer
	wake chan struct{} // of capacity 1
	done chan struct{} // closed when all is written after close

	mu      sync.Mutex // guards what is below
	waiting []byte
	lost    int
	closed  bool
}

// newPatientLog starts a goroutine that ends with close.
func newPatientLog(to io.Writer) *patientLog {
	l := &patientLog{to: to, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Write takes a line.
func (l *patientLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	if len(l.waiting) >= maxWaiting { // a line of any length has room where others have left some
		l.lost++
	} else {
		l.waiting = append(l.waiting, p...)
	}
	l.mu.Unlock()
	l.signal()
	return len(p), nil
}

func (l *patientLog) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *patientLog) run() {
	defer close(l.done)
	var spare []byte
	for range l.wake {
		l.mu.Lock()
		lines, lost, closed := l.waiting, l.lost, l.closed
		l.waiting, l.lost = spare[:0], 0
		l.mu.Unlock()
		if lost > 0 {
			lines = append(lines, lostLines(lost)...)
		}
		if len(lines) > 0 {
			l.to.Write(lines) // there is nobody to tell of an error
		}
		if spare = lines; cap(spare) > 16<<10 {
			spare = nil
		}
		if closed {
			return
		}
	}
}

// lostLines is the line that says how many are lost, as the others are written.
func lostLines(n int) []byte {
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Warn("lines of this log are lost: they were not taken as fast as they came", "lines", n)
	return b.Bytes()
}

// close waits for the last lines, but not for long.
func (l *patientLog) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
	select {
	case <-l.done:
	case <-time.After(flushWithin):
	}
}
