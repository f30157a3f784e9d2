package mesh

import "cmp"

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
