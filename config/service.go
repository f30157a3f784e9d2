package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"isthmus/mesh"
)

func readService(d *document) {
	var s core.Service
	if !d.decodeKubernetes(&s) {
		return
	}
	out := &mesh.Service{Meta: d.meta(), Selector: s.Spec.Selector}
	if e := s.Annotations["networking.istio.io/exportTo"]; e != "" {
		for ns := range strings.SplitSeq(e, ",") {
			out.ExportTo = append(out.ExportTo, strings.TrimSpace(ns))
			d.export("metadata.annotations.networking.istio.io/exportTo", strings.TrimSpace(ns))
		}
	}
	if name := s.Spec.ExternalName; strings.HasPrefix(name, "*.") {
		d.error("spec.externalName", fmt.Sprintf("%q is not the name of one host", name))
	} else if s.Spec.Type == core.ServiceTypeExternalName && d.checkHost(name, "spec.externalName", false) {
		// The name of another, for DNS or of the mesh; a selector has no effect.
		out.Resolution, out.External, out.Selector = mesh.ResolveDNS, true, nil
		out.Endpoints = []*mesh.Workload{{Meta: mesh.Meta{Namespace: d.namespace, Source: d.source("spec.externalName")}, Address: name}}
	}
	for i, p := range s.Spec.Ports {
		path := fmt.Sprintf("spec.ports[%d]", i)
		if p.Port < 1 || !d.checkPort(uint32(p.Port), path+".port") {
			continue
		}
		switch p.Protocol {
		case "", core.ProtocolTCP:
		case core.ProtocolUDP, core.ProtocolSCTP:
			continue // nothing comes by it here; often there is one of TCP with its number: 53, 443
		default:
			d.warning(path+".protocol", fmt.Sprintf("%q is none of TCP, UDP, SCTP, so Kubernetes refuses it; it counts as TCP: what is spoken over that, the port's name says (http-web), or appProtocol", p.Protocol))
		}
		port := mesh.Port{Number: uint32(p.Port), Name: p.Name}
		if s.Spec.Type != core.ServiceTypeExternalName { // there, clients' connections go to the port that they name
			port.Target, port.TargetName = uint32(p.TargetPort.IntVal), p.TargetPort.StrVal
		}
		port.Protocol = kubernetesProtocol(&p)
		if slices.ContainsFunc(out.Ports, func(o mesh.Port) bool { return o.Number == port.Number }) {
			d.error(path+".port", fmt.Sprintf("port %d is given twice", port.Number))
		}
		out.Ports = append(out.Ports, port)
	}
	switch {
	case len(s.Spec.Ports) == 0:
		d.warning("spec.ports", "without a port the service gets no traffic")
	case len(out.Ports) == 0:
		d.info("spec.ports", "none is of TCP, so nothing of the service comes by this proxy")
	case s.Spec.Type == core.ServiceTypeExternalName:
	case len(out.Selector) == 0:
		d.find(Info, ISM0019, "spec.selector", "selects nothing: its endpoints come from EndpointSlices, Endpoints and gossip")
	}
	d.otherBalancing(&s.Spec)
	d.reader.config.Services = append(d.reader.config.Services, out)
}

// otherBalancing says of what kube-proxy does for a Service what is not done here.
func (d *document) otherBalancing(s *core.ServiceSpec) {
	if p := s.InternalTrafficPolicy; p != nil && *p == core.ServiceInternalTrafficPolicyLocal {
		d.warning("spec.internalTrafficPolicy", "Local has no effect: a proxy does not know which endpoints are on its node, and the nearest zone that can serve is preferred")
	}
	if s.SessionAffinity == core.ServiceAffinityClientIP {
		d.info("spec.sessionAffinity", "ClientIP has no effect, in Istio neither: write loadBalancer: {consistentHash: {useSourceIp: true}} in a DestinationRule")
	}
}

// kubernetesProtocol reads appProtocol, else the beginning of the port's name
// (Istio: protocol selection).
func kubernetesProtocol(p *core.ServicePort) mesh.Protocol {
	if p.AppProtocol != nil {
		switch a := *p.AppProtocol; a {
		case "kubernetes.io/h2c":
			return mesh.ProtocolHTTP2
		case "kubernetes.io/ws":
			return mesh.ProtocolHTTP
		case "kubernetes.io/wss":
			return mesh.ProtocolHTTPS
		default:
			if v, ok := mesh.ParseProtocol(a); ok {
				return v
			}
		}
	}
	if strings.HasPrefix(p.Name, "grpc-web") {
		return mesh.ProtocolGRPCWeb
	}
	prefix, _, _ := strings.Cut(p.Name, "-")
	v, _ := mesh.ParseProtocol(prefix)
	return v
}

