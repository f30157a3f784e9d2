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
type counters interface {
	total() uint64
	forget()
	describe(chan<- *prometheus.Desc)
	collect(chan<- prometheus.Metric)
}

// Store hands out counters by their labels, so that all who bear the same count
// together, and forgets those that are of no more use. It is a
// [prometheus.Collector]. Its methods may be called by any goroutine.
type Store[T any, C interface {
	*T
	counters
}] struct {
	make  func(Labels) *T
	inUse func() []*T
	over  atomic.Uint64 // how often there were too many labels

	mu       sync.Mutex // guards what is below
	byLabels map[Labels]*kept[T]
	rest     *T // of labels that are too many
}

// kept is one counter of a store.
type kept[T any] struct {
	counter *T
	total   uint64    // when it was last shown
	changed time.Time // when it last was in use or had changed since
}

// NewStore makes a store. inUse says which counters are held, and are to be kept
// though nothing is counted; make makes one.
func NewStore[T any, C interface {
	*T
	counters
}](make func(Labels) *T, inUse func() []*T) *Store[T, C] {
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
			s.rest = s.make(Labels{Reporter: l.Reporter})
		}
		return s.rest
	}
	k := &kept[T]{counter: s.make(l), changed: time.Now()}
	s.byLabels[l] = k
	return k.counter
}

// Describe implements prometheus.Collector.
func (s *Store[T, C]) Describe(out chan<- *prometheus.Desc) { C(nil).describe(out) }

// Collect implements prometheus.Collector. What is of no more use is forgotten by
// the way.
func (s *Store[T, C]) Collect(out chan<- prometheus.Metric) {
	for _, c := range s.sweep() {
		C(c).collect(out)
	}
}

// sweep forgets what is of no more use and returns the rest.
func (s *Store[T, C]) sweep() []*T {
	held := map[*T]bool{}
	for _, c := range s.inUse() {
		held[c] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*T, 0, len(s.byLabels)+1)
	now := time.Now()
	for l, k := range s.byLabels {
		if total := C(k.counter).total(); held[k.counter] || total != k.total {
			k.total, k.changed = total, now
		} else if now.Sub(k.changed) > keptFor {
			C(k.counter).forget()
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
