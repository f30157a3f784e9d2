package telemetry

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Requests counts the exchanges that bear the same Labels. Its methods may be
// called by any goroutine.
type Requests struct {
	common[Requests]
	classes [6]atomic.Pointer[class] // of statuses, without a flag

	mu    sync.Mutex // guards what is below, and the making of series
	other map[outcome]*series
	list  []seriesOf // the same. It only grows, so that what was seen of it may be read without mu
}

// seriesOf is the series of an outcome.
type seriesOf struct {
	outcome
	*series
}

// class holds the series of the statuses of one class, such as 2xx.
type class [100]atomic.Pointer[series]

// outcome is what became of exchanges, beside those of class.
type outcome struct {
	status int
	flag   string
	grpc   int    // NoGRPC: not gRPC
	tags   string // of a shape; see shape.outcome
}

// failed reports whether that is a failure: a status of 500 and above, or of gRPC
// what means as much, or none though the client was there. gRPC has no status of its own
// for what the proxy refuses by 429, 404 or 400: that is no failure either.
// deploy/prometheus/rules.yaml counts likewise.
func (o *outcome) failed() bool {
	switch {
	case o.status == 0:
		return !strings.HasSuffix(o.flag, clientGone) // "DI,DC" where a fault has delayed it
	case o.status >= 500:
		return true
	case o.grpc >= 0 && !refused(o.flag):
		switch o.grpc {
		case 2, 4, 12, 13, 14, 15: // UNKNOWN DEADLINE_EXCEEDED UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS (Envoy: grpcToHttpStatus)
			return true
		}
	}
	return false
}

// refused reports whether a flag, behind that of a delay, is Envoy's of a request that is
// limited, has no route or is malformed.
func refused(flag string) bool {
	switch strings.TrimPrefix(flag, "DI,") {
	case "RL", "NR", "DPE":
		return true
	}
	return false
}

// Exchange is one of those that are counted.
type Exchange struct {
	Status                         int    // 0: the client got none
	Flag                           string // Envoy's response flag
	GRPC                           int    // the status that gRPC's client got; NoGRPC
	Took                           time.Duration
	RequestBytes                   int64 // head and body
	ReplyBytes                     int64
	RequestMessages, ReplyMessages uint64   // of gRPC
	Trace                          [16]byte // zero: it is not in any
	End                            int64    // when it was over, in nanoseconds since 1970; of those with a trace
	Tags                           []string // values of labels that Istio's metrics do not have; see Tag
}

// Of [Exchange].GRPC: the exchange is none of gRPC, or one whose reply told no
// status.
const (
	NoGRPC       = -1
	GRPCNoStatus = -2
)

// NewRequests makes the counters for labels.
func NewRequests(l Labels) *Requests {
	r := &Requests{}
	r.labels = l
	return r
}

// Record counts an exchange.
func (r *Requests) Record(e *Exchange) {
	r.series(e).observe(e)
	for _, v := range r.others() {
		v.found(v.shape.outcome(e)).observe(e)
	}
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
	return r.found(outcome{status: e.Status, flag: e.Flag, grpc: e.GRPC})
}

// found finds the series of an outcome, or makes it.
func (r *Requests) found(k outcome) *series {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.other[k]
	if s == nil && k.tags != "" && r.shape.series.Load() >= maxLabels {
		r.shape.over.Add(1)
		k = r.shape.tooMany(k)
		s = r.other[k]
	}
	if s == nil {
		if r.other == nil {
			r.other = map[outcome]*series{}
		}
		if k.tags != "" {
			r.shape.series.Add(1)
		}
		s = &series{}
		r.other[k], r.list = s, append(r.list, seriesOf{k, s})
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

// each calls fn for every series. Exchanges are counted meanwhile: fn may wait for
// whoever reads.
func (r *Requests) each(fn func(o outcome, s *series)) {
	for hundreds := range r.classes {
		c := r.classes[hundreds].Load()
		if c == nil {
			continue
		}
		for i := range c {
			if s := c[i].Load(); s != nil {
				fn(outcome{status: 100*hundreds + i, flag: NoFlag, grpc: NoGRPC}, s)
			}
		}
	}
	r.mu.Lock()
	list := r.list
	r.mu.Unlock()
	for i := range list {
		fn(list[i].outcome, list[i].series)
	}
}

// number is how many exchanges have been counted.
func (r *Requests) number() (n uint64) {
	r.each(func(_ outcome, s *series) { n += s.took.count() })
	return n
}

func (r *Requests) total() uint64 { return r.number() }

// busy: exchanges are counted when they are over.
func (*Requests) busy() bool { return false }

func (r *Requests) tagged() (n int) {
	r.each(func(o outcome, _ *series) {
		if o.tags != "" {
			n++
		}
	})
	return n
}

var (
	requestsFamily = family{"istio_requests_total", "counter", "Requests by who called whom and what became of them."}
	durationFamily = family{"istio_request_duration_milliseconds", "histogram", "How long requests took, until the last of the reply was sent."}
	sizeFamily     = family{"istio_request_bytes", "histogram", "How large requests were, head and body."}
	replyFamily    = family{"istio_response_bytes", "histogram", "How large replies were, head and body."}
	asksFamily     = family{"istio_request_messages_total", "counter", "Messages of gRPC that clients have sent."}
	tellsFamily    = family{"istio_response_messages_total", "counter", "Messages of gRPC that clients were sent."}

	requestFamilies = []*family{&requestsFamily, &durationFamily, &sizeFamily, &replyFamily, &asksFamily, &tellsFamily}
)

func (*Requests) families() []*family  { return requestFamilies }
func (*Requests) labelNames() []string { return labelNames[:] }

// show adds what the counters say to one of the families.
func (r *Requests) show(p *Page, f *family) {
	var v labelValues
	r.labels.fill(&v)
	r.each(func(o outcome, s *series) {
		if o.grpc == NoGRPC && s.asks.Load()+s.tells.Load() == 0 && (f == &asksFamily || f == &tellsFamily) {
			return
		}
		o.fill(&v)
		if r.shape != nil {
			r.shape.set(p, &v, o.tags)
		} else {
			p.set(requestLabels, v[:]...)
		}
		switch f {
		case &requestsFamily:
			p.count(f, s.took.count())
		case &durationFamily:
			p.histogram(f, &s.took, float64(time.Millisecond), s.exemplar.Load())
		case &sizeFamily:
			p.histogram(f, &s.request, 1, nil)
		case &replyFamily:
			p.histogram(f, &s.reply, 1, nil)
		case &asksFamily:
			p.count(f, s.asks.Load())
		case &tellsFamily:
			p.count(f, s.tells.Load())
		}
	})
}

// fill sets the labels that say what became of exchanges.
func (o *outcome) fill(v *labelValues) {
	v[requestProtocol], v[grpcStatus] = "http", ""
	if o.grpc != NoGRPC {
		v[requestProtocol] = "grpc"
		if o.grpc != GRPCNoStatus {
			v[grpcStatus] = strconv.Itoa(o.grpc)
		}
	}
	v[responseFlags], v[responseCode] = o.flag, statusText(o.status)
}

// statuses are those there are, as text.
var statuses = func() (t [600]string) {
	for i := range t {
		t[i] = strconv.Itoa(i)
	}
	return t
}()

func statusText(status int) string {
	if status >= 0 && status < len(statuses) {
		return statuses[status]
	}
	return strconv.Itoa(status)
}
