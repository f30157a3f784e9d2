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
	read     map[*Requests]*sum // what each counter was at the last reading; nil: there was none

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
	Errors   float64 // of them; see outcome.failed
	P50, P99 float64 // milliseconds, interpolated as Prometheus does
}

// Point is how all requests of a proxy went over one reading's time.
type Point struct {
	Time             time.Time
	Requests, Errors float64 // a second
	P99              float64 // milliseconds
}

// sample is what was counted between two readings.
type sample struct {
	at       time.Time
	sums     map[Labels]*sum
	total    sum
	overload OverloadState // at its end
}

// sum is what counters have counted.
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
	for m.look(time.Now()); ; {
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			m.look(at)
		}
	}
}

// look reads the counters. Each is compared with itself: those of what is gone are
// forgotten, and that makes others of the same labels no less.
func (m *Meter) look(at time.Time) {
	s := sample{at: at, sums: map[Labels]*sum{}, overload: m.overload()}
	read := make(map[*Requests]*sum, len(m.read))
	for _, r := range m.list() {
		now := r.sum()
		read[r] = now
		if m.read == nil {
			continue // nobody knows since when
		}
		d := now.since(m.read[r])
		if d.requests == 0 {
			continue
		}
		l := Labels{
			Reporter: r.labels.Reporter, DestinationService: r.labels.DestinationService, DestinationName: r.labels.DestinationName,
			DestinationNamespace: r.labels.DestinationNamespace, Destination: Party{Cluster: r.labels.Destination.Cluster},
		}
		if s.sums[l] == nil {
			s.sums[l] = &sum{}
		}
		s.sums[l].add(&d)
		s.total.add(&d)
	}
	m.read = read
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.samples); n > 0 {
		if seconds := at.Sub(m.samples[n-1].at).Seconds(); seconds > 0 {
			m.history = append(m.history, Point{at, float64(s.total.requests) / seconds, float64(s.total.errors) / seconds, s.total.quantile(0.99)})
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
	seconds := m.samples[len(m.samples)-1].at.Sub(m.samples[0].at).Seconds()
	if seconds <= 0 {
		return nil
	}
	all := map[Labels]*sum{}
	for _, s := range m.samples[1:] {
		for l, d := range s.sums {
			if all[l] == nil {
				all[l] = &sum{}
			}
			all[l].add(d)
		}
	}
	var out []Rate
	for l, d := range all {
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

// sum is what the counters have counted in all.
func (r *Requests) sum() *sum {
	s := &sum{}
	r.each(func(o outcome, c *series) {
		failed := o.failed()
		for i := range c.took.buckets {
			n := c.took.buckets[i].Load()
			s.buckets[i] += n
			s.requests += n
			if failed {
				s.errors += n
			}
		}
	})
	return s
}

func (s *sum) add(d *sum) {
	s.requests += d.requests
	s.errors += d.errors
	for i := range s.buckets {
		s.buckets[i] += d.buckets[i]
	}
}

// since returns what the same counters have counted after old, which may be nil.
func (s *sum) since(old *sum) sum {
	d := *s
	if old != nil {
		d.requests -= old.requests
		d.errors -= old.errors
		for i := range d.buckets {
			d.buckets[i] -= old.buckets[i]
		}
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
