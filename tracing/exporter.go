package tracing

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"
)

const (
	// maxQueued is how many exchanges wait to be sent, with a few spans each; those
	// of OpenTelemetry's SDK are 2,048 spans.
	maxQueued = 2048

	// sendFrom is how many spans are sent at once, sendEvery how long one waits for
	// others.
	sendFrom  = 512
	sendEvery = time.Second

	// sendWithin is how long a collector may take.
	sendWithin = 5 * time.Second

	// longestPause is how long a collector that fails is left alone, at the most.
	longestPause = 30 * time.Second
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

// sender sends spans in one protocol.
type sender interface {
	send(context.Context, []Span) error
	close()
}

// Exporter sends spans to a collector. Its methods may be called by any
// goroutine.
type Exporter struct {
	options Options
	sender  sender
	queue   chan []Span
	counts  *Counts
	cancel  context.CancelFunc // of what is being sent
	closing chan struct{}      // closed by Close
	done    chan struct{}      // closed when the goroutine has ended
}

// Counts are those of spans, over all exporters of a proxy.
type Counts struct {
	Sent, Lost atomic.Uint64
}

// NewExporter starts one. Its goroutine ends with Close.
func NewExporter(o Options, counts *Counts) *Exporter {
	return newExporter(o, counts, newSender(&o))
}

func newSender(o *Options) sender {
	switch o.Protocol {
	case OTLPGRPC:
		return newGRPCSender(o)
	case Zipkin:
		return newHTTPSender(o, "/api/v2/spans", "application/json", zipkinJSON)
	}
	return newHTTPSender(o, "/v1/traces", "application/x-protobuf", otlpRequest)
}

func newExporter(o Options, counts *Counts, s sender) *Exporter {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Exporter{options: o, sender: s, queue: make(chan []Span, maxQueued), counts: counts, cancel: cancel, closing: make(chan struct{}), done: make(chan struct{})}
	go e.run(ctx)
	return e
}

// Offer takes the spans of one exchange. If the queue is full, they are lost. It
// never waits.
func (e *Exporter) Offer(spans []Span) {
	select {
	case <-e.closing:
		e.counts.Lost.Add(uint64(len(spans)))
		return
	default:
	}
	select {
	case e.queue <- spans:
	default:
		e.counts.Lost.Add(uint64(len(spans)))
	}
}

// closeWithin bounds how long Close waits for the collector.
const closeWithin = time.Second

// Close sends what is queued, if the collector takes it soon, and ends the
// exporter.
func (e *Exporter) Close() {
	close(e.closing)
	timer := time.AfterFunc(closeWithin, e.cancel)
	defer timer.Stop()
	<-e.done
	e.cancel()
}

// run sends what is queued. newExporter starts it; it ends after Close.
func (e *Exporter) run(ctx context.Context) {
	defer close(e.done)
	defer e.sender.close()
	pause := time.Duration(0)
	for open := true; open; {
		var batch []Span
		if batch, open = e.gather(); len(batch) == 0 {
			continue
		}
		err := e.send(ctx, batch)
		if err == nil {
			pause = 0
			continue
		}
		if pause == 0 {
			e.options.Logger.Warn("spans are lost: the collector does not take them", "collector", e.options.Authority, "error", err)
		}
		// Meanwhile the queue fills, and then what is offered is lost.
		pause = min(max(2*pause, sendEvery), longestPause)
		select {
		case <-e.closing:
		case <-time.After(pause):
		}
	}
}

// gather waits for spans, and then a little for more. open is false once the
// exporter is to end.
func (e *Exporter) gather() (batch []Span, open bool) {
	select {
	case batch = <-e.queue:
	case <-e.closing:
		return e.rest(nil), false
	}
	due := time.NewTimer(sendEvery)
	defer due.Stop()
	for len(batch) < sendFrom {
		select {
		case spans := <-e.queue:
			batch = append(batch, spans...)
		case <-due.C:
			return batch, true
		case <-e.closing:
			return e.rest(batch), false
		}
	}
	return batch, true
}

// rest takes all that is queued.
func (e *Exporter) rest(batch []Span) []Span {
	for {
		select {
		case spans := <-e.queue:
			batch = append(batch, spans...)
		default:
			return batch
		}
	}
}

// send sends a batch; it is lost if that fails.
func (e *Exporter) send(ctx context.Context, batch []Span) error {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	if err := e.sender.send(ctx, batch); err != nil {
		e.counts.Lost.Add(uint64(len(batch)))
		return err
	}
	e.counts.Sent.Add(uint64(len(batch)))
	return nil
}
