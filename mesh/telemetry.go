package mesh

import (
	"slices"
	"strings"
)

// Sides say of which end of an exchange something holds, for a proxy that
// stands at either.
type Sides uint8

// The sides (Istio: WorkloadMode). A gateway is a client of what is behind it.
const (
	ClientSide Sides = 1 << iota
	ServerSide
	BothSides = ClientSide | ServerSide
)

// Telemetry is Istio's Telemetry: what a workload tells of its traffic.
type Telemetry struct {
	Meta
	Selector map[string]string // empty: every workload of the namespace, or of the mesh
	Logging  []LoggingRule
	Tracing  []TracingRule
	Metrics  []MetricRule
}

// AccessLog says where lines of exchanges go. Values are comparable.
type AccessLog struct {
	Path   string // "": nowhere
	Format string // "text", "json", or one of Envoy's operators
}

// MetricRule says that some metrics are otherwise than Istio has them.
type MetricRule struct {
	Sides    Sides
	Metrics  []string // their names
	Disabled *bool    // nil: as a more general rule has it
	Tags     []MetricTag
	Source   Source
}

// MetricTag is what becomes of a label.
type MetricTag struct {
	Name   string
	Remove bool
	Value  string // an expression of CEL
}

// MetricView is how a metric is, when all rules are put together.
type MetricView struct {
	Disabled bool
	Tags     []MetricTag // by their names
}

// MetricsOf puts the rules for one side together, by the names of metrics: the last
// that says something of a metric, or of one of its labels, wins.
func MetricsOf(list []*Telemetry, side Sides) map[string]MetricView {
	var out map[string]MetricView
	for _, t := range list {
		for i := range t.Metrics {
			r := &t.Metrics[i]
			if r.Sides&side == 0 {
				continue
			}
			for _, metric := range r.Metrics {
				v := out[metric]
				if r.Disabled != nil {
					v.Disabled = *r.Disabled
				}
				for _, tag := range r.Tags {
					at, known := slices.BinarySearchFunc(v.Tags, tag.Name, func(t MetricTag, name string) int { return strings.Compare(t.Name, name) })
					if v.Tags = slices.Clone(v.Tags); known {
						v.Tags[at] = tag
					} else {
						v.Tags = slices.Insert(v.Tags, at, tag)
					}
				}
				if out == nil {
					out = map[string]MetricView{}
				}
				out[metric] = v
			}
		}
	}
	for metric, v := range out {
		if !v.Disabled && len(v.Tags) == 0 {
			delete(out, metric) // it was disabled in general, and is not in particular
		}
	}
	return out
}

// LoggingRule says whether exchanges are written to the access log, and which.
type LoggingRule struct {
	Sides    Sides
	Disabled bool
	Filter   string // an expression of CEL; "": all
	Source   Source
}

// TracingRule says how exchanges are traced. What is nil, or empty, is left as a
// more general rule has it.
type TracingRule struct {
	Sides       Sides
	Collector   string   // its name; "": whatever there is
	Sampling    *float64 // percent of those about which no caller has decided
	Disabled    *bool    // no spans are sent, and the request's trace context is passed on as it has come
	Ends        *bool    // it is not passed on
	Tags        []TraceTag
	NoIstioTags *bool
	Source      Source
}

// Tracing says where spans go, and how many there are.
type Tracing struct {
	Sampling   *float64    // percent of exchanges about which no caller has decided; nil: not said
	Collectors []Collector // each gets all; empty: not said
}

// TraceProtocol is how spans are sent.
type TraceProtocol uint8

// The protocols.
const (
	OTLPHTTP TraceProtocol = iota
	OTLPGRPC
	Zipkin
)

// Collector is where spans are sent to. Values are comparable.
type Collector struct {
	Name     string // by which Telemetry resources know it; "": the mesh's
	Protocol TraceProtocol
	Host     string // a host of the mesh, or of DNS
	Port     uint32
	Path     string // ""; the protocol's
	TLS      bool
}

// TraceTag is a tag that spans bear.
type TraceTag struct {
	Name    string
	Literal string
	Header  string // of the request, in lower case; "": the tag is the literal
	Default string // where the header is not there; "": no tag
}

// TelemetryOf returns what holds for a node, from the general to the particular:
// the mesh's, the namespace's, the workload's. Of several of one level the first
// by source counts (Istio: the oldest).
func TelemetryOf(n *Node, list []*Telemetry) []*Telemetry {
	const levels = 3
	var chosen [levels]*Telemetry
	for _, t := range list {
		if !n.AppliesTo(&t.Meta, t.Selector) {
			continue
		}
		level := 1
		switch {
		case len(t.Selector) > 0 && t.Namespace != n.Namespace:
			continue // Istio's selectors reach no further than their namespace
		case len(t.Selector) > 0:
			level = 2
		case t.Namespace == n.RootNamespace:
			level = 0
		}
		if chosen[level] == nil || t.Source.Before(chosen[level].Source) {
			chosen[level] = t
		}
	}
	var out []*Telemetry
	for _, t := range chosen {
		if t != nil {
			out = append(out, t)
		}
	}
	return out
}

// LoggingOf puts the rules for one side together: the last that says something
// wins. nil: there is none.
func LoggingOf(list []*Telemetry, side Sides) (out *LoggingRule) {
	for _, t := range list {
		for i := range t.Logging {
			r := &t.Logging[i]
			if r.Sides&side == 0 {
				continue
			}
			merged := *r
			if out != nil && r.Filter == "" {
				merged.Filter = out.Filter
			}
			out = &merged
		}
	}
	return out
}

// TracingOf puts the rules for one side together, field by field: the last that
// says something wins. nil: there is none.
func TracingOf(list []*Telemetry, side Sides) (out *TracingRule) {
	for _, t := range list {
		for i := range t.Tracing {
			r := &t.Tracing[i]
			if r.Sides&side == 0 {
				continue
			}
			if out == nil {
				out = &TracingRule{}
			}
			if r.Collector != "" {
				out.Collector = r.Collector
			}
			if r.Sampling != nil {
				out.Sampling = r.Sampling
			}
			if r.Disabled != nil {
				out.Disabled = r.Disabled
			}
			if r.Ends != nil {
				out.Ends = r.Ends
			}
			if r.NoIstioTags != nil {
				out.NoIstioTags = r.NoIstioTags
			}
			if len(r.Tags) > 0 {
				out.Tags = r.Tags
			}
			out.Source = r.Source
		}
	}
	return out
}
