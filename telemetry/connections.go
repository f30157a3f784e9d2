package telemetry

import (
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
	gone           atomic.Bool // the store has forgotten it

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

func (c *Connections) forget() { c.gone.Store(true) }

// total changes with whatever happens to the connections.
func (c *Connections) total() uint64 {
	n := c.opened.Load() + c.sent.Load() + c.received.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, closed := range c.closed {
		n += closed
	}
	return n
}

var (
	openedDesc   = prometheus.NewDesc("istio_tcp_connections_opened_total", "Connections passed on as they come, by who called whom.", labelNames, nil)
	closedDesc   = prometheus.NewDesc("istio_tcp_connections_closed_total", "Those that have ended, and how.", labelNames, nil)
	sentDesc     = prometheus.NewDesc("istio_tcp_sent_bytes_total", "Bytes to clients on such connections.", labelNames, nil)
	receivedDesc = prometheus.NewDesc("istio_tcp_received_bytes_total", "Bytes from clients on such connections.", labelNames, nil)
)

func (*Connections) describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{openedDesc, closedDesc, sentDesc, receivedDesc} {
		out <- d
	}
}

// collect shows the counters.
func (c *Connections) collect(out chan<- prometheus.Metric) {
	opened := c.opened.Load()
	if opened == 0 {
		return
	}
	v := c.labels.values("tcp", NoFlag)
	out <- counter(openedDesc, float64(opened), v...)
	out <- counter(sentDesc, float64(c.sent.Load()), v...)
	out <- counter(receivedDesc, float64(c.received.Load()), v...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for flag, n := range c.closed {
		out <- counter(closedDesc, float64(n), c.labels.values("tcp", flag)...)
	}
}
