package admin

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Endpoint is an endpoint as it is shown.
type Endpoint struct {
	Service  string            `json:"service"`
	Port     uint32            `json:"port"`
	Address  string            `json:"address"`
	Cluster  string            `json:"cluster"`
	Locality string            `json:"locality"`
	Healthy  bool              `json:"healthy"` // may get traffic
	Reason   string            `json:"reason,omitempty"`
	Source   string            `json:"source"`
	Owner    string            `json:"owner"`
	Hostname string            `json:"hostname,omitempty"` // of the Pod: the name before the service's by which it is asked for alone
	Weight   uint32            `json:"weight"`
	Labels   map[string]string `json:"labels"`
	Identity string            `json:"identity"`
	Age      float64           `json:"age"` // seconds
}

// Host is what the proxy has found out of an endpoint of one upstream.
type Host struct {
	Upstream string `json:"upstream"`
	Address  string `json:"address"`
	Healthy  bool   `json:"healthy"`
	Reason   string `json:"reason,omitempty"`
	Active   int    `json:"active"`
}

// ProbeCount is how many probes ended alike.
type ProbeCount struct {
	Of     string // "workload", by a WorkloadGroup, or "endpoint", of another cluster or a dead member
	Result string // "success" or "failure"
	Count  uint64
}

// WriteEndpoints writes endpoints for people.
func WriteEndpoints(w io.Writer, list []Endpoint) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tPORT\tADDRESS\tCLUSTER\tLOCALITY\tHEALTH\tSOURCE\tOWNER\tAGE")
	for _, e := range list {
		health := "healthy"
		if !e.Healthy {
			health = "unhealthy (" + e.Reason + ")"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Service, e.Port, e.Address, e.Cluster, dash(e.Locality), health, e.Source, dash(e.Owner), age(e.Age))
	}
	t.Flush()
}

// writeClusters writes hosts as Envoy's /clusters does, for scripts that know
// it.
func writeClusters(w io.Writer, list []Host) {
	for _, h := range list {
		flags := "healthy"
		if !h.Healthy {
			flags = "/failed_outlier_check"
		}
		fmt.Fprintf(w, "%s::%s::rq_active::%d\n%s::%s::health_flags::%s\n", h.Upstream, h.Address, h.Active, h.Upstream, h.Address, flags)
	}
}

func endpointTexts(b []byte, e *Endpoint) []byte {
	health := "healthy"
	if !e.Healthy {
		health = "unhealthy"
	}
	b = texts(b, e.Service, e.Address, e.Cluster, e.Locality, health, e.Reason, e.Source, e.Owner, e.Identity)
	for k, v := range e.Labels {
		b = texts(b, k)
		b[len(b)-1] = '='
		b = texts(b, v)
	}
	return b
}
