package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// many is how many routes and endpoints Isthmus has in the case [routes];
// perService of the endpoints stand behind one service.
const (
	many       = 10_000
	perService = 100
)

// isthmusPeer is Isthmus as a gateway with what real users have switched on:
// rules that match headers before the route taken, header rules, balancing by
// locality, outlier detection and the metrics listener.
func isthmusPeer(binary string) peer {
	return peer{
		name: "isthmus", version: []string{binary, "version"},
		files: isthmusFiles("", endpointLine("127.0.0.1")),
		args: func(s site) []string {
			return []string{binary, "run", "--bootstrap", filepath.Join(s.home, "node.yaml"), "--config", filepath.Join(s.home, "mesh.yaml")}
		},
	}
}

// withManyRoutes is the same proxy with 9,999 routes in front of the one that
// the load takes, to a hundred other services with 10,000 endpoints between them.
func withManyRoutes(p peer) peer {
	var routes, services strings.Builder
	for i := range many / perService {
		fmt.Fprintf(&services, isthmusOther, i)
		for j := range perService {
			services.WriteString(endpointLine(loopback(i*perService + j)))
		}
	}
	for i := 1; i < many; i++ {
		fmt.Fprintf(&routes, "  - {match: [{uri: {prefix: /route-%d/}}], route: [{destination: {host: other%d.bench}}]}\n", i, i%(many/perService))
	}
	p.name = "isthmus, 10,000 routes and endpoints"
	p.files = isthmusFiles(routes.String(), endpointLine("127.0.0.1")+services.String())
	return p
}

// loopback is the i-th of many addresses of this machine: all of 127/8 is.
func loopback(i int) string { return fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250) }

// endpointLine is an endpoint in a ServiceEntry.
func endpointLine(address string) string {
	return fmt.Sprintf("  - {address: %s, ports: {http: @UPSTREAM@}, locality: r1/z1}\n", address)
}

func isthmusFiles(routes, endpoints string) map[string]string {
	return map[string]string{
		"node.yaml": isthmusNode,
		"mesh.yaml": isthmusService + endpoints + isthmusRouting + routes + isthmusRoute,
	}
}

// isthmusNode says how many connections there may be, which would be less than half of the
// files that each process gets here; the slow ones need none behind them.
const isthmusNode = `node: {name: bench, cluster: c1, locality: r1/z1, namespace: default, address: 127.0.0.1, labels: {istio: ingressgateway}}
listeners: {outbound: "", inbound: "", admin: "", metrics: "127.0.0.1:@METRICS@", gateway: {bind: 127.0.0.1, ports: {80: @PORT@}}}
overload: {connections: 12000}
`

// isthmusOther begins a service with its endpoints still to come.
const isthmusOther = `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other%[1]d}
spec:
  hosts: [other%[1]d.bench]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
`

const isthmusService = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s}
spec:
  host: s.bench
  trafficPolicy:
    loadBalancer: {localityLbSetting: {enabled: true}}
    outlierDetection: {consecutive5xxErrors: 5, interval: 10s, baseEjectionTime: 30s}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s}
spec:
  hosts: [s.bench]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
`

const isthmusRouting = `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s}
spec:
  hosts: ["*"]
  gateways: [gw]
  http:
  - {match: [{headers: {x-canary: {exact: "true"}}}], route: [{destination: {host: s.bench}}]}
  - {match: [{headers: {end-user: {prefix: tester-}}}], route: [{destination: {host: s.bench}}]}
  - {match: [{headers: {user-agent: {regex: ".*Mobile.*"}}}], route: [{destination: {host: s.bench}}]}
`

const isthmusRoute = `  - headers:
      request: {set: {x-route: stable}}
      response: {remove: [x-powered-by]}
    route: [{destination: {host: s.bench}}]
`
