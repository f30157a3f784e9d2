package tracing

import (
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"isthmus/rpc"
)

// otlp writes an ExportTraceServiceRequest (opentelemetry-proto
// collector/trace/v1, trace/v1, common/v1). Its messages begin with how long they
// are: what stands before the spans is written when they are there.
type otlp struct {
	resource []byte // Resource, as a field of ResourceSpans
	scope    []byte // InstrumentationScope, as a field of ScopeSpans
}

func newOTLP(r *Resource) *otlp {
	resource := otlpTag(nil, 1, Tag{"service.name", r.Service})
	for _, t := range r.Tags {
		resource = otlpTag(resource, 1, t)
	}
	return &otlp{
		resource: rpc.AppendMessage(nil, 1, resource),
		scope:    rpc.AppendMessage(nil, 1, rpc.AppendText(nil, 1, "isthmus")),
	}
}

// otlpLength is how long what begins a message within another can be.
const otlpLength = 1 + binary.MaxVarintLen64

func (o *otlp) room() int { return 2*otlpLength + len(o.resource) + otlpLength + len(o.scope) }

// message writes what stands before the spans, to the end of its room.
func (o *otlp) message(b []byte) []byte {
	room := o.room()
	scope := len(o.scope) + len(b) - room
	head := make([]byte, 0, room)
	begin := func(field protowire.Number, length int) {
		head = protowire.AppendVarint(protowire.AppendTag(head, field, protowire.BytesType), uint64(length))
	}
	begin(1, len(o.resource)+1+protowire.SizeBytes(scope))
	head = append(head, o.resource...)
	begin(2, scope)
	head = append(head, o.scope...)
	from := room - len(head)
	copy(b[from:], head)
	return b[from:]
}

// appendSpan writes a Span, as a field of ScopeSpans. How long it is is known at
// its end, where there is room for it to move.
func (o *otlp) appendSpan(dst []byte, s *Span) []byte {
	from := len(dst)
	dst = otlpSpan(dst, s)
	length := len(dst) - from
	var room [otlpLength]byte
	head := protowire.AppendVarint(protowire.AppendTag(room[:0], 2, protowire.BytesType), uint64(length))
	dst = append(dst, head...)
	copy(dst[from+len(head):], dst[from:from+length])
	copy(dst[from:], head)
	return dst
}

// otlpError is STATUS_CODE_ERROR.
const otlpError = 2

func otlpSpan(b []byte, s *Span) []byte {
	b = rpc.AppendMessage(b, 1, s.Trace[:])
	b = rpc.AppendMessage(b, 2, s.ID[:])
	b = rpc.AppendText(b, 3, s.State)
	if s.Parent != (SpanID{}) {
		b = rpc.AppendMessage(b, 4, s.Parent[:])
	}
	b = rpc.AppendText(b, 5, s.Name)
	b = rpc.AppendNumber(b, 6, uint64(s.Kind))
	b = otlpTime(b, 7, s.Start)
	b = otlpTime(b, 8, s.End)
	for _, t := range s.Tags {
		b = otlpTag(b, 9, t)
	}
	if s.Failed {
		b = rpc.AppendMessage(b, 15, rpc.AppendNumber(nil, 3, otlpError))
	}
	return b
}

func otlpTime(b []byte, field protowire.Number, t time.Time) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), uint64(t.UnixNano()))
}

// otlpTag writes a KeyValue. Field is below 16, so that it is one byte with its type.
func otlpTag(b []byte, field protowire.Number, t Tag) []byte {
	// Around key and value there are three headers: of the key, of the AnyValue, and
	// of the text in it.
	if all := len(t.Key) + len(t.Value) + 3*2; all < 0x80 { // each length is one byte, as that of most tags
		b = append(append(b, byte(field)<<3|2, byte(all), 1<<3|2, byte(len(t.Key))), t.Key...)
		return append(append(b, 2<<3|2, byte(len(t.Value)+2), 1<<3|2, byte(len(t.Value))), t.Value...)
	}
	value := 1 + protowire.SizeBytes(len(t.Value))
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(1+protowire.SizeBytes(len(t.Key))+1+protowire.SizeBytes(value)))
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), t.Key)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.BytesType), uint64(value))
	return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), t.Value)
}
