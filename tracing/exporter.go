package tracing

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxQueued is how many bytes of spans wait to be sent: those of some 2,000
	// exchanges, as OpenTelemetry's SDK lets 2,048 spans wait. What comes on top is
	// lost.
	maxQueued = 4 << 20

	// sendFrom is how many bytes of spans are sent at once, sendEvery how long one
	// waits for others.
	sendFrom  = 256 << 10
	sendEvery = time.Second

	// sendWithin is how long a collector may take.
	sendWithin = 5 * time.Second

	// longestPause is how long a collector that fails is left alone, at the most, unless it
	// asks for more itself; longestAsked is how much of that it gets.
	longestPause = 30 * time.Second
	longestAsked = 5 * time.Minute

	// keptFor is for how long spans are sent again that a collector does not take; that of
	// OpenTelemetry's Collector (retry_on_failure.max_elapsed_time).
	keptFor = 5 * time.Minute
)

// Protocol is how spans are sent.
type Protocol uint8

// The protocols.
const (
	OTLPHTTP Protocol = iota
	OTLPGRPC
	Zipkin
)

// Options say where spans go.
type Options struct {
	Protocol  Protocol
	Authority string // host:port, for the Host field
	Path      string // of OTLPHTTP and Zipkin; "": the usual one
	TLS       bool   // https
	Resource  Resource
	Dial      func(context.Context) (net.Conn, error) // connects to the collector, without TLS
	Logger    *slog.Logger
}

// sender sends messages of spans.
type sender interface {
	// send returns nil if the collector has the message, with what it has not taken of it, and
	// a *refusal if that it has not is no reason not to send it again. After an error somebody
	// may still read it.
	send(ctx context.Context, message []byte) (partial, error)
	close()
}

// encoding writes spans as a collector wants them. It never changes.
type encoding interface {
	// room is how much the message begins with before the first span.
	room() int
	// appendSpan appends a span to others.
	appendSpan(dst []byte, s *Span) []byte
	// message completes what has room and then spans. It may move what it returns within b.
	message(b []byte) []byte
}

// Exporter sends spans to a collector. Its methods may be called by any
// goroutine.
type Exporter struct {
	options  Options
	encoding encoding
	sender   sender
	counts   *Counts

	mu     sync.Mutex // guards the fields below
	queued batch
	kept   batch // what is to be sent again, before that
	closed bool

	partial bool // the last message was taken in part; only run's

	wake   chan struct{}      // of one: there is the first span, or many, or the end has come
	cancel context.CancelFunc // of what is being sent
	done   chan struct{}      // closed when the goroutine has ended
}

// batch are spans that are sent together.
type batch struct {
	bytes   []byte // as they are sent, behind the encoding's room; empty: there are none
	spans   int
	message []byte    // made of bytes, which others may read from then on; nil: it has not been sent
	refused time.Time // when it was sent in vain first
}

// partial says that a collector has taken a message, and not all of its spans (OTLP: Partial
// Success). They are not to be sent again.
type partial struct {
	lost int
	why  string // "": nothing is to be said
}

// Counts are those of spans, over all exporters of a proxy.
type Counts struct {
	Sent, Lost atomic.Uint64
}

// NewExporter starts one. Its goroutine ends with Close.
func NewExporter(o Options, counts *Counts) *Exporter {
	switch o.Protocol {
	case OTLPGRPC:
		return newExporter(o, counts, newOTLP(&o.Resource), newGRPCSender(&o))
	case Zipkin:
		return newExporter(o, counts, newZipkin(&o.Resource), newHTTPSender(&o, "/api/v2/spans", "application/json"))
	}
	return newExporter(o, counts, newOTLP(&o.Resource), newHTTPSender(&o, "/v1/traces", "application/x-protobuf"))
}

