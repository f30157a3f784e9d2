package mesh

import (
	"encoding/binary"
	"net/netip"

	"github.com/cespare/xxhash/v2"
)

// addEntry adds the endpoints that a ServiceEntry lists for one of its hosts.
func (b *endpointBuilder) addEntry(s *Service, host string) {
	if s.Resolution == ResolveStatic {
		for _, w := range s.Endpoints {
			b.addWorkload(s, host, w, SourceFile)
		}
		return
	}
	endpoints := s.Endpoints
	if len(endpoints) == 0 && s.Selector == nil {
		svc, _, _, short := b.serviceName(host)
		if _, _, full := ServiceOf(host); full || short && b.services[svc] != nil {
			return // the name of a service: its endpoints are the view's already
		}
		endpoints = []*Workload{{Meta: s.Meta, Address: host}}
		endpoints[0].Labels = nil // a ServiceEntry's labels are not its endpoints'
	}
	for _, w := range endpoints {
		b.addNamed(s, host, w)
	}
}

// addNamed adds an endpoint of a DNS service: an address, the name of a
// service of the mesh, or a name for DNS.
func (b *endpointBuilder) addNamed(s *Service, host string, w *Workload) {
	if _, err := netip.ParseAddr(w.Address); err == nil {
		b.addWorkload(s, host, w, SourceFile)
		return
	}
	name, ok := b.unalias(NormalizeHost(w.Address))
	if !ok {
		return // names that lead to each other
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		b.addAddress(s, host, w, addr, SourceFile)
		return
	}
	if svc, cluster, _, ok := b.serviceName(name); ok && b.services[svc] != nil {
		for _, p := range s.Ports {
			b.addView(s, host, p, w, svc, cluster)
		}
		return
	}
	if _, _, isService := ServiceOf(name); isService {
		return // a service that nobody has announced yet; DNS knows no such name
	}
	b.unresolved = append(b.unresolved, name)
	addrs := b.known.Addresses[name]
	if b.known.Unasked {
		addrs = b.standIn(name)
	}
	if s.Resolution == ResolveDNSRoundRobin && len(addrs) > 1 {
		addrs = []netip.Addr{b.oneOf(addrs)}
	}
	for _, a := range addrs {
		b.addAddress(s, host, w, a, SourceDNS)
	}
}

// unalias follows the names that Services of type ExternalName stand for; ok is false if
// they do not come to an end.
func (b *endpointBuilder) unalias(name string) (end string, ok bool) {
	for range maxAliases {
		svc, _, _, ok := b.serviceName(name)
		known := b.services[svc]
		if !ok || known == nil || known.declared == nil || len(known.declared.Endpoints) == 0 {
			return name, true
		}
		name = NormalizeHost(known.declared.Endpoints[0].Address)
	}
	return "", false
}

// maxAliases bounds how many names lead to one another; DNS resolvers follow about as many.
const maxAliases = 8

// oneOf chooses the address that this proxy goes to, of several that DNS gives: the same
// one as long as it is among them, so that its connections stay, and another proxy
// perhaps another one. One of IPv4 if there is any, as Istio has it: without a route for
// IPv6 there would be nothing else to go to.
func (b *endpointBuilder) oneOf(addrs []netip.Addr) (best netip.Addr) {
	most := uint64(0)
	for _, a := range addrs {
		n := xxhash.Sum64String(b.node.Member() + " " + a.String())
		if !best.IsValid() || a.Is4() && !best.Is4() || a.Is4() == best.Is4() && n > most {
			best, most = a, n
		}
	}
	return best
}

// standIn returns an address that stands for those of a name.
func (b *endpointBuilder) standIn(name string) []netip.Addr {
	a, ok := b.standIns[name]
	if !ok {
		// One of 100::/64, whose packets go nowhere (RFC 6666).
		bytes := [16]byte{0: 1}
		binary.BigEndian.PutUint64(bytes[8:], uint64(len(b.standIns)+1))
		a = netip.AddrFrom16(bytes)
		if b.standIns == nil {
			b.standIns, b.standing = map[string]netip.Addr{}, map[netip.Addr]string{}
		}
		b.standIns[name], b.standing[a] = a, name
	}
	return []netip.Addr{a}
}

// addView gives an entry's host, or an ExternalName, the endpoints of another service.
// What an endpoint says of itself wins over what the entry says of the name.
func (b *endpointBuilder) addView(s *Service, host string, p Port, w *Workload, service, cluster string) {
	number := p.Number
	if n := w.Ports[p.Name]; n != 0 {
		number = n
	}
	for _, known := range b.byService[service] {
		if cluster != "" && known.Cluster != cluster || known.Port.Number != number {
			continue
		}
		e := *known
		e.Service, e.Port, e.Hostname = host, p, ""
		if e.Via || !s.IsEntry() {
			// The proxy there knows the service by its own name; and what an
			// ExternalName names is in the mesh, if it does not seem so.
			e.Forward = known.Service
			e.ForwardPort = known.Port.Number
		}
		if !s.IsEntry() {
			e.Port.Target, e.Port.TargetName = known.Port.Target, known.Port.TargetName
		}
		if e.Locality == (Locality{}) {
			e.Locality = w.Locality
		}
		if len(e.Labels) == 0 {
			e.Labels = w.Labels
		}
		if w.Weight > 0 {
			e.Weight = w.Weight
		}
		b.add(e)
	}
}
