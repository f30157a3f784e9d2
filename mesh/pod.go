package mesh

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A Pod of a headless service has a name to itself, POD before any name of the service:
// web-0.web.prod.svc.cluster.local, web-0.web (Kubernetes: DNS for Services and Pods).
// Which endpoint it is, endpoints say: see [Endpoint.Pod].

// throughProxies leaves out what EndpointSlices, or Endpoints, say of Pods whose proxies announce
// them: that is the port of the application itself, and who asked there would go past the policies
// which the proxy keeps, and ask the Pod twice as often as others. A proxy announces one address;
// where EndpointSlices name the Pod, all of its addresses are meant. What else they say of the Pod
// holds for its proxy.
func (b *endpointBuilder) throughProxies() {
	type pod struct {
		service, cluster string
		port             uint32
		name             string     // where it is known
		address          netip.Addr // else
	}
	names := b.podNames()
	podOf := func(e *Endpoint) pod {
		p := pod{service: e.Service, cluster: e.Cluster, port: e.Port.Number}
		if p.name = names[podAddress{e.Service, e.Address.Addr()}]; p.name == "" {
			p.address = e.Address.Addr()
		}
		return p
	}
	said := map[pod]*Endpoint{}
	for _, e := range b.endpoints {
		if e.Source == SourceKubernetes && (said[podOf(e)] == nil || e.Unready == "") {
			said[podOf(e)] = e
		}
	}
	if len(said) == 0 {
		return
	}
	proxied := map[pod]bool{}
	for i, e := range b.endpoints {
		s := said[podOf(e)]
		if !e.Via || e.Relayed || s == nil {
			continue
		}
		proxied[podOf(e)] = true
		of := *e
		of.Hostname, of.Unready = cmp.Or(e.Hostname, s.Hostname), cmp.Or(e.Unready, s.Unready)
		if e.Locality == (Locality{}) {
			of.Locality = s.Locality
		}
		b.endpoints[i] = &of
	}
	b.endpoints = slices.DeleteFunc(b.endpoints, func(e *Endpoint) bool { return e.Source == SourceKubernetes && proxied[podOf(e)] })
	clear(b.seen)
}

// podAddress is an address of a service "name.namespace".
type podAddress struct {
	service string
	address netip.Addr
}

// podNames returns the names of Pods by the addresses that EndpointSlices give of them.
func (b *endpointBuilder) podNames() map[podAddress]string {
	names := map[podAddress]string{}
	for service, list := range b.named {
		for _, w := range list {
			if addr, err := netip.ParseAddr(w.Address); err == nil && w.Pod != "" {
				names[podAddress{service, addr.Unmap()}] = w.Pod
			}
		}
	}
	return names
}

// indexPods finds the endpoints of every Pod that has a name. What its proxy announces
// is the Pod, too, although only EndpointSlices may say so of its address.
func (b *endpointBuilder) indexPods() {
	type place struct {
		service, cluster string
		address          netip.Addr
	}
	at := map[place]string{}
	for _, e := range b.endpoints {
		if pod := e.Pod(); pod != "" && b.services[e.Service] != nil && !(e.Via && e.Relayed) {
			at[place{e.Service, e.Cluster, e.Address.Addr()}] = pod
		}
	}
	if len(at) == 0 {
		return
	}
	b.pods = map[string]map[string][]*Endpoint{}
	for _, e := range b.endpoints {
		pod := cmp.Or(e.Pod(), at[place{e.Service, e.Cluster, e.Address.Addr()}])
		if pod == "" || e.Via && e.Relayed {
			continue
		}
		if b.pods[e.Service] == nil {
			b.pods[e.Service] = map[string][]*Endpoint{}
		}
		b.pods[e.Service][pod] = append(b.pods[e.Service][pod], e)
	}
}

// PodNames returns the host names of the Pods of a service "name.namespace" that have one
// to themselves, sorted: each before every name of the service by which it is known.
func (r *Registry) PodNames(service string) []string {
	var names []string
	for _, pod := range slices.Sorted(maps.Keys(r.pods[service])) {
		for _, name := range r.Names(service) {
			if host := pod + "." + name; r.isPod(host) {
				names = append(names, host)
			}
		}
	}
	return names
}

func (r *Registry) isPod(host string) bool {
	v, ok := r.View(host)
	return ok && v.Pod != ""
}

// podView is the view of a host as the name of one Pod. One whose Pod is not known has none.
func (r *Registry) podView(host string) (*View, bool) {
	pod, of, ok := strings.Cut(host, ".")
	service, cluster, full, isService := r.serviceName(of)
	known := r.services[service]
	if !ok || !isService || known == nil || !known.visibleTo(r.node.Namespace) || !r.scope.AdmitsService(service) {
		return nil, false
	}
	if !slices.ContainsFunc(r.pods[service][pod], func(e *Endpoint) bool { return cluster == "" || cluster == e.Cluster }) {
		return nil, false
	}
	return &View{Host: pod + "." + full, Service: service, Pod: pod, Cluster: cluster, Namespace: known.namespace, Ports: known.ports}, true
}
