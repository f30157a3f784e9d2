package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"isthmus/config"
	"isthmus/explain"
	"isthmus/mesh"
)

// exampleProxy is a proxy that listens nowhere, with the resources of
// deploy/examples and endpoints as gossip would bring them.
func exampleProxy(t testing.TB, node *mesh.Node, endpoints ...mesh.Endpoint) *Proxy {
	t.Helper()
	names, err := filepath.Glob("../deploy/examples/multicluster/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(err, len(names))
	}
	var files []config.File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, config.File{Name: filepath.Base(name), Data: data})
	}
	r := config.Read(files, nil)
	if r.HasErrors() {
		t.Fatal(r.Findings)
	}
	p := NewIdle(Options{Node: node}, &mesh.Snapshot{
		Number: 7, Node: node, Config: r.Config, Rules: mesh.NewRules(node, r.Config.DestinationRules),
		Registry: mesh.NewRegistry(mesh.Known{Node: node, Config: r.Config, Announced: endpoints, Now: time.Unix(0, 0)}),
	})
	t.Cleanup(func() { p.Close() })
	return p
}

// frontend is the sidecar of a client in us-central.
func frontend() *mesh.Node {
	return &mesh.Node{
		Name: "frontend-1", Address: "10.0.0.9", Cluster: "us-central", Namespace: "production", ServiceAccount: "frontend-sa",
		Locality: mesh.ParseLocality("us-central1/us-central1-a"), TrustDomain: "cluster.local", RootNamespace: "istio-system",
		Labels:   map[string]string{"app": "frontend"},
		Identity: "spiffe://cluster.local/ns/production/sa/frontend-sa",
		Domains:  map[string]string{"cluster.remote": "us-west", "cluster.backup": "backup", "cluster.premium": "premium"},
	}
}

// sidecarAt is the sidecar of a service, announced.
func sidecarAt(service, address, cluster, locality string) mesh.Endpoint {
	return mesh.Endpoint{
		Service: service + ".production", Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP}, Address: netip.MustParseAddrPort(address),
		Cluster: cluster, Locality: mesh.ParseLocality(locality), Labels: map[string]string{"app": service, "version": "v1"}, Weight: 1, Via: true,
		Identity: "spiffe://cluster.local/ns/production/sa/" + service + "-sa", Source: mesh.SourceGossip, Owner: cluster + "/production/" + service,
	}
}

