package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"isthmus/mesh"
)

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
	for i, p := range s.Ports {
		if p.Port != nil && *p.Port != 0 { // 0 is none, as for kube-proxy
			d.checkNumber(*p.Port, index("ports", i)+".port")
		}
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
			addr, err := netip.ParseAddr(a)
			if err != nil {
				d.error(path, fmt.Sprintf("%q is no IP address", a))
				continue
			}
			w := &mesh.Workload{Meta: d.meta(), Address: oneForm(addr), Ports: ports, Service: service + "." + d.namespace}
			w.Labels = map[string]string{}
			if e.Zone != nil {
				w.Locality.Region, w.Locality.Zone = regionOf(*e.Zone), *e.Zone
			}
			w.Unready = e.Conditions.Ready != nil && !*e.Conditions.Ready
			if e.Hostname != nil {
				w.Hostname = *e.Hostname
			}
			if t := e.TargetRef; t != nil && t.Kind == "Pod" {
				w.Pod = t.Name
			}
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
		for j, p := range s.Ports {
			if !d.checkNumber(p.Port, fmt.Sprintf("subsets[%d].ports[%d].port", i, j)) {
				continue
			}
			if p.Protocol == "" || p.Protocol == core.ProtocolTCP {
				ports[p.Name] = uint32(p.Port)
			}
		}
		if len(ports) == 0 && !d.failed() {
			d.info(fmt.Sprintf("subsets[%d].ports", i), "lists none of TCP, so its addresses get no traffic")
			continue
		}
		for j, a := range slices.Concat(s.Addresses, s.NotReadyAddresses) {
			field, unready := index("addresses", j), j >= len(s.Addresses)
			if unready {
				field = index("notReadyAddresses", j-len(s.Addresses))
			}
			addr, err := netip.ParseAddr(a.IP)
			if err != nil {
				d.error(fmt.Sprintf("subsets[%d].%s.ip", i, field), fmt.Sprintf("%q is no IP address", a.IP))
				continue
			}
			w := &mesh.Workload{Meta: d.meta(), Address: oneForm(addr), Ports: ports, Service: d.name + "." + d.namespace, Unready: unready, Hostname: a.Hostname}
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
