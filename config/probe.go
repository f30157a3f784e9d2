package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/http1"
	"isthmus/mesh"
)

// probe reads a ReadinessProbe of a WorkloadGroup. Nil if it is wrong.
func (d *document) probe(p *networking.ReadinessProbe, path string) *mesh.Probe {
	out := &mesh.Probe{
		Source:           d.source(path),
		InitialDelay:     d.seconds(p.InitialDelaySeconds, 0, path+".initialDelaySeconds"),
		Timeout:          d.seconds(p.TimeoutSeconds, 1, path+".timeoutSeconds"),
		Period:           d.seconds(p.PeriodSeconds, 10, path+".periodSeconds"),
		SuccessThreshold: d.threshold(p.SuccessThreshold, 1, path+".successThreshold"),
		FailureThreshold: d.threshold(p.FailureThreshold, 3, path+".failureThreshold"),
	}
	switch m := p.HealthCheckMethod.(type) {
	case *networking.ReadinessProbe_HttpGet:
		d.httpProbe(out, m.HttpGet, path+".httpGet")
	case *networking.ReadinessProbe_TcpSocket:
		out.Kind, out.Port, out.Host = mesh.ProbeTCP, m.TcpSocket.Port, m.TcpSocket.Host
		d.probeAddress(out, path+".tcpSocket")
	case *networking.ReadinessProbe_Grpc:
		out.Kind, out.Port, out.Service = mesh.ProbeGRPC, m.Grpc.Port, m.Grpc.Service
		d.probeAddress(out, path+".grpc")
	case *networking.ReadinessProbe_Exec:
		out.Kind, out.Command = mesh.ProbeExec, m.Exec.Command
		if len(out.Command) == 0 || out.Command[0] == "" {
			d.error(path+".exec.command", "is missing: name the command and its arguments")
		}
	default:
		d.error(path, "says not how to probe: write httpGet, tcpSocket, grpc or exec")
	}
	if d.failed() {
		return nil
	}
	return out
}

func (d *document) httpProbe(out *mesh.Probe, h *networking.HTTPHealthCheckConfig, path string) {
	out.Kind, out.Port, out.Host, out.Path = mesh.ProbeHTTP, h.Port, h.Host, cmp.Or(h.Path, "/")
	d.probeAddress(out, path)
	if out.Path[0] != '/' {
		out.Path = "/" + out.Path
	}
	if _, err := url.ParseRequestURI(out.Path); err != nil {
		d.error(path+".path", fmt.Sprintf("%q is no path", h.Path))
	}
	switch h.Scheme {
	case "", "HTTP":
	case "HTTPS":
		out.TLS = true
	default:
		d.error(path+".scheme", fmt.Sprintf("%q is neither HTTP nor HTTPS", h.Scheme))
	}
	for i, f := range h.HttpHeaders {
		at := fmt.Sprintf("%s.httpHeaders[%d]", path, i)
		switch {
		case f == nil || !http1.ValidName([]byte(f.Name)):
			d.error(at+".name", "is no name of a header")
			continue
		case !http1.ValidValue([]byte(f.Value)):
			d.error(at+".value", "holds what no header can: control characters, or spaces at an end")
		}
		out.Headers = append(out.Headers, mesh.NameValue{Name: f.Name, Value: f.Value})
	}
}

// probeAddress checks where a probe connects to.
func (d *document) probeAddress(p *mesh.Probe, path string) {
	d.checkPort(p.Port, path+".port")
	if p.Host == "" {
		return
	}
	if _, err := netip.ParseAddr(p.Host); err == nil {
		return
	}
	if strings.Contains(p.Host, "*") {
		d.error(path+".host", fmt.Sprintf("%q is no host that one can connect to", p.Host))
		return
	}
	d.checkHost(p.Host, path+".host", false)
}

// seconds reads a time of a probe; 0 stands for its default.
func (d *document) seconds(n, byDefault int32, path string) time.Duration {
	if n < 0 {
		d.error(path, fmt.Sprintf("%d must not be negative", n))
		return 0
	}
	return time.Duration(cmp.Or(n, byDefault)) * time.Second
}

// threshold reads how often in a row; 0 stands for the default.
func (d *document) threshold(n, byDefault int32, path string) uint32 {
	if n < 0 {
		d.error(path, fmt.Sprintf("%d must not be negative", n))
		return 0
	}
	return uint32(cmp.Or(n, byDefault))
}

// checkProbes tells the sidecar that is to run a command that it may not.
func (c *checker) checkProbes(n *mesh.Node) {
	for _, g := range c.config.WorkloadGroups {
		if p := g.Probe; p != nil && p.Kind == mesh.ProbeExec && !n.AllowExec && g.Owns(n.Namespace, n.Labels) {
			c.say(Warning, at(g.Meta, p.Source), "probe.exec", "has no effect: this proxy runs no commands unless its bootstrap file says probes.allowExec: true; until then the workload is not probed")
		}
	}
}