func readEndpointSlice(d *document) {
	var s discovery.EndpointSlice
	if !d.decodeKubernetes(&s) {
		return
	}
	service := s.Labels[discovery.LabelServiceName]
	if service == "" {
		d.warning("metadata.labels", "without the label "+discovery.LabelServiceName+" it belongs to no service")
		return
	}
	if s.AddressType == discovery.AddressTypeFQDN {
		d.warning("addressType", "FQDN has no effect, as with kube-proxy: write a ServiceEntry with resolution DNS")
		return
	}
	overTCP := slices.DeleteFunc(slices.Clone(s.Ports), func(p discovery.EndpointPort) bool {
		return p.Protocol != nil && (*p.Protocol == core.ProtocolUDP || *p.Protocol == core.ProtocolSCTP)
	})
	if len(s.Ports) > 0 && len(overTCP) == 0 {
		d.info("ports", "lists none of TCP, so its addresses get no traffic")
		return
	}
	ports := map[string]uint32{}
	for _, p := range overTCP {
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if p.Port != nil {
			ports[name] = uint32(*p.Port)
		}
	}
	for i, e := range s.Endpoints {
		for j, a := range e.Addresses {
			path := fmt.Sprintf("endpoints[%d].addresses[%d]", i, j)
			if _, err := netip.ParseAddr(a); err != nil {
				d.error(path, fmt.Sprintf("%q is no IP address", a))
				continue
			}
			w := &mesh.Workload{Meta: d.meta(), Address: a, Ports: ports, Service: service + "." + d.namespace}
			w.Labels = map[string]string{}
			if e.Zone != nil {
				w.Locality.Region, w.Locality.Zone = regionOf(*e.Zone), *e.Zone
			}
			w.Unready = e.Conditions.Ready != nil && !*e.Conditions.Ready
			d.reader.config.Workloads = append(d.reader.config.Workloads, w)
		}
	}
}

// regionOf returns the region of a zone, which an EndpointSlice does not name: us-west1-a
// lies in us-west1 (Google), eastus-2 in eastus (Azure), and us-east-1a in us-east-1 (AWS).
func regionOf(zone string) string {
	i := strings.LastIndexByte(zone, '-')
	if i < 0 {
		return ""
	}
	last := zone[i+1:]
	if n := strings.TrimLeft(last, "0123456789"); len(n) == 1 && len(last) > 1 && 'a' <= n[0] && n[0] <= 'z' {
		return zone[:len(zone)-1]
	}
	return zone[:i]
}

// readEndpoints reads what Kubernetes had before EndpointSlices, and mirrors into them.
func readEndpoints(d *document) {
	//lint:ignore SA1019 still written by users
	var e core.Endpoints
	if !d.decodeKubernetes(&e) {
		return
	}
	for i, s := range e.Subsets {
		ports := map[string]uint32{}
		for _, p := range s.Ports {
			if p.Protocol == "" || p.Protocol == core.ProtocolTCP {
				ports[p.Name] = uint32(p.Port)
			}
		}
		if len(ports) == 0 {
			d.info(fmt.Sprintf("subsets[%d].ports", i), "lists none of TCP, so its addresses get no traffic")
			continue
		}
		for j, a := range slices.Concat(s.Addresses, s.NotReadyAddresses) {
			field, unready := index("addresses", j), j >= len(s.Addresses)
			if unready {
				field = index("notReadyAddresses", j-len(s.Addresses))
			}
			if _, err := netip.ParseAddr(a.IP); err != nil {
				d.error(fmt.Sprintf("subsets[%d].%s.ip", i, field), fmt.Sprintf("%q is no IP address", a.IP))
				continue
			}
			w := &mesh.Workload{Meta: d.meta(), Address: a.IP, Ports: ports, Service: d.name + "." + d.namespace, Unready: unready}
			w.Labels = map[string]string{} // those of the resource are not its addresses'
			d.reader.config.Workloads = append(d.reader.config.Workloads, w)
		}
	}
}

// preferSlices leaves Endpoints out where EndpointSlices say the same, and more.
func (r *reader) preferSlices() {
	sliced := map[string]bool{}
	for _, w := range r.config.Workloads {
		if w.Kind == "EndpointSlice" {
			sliced[w.Service] = true
		}
	}
	r.config.Workloads = slices.DeleteFunc(r.config.Workloads, func(w *mesh.Workload) bool { return w.Kind == "Endpoints" && sliced[w.Service] })
}

