package proxy

import (
	"cmp"
	"slices"
	"strings"

	"isthmus/mesh"
)

// boundServices are the VirtualServices that hold on one gateway, or on the
// mesh, by their hosts.
type boundServices struct {
	byHost map[string][]*mesh.VirtualService // in order of their source; on the mesh by the hosts' full form
	hosts  []string                          // in the order they were met

	wildcards []string // those of hosts that begin with "*"
}

// isHTTP reports whether a VirtualService says anything of HTTP: one that does
// not takes no host from another that does.
func isHTTP(vs *mesh.VirtualService) bool { return len(vs.HTTP) > 0 || len(vs.TLS)+len(vs.TCP) == 0 }

// boundTo collects the VirtualServices of a kind that are bound to a gateway, as
// far as the node may use them.
func (c *compiler) boundTo(gateway string, ofKind func(*mesh.VirtualService) bool) *boundServices {
	b := &boundServices{byHost: map[string][]*mesh.VirtualService{}}
	for _, vs := range c.snapshot.Config.VirtualServices {
		if !ofKind(vs) {
			continue
		}
		if gateway == mesh.MeshGateway && !mesh.VisibleTo(vs.ExportTo, vs.Namespace, c.node.Namespace) {
			continue
		}
		if !bindsTo(vs, gateway) {
			continue
		}
		for _, h := range vs.Hosts {
			if gateway == mesh.MeshGateway {
				h = c.fullName(h)
			}
			if slices.Contains(b.byHost[h], vs) {
				continue // by another form of the name
			}
			if b.byHost[h] == nil {
				b.hosts = append(b.hosts, h)
				if strings.HasPrefix(h, "*") {
					b.wildcards = append(b.wildcards, h)
				}
			}
			b.byHost[h] = append(b.byHost[h], vs)
		}
	}
	for _, list := range b.byHost {
		slices.SortStableFunc(list, func(x, y *mesh.VirtualService) int {
			return cmp.Or(cmp.Compare(x.Source.File, y.Source.File), cmp.Compare(x.Source.Line, y.Source.Line))
		})
	}
	return b
}

// bindsTo reports whether a VirtualService names a gateway, for all of its
// rules or in one of their matches.
func bindsTo(vs *mesh.VirtualService, gateway string) bool {
	if slices.Contains(vs.Gateways, gateway) {
		return true
	}
	for _, r := range vs.HTTP {
		for _, m := range r.Match {
			if slices.Contains(m.Gateways, gateway) {
				return true
			}
		}
	}
	return false
}

// fullName returns the full form of a service's name, any other host as it is.
func (c *compiler) fullName(host string) string {
	if v, ok := c.reg.View(host); ok {
		return v.Host
	}
	return host
}

// find returns the VirtualServices for a host by its full name, or one by another
// name: those that name it, else those of the longest wildcard that one of the names
// lies under.
func (b *boundServices) find(full, name string) []*mesh.VirtualService {
	if list := b.byHost[full]; list != nil {
		return list
	}
	best := ""
	for _, h := range b.wildcards {
		if len(h) > len(best) && (mesh.MatchHost(h, full) || mesh.MatchHost(h, name)) {
			best = h
		}
	}
	return b.byHost[best]
}

// of returns the VirtualServices for a name of a view. Those of a service are for each of
// its Pods (Istio: generateVirtualHostDomains, of headless services), but where others
// name that Pod, or all of them by a wildcard.
func (b *boundServices) of(v *mesh.View, name string) []*mesh.VirtualService {
	if v.Pod == "" {
		return b.find(v.Host, name)
	}
	for _, h := range []string{v.Host, "*." + v.ServiceHost()} {
		if list := b.byHost[h]; list != nil {
			return list
		}
	}
	return b.find(v.ServiceHost(), strings.TrimPrefix(name, v.Pod+"."))
}
