package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
)

func group(probe string) []File {
	return []File{{Name: "g.yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: g}
spec:
  metadata: {labels: {app: web}}
  template: {}
  probe: ` + probe + "\n")}}
}

// TestRead_Probes puts Kubernetes' defaults in.
func TestRead_Probes(t *testing.T) {
	usual := mesh.Probe{Source: mesh.Source{File: "g.yaml", Line: 7}, Timeout: time.Second, Period: 10 * time.Second, SuccessThreshold: 1, FailureThreshold: 3}
	with := func(change func(p *mesh.Probe)) *mesh.Probe {
		p := usual
		change(&p)
		return &p
	}
	for _, tt := range []struct {
		name, probe string
		want        *mesh.Probe
	}{
		{"httpGet", "{httpGet: {port: 80}}", with(func(p *mesh.Probe) { p.Port, p.Path = 80, "/" })},
		{"httpGet in full", `{initialDelaySeconds: 5, timeoutSeconds: 3, periodSeconds: 30, successThreshold: 2, failureThreshold: 4,
    httpGet: {port: 80, path: "a?b=c", scheme: HTTPS, host: app.local, httpHeaders: [{name: A, value: "1"}, {name: A, value: "2"}]}}`, with(func(p *mesh.Probe) {
			p.InitialDelay, p.Timeout, p.Period, p.SuccessThreshold, p.FailureThreshold = 5*time.Second, 3*time.Second, 30*time.Second, 2, 4
			p.Port, p.Path, p.TLS, p.Host = 80, "/a?b=c", true, "app.local"
			p.Headers = []mesh.NameValue{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}
		})},
		{"tcpSocket", "{tcpSocket: {port: 81, host: 127.0.0.2}}", with(func(p *mesh.Probe) { p.Kind, p.Port, p.Host = mesh.ProbeTCP, 81, "127.0.0.2" })},
		{"grpc", "{grpc: {port: 82, service: a.B}}", with(func(p *mesh.Probe) { p.Kind, p.Port, p.Service = mesh.ProbeGRPC, 82, "a.B" })},
		{"exec", "{exec: {command: [test, -e, ready]}}", with(func(p *mesh.Probe) { p.Kind, p.Command = mesh.ProbeExec, []string{"test", "-e", "ready"} })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Read(group(tt.probe), nil)
			if len(r.Findings) > 0 {
				t.Fatal(r.Findings)
			}
			if got := r.Config.WorkloadGroups[0].Probe; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestRead_ExecNeedsPermission: the proxy that would run a command says that
// it may not.
func TestRead_ExecNeedsPermission(t *testing.T) {
	for _, tt := range []struct {
		name  string
		node  mesh.Node
		wants bool
	}{
		{"its sidecar", mesh.Node{Namespace: "default", Labels: map[string]string{"app": "web"}}, true},
		{"its sidecar, allowed", mesh.Node{Namespace: "default", Labels: map[string]string{"app": "web"}, AllowExec: true}, false},
		{"another proxy", mesh.Node{Namespace: "default", Labels: map[string]string{"app": "db"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Read(group("\n    exec: {command: [run]}"), &tt.node)
			var text string
			for _, f := range r.Findings {
				text += f.String()
			}
			if got := strings.Contains(text, "g.yaml:7: warning: WorkloadGroup default/g: probe.exec: has no effect"); got != tt.wants {
				t.Errorf("findings %q", text)
			}
		})
	}
}
