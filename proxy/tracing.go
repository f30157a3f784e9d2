package proxy

import (
	"math/rand/v2"
	"net"
	"strconv"

	"isthmus/mesh"
	"isthmus/tracing"
)

// traceRule says how exchanges on listeners of a kind are traced.
type traceRule struct {
	exporters []*tracing.Exporter
	share     float64         // of those about which no caller has decided
	formats   tracing.Formats // in which the context is written where none was found
	silent    bool            // no spans are told, nor is anything decided
	ends      bool            // the context is not passed on
	own       []tracing.Tag   // what each span of an exchange says of this proxy
	tags      []mesh.TraceTag
}

// defaultSampling is Istio's, in percent.
const defaultSampling = 1

// compileTracing makes the rules of a snapshot, by the kinds of listeners; nil:
// there is nothing to do for these. Exporters live on. The caller holds mu.
func (p *Proxy) compileTracing(s *mesh.Snapshot) (rules [3]*traceRule) {
	list := mesh.TelemetryOf(s.Node, s.Config.Telemetries)
	kept := map[mesh.Collector]*tracing.Exporter{}
	for kind := range rules {
		side := mesh.ClientSide
		if listenerKind(kind) == inbound {
			side = mesh.ServerSide
		}
		rules[kind] = p.traceRule(s, mesh.TracingOf(list, side), kept)
	}
	p.exporters.keep(kept, &p.mu)
	return rules
}

// traceRule makes one rule, of what Telemetry resources say and what the bootstrap
// file and the mesh configuration do. kept are the exporters in use.
func (p *Proxy) traceRule(s *mesh.Snapshot, rule *mesh.TracingRule, kept map[mesh.Collector]*tracing.Exporter) *traceRule {
	if rule == nil {
		rule = &mesh.TracingRule{}
	}
	collectors, ends := p.collectors(s.Config, rule.Collector), rule.Ends != nil && *rule.Ends
	if len(collectors) == 0 && !ends {
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
		silent: len(collectors) == 0 || rule.Disabled != nil && *rule.Disabled, ends: ends, own: p.ownTags(rule.NoIstioTags == nil || !*rule.NoIstioTags),
	}
	if r.silent {
		return r
	}
	for _, c := range collectors {
		if c.Protocol == mesh.Zipkin {
			r.formats |= tracing.B3Multi
		}
		e := kept[c]
		if e == nil {
			if e = p.exporters.find(c); e == nil {
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
	if name == "" && len(p.options.Tracing.Collectors) == 0 {
		name = c.DefaultCollector
	}
	for _, o := range c.Collectors {
		if name != "" && o.Name == name {
			return []mesh.Collector{*o}
		}
	}
	if own := p.options.Tracing.Collectors; len(own) > 0 {
		return own
	}
	return c.Tracing.Collectors
}

// ownTags are those that say which proxy it is, with Istio's or without.
func (p *Proxy) ownTags(istio bool) (own []tracing.Tag) {
	n := p.node
	tags := []tracing.Tag{{Key: "component", Value: "proxy"}, {Key: "node_id", Value: n.Member()}}
	if istio {
		self := partyOfNode(n)
		tags = append(tags, tracing.Tag{Key: "istio.mesh_id", Value: n.TrustDomain}, tracing.Tag{Key: "istio.cluster_id", Value: n.Cluster},
			tracing.Tag{Key: "istio.namespace", Value: n.Namespace}, tracing.Tag{Key: "istio.canonical_service", Value: self.Service},
			tracing.Tag{Key: "istio.canonical_revision", Value: self.Revision})
	}
	for _, t := range tags {
		own = appendTag(own, t.Key, t.Value)
	}
	return own
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
	rule    *traceRule // nil: the context is passed on as it has come, unless it ends, and nothing is told
	ends    bool       // the context is not passed on
	context tracing.Context
	formats tracing.Formats // in which it is written
	span    tracing.SpanID  // the exchange's
	try     tracing.SpanID  // that of the try under way
}

// beginTrace finds out whether the exchange is traced.
func (x *exchange) beginTrace(r *traceRule) {
	t := &x.traced
	t.context.Read(x.req.Fields)
	t.ends = r.ends
	fresh := t.context.Trace.IsZero()
	if r.silent || t.context.Decision == tracing.NotSampled && !fresh {
		return // whoever comes next reads what we have read, and decides where nobody has
	}
	t.formats = t.context.Formats
	if fresh {
		t.context.Trace.Draw()
		t.context.Short = false
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
		t.span.Draw()
	}
	if r.ends {
		t.formats = 0
	}
}

// sampled reports whether spans of the exchange are told.
func (t *traced) sampled() bool { return t.rule != nil && t.context.Decision == tracing.Sampled }

// replaces reports whether the context that has come is not passed on: ours stands in its
// place, or none.
func (t *traced) replaces() bool { return t.formats != 0 || t.ends }

// orphans reports whether a field is a tracestate of no trace that is known, which must
// not become one of the trace that is begun here (W3C Trace Context 3.3), or of one that ends.
func (t *traced) orphans(name []byte) bool {
	return (t.ends || t.formats&tracing.W3C != 0 && !t.context.Stated) && isTraceState(name)
}

// appendTrace writes the context for the try that is about to be sent.
func (x *exchange) appendTrace(out []byte, to headFormat) []byte {
	t := &x.traced
	fields := http1Trace
	if to == asHTTP2 {
		fields = http2Trace
	}
	return fields.Append(out, &t.context, t.formats, t.try, t.span)
}

var http1Trace, http2Trace = tracing.NewFields(asHTTP1.field), tracing.NewFields(asHTTP2.field)
