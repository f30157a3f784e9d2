package mesh

import (
	"net/netip"
	"strings"
)

// Protocol is what a service's port speaks, as its name or appProtocol says.
type Protocol uint8

// The protocols that Isthmus tells apart. Unknown ports are treated as HTTP
// when a request comes for them.
const (
	ProtocolUnknown Protocol = iota
	ProtocolHTTP
	ProtocolHTTP2
	ProtocolGRPC
	ProtocolHTTPS
	ProtocolTLS
	ProtocolTCP
	ProtocolGRPCWeb // callers may speak gRPC-Web, the server speaks gRPC
)

var protocolNames = [...]string{"", "HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP", "GRPC-WEB"}

// String returns Istio's spelling, "HTTP2" say; "" for an unknown one.
func (p Protocol) String() string { return protocolNames[p] }

// ParseProtocol reads Istio's spelling in any case. MONGO, MYSQL, REDIS and UDP are bytes
// to us, thus TCP; HTTP_PROXY is HTTP. ok is false for a word that is none of Istio's.
func ParseProtocol(s string) (p Protocol, ok bool) {
	s = strings.ToUpper(s)
	for i, n := range protocolNames {
		if i > 0 && n == s {
			return Protocol(i), true
		}
	}
	switch s {
	case "MONGO", "MYSQL", "REDIS", "UDP":
		return ProtocolTCP, true
	case "HTTP_PROXY":
		return ProtocolHTTP, true
	}
	return ProtocolUnknown, s == ""
}

// IsHTTP reports whether requests can be told apart on the port.
func (p Protocol) IsHTTP() bool {
	return p == ProtocolUnknown || p == ProtocolHTTP || p.IsHTTP2()
}

// IsHTTP2 reports whether a server there speaks HTTP/2 (Istio: protocol.Instance).
func (p Protocol) IsHTTP2() bool {
	return p == ProtocolHTTP2 || p == ProtocolGRPC || p == ProtocolGRPCWeb
}

// MarshalText writes [Protocol.String], in JSON too.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads [ParseProtocol]'s spelling; what it does not know is
// ProtocolUnknown, since another version's word must not spoil a record.
func (p *Protocol) UnmarshalText(b []byte) error {
	*p, _ = ParseProtocol(string(b))
	return nil
}

// Port is one port of a service.
type Port struct {
	Number   uint32   `json:"number"`
	Name     string   `json:"name,omitempty"`
	Protocol Protocol `json:"protocol,omitempty"`

	// Target is where the workload listens (Service.targetPort,
	// ServiceEntry.ports.targetPort); 0 means Number. TargetName is set instead
	// when the file gives a name.
	Target     uint32 `json:"-"`
	TargetName string `json:"-"`
}

// Resolution says where the endpoints of a service come from.
type Resolution uint8

// The resolutions of ServiceEntry that can be served. A Kubernetes Service is
// ResolveStatic: its endpoints are given, by files or by gossip.
const (
	ResolveStatic        Resolution = iota
	ResolveDNS                      // every address of every name is an endpoint
	ResolveDNSRoundRobin            // one endpoint: one address of the name, not the same for all proxies
)

// Service is a Kubernetes Service or an Istio ServiceEntry.
type Service struct {
	Meta

	// Hosts are the host names of a ServiceEntry, in lower case; "*.suffix" is
	// possible. A Kubernetes Service has none: its names follow from Name and
	// Namespace (see view.go).
	Hosts      []string
	Addresses  []netip.Addr // ServiceEntry.addresses that are no ranges: requests may name the first host by them
	Ports      []Port
	Resolution Resolution
	External   bool // ServiceEntry.location MESH_EXTERNAL; a Service of type ExternalName

	// Selector picks workloads of the same namespace: Service.spec.selector or
	// ServiceEntry.workloadSelector. Nil picks none.
	Selector  map[string]string
	Endpoints []*Workload // ServiceEntry.endpoints; the name of an ExternalName
	ExportTo  []string

	SubjectAltNames []string // one of which whoever serves it bears, if TLS is spoken; empty: see DestinationRule
}

// IsEntry reports whether the service is a ServiceEntry.
func (s *Service) IsEntry() bool { return len(s.Hosts) > 0 }

// Key is the name by which endpoints refer to a Kubernetes Service:
// "name.namespace". For a ServiceEntry use its hosts.
func (s *Service) Key() string { return s.Name + "." + s.Namespace }

// Workload is a WorkloadEntry, an endpoint of a ServiceEntry, or one address of
// an EndpointSlice or of Endpoints.
type Workload struct {
	Meta
	Address string            // IP address or, for a DNS service, a host name
	Ports   map[string]uint32 // by the name of the service's port; wins over its target port
	Network string

	// Locality, Weight (0 counts as 1) and ServiceAccount as in Istio's
	// WorkloadEntry. Labels are in Meta.
	Locality       Locality
	Weight         uint32
	ServiceAccount string

	// Service is the "name.namespace" that an EndpointSlice, or Endpoints, names; it
	// selects the workload without labels; Ports then has the ports of the slice.
	Service string
	Unready bool // EndpointSlice conditions.ready: false

	// Pod is the name of the Pod whose address it is (EndpointSlice: targetRef); "" where that
	// is not known. A Pod has an address of each family.
	Pod string

	// Hostname is the name by which clients ask for this one Pod of a headless
	// service (EndpointSlice, Endpoints: hostname); "" if it has none.
	Hostname string
}

// WorkloadGroup is Istio's WorkloadGroup: the template of workloads like it.
type WorkloadGroup struct {
	Meta
	Template    Workload
	GroupLabels map[string]string // spec.metadata.labels
	Probe       *Probe            // nil: its workloads are not probed
}

// Serves reports whether the workload serves a port of its service: an EndpointSlice
// that names its ports lists those that its addresses have.
func (w *Workload) Serves(p Port) bool {
	if w.Service == "" || len(w.Ports) == 0 || w.Ports[""] != 0 {
		return true
	}
	return w.Ports[p.Name] != 0 || p.TargetName != "" && w.Ports[p.TargetName] != 0
}
