package config

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

func readGateway(d *document) {
	var g networking.Gateway
	if !d.decode(&g) {
		return
	}
	out := &mesh.Gateway{Meta: d.meta(), Selector: g.Selector}
	if len(g.Servers) == 0 {
		d.error("servers", "is missing: name at least one server")
	}
	for i, s := range g.Servers {
		if server, ok := d.server(s, fmt.Sprintf("servers[%d]", i)); ok {
			out.Servers = append(out.Servers, server)
		}
	}
	d.reader.config.Gateways = append(d.reader.config.Gateways, out)
}

// server reads one server of a Gateway.
func (d *document) server(s *networking.Server, path string) (mesh.GatewayServer, bool) {
	out := mesh.GatewayServer{Name: s.Name, Bind: s.Bind, Source: d.source(path)}
	if s.Port == nil {
		d.error(path+".port", "is missing")
		return out, false
	}
	if !d.checkPort(s.Port.Number, path+".port.number") {
		return out, false
	}
	protocol, ok := mesh.ParseProtocol(s.Port.Protocol)
	if !ok || s.Port.Protocol == "" || strings.EqualFold(s.Port.Protocol, "UDP") {
		d.error(path+".port.protocol", fmt.Sprintf("%q is none of HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS", s.Port.Protocol))
		return out, false
	}
	out.Port = mesh.Port{Number: s.Port.Number, Name: s.Port.Name, Protocol: protocol}
	switch protocol {
	case mesh.ProtocolHTTPS, mesh.ProtocolTLS:
		out.TLS = true
		if s.Tls.GetHttpsRedirect() {
			d.warning(path+".tls.httpsRedirect", "has no effect: what comes here is TLS already; write it at the server of protocol HTTP")
		}
		switch {
		case s.Tls == nil:
			d.error(path+".tls", "is missing: protocol "+s.Port.Protocol+" needs it")
		case s.Tls.Mode == networking.ServerTLSSettings_PASSTHROUGH:
			out.Passthrough = true
			d.passedOn(s.Tls, path+".tls")
		case s.Tls.Mode == networking.ServerTLSSettings_AUTO_PASSTHROUGH:
			out.AutoPassthrough = true
			d.passedOn(s.Tls, path+".tls")
		default:
			out.Terminate = d.serverTLS(s.Tls, path+".tls")
		}
	case mesh.ProtocolTCP:
		if s.Tls != nil {
			d.error(path+".tls", "protocol "+s.Port.Protocol+" takes no TLS settings: write protocol: TLS")
		}
	default:
		if s.Tls != nil {
			out.HTTPSRedirect = s.Tls.HttpsRedirect
			if t := s.Tls; t.Mode != networking.ServerTLSSettings_PASSTHROUGH || t.CaCertificates+t.PrivateKey+t.ServerCertificate != "" {
				d.error(path+".tls", "protocol "+s.Port.Protocol+" takes no TLS settings but httpsRedirect: write protocol: HTTPS")
			} else if !proto.Equal(t, &networking.ServerTLSSettings{HttpsRedirect: t.HttpsRedirect}) {
				d.warning(path+".tls", "has no effect but for httpsRedirect, in Istio neither: protocol "+s.Port.Protocol+" is plain text; write protocol: HTTPS and a mode, SIMPLE say, if TLS is meant")
			}
		}
	}
	if len(s.Hosts) == 0 {
		d.error(path+".hosts", `is missing: name the hosts, "*" for all`)
	}
	for i, h := range s.Hosts {
		at := fmt.Sprintf("%s.hosts[%d]", path, i)
		namespace, host, ok := strings.Cut(h, "/")
		if !ok || strings.Contains(h, "://") {
			namespace, host = "*", h
		}
		if namespace == "." {
			namespace = d.namespace
		}
		if namespace != "*" && !validLabel(namespace) {
			d.error(at, fmt.Sprintf("%q is no namespace", namespace))
			continue
		}
		if d.checkHost(host, at, true) {
			out.Hosts = append(out.Hosts, mesh.GatewayHost{Namespace: namespace, Host: strings.ToLower(strings.TrimSuffix(host, "."))})
		}
	}
	return out, true
}
