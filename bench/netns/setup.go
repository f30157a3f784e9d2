package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// setup is the configuration that a scenario runs with.
type setup struct {
	services []string // that have sidecars, and so are known to all by gossip
	mesh     string   // resources that every proxy reads
	caller   string   // resources that the callers' proxy reads besides

	labels    map[string]string // of every pod, besides
	bootstrap string            // fields of every proxy's bootstrap file, besides
}

// configure writes what the proxies read.
func (w *world) configure(s setup) error {
	var known strings.Builder
	for _, name := range s.services {
		known.WriteString(serviceResource(name))
	}
	for file, text := range map[string]string{"mesh/services.yaml": known.String(), "mesh/rules.yaml": s.mesh, "caller/rules.yaml": s.caller} {
		file = filepath.Join(w.dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := replaceFile(file, text); err != nil {
			return err
		}
	}
	for _, p := range w.pods() {
		if err := os.WriteFile(w.bootstrapFile(p), []byte(w.bootstrap(p, s)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile writes a file that a proxy may be reading: it sees the one before
// or the new one.
func replaceFile(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// serviceResource is a Service whose pods bear its name as a label.
func serviceResource(name string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: production}
spec:
  selector: {%s: "yes"}
  ports: [{name: http, port: 80, targetPort: %d}]
---
`, name, name, servicePort(name))
}

func (w *world) bootstrapFile(p *pod) string { return filepath.Join(w.dir, p.name+".yaml") }

// domains say which cluster the suffixes of host names mean in us-central.
const domains = "{cluster.local: us-central, cluster.remote: us-west, cluster.backup: eu-west, cluster.premium: eu-west}"

func (w *world) bootstrap(p *pod, s setup) string {
	labels := map[string]string{"pod": p.name}
	maps.Copy(labels, s.labels)
	if p != w.caller {
		for _, name := range s.services {
			labels[name] = "yes"
		}
	}
	text, _ := json.Marshal(labels) // a map of strings
	var join []string
	for _, c := range w.clusters {
		join = append(join, c.pods[0].address+":7946")
	}
	return fmt.Sprintf(`node:
  name: %s
  address: %s
  cluster: %s
  locality: %s
  namespace: production
  labels: %s
domains: %s
listeners:
  outbound: 127.0.0.1:15001
  inbound: 0.0.0.0:15006
  gateway: {bind: 127.0.0.1}
  admin: 127.0.0.1:15000
  metrics: ""
gossip:
  bind: 0.0.0.0:7946
  advertise: %s:7946
  join: [%s]
  keys: [gossip.key]
%s`, p.name, p.address, p.cluster.name, p.cluster.locality(), text, domains, p.address, strings.Join(join, ", "), s.bootstrap)
}
