// Package mesh holds the nouns of Isthmus: what the configuration declares
// ([Service], [VirtualService], [DestinationRule], [Gateway], ...), what is
// known to serve it ([Endpoint]), who this proxy is ([Node]), and the numbered,
// immutable [Snapshot] in which the control side hands all of it to the data
// plane.
//
// The package knows nothing of files, of sockets or of gossip. Values are
// built once and never changed after they were put into a Snapshot, so any
// goroutine may read them.
//
// The questions whose answers several packages must agree on are answered here
// and nowhere else: which service a host name means (view.go), which policies
// apply to it (policy.go), and which endpoints a destination has (registry.go).
package mesh

import (
	"slices"
	"strconv"
	"strings"
)

// Source is the place in a file that a declaration came from. The zero value
// means that it came from no file, as what gossip brings.
type Source struct {
	File string // as given to --config, or the path below a folder given there
	Line int    // counted from 1
}

// String returns "file:line", or "" for the zero value.
func (s Source) String() string {
	if s.File == "" {
		return ""
	}
	return s.File + ":" + strconv.Itoa(s.Line)
}

// Before orders sources by file name, then by place in the file. It is the
// tie-breaker wherever Istio would use creation time, which files have not.
func (s Source) Before(t Source) bool {
	if s.File != t.File {
		return s.File < t.File
	}
	return s.Line < t.Line
}

// Meta names one declared resource. Every declaration embeds it.
type Meta struct {
	Kind        string // "VirtualService"
	Namespace   string // "default" where the file gave none
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	Source      Source
}

// String returns "VirtualService default/reviews".
func (m Meta) String() string { return m.Kind + " " + m.Namespace + "/" + m.Name }

// Config is what the files say, checked as a whole and immutable.
type Config struct {
	Hash             string // of the content of all files, short hexadecimal
	Services         []*Service
	Workloads        []*Workload
	WorkloadGroups   []*WorkloadGroup
	Gateways         []*Gateway
	VirtualServices  []*VirtualService
	DestinationRules []*DestinationRule
	RateLimitFilters []*RateLimitFilter
	RoutePatches     []*RoutePatch
	HelperClusters   []*HelperCluster
	Sidecars         []*Sidecar

	PeerAuthentications    []*PeerAuthentication
	RequestAuthentications []*RequestAuthentication
	AuthorizationPolicies  []*AuthorizationPolicy
	AuthorizationProviders []*AuthorizationProvider
	PathNormalization      PathNormalization
	Retries                *Retries // of routes that say none; nil: [DefaultRetries]

	Telemetries      []*Telemetry
	AccessLog        AccessLog    // of the mesh; the bootstrap file's wins
	Tracing          Tracing      // of the mesh; the bootstrap file's wins
	Collectors       []*Collector // that Telemetry resources name
	DefaultCollector string       // of those, where none is named; "": none

	Scope *Scope // beyond which everything was left out; nil: nothing was
}

// Node is what the bootstrap file says of this one proxy.
type Node struct {
	Name           string // default: the host name
	Address        string // where other proxies reach this one's listeners, an IP address
	Cluster        string // default: "default"
	Locality       Locality
	Namespace      string // default: "default"
	ServiceAccount string // default: "default"
	Labels         map[string]string
	TrustDomain    string   // default: "cluster.local"
	TrustAliases   []string // other names of it
	Identity       string   // the SPIFFE ID of its certificate; "": it has none
	RootNamespace  string   // default: "istio-system"

	// Domains tells whose cluster the suffix of a host name means, seen from
	// here: "cluster.remote" -> "us-west". "cluster.local" is always there.
	Domains map[string]string

	Asks []string // hosts of services that the bootstrap file has it ask: for rate limits, to send spans to

	Through   bool // it serves the other services of its cluster, too, so that no Sidecar narrows what it knows
	AllowExec bool // probes may run commands beside the node (probes.allowExec)
}

// Member is the name by which gossip knows the node: cluster/namespace/name.
func (n *Node) Member() string { return n.Cluster + "/" + n.Namespace + "/" + n.Name }

// VisibleTo reports whether a resource of namespace own, exported to the
// listed namespaces, may be used by a proxy of namespace client. An empty list
// means "*"; "." means the own namespace, "~" nobody (Istio's exportTo).
func VisibleTo(exportTo []string, own, client string) bool {
	if len(exportTo) == 0 {
		return true
	}
	for _, e := range exportTo {
		switch e {
		case "*":
			return true
		case ".":
			if own == client {
				return true
			}
		case client:
			return true
		}
	}
	return false
}

// MatchLabels reports whether labels carry every pair of selector. An empty
// selector matches everything.
func MatchLabels(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// LabelText writes labels for people: "app=web,version=v1", sorted; "" for none.
func LabelText(labels map[string]string) string {
	out := make([]string, 0, len(labels))
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
