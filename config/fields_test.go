package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
)

// bare takes off where things stand in a file, in all of v.
func bare(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			bare(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			bare(v.Index(i))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			bare(v.MapIndex(k)) // of pointers, or without a source
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[mesh.Source]() || v.Type() == reflect.TypeFor[mesh.Meta]() {
			if v.CanSet() {
				v.SetZero()
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				bare(v.Field(i))
			}
		}
	}
}

// same reports where two values differ that are the same but for where they stand; "": nowhere.
func same[T any](got, want *T) string {
	if bare(reflect.ValueOf(got)); reflect.DeepEqual(got, want) {
		return ""
	}
	return fmt.Sprintf("got  %+v\nwant %+v", *got, *want)
}

// readOne reads the spec of a resource of namespace prod, and fails if it is refused.
func readOne(t *testing.T, group, kind, spec string) *mesh.Config {
	t.Helper()
	r := Read([]File{{Name: "f.yaml", Data: fmt.Appendf(nil, "apiVersion: %s\nkind: %s\nmetadata: {name: a, namespace: prod}\nspec: {%s}\n", group, kind, spec)}}, nil)
	for _, f := range r.Findings {
		if f.Severity == Error {
			t.Fatal(f)
		}
	}
	return r.Config
}

// refused holds that a spec is an error with a text.
func refused(t *testing.T, group, kind, spec, want string) {
	t.Helper()
	r := Read([]File{{Name: "f.yaml", Data: fmt.Appendf(nil, "apiVersion: %s\nkind: %s\nmetadata: {name: a, namespace: prod}\nspec: {%s}\n", group, kind, spec)}}, nil)
	for _, f := range r.Findings {
		if f.Severity == Error && strings.Contains(f.String(), want) {
			return
		}
	}
	t.Errorf("%s: %v, want an error with %q", spec, r.Findings, want)
}

const networkingV1 = "networking.istio.io/v1"

