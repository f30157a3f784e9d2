package proxy

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/tracing"
)

// traceRule says how exchanges on listeners of a kind are traced.
type traceRule struct {
	exporters []*tracing.Exporter
	share     float64         // of those about which no caller has decided
	formats   tracing.Formats // in which the context is written where none was found
	untouched bool            // it is passed on as it has come
	istioTags bool
	tags      []mesh.TraceTag
}

// defaultSampling is Istio's, in percent.
const defaultSampling = 1

// compileTracing makes the rules of a snapshot, by the kinds of listeners; nil:
// there is no collector, or none for these. Exporters live on. The caller holds
// mu.
func (p *Proxy) compileTracing(s *mesh.Snapshot) (rules [3]*traceRule, gone []*tracing.Exporter) {
	list := mesh.TelemetryOf(s.Node, s.Config.Telemetries)
	kept := map[mesh.Collector]*tracing.Exporter{}
	for kind := range rules {
		side := mesh.ClientSide
		if listenerKind(kind) == inbound {
			side = mesh.ServerSide
		}
		rules[kind] = p.traceRule(s, mesh.TracingOf(list, side), kept)
	}
	for c, e := range p.exporters {
		if kept[c] == nil {
			gone = append(gone, e)
		}
	}
	p.exporters = kept
	return rules, gone
}

// traceRule makes one rule, of what Telemetry resources say and what the bootstrap
// file and the mesh configuration do. kept are the exporters in use.
func (p *Proxy) traceRule(s *mesh.Snapshot, rule *mesh.TracingRule, kept map[mesh.Collector]*tracing.Exporter) *traceRule {
	if rule == nil {
		rule = &mesh.TracingRule{}
	}
	collectors := p.collectors(s.Config, rule.Collector)
	if len(collectors) == 0 {
		return nil
	}
	sampling := float64(defaultSampling)
	for _, said := range []*float64{s.Config.Tracing.Sampling, p.options.Tracing.Sampling, rule.Sampling} {
		if said != nil {
			sampling = *said
		}
	}
	r := &traceRule{
		share: sampling / 100, formats: tracing.W3C, tags: rule.Tags,
		untouched: rule.Untouched != nil && *rule.Untouched, istioTags: rule.NoIstioTags == nil || !*rule.NoIstioTags,
	}
	silent := rule.Disabled != nil && *rule.Disabled
	if silent {
		r.share = 0
	}
	for _, c := range collectors {
		if c.Protocol == mesh.Zipkin {
			r.formats |= tracing.B3Multi
		}
		if silent {
			continue
		}
		e := kept[c]
		if e == nil {
			if e = p.exporters[c]; e == nil {
				e = p.newExporter(c)
			}
			kept[c] = e
		}
		r.exporters = append(r.exporters, e)
	}
	return r
}

// collectors are those that spans go to: the one that a Telemetry resource or the
// mesh's default names, else those of the bootstrap file, else the mesh's.
func (p *Proxy) collectors(c *mesh.Config, name string) []mesh.Collector {
	names := c.DefaultCollectors
	if own := p.options.Tracing.Collectors; len(own) > 0 {
		names = nil
	}
	if name != "" {
		names = []string{name}
	}
	for _, o := range c.Collectors {
		if slices.Contains(names, o.Name) {
			return []mesh.Collector{*o}
		}
	}
	if own := p.options.Tracing.Collectors; len(own) > 0 {
		return own
	}
	return c.Tracing.Collectors
}

func (p *Proxy) newExporter(c mesh.Collector) *tracing.Exporter {
	n := p.node
	self := partyOfNode(n)
	r := tracing.Resource{Service: self.Service + "." + n.Namespace, Address: n.Address}
	for _, t := range []tracing.Tag{
		{Key: "service.namespace", Value: n.Namespace}, {Key: "service.instance.id", Value: n.Name}, {Key: "service.version", Value: self.Version}, {Key: "k8s.cluster.name", Value: n.Cluster},
	} {
		if t.Value != "" {
			r.Tags = append(r.Tags, t)
		}
	}
	return tracing.NewExporter(tracing.Options{
		Protocol: tracing.Protocol(c.Protocol), Authority: net.JoinHostPort(c.Host, strconv.FormatUint(uint64(c.Port), 10)), Path: c.Path, TLS: c.TLS,
		Resource: r, Dial: p.dialHelper(c.Host, c.Port), Logger: p.log,
	}, &p.spans)
}

// Spans returns how many spans were sent and lost, for the metrics.
func (p *Proxy) Spans() (sent, lost uint64) { return p.spans.Sent.Load(), p.spans.Lost.Load() }

// traced is what an exchange is in a trace.
type traced struct {
	rule    *traceRule // nil: the context is passed on as it has come, and nothing is told
	context tracing.Context
	formats tracing.Formats // in which it is written
	span    tracing.SpanID  // the exchange's
	try     tracing.SpanID  // that of the try under way
}

// beginTrace finds out whether the exchange is traced.
func (x *exchange) beginTrace(r *traceRule) {
	t := &x.traced
	t.context = tracing.Read(x.req.Fields)
	fresh := t.context.Trace == tracing.TraceID{}
	if t.context.Decision == tracing.NotSampled && !fresh {
		return // whoever comes next reads what we have read
	}
	t.formats = t.context.Formats
	if fresh {
		t.context.Trace, t.context.Short = tracing.NewTraceID(), false
		t.formats |= r.formats
	}
	if t.context.Decision == tracing.Undecided {
		t.context.Decision = tracing.NotSampled
		if r.share > 0 && rand.Float64() < r.share {
			t.context.Decision = tracing.Sampled
		}
	}
	t.rule = r
	if t.sampled() {
		t.span = tracing.NewSpanID()
	}
	if r.untouched {
		t.formats = 0
	}
}

