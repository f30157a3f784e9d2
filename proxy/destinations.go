package proxy

import (
	"slices"

	"isthmus/mesh"
)

// compileDestinations returns what of a route's destinations may get traffic,
// and the sum of their weights.
func (c *compiler) compileDestinations(vs *mesh.VirtualService, list []mesh.RouteDestination, target func(mesh.Destination) *target) (out []destination, total uint32) {
	for i := range list {
		d := &list[i]
		weight := d.Weight
		if len(list) == 1 {
			weight = 1 // Istio: the weight of a single destination is ignored
		}
		out = append(out, destination{
			target:  target(c.forPod(d.Destination, weight)),
			weight:  weight,
			headers: newHeaderRules(&d.Headers),
			rule:    d.Destination,
		})
		total += weight
	}
	// A weight of 0 on the same service in another cluster is a standby; other
	// zeros mean "off", unless the annotation decides.
	all := slices.Clone(out)
	kept := out[:0]
	for _, d := range all {
		if d.weight == 0 {
			d.standby = isStandby(vs, d, all)
			if !d.standby {
				continue
			}
		}
		kept = append(kept, d)
	}
	return kept, total
}

// forPod returns where a destination of weight leads whoever has asked for one Pod: to that
// one, if it is the service's; a standby in another cluster is the Pod of that name there.
func (c *compiler) forPod(d mesh.Destination, weight uint32) mesh.Destination {
	if c.view == nil || c.view.Pod == "" {
		return d
	}
	if v, ok := c.reg.View(d.Host); ok && v.Service == c.view.Service && v.Pod == "" {
		if d.Host = c.view.Host; weight == 0 {
			d.Host = c.view.Pod + "." + v.Host
		}
	}
	return d
}

func isStandby(vs *mesh.VirtualService, d destination, all []destination) bool {
	if vs.Standby != nil {
		return *vs.Standby
	}
	service, _, ok := mesh.ServiceOf(d.rule.Host)
	if !ok {
		return false
	}
	return slices.ContainsFunc(all, func(o destination) bool {
		other, _, ok := mesh.ServiceOf(o.rule.Host)
		return ok && o.weight > 0 && other == service && o.rule.Host != d.rule.Host
	})
}