// TestDestinationRule_Fields: every field of a policy gets to where it is asked for, and what
// is left out has its default.
func TestDestinationRule_Fields(t *testing.T) {
	idle := 30 * time.Minute
	for _, tt := range []struct {
		policy string
		want   mesh.TrafficPolicy
	}{
		{"connectionPool: {}, outlierDetection: {}, tls: {}", mesh.TrafficPolicy{
			ConnectionPool: &mesh.ConnectionPool{},
			OutlierDetection: &mesh.OutlierDetection{
				Consecutive5xx: 5, ConsecutiveLocalOrigin: 5, Interval: 10 * time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionPercent: 10,
			},
			TLS: &mesh.ClientTLS{},
		}},
		{`connectionPool: {tcp: {maxConnections: 1, connectTimeout: 2s, maxConnectionDuration: 3s, idleTimeout: 30m, tcpKeepalive: {probes: 4, time: 5s, interval: 6s}},
			http: {http1MaxPendingRequests: 7, http2MaxRequests: 8, maxRequestsPerConnection: 9, maxRetries: 10, idleTimeout: 11s, h2UpgradePolicy: UPGRADE,
			maxConcurrentStreams: 12, http2KeepAlive: {interval: 13s, timeout: 14s}}}`, mesh.TrafficPolicy{ConnectionPool: &mesh.ConnectionPool{
			MaxConnections: 1, ConnectTimeout: 2 * time.Second, MaxDuration: 3 * time.Second, TCPIdleTimeout: &idle,
			KeepAlive:  &mesh.TCPKeepAlive{Probes: 4, Time: 5 * time.Second, Interval: 6 * time.Second},
			MaxPending: 7, MaxRequests: 8, MaxRequestsPerCon: 9, MaxRetries: 10, IdleTimeout: 11 * time.Second, UpgradeHTTP2: true,
			MaxStreams: 12, HTTP2KeepAlive: &mesh.HTTP2KeepAlive{Interval: 13 * time.Second, Timeout: 14 * time.Second},
		}}},
		{"connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: DO_NOT_UPGRADE}}", mesh.TrafficPolicy{ConnectionPool: &mesh.ConnectionPool{UseClientProtocol: true}}},
		{`outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 1, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, interval: 3s,
			baseEjectionTime: 4s, maxEjectionPercent: 100, minHealthPercent: 50, outlierDetectionHttpErrorCodes: [100, 599]}`, mesh.TrafficPolicy{OutlierDetection: &mesh.OutlierDetection{
			ConsecutiveGatewayErrors: 1, SplitLocalOrigin: true, ConsecutiveLocalOrigin: 2, Interval: 3 * time.Second, BaseEjectionTime: 4 * time.Second,
			MaxEjectionPercent: 100, MinHealthPercent: 50, ErrorCodes: []int{100, 599},
		}}},
		{"tls: {mode: SIMPLE, sni: s, subjectAltNames: [n], caCertificates: ca, caCrl: crl}", mesh.TrafficPolicy{TLS: &mesh.ClientTLS{
			Mode: mesh.TLSSimple, SNI: "s", SubjectAltNames: []string{"n"}, Files: mesh.TLSFiles{Roots: "ca", Revoked: "crl"},
		}}},
		{"tls: {mode: SIMPLE, clientCertificate: c, privateKey: k, insecureSkipVerify: true}", mesh.TrafficPolicy{TLS: &mesh.ClientTLS{Mode: mesh.TLSSimple, SkipVerify: true}}},
		{"tls: {mode: MUTUAL, credentialName: c}", mesh.TrafficPolicy{TLS: &mesh.ClientTLS{Mode: mesh.TLSMutual, Credential: "c"}}},
		{"tls: {mode: MUTUAL, clientCertificate: c, privateKey: k}", mesh.TrafficPolicy{TLS: &mesh.ClientTLS{Mode: mesh.TLSMutual, Files: mesh.TLSFiles{Certificate: "c", Key: "k"}}}},
		{"tls: {mode: ISTIO_MUTUAL}", mesh.TrafficPolicy{TLS: &mesh.ClientTLS{Mode: mesh.TLSIstioMutual}}},
		{`loadBalancer: {localityLbSetting: {enabled: false, distribute: [{from: "a/*", to: {"b/*": 30, "a/*": 70}}, {from: b, to: {b: 100}}]}}`, mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{
			Locality: &mesh.LocalityLB{Disabled: true, Distribute: []mesh.Distribute{
				{From: "a/*", To: []mesh.LocalityShare{{Locality: "a/*", Percent: 70}, {Locality: "b/*", Percent: 30}}}, {From: "b", To: []mesh.LocalityShare{{Locality: "b", Percent: 100}}},
			}},
		}}},
		{"loadBalancer: {localityLbSetting: {enabled: true, failover: [{from: a, to: b}], failoverPriority: [x, y=z]}}", mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{
			Locality: &mesh.LocalityLB{Failover: []mesh.Failover{{From: "a", To: "b"}}, FailoverPriority: []string{"x", "y=z"}},
		}}},
		{"loadBalancer: {zoneAwareLbSetting: {minClusterSize: 0, failoverPriority: [x]}}", mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{
			Locality: &mesh.LocalityLB{LeastHosts: 1, FailoverPriority: []string{"x"}},
		}}},
		{"loadBalancer: {consistentHash: {httpCookie: {name: c, path: /p, ttl: 1s, attributes: [{name: SameSite, value: Lax}]}}}", mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{
			Kind: mesh.RingHash, Hash: &mesh.HashPolicy{TableSize: 1024, Cookie: &mesh.HashCookie{
				Name: "c", Path: "/p", Generate: true, TTL: time.Second, Attributes: []mesh.NameValue{{Name: "SameSite", Value: "Lax"}},
			}},
		}}},
		{"loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}}", mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{Kind: mesh.Maglev, Hash: &mesh.HashPolicy{SourceIP: true, TableSize: 5000011}}}},
		{"loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388608}}}", mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{Kind: mesh.RingHash, Hash: &mesh.HashPolicy{SourceIP: true, TableSize: 8388608}}}},
		{"loadBalancer: {simple: RANDOM, warmup: {duration: 1ms, minimumPercent: 0}}", mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{Kind: mesh.Random, Warmup: &mesh.Warmup{Duration: time.Millisecond, Aggression: 1}}}},
		{"loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 1s, minimumPercent: 100}}", mesh.TrafficPolicy{LoadBalancer: &mesh.LoadBalancer{Kind: mesh.RoundRobin, Warmup: &mesh.Warmup{Duration: time.Second, MinPercent: 100, Aggression: 1}}}},
		{"retryBudget: {percent: 0}", mesh.TrafficPolicy{RetryBudget: &mesh.RetryBudget{MinConcurrency: 3}}},
		{"retryBudget: {percent: 100}", mesh.TrafficPolicy{RetryBudget: &mesh.RetryBudget{Percent: 100, MinConcurrency: 3}}},
		{"portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 1}}}, {port: {number: 81}, outlierDetection: {consecutive5xxErrors: 1}}]", mesh.TrafficPolicy{PortLevel: map[uint32]*mesh.TrafficPolicy{
			80: {ConnectionPool: &mesh.ConnectionPool{MaxConnections: 1}},
			81: {OutlierDetection: &mesh.OutlierDetection{Consecutive5xx: 1, ConsecutiveLocalOrigin: 5, Interval: 10 * time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionPercent: 10}},
		}}},
	} {
		c := readOne(t, networkingV1, "DestinationRule", "host: s, exportTo: [.], subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {"+tt.policy+"}}], trafficPolicy: {"+tt.policy+"}")
		rule := c.DestinationRules[0]
		want := &mesh.DestinationRule{Host: "s.prod.svc.cluster.local", ExportTo: []string{"."}, Policy: tt.want, Subsets: []mesh.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}, Policy: tt.want}}}
		if rule.Name != "a" || rule.Namespace != "prod" {
			t.Errorf("it is %s/%s", rule.Namespace, rule.Name)
		}
		if diff := same(rule, want); diff != "" {
			t.Errorf("%s:\n%s", tt.policy, diff)
		}
	}
}

