package config

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	beta "istio.io/api/networking/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"

	"isthmus/accesslog"
	"isthmus/mesh"
)

func readProxyConfig(d *document) {
	var p beta.ProxyConfig
	if d.decode(&p) {
		d.warning("", "has no effect: the bootstrap file says what a proxy is")
	}
}

func readTelemetry(d *document) {
	var t telemetry.Telemetry
	if !d.decode(&t) {
		return
	}
	out := &mesh.Telemetry{Meta: d.meta(), Selector: t.Selector.GetMatchLabels()}
	if d.isForOthers(len(t.TargetRefs) > 0 || t.TargetRef != nil) {
		return
	}
	for i, a := range t.AccessLogging {
		out.Logging = append(out.Logging, d.loggingRule(a, fmt.Sprintf("accessLogging[%d]", i)))
	}
	for i, r := range t.Tracing {
		out.Tracing = append(out.Tracing, d.tracingRule(r, fmt.Sprintf("tracing[%d]", i)))
	}
	for i, m := range t.Metrics {
		path := fmt.Sprintf("metrics[%d]", i)
		for j, p := range m.Providers {
			if p.Name != prometheusProvider {
				d.info(fmt.Sprintf("%s.providers[%d].name", path, j), fmt.Sprintf("%q: there is one page of metrics, Prometheus'", p.Name))
			}
		}
		for j, o := range m.Overrides {
			out.Metrics = append(out.Metrics, d.metricRule(o, fmt.Sprintf("%s.overrides[%d]", path, j)))
		}
	}
	d.reader.config.Telemetries = append(d.reader.config.Telemetries, out)
}

// meshAccessLog reads where the mesh configuration n wants lines of exchanges, and
// how. It reports whether it says so.
func (d *document) meshAccessLog(n *yaml.Node, path string) bool {
	text := func(name string) string {
		v := child(n, name)
		if v == nil {
			return ""
		}
		d.places[path+"."+name] = v.Line
		return v.Value
	}
	file, encoding, format := text("accessLogFile"), text("accessLogEncoding"), text("accessLogFormat")
	if file == "" {
		return false // nor has it any without a file in Istio
	}
	switch strings.ToUpper(encoding) {
	case "", "TEXT":
		format = cmp.Or(format, "text")
	case "JSON":
		format = cmp.Or(format, "json")
	default:
		d.error(path+".accessLogEncoding", fmt.Sprintf("%q is none of TEXT and JSON", encoding))
	}
	if _, err := accesslog.ParseFormat(format); err != nil {
		d.error(path+".accessLogFormat", err.Error())
	}
	d.reader.config.AccessLog = mesh.AccessLog{Path: file, Format: format}
	return true
}

// envoyProvider is Istio's name of the log that there is without a provider.
const envoyProvider = "envoy"

func (d *document) loggingRule(a *telemetry.AccessLogging, path string) mesh.LoggingRule {
	out := mesh.LoggingRule{Sides: sides(a.Match.GetMode()), Disabled: a.Disabled.GetValue(), Filter: a.Filter.GetExpression(), Source: d.source(path)}
	for i, p := range a.Providers {
		if p.Name != envoyProvider {
			d.info(fmt.Sprintf("%s.providers[%d].name", path, i), fmt.Sprintf("%q: there is one log, which accessLog in the bootstrap file describes; without it, Istio's text at /dev/stdout", p.Name))
		}
	}
	if out.Filter != "" {
		if _, err := accesslog.ParseFilter(out.Filter); err != nil {
			d.error(path+".filter.expression", err.Error())
		}
	}
	return out
}

// prometheusProvider is Istio's name of the metrics that there are without a
// provider.
const prometheusProvider = "prometheus"

// metricNames are Istio's metrics, by what a selector calls them.
var metricNames = map[telemetry.MetricSelector_IstioMetric]string{
	telemetry.MetricSelector_REQUEST_COUNT:          "istio_requests_total",
	telemetry.MetricSelector_REQUEST_DURATION:       "istio_request_duration_milliseconds",
	telemetry.MetricSelector_REQUEST_SIZE:           "istio_request_bytes",
	telemetry.MetricSelector_RESPONSE_SIZE:          "istio_response_bytes",
	telemetry.MetricSelector_TCP_OPENED_CONNECTIONS: "istio_tcp_connections_opened_total",
	telemetry.MetricSelector_TCP_CLOSED_CONNECTIONS: "istio_tcp_connections_closed_total",
	telemetry.MetricSelector_TCP_SENT_BYTES:         "istio_tcp_sent_bytes_total",
	telemetry.MetricSelector_TCP_RECEIVED_BYTES:     "istio_tcp_received_bytes_total",
	telemetry.MetricSelector_GRPC_REQUEST_MESSAGES:  "istio_request_messages_total",
	telemetry.MetricSelector_GRPC_RESPONSE_MESSAGES: "istio_response_messages_total",
}

func (d *document) metricRule(o *telemetry.MetricsOverrides, path string) mesh.MetricRule {
	out := mesh.MetricRule{Sides: sides(o.Match.GetMode()), Metrics: d.metrics(o.Match, path+".match"), Source: d.source(path)}
	if b := o.Disabled; b != nil {
		out.Disabled = &b.Value
	}
	for name, t := range o.TagOverrides {
		at := join(path, "tagOverrides."+name)
		tag := mesh.MetricTag{Name: name, Remove: t.Operation == telemetry.MetricsOverrides_TagOverride_REMOVE, Value: t.Value}
		switch {
		case !labelName.MatchString(name) || name == "le":
			d.error(at, fmt.Sprintf("%q is no name for a label: letters, digits and _", name))
			continue
		case name == "reporter":
			d.warning(at, "has no effect: reporter stays as it is, since it keeps what both ends report apart")
			continue
		case tag.Remove:
		case tag.Value == "":
			d.error(at+".value", "is missing: UPSERT sets the label to an expression, such as request.host")
			continue
		default:
			if _, err := accesslog.ParseValue(tag.Value); err != nil {
				d.warning(at+".value", "has no effect, the label stays as it is: "+err.Error())
				continue
			}
		}
		out.Tags = append(out.Tags, tag)
	}
	if len(out.Tags) > maxMetricTags {
		d.error(path+".tagOverrides", fmt.Sprintf("there are %d; %d at most", len(out.Tags), maxMetricTags))
		out.Tags = nil
	}
	return out
}

// maxMetricTags bounds the labels that an override may change. Each of Istio's could
// be removed, and a few be added.
const maxMetricTags = 24

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// metrics are the names of the metrics that a selector means.
func (d *document) metrics(m *telemetry.MetricSelector, path string) []string {
	custom := m.GetCustomMetric()
	if custom == "" {
		if name := metricNames[m.GetMetric()]; name != "" {
			return []string{name}
		}
		return slices.Sorted(maps.Values(metricNames))
	}
	for _, name := range metricNames {
		if plain := strings.TrimPrefix(name, "istio_"); custom == name || custom == plain || custom == strings.TrimSuffix(plain, "_total") {
			return []string{name}
		}
	}
	d.warning(path+".customMetric", fmt.Sprintf("has no effect: %q is none of Istio's metrics", custom))
	return nil
}

func sides(m telemetry.WorkloadMode) mesh.Sides {
	switch m {
	case telemetry.WorkloadMode_CLIENT:
		return mesh.ClientSide
	case telemetry.WorkloadMode_SERVER:
		return mesh.ServerSide
	}
	return mesh.BothSides
}
