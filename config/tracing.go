package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	meshconfig "istio.io/api/mesh/v1alpha1"
	telemetry "istio.io/api/telemetry/v1alpha1"

	"isthmus/mesh"
)

func (d *document) tracingRule(t *telemetry.Tracing, path string) mesh.TracingRule {
	out := mesh.TracingRule{Sides: sides(t.Match.GetMode()), Source: d.source(path)}
	for i, p := range t.Providers {
		if i > 0 {
			d.warning(fmt.Sprintf("%s.providers[%d]", path, i), "has no effect: spans go to the first one")
			break
		}
		out.Collector = p.Name
	}
	if s := t.RandomSamplingPercentage; s != nil {
		out.Sampling = d.percentage(s.Value, path+".randomSamplingPercentage")
	}
	if b := t.DisableSpanReporting; b != nil {
		out.Disabled = &b.Value
	}
	if b := t.DisableContextPropagation; b != nil {
		out.Ends = &b.Value
	}
	if b := t.EnableIstioTags; b != nil {
		no := !b.Value
		out.NoIstioTags = &no
	}
	for name, tag := range t.CustomTags {
		out.Tags = append(out.Tags, d.traceTag(name, tag, join(path, "customTags."+name)))
	}
	slices.SortFunc(out.Tags, func(a, b mesh.TraceTag) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// percentage checks one.
func (d *document) percentage(v float64, path string) *float64 {
	if !(v >= 0 && v <= 100) {
		d.error(path, fmt.Sprintf("%v is no percentage from 0 to 100", v))
		return nil
	}
	return &v
}

func (d *document) traceTag(name string, t *telemetry.Tracing_CustomTag, path string) mesh.TraceTag {
	out := mesh.TraceTag{Name: name}
	switch {
	case t.GetLiteral() != nil:
		out.Literal = t.GetLiteral().Value
	case t.GetEnvironment() != nil:
		out.Literal = os.Getenv(t.GetEnvironment().Name)
		if out.Literal == "" {
			out.Literal = t.GetEnvironment().DefaultValue
		}
		out.Literal = strings.ToValidUTF8(out.Literal, "\uFFFD") // as collectors want it
	case t.GetHeader() != nil:
		out.Header, out.Default = strings.ToLower(t.GetHeader().Name), t.GetHeader().DefaultValue
		if out.Header == "" {
			d.error(path+".header.name", "is missing")
		}
	case t.GetFormatter() != nil:
		d.warning(path+".formatter", "has no effect yet: the tag is left out; literal, environment and header are known")
	}
	return out
}

// checkTelemetries names collectors that nobody has described.
func (c *checker) checkTelemetries() {
	for _, t := range c.config.Telemetries {
		for i := range t.Tracing {
			name := t.Tracing[i].Collector
			if name == "" || slices.ContainsFunc(c.config.Collectors, func(o *mesh.Collector) bool { return o.Name == name }) {
				continue
			}
			why := fmt.Sprintf("no extensionProvider of the mesh configuration is called %q", name)
			if kind := c.otherProviders[name]; kind != "" {
				why = fmt.Sprintf("%q is an extensionProvider of kind %s, to which no spans are sent", name, kind)
			}
			c.findings = append(c.findings, Finding{
				File: t.Source.File, Line: t.Tracing[i].Source.Line, Severity: Warning, Kind: t.Kind, Namespace: t.Namespace, Name: t.Name, Field: fmt.Sprintf("tracing[%d].providers", i),
				Message: why + ": spans go where tracing in the bootstrap file says",
			})
		}
	}
}

// tracingConfig reads Istio's tracing configuration, as proxies' defaultConfig has
// it, or as a ConfigMap of its own.
func (d *document) tracingConfig(n *yaml.Node, path string) {
	var t meshconfig.Tracing
	d.places[path] = n.Line
	d.message(n, t.ProtoReflect(), path)
	out := &d.reader.config.Tracing
	if child(n, "sampling") != nil {
		out.Sampling = d.percentage(t.Sampling, path+".sampling")
		if t.Sampling == 100 {
			d.find(Info, ISM0058, path+".sampling", "100 is every request (Istio's default is 1): each costs a span on both sides; write 1 to 10 where there is much traffic")
		}
	}
	if len(t.CustomTags) > 0 || t.EnableIstioTags != nil {
		d.warning(path, "customTags and enableIstioTags have no effect here: write them in a Telemetry resource")
	}
	if z := t.GetZipkin(); z != nil {
		if c, err := parseCollector(z.Address, mesh.Zipkin, 9411); err != nil {
			d.error(path+".zipkin.address", err.Error())
		} else {
			out.Collectors = []mesh.Collector{c}
		}
	}
}

// tracingText reads the tracing configuration from a text of a ConfigMap, which is
// YAML within YAML, and reports whether there is one.
func (d *document) tracingText(key, text string) bool {
	root, _, err := inner(text, child(child(d.root, "data"), key).Line)
	if err != nil {
		return false // a text of somebody else's
	}
	n := child(root, "tracing")
	if !isTracing(n) {
		return false // nor is this ours: Loki and others have a section of the name
	}
	path := "data." + key + ".tracing"
	before, said := d.reader.config.Tracing, len(d.reader.findings)
	d.tracingConfig(n, path)
	wrong := slices.IndexFunc(d.reader.findings[said:], func(f Finding) bool { return f.Severity == Error })
	if wrong < 0 {
		return true
	}
	// Another program's may look alike: the values of Istio's injector do.
	first := d.reader.findings[said+wrong]
	d.reader.config.Tracing, d.reader.findings = before, d.reader.findings[:said]
	d.mark(Warning, "", first.Line, path, fmt.Sprintf("is not read, as it is not Istio's tracing configuration: %s: %s", first.Field, first.Message))
	return true
}

// isTracing reports whether a mapping has any field of Istio's tracing configuration.
func isTracing(n *yaml.Node) bool {
	if n == nil || n.Kind != yaml.MappingNode {
		return false
	}
	fields := (&meshconfig.Tracing{}).ProtoReflect().Descriptor()
	for i := 0; i < len(n.Content); i += 2 {
		if fieldNamed(fields, n.Content[i].Value) != nil {
			return true
		}
	}
	return false
}

// traceProvider reads an extensionProvider that is a collector.
func (d *document) traceProvider(p *meshconfig.MeshConfig_ExtensionProvider, path string) {
	c := &mesh.Collector{Name: p.Name}
	if z := p.GetZipkin(); z != nil {
		c.Protocol, c.Host, c.Port, c.Path = mesh.Zipkin, z.Service, z.Port, z.Path
		path += ".zipkin"
	} else {
		o := p.GetOpentelemetry()
		c.Protocol, c.Host, c.Port = mesh.OTLPGRPC, o.Service, o.Port
		if o.Http != nil {
			c.Protocol, c.Path = mesh.OTLPHTTP, o.Http.Path
		}
		path += ".opentelemetry"
	}
	if c.Host = afterNamespace(c.Host); c.Host == "" {
		d.error(path+".service", "is missing: name the collector's host")
	}
	if d.checkPort(c.Port, path+".port") {
		d.reader.config.Collectors = append(d.reader.config.Collectors, c)
	}
}

// afterNamespace takes "namespace/" off a host.
func afterNamespace(host string) string { return host[strings.LastIndexByte(host, '/')+1:] }

// parseCollector reads where spans go: host:port, or a URL.
func parseCollector(s string, protocol mesh.TraceProtocol, usualPort uint32) (mesh.Collector, error) {
	c := mesh.Collector{Protocol: protocol}
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return c, fmt.Errorf("%q must be a host and a port, or a URL such as http://collector:4318", strings.TrimPrefix(s, "http://"))
	}
	switch u.Scheme {
	case "http":
	case "https":
		c.TLS, usualPort = true, 443
	case "grpc":
		if protocol == mesh.Zipkin {
			return c, fmt.Errorf("%q: Zipkin is spoken over http or https", s)
		}
		c.Protocol, usualPort = mesh.OTLPGRPC, 4317
	default:
		return c, fmt.Errorf("%q: write http, https or grpc in the place of %s", s, u.Scheme)
	}
	c.Host, c.Port = u.Hostname(), usualPort
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return c, fmt.Errorf("%q: the port must be a number from 1 to 65535", net.JoinHostPort(c.Host, p))
		}
		c.Port = uint32(n)
	}
	if u.Path != "/" {
		c.Path = u.Path
	}
	if c.Protocol == mesh.OTLPGRPC && c.Path != "" {
		return c, fmt.Errorf("%q: gRPC has no path", s)
	}
	return c, nil
}