// TestDestinationRule_Refuses: what a policy cannot mean is an error, at each end of what it can.
func TestDestinationRule_Refuses(t *testing.T) {
	for _, tt := range []struct{ policy, want string }{
		{"outlierDetection: {maxEjectionPercent: -1}", "-1 is not between 0 and 100"},
		{"outlierDetection: {minHealthPercent: 101}", "101 is not between 0 and 100"},
		{"outlierDetection: {outlierDetectionHttpErrorCodes: [99]}", "99 is not between 100 and 599"},
		{"outlierDetection: {outlierDetectionHttpErrorCodes: [600]}", "600 is not between 100 and 599"},
		{"connectionPool: {tcp: {maxConnections: -1}}", "tcp.maxConnections: must not be negative"},
		{"connectionPool: {http: {maxRetries: -1}}", "http.maxRetries: must not be negative"},
		{"connectionPool: {http: {http2KeepAlive: {timeout: 1s}}}", "http2KeepAlive.interval: is wanted"},
		{"connectionPool: {http: {http2KeepAlive: {interval: 1s}}}", "http2KeepAlive.timeout: is wanted"},
		{"tls: {mode: MUTUAL, clientCertificate: c}", "mode MUTUAL needs credentialName"},
		{"tls: {mode: MUTUAL, privateKey: k}", "mode MUTUAL needs credentialName"},
		{"tls: {mode: ISTIO_MUTUAL, caCertificates: ca}", "takes no certificates"},
		{"portLevelSettings: [{tls: {mode: SIMPLE}}]", "portLevelSettings[0].port: is missing"},
		{"portLevelSettings: [{port: {number: 0}}]", "port 0 is not between"},
		{"portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]", "port 80 is given twice"},
		{"loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}", "100 is no prime number"},
		{"loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 5000077}}}", "is no prime number up to"}, // a prime
		{"loadBalancer: {consistentHash: {httpHeaderName: ':host'}}", "is no header name"},
		{"loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0.5s}}}", "a cookie lives for whole seconds"},
		{"loadBalancer: {consistentHash: {httpCookie: {name: c, path: '/a;b'}}}", "cannot stand in a cookie"},
		{"loadBalancer: {consistentHash: {httpCookie: {name: c, attributes: [{name: a, value: \"x\\ny\"}]}}}", "cannot stand in a cookie"},
		{"loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388609}}}", "8388609 is more than 8388608"},
		{"loadBalancer: {consistentHash: {httpCookie: {name: c, attributes: [{name: 'a b', value: x}]}}}", "cannot stand in a cookie"},
		{"loadBalancer: {warmup: {duration: 0s}}", "needs a duration of 1ms or more"},
		{"loadBalancer: {warmup: {duration: 1s, minimumPercent: -1}}", "-1 is not between 0 and 100"},
		{"loadBalancer: {warmup: {duration: 1s, minimumPercent: 101}}", "101 is not between 0 and 100"},
		{"loadBalancer: {warmup: {duration: 1s, aggression: 0}}", "0 is not more than 0"},
		{"loadBalancer: {localityLbSetting: {}, zoneAwareLbSetting: {}}", "cannot stand beside localityLbSetting"},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 100}}, {from: 'a/*', to: {a: 100}}]}}", "overlaps with"},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 101}}]}}", "101 is not between 1 and 100"},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 0, b: 100}}]}}", "0 is not between 1 and 100"},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a//b, to: {a: 100}}]}}", "is no locality"},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {'*/b': 100}}]}}", "a * may only stand for the last part"},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a/b*, to: {a: 100}}]}}", "a * may only stand for the last part"},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a/b, to: {a: 100}}, {from: a, to: {a: 100}}]}}", `"a" overlaps with "a/b"`},
		{"loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 50, a/b: 50}}]}}", `"a/b" overlaps with "a"`},
		{"loadBalancer: {localityLbSetting: {failover: [{from: 'a*', to: b}]}}", "without a zone and without *"},
		{"loadBalancer: {zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/zone=a]}}", "is looked at by itself"},
		{"retryBudget: {percent: 101}", "101 is not between 0 and 100"},
		{"retryBudget: {percent: -1}", "-1 is not between 0 and 100"},
	} {
		refused(t, networkingV1, "DestinationRule", "host: s, trafficPolicy: {"+tt.policy+"}", tt.want)
	}
	refused(t, networkingV1, "DestinationRule", "host: s, subsets: [{name: 'a b'}]", `"a b" is no name`)
	refused(t, networkingV1, "DestinationRule", "host: s, exportTo: ['a b']", "exportTo")
	for _, annotation := range []string{inboundAnnotation, adaptiveAnnotation} {
		for value, want := range map[string]int{"true": 0, "false": 0, "": 0, "yes": 1} {
			r := Read([]File{{Name: "f.yaml", Data: fmt.Appendf(nil, "apiVersion: %s\nkind: DestinationRule\nmetadata: {name: a, annotations: {%s: '%s'}}\nspec: {host: a.test}\n", networkingV1, annotation, value)}}, nil)
			rule := r.Config.DestinationRules[0]
			if on := annotation == inboundAnnotation && rule.Inbound || annotation == adaptiveAnnotation && rule.Adaptive; r.Count(Error) != want || on != (value == "true") {
				t.Errorf("%s: %q is read as %v, findings %v", annotation, value, on, r.Findings)
			}
		}
	}
}

