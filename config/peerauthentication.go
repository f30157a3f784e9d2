package config

import (
	"fmt"
	"slices"

	security "istio.io/api/security/v1beta1"

	"isthmus/mesh"
)

func readPeerAuthentication(d *document) {
	var p security.PeerAuthentication
	if !d.decode(&p) {
		return
	}
	out := &mesh.PeerAuthentication{Meta: d.meta(), Selector: p.Selector.GetMatchLabels(), Mode: peerMode(p.Mtls), Ports: map[uint32]mesh.MTLSMode{}}
	for port, m := range p.PortLevelMtls {
		if d.checkPort(port, fmt.Sprintf("portLevelMtls.%d", port)) {
			out.Ports[port] = peerMode(m)
		}
	}
	if len(out.Ports) > 0 && len(out.Selector) == 0 {
		d.find(Warning, ISM0028, "portLevelMtls", "has no effect without a selector: ports are a workload's")
	}
	d.reader.config.PeerAuthentications = append(d.reader.config.PeerAuthentications, out)
	d.reader.peers = append(d.reader.peers, located[*mesh.PeerAuthentication]{out, d})
}

func peerMode(m *security.PeerAuthentication_MutualTLS) mesh.MTLSMode {
	switch m.GetMode() {
	case security.PeerAuthentication_MutualTLS_DISABLE:
		return mesh.MTLSDisable
	case security.PeerAuthentication_MutualTLS_PERMISSIVE:
		return mesh.MTLSPermissive
	case security.PeerAuthentication_MutualTLS_STRICT:
		return mesh.MTLSStrict
	}
	return mesh.MTLSUnset
}

// checkPeerAuthentications names policies that another one of the same level
// beats, and those that this proxy cannot do what they ask for.
func (c *checker) checkPeerAuthentications(node *mesh.Node, judged bool) {
	type level struct{ namespace, selector string }
	first := map[level]*mesh.PeerAuthentication{}
	for _, l := range c.peers {
		p := l.value
		k := level{p.Namespace, fmt.Sprint(p.Selector)}
		if o := first[k]; o != nil {
			l.doc.find(Warning, ISM0017, "selector", fmt.Sprintf("%s in %s is for the same workloads and wins, being first by file and line; this one has no effect", o.Name, o.Source))
			continue
		}
		first[k] = p
	}
	if !judged || node.Identity != "" {
		return
	}
	mode := mesh.PeerModeOf(c.config.PeerAuthentications, node.RootNamespace, node.Namespace, node.Labels)
	for _, l := range c.peers {
		if mode.Strict(l.value.Source) {
			l.doc.find(Error, ISM0027, "mtls.mode", "STRICT holds for this proxy, which has no certificate: name cert, key and ca in certificates of the bootstrap file (isthmus certs issue makes them)")
		}
	}
}

// peerModes finds the PeerAuthentications of many workloads.
type peerModes struct {
	root   string
	all    []*mesh.PeerAuthentication               // without a selector
	byPair map[[3]string][]*mesh.PeerAuthentication // by namespace and one pair of the selector: whom it fits bears any one
}

func newPeerModes(root string, list []*mesh.PeerAuthentication) *peerModes {
	p := &peerModes{root: root, byPair: map[[3]string][]*mesh.PeerAuthentication{}}
	for _, a := range list {
		if len(a.Selector) == 0 {
			p.all = append(p.all, a)
		}
		for k, v := range a.Selector {
			p.byPair[[3]string{a.Namespace, k, v}] = append(p.byPair[[3]string{a.Namespace, k, v}], a)
			break
		}
	}
	return p
}

// of is what holds for a workload.
func (p *peerModes) of(namespace string, labels map[string]string) mesh.PeerMode {
	list := slices.Clip(p.all)
	for k, v := range labels {
		list = append(list, p.byPair[[3]string{namespace, k, v}]...)
		if namespace != p.root {
			list = append(list, p.byPair[[3]string{p.root, k, v}]...)
		}
	}
	return mesh.PeerModeOf(list, p.root, namespace, labels)
}
