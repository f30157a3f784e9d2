package config

import (
	"encoding/json"
	"fmt"
	"net"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"isthmus/mesh"
)

// Bootstrap is the file that says what one proxy is. Every field has a
// default.
type Bootstrap struct {
	Node               NodeConfig        `yaml:"node"`
	TrustDomain        string            `yaml:"trustDomain"`
	TrustDomainAliases []string          `yaml:"trustDomainAliases"`
	RootNamespace      string            `yaml:"rootNamespace"`
	Domains            map[string]string `yaml:"domains"`
	Listeners          Listeners         `yaml:"listeners"`
	NumTrustedProxies  int               `yaml:"numTrustedProxies"`
	Downstream         Downstream        `yaml:"downstream"`
	Overload           Overload          `yaml:"overload"`
	Capture            string            `yaml:"capture"`
	Certificates       Certificates      `yaml:"certificates"`
	CredentialDir      string            `yaml:"credentialDir"`
	Gossip             Gossip            `yaml:"gossip"`
	Probes             Probes            `yaml:"probes"`
	RateLimits         RateLimits        `yaml:"rateLimits"`
	StateDir           string            `yaml:"stateDir"`
	Clusters           map[string]string `yaml:"clusters"`
	AccessLog          AccessLog         `yaml:"accessLog"`
	Tracing            Tracing           `yaml:"tracing"`
	Canary             Canary            `yaml:"canary"`
	Why                Why               `yaml:"why"`
	Drain              Drain             `yaml:"drain"`
}

// NodeConfig is the section node.
type NodeConfig struct {
	Name           string            `yaml:"name"`
	Address        string            `yaml:"address"`
	Cluster        string            `yaml:"cluster"`
	Locality       string            `yaml:"locality"`
	Namespace      string            `yaml:"namespace"`
	ServiceAccount string            `yaml:"serviceAccount"`
	Labels         map[string]string `yaml:"labels"`
}

// Listeners is the section listeners; "" switches one off.
type Listeners struct {
	Outbound string        `yaml:"outbound"`
	Inbound  string        `yaml:"inbound"`
	Gateway  GatewayConfig `yaml:"gateway"`
	Admin    string        `yaml:"admin"`
	Metrics  string        `yaml:"metrics"`
}

// GatewayConfig is the section listeners.gateway.
type GatewayConfig struct {
	Bind  string            `yaml:"bind"`
	Ports map[uint32]uint32 `yaml:"ports"`
}

// Downstream is the section downstream: what clients may take. A zero field
// stands for its default; see proxy.Downstream, whose fields these are.
type Downstream struct {
	IdleTimeout  time.Duration `yaml:"idleTimeout"`
	HeadTimeout  time.Duration `yaml:"headTimeout"`
	StallTimeout time.Duration `yaml:"stallTimeout"`
	MinRate      int           `yaml:"minRate"`
	MaxBody      int           `yaml:"maxBody"`
}

// Overload is the section overload: what all clients together may take; see
// proxy.Overload.
type Overload struct {
	// Memory is a quantity as Kubernetes writes them, 512Mi; "": what the container
	// may have, or the machine has.
	Memory string `yaml:"memory"`

	Connections int `yaml:"connections"` // 0: half of the files that may be open, but for 1024
}

// leastMemory is what a proxy needs, and room for some requests; see proxy.LeastMemory.
const leastMemory = 48 << 20

// Bytes returns Memory in bytes; 0 if it is not said.
func (o Overload) Bytes() (int64, error) {
	if o.Memory == "" {
		return 0, nil
	}
	q, err := resource.ParseQuantity(o.Memory)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q must be a quantity of bytes such as 512Mi", o.Memory)
	case q.Value() < leastMemory:
		return 0, fmt.Errorf("%q is too little: write 48Mi or more", o.Memory)
	}
	return q.Value(), nil
}

