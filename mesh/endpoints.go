package mesh

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// endpointBuilder collects the endpoints of a Registry under construction.
type endpointBuilder struct {
	*Registry
	known Known
	seen  map[EndpointKey]int // index into Registry.endpoints

	named    map[string][]*Workload // by the service that an EndpointSlice names
	labelled map[label][]*Workload

	standIns map[string]netip.Addr // by the name that DNS would be asked for; see Known.Unasked
}

func (b *endpointBuilder) build() {
	b.indexWorkloads()
	for _, s := range b.known.Config.Services {
		if !s.IsEntry() {
			b.addSelected(s, s.Key())
		}
	}
	for i := range b.known.Announced {
		b.add(b.known.Announced[i])
	}
	b.throughProxies()
	b.index()
	// Entries come last, and ExternalNames: their endpoints may be names of the services above.
	for _, s := range b.known.Config.Services {
		if !b.sees(s) {
			continue // another entry may have the host, and with it what is kept for that
		}
		if !s.IsEntry() {
			for _, w := range s.Endpoints {
				b.addNamed(s, s.Key(), w)
			}
		}
		for _, h := range s.Hosts {
			b.addSelected(s, h)
			b.addEntry(s, h)
		}
	}
	b.keepAges()
	b.index()
	b.indexPods()
	slices.Sort(b.unresolved)
	b.unresolved = slices.Compact(b.unresolved)
}

// addSelected adds the workloads that the service's selector picks, and those
// that name the service themselves.
func (b *endpointBuilder) addSelected(s *Service, key string) {
	if !s.IsEntry() && len(s.Endpoints) == 0 { // an ExternalName has its name alone
		for _, w := range b.named[s.Key()] {
			b.addWorkload(s, key, w, SourceKubernetes)
		}
	}
	for k, v := range s.Selector {
		// Whoever fits bears any one pair of the selector.
		for _, w := range b.labelled[label{s.Namespace, k, v}] {
			if MatchLabels(s.Selector, w.Labels) {
				b.addWorkload(s, key, w, SourceFile)
			}
		}
		break
	}
}

// label is a label that a workload of a namespace bears.
type label struct{ namespace, key, value string }

// indexWorkloads makes finding a service's workloads independent of how many
// others there are.
func (b *endpointBuilder) indexWorkloads() {
	b.named, b.labelled = map[string][]*Workload{}, map[label][]*Workload{}
	for _, w := range b.known.Config.Workloads {
		if w.Service != "" {
			if strings.HasSuffix(w.Service, "."+w.Namespace) {
				b.named[w.Service] = append(b.named[w.Service], w)
			}
			continue
		}
		for k, v := range w.Labels {
			l := label{w.Namespace, k, v}
			b.labelled[l] = append(b.labelled[l], w)
		}
	}
}

func (b *endpointBuilder) addWorkload(s *Service, key string, w *Workload, source EndpointSource) {
	addr, err := netip.ParseAddr(w.Address)
	if err != nil {
		return // a WorkloadEntry with a name serves only DNS services: config reports it
	}
	b.addAddress(s, key, w, addr, source)
}

// addAddress adds one address of a workload for every port of the service.
func (b *endpointBuilder) addAddress(s *Service, key string, w *Workload, addr netip.Addr, source EndpointSource) {
	for _, p := range s.Ports {
		if !w.Serves(p) {
			continue
		}
		e := Endpoint{
			Service:  key,
			Port:     p,
			Address:  netip.AddrPortFrom(addr.Unmap(), uint16(TargetPort(p, w))),
			Cluster:  b.clusterOf(w),
			Locality: w.Locality,
			Labels:   w.Labels,
			Weight:   max(w.Weight, 1),
			Hostname: w.Hostname,
			Source:   source,
		}
		if w.Unready {
			e.Unready = "not ready"
		}
		if h, ok := b.known.Probed[w]; ok {
			e.Unready, e.Degraded = cmp.Or(e.Unready, h.Unready), h.Degraded
		}
		if w.ServiceAccount != "" {
			e.Identity = "spiffe://" + b.node.TrustDomain + "/ns/" + w.Namespace + "/sa/" + w.ServiceAccount
		}
		b.add(e)
	}
}

