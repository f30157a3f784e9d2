package tracing

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"isthmus/rpc"
)

// otlpRequest writes an ExportTraceServiceRequest (opentelemetry-proto
// collector/trace/v1, trace/v1, common/v1).
func otlpRequest(r *Resource, spans []Span) []byte {
	resource := otlpTag(nil, 1, Tag{"service.name", r.Service})
	for _, t := range r.Tags {
		resource = otlpTag(resource, 1, t)
	}
	scope := rpc.AppendMessage(nil, 1, rpc.AppendText(nil, 1, "isthmus"))
	var span []byte
	for i := range spans {
		span = otlpSpan(span[:0], &spans[i])
		scope = rpc.AppendMessage(scope, 2, span)
	}
	resourceSpans := rpc.AppendMessage(nil, 1, resource)
	resourceSpans = rpc.AppendMessage(resourceSpans, 2, scope)
	return rpc.AppendMessage(nil, 1, resourceSpans)
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

// otlpTag writes a KeyValue.
func otlpTag(b []byte, field protowire.Number, t Tag) []byte {
	// Tags and numbers of fields below 16 are one byte each.
	value := 1 + protowire.SizeBytes(len(t.Value))
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(1+protowire.SizeBytes(len(t.Key))+1+protowire.SizeBytes(value)))
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), t.Key)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.BytesType), uint64(value))
	return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), t.Value)
}
