package config

import (
	"fmt"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

func readSidecar(d *document) {
	var s networking.Sidecar
	if !d.decode(&s) {
		return
	}
	out := &mesh.Sidecar{Meta: d.meta(), Selector: s.WorkloadSelector.GetLabels()}
	if p := s.InboundConnectionPool; p != nil {
		out.Pool = d.connectionPool(p, "inboundConnectionPool")
	}
	for i, l := range s.Ingress {
		path := fmt.Sprintf("ingress[%d]", i)
		if l.Port == nil || !d.checkPort(l.Port.Number, path+".port.number") {
			if l.Port == nil {
				d.error(path+".port", "is missing")
			}
			continue
		}
		if l.Tls != nil {
			d.error(path+".tls", "is not supported: the inbound listener speaks mTLS with the proxy's own certificate; terminate other TLS at a Gateway")
		}
		if l.ConnectionPool == nil {
			continue
		}
		if out.PortPools == nil {
			out.PortPools = map[uint32]*mesh.ConnectionPool{}
		}
		out.PortPools[l.Port.Number] = d.connectionPool(l.ConnectionPool, path+".connectionPool")
	}
	d.reader.config.Sidecars = append(d.reader.config.Sidecars, out)
}