// TargetPort says where a workload serves a port of a service: its own port
// of that name, else the service's target port, else the port itself.
func TargetPort(p Port, w *Workload) uint32 {
	if w != nil {
		if n := w.Ports[p.Name]; n != 0 {
			return n
		}
		if n := w.Ports[p.TargetName]; p.TargetName != "" && n != 0 {
			return n
		}
	}
	if p.Target != 0 {
		return p.Target
	}
	return p.Number
}

// ApplicationPort says where the application beside a node serves a port of one of its
// services: what a WorkloadEntry of the node's address says, else the service. Which number
// a target port has that is a name, the WorkloadGroup that the node belongs to and
// EndpointSlices of its address say, too; known is false if nobody does, and then it is taken
// to be the service's.
func ApplicationPort(n *Node, c *Config, s *Service, p Port) (number uint32, known bool) {
	named := func(ports map[string]uint32) uint32 {
		if own := ports[p.Name]; own != 0 || p.TargetName == "" {
			return own
		}
		return ports[p.TargetName]
	}
	var sliced uint32
	for _, w := range c.Workloads {
		if w.Namespace != s.Namespace || w.Address != n.Address {
			continue
		}
		if w.Service == s.Key() {
			sliced = cmp.Or(sliced, named(w.Ports))
		} else if own := named(w.Ports); own != 0 && w.Service == "" && MatchLabels(s.Selector, w.Labels) {
			return own, true
		}
	}
	if p.TargetName == "" {
		return TargetPort(p, nil), true
	}
	for _, g := range c.WorkloadGroups {
		if own := named(g.Template.Ports); own != 0 && g.Owns(n.Namespace, n.Labels) {
			return own, true
		}
	}
	return cmp.Or(sliced, p.Number), sliced != 0
}

// clusterOf says whose cluster an endpoint from a file belongs to.
func (b *endpointBuilder) clusterOf(w *Workload) string {
	if c := w.Labels["topology.istio.io/cluster"]; c != "" {
		return c
	}
	return cmp.Or(w.Network, b.node.Cluster)
}

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

// add keeps one endpoint for each key: the ready one of two, else the one
// that came first. But what files give is as this proxy's probes find it,
// whatever others, or it itself a moment ago, announce of it.
func (b *endpointBuilder) add(e Endpoint) {
	e.Weight = max(e.Weight, 1)
	if e.Unready == "" {
		e.Unready = b.known.Unreachable[e.Key()]
	}
	if i, ok := b.seen[e.Key()]; ok {
		have := b.endpoints[i]
		fromFile := have.Source == SourceFile || have.Source == SourceKubernetes
		if have.Unready != "" && e.Unready == "" && !(fromFile && e.Source == SourceGossip) {
			b.endpoints[i] = &e
		}
		return
	}
	b.seen[e.Key()] = len(b.endpoints)
	b.endpoints = append(b.endpoints, &e)
}

// keepAges gives endpoints that were known before the time they became so, and
// puts the old value in the place of an equal new one: who holds a pointer can
// see that nothing has changed.
func (b *endpointBuilder) keepAges() {
	since := map[EndpointKey]*Endpoint{}
	var before []map[EndpointKey]*Endpoint
	for _, r := range []*Registry{b.known.Beside, b.known.Previous} {
		if r == nil {
			continue
		}
		known := map[EndpointKey]*Endpoint{}
		for _, e := range r.endpoints {
			known[e.Key()], since[e.Key()] = e, e
		}
		before = append(before, known)
	}
	for i, e := range b.endpoints {
		old := since[e.Key()]
		if old != nil && old.Owner == e.Owner {
			e.Since = old.Since
		} else if e.Since.IsZero() {
			e.Since = b.known.Now
		}
		for _, known := range before {
			if old := known[e.Key()]; old != nil && old.Equal(e) {
				b.endpoints[i] = old
				break
			}
		}
	}
}

func (b *endpointBuilder) index() {
	slices.SortStableFunc(b.endpoints, func(x, y *Endpoint) int {
		return cmp.Or(
			cmp.Compare(x.Service, y.Service),
			cmp.Compare(x.Port.Number, y.Port.Number),
			cmp.Compare(x.Cluster, y.Cluster),
			x.Address.Compare(y.Address),
		)
	})
	clear(b.byService)
	for i, e := range b.endpoints {
		b.seen[e.Key()] = i
		b.byService[e.Service] = append(b.byService[e.Service], e)
	}
}
