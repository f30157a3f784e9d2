package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"isthmus/config"
	"isthmus/explain"
	"isthmus/mesh"
)

// statefulSet is a headless service in whose EndpointSlices each Pod, web-0 and so on, has
// its hostname.
func statefulSet(pods ...*upstreamScript) string {
	var b strings.Builder
	b.WriteString(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80, name: http}, {port: 81, name: http-other}]}
`)
	for i, u := range pods {
		a := netip.MustParseAddrPort(u.address)
		fmt.Fprintf(&b, `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-%d, namespace: prod, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [%s], hostname: web-%d}]
`, i, a.Port(), a.Addr(), i)
	}
	return b.String()
}

func toPod(t *testing.T, p *Proxy, host, path string) string {
	t.Helper()
	got := exchangeRaw(t, p.address("outbound"), "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n", whole(1))
	_, body, _ := strings.Cut(got, "\r\n\r\n")
	return got[len("HTTP/1.1 "):len("HTTP/1.1 200")] + " " + body
}

func TestPod(t *testing.T) {
	pod := func(name string) *upstreamScript {
		return replying(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name))
	}
	far := netip.MustParseAddrPort(pod("far").address)
	node := testNode()
	node.Namespace = "prod"
	p := serve(t, Options{Node: node}, statefulSet(pod("zero"), pod("one"))+`
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: prod}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /says}}]
    directResponse: {status: 299}
  - match: [{uri: {prefix: /subset}}]
    route: [{destination: {host: web, subset: v1}}]
  - match: [{uri: {prefix: /undefined}}]
    route: [{destination: {host: web, subset: v2}}]
  - match: [{uri: {prefix: /elsewhere}}]
    route: [{destination: {host: other.prod.svc.cluster.local}}]
  - route:
    - {destination: {host: web.prod.svc.cluster.local}, weight: 100}
    - {destination: {host: web.prod.svc.cluster.remote}, weight: 0}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: prod}
spec:
  hosts: [web-1.web.prod.svc.cluster.local]
  http: [{match: [{uri: {prefix: /says}}], directResponse: {status: 298}}, {route: [{destination: {host: web}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: prod}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}], trafficPolicy: {connectionPool: {tcp: {maxConnections: 77}}}}
`, mesh.Endpoint{Service: "web.prod", Port: mesh.Port{Number: 80, Name: "http"}, Address: far, Cluster: "c2", Weight: 1, Hostname: "web-3"})
	for _, tt := range []struct{ host, path, want string }{
		{"web-0.web.prod.svc.cluster.local", "/", "200 zero"},
		{"web-1.web.prod.svc.cluster.local:80", "/", "200 one"},
		{"web-1.web.prod.svc", "/", "200 one"},
		{"web-1.web.prod:80", "/", "200 one"},
		{"web-1.web", "/", "200 one"},
		{"web-1.web:82", "/", "404 "},
		{"web-1.web:81", "/", "503 no healthy upstream"}, // which its EndpointSlice has not
		{"web-2.web", "/", "404 "},
		{"web-3.web", "/", "404 "}, // of another cluster
		{"web-3.web.prod.global", "/", "200 far"},
		{"web-0.web", "/says", "299 "}, // as the service's VirtualService has it
		{"web-1.web", "/says", "298 "}, // and this Pod's own
		{"web-0.web", "/subset", "200 zero"},
		{"web-0.web", "/undefined", "503 "},
		{"web-0.web", "/elsewhere", "503 "},
	} {
		for range 4 {
			if got := toPod(t, p, tt.host, tt.path); got != tt.want {
				t.Errorf("%s%s: %q, want %q", tt.host, tt.path, got, tt.want)
			}
		}
	}

	e, err := p.Explain(explain.Question{URL: "http://web-0.web/x"})
	if err != nil {
		t.Fatal(err)
	}
	d := e.Destinations[0]
	if d.Host != "web-0.web.prod.svc.cluster.local" || len(d.Endpoints) != 1 || d.Endpoints[0].Percent != 100 || len(d.Policies) != 1 {
		t.Errorf("explained: %+v", d)
	}
	if s := e.Destinations[1]; s.Host != "web-0.web.prod.svc.cluster.remote" && s.Problem == "" {
		t.Errorf("its standby: %+v", s)
	}
	if e, _ := p.Explain(explain.Question{URL: "http://web-2.web.prod/"}); !strings.Contains(e.Reason, "no endpoint of web.prod.svc.cluster.local is known as its Pod web-2") {
		t.Errorf("one that is not there: %s", e.Reason)
	}
}

// TestPod_Standby: where the service's routes have a standby in another cluster, the Pod of
// the same name is one, of what asks for the own.
func TestPod_Standby(t *testing.T) {
	here := upstreamServer(t, nil)
	there := netip.MustParseAddrPort(replying(t, okReply).address)
	node := testNode()
	node.Namespace = "prod"
	p := serve(t, Options{Node: node}, strings.Replace(statefulSet(here), "hostname: web-0", "hostname: web-0, conditions: {ready: false}", 1)+`
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: prod}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web.prod.svc.cluster.local}, weight: 100}, {destination: {host: web.prod.svc.cluster.remote}, weight: 0}]}]
`, mesh.Endpoint{Service: "web.prod", Port: mesh.Port{Number: 80, Name: "http"}, Address: there, Cluster: "c2", Weight: 1, Hostname: "web-0"})
	if got := toPod(t, p, "web-0.web.prod", "/"); got != "200 ok" {
		t.Error(got)
	}
}

// TestPod_Destination: a route may name a Pod; files that give it are enough for validate.
func TestPod_Destination(t *testing.T) {
	text := statefulSet(replying(t, okReply)) + `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec: {hosts: [first.test], http: [{route: [{destination: {host: web-0.web.prod.svc.cluster.local, port: {number: 80}}}]}]}
`
	if got := toPod(t, serve(t, Options{}, text), "first.test", "/"); got != "200 ok" {
		t.Error(got)
	}
	for _, f := range config.Read([]config.File{{Name: "f.yaml", Data: []byte(text)}}, nil).Findings {
		if strings.Contains(f.Message, "web-0") {
			t.Error(f)
		}
	}
}

// TestPod_ServerName: TLS that is passed on goes to the Pod by its name, too.
func TestPod_ServerName(t *testing.T) {
	text := strings.ReplaceAll(statefulSet(replying(t, okReply), replying(t, okReply)), "{port: 81, name: http-other}", "{port: 443, name: tls}")
	node := testNode()
	node.Namespace = "prod"
	p := serve(t, Options{Node: node}, strings.ReplaceAll(text, "name: http,", "name: tls,"))
	r := p.table.Load().sni.find("web-1.web.prod.svc.cluster.local", &conn{})
	if r == nil {
		t.Fatal("no route")
	}
	to := r.route.destinations[0].target
	if r := to.resolve(); to.key.pod != "web-1" || len(r.endpoints) != 1 {
		t.Errorf("%+v with %v", to.key, r.endpoints)
	}
}