// TestDestinationRule_NoCertificate: who asks for the proxy's own certificate, in a subset and for a
// port, too, is named where it has none, and nowhere else.
func TestDestinationRule_NoCertificate(t *testing.T) {
	const mutual, simple = "tls: {mode: ISTIO_MUTUAL}", "tls: {mode: SIMPLE}"
	for _, tt := range []struct {
		name, spec string
		node       *mesh.Node
		want       int
	}{
		{"the rule", "trafficPolicy: {" + mutual + "}", &mesh.Node{}, 1},
		{"another mode", "trafficPolicy: {" + simple + "}", &mesh.Node{}, 0},
		{"no mode", "trafficPolicy: {outlierDetection: {}}", &mesh.Node{}, 0},
		{"a port", "trafficPolicy: {" + simple + ", portLevelSettings: [{port: {number: 80}, " + mutual + "}]}", &mesh.Node{}, 1},
		{"a subset", "subsets: [{name: v1, trafficPolicy: {" + mutual + "}}]", &mesh.Node{}, 1},
		{"a subset's port", "subsets: [{name: v1, trafficPolicy: {portLevelSettings: [{port: {number: 80}, " + mutual + "}]}}]", &mesh.Node{}, 1},
		{"it has one", "trafficPolicy: {" + mutual + "}", &mesh.Node{Identity: "spiffe://td/ns/a/sa/b"}, 0},
		{"no proxy is meant", "trafficPolicy: {" + mutual + "}", nil, 0},
	} {
		r, got := Read([]File{{Name: "f.yaml", Data: []byte("apiVersion: " + networkingV1 + "\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a.test, " + tt.spec + "}\n")}}, tt.node), 0
		for _, f := range r.Findings {
			if f.Code == ISM0027 {
				got++
			}
		}
		if got != tt.want {
			t.Errorf("%s: %v, want %d", tt.name, r.Findings, tt.want)
		}
	}
}

