package telemetry

import (
	"sync"
	"sync/atomic"
)

// Connections counts the connections that bear the same Labels and whose bytes
// are passed on as they come. Bytes count as they move, so that a connection of
// a week is seen all along. Its methods may be called by any goroutine.
type Connections struct {
	life
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
	openedFamily   = family{"istio_tcp_connections_opened_total", "counter", "Connections passed on as they come, by who called whom."}
	closedFamily   = family{"istio_tcp_connections_closed_total", "counter", "Those that have ended, and how."}
	sentFamily     = family{"istio_tcp_sent_bytes_total", "counter", "Bytes to clients on such connections."}
	receivedFamily = family{"istio_tcp_received_bytes_total", "counter", "Bytes from clients on such connections."}

	connectionFamilies = []*family{&openedFamily, &closedFamily, &sentFamily, &receivedFamily}
)

func (*Connections) families() []*family { return connectionFamilies }

// show adds what the counters say to one of the families.
func (c *Connections) show(p *Page, f *family) {
	opened := c.opened.Load()
	if opened == 0 {
		return
	}
	var v labelValues
	c.labels.fill(&v)
	v[requestProtocol], v[responseFlags] = "tcp", NoFlag
	p.set(connectionLabels, v[:responseCode]...)
	switch f {
	case &openedFamily:
		p.count(f, opened)
	case &sentFamily:
		p.count(f, c.sent.Load())
	case &receivedFamily:
		p.count(f, c.received.Load())
	case &closedFamily:
		c.mu.Lock()
		defer c.mu.Unlock()
		for flag, n := range c.closed {
			v[responseFlags] = flag
			p.set(connectionLabels, v[:responseCode]...)
			p.count(f, n)
		}
	}
}
