package tracing

import (
	"encoding/hex"
	"encoding/json"
)

// zipkinSpan is a span of Zipkin's API v2.
type zipkinSpan struct {
	TraceID   string            `json:"traceId"`
	ID        string            `json:"id"`
	ParentID  string            `json:"parentId,omitempty"`
	Kind      string            `json:"kind"`
	Name      string            `json:"name"`
	Timestamp int64             `json:"timestamp"` // µs
	Duration  int64             `json:"duration"`  // µs
	Local     zipkinEndpoint    `json:"localEndpoint"`
	Tags      map[string]string `json:"tags,omitempty"`
}

type zipkinEndpoint struct {
	Service string `json:"serviceName"`
	Address string `json:"ipv4,omitempty"`
	IPv6    string `json:"ipv6,omitempty"`
}

// zipkinJSON writes a list of spans.
func zipkinJSON(r *Resource, spans []*Span) []byte {
	local := zipkinEndpoint{Service: r.Service, Address: r.Address}
	for _, c := range r.Address {
		if c == ':' {
			local.Address, local.IPv6 = "", r.Address
			break
		}
	}
	list := make([]zipkinSpan, len(spans))
	for i, s := range spans {
		z := &list[i]
		*z = zipkinSpan{
			TraceID: hex.EncodeToString(s.Trace[:]), ID: hex.EncodeToString(s.ID[:]), Kind: "CLIENT", Name: s.Name,
			Timestamp: s.Start.UnixMicro(), Duration: max(s.End.Sub(s.Start).Microseconds(), 1), Local: local, Tags: map[string]string{},
		}
		if s.Kind == Server {
			z.Kind = "SERVER"
		}
		if s.Parent != (SpanID{}) {
			z.ParentID = hex.EncodeToString(s.Parent[:])
		}
		for _, t := range s.Tags {
			z.Tags[t.Key] = t.Value
		}
		if s.Failed {
			z.Tags["error"] = "true"
		}
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic("a list of texts and numbers is no JSON: " + err.Error())
	}
	return b
}
