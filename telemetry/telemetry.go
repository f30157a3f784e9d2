// Package telemetry counts what the data plane does, under the names and
// labels of Istio's standard metrics, so that dashboards made for Istio show
// it, and under names of its own for what Istio has none of. Handles are found
// when an upstream is made; to count an exchange is some atomic additions.
//
// docs/metrics.md lists what there is.
package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Party is one end of an exchange. Texts that are empty are shown as "unknown".
type Party struct {
	Workload, Namespace, Principal string
	App, Version, Cluster          string
	Service, Revision              string // canonical (Istio)
}

// Labels say between whom exchanges were.
type Labels struct {
	Reporter            string // "source": the caller's proxy, or a gateway; "destination": the application's
	Source, Destination Party

	// DestinationService is the host name as routed; Name and Namespace are
	// those of the service it belongs to, if any.
	DestinationService, DestinationName, DestinationNamespace string

	MTLS bool // that the caller has proved who it is; "source" reports nothing of it
}

// The places of labels in labelNames, of those that are set one by one.
const (
	securityPolicy = 20 + iota
	requestProtocol
	responseFlags
	responseCode // and what is behind it, of requests alone
	grpcStatus
	numLabels
)

// labelNames are those of all of Istio's metrics.
var labelNames = [numLabels]string{
	"reporter",
	"source_workload", "source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster",
	"source_canonical_service", "source_canonical_revision",
	"destination_workload", "destination_workload_namespace", "destination_principal", "destination_app", "destination_version", "destination_cluster",
	"destination_canonical_service", "destination_canonical_revision",
	"destination_service", "destination_service_name", "destination_service_namespace",
	"connection_security_policy", "request_protocol", "response_flags", "response_code", "grpc_response_status",
}

var (
	requestLabels    = newLabels(labelNames[:]...)
	connectionLabels = newLabels(labelNames[:responseCode]...)
)

// labelValues are the values of labelNames.
type labelValues [numLabels]string

// unknown is what is shown for a text that is empty.
const unknown = "unknown"

// fill sets the labels that say between whom exchanges were.
func (l *Labels) fill(v *labelValues) {
	s, d := &l.Source, &l.Destination
	*v = labelValues{
		l.Reporter,
		s.Workload, s.Namespace, s.Principal, s.App, s.Version, s.Cluster, s.Service, s.Revision,
		d.Workload, d.Namespace, d.Principal, d.App, d.Version, d.Cluster, d.Service, d.Revision,
		l.DestinationService, l.DestinationName, l.DestinationNamespace,
	}
	for i := range v[:securityPolicy] {
		if v[i] == "" {
			v[i] = unknown
		}
	}
	switch {
	case l.Reporter == "source":
		v[securityPolicy] = unknown // Istio's source reports no more
	case l.MTLS:
		v[securityPolicy] = "mutual_tls"
	default:
		v[securityPolicy] = "none"
	}
}

// NoFlag is the response flag of an exchange that met nothing.
const NoFlag = "-"

// gauge is a metric of what there is now.
func gauge(d *prometheus.Desc, v float64) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
}

// counter is a metric of a sum.
func counter(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}
