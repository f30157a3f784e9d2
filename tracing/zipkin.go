package tracing

import (
	"encoding/hex"
	"strconv"
	"strings"

	"isthmus/jsonstring"
)

// zipkin writes a list of spans, as Zipkin's API v2 has them.
type zipkin struct {
	local []byte // who made them, as a member of each
}

func newZipkin(r *Resource) *zipkin {
	address := "ipv4"
	if strings.Contains(r.Address, ":") {
		address = "ipv6"
	}
	local := appendMember(nil, `,"localEndpoint":{"serviceName":`, r.Service)
	if r.Address != "" {
		local = appendMember(local, `,"`+address+`":`, r.Address)
	}
	return &zipkin{append(local, '}')}
}

// room is none: the comma before the first span becomes the list's bracket.
func (z *zipkin) room() int { return 0 }

func (z *zipkin) message(b []byte) []byte {
	b[0] = '['
	return append(b, ']')
}

func (z *zipkin) appendSpan(b []byte, s *Span) []byte {
	b = hex.AppendEncode(append(b, `,{"traceId":"`...), s.Trace[:])
	b = hex.AppendEncode(append(b, `","id":"`...), s.ID[:])
	if s.Parent != (SpanID{}) {
		b = hex.AppendEncode(append(b, `","parentId":"`...), s.Parent[:])
	}
	kind := `","kind":"CLIENT","name":`
	if s.Kind == Server {
		kind = `","kind":"SERVER","name":`
	}
	b = appendMember(b, kind, s.Name)
	b = strconv.AppendInt(append(b, `,"timestamp":`...), s.Start.UnixMicro(), 10)
	b = strconv.AppendInt(append(b, `,"duration":`...), max(s.End.Sub(s.Start).Microseconds(), 1), 10)
	b = append(append(b, z.local...), `,"tags":`...)
	return append(appendTags(b, s), '}')
}

// appendTags writes an object of a span's tags. That it has failed is one of them
// for Zipkin.
func appendTags(b []byte, s *Span) []byte {
	between := `{`
	for _, t := range s.Tags {
		if t.Key == "error" && s.Failed {
			continue
		}
		b = appendMember(appendMember(b, between, t.Key), `:`, t.Value)
		between = `,`
	}
	if s.Failed {
		return append(append(b, between...), `"error":"true"}`...)
	}
	if between == `{` {
		b = append(b, '{')
	}
	return append(b, '}')
}

// appendMember writes a text behind what names it.
func appendMember(b []byte, name, text string) []byte {
	return jsonstring.Append(append(b, name...), text)
}
