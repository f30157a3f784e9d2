package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Policy names an AuthorizationPolicy, and what it does.
type Policy struct {
	Name   string // "namespace/name"
	Action string // "ALLOW", "DENY", "AUDIT", "CUSTOM"
	DryRun bool   // it decides nothing
}

// PoliciesCollector shows how many requests each policy has matched, as list
// says when it is gathered.
func PoliciesCollector(list func() map[Policy]uint64) prometheus.Collector {
	return policiesCollector{list}
}

type policiesCollector struct{ list func() map[Policy]uint64 }

var policyDesc = prometheus.NewDesc("isthmus_authorization_matches_total", "Requests and connections that a rule of an AuthorizationPolicy fits.", []string{"policy", "action", "dry_run"}, nil)

// Describe implements prometheus.Collector.
func (policiesCollector) Describe(out chan<- *prometheus.Desc) { out <- policyDesc }

// Collect implements prometheus.Collector.
func (c policiesCollector) Collect(out chan<- prometheus.Metric) {
	for p, n := range c.list() {
		out <- prometheus.MustNewConstMetric(policyDesc, prometheus.CounterValue, float64(n), p.Name, p.Action, strconv.FormatBool(p.DryRun))
	}
}