// TestVirtualService_Fields: every field of a rule gets to where it is asked for.
func TestVirtualService_Fields(t *testing.T) {
	yes := true
	for _, tt := range []struct {
		rule string
		want mesh.HTTPRoute
	}{
		{`name: r, timeout: 1s, match: [{name: m, uri: {prefix: /p}, scheme: {exact: https}, method: {exact: GET}, authority: {exact: h}, headers: {X-A: {exact: v}, x-b: {}},
			withoutHeaders: {x-c: {prefix: v}}, queryParams: {Q: {exact: v}}, ignoreUriCase: true, port: 80, sourceLabels: {app: web}, sourceNamespace: n, gateways: [g, o/g, mesh]}],
			route: [{destination: {host: s, subset: v1, port: {number: 80}}, weight: 90, headers: {request: {set: {X-D: d}}}}, {destination: {host: b.test}, weight: 10, headers: {response: {remove: [X-E]}}}],
			headers: {request: {add: {X-F: f}}, response: {set: {X-G: g}}}`,
			mesh.HTTPRoute{
				Name: "r", Timeout: time.Second, Timed: true,
				Match: []*mesh.HTTPMatch{{
					Name: "m", URI: &mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "/p"}, Scheme: &mesh.StringMatch{Value: "https"}, Method: &mesh.StringMatch{Value: "GET"}, Authority: &mesh.StringMatch{Value: "h"},
					Headers:        []mesh.NamedMatch{{Name: "x-a", StringMatch: mesh.StringMatch{Value: "v"}}, {Name: "x-b", StringMatch: mesh.StringMatch{Kind: mesh.MatchPresent}}},
					WithoutHeaders: []mesh.NamedMatch{{Name: "x-c", StringMatch: mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "v"}}},
					QueryParams:    []mesh.NamedMatch{{Name: "Q", StringMatch: mesh.StringMatch{Value: "v"}}}, IgnoreURICase: true,
					ProxyMatch: mesh.ProxyMatch{Port: 80, SourceLabels: map[string]string{"app": "web"}, SourceNamespace: "n", Gateways: []string{"prod/g", "o/g", "mesh"}},
				}},
				Route: []mesh.RouteDestination{
					{Destination: mesh.Destination{Host: "s.prod.svc.cluster.local", Subset: "v1", Port: 80}, Weight: 90, Headers: mesh.HeaderRules{Request: mesh.HeaderOps{Set: []mesh.NameValue{{Name: "x-d", Value: "d"}}}}},
					{Destination: mesh.Destination{Host: "b.test"}, Weight: 10, Headers: mesh.HeaderRules{Response: mesh.HeaderOps{Remove: []string{"x-e"}}}},
				},
				Headers: mesh.HeaderRules{Request: mesh.HeaderOps{Add: []mesh.NameValue{{Name: "x-f", Value: "f"}}}, Response: mesh.HeaderOps{Set: []mesh.NameValue{{Name: "x-g", Value: "g"}}}},
			}},
		{"match: [{headers: {':authority': {exact: h}, ':method': {exact: GET}, ':scheme': {exact: http}, ':path': {prefix: /p}, '@request.auth.claims.a.b': {exact: c}}}], directResponse: {status: 599, body: {string: s}}",
			mesh.HTTPRoute{
				Match: []*mesh.HTTPMatch{{
					URI: &mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "/p"}, Scheme: &mesh.StringMatch{Value: "http"}, Method: &mesh.StringMatch{Value: "GET"}, Authority: &mesh.StringMatch{Value: "h"},
					Headers: []mesh.NamedMatch{{Name: "@request.auth.claims.a.b", Claim: []string{"a", "b"}, StringMatch: mesh.StringMatch{Value: "c"}}},
				}},
				DirectResponse: &mesh.DirectResponse{Status: 599, Body: []byte("s")},
			}},
		{"match: [{headers: {':path': {prefix: /p}}}, {headers: {':scheme': {exact: http}}}, {headers: {':method': {exact: GET}}}, {headers: {':authority': {exact: h}}}], directResponse: {status: 200}",
			mesh.HTTPRoute{
				Match: []*mesh.HTTPMatch{
					{URI: &mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "/p"}}, {Scheme: &mesh.StringMatch{Value: "http"}}, {Method: &mesh.StringMatch{Value: "GET"}}, {Authority: &mesh.StringMatch{Value: "h"}},
				},
				DirectResponse: &mesh.DirectResponse{Status: 200, Body: []byte{}},
			}},
		{"directResponse: {status: 200, body: {bytes: aGk=}}", mesh.HTTPRoute{DirectResponse: &mesh.DirectResponse{Status: 200, Body: []byte("hi")}}},
		{"delegate: {name: d}", mesh.HTTPRoute{Delegate: &mesh.Delegate{Namespace: "prod", Name: "d"}}},
		{"delegate: {name: d, namespace: n}", mesh.HTTPRoute{Delegate: &mesh.Delegate{Namespace: "n", Name: "d"}}},
		{"rewrite: {uri: /u, authority: h}, route: [{destination: {host: b.test}}], retries: {attempts: 3, perTryTimeout: 1s, backoff: 2s, retryOn: '5xx,100,599', retryRemoteLocalities: true, retryIgnorePreviousHosts: true}",
			mesh.HTTPRoute{
				Route:   []mesh.RouteDestination{{Destination: mesh.Destination{Host: "b.test"}}},
				Rewrite: &mesh.Rewrite{URI: "/u", HasURI: true, Authority: "h"},
				Retries: &mesh.Retries{
					Attempts: 3, PerTryTimeout: time.Second, Backoff: 2 * time.Second, On: mesh.Retry5xx | mesh.RetryRetriableStatusCodes, Codes: []int{100, 599},
					RemoteLocalities: true, IgnorePreviousHosts: &yes, Explicit: true,
				},
			}},
		{"retries: {attempts: 0}, route: [{destination: {host: b.test}}]", mesh.HTTPRoute{
			Route: []mesh.RouteDestination{{Destination: mesh.Destination{Host: "b.test"}}}, Retries: &mesh.Retries{On: mesh.DefaultRetries.On},
		}},
		{"retries: {attempts: 1}, rewrite: {authority: h}, route: [{destination: {host: b.test}}]", mesh.HTTPRoute{
			Route:   []mesh.RouteDestination{{Destination: mesh.Destination{Host: "b.test"}}},
			Rewrite: &mesh.Rewrite{Authority: "h"},
			Retries: &mesh.Retries{Attempts: 1, On: mesh.DefaultRetries.On},
		}},
	} {
		v := readOne(t, networkingV1, "VirtualService", "hosts: [W.Test., s, '2001:DB8::1'], gateways: [g, o/g], exportTo: ['*'], http: [{"+tt.rule+"}]").VirtualServices[0]
		want := &mesh.VirtualService{
			Hosts: []string{"w.test", "s.prod.svc.cluster.local", "[2001:db8::1]"}, Gateways: []string{"prod/g", "o/g"}, ExportTo: []string{"*"}, HTTP: []*mesh.HTTPRoute{&tt.want}, Priority: mesh.P2,
		}
		if diff := same(v, want); diff != "" {
			t.Errorf("%s:\n%s\n%s", tt.rule, diff, same(v.HTTP[0], &tt.want))
		}
	}
}

// TestVirtualService_Refuses: what a rule cannot mean is an error.
func TestVirtualService_Refuses(t *testing.T) {
	const route = "route: [{destination: {host: b.test}}]"
	for _, tt := range []struct{ rule, want string }{
		{"directResponse: {status: 199}", "199 is not between 200 and 599"},
		{"directResponse: {status: 600}", "600 is not between 200 and 599"},
		{"directResponse: {status: 200}, rewrite: {uri: /}", "rewrite: needs a route"},
		{"directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}", "fault: needs a route"},
		{"delegate: {}", "delegate.name: is missing"},
		{"route: [{weight: 1}]", "destination: is missing"},
		{"route: [{destination: {host: b.test, port: {number: 70000}}}]", "port 70000 is not between"},
		{route + ", mirror: {host: b.test}, mirrors: [{destination: {host: b.test}}]", "cannot stand beside mirror"},
		{route + ", rewrite: {}", "rewrite: changes nothing"},
		{route + ", rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}", "cannot stand beside uri"},
		{route + ", rewrite: {uriRegexRewrite: {match: 'a(', rewrite: b}}", "uriRegexRewrite.match"},
		{route + ", retries: {attempts: -1}", "must not be negative"},
		{route + ", retries: {attempts: 0, perTryTimeout: 1s}", "is 0, which turns retries off"},
		{route + ", retries: {attempts: 0, retryRemoteLocalities: true}", "is 0, which turns retries off"},
		{route + ", retries: {attempts: 1, retryOn: '99'}", "99 is no status"},
		{route + ", retries: {attempts: 1, retryOn: '600'}", "600 is no status"},
		{route + ", headers: {request: {remove: ['a b']}}", `"a b" is no header name`},
		{route + ", headers: {response: {add: {':authority': a}}}", `":authority" is no header name`},
		{"route: [{destination: {host: 'a b'}}]", "is no host name"},
		{route + ", match: [{port: 65536}]", "port 65536 is not between"},
		{route + ", match: [{uri: {prefix: ''}}]", "prefix: is empty"},
		{route + ", match: [{headers: {'@request.auth.claims': {exact: a}}}]", "no claim of a token"},
	} {
		refused(t, networkingV1, "VirtualService", "hosts: [a.test], http: [{"+tt.rule+"}]", tt.want)
	}
	refused(t, networkingV1, "VirtualService", "hosts: [a.test]", "http: is missing")
	refused(t, networkingV1, "VirtualService", "hosts: [a.test], exportTo: ['a b'], http: [{"+route+"}]", "exportTo")
}