// checkTracing looks at the section tracing.
func (l *bootstrapLoader) checkTracing(b *Bootstrap) error {
	t := &b.Tracing
	if s := t.Sampling; s != notSaid && !(s >= 0 && s <= 100) {
		return l.fail("tracing.sampling", "%v is no percentage from 0 to 100", s)
	}
	if _, field, err := t.collectors(); err != nil {
		return l.fail(field, "%v", err)
	}
	return nil
}

// collectors returns those that the addresses name, or the field that names none.
func (t *Tracing) collectors() (out []mesh.Collector, field string, err error) {
	for _, a := range []struct {
		field, value string
		protocol     mesh.TraceProtocol
		port         uint32
	}{{"tracing.zipkin.address", t.Zipkin.Address, mesh.Zipkin, 9411}, {"tracing.otlp.endpoint", t.OTLP.Endpoint, mesh.OTLPHTTP, 4318}} {
		if a.value == "" {
			continue
		}
		c, err := parseCollector(a.value, a.protocol, a.port)
		if err != nil {
			return nil, a.field, err
		}
		out = append(out, c)
	}
	return out, "", nil
}

// Mesh returns what the section says.
func (t *Tracing) Mesh() mesh.Tracing {
	out := mesh.Tracing{}
	out.Collectors, _, _ = t.collectors() // LoadBootstrap has refused others
	if t.Sampling != notSaid {
		out.Sampling = &t.Sampling
	}
	return out
}
