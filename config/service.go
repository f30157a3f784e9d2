package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

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
		if p.Port == 0 && !d.has(path+".port") {
			d.error(path+".port", "is missing")
			continue
		}
		if !d.checkNumber(p.Port, path+".port") {
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
			port.Target, port.TargetName = d.targetPort(p.TargetPort, path+".targetPort")
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
	case len(out.Ports) == 0 && !d.failed():
		d.info("spec.ports", "none is of TCP, so nothing of the service comes by this proxy")
	case s.Spec.Type == core.ServiceTypeExternalName:
	case len(out.Selector) == 0:
		d.find(Info, ISM0019, "spec.selector", "selects nothing: its endpoints come from EndpointSlices, Endpoints and gossip")
	}
	d.refusedOfService(&s)
	d.otherBalancing(&s.Spec)
	d.reader.config.Services = append(d.reader.config.Services, out)
}

// targetPort is the number or the name that a targetPort says; 0 and "" for none, as for 0
// and "" in Kubernetes.
func (d *document) targetPort(p intstr.IntOrString, path string) (number uint32, name string) {
	if p.Type == intstr.Int {
		if p.IntVal != 0 && !d.checkNumber(p.IntVal, path) {
			return 0, ""
		}
		return uint32(p.IntVal), ""
	}
	n, err := strconv.ParseUint(p.StrVal, 10, 16)
	if err != nil || n == 0 {
		return 0, p.StrVal
	}
	d.warning(path, fmt.Sprintf("%q is a number in quotes, which is the name of a port for Kubernetes, and refused since it has no letter; it counts as %d: write it without quotes", p.StrVal, n))
	return uint32(n), ""
}

// refusedOfService names what Kubernetes refuses of a Service and what is read otherwise
// than it may be meant: files need not have been there.
func (d *document) refusedOfService(s *core.Service) {
	for _, n := range []struct{ path, name string }{{"metadata.name", d.name}, {"metadata.namespace", d.namespace}} {
		if n.name != strings.ToLower(n.name) || strings.Contains(n.name, ".") {
			d.warning(n.path, fmt.Sprintf("%q is refused by Kubernetes, which takes lower case letters, digits and -: hosts are compared in lower case and taken apart at dots, so no request finds the service", n.name))
		}
	}
	for _, v := range []struct {
		path, value string
		known       []string
		otherwise   string
	}{
		{"spec.type", string(s.Spec.Type), []string{"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}, "ClusterIP"},
		{"spec.sessionAffinity", string(s.Spec.SessionAffinity), []string{"None", "ClientIP"}, "None"},
		{"spec.internalTrafficPolicy", valueOf(s.Spec.InternalTrafficPolicy), []string{"Cluster", "Local"}, "Cluster"},
		{"spec.trafficDistribution", valueOf(s.Spec.TrafficDistribution), []string{"PreferSameZone", "PreferSameNode", "PreferClose"}, "PreferSameZone"},
	} {
		if v.value != "" && !slices.Contains(v.known, v.value) {
			d.warning(v.path, fmt.Sprintf("%q is none of %s%s, so Kubernetes refuses it; it counts as %s", v.value, strings.Join(v.known, ", "), suggest(v.value, v.known), v.otherwise))
		}
	}
	if s.Spec.ExternalName != "" && s.Spec.Type != core.ServiceTypeExternalName {
		d.warning("spec.externalName", "has no effect, since spec.type is not ExternalName")
	}
	for i, p := range s.Spec.Ports {
		path := index("spec.ports", i) + ".name"
		switch before := slices.IndexFunc(s.Spec.Ports, func(o core.ServicePort) bool { return o.Name == p.Name }); {
		case p.Name == "" && len(s.Spec.Ports) > 1:
			d.warning(path, "is missing, which Kubernetes refuses where there are several ports: EndpointSlices say by names which one is where")
		case before < i:
			d.warning(path, fmt.Sprintf("%q is the name of spec.ports[%d], too, which Kubernetes refuses: what workloads and EndpointSlices say of a port by its name holds for both", p.Name, before))
		}
	}
}

// valueOf is what a field says that may be left out; "" if it is.
func valueOf[T ~string](p *T) string {
	if p == nil {
		return ""
	}
	return string(*p)
}

// otherBalancing says of what kube-proxy does for a Service what is not done here.
func (d *document) otherBalancing(s *core.ServiceSpec) {
	if p := s.InternalTrafficPolicy; p != nil && *p == core.ServiceInternalTrafficPolicyLocal {
		d.warning("spec.internalTrafficPolicy", "Local has no effect: a proxy does not know which endpoints are on its node, and the nearest zone that can serve is preferred")
	}
	if valueOf(s.TrafficDistribution) == core.ServiceTrafficDistributionPreferSameNode {
		d.info("spec.trafficDistribution", "PreferSameNode has no effect, since a proxy does not know which endpoints are on its node: the nearest zone that can serve is preferred, as with PreferSameZone")
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
	if text, ok := c.Data[meshNetworksKey]; ok && namesNetworks(text) {
		d.warning("data."+meshNetworksKey, "has no effect: which proxies reach a network's endpoints, gossip tells (gossip.announce: through); the network of an endpoint is the name of its cluster")
		return
	}
	if read {
		return
	}
	d.info("", "holds nothing that Isthmus reads")
}

// namesNetworks reports whether there are networks in a text of meshNetworks. Istio's own
// installation has one without.
func namesNetworks(text string) bool {
	root, _, err := inner(text, 0)
	if err != nil || root == nil {
		return err != nil
	}
	n := child(root, "networks")
	return n != nil && len(n.Content) > 0
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
