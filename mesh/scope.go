package mesh

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Scope is what a Sidecar's egress lets the proxies know that it is for: all that
// it does not name is left out of what they compile. A nil Scope lets everything
// through.
type Scope struct {
	Patterns []ScopePattern
	Excluded []ScopePattern // what is within them is not let through
	Source   Source
	Sidecar  string // "Sidecar production/default"

	node     *Node
	inferred map[string]bool // services and hosts that routes within the scope send to
	entries  map[string]bool // hosts of ServiceEntries, with a wildcard's too
}

// ScopePattern is one of egress.hosts: "namespace/host". Namespace is "*" for any, "." for
// that of the proxy, which is the Sidecar's own unless that is in the root namespace. With "~" before it, what is within is left
// out, whatever else lets it in; "~" alone is "~*". Host is exact, "*.suffix" or "*";
// a name without a dot is a service of the namespace.
type ScopePattern struct{ Namespace, Host string }

// match reports whether a name of a resource of a namespace is within the pattern.
func (p ScopePattern) match(namespace, host string) bool {
	return (p.Namespace == "*" || p.Namespace == namespace) && MatchHost(p.Host, host)
}

// NewScope makes one of patterns alone.
func NewScope(patterns ...ScopePattern) *Scope { return &Scope{Patterns: patterns, node: &Node{}} }

// AdmitsService reports whether a service "name.namespace" is within the scope: by
// any of its names.
func (s *Scope) AdmitsService(service string) bool {
	return s == nil || s.inferred[service] || s.names(s.Patterns, service) && !s.names(s.Excluded, service)
}

// names reports whether a service is within one of the patterns.
func (s *Scope) names(patterns []ScopePattern, service string) bool {
	name, namespace, _ := strings.Cut(service, ".")
	return slices.ContainsFunc(patterns, func(p ScopePattern) bool {
		switch {
		case p.Namespace != "*" && p.Namespace != namespace:
			return false
		case p.Host == "*" || p.Host == name || p.Host == service:
			return true
		}
		for _, suffix := range []string{".svc." + LocalDomain, ".global", ".svc"} {
			if MatchHost(p.Host, service+suffix) {
				return true
			}
		}
		for domain := range s.node.Domains {
			if MatchHost(p.Host, service+".svc."+domain) {
				return true
			}
		}
		return false
	})
}

// AdmitsHost reports whether a host of a resource of a namespace is within the
// scope, by itself or as the name of a service that is.
func (s *Scope) AdmitsHost(namespace, host string) bool {
	if s == nil || s.inferred[host] {
		return true
	}
	within := func(p ScopePattern) bool { return p.match(namespace, host) }
	if slices.ContainsFunc(s.Excluded, within) {
		return false
	}
	if svc, ok := s.serviceOf(host); ok && s.AdmitsService(svc) {
		return true
	} else if ok && s.names(s.Excluded, svc) {
		return false
	}
	return slices.ContainsFunc(s.Patterns, within)
}

// serviceOf returns the service that a host is a name of, or of one of its Pods. "github.com"
// is none of github's in the namespace com, if a ServiceEntry bears it.
func (s *Scope) serviceOf(host string) (service string, ok bool) {
	service, ok = namedService(host)
	if !ok && !s.isEntry(host) {
		_, host, _ = strings.Cut(host, ".")
		service, ok = namedService(host)
	}
	if service == host && s.isEntry(host) {
		return "", false
	}
	return service, ok
}

// isEntry reports whether a host of two parts is that of a ServiceEntry.
func (s *Scope) isEntry(host string) bool {
	_, domain, _ := strings.Cut(host, ".")
	return s.entries[host] || s.entries["*."+domain]
}

