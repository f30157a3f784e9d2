package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"isthmus/explain"
	"isthmus/mesh"
)

// whyNoRoute tells an unknown host from a path that no rule matches.
func (x *exchange) whyNoRoute(e *explain.Explanation) string {
	if x.host != nil {
		return fmt.Sprintf("none of the %d rules for %s fits", len(x.host.routes), x.host.name)
	}
	host, port, ok := splitAuthority(x.scratch[:], x.req.Authority)
	if !ok {
		return "the host is none"
	}
	t := x.table
	switch c := x.conn; {
	case c.destinationHost != nil:
		return fmt.Sprintf("this proxy is the sidecar of no service %s, which the server name of the connection names", c.destinationHost)
	case c.kind == gateway && t.gateways[c.port] == nil:
		return fmt.Sprintf("no Gateway of this proxy has the port %d: a Gateway is for proxies whose labels its selector matches", c.port)
	case c.kind == gateway && t.gateways[c.port].raw():
		return fmt.Sprintf("port %d of the Gateway is of protocol TCP, and no tcp route of a VirtualService is for the connection", c.port)
	case c.kind == gateway && c.https && t.gateways[c.port].sni == nil:
		return fmt.Sprintf("port %d of the Gateway speaks no TLS", c.port)
	case c.kind == gateway && !c.https && t.gateways[c.port].hosts == nil:
		return fmt.Sprintf("port %d of the Gateway speaks TLS alone: ask for https", c.port)
	case c.kind == gateway:
		return fmt.Sprintf("no VirtualService bound to the Gateway has the host %s", host)
	case c.kind == inbound:
		return fmt.Sprintf("this proxy is the sidecar of no service %s", host)
	}
	if lacks := t.whyPortless(host, port); lacks != "" {
		return fmt.Sprintf("%s has %s", host, lacks)
	}
	return fmt.Sprintf("no service and no VirtualService has the host %s", host) + cmp.Or(x.table.whyHidden(string(host)), x.table.whyElsewhere(string(host)), x.table.whyNoPod(string(host)))
}

// whyPortless says of a host that the outbound listener knows why it has not the port that a
// request is for, 0 if it names none; "": that is not why.
func (t *table) whyPortless(host []byte, port uint32) string {
	e := t.outbound.entry(host)
	if e == nil || len(e.ports) == 0 || e.find(port) != nil {
		return ""
	}
	has := make([]string, len(e.ports))
	for i := range e.ports {
		has[i] = strconv.FormatUint(uint64(e.ports[i].number), 10)
	}
	list := ": it has " + strings.Join(has, ", ")
	if port == 0 {
		return "several ports, and none for requests that name none" + list
	}
	return fmt.Sprintf("no port %d", port) + list
}

// whyElsewhere says of a name without a namespace that services of other namespaces have
// it, files' or gossip's.
func (t *table) whyElsewhere(host string) string {
	var there []string
	for _, s := range t.snapshot.Registry.Services() {
		if name, _, _ := strings.Cut(s, "."); name == host {
			there = append(there, s)
		}
	}
	if len(there) == 0 {
		return ""
	}
	return fmt.Sprintf(" in namespace %s, which is this proxy's (node.namespace of the bootstrap file): ask for %s", t.snapshot.Node.Namespace, strings.Join(there[:min(len(there), 3)], " or "))
}

// whyNoPod says of a name that may be one Pod's why it is not.
func (t *table) whyNoPod(host string) string {
	pod, of, _ := strings.Cut(host, ".")
	v, ok := t.snapshot.Registry.View(of)
	if !ok || v.Service == "" || v.Pod != "" {
		return ""
	}
	return fmt.Sprintf(": no endpoint of %s is known as its Pod %s (hostname in an EndpointSlice, or the label %s)", v.Host, pod, mesh.PodLabel)
}

// whyHidden says of a host that is there, but not for this proxy, why.
func (t *table) whyHidden(host string) string {
	if out := t.whyOutside(host); out != "" {
		return out
	}
	svc, _, _ := mesh.ServiceOf(host)
	for _, s := range t.snapshot.Config.Services {
		named := !s.IsEntry() && (s.Key() == svc || s.Key() == host)
		for _, h := range s.Hosts {
			named = named || mesh.MatchHost(h, host)
		}
		if named && !mesh.VisibleTo(s.ExportTo, s.Namespace, t.snapshot.Node.Namespace) {
			return fmt.Sprintf(" that namespace %s may see: %s (%s) is not exported to it", t.snapshot.Node.Namespace, s.Meta, s.Source)
		}
	}
	for _, v := range t.snapshot.Config.VirtualServices {
		if !mesh.VisibleTo(v.ExportTo, v.Namespace, t.snapshot.Node.Namespace) && slices.ContainsFunc(v.Hosts, func(h string) bool { return mesh.MatchHost(h, host) }) {
			return fmt.Sprintf(" that namespace %s may see: %s (%s) is not exported to it", t.snapshot.Node.Namespace, v.Meta, v.Source)
		}
	}
	return ""
}

// whyOutside says of a host that a Sidecar keeps from this proxy which one does.
func (t *table) whyOutside(host string) string {
	s := t.snapshot.Config.Scope
	if s == nil || s.AdmitsHost("", host) {
		return ""
	}
	return fmt.Sprintf(" within what egress of %s (%s) lets this proxy know", s.Sidecar, s.Source)
}
