package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	"isthmus/auth"
	"isthmus/explain"
	"isthmus/http1"
	"isthmus/mesh"
)

// explainThere says of each destination that gets requests what the proxy at its
// endpoints would make of this one: whether the connection comes about, and what
// policies say. It goes by this configuration, which is that of the whole mesh
// where everybody reads the same files.
func (x *exchange) explainThere(e *explain.Explanation) {
	if x.conn.kind == inbound || e.Outcome != explain.Forwarded {
		return
	}
	list := x.route.destinations
	for i := range list {
		d := &e.Destinations[i]
		at := slices.IndexFunc(d.Endpoints, func(p explain.Endpoint) bool { return p.Percent > 0 })
		if d.Percent == 0 || at < 0 {
			continue
		}
		u := x.upstream(list[i].target)
		for k, m := range u.members {
			if address, _ := x.table.addressText(m.address); address == d.Endpoints[at].Address {
				d.There = x.there(&list[i], u, k)
				break
			}
		}
	}
}

// there judges the request as an endpoint of an upstream would. Nil: nothing is
// known to hold there.
func (x *exchange) there(d *destination, u *upstream, member int) *explain.Access {
	s := x.table.snapshot
	v, ok := s.Registry.View(d.rule.Host)
	if !ok || external(v) {
		return nil
	}
	ep, w := u.endpoints[member], &u.wires[member]
	node := &mesh.Node{
		Namespace: namespaceOf(v, ep), Labels: ep.Labels, RootNamespace: s.Node.RootNamespace, Cluster: ep.Cluster,
		TrustDomain: s.Node.TrustDomain, TrustAliases: s.Node.TrustAliases,
	}
	port := x.table.workloadPort(ep)
	peers := mesh.PeerModeOf(s.Config.PeerAuthentications, node.RootNamespace, node.Namespace, node.Labels)
	mode, from := peers.Port(port)
	policies := mesh.AuthorizationOf(node, s.Config.AuthorizationPolicies)
	rules := mesh.TokenRulesOf(node, s.Config.RequestAuthentications)
	if mode == mesh.MTLSPermissive && len(policies)+len(rules) == 0 {
		return nil
	}
	out := &explain.Access{Mode: mode.String(), ModeFrom: from.String(), Token: "not read", TokenSource: tokenSources(node, s.Config)}
	if w.mode == wireMesh {
		out.Caller = s.Node.Identity
	}
	switch {
	case mode == mesh.MTLSStrict && w.mode == wirePlain:
		out.Refused = "it takes mTLS alone, and is spoken to in plain text"
		return out
	case w.mode == wireMesh && s.Node.Identity == "":
		out.Refused = "it is spoken to by mTLS, and this proxy has no certificate (certificates in the bootstrap file)"
		return out
	case mode == mesh.MTLSDisable && w.mode == wireMesh:
		out.Refused = "it takes plain text alone, and is spoken to by mTLS"
		return out
	}
	// The very bytes that would be sent.
	x.buildRequest(asHTTP1, nil, u.members[member], d)
	var r http1.Request
	if n, err := r.Parse(x.out, http1.Limits{}); n == 0 || err != nil {
		return nil
	}
	keys := auth.NewKeys(auth.KeysOptions{})
	keys.Close() // so that nothing is fetched
	claims, bad := explainToken(out, auth.NewTokens(rules, keys), &r)
	if bad != nil {
		return out
	}
	peer := auth.PeerOf(out.Caller)
	q := &auth.Request{HTTP: &r, Path: r.Path, Peer: &peer, Claims: claims, Source: x.seenAs(ep.Address.Addr()), Destination: ep.Address.Addr(), Port: port}
	q.Remote = q.Source
	if w.mode == wireMesh {
		q.SNI = w.name
		if !x.conn.address.IsLoopback() {
			q.Remote = x.conn.address // as x-forwarded-for tells: see remoteAddress
		}
	}
	judge := auth.NewRules(policies, append([]string{node.TrustDomain}, node.TrustAliases...), nil)
	for _, p := range judge.Asked(q) {
		out.Asks = append(out.Asks, fmt.Sprintf("%s, by %s (%s)", p.Provider, p.Meta, p.Source))
	}
	explainOpinion(out, judge.Opinion(q))
	return out
}

// seenAs is the address of this proxy from which connections to another one come, as far as
// it is known.
func (x *exchange) seenAs(to netip.Addr) netip.Addr {
	own, err := netip.ParseAddr(x.table.snapshot.Node.Address)
	switch {
	case to.IsLoopback():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case err != nil:
		return x.conn.address
	}
	return own.Unmap()
}
