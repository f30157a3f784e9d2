package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
	"isthmus/tls"
)

func meshGateway(mode, host string) string {
	return `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: istio-system}
spec:
  selector: {app: eastwest}
  servers: [{port: {number: 80, name: tls, protocol: TLS}, hosts: ["` + host + `"], tls: {mode: ` + mode + `}}]
---
`
}

// TestGateway_AutoPassthrough: mTLS between proxies is passed on by its server
// name alone, for the hosts of the server alone.
func TestGateway_AutoPassthrough(t *testing.T) {
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	application := capturing(t, okReply)
	sidecar := sidecarOfWeb(t, web, application.address, peerAuthentication("prod", "STRICT"))
	behind := webAt(sidecar, web.Identity().ID)
	behind.Cluster, behind.Labels = "c1", map[string]string{"version": "v1"}
	o := proxyOf("istio-system", "eastwest", tr.identity("istio-system", "eastwest"))
	o.GatewayPorts = map[uint32]uint32{80: 0}
	subsets := `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: prod}
spec: {host: web.prod.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
`
	gw := serve(t, o, meshGateway("AUTO_PASSTHROUGH", "*.global")+subsets, behind)
	for _, tt := range []struct{ name, server, want string }{
		{"a service", mesh.DestinationSNI(80, "", webHost), "HTTP/1.1 200"},
		{"a subset", mesh.DestinationSNI(80, "v1", webHost), "HTTP/1.1 200"},
		{"a subset of nobody", mesh.DestinationSNI(80, "v2", webHost), "remote error: tls: internal error"},
		{"an unknown subset", mesh.DestinationSNI(80, "v3", webHost), "remote error: tls: unrecognized name"},
		{"a host of another server", mesh.DestinationSNI(80, "", "web.prod.svc.cluster.local"), "remote error: tls: unrecognized name"},
		{"a host name", webHost, "remote error: tls: unrecognized name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := frontend.Identity().Client(tt.server, tls.ProtocolHTTP, tls.Expected{Namespaces: "prod"}, nil)
			if got := overTLSAt(t, gw.address("gateway:80"), config, get(webHost)); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := field(application.last(), "x-forwarded-client-cert"); !strings.HasSuffix(got, frontend.Identity().ID) {
		t.Errorf("x-forwarded-client-cert %q, want the caller", got)
	}
}

// TestGateway_PassedOnLasts: how long connections to a service last is its callers' to say,
// who end them between two requests, and not the gateway's between, which would cut these.
func TestGateway_PassedOnLasts(t *testing.T) {
	const lasts = 20 * time.Millisecond
	tr := newTrust(t)
	web, frontend := tr.identity("prod", "web"), tr.identity("shop", "frontend")
	sidecar := sidecarOfWeb(t, web, replying(t, okReply).address, "")
	behind := webAt(sidecar, web.Identity().ID)
	behind.Cluster = "c1"
	o := proxyOf("istio-system", "eastwest", tr.identity("istio-system", "eastwest"))
	o.GatewayPorts = map[uint32]uint32{80: 0}
	gw := serve(t, o, meshGateway("AUTO_PASSTHROUGH", "*.global")+fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: prod}
spec: {host: web.prod.svc.cluster.local, trafficPolicy: {connectionPool: {tcp: {maxConnectionDuration: %s}}}}
---
`, lasts), behind)
	c, err := stdtls.Dial("tcp", gw.address("gateway:80"), frontend.Identity().Client(mesh.DestinationSNI(80, "", webHost), tls.ProtocolHTTP, tls.Expected{Namespaces: "prod"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for n := range 2 {
		time.Sleep(time.Duration(n) * 5 * lasts)
		io.WriteString(c, get(webHost))
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("request %d: %v, %v", n+1, res, err)
		}
		io.Copy(io.Discard, res.Body)
	}
}

// TestGateway_IstioMutual: the gateway shows its own identity, to those whom the
// mesh's roots vouch for.
func TestGateway_IstioMutual(t *testing.T) {
	tr := newTrust(t)
	own, frontend := tr.identity("istio-system", "eastwest"), tr.identity("shop", "frontend")
	application := capturing(t, okReply)
	o := proxyOf("istio-system", "eastwest", own)
	o.GatewayPorts = map[uint32]uint32{80: 0}
	yaml := strings.Replace(meshGateway("ISTIO_MUTUAL", "*"), "protocol: TLS", "protocol: HTTPS", 1) + entry("s.test", application.address) + `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: istio-system}
spec: {hosts: [s.test], gateways: [gw], http: [{route: [{destination: {host: s.test}}]}]}
`
	gw := serve(t, o, yaml)
	good := frontend.Identity().Client("s.test", "http/1.1", tls.Expected{Accounts: "istio-system/eastwest"}, nil)
	if got := overTLSAt(t, gw.address("gateway:80"), good, get("s.test")); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("a proxy of the mesh: %q", got)
	}
	if got := field(application.last(), "x-forwarded-client-cert"); !strings.Contains(got, "URI="+frontend.Identity().ID) {
		t.Errorf("x-forwarded-client-cert %q", got)
	}
	foreign := newTrust(t).identity("shop", "frontend").Identity().Client("s.test", "http/1.1", tls.Expected{}, nil)
	foreign.VerifyConnection = nil
	if got := overTLSAt(t, gw.address("gateway:80"), foreign, get("s.test")); strings.HasPrefix(got, "HTTP") {
		t.Errorf("a stranger got %q", got)
	}
	bare := foreign.Clone()
	bare.Certificates = nil
	if got := overTLSAt(t, gw.address("gateway:80"), bare, get("s.test")); strings.HasPrefix(got, "HTTP") {
		t.Errorf("nobody got %q", got)
	}
}

// TestGateway_TLSThenBytes: a port of protocol TLS may end TLS and pass the bytes
// within on.
func TestGateway_TLSThenBytes(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("web", "db.test")
	back := replying(t, okReply)
	_, port, _ := net.SplitHostPort(back.address)
	o := atEdge()
	o.Credentials = tls.NewStore(i.dir, nil)
	gw := serve(t, o, `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: tls, protocol: TLS}, hosts: ["db.test"], tls: {mode: SIMPLE, credentialName: web}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.test]
  resolution: STATIC
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  endpoints: [{address: 127.0.0.1, ports: {tcp: `+port+`}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec: {hosts: [db.test], gateways: [gw], tcp: [{route: [{destination: {host: db.test}}]}]}
`)
	config := newTrust(t).identity("a", "b").Identity().Client("db.test", "http/1.1", tls.Expected{}, nil)
	config.VerifyConnection, config.Certificates, config.NextProtos = nil, nil, nil
	if got := overTLSAt(t, gw.address("gateway:80"), config, get("anything")); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("got %q", got)
	}
}
