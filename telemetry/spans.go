package telemetry

import "github.com/prometheus/client_golang/prometheus"

var spansDesc = prometheus.NewDesc("isthmus_trace_spans_total", "Spans of traces: sent, or lost because the collector does not take them.", []string{"outcome"}, nil)

// SpansCollector shows how many spans were sent and lost, as spans says when it
// is gathered.
func SpansCollector(spans func() (sent, lost uint64)) prometheus.Collector {
	return spansCollector{spans}
}

type spansCollector struct {
	spans func() (sent, lost uint64)
}

// Describe implements prometheus.Collector.
func (spansCollector) Describe(out chan<- *prometheus.Desc) { out <- spansDesc }

// Collect implements prometheus.Collector.
func (c spansCollector) Collect(out chan<- prometheus.Metric) {
	sent, lost := c.spans()
	out <- counter(spansDesc, float64(sent), "sent")
	out <- counter(spansDesc, float64(lost), "lost")
}
