package telemetry

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections counts the connections that bear the same Labels and whose bytes
// are passed on as they come. Bytes count as they move, so that a connection of
// a week is seen all along. Its methods may be called by any goroutine.
type Connections struct {
	labels         Labels
	opened         atomic.Uint64
	sent, received atomic.Uint64

	mu     sync.Mutex // guards closed
	closed map[string]uint64
}

// NewConnections makes the counters for labels.
func NewConnections(l Labels) *Connections {
	return &Connections{labels: l, closed: map[string]uint64{}}
}

// Open counts a connection that begins.
func (c *Connections) Open() { c.opened.Add(1) }

// Sent counts bytes to the client, Received those from it, as Istio does.
func (c *Connections) Sent(n int) { c.sent.Add(uint64(n)) }

// Received counts bytes from the client.
func (c *Connections) Received(n int) { c.received.Add(uint64(n)) }

// Close counts a connection that has ended, with Envoy's response flag.
func (c *Connections) Close(flag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed[flag]++
}

// tcpLabelNames are those of Istio's metrics of TCP.
var tcpLabelNames = append(slices.Clone(commonLabelNames), "response_flags")

var (
	openedDesc   = prometheus.NewDesc("istio_tcp_connections_opened_total", "Connections passed on as they come, by who called whom.", tcpLabelNames, nil)
	closedDesc   = prometheus.NewDesc("istio_tcp_connections_closed_total", "Those that have ended, and how.", tcpLabelNames, nil)
	sentDesc     = prometheus.NewDesc("istio_tcp_sent_bytes_total", "Bytes to clients on such connections.", tcpLabelNames, nil)
	receivedDesc = prometheus.NewDesc("istio_tcp_received_bytes_total", "Bytes from clients on such connections.", tcpLabelNames, nil)
)

// ConnectionsCollector shows counters as metrics; see [Collector].
func ConnectionsCollector(list func() []*Connections) prometheus.Collector {
	return connectionsCollector{list}
}

type connectionsCollector struct{ list func() []*Connections }

// Describe implements prometheus.Collector.
func (c connectionsCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{openedDesc, closedDesc, sentDesc, receivedDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c connectionsCollector) Collect(out chan<- prometheus.Metric) {
	type key struct {
		desc   *prometheus.Desc
		labels string
	}
	sums, values := map[key]uint64{}, map[string][]string{}
	var order []key
	add := func(desc *prometheus.Desc, n uint64, v []string) {
		k := key{desc, joined(v)}
		if _, ok := sums[k]; !ok {
			order, values[k.labels] = append(order, k), v
		}
		sums[k] += n
	}
	for _, conns := range c.list() {
		opened := conns.opened.Load()
		if opened == 0 {
			continue
		}
		v := conns.labels.values("tcp", NoFlag)
		add(openedDesc, opened, v)
		add(sentDesc, conns.sent.Load(), v)
		add(receivedDesc, conns.received.Load(), v)
		conns.mu.Lock()
		for flag, n := range conns.closed {
			add(closedDesc, n, conns.labels.values("tcp", flag))
		}
		conns.mu.Unlock()
	}
	for _, k := range order {
		out <- prometheus.MustNewConstMetric(k.desc, prometheus.CounterValue, float64(sums[k]), values[k.labels]...)
	}
}
