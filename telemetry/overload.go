package telemetry

import "github.com/prometheus/client_golang/prometheus"

// OverloadState is how much clients take of the process, and what was refused since
// that was too much.
type OverloadState struct {
	Memory, MemoryLimit           int64 // bytes; a limit of 0: none
	Refusing                      int   // 1: requests; 2: connections as well
	Connections, ConnectionsLimit int   // of clients
	Bodies                        int   // bytes of bodies over HTTP/2 that wait to be read

	Requests, Refused, Ended, Reset uint64 // requests and connections refused; idle connections ended, streams reset
}

// Shed is what is refused or ended since clients take too much: the label "what" of
// isthmus_overload_shed_total.
type Shed string

// What there is to shed, the worst first.
const (
	ShedRequest        Shed = "request"
	ShedConnection     Shed = "connection"
	ShedStream         Shed = "stream"
	ShedIdleConnection Shed = "idle_connection"
)

// shedSince is the worst of what was shed after was. While requests are refused, that
// is it, be there requests or not.
func (s *OverloadState) shedSince(was *OverloadState) Shed {
	switch {
	case s.Refusing > 0 || s.Requests > was.Requests:
		return ShedRequest
	case s.Refused > was.Refused:
		return ShedConnection
	case s.Reset > was.Reset:
		return ShedStream
	case s.Ended > was.Ended:
		return ShedIdleConnection
	}
	return ""
}

var (
	heldDesc        = prometheus.NewDesc("isthmus_memory_held_bytes", "Memory in use, without garbage.", nil, nil)
	heldLimitDesc   = prometheus.NewDesc("isthmus_memory_limit_bytes", "What requests, and what serves them, may hold: overload.memory, or the container's limit, less 16 MiB.", nil, nil)
	refusingDesc    = prometheus.NewDesc("isthmus_overload_refusing", "For want of memory, refused now: 0 nothing, 1 requests, 2 new connections as well.", nil, nil)
	clientsDesc     = prometheus.NewDesc("isthmus_client_connections", "Connections of clients that are open.", nil, nil)
	clientLimitDesc = prometheus.NewDesc("isthmus_client_connections_limit", "overload.connections.", nil, nil)
	bodiesDesc      = prometheus.NewDesc("isthmus_unread_body_bytes", "Bodies over HTTP/2 that wait to be read.", nil, nil)
	shedDesc        = prometheus.NewDesc("isthmus_overload_shed_total", "What was refused or ended since clients took too much: request, connection, idle_connection, stream.", []string{"what"}, nil)
)

// OverloadCollector shows how much clients take, as state says when it is gathered.
func OverloadCollector(state func() OverloadState) prometheus.Collector {
	return overloadCollector{state}
}

type overloadCollector struct{ state func() OverloadState }

// Describe implements prometheus.Collector.
func (overloadCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{heldDesc, heldLimitDesc, refusingDesc, clientsDesc, clientLimitDesc, bodiesDesc, shedDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector. A bound that there is not has no series.
func (c overloadCollector) Collect(out chan<- prometheus.Metric) {
	s := c.state()
	out <- gauge(heldDesc, float64(s.Memory))
	out <- gauge(clientsDesc, float64(s.Connections))
	if s.MemoryLimit > 0 {
		out <- gauge(heldLimitDesc, float64(s.MemoryLimit))
		out <- gauge(refusingDesc, float64(s.Refusing))
		out <- gauge(bodiesDesc, float64(s.Bodies))
	}
	if s.ConnectionsLimit > 0 {
		out <- gauge(clientLimitDesc, float64(s.ConnectionsLimit))
	}
	out <- counter(shedDesc, float64(s.Requests), string(ShedRequest))
	out <- counter(shedDesc, float64(s.Refused), string(ShedConnection))
	out <- counter(shedDesc, float64(s.Ended), string(ShedIdleConnection))
	out <- counter(shedDesc, float64(s.Reset), string(ShedStream))
}
