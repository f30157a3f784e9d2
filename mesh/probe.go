package mesh

import (
	"reflect"
	"time"
)

// ProbeKind says how a probe looks.
type ProbeKind uint8

// The kinds of probes, Istio's ReadinessProbe.health_check_method.
const (
	ProbeHTTP ProbeKind = iota // a GET; a status from 200 to 399 is a success
	ProbeTCP                   // a connection can be made
	ProbeGRPC                  // grpc.health.v1 says SERVING
	ProbeExec                  // a command ends with 0
)

// Probe is Istio's ReadinessProbe, with Kubernetes' defaults put in.
type Probe struct {
	Source Source
	Kind   ProbeKind

	Host    string // for the own workload, in place of 127.0.0.1 (HTTP, TCP)
	Port    uint32 // all but exec; 0 only in looks at an endpoint, which has a port
	Path    string // HTTP: with a query, if there is one
	TLS     bool   // HTTP: scheme HTTPS; the certificate is not verified
	Headers []NameValue
	Service string // GRPC; "" asks for the server as a whole
	Command []string

	InitialDelay     time.Duration // 0
	Timeout          time.Duration // 1 s
	Period           time.Duration // 10 s, from one start to the next
	SuccessThreshold uint32        // 1: successes in a row that make it ready
	FailureThreshold uint32        // 3: failures in a row that make it unready
}

// Equal reports whether two probes ask for the same, wherever they stand.
func (p *Probe) Equal(o *Probe) bool {
	a, b := *p, *o
	a.Source, b.Source = Source{}, Source{}
	return reflect.DeepEqual(a, b)
}

// Health is what probes have found out of a workload.
type Health struct {
	Unready  string // why it should get no traffic; "" means ready
	Degraded bool   // it asks to be spared (x-envoy-degraded)
}

// Owns reports whether a workload of a namespace with these labels belongs to
// the group. A group without labels has no workloads.
func (g *WorkloadGroup) Owns(namespace string, labels map[string]string) bool {
	return g.Namespace == namespace && len(g.GroupLabels) > 0 && MatchLabels(g.GroupLabels, labels)
}

// Probed is whom the probe of a WorkloadGroup looks at.
type Probed struct {
	Group *WorkloadGroup
	Own   bool // the application beside the node

	// Workload is the declared one; nil for an application that is not declared.
	Workload *Workload
}

// ProbedWorkloads returns whom the node probes, for every group with a probe:
// the application beside it, if it belongs to the group, and the group's
// WorkloadEntries, which may have no proxy that does. A command runs for the
// own application alone, and only where the bootstrap file allows it.
func ProbedWorkloads(n *Node, c *Config) []Probed {
	var out []Probed
	for _, g := range c.WorkloadGroups {
		if g.Probe == nil || g.Probe.Kind == ProbeExec && !n.AllowExec {
			continue
		}
		member := g.Owns(n.Namespace, n.Labels)
		if member {
			out = append(out, Probed{Group: g, Own: true})
		}
		for _, w := range c.Workloads {
			own := member && w.Address == n.Address
			if w.Kind == "WorkloadEntry" && g.Owns(w.Namespace, w.Labels) && (own || g.Probe.Kind != ProbeExec) {
				out = append(out, Probed{g, own, w})
			}
		}
	}
	return out
}
