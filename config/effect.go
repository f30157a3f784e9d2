package config

import (
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// noEffect lists the fields of Istio's schema that are understood but do
// nothing in this version, by message and field. Each one set is a warning, so
// that nobody believes in a half-configured thing. Whoever gives a field its
// effect takes its line out.
var noEffect = map[string]string{
	"HTTPMatchRequest.statPrefix": "there are no metrics by route",

	"TrafficPolicy.tunnel":        "connections are made directly",
	"TrafficPolicy.proxyProtocol": "no PROXY header is sent",

	"EnvoyExternalAuthorizationHttpProvider.clearRouteCache": "the route is found before the service is asked",
	"EnvoyExternalAuthorizationGrpcProvider.clearRouteCache": "the route is found before the service is asked",

	"IstioEgressListener.port":             "there is one outbound listener, listeners.outbound of the bootstrap file",
	"IstioEgressListener.bind":             "there is one outbound listener, listeners.outbound of the bootstrap file",
	"IstioEgressListener.captureMode":      "connections are not captured",
	"Sidecar.outboundTrafficPolicy":        "requests to unknown hosts get 404",
	"IstioIngressListener.bind":            "the inbound listener is listeners.inbound of the bootstrap file",
	"IstioIngressListener.captureMode":     "connections are not captured",
	"IstioIngressListener.defaultEndpoint": "the application is at 127.0.0.1 and the service's target port",

	"Server.bind":            "the gateway's address is listeners.gateway.bind of the bootstrap file",
	"Server.defaultEndpoint": "Istio does not implement it either",
	"Port.targetPort":        "which port is bound, listeners.gateway.ports of the bootstrap file says; Istio does not look at it either",
	"SidecarPort.targetPort": "Istio does not look at it either",

	"Tracing.useRequestIdForTraceSampling":                    "it is drawn by chance, once for a trace",
	"Tracing.lightstep":                                       "spans go to Zipkin, or by OTLP",
	"Tracing.datadog":                                         "spans go to Zipkin, or by OTLP",
	"Tracing.stackdriver":                                     "spans go to Zipkin, or by OTLP",
	"Tracing.openCensusAgent":                                 "spans go to Zipkin, or by OTLP",
	"Tracing.tlsSettings":                                     "the collector is spoken to in plain text, or by https in the bootstrap file",
	"Tracing.maxPathTagLength":                                "paths are cut at 256 bytes",
	"ZipkinTracingProvider.maxTagLength":                      "paths are cut at 256 bytes",
	"ZipkinTracingProvider.enable64bitTraceId":                "traces have IDs of 128 bits",
	"ZipkinTracingProvider.traceContextOption":                "the context is written as it has come, and both ways where there was none",
	"ZipkinTracingProvider.timeout":                           "a collector has 5 s",
	"ZipkinTracingProvider.headers":                           "none are added",
	"OpenTelemetryTracingProvider.maxTagLength":               "paths are cut at 256 bytes",
	"OpenTelemetryTracingProvider.resourceDetectors":          "the resource is what the bootstrap file says",
	"OpenTelemetryTracingProvider.serviceAttributeEnrichment": "the resource is what the bootstrap file says",
	"OpenTelemetryTracingProvider.dynatraceSampler":           "it is drawn by chance",
	"OpenTelemetryTracingProvider.grpc":                       "messages are as usual",
	"HttpService.timeout":                                     "a collector has 5 s",
	"HttpService.headers":                                     "none are added",

	"Metrics.reportingInterval": "counters are right whenever they are read",
}

// noteEffect says when a field has none.
func (d *document) noteEffect(m protoreflect.MessageDescriptor, fd protoreflect.FieldDescriptor, value *yaml.Node, path string, line int) {
	name := string(m.FullName())
	name = name[strings.LastIndexByte(name, '.')+1:] + "." + fd.JSONName()
	if r := noEffect[name]; r != "" {
		d.mark(Warning, ISM0003, line, path, "has no effect yet: "+r)
	}
}
