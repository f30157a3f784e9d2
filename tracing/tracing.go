// Package tracing tells of exchanges as spans of traces: it reads and writes the
// fields by which a trace goes from one process to the next (W3C Trace Context and
// Zipkin's B3), and sends spans to a collector, by OTLP over HTTP or gRPC, or in
// Zipkin's JSON.
//
// Whoever serves requests never waits for a collector: spans go into a queue that
// is bounded, and one goroutine sends them. See docs/adr/011 for why this is not
// OpenTelemetry's SDK.
package tracing

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// TraceID names a trace. Zero: there is none.
type TraceID [16]byte

// SpanID names a span within a trace. Zero: there is none.
type SpanID [8]byte

// IsZero reports whether there is none.
func (id *TraceID) IsZero() bool {
	return binary.LittleEndian.Uint64(id[:8])|binary.LittleEndian.Uint64(id[8:]) == 0
}

// Draw makes it one at random.
func (id *TraceID) Draw() {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64()|1)
}

// Draw makes it one at random.
func (id *SpanID) Draw() { binary.LittleEndian.PutUint64(id[:], rand.Uint64()|1) }

// Kind says at which end of an exchange a span was made.
type Kind uint8

// The kinds, with OTLP's numbers.
const (
	Server Kind = 2
	Client Kind = 3
)

// Span is a part of a trace: an exchange, or one try of it.
type Span struct {
	Trace      TraceID
	ID, Parent SpanID
	State      string // tracestate
	Kind       Kind
	Name       string
	Start, End time.Time
	Failed     bool
	Tags       []Tag // no two by one name
}

// Tag is something that a span says.
type Tag struct{ Key, Value string }

// Resource is who makes spans.
type Resource struct {
	Service string // "web.prod", Istio's canonical name and namespace
	Address string // IP address
	Tags    []Tag
}
