package tracing

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
)

// spanSize is about how much a span is as text.
const spanSize = 1 << 10

// zipkinJSON writes a list of spans, as Zipkin's API v2 has them.
func zipkinJSON(r *Resource, spans []Span) []byte {
	address := "ipv4"
	if strings.Contains(r.Address, ":") {
		address = "ipv6"
	}
	local := appendMember(nil, `,"localEndpoint":{"serviceName":`, r.Service)
	if r.Address != "" {
		local = appendMember(local, `,"`+address+`":`, r.Address)
	}
	local = append(local, '}')

	b := append(make([]byte, 0, spanSize*len(spans)), '[')
	for i := range spans {
		s := &spans[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = hex.AppendEncode(append(b, `{"traceId":"`...), s.Trace[:])
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
		b = append(append(b, local...), `,"tags":`...)
		b = append(appendTags(b, s), '}')
	}
	return append(b, ']')
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
func appendMember(b []byte, name, text string) []byte { return appendText(append(b, name...), text) }

// appendText writes a text as JSON. Most are as they are.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic("a text is no JSON: " + err.Error())
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
