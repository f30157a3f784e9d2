package proxy

import (
	"slices"
	"strings"
	"time"

	"isthmus/accesslog"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// maxTagValue is how long the value of a label may be that clients decide about.
const maxTagValue = 128

// tagRule says what Telemetry resources want of the metrics of one side.
type tagRule struct {
	shown map[string]telemetry.Override
	drawn []*accesslog.Value // of each exchange, as its tags
	texts []string           // of drawn
}

// compileMetrics reads what Telemetry resources say of the metrics on one side.
func compileMetrics(s *mesh.Snapshot, side mesh.Sides) *tagRule {
	r := &tagRule{}
	for metric, rule := range mesh.MetricsOf(mesh.TelemetryOf(s.Node, s.Config.Telemetries), side) {
		o := telemetry.Override{Hidden: rule.Disabled}
		for _, t := range rule.Tags[:min(len(rule.Tags), telemetry.MaxTags)] {
			o.Tags = append(o.Tags, r.tag(t))
		}
		if r.shown == nil {
			r.shown = map[string]telemetry.Override{}
		}
		r.shown[metric] = o
	}
	return r
}

// tag finds out whether a label's value is known beforehand.
func (r *tagRule) tag(t mesh.MetricTag) telemetry.Tag {
	out := telemetry.Tag{Name: t.Name, Remove: t.Remove}
	if t.Remove {
		return out
	}
	value, _ := accesslog.ParseValue(t.Value) // config has refused others
	if text, ok := value.Constant(); ok {
		out.Value = text
		return out
	}
	i := slices.Index(r.texts, t.Value)
	if i < 0 {
		i = len(r.texts)
		r.texts, r.drawn = append(r.texts, t.Value), append(r.drawn, value)
	}
	out.From = i + 1
	return out
}

// useMetrics has the metrics be as Telemetry resources want them, and tells the
// table what has to be drawn from each exchange for them.
func (p *Proxy) useMetrics(t *table) {
	client, server := compileMetrics(t.snapshot, mesh.ClientSide), compileMetrics(t.snapshot, mesh.ServerSide)
	t.tags = [3][]*accesslog.Value{outbound: client.drawn, gateway: client.drawn, inbound: server.drawn}
	o := &telemetry.Overrides{Source: client.shown, Destination: server.shown}
	p.options.stores.requests.Override(o)
	p.options.stores.connections.Override(o)
}

// tags are what is drawn from the exchange for labels of metrics.
func (x *exchange) tags(list []*accesslog.Value, flag string, took time.Duration) []string {
	e := x.tellOf(flag, took)
	out := make([]string, len(list))
	for i, v := range list {
		text := v.Of(e)
		if text = text[:min(len(text), maxTagValue)]; text == "" {
			text = "unknown"
		}
		out[i] = strings.ToValidUTF8(text, "\uFFFD") // as it is shown: what looks alike is one series
	}
	forget(e)
	return out
}
