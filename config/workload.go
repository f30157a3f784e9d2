package config

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

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
	a, err := netip.ParseAddr(e.Address)
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
		w.Address = oneForm(a)
	case !names:
		d.error(at, fmt.Sprintf("%q is no IP address: host names need a ServiceEntry with resolution DNS", e.Address))
		return nil
	case !d.checkHost(e.Address, at, false):
		return nil
	case strings.HasPrefix(e.Address, "*"):
		d.error(at, fmt.Sprintf("%q stands for many names, of which DNS gives no addresses", e.Address))
		return nil
	}
	return w
}

// oneForm is an address as all are written that are compared as texts: the node's and those
// of workloads.
func oneForm(a netip.Addr) string { return a.Unmap().String() }

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
	for name, n := range g.Template.Ports {
		d.checkPort(n, "template.ports."+name)
	}
	out.Template = mesh.Workload{
		Meta: d.meta(), Ports: g.Template.Ports, Network: g.Template.Network,
		Locality: mesh.ParseLocality(g.Template.Locality), Weight: g.Template.Weight, ServiceAccount: g.Template.ServiceAccount,
	}
	for _, f := range []struct {
		field, where string
		set          bool
	}{
		{"labels", "spec.metadata.labels say which workloads the group has, and node.labels of the bootstrap file which they bear", len(g.Template.Labels) > 0},
		{"locality", "node.locality of the bootstrap file says where a workload is", g.Template.Locality != ""},
		{"network", "node.cluster of the bootstrap file says whose a workload is", g.Template.Network != ""},
		{"weight", "all proxies of a group count the same", g.Template.Weight > 0},
	} {
		if f.set {
			d.find(Warning, ISM0003, "template."+f.field, "has no effect yet, since nothing is registered by it: "+f.where)
		}
	}
	if g.Probe != nil {
		out.Probe = d.probe(g.Probe, "probe")
	}
	d.reader.config.WorkloadGroups = append(d.reader.config.WorkloadGroups, out)
}
