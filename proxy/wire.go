package proxy

import (
	"cmp"
	stdtls "crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"isthmus/mesh"
	"isthmus/tls"
)

// wire is how an endpoint is spoken to. Values are comparable: a connection is
// kept for as long as the wire of its endpoint stays the same.
type wire struct {
	mode     wireMode
	name     string // SNI
	named    bool   // it says what a connection is for
	relay    bool   // bytes are passed on, rather than requests
	expected tls.Expected
}

type wireMode uint8

const (
	wirePlain  wireMode = iota
	wirePolicy          // TLS as a DestinationRule has it, modes SIMPLE and MUTUAL
	wireMesh            // mTLS between proxies
)

// wires says how each endpoint of an upstream is spoken to: as the
// DestinationRule has it; else as PeerAuthentication has it for the workload, as
// far as this configuration knows; else by mTLS if both ends have certificates.
// What gossip says of an endpoint can bring mTLS, and never forbid it.
func (c *compiler) wires(k upstreamKey, v *mesh.View, endpoints []*mesh.Endpoint, t *mesh.ClientTLS) []wire {
	out := make([]wire, len(endpoints))
	if k.inbound || k.through && k.relay {
		return out // the application, or what is mTLS already
	}
	accounts := accountsOf(endpoints)
	names := subjectAltNames(v, t)
	for i, e := range endpoints {
		switch {
		case t != nil && t.Mode == mesh.TLSDisable:
			continue
		case t != nil && t.Mode != mesh.TLSIstioMutual:
			out[i].mode, out[i].expected.Names = wirePolicy, names
			continue
		case t == nil && !c.wantsMTLS(v, e):
			continue
		case k.through:
			continue // whoever calls would be the gateway: see sealedHost
		}
		w := wire{mode: wireMesh, relay: k.relay}
		w.expected = expectedOf(v, e, accounts, names, c.node.RootNamespace)
		if t != nil && t.SNI != "" {
			w.name = t.SNI
		} else {
			host, port := destinationOf(e)
			if isService(v, e) {
				host = fullName(host)
			}
			w.name, w.named = mesh.DestinationSNI(port, "", host), true
		}
		out[i] = w
	}
	return out
}

// wantsMTLS reports whether an endpoint is spoken to by mTLS where no
// DestinationRule says how.
func (c *compiler) wantsMTLS(v *mesh.View, e *mesh.Endpoint) bool {
	switch c.modeOf(v, e) {
	case mesh.MTLSDisable:
		return false
	case mesh.MTLSStrict:
		return true
	}
	return c.node.Identity != "" && e.TakesMTLS()
}

// modeOf is what PeerAuthentication has for an endpoint: of an ExternalName that names a
// service of the mesh, for that one's.
func (c *compiler) modeOf(v *mesh.View, e *mesh.Endpoint) mesh.MTLSMode {
	list := c.snapshot.Config.PeerAuthentications
	if len(list) == 0 || external(v) && !(v.External && e.Forward != "") {
		return mesh.MTLSPermissive
	}
	m := mesh.PeerModeOf(list, c.node.RootNamespace, namespaceOf(v, e), e.Labels)
	if !m.Varies() {
		return m.Mode
	}
	mode, _ := m.Port(c.workloadPort(e))
	return mode
}

// demandsMTLS reports whether an endpoint may be spoken to by mTLS alone. t is what
// the DestinationRule says; nil: nothing.
func (c *compiler) demandsMTLS(v *mesh.View, e *mesh.Endpoint, t *mesh.ClientTLS) bool {
	if t != nil {
		return t.Mode == mesh.TLSIstioMutual
	}
	return c.modeOf(v, e) == mesh.MTLSStrict
}

// sealed reports whether an endpoint's proxy ends mTLS, or has to, so that an
// east-west gateway passes that on.
func (c *compiler) sealed(v *mesh.View, e *mesh.Endpoint, t *mesh.ClientTLS) bool {
	return e.TakesMTLS() || c.demandsMTLS(v, e, t)
}

// external reports whether a host is none of the mesh's.
func external(v *mesh.View) bool {
	return v.External || v.Service == "" && slices.ContainsFunc(v.Entries, func(s *mesh.Service) bool { return s.External })
}

// destinationOf is what an endpoint is asked for: the service, or the host of a
// ServiceEntry, and its port.
func destinationOf(e *mesh.Endpoint) (service string, port uint32) {
	return cmp.Or(e.Forward, e.Service), cmp.Or(e.ForwardPort, e.Port.Number)
}

// fullName is the name that every proxy knows a service by.
func fullName(service string) string {
	if _, _, ok := mesh.ServiceOf(service + ".svc." + mesh.LocalDomain); ok && isKey(service) {
		return service + ".svc." + mesh.LocalDomain
	}
	return service
}

