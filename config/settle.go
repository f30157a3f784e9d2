package config

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// When files are taken for whole. Who cuts a file off and fills it again leaves it
// empty for a moment, or with half of what is to come, and that may read as a
// configuration without what is missing.
const (
	still      = 50 * time.Millisecond // without a change
	unfinished = 3 * time.Second       // without one, of a file that is empty, or open for writing (`kubectl get -o yaml > FILE` takes a second or two), and of files that do not fit together
	patience   = 10 * time.Second      // until it is said that somebody does not stop writing
)

// Settling follows the files of some paths, which somebody may be writing.
type Settling struct {
	paths   []string
	seen    []fileState
	since   time.Time   // they have been as seen
	begin   time.Time   // they have not settled; zero: they have
	doubted []fileState // when what they say did not fit together
	doubt   time.Time   // since when it does not; zero: it does
}

// fileState is what changes of a file when somebody writes it, or puts another one
// in its place. It is zero, but for the path, if the file is not there.
type fileState struct {
	path    string
	inode   uint64
	size    int64
	changed int64 // its content or its name, in nanoseconds since 1970
}

// NewSettling follows the files that [Load] reads.
func NewSettling(paths ...string) *Settling { return &Settling{paths: paths} }

// Doubt says that what the files say does not fit together, as the last look has found
// them: somebody may be about to write more of it. They are whole when they have been
// still for as long as an empty one has to be; or, where somebody does not stop writing,
// when that has been so for long.
func (s *Settling) Doubt() {
	if s.doubted = s.seen; s.doubt.IsZero() {
		s.doubt = time.Now()
	}
}

// Trust ends doubts.
func (s *Settling) Trust() { s.doubt = time.Time{} }

// Wait says after what time to look again; 0: the files are whole, as far as anyone
// can see. If that takes long, the finding says which of them is not.
func (s *Settling) Wait() (again time.Duration, late *Finding) {
	files, folders := look(s.paths)
	now := time.Now()
	moved := s.since.IsZero() || !slices.Equal(files, s.seen)
	if moved {
		s.seen, s.since = files, now
	}
	// Clocks of file servers may be ahead: then it counts how long this process has
	// seen no change. So it does where nothing is, which may be about to come back.
	age := func(changed int64) time.Duration {
		if a := now.Sub(time.Unix(0, changed)); a >= 0 && changed != 0 {
			return a
		}
		return now.Sub(s.since)
	}
	enough := still
	if !s.doubt.IsZero() && now.Sub(s.doubt) < patience {
		switch {
		case slices.Equal(files, s.doubted):
			enough = unfinished
		case moved:
			again = still // what is doubted was read while they changed: they are to be read once more
		}
	}
	which := ""
	for _, f := range files {
		a := age(f.changed)
		if a < enough || a < unfinished && f.inode != 0 && (f.size == 0 || beingWritten(f.path)) {
			which, again = f.path, max(again, min(still, max(enough-a, time.Millisecond)))
		}
	}
	// Files come to folders and go; what else is made there does not matter.
	if a := now.Sub(s.since); again == 0 && folders != 0 && a < enough && age(folders) < enough {
		again = min(still, enough-a)
	}
	switch {
	case again == 0:
		s.begin = time.Time{}
	case s.begin.IsZero():
		s.begin = now
	case now.Sub(s.begin) > patience:
		late = &Finding{File: which, Severity: Error, Message: fmt.Sprintf("has been written for more than %v without a pause: write it elsewhere, and rename it when it is whole", patience)}
	}
	return again, late
}

// unchanged reports whether the files are still as the last look has found them.
func (s *Settling) unchanged() bool {
	files, _ := look(s.paths)
	return slices.Equal(files, s.seen)
}

// look returns the state of the files, and when the latest change of a folder was;
// 0: there is none.
func look(paths []string) (files []fileState, folders int64) {
	found, dirs, _ := find(paths)
	for _, f := range found {
		state := fileState{path: f.path}
		if info, err := os.Stat(f.path); err == nil && info.Mode().IsRegular() {
			state.inode, state.size, state.changed = stat(info)
		}
		files = append(files, state)
	}
	for _, d := range dirs {
		if info, err := os.Stat(d); err == nil {
			_, _, changed := stat(info)
			folders = max(folders, changed)
		}
	}
	return files, folders
}

// stat goes by the time of the last change of anything: programs that copy set
// that of the content back.
func stat(info fs.FileInfo) (inode uint64, size, changed int64) {
	s := info.Sys().(*syscall.Stat_t)
	return s.Ino, s.Size, s.Ctim.Nano()
}

// beingWritten reports whether a process has the file open for writing, where the
// file system can tell and the file is ours: nobody gets a read lease on such a
// file. Closing gives the lease back at once; of a writer who comes meanwhile a signal
// (SIGIO) tells, which a Go program leaves alone.
func beingWritten(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	return err == unix.EAGAIN
}
