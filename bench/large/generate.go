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

// document is one of a kind, in the namespace of number i.
func document(api, kind, name string, i int, spec string) string {
	return fmt.Sprintf(`apiVersion: %s
kind: %s
metadata:
  name: %s
  namespace: %s
spec:
%s---
`, api, kind, name, namespace(i), spec)
}

func service(i int) string {
	return document("v1", "Service", fmt.Sprint("s", i), i, fmt.Sprintf(`  selector: {app: s%d}
  ports: [{name: http, port: 80, targetPort: 8080}]
`, i))
}

func workload(i int) string {
	return document("networking.istio.io/v1", "WorkloadEntry", fmt.Sprint("w", i), i, fmt.Sprintf(`  address: 10.%[2]d.%[3]d.1
  labels: {app: s%[1]d, version: v1}
  locality: us-central1/us-central1-a
  serviceAccount: s%[1]d
`, i, i/256, i%256))
}

// mixed is resource i of a set in which five kinds follow each other.
func mixed(i int) string {
	k := i / 5
	name := fmt.Sprint("s", k)
	host := fmt.Sprintf("%s.%s.svc.cluster.local", name, namespace(k))
	switch i % 5 {
	case 0:
		return service(k)
	case 1:
		return document("networking.istio.io/v1", "VirtualService", name, k, fmt.Sprintf(`  hosts: [%[1]s]
  http:
  - name: canary
    match:
    - uri: {prefix: /api/v2}
      headers: {x-canary: {exact: "true"}}
    route:
    - destination: {host: %[1]s, subset: v2}
  - name: main
    route:
    - destination: {host: %[1]s, subset: v1}
      weight: 90
    - destination: {host: %[1]s, subset: v2}
      weight: 10
    timeout: 10s
    retries: {attempts: 2, perTryTimeout: 2s, retryOn: "connect-failure,refused-stream"}
`, host))
	case 2:
		return document("networking.istio.io/v1", "DestinationRule", name, k, fmt.Sprintf(`  host: %s
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 100, connectTimeout: 1s}
      http: {http2MaxRequests: 1000}
    outlierDetection: {consecutive5xxErrors: 5, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50}
    loadBalancer: {simple: LEAST_REQUEST}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`, host))
	case 3:
		return document("security.istio.io/v1", "AuthorizationPolicy", name, k, fmt.Sprintf(`  selector:
    matchLabels: {app: %s}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/%s/sa/caller]}}]
    to: [{operation: {methods: [GET, POST], paths: ["/api/*"]}}]
`, name, namespace(k)))
	}
	return document("networking.istio.io/v1", "ServiceEntry", fmt.Sprint("e", k), k, fmt.Sprintf(`  hosts: [api%[1]d.partner.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 443, name: tls, protocol: TLS}]
  endpoints: [{address: 192.0.%[2]d.%[3]d}]
`, k, k/256, k%256))
}