// TestExplain_Example holds what is said of each kind of request that the example
// is made for, as people read it.
func TestExplain_Example(t *testing.T) {
	const central, west = "us-central1/us-central1-a", "us-west1/us-west1-a"
	everybody := []mesh.Endpoint{
		sidecarAt("user-service", "10.0.0.1:15006", "us-central", central),
		sidecarAt("user-service", "10.1.0.1:15006", "us-west", west),
		sidecarAt("order-service", "10.0.0.2:15006", "us-central", central),
		sidecarAt("payment-service", "10.0.0.3:15006", "us-central", central),
		sidecarAt("payment-service", "10.1.0.3:15006", "us-west", west),
		sidecarAt("inventory-service", "10.2.0.4:15006", "backup", "us-east1/us-east1-b"),
		sidecarAt("catalog-service", "10.0.0.5:15006", "us-central", central),
		sidecarAt("catalog-service", "10.2.0.5:15006", "backup", "us-east1/us-east1-b"),
		sidecarAt("catalog-service", "10.3.0.5:15006", "premium", central),
	}
	edge := frontend()
	edge.Name, edge.Namespace, edge.Labels, edge.Identity = "edge-1", "istio-system", map[string]string{"istio": "ingressgateway", "app": "istio-ingressgateway"}, "spiffe://cluster.local/ns/istio-system/sa/edge-sa"
	user := frontend()
	user.Name, user.Labels = "user-service-1", map[string]string{"app": "user-service", "version": "v1"}
	token := explain.Field{Name: "authorization", Value: "Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2FjY291bnRzLmdvb2dsZS5jb20iLCJzdWIiOiJhbGljZSIsImdyb3VwcyI6WyJ1c2VycyJdfQ.AAAA"}
	premium := explain.Field{Name: "user-type", Value: "premium"}
	for _, tt := range []struct {
		name string
		node *mesh.Node
		q    explain.Question
	}{
		{"geo-central", edge, explain.Question{URL: "http://user-service.example.com/api/1", Fields: []explain.Field{{Name: "geo-location", Value: "us-central"}}}},
		{"geo-west", edge, explain.Question{URL: "http://user-service.example.com/api/1", Fields: []explain.Field{{Name: "geo-location", Value: "us-west"}}}},
		{"geo-default", edge, explain.Question{URL: "http://user-service.example.com/api/1"}},
		{"gateway-token", edge, explain.Question{URL: "http://user-service.example.com/api/1", Fields: []explain.Field{token}}},
		{"gateway-bad-token", edge, explain.Question{URL: "http://user-service.example.com/", Fields: []explain.Field{{Name: "authorization", Value: "Bearer nonsense"}}}},
		{"gateway-unknown", edge, explain.Question{Listener: "gateway:80", URL: "http://other.example.com/"}},
		{"user-global", frontend(), explain.Question{URL: "http://user-service.production.global/api/1"}},
		{"latency", frontend(), explain.Question{URL: "http://order-service.production.global/"}},
		{"split", frontend(), explain.Question{Method: "POST", URL: "http://payment-service.production.global/pay"}},
		{"failover", frontend(), explain.Question{URL: "http://inventory-service.production.global/items"}},
		{"conditional-premium", frontend(), explain.Question{URL: "http://catalog-service.production.global/", Fields: []explain.Field{premium}}},
		{"conditional-others", frontend(), explain.Question{URL: "http://catalog-service.production.global/"}},
		{"inbound-mtls", user, explain.Question{Listener: "inbound", URL: "http://user-service.production/api/1", Caller: "spiffe://cluster.local/ns/production/sa/frontend-sa"}},
		{"inbound-plain", user, explain.Question{Listener: "inbound", URL: "http://user-service.production/api/1"}},
		{"unknown-host", frontend(), explain.Question{URL: "http://nowhere.example/"}},
		{"unknown-port", frontend(), explain.Question{URL: "http://order-service.production:81/"}},
		{"bad-path", frontend(), explain.Question{URL: "http://order-service.production/a/%2e%2e%2fb"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := exampleProxy(t, tt.node, everybody...).Explain(tt.q)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := explain.Write(&b, e); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/explain/" + tt.name + ".golden"
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("differs from %s (UPDATE_GOLDEN=1 rewrites it)\ngot:\n%s\nwant:\n%s", golden, b.String(), want)
			}
		})
	}
}

// TestExplain_LeavesNoTrace: asking takes no token of a rate limit and counts
// nothing.
func TestExplain_LeavesNoTrace(t *testing.T) {
	node := frontend()
	node.Labels = map[string]string{"app": "user-service"}
	p := exampleProxy(t, node)
	requests, connections := len(p.Requests().List()), len(p.Connections().List())
	for range 2000 { // the bucket holds 1,000
		if _, err := p.Explain(explain.Question{Listener: "inbound", URL: "http://user-service.production/api/1", Caller: "spiffe://cluster.local/ns/production/sa/x"}); err != nil {
			t.Fatal(err)
		}
	}
	if l := p.Limits(); len(l) != 1 || l[0].Allowed != 0 || l[0].Buckets[0].Tokens != 1000 {
		t.Errorf("limits %+v: asking has taken tokens", l)
	}
	for policy, n := range p.PolicyMatches() {
		if n != 0 {
			t.Errorf("policy %v counts %d requests", policy, n)
		}
	}
	if _, err := p.Explain(explain.Question{URL: "http://order-service.production.global/"}); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Upstreams()); n != 0 {
		t.Errorf("%d upstreams are in use", n)
	}
	if a, b, c := len(p.Requests().List()), len(p.Connections().List()), len(p.Links().List()); a != requests || b != connections || c != 0 {
		t.Errorf("counters of %d and %d combinations of labels, there were %d and %d; of %d links", a, b, requests, connections, c)
	}
}

