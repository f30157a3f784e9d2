package mesh

import (
	"cmp"
	"slices"
	"strings"
)

// Rules finds the DestinationRules that apply to a destination as one node
// sees them. It is immutable.
//
// Rules for one service are found under every name of the service, and what
// several of them say is put together block by block; Istio would take one
// rule whole and drop the others.
type Rules struct {
	node      *Node
	byHost    map[string][]*DestinationRule // exact hosts, and the full names of services that they are short for
	byService map[string][]*DestinationRule // the same, by "name.namespace"
	wildcards []*DestinationRule
	defaults  []*DestinationRule // behind all others
}

// NewRules takes the rules that the node may use.
func NewRules(n *Node, rules []*DestinationRule) *Rules {
	r := &Rules{
		node:      n,
		byHost:    map[string][]*DestinationRule{},
		byService: map[string][]*DestinationRule{},
	}
	for _, d := range rules {
		if !VisibleTo(d.ExportTo, d.Namespace, n.Namespace) {
			continue
		}
		if d.WorkloadSelector != nil && (d.Namespace != n.Namespace || !MatchLabels(d.WorkloadSelector, n.Labels)) {
			continue
		}
		if d.Default {
			r.defaults = append(r.defaults, d)
			continue
		}
		if strings.HasPrefix(d.Host, "*") {
			r.wildcards = append(r.wildcards, d)
			continue
		}
		r.byHost[d.Host] = append(r.byHost[d.Host], d)
		if full := fullName(d.Host); full != d.Host {
			r.byHost[full] = append(r.byHost[full], d)
		}
		if svc, ok := namedService(d.Host); ok {
			r.byService[svc] = append(r.byService[svc], d)
		}
	}
	return r
}

// Policy is what applies to one destination: host, port and subset.
type Policy struct {
	LoadBalancer     *LoadBalancer
	ConnectionPool   *ConnectionPool
	OutlierDetection *OutlierDetection
	TLS              *ClientTLS
	RetryBudget      *RetryBudget
	Adaptive         *Source // of the DestinationRule that asks for it, see there; nil: none does

	// Subset is the definition of the subset asked for; nil if there is none.
	Subset *Subset
}

// Find returns the policy for a destination. host is full and in lower case;
// namespace is that of the service, "" where unknown. A subset is looked up
// under the same names as the blocks: the first rule that defines it counts.
// What rules of one rank say of the subset lies over what any of them says of
// the whole, as with Istio, which makes one rule of them.
func (r *Rules) Find(host, namespace string, port uint32, subset string) Policy {
	var p Policy
	for rest := r.Candidates(host, namespace); len(rest) > 0; {
		n := 1
		for n < len(rest) && r.equals(rest[0], rest[n], namespace) {
			n++
		}
		alone := make([]bool, n) // the subset's entry for the port stands in the place of its rule's blocks
		for i, d := range rest[:n] {
			if s := d.subset(subset); s != nil {
				p.Subset = cmp.Or(p.Subset, s)
				p.fill(s.Policy.forPort(port))
				alone[i] = s.Policy.PortLevel[port] != nil
			}
		}
		for i, d := range rest[:n] {
			if !alone[i] {
				p.fill(d.Policy.forPort(port))
			}
			if d.Adaptive {
				p.Adaptive = cmp.Or(p.Adaptive, &d.Source)
			}
		}
		rest = rest[n:]
	}
	return p
}

// fill takes the blocks that are missing.
func (p *Policy) fill(by *TrafficPolicy) {
	p.LoadBalancer = cmp.Or(p.LoadBalancer, by.LoadBalancer)
	p.ConnectionPool = cmp.Or(p.ConnectionPool, by.ConnectionPool)
	p.OutlierDetection = cmp.Or(p.OutlierDetection, by.OutlierDetection)
	p.TLS = cmp.Or(p.TLS, by.TLS)
	p.RetryBudget = cmp.Or(p.RetryBudget, by.RetryBudget)
}

// subset returns the definition of a subset; nil: there is none.
func (d *DestinationRule) subset(name string) *Subset {
	if i := slices.IndexFunc(d.Subsets, func(s Subset) bool { return s.Name == name }); i >= 0 && name != "" {
		return &d.Subsets[i]
	}
	return nil
}

// equals reports whether of two candidates for a service of a namespace the one that comes
// first does so by its place in the files alone.
func (r *Rules) equals(a, b *DestinationRule, namespace string) bool {
	return a.Default == b.Default && fullName(a.Host) == fullName(b.Host) && r.tier(a, namespace) == r.tier(b, namespace) && forAll(a) == forAll(b)
}

