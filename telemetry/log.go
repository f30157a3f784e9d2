package telemetry

import "github.com/prometheus/client_golang/prometheus"

var logDesc = prometheus.NewDesc("isthmus_access_log_lines_total", "Lines of the access log: written, or lost because its file does not take them.", []string{"outcome"}, nil)

// LogCollector shows how many lines of the access log were written and lost, as
// lines says when it is gathered.
func LogCollector(lines func() (written, lost uint64)) prometheus.Collector {
	return logCollector{lines}
}

type logCollector struct {
	lines func() (written, lost uint64)
}

// Describe implements prometheus.Collector.
func (logCollector) Describe(out chan<- *prometheus.Desc) { out <- logDesc }

// Collect implements prometheus.Collector.
func (c logCollector) Collect(out chan<- prometheus.Metric) {
	written, lost := c.lines()
	out <- prometheus.MustNewConstMetric(logDesc, prometheus.CounterValue, float64(written), "written")
	out <- prometheus.MustNewConstMetric(logDesc, prometheus.CounterValue, float64(lost), "lost")
}