func newExporter(o Options, counts *Counts, c encoding, s sender) *Exporter {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Exporter{options: o, encoding: c, sender: s, counts: counts, wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	go e.run(ctx)
	return e
}

// encoded is memory for the spans of one exchange, which are written before
// anybody is kept from offering others.
var encoded = sync.Pool{New: func() any { return new([]byte) }}

// Offer takes the spans of one exchange, and keeps nothing of theirs. If the queue
// is full, they are lost, or the older ones that the collector has not taken. It never
// waits for the collector.
func (e *Exporter) Offer(spans []Span) {
	b := encoded.Get().(*[]byte)
	*b = (*b)[:0]
	for i := range spans {
		*b = e.encoding.appendSpan(*b, &spans[i])
	}
	if !e.queue(*b, len(spans)) {
		e.counts.Lost.Add(uint64(len(spans)))
	}
	encoded.Put(b)
}

// queue queues spans, unless there is no room, or nobody who sends them.
func (e *Exporter) queue(b []byte, spans int) bool {
	e.mu.Lock()
	q := &e.queued
	full := len(q.bytes)+len(b) > maxQueued
	if e.closed || full && e.kept.spans == 0 || len(b) > maxQueued {
		e.mu.Unlock()
		return false
	}
	if full {
		e.counts.Lost.Add(uint64(e.kept.spans))
		e.kept, e.queued = e.queued, batch{}
	}
	before := len(q.bytes)
	if before == 0 {
		q.bytes = append(q.bytes, make([]byte, e.encoding.room())...)
	}
	q.bytes = append(q.bytes, b...)
	q.spans += spans
	after := len(q.bytes)
	e.mu.Unlock()
	if before == 0 || before < sendFrom && after >= sendFrom {
		e.signal()
	}
	return true
}

func (e *Exporter) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Busy is false: what waits to be sent is Close's to see to.
func (e *Exporter) Busy() bool { return false }

// closeWithin bounds how long Close waits for the collector.
const closeWithin = time.Second

// Close sends what is queued, if the collector takes it soon, and ends the
// exporter.
func (e *Exporter) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.signal()
	timer := time.AfterFunc(closeWithin, e.cancel)
	defer timer.Stop()
	<-e.done
	e.cancel()
}

// run sends what is queued. newExporter starts it; it ends after Close.
func (e *Exporter) run(ctx context.Context) {
	defer close(e.done)
	defer e.sender.close()
	var spare []byte // memory of what was sent
	pause := time.Duration(0)
	for {
		b, closed := e.next(spare)
		if b.spans == 0 {
			return
		}
		spare = nil
		pause = e.send(ctx, b, pause, closed)
		if pause == 0 && b.refused.IsZero() && cap(b.bytes) <= 2*sendFrom { // more was an outage
			spare = b.bytes
		}
		if pause > 0 {
			// Meanwhile the queue fills, and then something is lost. Proxies that have been
			// refused together do not come back together.
			e.await(time.After(pause+rand.N(pause/4)), func(batch) bool { return false })
		}
	}
}

// next waits for spans to send, and takes them. There are none if the exporter ends, which
// closed says: these are sent once.
func (e *Exporter) next(spare []byte) (b batch, closed bool) {
	e.mu.Lock()
	again := e.kept.spans > 0
	e.mu.Unlock()
	if !again {
		e.gather()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.kept.spans > 0 {
		b, e.kept = e.kept, batch{}
	} else {
		b, e.queued = e.queued, batch{bytes: spare[:0]}
	}
	return b, e.closed
}

// gather waits for spans, and then a little for more, or until the exporter is to end.
func (e *Exporter) gather() {
	e.await(nil, func(b batch) bool { return b.spans > 0 })
	due := time.NewTimer(sendEvery)
	defer due.Stop()
	e.await(due.C, func(b batch) bool { return len(b.bytes) >= sendFrom })
}

// await waits until what is queued is enough, time is up, or the exporter is to
// end.
func (e *Exporter) await(due <-chan time.Time, enough func(batch) bool) {
	for {
		e.mu.Lock()
		queued, closed := e.queued, e.closed
		e.mu.Unlock()
		if closed || enough(queued) {
			return
		}
		select {
		case <-e.wake:
		case <-due:
			return
		}
	}
}

// refusal is why a collector has not taken spans that it may be sent again.
type refusal struct {
	err   error
	after time.Duration // not before; 0: it does not say
}

func (r *refusal) Error() string { return r.err.Error() }

// send sends a batch. If that fails, it is kept, or lost if it is the last time or there is no
// sense in it. It returns how long to leave the collector alone, which was the pause before.
func (e *Exporter) send(ctx context.Context, b batch, before time.Duration, last bool) (pause time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	if b.message == nil {
		b.message = e.encoding.message(b.bytes)
	}
	part, err := e.sender.send(ctx, b.message)
	if err == nil {
		lost := min(max(part.lost, 0), b.spans)
		e.counts.Sent.Add(uint64(b.spans - lost))
		e.counts.Lost.Add(uint64(lost))
		if part != (partial{}) && !e.partial {
			e.options.Logger.Warn("the collector does not take some of the spans, or has something to say of them", "collector", e.options.Authority, "spans", lost, "message", part.why)
		}
		e.partial = part != (partial{})
		return 0
	}
	pause = min(max(2*before, sendEvery), longestPause)
	refused, again := err.(*refusal)
	if again {
		pause = max(pause, min(refused.after, longestAsked))
		if b.refused.IsZero() {
			b.refused = time.Now()
		}
		again = !last && time.Since(b.refused) < keptFor
	}
	if before == 0 {
		e.options.Logger.Warn("the collector does not take spans", "collector", e.options.Authority, "error", err, "again", again)
	}
	if !again {
		e.counts.Lost.Add(uint64(b.spans))
		return pause
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept = b
	return pause
}
