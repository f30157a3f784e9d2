package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Connections counts the connections that bear the same Labels and whose bytes
// are passed on as they come. Bytes count as they move, so that a connection of
// a week is seen all along. Its methods may be called by any goroutine.
type Connections struct {
	common[Connections]
	opened         atomic.Uint64
	sent, received atomic.Uint64

	mu     sync.Mutex // guards closed
	closed map[string]uint64
}

// NewConnections makes the counters for labels.
func NewConnections(l Labels) *Connections {
	c := &Connections{closed: map[string]uint64{}}
	c.labels = l
	return c
}

// Open counts a connection that begins.
func (c *Connections) Open() {
	c.opened.Add(1)
	for _, v := range c.others() {
		v.opened.Add(1)
	}
}

// Sent counts bytes to the client, Received those from it, as Istio does.
func (c *Connections) Sent(n int) {
	c.sent.Add(uint64(n))
	for _, v := range c.others() {
		v.sent.Add(uint64(n))
	}
}

// Received counts bytes from the client.
func (c *Connections) Received(n int) {
	c.received.Add(uint64(n))
	for _, v := range c.others() {
		v.received.Add(uint64(n))
	}
}

// Close counts a connection that has ended, with Envoy's response flag.
func (c *Connections) Close(flag string) {
	c.close(flag)
	for _, v := range c.others() {
		if v.shape.gone["response_flags"] {
			v.close(NoFlag)
		} else {
			v.close(flag)
		}
	}
}

func (c *Connections) close(flag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed[flag]++
}

func (c *Connections) total() uint64 {
	return c.opened.Load() + c.ended() + c.sent.Load() + c.received.Load()
}

func (c *Connections) number() uint64 { return c.opened.Load() }

// busy: one that is open may be silent for hours, and its bytes are counted then.
func (c *Connections) busy() bool { return c.ended() < c.opened.Load() }

func (*Connections) tagged() int { return 0 }

// ended is how many have.
func (c *Connections) ended() (n uint64) {
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

func (*Connections) families() []*family  { return connectionFamilies }
func (*Connections) labelNames() []string { return labelNames[:responseCode] }

// show adds what the counters say to one of the families.
func (c *Connections) show(p *Page, f *family) {
	opened := c.opened.Load()
	if opened == 0 {
		return
	}
	var v labelValues
	c.labels.fill(&v)
	v[requestProtocol], v[responseFlags] = "tcp", NoFlag
	c.set(p, &v)
	switch f {
	case &openedFamily:
		p.count(f, opened)
	case &sentFamily:
		p.count(f, c.sent.Load())
	case &receivedFamily:
		p.count(f, c.received.Load())
	case &closedFamily:
		c.mu.Lock()
		closed := maps.Clone(c.closed) // whoever reads the page may be slow
		c.mu.Unlock()
		for flag, n := range closed {
			v[responseFlags] = flag
			c.set(p, &v)
			p.count(f, n)
		}
	}
}

// set sets the labels of a series. Of a connection there is nothing that tags could
// be drawn from.
func (c *Connections) set(p *Page, v *labelValues) {
	if c.shape != nil {
		c.shape.set(p, v, c.shape.tooMany(outcome{}).tags)
	} else {
		p.set(connectionLabels, v[:responseCode]...)
	}
}
