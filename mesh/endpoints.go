package mesh

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
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

// clusterOf says whose cluster an endpoint from a file belongs to.
func (b *endpointBuilder) clusterOf(w *Workload) string {
	if c := w.Labels["topology.istio.io/cluster"]; c != "" {
		return c
	}
	return cmp.Or(w.Network, b.node.Cluster)
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
