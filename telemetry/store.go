package telemetry

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxLabels bounds how many combinations of labels there are at a time, of
	// requests and of connections. Each is some 80 lines of the page for every
	// status that it has seen, and 2 KiB of memory.
	maxLabels = 10000

	// KeptFor is how long counters are shown that nobody holds and in which nothing
	// is counted: long enough for several scrapes, so that their last values are
	// seen.
	KeptFor = 10 * time.Minute

	// sweepEvery is how often what is of no more use is looked for.
	sweepEvery = time.Minute
)

// counters are what a store keeps.
type counters[T any] interface {
	total() uint64  // changes with whatever is counted
	number() uint64 // of exchanges, or connections
	busy() bool     // something that is counted here is under way
	tagged() int    // how many series have tags of exchanges
	base() *common[T]
	families() []*family
	labelNames() []string
	show(*Page, *family)
}

// common is what a store knows of a counter, which embeds it.
type common[T any] struct {
	labels Labels
	shape  *shape               // how it is shown; nil: as Istio does
	views  atomic.Pointer[[]*T] // that count the same under other labels; nil, or none as a rule
	gone   atomic.Bool          // the store has forgotten it
	round  atomic.Uint64        // of the page for which it was last found in use
}

func (c *common[T]) base() *common[T] { return c }

// Gone reports whether the counters are shown no more: whoever keeps them has to
// ask for new ones.
func (c *common[T]) Gone() bool { return c.gone.Load() }

// others are those that count the same under other labels.
func (c *common[T]) others() []*T {
	if list := c.views.Load(); list != nil {
		return *list
	}
	return nil
}

// Store hands out counters by their labels, so that all who bear the same count
// together, and forgets those that are of no more use. Its methods may be called
// by any goroutine.
type Store[T any, C interface {
	*T
	counters[T]
}] struct {
	make  func(Labels) *T
	inUse func(found func(*T))
	over  atomic.Uint64 // exchanges with too many tags
	round atomic.Uint64 // how many pages were made

	mu       sync.Mutex // guards what is below
	byLabels map[Labels]*kept[T]
	rest     map[string]*T // of labels that are too many, by who reports

	shape *shape         // of all of them; nil: Istio's
	said  Overrides      // what is shown otherwise
	views []*Store[T, C] // where that is counted
}

// kept is one counter of a store.
type kept[T any] struct {
	counter *T
	total   uint64    // when it was last shown
	changed time.Time // when it last was in use, was asked for, or had changed since
}

// NewStore makes a store. inUse finds the counters that are held, and are to be
// kept though nothing is counted; make makes one.
func NewStore[T any, C interface {
	*T
	counters[T]
}](make func(Labels) *T, inUse func(found func(*T))) *Store[T, C] {
	return &Store[T, C]{make: make, inUse: inUse, byLabels: map[Labels]*kept[T]{}, rest: map[string]*T{}}
}

// Of returns the counters for labels.
func (s *Store[T, C]) Of(l Labels) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byLabels[l]; k != nil {
		k.changed = time.Now() // whoever asks is about to count
		return k.counter
	}
	if len(s.byLabels) >= maxLabels {
		if s.rest[l.Reporter] == nil {
			s.rest[l.Reporter] = s.made(Labels{Reporter: l.Reporter})
		}
		return s.rest[l.Reporter]
	}
	k := &kept[T]{counter: s.made(l), changed: time.Now()}
	s.byLabels[l] = k
	return k.counter
}

// made makes counters for labels. The caller holds mu.
func (s *Store[T, C]) made(l Labels) *T {
	c := s.make(l)
	C(c).base().shape = s.shape
	if len(s.views) > 0 {
		s.attach(c)
	}
	return c
}

// all are the store and its views, and what is shown otherwise.
func (s *Store[T, C]) all() ([]*Store[T, C], Overrides) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Store[T, C]{s}, s.views...), s.said
}

// Follow forgets what is of no more use until ctx ends, also where nobody asks for
// the page.
func (s *Store[T, C]) Follow(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			all, _ := s.all()
			for _, o := range all {
				o.sweep()
			}
		}
	}
}

// Show implements [Source]. What is of no more use is forgotten by the way.
func (s *Store[T, C]) Show(p *Page) {
	all, said := s.all()
	lists := make([][]*T, len(all))
	for i, o := range all {
		lists[i] = o.sweep()
	}
	for _, f := range C(nil).families() {
		p.begin(f)
		for i, o := range all {
			for _, c := range lists[i] {
				if p.err != nil {
					return // nobody reads any more
				}
				if o.shows(c, f, &said) {
					C(c).show(p, f)
				}
			}
		}
	}
}

// sweep forgets what is of no more use and returns the rest.
func (s *Store[T, C]) sweep() []*T {
	held := s.held()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for l, k := range s.byLabels {
		c := C(k.counter)
		if total := c.total(); c.base().round.Load() >= held || total != k.total || c.busy() {
			k.total, k.changed = total, now
		} else if now.Sub(k.changed) > KeptFor {
			c.base().gone.Store(true)
			delete(s.byLabels, l)
			if s.shape != nil {
				s.shape.series.Add(-int64(c.tagged())) // which makes room for others
			}
		}
	}
	return s.listed()
}

// listed are all counters. The caller holds mu.
func (s *Store[T, C]) listed() []*T {
	list := make([]*T, 0, len(s.byLabels)+len(s.rest))
	for _, k := range s.byLabels {
		list = append(list, k.counter)
	}
	return slices.AppendSeq(list, maps.Values(s.rest))
}

// held marks what is in use with the number of a round, which it returns. Others
// may do so at the same time, with higher numbers.
func (s *Store[T, C]) held() uint64 {
	round := s.round.Add(1)
	s.inUse(func(c *T) { C(c).base().round.Store(round) })
	return round
}

// List returns all counters that are shown.
func (s *Store[T, C]) List() []*T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed()
}

// Overflowed is how many exchanges, or connections, were counted under unknown
// labels since there were too many.
func (s *Store[T, C]) Overflowed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.over.Load()
	for _, c := range s.rest {
		n += C(c).number()
	}
	return n
}

// OverflowCollector shows how many were counted under unknown labels, as count says
// when it is gathered.
func OverflowCollector(count func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "isthmus_metrics_overflow_total", Help: "How often exchanges were counted under unknown labels because there were too many.",
	}, func() float64 { return float64(count()) })
}