// isService reports whether an endpoint of a view is one of a service, rather than of a
// ServiceEntry's host, which may look like one: web.example.
func isService(v *mesh.View, e *mesh.Endpoint) bool {
	service, _ := destinationOf(e)
	return (v.Service != "" || e.Forward != "") && isKey(service)
}

// isKey tells "name.namespace" from longer host names.
func isKey(service string) bool {
	dots := 0
	for i := range len(service) {
		if service[i] == '.' {
			dots++
		}
	}
	return dots == 1
}

// namespaceOf is the namespace of the service that an endpoint serves, or of the
// ServiceEntry.
func namespaceOf(v *mesh.View, e *mesh.Endpoint) string {
	if !isService(v, e) {
		return v.Namespace
	}
	service, _ := destinationOf(e)
	_, namespace, _ := strings.Cut(service, ".")
	return namespace
}

// accountsOf are the service accounts that files give the workloads of a
// service, if they give each of them one. What gossip says of accounts is not
// asked.
func accountsOf(endpoints []*mesh.Endpoint) string {
	var out []string
	for _, e := range endpoints {
		if e.Source != mesh.SourceFile && e.Source != mesh.SourceKubernetes && e.Source != mesh.SourceDNS || e.Via {
			continue
		}
		who, ok := mesh.ParseIdentity(e.Identity)
		if !ok {
			return ""
		}
		out = append(out, who.Namespace+"/"+who.ServiceAccount)
	}
	return tls.ExpectedList(out...)
}

// subjectAltNames are those that a callee has to bear one of: the
// DestinationRule's, else the ServiceEntries'. v is nil for the application beside this
// proxy.
func subjectAltNames(v *mesh.View, t *mesh.ClientTLS) string {
	if t != nil && len(t.SubjectAltNames) > 0 {
		return tls.ExpectedList(t.SubjectAltNames...)
	}
	if v == nil {
		return ""
	}
	var out []string
	for _, e := range v.Entries {
		out = append(out, e.SubjectAltNames...)
	}
	return tls.ExpectedList(out...)
}

// expectedOf says whom the proxy at an endpoint may be: whoever the
// configuration names, else somebody of the service's namespace. A gateway that
// stands for the services of its cluster may be of the root namespace, whose
// policies hold for all.
func expectedOf(v *mesh.View, e *mesh.Endpoint, accounts, names, rootNamespace string) tls.Expected {
	if names != "" {
		return tls.Expected{Names: names}
	}
	gateway := e.Via && e.Relayed
	if accounts != "" && !gateway {
		return tls.Expected{Accounts: accounts}
	}
	namespace := namespaceOf(v, e)
	switch {
	case namespace == "":
		return tls.Expected{}
	case gateway:
		return tls.Expected{Namespaces: tls.ExpectedList(namespace, rootNamespace)}
	}
	return tls.Expected{Namespaces: namespace}
}

// handshaker makes a connection that was dialled speak TLS.
type handshaker interface {
	shake(s *stream, speaks headFormat, limit instant) error
}

// meshClient is how one endpoint is spoken to by mTLS. It lives as long as the
// endpoint, and with it the session that new connections resume.
type meshClient struct {
	own     *tls.Own
	wire    wire
	current [2]atomic.Pointer[meshConfig] // for HTTP/1.1, or what is relayed, and for HTTP/2
}

// protocol is what follows TLS, by ALPN.
func (w *wire) protocol(speaks headFormat) string {
	switch {
	case w.relay:
		return tls.ProtocolTCP
	case speaks == asHTTP2:
		return tls.ProtocolHTTP2
	}
	return tls.ProtocolHTTP
}

// meshConfig is the configuration for the identity as it is.
type meshConfig struct {
	identity *tls.Identity
	config   *stdtls.Config
}

var errNoIdentity = errors.New("mTLS is asked for, and this proxy has no certificate")

func (c *meshClient) shake(s *stream, speaks headFormat, limit instant) error {
	id := c.own.Identity()
	if id == nil {
		return errNoIdentity
	}
	current := &c.current[0]
	if speaks == asHTTP2 {
		current = &c.current[1]
	}
	now := current.Load()
	if now == nil || now.identity != id {
		w := &c.wire
		now = &meshConfig{id, id.Client(w.name, w.protocol(speaks), w.expected, stdtls.NewLRUClientSessionCache(1))}
		current.Store(now)
	}
	if err := s.connectTLS(now.config, limit); err != nil {
		return err
	}
	vouchMesh(s, id, c.own, func(id *tls.Identity, state stdtls.ConnectionState) error {
		return id.Client(c.wire.name, "", c.wire.expected, nil).VerifyConnection(state)
	})
	return nil
}