// TestExplain_Worst: the longest that a client may wait has as many tries as there may be, of
// the endpoints that there are.
func TestExplain_Worst(t *testing.T) {
	ending := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	rule := func(host string) string {
		return destinationRule(host, "connectionPool: {tcp: {connectTimeout: 30ms}}") + virtualService(host, "{retries: {attempts: 1, perTryTimeout: 2s, retryOn: connect-failure}, route: [{destination: {host: "+host+"}}]}")
	}
	p := serve(t, Options{}, entry("one.test", ending.address)+rule("one.test")+entry("two.test", "10.0.0.1:80", "10.0.0.2:80")+rule("two.test")+
		entry("hash.test", "10.0.0.1:80", "10.0.0.2:80")+destinationRule("hash.test", "loadBalancer: {consistentHash: {httpHeaderName: x}}, connectionPool: {tcp: {connectTimeout: 30ms}}")+
		virtualService("hash.test", "{retries: {attempts: 1, perTryTimeout: 2s, retryOn: connect-failure}, route: [{destination: {host: hash.test}}]}")+
		entry("five.test", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80")+rule("five.test"))
	const first, lost, last = "1 try; up to 1 retry of at most 2s", "; 1 more try of at most 2s where its connection is lost", "; at most 25ms of waiting in between"
	for _, tt := range []struct{ method, host, worst, because string }{
		{"POST", "one.test", "4.025s", first},
		{"GET", "one.test", "6.025s", first + lost},
		{"POST", "two.test", "4.055s", first + "; up to 1 more endpoint, each for at most 30ms, where nothing could be sent"},
		{"GET", "two.test", "6.055s", first + lost + "; up to 1 more endpoint, each for at most 30ms, where nothing could be sent"},
		{"POST", "hash.test", "4.085s", first + "; up to 2 more endpoints, each for at most 30ms, where nothing could be sent"},
		{"POST", "five.test", "4.115s", first + "; up to 3 more endpoints, each for at most 30ms, where nothing could be sent"},
		{"GET", "five.test", "6.085s", first + lost + "; up to 2 more endpoints, each for at most 30ms, where nothing could be sent"},
	} {
		e, err := p.Explain(explain.Question{Method: tt.method, URL: "http://" + tt.host + "/"})
		if err != nil {
			t.Fatal(err)
		}
		if e.Retries.Worst != tt.worst || e.Retries.Because != tt.because+last {
			t.Errorf("%s %s: at worst %s: %s; want %s: %s", tt.method, tt.host, e.Retries.Worst, e.Retries.Because, tt.worst, tt.because+last)
		}
	}
	for i, method := range []string{"GET", "POST"} {
		before := ending.requests()
		exchangeRaw(t, p.address("outbound"), method+" / HTTP/1.1\r\nHost: one.test\r\nContent-Length: 0\r\n\r\n", whole(1))
		if n := ending.requests() - before; n != 2-i {
			t.Errorf("%s whose connection is lost was sent %d times, want %d", method, n, 2-i)
		}
	}
}

// TestExplain_Senseless: questions that are none are errors, not answers.
func TestExplain_Senseless(t *testing.T) {
	p := exampleProxy(t, frontend())
	for _, q := range []explain.Question{
		{URL: ""}, {URL: "order-service"}, {URL: "ftp://order-service/"}, {URL: "http:///path"}, {URL: "http://a/%zz b", Listener: "sideways"}, {URL: "http://a/", Listener: "gateway:x"},
	} {
		if e, err := p.Explain(q); err == nil {
			t.Errorf("%+v: %+v", q, e)
		}
	}
}

// TestExplain_OtherNamespace: who asks for a name without a namespace, and whose service
// is in another one, is told its name.
func TestExplain_OtherNamespace(t *testing.T) {
	service := "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: %s}\nspec: {selector: {app: r}, ports: [{name: http, port: 80}]}\n---\n"
	p := serve(t, Options{}, fmt.Sprintf(service+service, "prod", "test")) // to a proxy of the namespace default
	for host, want := range map[string]string{
		"reviews":       "has the host reviews in namespace default, which is this proxy's (node.namespace of the bootstrap file): ask for reviews.prod or reviews.test",
		"ratings":       "has the host ratings",
		"reviews.stage": "has the host reviews.stage",
	} {
		e, err := p.Explain(explain.Question{URL: "http://" + host + "/"})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(e.Reason, want) {
			t.Errorf("%s: %q, want %q", host, e.Reason, want)
		}
	}
}

// TestExplain_LoadBalancer: what a loadBalancer says is told.
func TestExplain_LoadBalancer(t *testing.T) {
	for _, tt := range []struct{ name, settings, want string }{
		{"nothing", "{simple: ROUND_ROBIN}", "ROUND_ROBIN"},
		{"off", "{localityLbSetting: {enabled: false}}", "LEAST_REQUEST, localities do not count"},
		{"failover", "{localityLbSetting: {failover: [{from: r1, to: r2}]}}", "LEAST_REQUEST, failover from r1 to r2"},
		{"distribute", "{localityLbSetting: {distribute: [{from: r1/*, to: {r1/*: 70, r2/*: 30}}]}}", "LEAST_REQUEST, from r1/* to r1/* 70 % and r2/* 30 %"},
		{"zones", "{zoneAwareLbSetting: {minClusterSize: 3, failover: [{from: r1, to: r2}]}}", "LEAST_REQUEST, zone-aware with 3 endpoints or more in the region, failover from r1 to r2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, entry("s.test", "127.0.0.1:1")+"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: s.test, trafficPolicy: {loadBalancer: "+tt.settings+"}}\n")
			e, err := p.Explain(explain.Question{URL: "http://s.test/"})
			if err != nil {
				t.Fatal(err)
			}
			policies := e.Destinations[0].Policies
			if i := slices.IndexFunc(policies, func(p explain.Policy) bool { return p.Block == "loadBalancer" }); i < 0 || policies[i].Says != tt.want {
				t.Errorf("got %+v, want %q", policies, tt.want)
			}
		})
	}
}

