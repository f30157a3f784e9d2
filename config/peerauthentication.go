package config

import (
	"fmt"

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
