package mesh

import "net/netip"

// TCPRoute is Istio's TCPRoute or TLSRoute: where connections go whose bytes
// are passed on as they come. If any of Match fits, or there is none, the rule
// decides.
type TCPRoute struct {
	Source Source
	Match  []TCPMatch
	Route  []RouteDestination // its header rules are empty
}

// TCPMatch is Istio's L4MatchAttributes or TLSMatchAttributes: one set of
// conditions, all of which must hold.
type TCPMatch struct {
	Source Source

	// SNIHosts are the names in a ClientHello that fit, in lower case: exact, or
	// "*.suffix". Of TLS routes only, and never empty there.
	SNIHosts []string

	// DestinationSubnets hold the address that the client has connected to,
	// SourceSubnet the client's; empty and invalid: any.
	DestinationSubnets []netip.Prefix
	SourceSubnet       netip.Prefix

	ProxyMatch
}
