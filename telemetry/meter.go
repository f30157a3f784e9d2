package telemetry

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Meter tells how requests go now, for people who look: it reads counters
// every few seconds and keeps what they were a moment ago.
type Meter struct {
	list     func() []*Requests
	overload func() OverloadState

	mu      sync.Mutex // guards what is below
	samples []sample   // the oldest first
	history []Point    // likewise
}

// How often counters are read, over how many readings rates are taken, and how
// many are kept as history: five minutes.
const (
	meterInterval = 2 * time.Second
	meterWindow   = 5
	meterHistory  = 150
)

// Rate is how requests went over the last ten seconds that bear the same
// labels. Of these only Reporter and the destination's are set.
type Rate struct {
	Labels
	Requests float64 // a second
	Errors   float64 // of them: statuses of 500 and above, and no status though the client was there
	P50, P99 float64 // milliseconds, interpolated as Prometheus does
}

// Point is how all requests of a proxy went over one reading's time.
type Point struct {
	Time             time.Time
	Requests, Errors float64 // a second
	P99              float64 // milliseconds
}

type sample struct {
	at       time.Time
	sums     map[Labels]*sum
	total    sum
	overload OverloadState
}

// sum is what counters have counted in all.
type sum struct {
	requests, errors uint64
	buckets          [len(bounds) + 1]uint64
}

// NewMeter makes a meter of counters; list returns them, as [Store.List] does, and
// overload what [OverloadCollector] shows.
func NewMeter(list func() []*Requests, overload func() OverloadState) *Meter {
	return &Meter{list: list, overload: overload}
}

// Run reads the counters until ctx ends.
func (m *Meter) Run(ctx context.Context) {
	tick := time.NewTicker(meterInterval)
	defer tick.Stop()
	for m.read(time.Now()); ; {
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			m.read(at)
		}
	}
}

func (m *Meter) read(at time.Time) {
	s := sample{at: at, sums: map[Labels]*sum{}, overload: m.overload()}
	for _, r := range m.list() {
		r.each(func(o outcome, counted *series) {
			l := Labels{
				Reporter: r.labels.Reporter, DestinationService: r.labels.DestinationService, DestinationName: r.labels.DestinationName,
				DestinationNamespace: r.labels.DestinationNamespace, Destination: Party{Cluster: r.labels.Destination.Cluster},
			}
			c := s.sums[l]
			if c == nil {
				c = &sum{}
				s.sums[l] = c
			}
			failed := o.status >= 500 || o.status == 0 && o.flag != clientGone
			c.add(counted, failed)
			s.total.add(counted, failed)
		})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.samples); n > 0 {
		d, seconds := s.total.since(&m.samples[n-1].total), at.Sub(m.samples[n-1].at).Seconds()
		if seconds > 0 {
			m.history = append(m.history, Point{at, float64(d.requests) / seconds, float64(d.errors) / seconds, d.quantile(0.99)})
		}
	}
	m.samples = append(m.samples, s)
	if n := len(m.samples) - meterWindow - 1; n > 0 {
		m.samples = slices.Delete(m.samples, 0, n)
	}
	if n := len(m.history) - meterHistory; n > 0 {
		m.history = slices.Delete(m.history, 0, n)
	}
}

// clientGone is Envoy's flag of a request whose client did not wait: nobody
// else is to blame.
const clientGone = "DC"

// Rates returns how requests go now, those with most requests first. What had
// none of late is left out.
func (m *Meter) Rates() []Rate {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.samples) < 2 {
		return nil
	}
	first, last := &m.samples[0], &m.samples[len(m.samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return nil
	}
	var out []Rate
	for l, now := range last.sums {
		d := now.since(first.sums[l])
		if d.requests == 0 {
			continue
		}
		out = append(out, Rate{l, float64(d.requests) / seconds, float64(d.errors) / seconds, d.quantile(0.5), d.quantile(0.99)})
	}
	slices.SortFunc(out, func(a, b Rate) int {
		switch {
		case a.Requests > b.Requests:
			return -1
		case a.Requests < b.Requests:
			return 1
		}
		return slices.Compare(a.key(), b.key())
	})
	return out
}

func (r *Rate) key() []string {
	return []string{r.DestinationService, r.Destination.Cluster, r.Reporter}
}

// History returns how requests went over the last minutes, the oldest first.
func (m *Meter) History() []Point {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.history)
}

// Shed returns the worst of what was refused or ended over the last ten seconds, up to
// now, since clients take too much. "": nothing was.
func (m *Meter) Shed() Shed {
	now := m.overload()
	m.mu.Lock()
	defer m.mu.Unlock()
	was := now
	if len(m.samples) > 0 {
		was = m.samples[0].overload
	}
	return now.shedSince(&was)
}

func (s *sum) add(c *series, failed bool) {
	for i := range c.took.buckets {
		n := c.took.buckets[i].Load()
		s.buckets[i] += n
		s.requests += n
		if failed {
			s.errors += n
		}
	}
}

// since returns what was counted after old, which may be nil. An upstream that
// was gone in between counts from zero again.
func (s *sum) since(old *sum) sum {
	if old == nil || old.requests > s.requests || old.errors > s.errors {
		return *s
	}
	d := sum{requests: s.requests - old.requests, errors: s.errors - old.errors}
	for i := range s.buckets {
		if s.buckets[i] < old.buckets[i] {
			return *s
		}
		d.buckets[i] = s.buckets[i] - old.buckets[i]
	}
	return d
}

// quantile estimates, within the bucket where it lies, as Prometheus'
// histogram_quantile does. Behind the last bound it is that bound.
func (s *sum) quantile(q float64) float64 {
	var all uint64
	for _, n := range s.buckets {
		all += n
	}
	if all == 0 {
		return 0
	}
	rank, below := q*float64(all), 0.0
	for i, n := range s.buckets[:len(bounds)] {
		if below+float64(n) >= rank && n > 0 {
			low := 0.0
			if i > 0 {
				low = bounds[i-1]
			}
			return low + (bounds[i]-low)*(rank-below)/float64(n)
		}
		below += float64(n)
	}
	return bounds[len(bounds)-1]
}
