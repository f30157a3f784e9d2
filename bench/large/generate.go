package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// namespaces are what the services are spread over.
const namespaces = 50

func namespace(i int) string { return fmt.Sprintf("ns%d", i%namespaces) }

// write makes a folder of n resources, or of what stands for each, in files of a
// hundred.
func write(dir string, n int, resource func(i int) string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := 0; i < n; {
		var b strings.Builder
		file := filepath.Join(dir, fmt.Sprintf("%05d.yaml", i))
		for end := min(n, i+100); i < end; i++ {
			b.WriteString(resource(i))
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func service(i int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata:
  name: s%[1]d
  namespace: %[2]s
spec:
  selector: {app: s%[1]d}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
`, i, namespace(i))
}

func workload(i int) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: w%[1]d
  namespace: %[2]s
spec: {address: 10.%[3]d.%[4]d.1, labels: {app: s%[1]d, version: v1}, locality: us-central1/us-central1-a, serviceAccount: s%[1]d}
---
`, i, namespace(i), i/256, i%256)
}

// mixed is resource i of a set in which five kinds follow each other.
func mixed(i int) string {
	k := i / 5
	ns := namespace(k)
	host := fmt.Sprintf("s%d.%s.svc.cluster.local", k, ns)
	switch i % 5 {
	case 0:
		return service(k)
	case 1:
		return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: s%[1]d
  namespace: %[2]s
spec:
  hosts: [%[3]s]
  http:
  - name: canary
    match:
    - uri: {prefix: /api/v2}
      headers: {x-canary: {exact: "true"}}
    route:
    - destination: {host: %[3]s, subset: v2}
  - name: main
    route:
    - destination: {host: %[3]s, subset: v1}
      weight: 90
    - destination: {host: %[3]s, subset: v2}
      weight: 10
    timeout: 10s
    retries: {attempts: 2, perTryTimeout: 2s, retryOn: "connect-failure,refused-stream"}
---
`, k, ns, host)
	case 2:
		return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: s%[1]d
  namespace: %[2]s
spec:
  host: %[3]s
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 100, connectTimeout: 1s}
      http: {http2MaxRequests: 1000}
    outlierDetection: {consecutive5xxErrors: 5, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50}
    loadBalancer: {simple: LEAST_REQUEST}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
`, k, ns, host)
	case 3:
		return fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: s%[1]d
  namespace: %[2]s
spec:
  selector:
    matchLabels: {app: s%[1]d}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/%[2]s/sa/caller]}}]
    to: [{operation: {methods: [GET, POST], paths: ["/api/*"]}}]
---
`, k, ns)
	}
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: e%[1]d
  namespace: %[2]s
spec:
  hosts: [api%[1]d.partner.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 443, name: tls, protocol: TLS}]
  endpoints: [{address: 192.0.%[3]d.%[4]d}]
---
`, k, ns, k/256, k%256)
}