// TestVirtualService_Priority: the annotation says how important requests are, or is refused.
func TestVirtualService_Priority(t *testing.T) {
	for annotation, want := range map[string]mesh.Priority{"": mesh.P2, "isthmus.io/priority: P1": mesh.P1, "isthmus.io/priority: P4": mesh.P4} {
		r := Read([]File{{Name: "f.yaml", Data: fmt.Appendf(nil, "apiVersion: %s\nkind: VirtualService\nmetadata: {name: a, annotations: {%s}}\nspec: {hosts: [a.test], http: [{directResponse: {status: 200}}]}\n", networkingV1, annotation)}}, nil)
		if got := r.Config.VirtualServices[0].Priority; r.HasErrors() || got != want {
			t.Errorf("%q: %v, findings %v, want %v", annotation, got, r.Findings, want)
		}
	}
	r := Read([]File{{Name: "f.yaml", Data: fmt.Appendf(nil, "apiVersion: %s\nkind: VirtualService\nmetadata: {name: a, annotations: {isthmus.io/priority: P5}}\nspec: {hosts: [a.test], http: [{directResponse: {status: 200}}]}\n", networkingV1)}}, nil)
	if r.Count(Error) != 1 || !strings.Contains(r.Findings[0].String(), `"P5" is none of P1, P2, P3, P4`) {
		t.Errorf("P5: %v", r.Findings)
	}
}

// TestVirtualService_Unsettable: fields that the proxy itself says are named where a rule would change
// them, and no others.
func TestVirtualService_Unsettable(t *testing.T) {
	for headers, want := range map[string]string{
		"request: {set: {host: b.test}}":                "",
		"request: {set: {x-a: b}, remove: [x-b]}":       "",
		"response: {set: {x-a: b}, remove: [x-b]}":      "",
		"request: {remove: [Host]}":                     "http[0].headers.request.remove[0]: has no effect",
		"request: {remove: [x-b, Connection]}":          "http[0].headers.request.remove[1]: has no effect",
		"response: {remove: [transfer-encoding]}":       "http[0].headers.response.remove[0]: has no effect",
		"response: {set: {host: b.test}}":               "http[0].headers.response.set.host: has no effect",
		"response: {add: {Content-Length: '1'}}":        "http[0].headers.response.add.Content-Length: has no effect",
		"request: {add: {upgrade: websocket}}":          "http[0].headers.request.add.upgrade: has no effect",
		"response: {set: {x-a: b, keep-alive: '5'}}":    "http[0].headers.response.set.keep-alive: has no effect",
		"request: {set: {proxy-connection: 'close'}}":   "http[0].headers.request.set.proxy-connection: has no effect",
		"response: {remove: [host]}":                    "http[0].headers.response.remove[0]: has no effect",
		"request: {set: {connection-hint: 'a', te: b}}": "",
	} {
		checkFinding(t, webRoute("headers: {"+headers+"}\n    route: [{destination: {host: web.test}}]"), want, ISM0001)
	}
}

// TestValidHeaderName: names are tokens (RFC 9110 5.6.2).
func TestValidHeaderName(t *testing.T) {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for c := range 256 {
		name := "x" + string([]byte{byte(c)})
		if got, want := validHeaderName(name), strings.IndexByte(token, byte(c)) >= 0; got != want {
			t.Errorf("%q is a name: %v, want %v", name, got, want)
		}
	}
	if validHeaderName("") {
		t.Error("nothing is a name")
	}
}

