package proxy

import (
	"net/netip"
	"strconv"
	"sync/atomic"

	"isthmus/accesslog"
	"isthmus/balancer"
	"isthmus/health"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// member is one endpoint of one upstream with its connections. It lives as
// long as snapshot after snapshot has the endpoint.
type member struct {
	host    *balancer.Host
	record  *health.Record
	address netip.AddrPort
	pool    connPool
	shared  sharedPool
	link    *link // nil: the endpoint is in the own cluster

	upstream atomic.Pointer[upstream] // of the current snapshot

	wire wire
	tls  handshaker // nil: plain text

	dials     atomic.Pointer[dials]
	verifying atomic.Bool // whether it can be reached is being found out

	// destination names the service to the proxy at address ("reviews.prod:80");
	// "" if the application itself is there, or the server name does.
	destination string
	live        *live
	requests    atomic.Pointer[telemetry.Requests]
	relays      atomic.Pointer[telemetry.Connections]
	principal   atomic.Pointer[string] // that the endpoint has shown last
	traffic     *telemetry.Link        // nil: the application is here
	unconnected *accesslog.UpstreamEnd // of tries that had no connection
}

func newMember(e *mesh.Endpoint, w wire, l *live, way *link) *member {
	host := balancer.NewHost(e, way.hostGate())
	m := &member{host: host, record: health.NewRecord(host), address: e.Address, wire: w, link: way, live: l}
	m.unconnected = m.told(netip.AddrPort{})
	if !l.inbound {
		m.traffic = l.stores.links.To(telemetry.Place{Cluster: e.Cluster, Locality: e.Locality.String()})
	}
	m.countAs("")
	host.Look(m.look)
	m.dials.Store(newDials())
	if e.Via && !w.named {
		service, port := destinationOf(e)
		m.destination = service + ":" + strconv.FormatUint(uint64(port), 10)
	}
	return m
}

// told is what access log lines say of a connection to the endpoint from an address.
func (m *member) told(local netip.AddrPort) *accesslog.UpstreamEnd {
	return &accesslog.UpstreamEnd{Name: m.live.name, Host: m.address, Local: local, Cluster: m.host.Endpoint().Cluster}
}

// countAs makes exchanges with the endpoint count as those with the owner of a
// certificate; "" if it has shown none.
func (m *member) countAs(principal string) {
	l := m.live.labels
	if !m.live.inbound {
		l.Destination = partyOfEndpoint(m.host.Endpoint(), l.DestinationService)
		l.Destination.Principal = principal
	}
	m.requests.Store(m.live.stores.requests.Of(l))
	m.relays.Store(m.live.stores.connections.Of(l))
}

// shown notes who an endpoint has proved to be.
func (m *member) shown(principal string) {
	if before := m.principal.Swap(&principal); before == nil || *before != principal {
		m.countAs(principal)
	}
}

// close ends the connections of a member that is gone.
func (m *member) close() {
	m.host.Close()
	m.pool.close()
	m.shared.close()
}
