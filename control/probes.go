package control

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"isthmus/health"
	"isthmus/mesh"
)

// RemoteProbes say how endpoints of other clusters are looked at.
type RemoteProbes struct {
	Interval time.Duration // 0: not at all
	Timeout  time.Duration
}

// Bounds on probing. A proxy looks at 200 endpoints a second at most, so with
// more than a thousand of them in other clusters and the usual interval of 5 s
// the interval grows. As many looks as there may be at once take the usual
// time-out of 1 s each, three quarters of that rate while nobody answers.
const (
	workloadsAtOnce = 32
	workloadsSpread = time.Second
	endpointsAtOnce = 150
	endpointSpacing = 5 * time.Millisecond
)

// How endpoints of dead members are looked at, and how long one may fail
// before it is dropped.
var suspectProbe = &mesh.Probe{Kind: mesh.ProbeTCP, Timeout: time.Second, Period: 2 * time.Second, SuccessThreshold: 1, FailureThreshold: 1}

const dropAfter = 10 * time.Minute

// remoteFailures in a row make an endpoint of another cluster unreachable: one
// may be a lost packet.
const remoteFailures = 2

// probes looks at workloads as WorkloadGroups say, and at endpoints of other
// clusters and of members that died. Only the controller's goroutine uses it.
type probes struct {
	node      *mesh.Node
	remote    *mesh.Probe // nil: other clusters are not looked at
	successor bool        // see Options.Successor
	workloads *health.Prober
	endpoints *health.Prober

	config *mesh.Config
	rules  *mesh.Rules // nil: none of them has anybody spoken to in plain text
	plain  map[plainKey]bool
}

// plainKey is what the endpoints have in common of which rules say that they are spoken to in
// plain text.
type plainKey struct {
	service, cluster string
	port             uint32
}

func newProbes(o Options, changed func()) *probes {
	if o.look == nil {
		o.look = health.Looker{Mesh: o.MeshTLS}.Look
	}
	p := &probes{
		node: o.Node, successor: o.Successor,
		workloads: health.NewProber(health.ProberOptions{
			Look: o.look, Concurrent: workloadsAtOnce, Spread: workloadsSpread, Changed: changed,
		}),
		endpoints: health.NewProber(health.ProberOptions{
			Look: o.look, Concurrent: endpointsAtOnce, Spacing: endpointSpacing, Spread: time.Hour, Changed: changed,
		}),
	}
	if r := o.Remote; r.Interval > 0 {
		p.remote = &mesh.Probe{Kind: mesh.ProbeTCP, Timeout: r.Timeout, Period: r.Interval, SuccessThreshold: 1, FailureThreshold: remoteFailures}
	}
	return p
}

func (p *probes) close() {
	p.workloads.Close()
	p.endpoints.Close()
}

// probedWorkload is one of the configuration's that is looked at.
type probedWorkload struct {
	health.Job
	workload *mesh.Workload // nil: it is not declared
}

// loopback is where the application is.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func probedWorkloads(n *mesh.Node, c *mesh.Config) []probedWorkload {
	var out []probedWorkload
	for _, w := range mesh.ProbedWorkloads(n, c) {
		s := health.Subject{Group: w.Group.Namespace + "/" + w.Group.Name, Own: w.Own}
		addr := loopback
		if !w.Own {
			var err error
			if addr, err = netip.ParseAddr(w.Workload.Address); err != nil {
				continue // a name, whose addresses DNS says
			}
		}
		s.Address = netip.AddrPortFrom(addr.Unmap(), 0)
		out = append(out, probedWorkload{health.Job{Subject: s, Probe: w.Group.Probe}, w.Workload})
	}
	return out
}

// health says what is known of workloads: application of the one beside this
// proxy, nil if it is not probed. That one is not ready before it has succeeded,
// as in Kubernetes: it may be starting, unless this process takes another one's place. Of
// others this proxy's start says nothing, so they are ready until they fail.
func (p *probes) health(list []probedWorkload) (application *mesh.Health, declared map[*mesh.Workload]mesh.Health) {
	declared = map[*mesh.Workload]mesh.Health{}
	for _, w := range list {
		state := p.workloads.State(w.Subject)
		h := mesh.Health{Degraded: state.Degraded}
		switch {
		case state.Failing != "":
			h.Unready = "probe: " + state.Failing
		case !state.Known && w.Subject.Own && !p.successor:
			h.Unready = "probe: not yet succeeded"
		}
		if w.workload != nil {
			declared[w.workload] = unite(declared[w.workload], h)
			continue
		}
		if application == nil {
			application = &mesh.Health{}
		}
		*application = unite(*application, h)
	}
	return application, declared
}