// FindInbound returns the connection pool that holds between the node and its
// own application, for a port of a service and the port that the application
// listens on: a Sidecar's for that port, the Sidecar's own, or that of a
// DestinationRule which says that it is meant for the inbound side too. Nil:
// no limits.
//
// Istio takes any DestinationRule of the service. Its limits are made for one
// client among many, so that the server would be throttled to what one of them
// may do.
func (r *Rules) FindInbound(sidecars []*Sidecar, host, namespace string, port, target uint32) *ConnectionPool {
	if s := ownSidecar(r.node, sidecars); s != nil {
		if p := s.PortPools[target]; p != nil {
			return p
		}
		if s.Pool != nil {
			return s.Pool
		}
	}
	for _, d := range r.Candidates(host, namespace) {
		if p := d.Policy.forPort(port).ConnectionPool; d.Inbound && p != nil {
			return p
		}
	}
	return nil
}

// AdaptiveInbound returns where a DestinationRule of the service that is meant for
// the inbound side too bounds the application's requests by how long they take; nil:
// none does.
func (r *Rules) AdaptiveInbound(host, namespace string) *Source {
	for _, d := range r.Candidates(host, namespace) {
		if d.Inbound && d.Adaptive {
			return &d.Source
		}
	}
	return nil
}

// ownSidecar returns the Sidecar that holds for a node: one of its namespace
// that selects it, one of its namespace for everybody, or that of the root
// namespace; the first by source (Istio: sidecar.go).
func ownSidecar(n *Node, sidecars []*Sidecar) *Sidecar {
	var best *Sidecar
	rank := 3
	for _, s := range sidecars {
		at := 3
		switch {
		case s.Namespace == n.Namespace && len(s.Selector) > 0:
			if MatchLabels(s.Selector, n.Labels) {
				at = 0
			}
		case s.Namespace == n.Namespace:
			at = 1
		case s.Namespace == n.RootNamespace && len(s.Selector) == 0:
			at = 2
		}
		if at < rank || at == rank && best != nil && s.Source.Before(best.Source) {
			best, rank = s, at
		}
	}
	return best
}

// forPort returns the blocks for a port: a port-level entry replaces all of
// them, with defaults for what it leaves out (Istio: MergeSubsetTrafficPolicy).
func (t *TrafficPolicy) forPort(port uint32) *TrafficPolicy {
	return cmp.Or(t.PortLevel[port], t)
}

// Candidates returns the rules that say something about a host, the one that
// wins first: rules for the host itself, for the service's .global name, for
// its other names, then wildcards that the host lies under, the longest first;
// among equals by namespace (the node's, the service's, the root's, others), those
// for this workload before those for all, then by source. What the mesh configuration has
// for every host comes last.
func (r *Rules) Candidates(host, namespace string) []*DestinationRule {
	var out []*DestinationRule
	add := func(rules []*DestinationRule) {
		rules = slices.Clone(rules)
		slices.SortStableFunc(rules, func(a, b *DestinationRule) int {
			return cmp.Or(
				cmp.Compare(r.tier(a, namespace), r.tier(b, namespace)),
				cmp.Compare(forAll(a), forAll(b)),
				compareSource(a.Source, b.Source),
			)
		})
		out = append(out, rules...)
	}
	svc, suffix, ok := ServiceOf(host)
	if suffix == "svc" {
		host = fullName(host)
	}
	add(r.byHost[host])
	if ok {
		global := svc + ".global"
		if host != global {
			add(r.byHost[global])
		}
		var others []string
		for _, d := range r.byService[svc] {
			if name := fullName(d.Host); name != host && name != global {
				others = append(others, name)
			}
		}
		// cluster.local first, since it is the name that rules are usually
		// written for; then by name, so that the order is the same everywhere.
		slices.SortFunc(others, func(a, b string) int {
			return cmp.Or(cmp.Compare(notLocal(a), notLocal(b)), cmp.Compare(a, b))
		})
		for _, o := range slices.Compact(others) {
			add(r.byHost[o])
		}
	}
	byLength := map[int][]*DestinationRule{}
	var lengths []int
	for _, d := range r.wildcards {
		if MatchHost(d.Host, host) {
			if byLength[len(d.Host)] == nil {
				lengths = append(lengths, len(d.Host))
			}
			byLength[len(d.Host)] = append(byLength[len(d.Host)], d)
		}
	}
	slices.Sort(lengths)
	for _, n := range slices.Backward(lengths) {
		add(byLength[n])
	}
	return append(out, r.defaults...)
}

func (r *Rules) tier(d *DestinationRule, serviceNamespace string) int {
	switch d.Namespace {
	case r.node.Namespace:
		return 0
	case serviceNamespace:
		return 1
	case r.node.RootNamespace:
		return 2
	}
	return 3
}

// forAll is 0 for a rule that selects its workloads (Istio: SidecarScope).
func forAll(d *DestinationRule) int {
	if d.WorkloadSelector == nil {
		return 1
	}
	return 0
}

func notLocal(host string) int {
	if strings.HasSuffix(host, "."+LocalDomain) {
		return 0
	}
	return 1
}

func compareSource(a, b Source) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
}

// MatchHost reports whether host equals pattern or, if pattern is "*" or
// "*.suffix", lies under it. "*.example.com" does not match "example.com".
func MatchHost(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return pattern == host
}
