package main

import (
	"fmt"
	"time"
)

// webHost is the service that the scenarios of links, endpoints and clusters
// call.
const webHost = "web.production.global"

// policy is what an operator sets for a service that three clusters serve.
type policy struct {
	connectTimeout time.Duration // 0: Istio's, 10 s
	perTryTimeout  time.Duration
	ejection       time.Duration // baseEjectionTime
	warmup         time.Duration // 0: none
}

// lan suits services that reply within a few milliseconds over the links as
// they are: a connection may take more than twice the longest round trip of
// 30 ms, a try more than three times as long.
var lan = policy{connectTimeout: 80 * time.Millisecond, perTryTimeout: 100 * time.Millisecond, ejection: 30 * time.Second}

// wan suits links whose round trip may grow to 160 ms, and that lose packets:
// Linux sends one again after 200 ms at the earliest.
var wan = policy{connectTimeout: 500 * time.Millisecond, perTryTimeout: time.Second, ejection: 30 * time.Second}

// String says what is set, for the report.
func (p policy) String() string {
	connect := "not set (10s)"
	if p.connectTimeout > 0 {
		connect = p.connectTimeout.String()
	}
	s := fmt.Sprintf("connectTimeout %v, perTryTimeout %v, attempts 3 on gateway-error, connect-failure, reset, retryRemoteLocalities; "+
		"outlierDetection: 3 local-origin failures, 5 × 5xx, baseEjectionTime %v, maxEjectionPercent 100", connect, p.perTryTimeout, p.ejection)
	if p.warmup > 0 {
		s += fmt.Sprintf("; warmup %v", p.warmup)
	}
	return s
}

// setup is the configuration of the policy: of all requests from us-central,
// 40 % stay, 40 % go to us-west and 20 % to eu-west, so that each link has
// something to lose.
func (p policy) setup() setup {
	connect, warmup := "", ""
	if p.connectTimeout > 0 {
		connect = fmt.Sprintf("\n    connectionPool: {tcp: {connectTimeout: %v}}", p.connectTimeout)
	}
	if p.warmup > 0 {
		warmup = fmt.Sprintf("\n      warmup: {duration: %v}", p.warmup)
	}
	return setup{services: []string{"web"}, mesh: fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: production}
spec:
  host: %[1]s
  trafficPolicy:
    loadBalancer:
      simple: LEAST_REQUEST
      localityLbSetting:
        distribute:
        - from: us-central1/*
          to: {"us-central1/*": 40, "us-west1/*": 40, "eu-west1/*": 20}%[5]s%[2]s
    outlierDetection:
      splitExternalLocalOriginErrors: true
      consecutiveLocalOriginFailures: 3
      consecutive5xxErrors: 5
      interval: 1s
      baseEjectionTime: %[4]v
      maxEjectionPercent: 100
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: production}
spec:
  hosts: [%[1]s]
  http:
  - route: [{destination: {host: %[1]s}}]
    timeout: 5s
    retries:
      attempts: 3
      perTryTimeout: %[3]v
      retryOn: gateway-error,connect-failure,reset
      retryRemoteLocalities: true
`, webHost, connect, p.perTryTimeout, p.ejection, warmup)}
}

// overload is a route that tries every 5xx again, and nothing else.
var overload = setup{services: []string{"web"}, mesh: `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: production}
spec:
  hosts: [` + webHost + `]
  http:
  - route: [{destination: {host: ` + webHost + `}}]
    retries: {attempts: 3, retryOn: 5xx}
`}