func readConfigMap(d *document) {
	var c core.ConfigMap
	if !d.decodeKubernetes(&c) {
		return
	}
	read := false
	if text, ok := c.Data[meshConfigKey]; ok {
		if read = d.meshConfig(text, child(child(d.root, "data"), meshConfigKey).Line); read {
			d.onlyMeshConfig()
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.Data)) {
		if text := c.Data[key]; key != meshConfigKey && strings.Contains(text, "tracing") {
			read = d.tracingText(key, text) || read
		}
	}
	if read {
		return
	}
	d.info("", "holds nothing that Isthmus reads")
}

// onlyMeshConfig says of a second mesh configuration what becomes of both: in Istio
// each is for proxies of its revision.
func (d *document) onlyMeshConfig() {
	if first := d.reader.meshConfigOf; first != nil {
		d.find(Warning, ISM0017, "data."+meshConfigKey, fmt.Sprintf("%s %s/%s in %s is a mesh configuration, too: both hold, and of what both say this one; leave one of them out", first.kind, first.namespace, first.name, first.source("")))
		return
	}
	d.reader.meshConfigOf = d
}

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
			d.checkPortNames(w, out.Ports, join(path, "ports"))
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
		out = append(out, mesh.Port{Number: p.Number, Name: p.Name, Protocol: protocol, Target: p.TargetPort})
	}
	return out
}

// checkPortNames refuses ports of an endpoint that its ServiceEntry does not have
// (Istio: validateWorkloadEntry).
func (d *document) checkPortNames(w *mesh.Workload, ports []mesh.Port, path string) {
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

// workload reads a WorkloadEntry, alone or within a ServiceEntry. names says
// whether its address may be a host name.
func (d *document) workload(e *networking.WorkloadEntry, path string, names bool) *mesh.Workload {
	w := &mesh.Workload{
		Meta: d.meta(), Address: e.Address, Ports: e.Ports, Network: e.Network,
		Locality: mesh.ParseLocality(e.Locality), Weight: e.Weight, ServiceAccount: e.ServiceAccount,
	}
	w.Labels, w.Source = e.Labels, d.source(path)
	for name, n := range e.Ports {
		d.checkPort(n, join(path, "ports."+name))
	}
	at := join(path, "address")
	_, err := netip.ParseAddr(e.Address)
	switch {
	case e.Address == "" && e.Network != "":
		d.warning(at, fmt.Sprintf("is missing, so nothing is sent there: of network %s, which Istio would reach by its gateway, gossip tells where that is", e.Network))
		return nil
	case e.Address == "":
		d.error(at, "is missing")
		return nil
	case strings.HasPrefix(e.Address, "unix://"):
		d.warning(at, "is a UNIX socket, to which nothing is sent: let the workload listen on an address")
		return nil
	case err == nil:
	case !names:
		d.error(at, fmt.Sprintf("%q is no IP address: host names need a ServiceEntry with resolution DNS", e.Address))
		return nil
	case !d.checkHost(e.Address, at, false):
		return nil
	}
	return w
}

func readWorkloadEntry(d *document) {
	var e networking.WorkloadEntry
	if !d.decode(&e) {
		return
	}
	w := d.workload(&e, "", true)
	if w == nil {
		return
	}
	w.Labels = workloadLabels(e.Labels, d.labels)
	if _, err := netip.ParseAddr(w.Address); err != nil {
		d.find(Warning, ISM0019, "address", "only services with resolution DNS can use a host name; a Service that selects it gets no endpoint")
	}
	d.reader.config.Workloads = append(d.reader.config.Workloads, w)
}

// workloadLabels are those of a WorkloadEntry: what metadata says comes before what
// spec says (Istio: ConvertWorkloadEntry).
func workloadLabels(spec, metadata map[string]string) map[string]string {
	if len(spec) == 0 {
		return metadata
	}
	out := maps.Clone(spec)
	maps.Copy(out, metadata)
	return out
}

func readWorkloadGroup(d *document) {
	var g networking.WorkloadGroup
	if !d.decode(&g) {
		return
	}
	out := &mesh.WorkloadGroup{Meta: d.meta()}
	if g.Metadata != nil {
		out.GroupLabels = g.Metadata.Labels
	}
	if g.Template == nil {
		d.error("template", "is missing")
		return
	}
	out.Template = mesh.Workload{
		Meta: d.meta(), Ports: g.Template.Ports, Network: g.Template.Network,
		Locality: mesh.ParseLocality(g.Template.Locality), Weight: g.Template.Weight, ServiceAccount: g.Template.ServiceAccount,
	}
	if g.Probe != nil {
		out.Probe = d.probe(g.Probe, "probe")
	}
	d.reader.config.WorkloadGroups = append(d.reader.config.WorkloadGroups, out)
}
