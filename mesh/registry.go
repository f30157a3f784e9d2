package mesh

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Registry knows every service and every endpoint at one moment, as one node
// sees them. It is immutable.
type Registry struct {
	node        *Node
	scope       *Scope
	domains     map[string]string // domain -> cluster
	domainNames []string          // sorted
	services    map[string]*knownService
	entries     map[string][]*Service // ServiceEntries that the node may use, by host
	wildcards   []string              // "*.suffix" hosts of entries, the longest first
	endpoints   []*Endpoint           // sorted by service, port, cluster, address
	byService   map[string][]*Endpoint
	pods        map[string]map[string][]*Endpoint // by service and Pod, as byService; see [Endpoint.Pod]
	unresolved  []string                          // host names that DNS must answer for

	standing map[netip.Addr]string // see Known.Unasked
}

// knownService is what files and gossip together say of one "name.namespace".
type knownService struct {
	declared  *Service // nil: only gossip knows it
	namespace string
	ports     []Port
}

func (k *knownService) visibleTo(namespace string) bool {
	return k.declared == nil || VisibleTo(k.declared.ExportTo, k.declared.Namespace, namespace)
}

// Known is what a [Registry] is made of.
type Known struct {
	Node      *Node
	Config    *Config
	Announced []Endpoint              // by gossip, this proxy's own included
	Addresses map[string][]netip.Addr // DNS: the last good answer for each name
	Unasked   bool                    // DNS is not asked: an address stands for each name, see [Registry.StandsFor]
	Probed    map[*Workload]Health    // of the configuration's workloads, those that are probed
	Previous  *Registry               // whose endpoints keep their age; may be nil
	Beside    *Registry               // that of another configuration, whose endpoints are shared; may be nil

	// Unreachable says of endpoints why this proxy's own probes cannot reach them.
	Unreachable map[EndpointKey]string

	Now time.Time
}

// NewRegistry unites files, gossip and DNS.
func NewRegistry(k Known) *Registry {
	if k.Config.Scope != nil {
		// What gossip brings beyond it is not even kept.
		k.Announced = slices.DeleteFunc(slices.Clone(k.Announced), func(e Endpoint) bool { return !k.Config.Scope.AdmitsService(e.Service) })
	}
	r := &Registry{
		node:      k.Node,
		scope:     k.Config.Scope,
		domains:   map[string]string{LocalDomain: k.Node.Cluster},
		services:  map[string]*knownService{},
		entries:   map[string][]*Service{},
		byService: map[string][]*Endpoint{},
	}
	for d, c := range k.Node.Domains {
		r.domains[d] = c
	}
	for d := range r.domains {
		r.domainNames = append(r.domainNames, d)
	}
	slices.Sort(r.domainNames)

	r.addServices(k)
	b := endpointBuilder{Registry: r, known: k, seen: map[EndpointKey]int{}}
	b.build()
	return r
}

func (r *Registry) addServices(k Known) {
	for _, s := range k.Config.Services {
		if !s.IsEntry() {
			if r.services[s.Key()] == nil {
				r.services[s.Key()] = &knownService{declared: s, namespace: s.Namespace, ports: s.Ports}
			}
			continue
		}
		if !r.sees(s) {
			continue
		}
		for _, h := range s.Hosts {
			if r.entries[h] == nil && strings.HasPrefix(h, "*.") {
				r.wildcards = append(r.wildcards, h)
			}
			r.entries[h] = append(r.entries[h], s)
		}
	}
	for _, list := range r.entries {
		slices.SortStableFunc(list, func(a, b *Service) int {
			if a.Source.Before(b.Source) {
				return -1
			}
			return 1
		})
	}
	slices.SortFunc(r.wildcards, func(a, b string) int { return len(b) - len(a) })

	for i := range k.Announced {
		e := &k.Announced[i]
		s := r.services[e.Service]
		if s == nil {
			_, namespace, ok := strings.Cut(e.Service, ".")
			if !ok {
				continue
			}
			s = &knownService{namespace: namespace}
			r.services[e.Service] = s
		}
		if s.declared == nil {
			s.ports = unitePorts(s.ports, []Port{e.Port})
		}
	}
}

// sees reports whether a service is exported to the node.
func (r *Registry) sees(s *Service) bool { return VisibleTo(s.ExportTo, s.Namespace, r.node.Namespace) }

// visibleEntries returns the ServiceEntries for a host that the node may use:
// those for the very name, else those for the longest wildcard it lies under.
func (r *Registry) visibleEntries(host string) []*Service {
	if list := r.entries[host]; list != nil {
		return list
	}
	for _, w := range r.wildcards {
		if strings.HasSuffix(host, w[1:]) {
			return r.entries[w]
		}
	}
	return nil
}

// Services returns the keys "name.namespace" of every service known, sorted.
func (r *Registry) Services() []string {
	keys := make([]string, 0, len(r.services))
	for k := range r.services {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// EntryHosts returns the hosts of all ServiceEntries that the node may use,
// wildcards included, sorted.
func (r *Registry) EntryHosts() []string {
	hosts := make([]string, 0, len(r.entries))
	for h := range r.entries {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	return hosts
}

// Endpoints returns the endpoints of a view on one port of the service.
func (r *Registry) Endpoints(v *View, port uint32) []*Endpoint {
	var out []*Endpoint
	taken := map[netip.AddrPort]bool{}
	take := func(e *Endpoint) {
		if e.Port.Number == port && !taken[e.Address] {
			taken[e.Address] = true
			out = append(out, e)
		}
	}
	if v.Service != "" {
		list := r.byService[v.Service]
		if v.Pod != "" {
			list = r.pods[v.Service][v.Pod]
		}
		for _, e := range list {
			if v.Cluster == "" || v.Cluster == e.Cluster {
				take(e)
			}
		}
	}
	for _, entry := range v.Entries {
		for _, h := range entry.Hosts {
			if h == v.Host || strings.HasPrefix(h, "*.") && strings.HasSuffix(v.Host, h[1:]) {
				for _, e := range r.byService[h] {
					take(e)
				}
				break
			}
		}
	}
	return out
}

// All returns every endpoint, sorted by service, port, cluster and address.
// The slice must not be changed.
func (r *Registry) All() []*Endpoint { return r.endpoints }

// StandsFor returns the name that DNS would be asked for an address that nobody
// has: it stands for those that DNS gives, where that is not asked.
func (r *Registry) StandsFor(a netip.Addr) (name string, ok bool) {
	name, ok = r.standing[a]
	return name, ok
}

// Unresolved returns the host names of endpoints that are no names of the
// mesh's services, so that DNS must answer for them; sorted, without doubles.
func (r *Registry) Unresolved() []string { return r.unresolved }

// OwnServices returns the Services whose sidecar the node is: those of its
// namespace whose selector its labels match, in order of their source.
func OwnServices(n *Node, c *Config) []*Service {
	var out []*Service
	for _, s := range c.Services {
		if !s.IsEntry() && s.Namespace == n.Namespace && len(s.Selector) > 0 && MatchLabels(s.Selector, n.Labels) {
			out = append(out, s)
		}
	}
	return out
}