// TestGateway_Fields: every field of a server gets to where it is asked for, and its protocol says
// whether TLS ends there.
func TestGateway_Fields(t *testing.T) {
	for _, tt := range []struct {
		server string
		want   mesh.GatewayServer
	}{
		{"name: s, bind: 10.0.0.1, port: {number: 80, name: http, protocol: HTTP}, tls: {httpsRedirect: true}", mesh.GatewayServer{
			Name: "s", Bind: "10.0.0.1", Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP}, HTTPSRedirect: true,
		}},
		{"port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}", mesh.GatewayServer{Port: mesh.Port{Number: 443, Name: "tls", Protocol: mesh.ProtocolTLS}, TLS: true, Passthrough: true}},
		{"port: {number: 443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}", mesh.GatewayServer{Port: mesh.Port{Number: 443, Name: "tls", Protocol: mesh.ProtocolTLS}, TLS: true, AutoPassthrough: true}},
		{"port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}", mesh.GatewayServer{
			Port: mesh.Port{Number: 443, Name: "https", Protocol: mesh.ProtocolHTTPS}, TLS: true, Terminate: &mesh.ServerTLS{Credentials: []string{"c"}},
		}},
		{"port: {number: 9, name: tcp, protocol: TCP}", mesh.GatewayServer{Port: mesh.Port{Number: 9, Name: "tcp", Protocol: mesh.ProtocolTCP}}},
	} {
		g := readOne(t, networkingV1, "Gateway", "selector: {istio: gw}, servers: [{hosts: ['*', ./A.Test., n/b.test, '*/c.test'], "+tt.server+"}]").Gateways[0]
		tt.want.Hosts = []mesh.GatewayHost{{Namespace: "*", Host: "*"}, {Namespace: "prod", Host: "a.test"}, {Namespace: "n", Host: "b.test"}, {Namespace: "*", Host: "c.test"}}
		if diff := same(g, &mesh.Gateway{Selector: map[string]string{"istio": "gw"}, Servers: []mesh.GatewayServer{tt.want}}); diff != "" {
			t.Errorf("%s:\n%s", tt.server, diff)
		}
	}
	for _, tt := range []struct{ spec, want string }{
		{"servers: []", "servers: is missing"},
		{"servers: [{hosts: ['*']}]", "servers[0].port: is missing"},
		{"servers: [{port: {number: 80, name: http, protocol: HTTP}}]", "servers[0].hosts: is missing"},
		{"servers: [{port: {number: 80, name: http}, hosts: ['*']}]", "is none of HTTP"},
		{"servers: [{port: {number: 53, name: dns, protocol: UDP}, hosts: ['*']}]", "is none of HTTP"},
		{"servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['a b/c.test']}]", "is no namespace"},
		{"servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}]", "takes no TLS settings but httpsRedirect"},
		{"servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {serverCertificate: c}}]", "takes no TLS settings but httpsRedirect"},
	} {
		refused(t, networkingV1, "Gateway", tt.spec, tt.want)
	}
}

// TestServiceEntry_Fields: every field gets to where it is asked for.
func TestServiceEntry_Fields(t *testing.T) {
	ports := []mesh.Port{{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP, Target: 8080}, {Number: 9, Name: "tcp", Protocol: mesh.ProtocolTCP}}
	for _, tt := range []struct {
		entry string
		want  mesh.Service
	}{
		{"location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: a}}, subjectAltNames: [n]", mesh.Service{SubjectAltNames: []string{"n"}, Selector: map[string]string{"app": "a"}}},
		{"resolution: DNS", mesh.Service{External: true, Resolution: mesh.ResolveDNS}},
		{"resolution: DNS_ROUND_ROBIN", mesh.Service{External: true, Resolution: mesh.ResolveDNSRoundRobin}},
		{"resolution: NONE", mesh.Service{External: true, Resolution: mesh.ResolveDNS}},
		{"resolution: STATIC, endpoints: [{address: '::ffff:192.0.2.1', ports: {http: 81}, labels: {version: v1}, network: n, locality: r/z/s, weight: 5, serviceAccount: sa}]", mesh.Service{External: true, Endpoints: []*mesh.Workload{{
			Address: "192.0.2.1", Ports: map[string]uint32{"http": 81}, Network: "n", Locality: mesh.ParseLocality("r/z/s"), Weight: 5, ServiceAccount: "sa",
		}}}},
		{"resolution: DNS, endpoints: [{address: b.test}]", mesh.Service{External: true, Resolution: mesh.ResolveDNS, Endpoints: []*mesh.Workload{{Address: "b.test"}}}},
	} {
		s := readOne(t, networkingV1, "ServiceEntry", "hosts: [A.Test.], addresses: [10.0.0.1, 10.0.0.2/32, 10.1.0.0/16], exportTo: [.], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 9, name: tcp, protocol: TCP}], "+tt.entry).Services[0]
		tt.want.Hosts, tt.want.ExportTo, tt.want.Ports = []string{"a.test"}, []string{"."}, ports
		tt.want.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
		if strings.Contains(tt.entry, "version: v1") && s.Endpoints[0].Labels["version"] != "v1" {
			t.Errorf("labels of an endpoint: %v", s.Endpoints[0].Labels)
		}
		if diff := same(s, &tt.want); diff != "" {
			t.Errorf("%s:\n%s", tt.entry, diff)
		}
	}
	const http = "hosts: [a.test], ports: [{number: 80, name: http, protocol: HTTP}], "
	for _, tt := range []struct{ spec, want string }{
		{"ports: [{number: 80, name: http}], resolution: DNS", "hosts: is missing"},
		{http + "resolution: STATIC", "endpoints: is missing"},
		{http + "resolution: STATIC, workloadSelector: {}, location: MESH_INTERNAL", "workloadSelector.labels: is empty"},
		{http + "resolution: DNS, endpoints: [{}]", "address: is missing"},
		{http + "resolution: DNS, endpoints: [{address: '*.b.test'}]", "stands for many names"},
		{http + "resolution: DNS, endpoints: [{address: b.test, ports: {http: 0}}]", "port 0 is not between"},
		{"hosts: [a.test], ports: [{number: 80}], resolution: DNS", "ports[0].name: is missing"},
		{"hosts: [a.test], ports: [{number: 80, name: a, targetPort: 70000}], resolution: DNS", "targetPort: port 70000"},
		{"hosts: [a.test], ports: [{number: 80, name: a}, {number: 81, name: a}], resolution: DNS", `"a" is given twice`},
		{"hosts: ['*.a.test'], ports: [{number: 80, name: a}], resolution: DNS_ROUND_ROBIN", "a host with * cannot be resolved"},
	} {
		refused(t, networkingV1, "ServiceEntry", tt.spec, tt.want)
	}
}

