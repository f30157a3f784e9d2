package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// The log's file grows by memory that the kernel has to find for it. On a machine of
// its own that is some the CPU has used a moment before, or that a page cache gives up.
// A virtual machine's host may take back what is free (free page reporting, balloons),
// and the first to write to it again waits until the host has found some: the cost of
// a log is then the host's for a good part. The case [observed] says how much that is.
var (
	justFreed = peer{name: "the file alone, in memory freed just now"}
	longFree  = peer{name: "the file alone, in memory free for two seconds"}
)

const aboutWriting = " The last two lines are no proxy: they are what the kernel takes to write the bytes of a line to a file, in pieces as the log's. " +
	"Where a virtual machine's host takes back memory that is free for a while, a file that grows has to wait for it, " +
	"and what the log costs depends on the host; the difference of the two says how much."

// freeFor is how long memory is left alone, for the host to take it.
const freeFor = 2 * time.Second

const (
	lineSize  = 750       // bytes of a line in the case
	writeSize = 256 << 10 // as the log writes them
	fileSize  = 40 << 20  // some 56,000 lines, about as many as a second has
)

// inTurnsAndAlone measures a load on peers that run at once, but for the last two,
// which are what writing their lines takes.
func inTurnsAndAlone(l load) func(b *bench, list []peer) ([]values, error) {
	proxies := inTurns(l)
	return func(b *bench, list []peer) ([]values, error) {
		n := len(list) - 2
		all, err := proxies(b, list[:n])
		if err != nil {
			return nil, err
		}
		alone, err := b.writeAlone()
		return append(all, alone...), err
	}
}

// writeAlone has a process on the proxy's CPU write a file, and returns the figures of
// justFreed and longFree.
func (b *bench) writeAlone() ([]values, error) {
	out, err := pinned(b.ctx, proxyCPU, []string{b.self, "-write", filepath.Join(b.dir, "written")}).Output()
	if err != nil {
		return nil, fmt.Errorf("writing alone: %w", err)
	}
	var w written
	if err := json.Unmarshal(out, &w); err != nil {
		return nil, fmt.Errorf("writing alone: %w", err)
	}
	return []values{{"cpu": w.JustFreed}, {"cpu": w.LongFree}}, nil
}

// written is what a line took, in microseconds of CPU.
type written struct{ JustFreed, LongFree float64 }

// writeFile writes a file of lines over and over: at once when it was emptied, so that
// it gets the memory that it had, or later. It prints what a line took.
func writeFile(path string) error {
	runtime.LockOSThread() // whose time is asked for
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	var w written
	if _, err := fill(f, 0); err != nil { // which finds the memory
		return err
	}
	if w.JustFreed, err = fill(f, 0); err != nil {
		return err
	}
	if w.LongFree, err = fill(f, freeFor); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(w)
}

// fill empties a file, waits, and fills it.
func fill(f *os.File, wait time.Duration) (perLine float64, err error) {
	if err := f.Truncate(0); err != nil {
		return 0, err
	}
	time.Sleep(wait)
	piece := make([]byte, writeSize)
	for i := range piece {
		piece[i] = 'x'
	}
	before, err := threadTime()
	if err != nil {
		return 0, err
	}
	for range fileSize / writeSize {
		if _, err := f.Write(piece); err != nil {
			return 0, err
		}
	}
	after, err := threadTime()
	return (after - before).Seconds() * 1e6 / (fileSize / lineSize), err
}

// threadTime is the CPU time of the calling thread.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("the thread's time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