// servedBy makes upstreams that say in their replies who they are.
func servedBy(t testing.TB, n int) []string {
	var out []string
	for range n {
		var u *upstreamScript
		ready := make(chan struct{})
		u = upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
			<-ready
			skipBody(head, r)
			_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Served-By: %s\r\n\r\n", u.address)
			return err == nil
		})
		close(ready)
		out = append(out, u.address)
	}
	return out
}

// drawConfig makes services with some of the addresses, and VirtualServices that
// route between them. Every route marks its replies with its name.
func drawConfig(t *rapid.T, addresses []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [%q]}]}\n---\n",
		rapid.SampledFrom([]string{"*", "*.test", "a.test"}).Draw(t, "gateway's host"))
	hosts := []string{"a.test", "b.test", "c.test"}
	for _, h := range hosts {
		var have []string
		for _, a := range addresses {
			if rapid.Bool().Draw(t, "endpoint") {
				have = append(have, a)
			}
		}
		b.WriteString(entry(h, have...))
	}
	destination := func() string {
		d := fmt.Sprintf("{destination: {host: %s", rapid.SampledFrom(append(hosts, "nobody.test")).Draw(t, "destination"))
		return d + fmt.Sprintf("}, weight: %d}", rapid.IntRange(0, 3).Draw(t, "weight"))
	}
	match := func() string {
		var parts []string
		for _, p := range []string{
			"uri: {prefix: /a}", "uri: {exact: /a/b}", `uri: {regex: "/[ab]"}`, "method: {exact: GET}", "headers: {x: {exact: one}}", "headers: {X: {prefix: o}}",
			"withoutHeaders: {y: {exact: two}}", "withoutHeaders: {y: {}}", "queryParams: {q: {exact: v}}", "authority: {prefix: a}", "scheme: {exact: http}", "scheme: {exact: https}", "ignoreUriCase: true",
		} {
			if rapid.IntRange(0, 4).Draw(t, "condition") == 0 && !slices.ContainsFunc(parts, func(o string) bool { return o[:4] == p[:4] }) {
				parts = append(parts, p)
			}
		}
		if len(parts) == 0 || len(parts) == 1 && parts[0] == "ignoreUriCase: true" {
			parts = []string{"uri: {prefix: /}"}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "virtual services") {
		host := rapid.SampledFrom([]string{"a.test", "b.test", "v.test", "*.test"}).Draw(t, "host")
		fmt.Fprintf(&b, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v%d%s}\nspec:\n  hosts: [%q]\n  gateways: [%s]\n  http:\n", i, rapid.SampledFrom([]string{"", ", annotations: {isthmus.io/standby: \"true\"}"}).Draw(t, "standby"), host,
			rapid.SampledFrom([]string{"mesh", "gw", "gw, mesh"}).Draw(t, "gateways"))
		// More than 16 routes are found by an index.
		for j := range rapid.SampledFrom([]int{1, 2, 4, 20}).Draw(t, "rules") {
			fmt.Fprintf(&b, "  - name: r%d-%d\n", i, j)
			if rapid.IntRange(0, 5).Draw(t, "match") > 0 {
				var list []string
				for range rapid.IntRange(1, 2).Draw(t, "matches") {
					list = append(list, match())
				}
				fmt.Fprintf(&b, "    match: [%s]\n", strings.Join(list, ", "))
			}
			if rapid.IntRange(0, 3).Draw(t, "cors") == 0 {
				fmt.Fprintf(&b, "    corsPolicy: {allowOrigins: [{exact: \"http://one\"}]%s}\n", rapid.SampledFrom([]string{"", ", unmatchedPreflights: IGNORE"}).Draw(t, "unmatched"))
			}
			switch rapid.IntRange(0, 5).Draw(t, "action") {
			case 0:
				fmt.Fprintf(&b, "    redirect: {uri: /moved-%d-%d}\n", i, j)
			case 1:
				fmt.Fprintf(&b, "    directResponse: {status: %d}\n", 210+j)
			default:
				list := []string{destination()}
				for range rapid.IntRange(0, 2).Draw(t, "more") {
					list = append(list, destination())
				}
				fmt.Fprintf(&b, "    route: [%s]\n    headers: {response: {set: {x-route: r%d-%d}}}\n", strings.Join(list, ", "), i, j)
				if rapid.IntRange(0, 3).Draw(t, "fault") == 0 {
					fmt.Fprintf(&b, "    fault: {abort: {httpStatus: 418, percentage: {value: %d}}}\n", rapid.SampledFrom([]int{0, 100}).Draw(t, "aborted"))
				}
			}
		}
		b.WriteString("---\n")
	}
	return b.String()
}