// ScopeOf returns the scope of a node; nil if it is to know everything: no Sidecar
// is for it that has an egress, or it is a gateway, whose routes others write.
func ScopeOf(n *Node, c *Config) *Scope {
	s := ownSidecar(n, c.Sidecars)
	if s == nil || s.Egress == nil || n.Through || slices.ContainsFunc(c.Gateways, func(g *Gateway) bool { return MatchLabels(g.Selector, n.Labels) }) {
		return nil
	}
	out := &Scope{Source: s.Source, Sidecar: s.Meta.String(), node: n, inferred: map[string]bool{}, entries: map[string]bool{}}
	for _, v := range c.Services {
		for _, h := range v.Hosts {
			out.entries[h] = true
		}
	}
	for _, p := range s.Egress {
		list := &out.Patterns
		if from, ok := strings.CutPrefix(p.Namespace, "~"); ok {
			list, p.Namespace = &out.Excluded, cmp.Or(from, "*")
		}
		if p.Namespace == "." {
			p.Namespace = n.Namespace
		}
		*list = append(*list, p)
	}
	for _, own := range OwnServices(n, c) {
		out.inferred[own.Key()] = true
	}
	// Where routes within the scope lead to has to be known as well (Istio infers
	// it, too).
	for _, vs := range c.VirtualServices {
		if !out.admitsRoutes(vs) {
			continue
		}
		for _, r := range vs.HTTP {
			for i := range r.Route {
				out.infer(r.Route[i].Host)
			}
			for i := range r.Mirrors {
				out.infer(r.Mirrors[i].Host)
			}
		}
		for _, list := range [][]*TCPRoute{vs.TLS, vs.TCP} {
			for _, r := range list {
				for i := range r.Route {
					out.infer(r.Route[i].Host)
				}
			}
		}
	}
	// What the proxy itself asks, and tells: authorization and rate limit services,
	// issuers of tokens, collectors of traces, and what the bootstrap file names.
	for _, host := range n.Asks {
		out.infer(host)
	}
	for _, r := range TokenRulesOf(n, c.RequestAuthentications) {
		if u, err := url.Parse(cmp.Or(r.KeysURI, r.Issuer)); err == nil && len(r.Keys) == 0 {
			out.infer(u.Hostname())
		}
	}
	for _, p := range c.AuthorizationProviders {
		host := p.Service
		if _, after, ok := strings.Cut(host, "/"); ok {
			host = after
		}
		out.infer(host)
	}
	for _, f := range c.RateLimitFilters {
		if f.Global != nil && f.AppliesTo(n) {
			out.infer(clusterHost(f.Global.Cluster))
		}
	}
	for _, h := range c.HelperClusters {
		if h.AppliesTo(n) {
			for _, a := range h.Addresses {
				out.infer(clusterHost(a))
			}
		}
	}
	for _, to := range c.Collectors {
		out.infer(to.Host)
	}
	for _, to := range c.Tracing.Collectors {
		out.infer(to.Host)
	}
	out.inferEndpoints(c.Services)
	return out
}

// inferEndpoints admits the services that endpoints of those within the scope are names
// of: for ServiceEntries and ExternalNames, which may lead to one another.
func (s *Scope) inferEndpoints(services []*Service) {
	var named []*Service
	for _, v := range services {
		if slices.ContainsFunc(v.Endpoints, func(w *Workload) bool { _, err := netip.ParseAddr(w.Address); return err != nil }) {
			named = append(named, v)
		}
	}
	for range maxAliases {
		before := len(named)
		named = slices.DeleteFunc(named, func(v *Service) bool {
			if !s.admits(v) {
				return false
			}
			for _, w := range v.Endpoints {
				s.infer(NormalizeHost(w.Address))
			}
			return true
		})
		if len(named) == before {
			return
		}
	}
}

// admits reports whether a Service, or a ServiceEntry by one of its hosts, is within the
// scope.
func (s *Scope) admits(v *Service) bool {
	if !v.IsEntry() {
		return s.AdmitsService(v.Key())
	}
	return slices.ContainsFunc(v.Hosts, func(h string) bool { return s.AdmitsHost(v.Namespace, h) })
}

