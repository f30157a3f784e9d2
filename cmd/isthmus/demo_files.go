package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"isthmus/deploy"
	"isthmus/mesh"
	"isthmus/tls"
)

// layOut reserves ports and writes every file.
func (m *demoMesh) layOut() error {
	var ports []*int
	for _, n := range m.nodes {
		ports = append(ports, &n.outbound, &n.inbound, &n.gateway, &n.admin, &n.gossip)
	}
	for _, a := range m.apps {
		ports = append(ports, &a.port)
	}
	if err := freePorts(ports); err != nil {
		return err
	}
	var key [32]byte
	rand.Read(key[:])
	if err := os.WriteFile(filepath.Join(m.dir, "gossip.key"), []byte(base64.StdEncoding.EncodeToString(key[:])+"\n"), 0o600); err != nil {
		return err
	}
	for _, cluster := range []string{central, west} {
		if err := m.writeConfig(cluster); err != nil {
			return err
		}
	}
	if err := m.writeMachine(); err != nil {
		return err
	}
	if err := m.issue(); err != nil {
		return err
	}
	for _, n := range m.nodes {
		if err := os.WriteFile(m.bootstrapFile(n), []byte(m.bootstrap(n)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The ports of the demonstration lie below those that Linux gives to outgoing
// connections, or one of these could take the port of who is killed for a
// while.
const firstPort, lastPort = 10_000, 32_000

// freePorts finds ports that nobody listens on.
func freePorts(ports []*int) error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for _, p := range ports {
		for {
			*p = firstPort + mathrand.IntN(lastPort-firstPort)
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *p))
			if err == nil {
				held = append(held, l)
				break
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				return err
			}
		}
	}
	return nil
}

// issue gives every proxy a certificate of one authority, by which they speak
// mTLS to each other.
func (m *demoMesh) issue() error {
	dir := filepath.Join(m.dir, "certificates")
	a, err := tls.InitAuthority(dir, mesh.LocalDomain)
	if err != nil {
		return err
	}
	for _, n := range m.nodes {
		id, err := tls.SPIFFEID(mesh.LocalDomain, "production", n.name)
		if err != nil {
			return err
		}
		if _, err := a.Issue(tls.Request{ID: id, TTL: 24 * time.Hour}); err != nil {
			return err
		}
		for _, kind := range []string{"crt", "key"} {
			if err := os.Rename(filepath.Join(dir, "tls."+kind), filepath.Join(dir, n.cluster+"-"+n.name+"."+kind)); err != nil {
				return err
			}
		}
	}
	return nil
}

// withoutTokens is the file of the example that refuses every request to
// user-service: it asks for a claim of tokens that nobody reads there.
const withoutTokens = "07-"

// writeConfig writes the example as the proxies of one cluster read it. The
// applications of both clusters share 127.0.0.1 here, so the target ports
// differ from the example's 8080.
func (m *demoMesh) writeConfig(cluster string) error {
	dir := filepath.Join(m.dir, cluster)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	const root = "examples/multicluster"
	files, err := fs.ReadDir(deploy.Examples, root)
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), withoutTokens) {
			continue
		}
		data, err := fs.ReadFile(deploy.Examples, path.Join(root, f.Name()))
		if err != nil {
			return err
		}
		text := string(data)
		for file, service := range map[string]string{"01-": "user-service", "02-": "order-service"} {
			if strings.HasPrefix(f.Name(), file) {
				text = strings.ReplaceAll(text, "targetPort: 8080", fmt.Sprintf("targetPort: %d", m.app(cluster, service).port))
			}
		}
		// The demonstration has less patience than the example.
		text = strings.ReplaceAll(text, "initialDelaySeconds: 5", "initialDelaySeconds: 0")
		text = strings.ReplaceAll(text, "periodSeconds: 30", "periodSeconds: 1")
		text = strings.ReplaceAll(text, "path: /health\n      port: 8080", fmt.Sprintf("path: /health\n      port: %d", m.app(cluster, "order-service").port))
		// The example's WorkloadEntry is a machine in us-west.
		text = strings.ReplaceAll(text, "address: 10.10.10.10\n  ports:\n    http: 80\n", fmt.Sprintf("address: %s\n  network: %s\n  ports:\n    http: %d\n", elsewhere, west, m.node(west, "machine").inbound))
		if err := os.WriteFile(filepath.Join(dir, f.Name()), []byte(text), 0o644); err != nil {
			return err
		}
	}
	var more strings.Builder
	for _, s := range demoServices[1:4] {
		fmt.Fprintf(&more, `apiVersion: v1
kind: Service
metadata: {name: %s, namespace: production}
spec:
  selector: {%s: "yes"}
  ports: [{name: http, port: 80, targetPort: %d}]
---
`, s, s, m.app(cluster, s).port)
	}
	return os.WriteFile(filepath.Join(dir, "20-more-services.yaml"), []byte(more.String()), 0o644)
}

// writeMachine writes what the proxy on the machine has to know: its service, and
// that nobody speaks plain text.
func (m *demoMesh) writeMachine() error {
	dir := filepath.Join(m.dir, "machine")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "service.yaml"), []byte(fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: order-service, namespace: production}
spec: {selector: {app: order-service}, ports: [{name: http, port: 80, targetPort: %d}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`, m.machine().port)), 0o644)
}

func (m *demoMesh) bootstrapFile(n *demoNode) string {
	return filepath.Join(m.dir, n.cluster+"-"+n.name+".yaml")
}

// demoDomains say which cluster the suffixes in the example's host names mean,
// for whom lives in us-central.
var demoDomains = map[string]string{"cluster.local": central, "cluster.remote": west, "cluster.backup": west, "cluster.premium": west}

// demoLocality is where a cluster is.
func demoLocality(cluster string) string { return cluster + "1/" + cluster + "1-a" }

func (m *demoMesh) bootstrap(n *demoNode) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node:\n  name: %s\n  address: 127.0.0.1\n  cluster: %s\n  locality: %s\n  namespace: production\n  serviceAccount: %s\n  labels:\n", n.name, n.cluster, demoLocality(n.cluster), n.name)
	for k, v := range n.labels {
		fmt.Fprintf(&b, "    %s: %q\n", k, v)
	}
	b.WriteString("domains:\n")
	for d, c := range demoDomains {
		if n.cluster == west { // seen from there, the others are the others
			c = map[string]string{central: west, west: central}[c]
		}
		fmt.Fprintf(&b, "  %s: %s\n", d, c)
	}
	inbound := ""
	switch {
	case n.alone:
		inbound = fmt.Sprintf("%s:%d", elsewhere, n.inbound)
	case n.sidecar:
		inbound = fmt.Sprintf("127.0.0.1:%d", n.inbound)
	}
	certificate := filepath.Join("certificates", n.cluster+"-"+n.name)
	fmt.Fprintf(&b, `listeners:
  outbound: 127.0.0.1:%d
  inbound: %q
  gateway: {bind: 127.0.0.1, ports: {80: %d}}
  admin: 127.0.0.1:%d
  metrics: ""
certificates: {cert: %s.crt, key: %s.key, ca: certificates/ca.crt}
drain: {timeout: 5s}
%s`, n.outbound, inbound, n.gateway, n.admin, certificate, certificate, m.more)
	if n.alone {
		return b.String()
	}
	fmt.Fprintf(&b, `gossip:
  bind: 127.0.0.1:%d
  advertise: 127.0.0.1:%d
  join: [127.0.0.1:%d, 127.0.0.1:%d]
  keys: [gossip.key]
`, n.gossip, n.gossip, m.node(central, "callers").gossip, m.node(west, "callers").gossip)
	return b.String()
}
