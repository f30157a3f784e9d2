// Package history keeps the states that a configuration has had: each with a
// number, a hash, the time, what changed in it by resources, and, as far as
// there is room, the texts themselves, so that one can be brought back.
//
// A [Store] keeps them in a folder, and without one in memory. It does not
// judge configurations: who adds one says whether it was accepted. Secrets are
// not kept: see [Redact].
package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// File is a named text of a configuration.
type File struct {
	Name string
	Data []byte

	// Layer says whose resources count where two files declare the same: those of
	// the higher layer.
	Layer int
}

// Resource is one declared thing, and where it stands.
type Resource struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	File      string `json:"file"`
	Line      int    `json:"line"`

	// Hash is of what the resource says: not of comments, order of keys or place.
	Hash uint64 `json:"hash,string"`
}

// String returns "VirtualService default/reviews".
func (r Resource) String() string { return r.Kind + " " + r.Namespace + "/" + r.Name }

// Source returns "file:line".
func (r Resource) Source() string { return fmt.Sprintf("%s:%d", r.File, r.Line) }

func compare(a, b Resource) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// Origin is where a revision came from.
type Origin string

// The origins.
const (
	FromFiles     Origin = "files"
	FromRollback  Origin = "rollback"
	FromPromotion Origin = "promotion" // of a candidate
	FromCandidate Origin = "candidate" // that was refused, or taken back
)

// Revision is one state of a configuration.
type Revision struct {
	Number    uint64    `json:"number"` // counted over restarts where there is a folder
	Hash      string    `json:"hash"`
	Time      time.Time `json:"time"`
	Origin    Origin    `json:"origin"`
	Of        uint64    `json:"of,omitempty"`       // the revision that a rollback has brought back
	Snapshot  uint64    `json:"snapshot,omitempty"` // the first that had it; numbers begin anew with the process
	Error     string    `json:"error,omitempty"`    // why it was refused; "": it was accepted
	Resources int       `json:"resources"`
	Changes   Changes   `json:"changes"` // against the revision that was in force

	InForce bool `json:"inForce"` // now; not kept
	Kept    bool `json:"kept"`    // its texts are there, so that it can be brought back and compared
}

// Refused reports whether the revision was never in force.
func (r *Revision) Refused() bool { return r.Error != "" }

// Changes are the resources by which two revisions differ.
type Changes struct {
	Added   []Resource `json:"added"`
	Removed []Resource `json:"removed"`
	Changed []Resource `json:"changed"` // where they stand in the later one
	More    int        `json:"more,omitempty"`
}

// Empty reports whether no resource differs.
func (c *Changes) Empty() bool { return len(c.Added)+len(c.Removed)+len(c.Changed)+c.More == 0 }

// maxChanges bounds how many resources a revision lists that changed.
const maxChanges = 500

// Compare returns the resources by which after differs from before.
func Compare(before, after []Resource) Changes {
	c := Changes{Added: []Resource{}, Removed: []Resource{}, Changed: []Resource{}}
	a, b := sorted(before), sorted(after)
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0, len(a) > 0 && compare(a[0], b[0]) < 0:
			c.Removed, a = append(c.Removed, a[0]), a[1:]
		case len(a) == 0, compare(a[0], b[0]) > 0:
			c.Added, b = append(c.Added, b[0]), b[1:]
		default:
			if a[0].Hash != b[0].Hash {
				c.Changed = append(c.Changed, b[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	return c
}

// bounded returns the changes without those that are too many to be listed.
func (c Changes) bounded() Changes {
	left := maxChanges
	for _, list := range []*[]Resource{&c.Changed, &c.Removed, &c.Added} {
		if n := len(*list); n > left {
			c.More += n - left
			*list = (*list)[:left]
		}
		left -= len(*list)
	}
	return c
}

func sorted(list []Resource) []Resource {
	list = slices.Clone(list)
	slices.SortStableFunc(list, compare)
	return list
}