// clusterHost is the host of a cluster as Envoy names it, "outbound|80||HOST", of
// HOST:PORT, or of a host alone.
func clusterHost(cluster string) string {
	if i := strings.LastIndexByte(cluster, '|'); i >= 0 {
		return cluster[i+1:]
	}
	if host, _, err := net.SplitHostPort(cluster); err == nil {
		return host
	}
	return cluster
}

// infer admits a host by any of its names, a service of the node's namespace by the
// first part of it alone; and the service whose Pod it may be.
func (s *Scope) infer(host string) {
	s.inferred[host] = true
	switch _, of, _ := strings.Cut(host, "."); {
	case of == "":
		s.inferred[host+"."+s.node.Namespace] = true
	case !strings.Contains(of, ".") && !s.isEntry(host):
		s.inferred[of+"."+s.node.Namespace] = true
	}
	if svc, ok := s.serviceOf(host); ok {
		s.inferred[svc] = true
	}
}

// admitsRoutes reports whether the routes of a VirtualService are within the
// scope. Of one without hosts others decide.
func (s *Scope) admitsRoutes(vs *VirtualService) bool {
	return len(vs.Hosts) == 0 || slices.ContainsFunc(vs.Hosts, func(h string) bool {
		return s.AdmitsHost(vs.Namespace, h) || strings.HasPrefix(h, "*")
	})
}

// Within returns what of a configuration is within a scope; all of it if that is
// nil.
func (c *Config) Within(s *Scope) *Config {
	if s == nil {
		return c
	}
	out := *c
	out.Scope = s
	namespaces := map[string]bool{s.node.Namespace: true, s.node.RootNamespace: true}
	selected := map[[3]string]bool{} // a pair that a service of a namespace asks for
	hosts, wildcards := map[string]bool{}, []string{}
	out.Services = filter(c.Services, func(v *Service) bool {
		admitted := s.admits(v)
		if admitted {
			namespaces[v.Namespace] = true
			for _, h := range v.Hosts {
				if hosts[h] = true; strings.HasPrefix(h, "*") {
					wildcards = append(wildcards, h)
				}
			}
			for k, value := range v.Selector {
				selected[[3]string{v.Namespace, k, value}] = true
			}
		}
		return admitted
	})
	out.Workloads = filter(c.Workloads, func(w *Workload) bool {
		if w.Service != "" {
			return s.AdmitsService(w.Service)
		}
		if w.Namespace == s.node.Namespace && w.Address == s.node.Address {
			return true
		}
		for k, v := range w.Labels {
			if selected[[3]string{w.Namespace, k, v}] {
				return true
			}
		}
		return false
	})
	out.VirtualServices = filter(c.VirtualServices, s.admitsRoutes)
	// Rules are for what is admitted, whosever they are: patterns name the namespaces of
	// services and routes.
	out.DestinationRules = filter(c.DestinationRules, func(d *DestinationRule) bool {
		return strings.HasPrefix(d.Host, "*") || hosts[d.Host] || s.AdmitsHost(d.Namespace, d.Host) ||
			slices.ContainsFunc(wildcards, func(w string) bool { return MatchHost(w, d.Host) })
	})
	out.AuthorizationPolicies = filter(c.AuthorizationPolicies, func(p *AuthorizationPolicy) bool { return namespaces[p.Namespace] })
	out.RequestAuthentications = filter(c.RequestAuthentications, func(r *RequestAuthentication) bool { return namespaces[r.Namespace] })
	out.PeerAuthentications = filter(c.PeerAuthentications, func(p *PeerAuthentication) bool { return namespaces[p.Namespace] })
	out.WorkloadGroups = filter(c.WorkloadGroups, func(g *WorkloadGroup) bool { return namespaces[g.Namespace] })
	out.Gateways = nil // it is none's proxy
	return compact(&out)
}

// filter copies what is kept, so that the rest can be forgotten.
func filter[T any](list []*T, keep func(*T) bool) []*T {
	var out []*T
	for _, v := range list {
		if keep(v) {
			out = append(out, v)
		}
	}
	return slices.Clip(out)
}
