package config

import (
	"cmp"
	"fmt"
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
	d.refuseTargets(len(t.TargetRefs) > 0 || t.TargetRef != nil)
	for i, a := range t.AccessLogging {
		out.Logging = append(out.Logging, d.loggingRule(a, fmt.Sprintf("accessLogging[%d]", i)))
	}
	for i, r := range t.Tracing {
		out.Tracing = append(out.Tracing, d.tracingRule(r, fmt.Sprintf("tracing[%d]", i)))
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

func sides(m telemetry.WorkloadMode) mesh.Sides {
	switch m {
	case telemetry.WorkloadMode_CLIENT:
		return mesh.ClientSide
	case telemetry.WorkloadMode_SERVER:
		return mesh.ServerSide
	}
	return mesh.BothSides
}
