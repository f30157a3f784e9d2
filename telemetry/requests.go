package telemetry

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Requests counts the exchanges that bear the same Labels. Its methods may be
// called by any goroutine.
type Requests struct {
	labels  Labels
	classes [6]atomic.Pointer[class] // of statuses, without a flag
	gone    atomic.Bool              // the store has forgotten it

	mu    sync.Mutex // guards others, and the making of series
	other map[outcome]*series
}

// class holds the series of the statuses of one class, such as 2xx.
type class [100]atomic.Pointer[series]

// outcome is what became of exchanges, beside those of class.
type outcome struct {
	status int
	flag   string
	grpc   int // NoGRPC: not gRPC
}

// Exchange is one of those that are counted.
type Exchange struct {
	Status       int    // 0: the client got none
	Flag         string // Envoy's response flag
	GRPC         int    // the status that gRPC's client got; NoGRPC
	Took         time.Duration
	RequestBytes int64 // head and body
	ReplyBytes   int64
	Trace        [16]byte // zero: it is not in any
}

// Of [Exchange].GRPC: the exchange is none of gRPC, or one whose reply told no
// status.
const (
	NoGRPC       = -1
	GRPCNoStatus = -2
)

// NewRequests makes the counters for labels.
func NewRequests(l Labels) *Requests { return &Requests{labels: l} }

// Gone reports whether the counters are shown no more: whoever keeps them has to
// ask for new ones.
func (r *Requests) Gone() bool { return r.gone.Load() }

func (r *Requests) forget() { r.gone.Store(true) }

// Record counts an exchange.
func (r *Requests) Record(e *Exchange) {
	r.series(e).observe(e)
}

func (r *Requests) series(e *Exchange) *series {
	if e.Flag == NoFlag && e.GRPC == NoGRPC && e.Status > 0 && e.Status < 100*len(r.classes) {
		if c := r.classes[e.Status/100].Load(); c != nil {
			if s := c[e.Status%100].Load(); s != nil {
				return s
			}
		}
		return r.makePlain(e.Status)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := outcome{e.Status, e.Flag, e.GRPC}
	s := r.other[k]
	if s == nil {
		if r.other == nil {
			r.other = map[outcome]*series{}
		}
		s = &series{}
		r.other[k] = s
	}
	return s
}

func (r *Requests) makePlain(status int) *series {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.classes[status/100].Load()
	if c == nil {
		c = &class{}
		r.classes[status/100].Store(c)
	}
	s := c[status%100].Load()
	if s == nil {
		s = &series{}
		c[status%100].Store(s)
	}
	return s
}

// each calls fn for every series.
func (r *Requests) each(fn func(o outcome, s *series)) {
	for hundreds := range r.classes {
		c := r.classes[hundreds].Load()
		if c == nil {
			continue
		}
		for i := range c {
			if s := c[i].Load(); s != nil {
				fn(outcome{100*hundreds + i, NoFlag, NoGRPC}, s)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, s := range r.other {
		fn(k, s)
	}
}

// total is how many exchanges have been counted.
func (r *Requests) total() (n uint64) {
	r.each(func(_ outcome, s *series) { n += s.took.count() })
	return n
}

var (
	requestsDesc = prometheus.NewDesc("istio_requests_total", "Requests by who called whom and what became of them.", requestLabelNames, nil)
	durationDesc = prometheus.NewDesc("istio_request_duration_milliseconds", "How long requests took, until the last of the reply was sent.", requestLabelNames, nil)
	sizeDesc     = prometheus.NewDesc("istio_request_bytes", "How large requests were, head and body.", requestLabelNames, nil)
	replyDesc    = prometheus.NewDesc("istio_response_bytes", "How large replies were, head and body.", requestLabelNames, nil)
)

// Describe implements [prometheus.Collector], for requests of any labels.
func (*Requests) describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, durationDesc, sizeDesc, replyDesc} {
		out <- d
	}
}

// collect shows the counters.
func (r *Requests) collect(out chan<- prometheus.Metric) {
	r.each(func(o outcome, s *series) {
		protocol, grpc := "http", ""
		if o.grpc != NoGRPC {
			protocol = "grpc"
			if o.grpc != GRPCNoStatus {
				grpc = strconv.Itoa(o.grpc)
			}
		}
		v := append(r.labels.values(protocol, o.flag), strconv.Itoa(o.status), grpc)
		out <- counter(requestsDesc, float64(s.took.count()), v...)
		took := s.took.metric(durationDesc, float64(time.Millisecond), v)
		if x := s.exemplar.Load(); x != nil {
			took = x.on(took)
		}
		out <- took
		out <- s.request.metric(sizeDesc, 1, v)
		out <- s.reply.metric(replyDesc, 1, v)
	})
}
