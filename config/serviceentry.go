package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

func readServiceEntry(d *document) {
	var s networking.ServiceEntry
	if !d.decode(&s) {
		return
	}
	out := &mesh.Service{Meta: d.meta(), ExportTo: s.ExportTo, SubjectAltNames: s.SubjectAltNames, External: s.Location == networking.ServiceEntry_MESH_EXTERNAL}
	d.checkExportTo(s.ExportTo)
	if len(s.Hosts) == 0 {
		d.error("hosts", "is missing: name at least one host")
	}
	for i, h := range s.Hosts {
		if d.checkHost(h, fmt.Sprintf("hosts[%d]", i), false) {
			out.Hosts = append(out.Hosts, strings.ToLower(strings.TrimSuffix(h, ".")))
		}
	}
	out.Ports = d.entryPorts(s.Ports)
	out.Addresses = d.entryAddresses(s.Addresses, out.Ports)
	switch s.Resolution {
	case networking.ServiceEntry_STATIC:
	case networking.ServiceEntry_DNS:
		out.Resolution = mesh.ResolveDNS
	case networking.ServiceEntry_DNS_ROUND_ROBIN:
		out.Resolution = mesh.ResolveDNSRoundRobin
	case networking.ServiceEntry_NONE, networking.ServiceEntry_DYNAMIC_DNS:
		out.Resolution = mesh.ResolveDNS
		d.resolveByName(&s, out)
	default:
		d.error("resolution", s.Resolution.String()+" is not served: write DNS, or STATIC with endpoints")
		return
	}
	if s.WorkloadSelector != nil {
		out.Selector = s.WorkloadSelector.Labels
		switch {
		case len(s.Endpoints) > 0:
			d.error("workloadSelector", "cannot stand beside endpoints: only one of them")
		case out.External:
			d.warning("workloadSelector", "is meant for location: MESH_INTERNAL; as MESH_EXTERNAL, which is the default, no PeerAuthentication says that its workloads are spoken to by mTLS")
		case len(out.Selector) == 0:
			d.error("workloadSelector.labels", "is empty: name the labels of the workloads")
		}
	}
	for i, e := range s.Endpoints {
		path := fmt.Sprintf("endpoints[%d]", i)
		if w := d.workload(e, path, out.Resolution != mesh.ResolveStatic); w != nil {
			d.checkPortNames(w, s.Ports, join(path, "ports"))
			out.Endpoints = append(out.Endpoints, w)
		}
	}
	switch {
	case out.Resolution == mesh.ResolveStatic && len(s.Endpoints) == 0 && out.Selector == nil:
		d.error("endpoints", "is missing: resolution STATIC needs endpoints or a workloadSelector")
	case out.Resolution != mesh.ResolveStatic && len(s.Endpoints) == 0 && slices.ContainsFunc(out.Hosts, func(h string) bool { return strings.HasPrefix(h, "*") }):
		d.error("endpoints", "is missing: a host with * cannot be resolved by DNS")
	case len(out.Hosts) == 0:
		return // of the hosts, none is left
	case len(s.Endpoints) > 0 && len(out.Endpoints) == 0:
		out.Resolution = mesh.ResolveStatic // to none: DNS is not asked for the host in the place of endpoints
	}
	d.reader.config.Services = append(d.reader.config.Services, out)
}

