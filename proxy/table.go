package proxy

import (
	"isthmus/accesslog"
	"isthmus/auth"
	"isthmus/balancer"
	"isthmus/canary"
	"isthmus/mesh"
)

// table is a snapshot compiled for the data plane. A request loads it once and
// keeps it to its end. Only the upstreams in it are alive: they are made when
// they are first needed, and carried over to the next table.
type table struct {
	snapshot *mesh.Snapshot
	caller   balancer.Caller
	outbound *hostTable
	sni      *sniTable                // of the outbound listener
	gateways map[uint32]*gatewayTable // by the Gateway's port
	inbound  *inboundTable
	targets  map[upstreamKey]*target
	tracing  [3]*traceRule         // by listenerKind; nil: nothing is traced
	logging  [3]*accesslog.Rule    // likewise; nil: nothing is logged
	tags     [3][]*accesslog.Value // likewise; what metrics show of exchanges besides Istio's labels
	tells    [3]bool               // likewise; routes look at what we say of where requests come from: see exchange.tellOrigin
	access   *access               // nil: no policies are for this proxy

	limits map[string]*limiter   // by what they are kept by; hosts and routes have those that hold for them
	askers map[string]limitAsker // of global limits, by the cluster's name

	terminating []*tlsServer // those of gateways

	applications applications

	heirs map[uint32]uint32 // of Gateways' ports that are gone: those that have taken their sockets over

	trial     *trial      // a candidate's beside this one; nil: none
	candidate bool        // it is that of a candidate
	arm       *canary.Arm // counts the requests that it decides; nil: nobody wants to know

	asked map[*target]*upstream // see Proxy.askedUpstream; guarded by Proxy.mu
}

// compiler makes a table of a snapshot.
type compiler struct {
	*table
	node    *mesh.Node
	reg     *mesh.Registry
	options Options
	view    *mesh.View // of the name for which addService makes routes
}

// compile cannot fail on what config has accepted: a destination that nobody
// knows is a route that answers 503 NC.
func compile(s *mesh.Snapshot, o Options) *table {
	t := &table{snapshot: s, caller: callerOf(s), targets: map[upstreamKey]*target{}}
	c := &compiler{table: t, node: s.Node, reg: s.Registry, options: o}
	t.outbound = c.compileOutbound()
	t.sni = c.compileOutboundSNI()
	t.gateways = c.compileGateways()
	t.inbound = c.compileInbound()
	c.compileLogging()
	return t
}

// gateway is what a Gateway's port does with connections, those too that were accepted for
// one whose socket it has taken over; nil: there is none.
func (t *table) gateway(port uint32) *gatewayTable {
	if g := t.gateways[port]; g != nil {
		return g
	}
	return t.gateways[t.heirs[port]]
}

// standing is the Gateway's port whose rules hold for connections that were accepted for
// one: its own, or that of who has taken its socket over.
func (t *table) standing(port uint32) uint32 {
	if t.gateways[port] == nil && t.heirs[port] != 0 {
		return t.heirs[port]
	}
	return port
}

// inherit takes over who stands for Gateways' ports that go with this table, and for those
// that went with the ones before: their connections may have a request on its way still.
func (t *table) inherit(heirs map[uint32]uint32, before *table) {
	t.heirs = heirs
	if before == nil {
		return
	}
	for port, heir := range before.heirs {
		if next, ok := heirs[heir]; ok {
			heir = next
		}
		if t.gateways[port] == nil && t.gateways[heir] != nil {
			t.heirs[port] = heir
		}
	}
}

// tokens are those that requests may come with; nil if none are read, or there is
// no table.
func (t *table) tokens() *auth.Tokens {
	if t == nil || t.access == nil {
		return nil
	}
	return t.access.tokens
}
