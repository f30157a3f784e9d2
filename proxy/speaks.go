package proxy

import "isthmus/mesh"

// speaks is the protocol in which an upstream is spoken to.
type speaks uint8

const (
	speaksHTTP1 speaks = iota
	speaksHTTP2
	speaksAsClient // whatever the client does
)

// protocolOf finds the protocol of an upstream: by its port's, by
// h2UpgradePolicy and useClientProtocol (Istio: buildUpstreamClusterHttpSettings).
// Where the port does not say, the client's will do, as Istio has it.
func protocolOf(k upstreamKey, endpoints []*mesh.Endpoint, pool *mesh.ConnectionPool) speaks {
	port := portProtocol(endpoints)
	switch {
	case k.relay:
		return speaksHTTP1 // it is not asked
	case port.IsHTTP2():
		return speaksHTTP2
	case pool.UseClientProtocol:
		return speaksAsClient
	case pool.UpgradeHTTP2 && !k.inbound:
		return speaksHTTP2
	case port == mesh.ProtocolUnknown:
		return speaksAsClient
	}
	return speaksHTTP1
}

// portProtocol is what the port of an upstream says that it speaks.
func portProtocol(endpoints []*mesh.Endpoint) mesh.Protocol {
	if len(endpoints) == 0 {
		return mesh.ProtocolUnknown
	}
	return endpoints[0].Port.Protocol
}

// mayHTTP1 reports whether an upstream that is spoken to in HTTP/2 may be in
// HTTP/1.1, too: for upgrades it does not take otherwise.
func mayHTTP1(endpoints []*mesh.Endpoint, pool *mesh.ConnectionPool) bool {
	return !portProtocol(endpoints).IsHTTP2() && !pool.UseClientProtocol
}

// multiplexes reports whether a request of a client goes over HTTP/2.
func (u *upstream) multiplexes(client *stream) bool {
	return u.speaks == speaksHTTP2 || u.speaks == speaksAsClient && (client.h2 != nil || client.copied)
}
