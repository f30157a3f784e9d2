package canary

import (
	"cmp"
	"slices"
	"sync"
)

// maxDifferences bounds how many kinds of difference are told apart.
const maxDifferences = 1000

// Difference is one way in which the candidate decides otherwise.
type Difference struct {
	Kind      string `json:"kind"`      // "route", "destination", "refusal"
	Current   string `json:"current"`   // what is in force decides
	Candidate string `json:"candidate"` // what the candidate would
	Source    string `json:"source"`    // file:line of the candidate's rule, or else of the current one
	Example   string `json:"example"`   // the first request: "GET host/path"
	Count     uint64 `json:"count"`
}

// Differences gathers them. Its methods may be called by any goroutine.
type Differences struct {
	mu       sync.Mutex // guards what is below
	compared uint64
	list     map[[3]string]*Difference
	others   uint64 // of more kinds than are told apart
}

// Compared counts a request of which both decide alike.
func (d *Differences) Compared() {
	d.mu.Lock()
	d.compared++
	d.mu.Unlock()
}

// Add counts one of which they do not. example is asked for the first of a kind.
func (d *Differences) Add(x Difference, example func() string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.compared++
	k := [3]string{x.Kind, x.Current, x.Candidate}
	known := d.list[k]
	if known == nil {
		if len(d.list) >= maxDifferences {
			d.others++
			return
		}
		if d.list == nil {
			d.list = map[[3]string]*Difference{}
		}
		x.Example = example()
		known = &x
		d.list[k] = known
	}
	known.Count++
}

// Compare is what comparing has shown.
type Compare struct {
	Compared    uint64       `json:"compared"`  // requests
	Different   uint64       `json:"different"` // of them
	Differences []Difference `json:"differences"`
}

// Seen returns what was gathered, the most frequent first.
func (d *Differences) Seen() Compare {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := Compare{Compared: d.compared, Different: d.others, Differences: []Difference{}}
	for _, x := range d.list {
		c.Different += x.Count
		c.Differences = append(c.Differences, *x)
	}
	slices.SortFunc(c.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Current, b.Current), cmp.Compare(a.Candidate, b.Candidate))
	})
	return c
}