// resolveByName takes NONE, which sends to where the application's connection was
// going to, and DYNAMIC_DNS, which asks DNS for whatever host a request has. As long
// as connections are not captured, a request says by its host alone where it is to go,
// and what an application would have dialled for a host is what DNS has for it. For
// a host with * that would be a name of each request's own.
func (d *document) resolveByName(s *networking.ServiceEntry, out *mesh.Service) {
	if len(s.Endpoints) > 0 {
		d.error("endpoints", fmt.Sprintf("cannot stand beside resolution %s, in Istio neither: write STATIC if they are addresses, DNS if they are names", s.Resolution))
	}
	if s.WorkloadSelector != nil {
		d.warning("workloadSelector", fmt.Sprintf("has no effect beside resolution %s, in Istio neither: write STATIC", s.Resolution))
		s.WorkloadSelector = nil
	}
	for i, h := range s.Hosts {
		if strings.HasPrefix(h, "*.") {
			d.find(Warning, ISM0077, index("hosts", i), fmt.Sprintf("%q is left out: with resolution %s each request's own host would have to be looked up, which is not done; name the hosts one by one, or write resolution DNS with endpoints", h, s.Resolution))
		}
	}
	out.Hosts = slices.DeleteFunc(out.Hosts, func(h string) bool { return strings.HasPrefix(h, "*") })
	if s.Resolution != networking.ServiceEntry_NONE || len(out.Hosts) == 0 {
		return
	}
	if slices.ContainsFunc(out.Ports, func(p mesh.Port) bool { return p.Protocol != mesh.ProtocolTCP }) {
		d.find(Info, ISM0077, "resolution", "NONE sends to the address that the application has dialled, which is not seen as long as connections are not captured: requests, and TLS by its server name, go to what DNS gives for the host, as with DNS")
	}
	for i, p := range out.Ports {
		if p.Protocol == mesh.ProtocolTCP {
			d.find(Warning, ISM0077, index("ports", i), fmt.Sprintf("no application's connection is for port %d: by resolution NONE they are told apart by the address that was dialled, which is not seen as long as connections are not captured; a Gateway's tcp route gets there", p.Number))
		}
	}
}

// entryAddresses returns those by which requests may name the host. Connections are not
// told apart by them, nor anything by a range of them, as long as they are not captured.
func (d *document) entryAddresses(list []string, ports []mesh.Port) (out []netip.Addr) {
	ranges := false
	for i, text := range list {
		p, err := netip.ParsePrefix(text)
		if a, single := netip.ParseAddr(text); single == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			d.error(index("addresses", i), fmt.Sprintf("%q is neither an address nor a range: write 10.0.0.1 or 10.0.0.0/8", text))
		case p.IsSingleIP():
			out = append(out, p.Addr().Unmap())
		default:
			ranges = true
		}
	}
	requests := slices.ContainsFunc(ports, func(p mesh.Port) bool { return p.Protocol.IsHTTP() })
	if len(list) > 0 && (ranges || !requests) {
		d.find(Warning, ISM0003, "addresses", "has no effect yet on connections, which are not captured, nor have ranges: only requests by HTTP may name the host by one of its addresses")
	}
	return out
}

func (d *document) entryPorts(list []*networking.ServicePort) []mesh.Port {
	var out []mesh.Port
	if len(list) == 0 {
		d.warning("ports", "is missing: without a port the service gets no traffic")
	}
	for i, p := range list {
		path := fmt.Sprintf("ports[%d]", i)
		if p.Name == "" {
			d.error(path+".name", "is missing")
		}
		if !d.checkPort(p.Number, path+".number") {
			continue
		}
		if p.TargetPort != 0 {
			d.checkPort(p.TargetPort, path+".targetPort")
		}
		protocol, ok := mesh.ParseProtocol(p.Protocol)
		if !ok {
			d.error(path+".protocol", fmt.Sprintf("%q is none of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO", p.Protocol))
		}
		for _, o := range out {
			if o.Number == p.Number {
				d.error(path+".number", fmt.Sprintf("port %d is given twice", p.Number))
			}
			if o.Name == p.Name {
				d.error(path+".name", fmt.Sprintf("%q is given twice", p.Name))
			}
		}
		if strings.EqualFold(p.Protocol, "UDP") { // a proxy of Istio's does not listen there either
			d.warning(path+".protocol", "UDP is not proxied: nobody serves the port, and its packets go past the proxy")
			continue
		}
		out = append(out, mesh.Port{Number: p.Number, Name: p.Name, Protocol: protocol, Target: p.TargetPort})
	}
	return out
}

// checkPortNames refuses ports of an endpoint that its ServiceEntry does not have
// (Istio: validateWorkloadEntry).
func (d *document) checkPortNames(w *mesh.Workload, ports []*networking.ServicePort, path string) {
	names := make([]string, len(ports))
	for i, p := range ports {
		names[i] = p.Name
	}
	for _, name := range slices.Sorted(maps.Keys(w.Ports)) {
		if !slices.Contains(names, name) {
			d.error(join(path, name), fmt.Sprintf("no port of the ServiceEntry has the name %q%s", name, suggest(name, names)))
		}
	}
}
