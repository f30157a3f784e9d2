package telemetry

import "github.com/prometheus/client_golang/prometheus"

var (
	logDesc   = prometheus.NewDesc("isthmus_access_log_lines_total", "Lines of the access log: written, or lost because its file does not take them.", []string{"outcome"}, nil)
	spansDesc = prometheus.NewDesc("isthmus_trace_spans_total", "Spans of traces: sent, or lost because the collector does not take them.", []string{"outcome"}, nil)
)

// LogCollector shows how many lines of the access log were written and lost, as
// lines says when it is gathered.
func LogCollector(lines func() (written, lost uint64)) prometheus.Collector {
	return lostCollector{logDesc, "written", lines}
}

// SpansCollector shows how many spans were sent and lost, as spans says when it
// is gathered.
func SpansCollector(spans func() (sent, lost uint64)) prometheus.Collector {
	return lostCollector{spansDesc, "sent", spans}
}

// lostCollector shows how many things were brought to their end, and how many were lost.
type lostCollector struct {
	desc  *prometheus.Desc
	done  string // the outcome of those that were not lost
	count func() (done, lost uint64)
}

// Describe implements prometheus.Collector.
func (c lostCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements prometheus.Collector.
func (c lostCollector) Collect(out chan<- prometheus.Metric) {
	done, lost := c.count()
	out <- counter(c.desc, float64(done), c.done)
	out <- counter(c.desc, float64(lost), "lost")
}