// lookedAt reports whether there is a verdict on the application beside this proxy, or none
// is asked for.
func (p *probes) lookedAt(list []probedWorkload) bool {
	return !slices.ContainsFunc(list, func(w probedWorkload) bool { return w.Subject.Own && !p.workloads.State(w.Subject).Known })
}

// unite puts together what the probes of several groups say of a workload.
func unite(a, b mesh.Health) mesh.Health {
	return mesh.Health{Unready: cmp.Or(a.Unready, b.Unready), Degraded: a.Degraded || b.Degraded}
}

// goBy has a configuration say how endpoints are spoken to.
func (p *probes) goBy(c *mesh.Config) {
	if p.config == c {
		return
	}
	p.config, p.rules, p.plain = c, nil, map[plainKey]bool{}
	plain := func(t *mesh.TrafficPolicy) bool { return t.TLS != nil && t.TLS.Mode == mesh.TLSDisable }
	if slices.ContainsFunc(c.DestinationRules, func(d *mesh.DestinationRule) bool {
		return plain(&d.Policy) || slices.ContainsFunc(slices.Collect(maps.Values(d.Policy.PortLevel)), plain)
	}) {
		p.rules = mesh.NewRules(p.node, c.DestinationRules)
	}
}

// inPlain reports whether DestinationRules have an endpoint spoken to in plain text, by one
// of its service's names at least.
func (p *probes) inPlain(e *mesh.Endpoint) bool {
	if p.rules == nil {
		return false
	}
	k := plainKey{e.Service, e.Cluster, e.Port.Number}
	plain, known := p.plain[k]
	if !known {
		names := []string{e.Service + ".global", e.Service}
		for domain, cluster := range p.node.Domains {
			if cluster == e.Cluster {
				names = append(names, e.Service+".svc."+domain)
			}
		}
		_, namespace, _ := strings.Cut(e.Service, ".")
		plain = slices.ContainsFunc(names, func(name string) bool {
			t := p.rules.Find(name, namespace, e.Port.Number, "").TLS
			return t != nil && t.Mode == mesh.TLSDisable
		})
		p.plain[k] = plain
	}
	return plain
}

// subjectOf is how an endpoint is looked at: another Isthmus is asked for what
// is behind it, anything else is connected to.
func (p *probes) subjectOf(e *mesh.Endpoint) health.Subject {
	s := health.Subject{Address: e.Address}
	if e.Via {
		s.Secure = p.node.Identity != "" && e.TakesMTLS()
		s.Plain = s.Secure && p.inPlain(e)
		s.Service, s.Port = cmp.Or(e.Forward, e.Service), cmp.Or(e.ForwardPort, e.Port.Number)
	}
	return s
}

// unreachable says which endpoints of other clusters cannot be reached.
func (p *probes) unreachable(r *mesh.Registry) map[mesh.EndpointKey]string {
	if p.remote == nil {
		return nil
	}
	out := map[mesh.EndpointKey]string{}
	for _, e := range r.All() {
		if e.Cluster != p.node.Cluster {
			if s := p.endpoints.State(p.subjectOf(e)); s.Failing != "" {
				out[e.Key()] = "cannot be reached: " + s.Failing
			}
		}
	}
	return out
}

// watch has looked at what a snapshot knows.
func (p *probes) watch(workloads []probedWorkload, suspects []health.Subject, r *mesh.Registry) {
	jobs := make([]health.Job, 0, len(workloads))
	for _, w := range workloads {
		jobs = append(jobs, w.Job)
	}
	p.workloads.Watch(jobs)
	jobs = jobs[:0]
	for _, s := range suspects {
		jobs = append(jobs, health.Job{Subject: s, Probe: suspectProbe})
	}
	if p.remote != nil {
		for _, e := range r.All() {
			if e.Cluster != p.node.Cluster {
				jobs = append(jobs, health.Job{Subject: p.subjectOf(e), Probe: p.remote})
			}
		}
	}
	p.endpoints.Watch(jobs)
}

// ProbeCounts are how many probes have succeeded and failed since the start.
type ProbeCounts struct {
	WorkloadsSucceeded, WorkloadsFailed uint64 // those of WorkloadGroups
	EndpointsSucceeded, EndpointsFailed uint64
}

// Probes returns how often was probed.
func (c *Controller) Probes() ProbeCounts {
	var n ProbeCounts
	n.WorkloadsSucceeded, n.WorkloadsFailed = c.probes.workloads.Counts()
	n.EndpointsSucceeded, n.EndpointsFailed = c.probes.endpoints.Counts()
	return n
}