// reply is what of a reply an explanation can be held to.
type reply struct {
	status                    int
	servedBy, route, location string
}

func readReply(t *rapid.T, text string) (r reply) {
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	for i, line := range strings.Split(head, "\r\n") {
		if i == 0 {
			r.status, _ = strconv.Atoi(strings.Split(line+"  ", " ")[1])
			continue
		}
		name, value, _ := strings.Cut(line, ": ")
		switch strings.ToLower(name) {
		case "x-served-by":
			r.servedBy = value
		case "x-route":
			r.route = value
		case "location":
			r.location = value
		}
	}
	return r
}

// TestExplain_AsTraffic: whatever the configuration and the request, what is said
// of a request is what becomes of it.
func TestExplain_AsTraffic(t *testing.T) {
	addresses := servedBy(t, 3)
	p := serve(t, atEdge(), "")
	rapid.Check(t, func(rt *rapid.T) {
		yaml := drawConfig(rt, addresses)
		r := config.Read([]config.File{{Name: "test.yaml", Data: []byte(yaml)}}, p.node)
		if r.HasErrors() {
			rt.Skip("config refuses it") // all weights 0
		}
		publish(t, p, yaml)
		for range rapid.IntRange(1, 8).Draw(rt, "requests") {
			host := rapid.SampledFrom([]string{"a.test", "B.test", "b.test:80", "b.test:81", "c.test.", "v.test", "w.test", "a.other"}).Draw(rt, "host")
			path := rapid.SampledFrom([]string{"/", "/a", "/A/b", "/a/b", "/a/b?q=v", "/b", "/c?q=%76&q=w", "/a/../b", "/a//b", "/%2e%2e%2fa"}).Draw(rt, "path")
			method := rapid.SampledFrom([]string{"GET", "PUT", "CONNECT", "OPTIONS"}).Draw(rt, "method")
			q := explain.Question{Listener: rapid.SampledFrom([]string{"outbound", "gateway:80"}).Draw(rt, "listener"), Method: method, URL: "http://" + host + path}
			if q.Listener == "outbound" && rapid.IntRange(0, 3).Draw(rt, "https") == 0 {
				q.URL = "https://" + host + path // which is explained as what the application sends
			}
			if method == "OPTIONS" {
				q.Fields = append(q.Fields, explain.Field{Name: "Origin", Value: rapid.SampledFrom([]string{"http://one", "http://two"}).Draw(rt, "origin")}, explain.Field{Name: "access-control-request-method", Value: "GET"})
			}
			for _, name := range []string{"x", "y", "Y"} {
				if rapid.Bool().Draw(rt, "field") {
					q.Fields = append(q.Fields, explain.Field{Name: name, Value: rapid.SampledFrom([]string{"one", "two", "o"}).Draw(rt, "value")})
				}
			}
			e, err := p.Explain(q)
			if err != nil {
				rt.Fatal(err)
			}
			head := method + " " + path + " HTTP/1.1\r\nhost: " + host + "\r\nconnection: close\r\n"
			for _, f := range q.Fields {
				head += f.Name + ": " + f.Value + "\r\n"
			}
			got := readReply(rt, exchangeRaw(t, p.address(q.Listener), head+"\r\n", nil))
			if problem := disagree(e, got); problem != "" {
				var b strings.Builder
				explain.Write(&b, e)
				rt.Fatalf("%s\nrequest:\n%s\ngot: %+v\nexplained:\n%s\nconfiguration:\n%s", problem, head, got, b.String(), yaml)
			}
		}
	})
}

