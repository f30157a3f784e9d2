package telemetry

import (
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

	// keptFor is how long counters are shown that nobody holds and in which nothing
	// is counted: long enough for several scrapes, so that their last values are
	// seen.
	keptFor = 10 * time.Minute
)

// counters are what a store keeps.
type counters[T any] interface {
	total() uint64
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
	over  atomic.Uint64 // how often there were too many labels
	round atomic.Uint64 // how many pages were made

	mu       sync.Mutex // guards what is below
	byLabels map[Labels]*kept[T]
	rest     *T // of labels that are too many

	shape *shape         // of all of them; nil: Istio's
	said  Overrides      // what is shown otherwise
	views []*Store[T, C] // where that is counted
}

// kept is one counter of a store.
type kept[T any] struct {
	counter *T
	total   uint64    // when it was last shown
	changed time.Time // when it last was in use or had changed since
}

// NewStore makes a store. inUse finds the counters that are held, and are to be
// kept though nothing is counted; make makes one.
func NewStore[T any, C interface {
	*T
	counters[T]
}](make func(Labels) *T, inUse func(found func(*T))) *Store[T, C] {
	return &Store[T, C]{make: make, inUse: inUse, byLabels: map[Labels]*kept[T]{}}
}

// Of returns the counters for labels.
func (s *Store[T, C]) Of(l Labels) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byLabels[l]; k != nil {
		return k.counter
	}
	if len(s.byLabels) >= maxLabels {
		s.over.Add(1)
		if s.rest == nil {
			s.rest = s.made(Labels{Reporter: l.Reporter})
		}
		return s.rest
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

// Show implements [Source]. What is of no more use is forgotten by the way.
func (s *Store[T, C]) Show(p *Page) {
	s.mu.Lock()
	all, said := append([]*Store[T, C]{s}, s.views...), s.said
	s.mu.Unlock()
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
	list := make([]*T, 0, len(s.byLabels)+1)
	now := time.Now()
	for l, k := range s.byLabels {
		if total := C(k.counter).total(); C(k.counter).base().round.Load() >= held || total != k.total {
			k.total, k.changed = total, now
		} else if now.Sub(k.changed) > keptFor {
			C(k.counter).base().gone.Store(true)
			delete(s.byLabels, l)
			continue
		}
		list = append(list, k.counter)
	}
	if s.rest != nil {
		list = append(list, s.rest)
	}
	return list
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
	list := make([]*T, 0, len(s.byLabels)+1)
	for _, k := range s.byLabels {
		list = append(list, k.counter)
	}
	if s.rest != nil {
		list = append(list, s.rest)
	}
	return list
}

// Overflowed is how often counters were asked for when there were too many.
func (s *Store[T, C]) Overflowed() uint64 { return s.over.Load() }

// OverflowCollector shows how often counters were asked for when there were too
// many, as count says when it is gathered.
func OverflowCollector(count func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "isthmus_metrics_overflow_total", Help: "How often exchanges were counted under unknown labels because there were too many.",
	}, func() float64 { return float64(count()) })
}
