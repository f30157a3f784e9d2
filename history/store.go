package history

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
)

// Bounds of a store. A revision of 10,000 resources takes some 300 KiB.
const (
	maxRevisions = 200      // listed
	maxRefused   = 50       // of them, so that a row of mistakes does not push out what worked
	maxOnDisk    = 64 << 20 // bytes of texts, compressed
	maxInMemory  = 8 << 20  // likewise, without a folder
)

// bounds of one store.
type bounds struct{ revisions, refused, bytes int }

// Store keeps revisions. Its methods may be called by any goroutine.
type Store struct {
	dir  string // "": in memory
	log  *slog.Logger
	most bounds

	mu   sync.Mutex // guards what is below
	list []*entry   // by number
	next uint64
	hold Hold
}

// entry is a revision with its texts, compressed.
type entry struct {
	Revision
	size int
	data []byte // nil: on disk, or not kept; there may be some although it ought to be on disk
}

// content is what a revision consists of.
type content struct {
	Files     []File
	Resources []Resource
}

// Hold says that a revision is in force although the files say something else.
type Hold struct {
	Revision uint64 `json:"revision"` // 0: the files are in force
	Origin   Origin `json:"origin"`
	Against  string `json:"against"`         // hash of the files that it was brought back against; of FromPromotion, with the candidate's
	Files    string `json:"files,omitempty"` // of FromPromotion: hash of the files without the candidate's; "": not known
}

// Open opens a store in a folder, which is made if need be; "": one in memory.
// What cannot be read of it is left out, and said in the log.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log, most: bounds{maxRevisions, maxRefused, maxInMemory}, next: 1}
	if dir == "" {
		return s, nil
	}
	s.most.bytes = maxOnDisk
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the configuration's history: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the configuration's history: %w", err)
	}
	return s, nil
}

// Add keeps a revision and returns it with its number. The changes are those
// against the accepted revision before. files must have gone through [Redact]; nil
// if they cannot be kept.
func (s *Store) Add(r Revision, files []File, resources []Resource) Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Number, r.Resources = s.next, len(resources)
	s.next++
	r.Changes = Compare(nil, nil)
	if before := s.inForce(); before != nil {
		if c, err := s.content(before); err == nil {
			r.Changes = Compare(c.Resources, resources).bounded()
		} else if before.Hash != r.Hash {
			r.Changes.More = len(resources)
		}
	}
	e := &entry{Revision: r}
	if err := s.write(e, &content{files, resources}, files != nil); err != nil {
		s.log.Error("a revision of the configuration is not kept", "revision", r.Number, "error", err)
	}
	s.list = append(s.list, e)
	s.forgetUnwritten()
	s.forget()
	return e.Revision
}

// inForce returns the latest revision that was accepted, nil if there is none.
func (s *Store) inForce() *entry {
	for _, e := range slices.Backward(s.list) {
		if !e.Refused() {
			return e
		}
	}
	return nil
}

// forget keeps the store within its bounds: first the oldest texts go, then the
// oldest revisions. What is in force stays.
func (s *Store) forget() {
	current, bytes, refused := s.inForce(), 0, 0
	for _, e := range slices.Backward(s.list) {
		if e.Refused() {
			if refused++; refused > s.most.refused {
				s.remove(e)
				e.Number = 0
				continue
			}
		}
		if bytes += e.size; bytes > s.most.bytes && e != current {
			bytes -= e.size
			s.drop(e)
		}
	}
	s.list = slices.DeleteFunc(s.list, func(e *entry) bool { return e.Number == 0 })
	for len(s.list) > s.most.revisions {
		i := 0
		if s.list[i] == current {
			i++
		}
		s.remove(s.list[i])
		s.list = slices.Delete(s.list, i, i+1)
	}
}

// List returns the revisions, the latest first.
func (s *Store) List() []Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := s.inForce()
	out := make([]Revision, 0, len(s.list))
	for _, e := range slices.Backward(s.list) {
		r := e.Revision
		r.InForce = e == current
		out = append(out, r)
	}
	return out
}

// Current returns the revision in force; its number is 0 if there is none.
func (s *Store) Current() Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.inForce(); e != nil {
		return e.Revision
	}
	return Revision{}
}

// Content returns the texts of a revision, and what they declare.
func (s *Store) Content(number uint64) (Revision, []File, []Resource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(number)
	if err != nil {
		return Revision{}, nil, nil, err
	}
	c, err := s.content(e)
	if err != nil {
		return e.Revision, nil, nil, err
	}
	return e.Revision, c.Files, c.Resources, nil
}

// ErrUnknown says that there is no such revision.
var ErrUnknown = errors.New("there is no such revision: isthmus config history lists them")

func (s *Store) find(number uint64) (*entry, error) {
	for _, e := range s.list {
		if e.Number == number {
			return e, nil
		}
	}
	return nil, fmt.Errorf("revision %d: %w", number, ErrUnknown)
}

// Hold returns which revision is in force in spite of the files.
func (s *Store) Hold() Hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hold
}

// SetHold keeps that one is, or, with the zero value, that none is.
func (s *Store) SetHold(h Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h == s.hold {
		return
	}
	s.hold = h
	if err := s.writeHold(); err != nil {
		s.log.Error("a restart will not know what holds in spite of the files, or that nothing does", "revision", h.Revision, "error", err)
	}
}
