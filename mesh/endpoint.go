package mesh

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// Endpoint is one address that serves one port of one service. A value:
// whoever wants another one makes a copy.
type Endpoint struct {
	Service  string // "name.namespace", or the host of a ServiceEntry
	Port     Port   // of the service
	Address  netip.AddrPort
	Cluster  string
	Locality Locality
	Labels   map[string]string // as declared; see [Endpoint.Label] for derived ones
	Weight   uint32            // at least 1
	Hostname string            // of the Pod, by which clients ask for it alone: see [Endpoint.Pod]
	Identity string            // service account as a hint, "spiffe://td/ns/x/sa/y" or ""

	// Via says that Address is another Isthmus's inbound listener, so that a
	// request needs to name its destination (x-isthmus-destination): Forward and
	// ForwardPort where a ServiceEntry gave the endpoints of another service a
	// name of its own, or an ExternalName does, else Service and Port.
	Via         bool
	Forward     string
	ForwardPort uint32

	// Relayed says that the owner announced the endpoint for others: it is not
	// the sidecar of the service.
	Relayed bool

	// Unready says why the endpoint should get no traffic while another one can
	// take it; "" means ready. What this proxy itself finds out about an endpoint
	// is not here but with its host (package balancer).
	Unready string

	// Degraded says that the endpoint asks to be spared: it gets what those in
	// full health cannot carry (Envoy: degraded.rst).
	Degraded bool

	Source EndpointSource
	Owner  string    // gossip member that announced it; "" for files and DNS
	Since  time.Time // when it became known here as it is
}

// EndpointSource is how an endpoint became known.
type EndpointSource string

// The sources of endpoints, in order of trust: of two that give the same
// endpoint the earlier wins.
const (
	SourceFile       EndpointSource = "file"
	SourceKubernetes EndpointSource = "kubernetes"
	SourceGossip     EndpointSource = "gossip"
	SourceDNS        EndpointSource = "dns"
)

// EndpointKey tells endpoints apart: announcements that agree in it are one
// endpoint.
type EndpointKey struct {
	Service string
	Port    uint32
	Cluster string
	Address netip.AddrPort
}

// Key returns the endpoint's key.
func (e *Endpoint) Key() EndpointKey {
	return EndpointKey{e.Service, e.Port.Number, e.Cluster, e.Address}
}

// PodLabel is the label by which Kubernetes names a Pod of a StatefulSet.
const PodLabel = "statefulset.kubernetes.io/pod-name"

// Pod is the first part of the name that an endpoint's Pod has to itself, "web-0" of
// web-0.web.prod.svc.cluster.local: its hostname, which Kubernetes gives the Pods of
// headless services, else what the label of a StatefulSet's Pod says; "" if none does.
func (e *Endpoint) Pod() string {
	return strings.ToLower(cmp.Or(e.Hostname, e.Labels[PodLabel]))
}

// TakesMTLS reports whether the endpoint is known to speak mTLS: another Isthmus
// with a certificate, or a workload that a file says so of (Istio's label
// security.istio.io/tlsMode).
func (e *Endpoint) TakesMTLS() bool {
	return e.Via && e.Identity != "" || e.Labels["security.istio.io/tlsMode"] == "istio"
}

// Equal reports whether two endpoints agree in everything.
func (e *Endpoint) Equal(o *Endpoint) bool {
	a, b := *e, *o
	a.Labels, b.Labels = nil, nil
	return reflect.DeepEqual(a, b) && maps.Equal(e.Labels, o.Labels)
}

// Label returns the value of a label: the declared one or, where there is
// none, the one derived from locality and cluster: region, zone, subzone,
// cluster, topology.kubernetes.io/region and zone, topology.istio.io/cluster
// and subzone.
func (e *Endpoint) Label(name string) (string, bool) {
	if v, ok := e.Labels[name]; ok {
		return v, true
	}
	var v string
	switch name {
	case "region", "topology.kubernetes.io/region":
		v = e.Locality.Region
	case "zone", "topology.kubernetes.io/zone":
		v = e.Locality.Zone
	case "subzone", "topology.istio.io/subzone":
		v = e.Locality.Subzone
	case "cluster", "topology.istio.io/cluster":
		v = e.Cluster
	}
	return v, v != ""
}

// MatchesSubset reports whether the endpoint bears every label of a subset,
// derived labels included.
func (e *Endpoint) MatchesSubset(labels map[string]string) bool {
	for k, want := range labels {
		if got, ok := e.Label(k); !ok || got != want {
			return false
		}
	}
	return true
}