// sampled reports whether spans of the exchange are told.
func (t *traced) sampled() bool { return t.rule != nil && t.context.Decision == tracing.Sampled }

// exemplar is the trace in which the exchange can be found.
func (t *traced) exemplar() (id [16]byte) {
	if t.sampled() && len(t.rule.exporters) > 0 {
		id = t.context.Trace
	}
	return id
}

// appendTrace writes the context for the try that is about to be sent.
func (x *exchange) appendTrace(out []byte, to headFormat) []byte {
	t := &x.traced
	t.try = tracing.NewSpanID()
	var room [8]tracing.Field
	for _, f := range t.context.List(room[:0], t.formats, t.span) {
		x.value = t.context.AppendValue(x.value[:0], f, t.try, t.span)
		out = to.field(out, f.Name(), x.value)
	}
	return out
}

// tell offers the spans of the exchange, which is over, and of its tries.
func (x *exchange) tell(flag string, took time.Duration) {
	t := &x.traced
	end := time.Now()
	at := func(i instant) time.Time { return end.Add(-time.Duration(x.clock - i)) }
	state, _ := x.req.Lookup(traceState)
	whole := &tracing.Span{
		Trace: t.context.Trace, ID: t.span, Parent: t.context.Span, State: string(state), Kind: tracing.Server, Name: x.operation(),
		Start: at(x.start), End: end, Failed: x.status >= 500 || x.status == 0,
	}
	if x.conn.kind == outbound {
		whole.Kind = tracing.Client
	}
	whole.Tags = x.spanTags(flag)
	spans := []*tracing.Span{whole}
	try := func(n int, m *member, id tracing.SpanID, began, ended instant, status int, k Kind, cause error) {
		s := &tracing.Span{
			Trace: t.context.Trace, ID: id, Parent: t.span, State: whole.State, Kind: tracing.Client, Name: whole.Name,
			Start: at(began), End: at(ended), Failed: k != NoError || status >= 500,
			Tags: []tracing.Tag{
				{Key: "component", Value: "proxy"}, {Key: "isthmus.attempt", Value: strconv.Itoa(n)}, {Key: "isthmus.cluster", Value: m.host.Endpoint().Cluster},
				{Key: "upstream_cluster", Value: m.live.name}, {Key: "upstream_address", Value: m.address.String()},
			},
		}
		if status != 0 {
			s.Tags = append(s.Tags, tracing.Tag{Key: "http.status_code", Value: strconv.Itoa(status)})
		}
		if k != NoError && k != retriableStatus {
			s.Tags = append(s.Tags, tracing.Tag{Key: "response_flags", Value: answers[k].flag}, tracing.Tag{Key: "isthmus.failure", Value: detailOf(k)})
		}
		if cause != nil {
			s.Tags = append(s.Tags, tracing.Tag{Key: "isthmus.cause", Value: cause.Error()})
		}
		spans = append(spans, s)
	}
	for i := range x.trail.failed {
		f := &x.trail.failed[i]
		try(i+1, f.member, f.span, f.began, f.ended, f.status, f.kind, f.cause)
	}
	if m := x.member; m != nil && x.attempts > len(x.trail.failed) {
		try(x.attempts, m, t.try, x.trail.began, x.clock, x.status, x.kind, x.trail.cause)
	}
	for _, e := range t.rule.exporters {
		e.Offer(spans)
	}
}

var traceState = []byte("tracestate")

// operation is Istio's name of what was asked for.
func (x *exchange) operation() string {
	if x.host == nil {
		return "unknown"
	}
	return x.host.name + ":" + strconv.FormatUint(uint64(x.host.port), 10) + "/*"
}

// maxTag is how long a tag may be that clients decide about (Istio's
// maxPathTagLength).
const maxTag = 256

// spanTags are those of the exchange: Istio's, and what the rule adds.
func (x *exchange) spanTags(flag string) (out []tracing.Tag) {
	add := func(key, value string) {
		if value != "" {
			out = append(out, tracing.Tag{Key: key, Value: value[:min(len(value), maxTag)]})
		}
	}
	n := x.conn.proxy.node
	add("component", "proxy")
	add("node_id", n.Member())
	add("guid:x-request-id", string(x.requestIDText()))
	add("http.method", string(x.req.Method))
	// Without the query, which may hold what is secret.
	add("http.url", string(x.scheme())+"://"+string(x.req.Authority)+string(x.req.Path))
	add("http.protocol", x.protocol())
	add("http.status_code", strconv.Itoa(x.status))
	add("response_flags", flag)
	add("request_size", strconv.FormatInt(x.requestBody(), 10))
	add("response_size", strconv.FormatInt(x.tally.replyBody, 10))
	if agent, ok := x.req.Get(http1.UserAgent); ok {
		add("user_agent", string(agent))
	}
	add("peer.address", netip.Addr(x.conn.address).String())
	if m := x.member; m != nil {
		add("upstream_cluster", m.live.name)
		add("upstream_cluster.name", m.live.name)
	}
	if s := x.tally.grpcStatus(); s >= 0 {
		add("grpc.status_code", strconv.Itoa(s))
	}
	r := x.traced.rule
	if r.istioTags {
		self := partyOfNode(n)
		add("istio.mesh_id", n.TrustDomain)
		add("istio.cluster_id", n.Cluster)
		add("istio.namespace", n.Namespace)
		add("istio.canonical_service", self.Service)
		add("istio.canonical_revision", self.Revision)
	}
	for _, tag := range r.tags {
		value := tag.Literal
		if tag.Header != "" {
			value = tag.Default
			if v, ok := x.req.Lookup([]byte(tag.Header)); ok {
				value = string(v)
			}
		}
		add(tag.Name, value)
	}
	return out
}
