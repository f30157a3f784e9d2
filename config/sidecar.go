package config

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

func readSidecar(d *document) {
	var s networking.Sidecar
	if !d.decode(&s) {
		return
	}
	out := &mesh.Sidecar{Meta: d.meta(), Selector: s.WorkloadSelector.GetLabels()}
	if p := s.InboundConnectionPool; p != nil {
		out.Pool = d.connectionPool(p, "inboundConnectionPool")
	}
	for i, l := range s.Egress {
		if out.Egress == nil {
			out.Egress = []mesh.ScopePattern{}
		}
		if len(l.Hosts) == 0 {
			d.error(fmt.Sprintf("egress[%d].hosts", i), `is missing: write "*/*" for everything, "~/*" for nothing`)
		}
		for j, h := range l.Hosts {
			if p, ok := d.scopePattern(h, fmt.Sprintf("egress[%d].hosts[%d]", i, j)); ok {
				out.Egress = append(out.Egress, p)
			}
		}
	}
	for i, l := range s.Ingress {
		path := fmt.Sprintf("ingress[%d]", i)
		if l.Port == nil || !d.checkPort(l.Port.Number, path+".port.number") {
			if l.Port == nil {
				d.error(path+".port", "is missing")
			}
			continue
		}
		if l.Tls != nil {
			d.error(path+".tls", "is not supported: the inbound listener speaks mTLS with the proxy's own certificate; terminate other TLS at a Gateway")
		}
		if l.ConnectionPool == nil {
			d.find(Warning, ISM0003, path+".port", "has no effect yet without connectionPool: the inbound listener takes requests for every port of the services, whichever ingress names")
			continue
		}
		if out.PortPools == nil {
			out.PortPools = map[uint32]*mesh.ConnectionPool{}
		}
		out.PortPools[l.Port.Number] = d.connectionPool(l.ConnectionPool, path+".connectionPool")
	}
	d.reader.sidecars = append(d.reader.sidecars, located[*mesh.Sidecar]{out, d})
	d.reader.config.Sidecars = append(d.reader.config.Sidecars, out)
}

// scopePattern reads "namespace/host", with "~" before it if what is within is left out.
func (d *document) scopePattern(text, path string) (p mesh.ScopePattern, ok bool) {
	namespace, host, ok := strings.Cut(text, "/")
	if !ok || strings.Contains(host, "/") {
		d.error(path, fmt.Sprintf(`%q: write NAMESPACE/HOST, "./*" for all of this namespace, "*/HOST" for any`, text))
		return p, false
	}
	namespace, without := strings.CutPrefix(namespace, "~")
	if without && namespace == "" {
		namespace = "*"
	}
	if namespace != "*" && namespace != "." && !validLabel(namespace) {
		d.error(path, fmt.Sprintf(`%q is neither a namespace nor ".", "*" or "~"`, namespace))
		return p, false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !d.checkHost(host, path, true) {
		return p, false
	}
	if without {
		namespace = "~" + namespace
	}
	return mesh.ScopePattern{Namespace: namespace, Host: host}, true
}

// namespacesOf are those that a resource with these hosts has to do with.
func namespacesOf(own string, hosts []string) []string {
	out := []string{own}
	for _, h := range hosts {
		if svc, _, ok := mesh.ServiceOf(h); ok {
			if _, n, _ := strings.Cut(svc, "."); !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

// lintSameSidecars names Sidecars that another one for the same workloads beats.
func (c *checker) lintSameSidecars() {
	type level struct{ namespace, selector string }
	first := map[level]*mesh.Sidecar{}
	for _, l := range c.sidecars {
		k := level{l.value.Namespace, fmt.Sprint(l.value.Selector)}
		if o := first[k]; o == nil {
			first[k] = l.value
		} else {
			l.doc.find(Warning, ISM0017, "workloadSelector", fmt.Sprintf("%s in %s is for the same workloads and wins, being first by file and line; this one has no effect", o.Name, o.Source))
		}
	}
}

// lintSidecars names hosts of egress that nothing is within. Many Sidecars name the
// same, or what is of one namespace.
func (c *checker) lintSidecars(node *mesh.Node) {
	if len(c.sidecars) == 0 {
		return
	}
	c.lintSameSidecars()
	// By namespace, and that of services whose names they bear; "*": all.
	services, routes := map[string][]*mesh.Service{}, map[string][]*mesh.VirtualService{}
	for _, s := range c.config.Services {
		for _, n := range namespacesOf(s.Namespace, s.Hosts) {
			services[n] = append(services[n], s)
		}
	}
	for _, v := range c.config.VirtualServices {
		for _, n := range namespacesOf(v.Namespace, v.Hosts) {
			routes[n] = append(routes[n], v)
		}
	}
	services["*"], routes["*"] = c.config.Services, c.config.VirtualServices
	known := map[mesh.ScopePattern]bool{}
	within := func(p mesh.ScopePattern) bool {
		alone := mesh.NewScope(p)
		return slices.ContainsFunc(services[p.Namespace], func(s *mesh.Service) bool {
			return !s.IsEntry() && alone.AdmitsService(s.Key()) || slices.ContainsFunc(s.Hosts, func(h string) bool { return alone.AdmitsHost(s.Namespace, h) })
		}) || slices.ContainsFunc(routes[p.Namespace], func(v *mesh.VirtualService) bool {
			return slices.ContainsFunc(v.Hosts, func(h string) bool { return alone.AdmitsHost(v.Namespace, h) })
		})
	}
	for _, l := range c.sidecars {
		for _, p := range l.value.Egress {
			without := strings.HasPrefix(p.Namespace, "~")
			if p.Namespace = strings.TrimPrefix(p.Namespace, "~"); p.Namespace == "." && l.value.Namespace != node.RootNamespace {
				p.Namespace = l.value.Namespace
			}
			if p.Namespace == "." || p.Host == "*" {
				continue
			}
			is, asked := known[p]
			if !asked {
				is = within(p)
				known[p] = is
			}
			if !is {
				effect := "lets nothing in"
				if without {
					effect = "leaves nothing out"
				}
				l.doc.find(Warning, ISM0065, "egress", fmt.Sprintf("%s/%s: no file has a service or a route of that name in that namespace, so it %s", p.Namespace, p.Host, effect))
			}
		}
	}
}