// disagree says how a reply differs from what was said of it.
func disagree(e *explain.Explanation, got reply) string {
	lost := 0.0 // the part of the requests that is refused, as their destination is not there
	for _, d := range e.Destinations {
		lost += d.Drawn - d.Percent
	}
	switch {
	case e.Outcome == explain.Refused && got.status != e.Status:
		return fmt.Sprintf("status %d, not %d", got.status, e.Status)
	case e.Outcome == explain.Redirected && (got.status != e.Answer.Status || got.location != e.Answer.Location):
		return fmt.Sprintf("%d to %s, not %d to %s", got.status, got.location, e.Answer.Status, e.Answer.Location)
	case e.Outcome == explain.Answered && got.status != e.Answer.Status:
		return fmt.Sprintf("status %d, not %d", got.status, e.Answer.Status)
	case e.Outcome != explain.Forwarded, got.status == 503 && lost > 0.01:
		return ""
	case got.status != 200:
		return fmt.Sprintf("status %d, not 200", got.status)
	case got.route != "" && got.route != e.Route.Name:
		return fmt.Sprintf("route %s, not %s", got.route, e.Route.Name)
	}
	for _, d := range e.Destinations {
		for _, ep := range d.Endpoints {
			if ep.Address == got.servedBy && d.Percent > 0 && ep.Percent > 0 {
				return ""
			}
		}
	}
	return fmt.Sprintf("served by %s, which has no share", got.servedBy)
}

// FuzzExplain: whatever is asked, there is an answer or an error.
func FuzzExplain(f *testing.F) {
	f.Add("outbound", "GET", "http://order-service.production.global/", "x", "y")
	f.Add("gateway:80", "OPTIONS", "https://user-service.example.com/a/../b?c=d#e", "geo-location", "us-west")
	f.Add("inbound", "CONNECT", "http://user-service/%2e%2e/\r\nx: y", "authorization", "Bearer a.b.c")
	node := frontend()
	node.Labels = map[string]string{"app": "user-service", "istio": "ingressgateway"}
	p := exampleProxy(f, node)
	f.Fuzz(func(t *testing.T, listener, method, url, name, value string) {
		q := explain.Question{Listener: listener, Method: method, URL: url, Fields: []explain.Field{{Name: name, Value: value}}}
		e, err := p.Explain(q)
		if err != nil {
			return
		}
		var b strings.Builder
		if err := explain.Write(&b, e); err != nil || e.Outcome == "" || b.Len() == 0 {
			t.Errorf("outcome %q, %v", e.Outcome, err)
		}
	})
}