// TestEndpointSlice_Fields: which addresses and ports of a slice serve.
func TestEndpointSlice_Fields(t *testing.T) {
	const head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e, namespace: prod, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
	read := func(rest string) (out []mesh.Workload) {
		for _, w := range Read([]File{{Name: "f.yaml", Data: []byte(head + rest)}}, nil).Config.Workloads {
			if len(w.Labels) > 0 {
				t.Errorf("labels of the slice are said to be its endpoint's: %v", w.Labels)
			}
			bare(reflect.ValueOf(w))
			out = append(out, *w)
		}
		return out
	}
	one := mesh.Workload{Address: "10.0.0.1", Service: "web.prod", Ports: map[string]uint32{"http": 8080}}
	with := func(change func(*mesh.Workload)) []mesh.Workload {
		w := one
		change(&w)
		return []mesh.Workload{w}
	}
	const http = "ports: [{name: http, port: 8080}]\n"
	for _, tt := range []struct {
		name, rest string
		want       []mesh.Workload
	}{
		{"ready", http + "endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]", []mesh.Workload{one}},
		{"nothing said", http + "endpoints: [{addresses: [10.0.0.1]}]", []mesh.Workload{one}},
		{"not ready", http + "endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}]", with(func(w *mesh.Workload) { w.Unready = true })},
		{"two addresses", http + "endpoints: [{addresses: [10.0.0.1, 10.0.0.2]}]", append([]mesh.Workload{one}, with(func(w *mesh.Workload) { w.Address = "10.0.0.2" })...)},
		{"with a name", http + "endpoints: [{addresses: [10.0.0.1], hostname: web-0}]", with(func(w *mesh.Workload) { w.Hostname = "web-0" })},
		{"of a Pod", http + "endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-0}}]", with(func(w *mesh.Workload) { w.Pod = "web-0" })},
		{"of something else", http + "endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Node, name: web-0}}]", with(func(*mesh.Workload) {})},
		{"in a zone", http + "endpoints: [{addresses: [10.0.0.1], zone: us-east-1a}]", with(func(w *mesh.Workload) { w.Locality = mesh.Locality{Region: "us-east-1", Zone: "us-east-1a"} })},
		{"ports of UDP besides", "ports: [{name: http, port: 8080, protocol: TCP}, {name: dns, port: 53, protocol: UDP}, {name: s, port: 54, protocol: SCTP}]\nendpoints: [{addresses: [10.0.0.1]}]", []mesh.Workload{one}},
		{"a port without a name", "ports: [{port: 8080}]\nendpoints: [{addresses: [10.0.0.1]}]", with(func(w *mesh.Workload) { w.Ports = map[string]uint32{"": 8080} })},
		{"ports of UDP alone", "ports: [{name: dns, port: 53, protocol: UDP}]\nendpoints: [{addresses: [10.0.0.1]}]", nil},
		{"a port without a number", "ports: [{name: http}]\nendpoints: [{addresses: [10.0.0.1]}]", with(func(w *mesh.Workload) { w.Ports = map[string]uint32{} })},
		{"no ports", "endpoints: [{addresses: [10.0.0.1]}]", with(func(w *mesh.Workload) { w.Ports = map[string]uint32{} })},
		{"one that is no address", http + "endpoints: [{addresses: [a.test, 10.0.0.1]}]", []mesh.Workload{one}},
	} {
		if got := read(tt.rest); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	for change, want := range map[string]string{
		"": "", "labels: {kubernetes.io/service-name: web}|labels: {app: web}": "warning: EndpointSlice prod/e: metadata.labels: without the label", "IPv4|FQDN": "warning: EndpointSlice prod/e: addressType: FQDN has no effect",
		"10.0.0.1|web.test": `error: EndpointSlice prod/e: endpoints[0].addresses[0]: "web.test" is no IP address`,
	} {
		old, now, _ := strings.Cut(change, "|")
		r := Read([]File{{Name: "f.yaml", Data: []byte(strings.Replace(head+http+"endpoints: [{addresses: [10.0.0.1]}]", old, now, 1))}}, nil)
		told := ""
		for _, f := range r.Findings {
			told += f.String() + "\n"
		}
		if (len(r.Config.Workloads) == 1) != (want == "") || !strings.Contains(told, want) {
			t.Errorf("%s: %d workloads, %s, want %q", change, len(r.Config.Workloads), told, want)
		}
	}
}
