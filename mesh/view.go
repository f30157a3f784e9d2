package mesh

import (
	"net/netip"
	"slices"
	"strings"
)

// LocalDomain is the domain of the own cluster, whatever else Domains says.
const LocalDomain = "cluster.local"

// NormalizeHost brings a host name into the form in which names are compared:
// lower case, no trailing dot, no port.
func NormalizeHost(host string) string {
	host, _ = SplitHostPort(host)
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// AddressHost is an address as requests name it for their host: of IPv6 in brackets.
func AddressHost(a netip.Addr) string {
	if a = a.Unmap(); a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// SplitHostPort splits "host:port"; port is "" where there is none. IPv6
// addresses keep their brackets.
func SplitHostPort(hostport string) (host, port string) {
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 || strings.HasSuffix(hostport, "]") {
		return hostport, ""
	}
	return hostport[:i], hostport[i+1:]
}

// ServiceOf returns the "name.namespace" that a full host name of the shapes
// NAME.NAMESPACE.svc.DOMAIN, NAME.NAMESPACE.svc and NAME.NAMESPACE.global
// belongs to, and its suffix: DOMAIN, "svc" or "global". Whether there is such a
// service, and what DOMAIN means, is another question: see [Registry.View].
func ServiceOf(host string) (service, suffix string, ok bool) {
	name, rest, _ := strings.Cut(host, ".")
	namespace, rest, _ := strings.Cut(rest, ".")
	if name == "" || namespace == "" || name == "*" {
		return "", "", false
	}
	switch domain, isService := strings.CutPrefix(rest, "svc."); {
	case rest == "global" || rest == "svc":
		return name + "." + namespace, rest, true
	case isService && domain != "":
		return name + "." + namespace, domain, true
	}
	return "", "", false
}

// namedService is ServiceOf that takes NAME.NAMESPACE for a service's name, too.
func namedService(host string) (service string, ok bool) {
	if strings.Count(host, ".") == 1 && !strings.HasPrefix(host, "*") {
		return host, true
	}
	service, _, ok = ServiceOf(host)
	return service, ok
}

// fullName returns the full form of a host that is short for it, where it is the name of
// a service: NAME.NAMESPACE and NAME.NAMESPACE.svc; any other host as it is.
func fullName(host string) string {
	svc, ok := namedService(host)
	if ok && (svc == host || svc+".svc" == host) {
		return svc + ".svc." + LocalDomain
	}
	return host
}

// View is what a host name means, seen from a node: a service, wherever it runs
// or in one cluster only.
type View struct {
	// Host is the full form of the name: "reviews" and "reviews.prod" have
	// become "reviews.prod.svc.cluster.local".
	Host string

	// Service is "name.namespace", or "" if the name is only that of
	// ServiceEntries.
	Service string
	Pod     string // of Service, which alone the name is for, "web-0"; "": it is for all
	Cluster string // whose endpoints of Service count; "" for every cluster's

	External  bool       // Service is a name for what is outside the mesh (ExternalName)
	Entries   []*Service // ServiceEntries for Host, in order of their source
	Namespace string     // of the service
	Ports     []Port
}

// ServiceHost is the full name of the service: Host, without the Pod.
func (v *View) ServiceHost() string {
	if v.Pod == "" {
		return v.Host
	}
	return v.Host[len(v.Pod)+1:]
}

// Port finds the port that a destination means. number 0 stands for the port
// 80 where the service has one, else its only port, else its only HTTP port.
func (v *View) Port(number uint32) (Port, bool) {
	if number == 0 {
		return v.defaultPort()
	}
	i := slices.IndexFunc(v.Ports, func(p Port) bool { return p.Number == number })
	if i < 0 {
		return Port{}, false
	}
	return v.Ports[i], true
}

// RelayPort is Port for connections that are passed on as they come: where no
// number is named, the only port, else the only one of the protocols.
func (v *View) RelayPort(number uint32, protocols ...Protocol) (Port, bool) {
	if number != 0 || len(v.Ports) == 1 {
		return v.Port(number)
	}
	var found []Port
	for _, p := range v.Ports {
		if slices.Contains(protocols, p.Protocol) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return Port{}, false
	}
	return found[0], true
}

func (v *View) defaultPort() (Port, bool) {
	if len(v.Ports) == 1 {
		return v.Ports[0], true
	}
	var http []Port
	for _, p := range v.Ports {
		if p.Number == 80 {
			return p, true
		}
		if p.Protocol.IsHTTP() {
			http = append(http, p)
		}
	}
	if len(http) == 1 {
		return http[0], true
	}
	return Port{}, false
}

// View resolves a host name as this node sees it. Names without a port, in
// any case, with or without a trailing dot. The name of an unknown service, or
// of one that is not exported to the node's namespace, has no view.
func (r *Registry) View(host string) (*View, bool) {
	host = NormalizeHost(host)
	v := &View{Host: host, Entries: r.visibleEntries(host)}
	if svc, cluster, full, ok := r.serviceName(host); ok {
		if known := r.services[svc]; known != nil && known.visibleTo(r.node.Namespace) && r.scope.AdmitsService(svc) {
			v.Host, v.Service, v.Cluster, v.Namespace = full, svc, cluster, known.namespace
			v.Ports = known.ports
			v.External = known.declared != nil && known.declared.External
			if full != host {
				v.Entries = r.visibleEntries(full)
			}
		}
	}
	if v.Service == "" && len(v.Entries) == 0 {
		return r.podView(host)
	}
	for _, e := range v.Entries {
		if v.Namespace == "" {
			v.Namespace = e.Namespace
		}
		v.Ports = unitePorts(v.Ports, e.Ports)
	}
	return v, true
}

// serviceName takes a host name apart: the service, the cluster it is limited
// to ("" for none), and the full form of the name.
func (r *Registry) serviceName(host string) (service, cluster, full string, ok bool) {
	if svc, suffix, ok := ServiceOf(host); ok {
		switch suffix {
		case "global":
			return svc, "", host, true
		case "svc":
			return svc, r.node.Cluster, svc + ".svc." + LocalDomain, true
		}
		cluster, ok := r.domains[suffix]
		return svc, cluster, host, ok
	}
	switch strings.Count(host, ".") {
	case 0:
		host += "." + r.node.Namespace
	case 1:
	default:
		return "", "", "", false
	}
	return host, r.node.Cluster, host + ".svc." + LocalDomain, true
}

// MayBeHeard reports whether a host is a full name of a service that nobody knows, and that
// gossip may bring.
func (r *Registry) MayBeHeard(host string) bool {
	host = NormalizeHost(host)
	if _, _, full := ServiceOf(host); !full {
		return false
	}
	svc, _, _, ok := r.serviceName(host)
	return ok && r.services[svc] == nil && r.scope.AdmitsService(svc)
}

// Names returns every host name of a service "name.namespace" that this node
// knows, the bare name included where the service is in the node's namespace.
func (r *Registry) Names(service string) []string {
	names := []string{service, service + ".svc", service + ".global"}
	for _, d := range r.domainNames {
		names = append(names, service+".svc."+d)
	}
	if name, namespace, _ := strings.Cut(service, "."); namespace == r.node.Namespace {
		names = append(names, name)
	}
	return names
}

func unitePorts(a, b []Port) []Port {
	out := slices.Clone(a)
	for _, p := range b {
		if !slices.ContainsFunc(out, func(q Port) bool { return q.Number == p.Number }) {
			out = append(out, p)
		}
	}
	return out
}