// Certificates is the section certificates.
type Certificates struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`
}

// Gossip is the section gossip; an empty Bind means none.
type Gossip struct {
	Bind      string   `yaml:"bind"`
	Advertise string   `yaml:"advertise"`
	Join      []string `yaml:"join"`
	Keys      []string `yaml:"keys"`
	Announce  string   `yaml:"announce"`
}

// Probes is the section probes.
type Probes struct {
	AllowExec bool         `yaml:"allowExec"` // WorkloadGroups may have commands run here
	Remote    RemoteProbes `yaml:"remote"`
}

// RemoteProbes is the section probes.remote: how endpoints of other clusters
// are looked at.
type RemoteProbes struct {
	Interval time.Duration `yaml:"interval"` // 0: not at all
	Timeout  time.Duration `yaml:"timeout"`
}

// RateLimits is the section rateLimits.
type RateLimits struct {
	Config string `yaml:"config"`
	Serve  string `yaml:"serve"`
}

// AccessLog is the section accessLog; without a path and a format, nothing is
// logged but what Telemetry resources ask for.
type AccessLog struct {
	Path     string  `yaml:"path"`
	Format   string  `yaml:"format"`   // text, json, or Envoy's operators
	Filter   string  `yaml:"filter"`   // an expression of CEL; "": all
	Sampling float64 `yaml:"sampling"` // percent
}

// IsOn reports whether there is a log without a Telemetry resource.
func (a *AccessLog) IsOn() bool { return a.Path != "" || a.Format != "" }

// Tracing is the section tracing.
type Tracing struct {
	Sampling float64 `yaml:"sampling"` // percent; notSaid: nothing here says so
	Zipkin   struct {
		Address string `yaml:"address"`
	} `yaml:"zipkin"`
	OTLP struct {
		Endpoint string `yaml:"endpoint"`
	} `yaml:"otlp"`
}

// notSaid is a sampling that the file does not give.
const notSaid = -1

// Canary is the section canary: a configuration that is tried beside the one in
// force. Its fields are those of canary.Plan.
type Canary struct {
	Paths    []string      `yaml:"paths"`
	Shadow   time.Duration `yaml:"shadow"`
	Sample   float64       `yaml:"sample"`
	Steps    []float64     `yaml:"steps"`
	Step     time.Duration `yaml:"step"`
	Requests int           `yaml:"requests"`
	Sticky   string        `yaml:"sticky"`
	Proxies  float64       `yaml:"proxies"`
	Guard    CanaryGuard   `yaml:"guard"`
}

// CanaryGuard is the section canary.guard.
type CanaryGuard struct {
	Failed  float64 `yaml:"failed"`
	Refused float64 `yaml:"refused"`
	Slower  float64 `yaml:"slower"`
}

// Why is the section why: what is remembered of requests for "isthmus why".
type Why struct {
	Slow time.Duration `yaml:"slow"` // one that waits longer for its reply is remembered, too; 0: none is
}

// Drain is the section drain.
type Drain struct {
	Timeout time.Duration `yaml:"timeout"`
}

func defaults() *Bootstrap {
	return &Bootstrap{
		Node:          NodeConfig{Cluster: "default", Namespace: "default", ServiceAccount: "default"},
		TrustDomain:   "cluster.local",
		RootNamespace: "istio-system",
		Listeners: Listeners{
			Outbound: "127.0.0.1:15001", Inbound: "0.0.0.0:15006", Gateway: GatewayConfig{Bind: "0.0.0.0"},
			Admin: "127.0.0.1:15000", Metrics: "0.0.0.0:15020",
		},
		Capture: "none",
		Gossip:  Gossip{Announce: "own"},
		Probes:  Probes{Remote: RemoteProbes{Interval: 5 * time.Second, Timeout: time.Second}},
		Canary:  defaultCanary(),
		Why:     Why{Slow: time.Second},
		Drain:   Drain{Timeout: 30 * time.Second},

		AccessLog: AccessLog{Sampling: 100},
		Tracing:   Tracing{Sampling: notSaid},
	}
}

// MeshNode returns the node that the bootstrap file describes. With certificates,
// its identity is the one that they should be for: what they are for, reading
// them says.
func (b *Bootstrap) MeshNode() *mesh.Node {
	n := &mesh.Node{
		Name: b.Node.Name, Address: b.Node.Address, Cluster: b.Node.Cluster,
		Locality:  mesh.ParseLocality(b.Node.Locality),
		Namespace: b.Node.Namespace, ServiceAccount: b.Node.ServiceAccount, Labels: b.Node.Labels,
		TrustDomain: b.TrustDomain, RootNamespace: b.RootNamespace, Domains: b.Domains,
		TrustAliases: b.TrustDomainAliases,
		AllowExec:    b.Probes.AllowExec,
		Through:      b.Gossip.Announce == "through",
	}
	for _, address := range b.Clusters {
		if host, _, err := net.SplitHostPort(address); err == nil {
			n.Asks = append(n.Asks, host)
		}
	}
	for _, to := range b.Tracing.Mesh().Collectors {
		n.Asks = append(n.Asks, to.Host)
	}
	if b.Certificates != (Certificates{}) {
		n.Identity = mesh.Identity{TrustDomain: b.TrustDomain, Namespace: b.Node.Namespace, ServiceAccount: b.Node.ServiceAccount}.String()
	}
	return n
}

// MarshalJSON writes the fields under the names that they have in the file, and
// durations as they are written there.
func (b *Bootstrap) MarshalJSON() ([]byte, error) {
	return json.Marshal(asWritten(reflect.ValueOf(b).Elem()))
}

func asWritten(v reflect.Value) any {
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	if v.Kind() != reflect.Struct {
		return v.Interface()
	}
	out := map[string]any{}
	for i := range v.NumField() {
		out[v.Type().Field(i).Tag.Get("yaml")] = asWritten(v.Field(i))
	}
	return out
}
