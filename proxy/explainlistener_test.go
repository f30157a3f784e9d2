package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"isthmus/config"
	"isthmus/explain"
	"isthmus/mesh"
)

// TestExplain_ServerName: at the inbound listener, what is said goes by the server name of
// the connection, as what becomes of requests does, whatever host they name.
func TestExplain_ServerName(t *testing.T) {
	tr := newTrust(t)
	apps := servedBy(t, 2)
	o := proxyOf("prod", "web", tr.identity("prod", "web"))
	o.Inbound = "127.0.0.1:0"
	p := serve(t, o, webService(apps[0])+strings.Replace(webService(apps[1]), "name: web", "name: api", 1)+peerAuthentication("prod", "STRICT"))
	caller := tr.identity("shop", "frontend")
	for _, tt := range []struct {
		name, host, serverName string
		to                     string // application; "": refused
	}{
		{"a service", "shop.test", mesh.DestinationSNI(80, "", "web.prod.svc.cluster.local"), apps[0]},
		{"another", "web.prod", mesh.DestinationSNI(80, "v1", "api.prod.svc.cluster.local"), apps[1]},
		{"nobody's", "web.prod", mesh.DestinationSNI(80, "", "gone.prod.svc.cluster.local"), ""},
		{"no port of it", "web.prod", mesh.DestinationSNI(81, "", "web.prod.svc.cluster.local"), ""},
		{"a name of others, so that the host counts", "api.prod", "shop.test", apps[1]},
		{"the same, of a host that is nobody's", "shop.test", "shop.test", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := explain.Question{Listener: "inbound", URL: "http://" + tt.host + "/", ServerName: tt.serverName}
			e, err := p.Explain(q)
			if err != nil {
				t.Fatal(err)
			}
			to := ""
			if e.Outcome == explain.Forwarded {
				to = e.Destinations[0].Endpoints[0].Address
			}
			got := overTLSAt(t, p.address("inbound"), asCaller(caller, tt.serverName), "GET / HTTP/1.1\r\nhost: "+tt.host+"\r\n\r\n")
			_, served, _ := strings.Cut(got, "X-Served-By: ")
			served, _, _ = strings.Cut(served, "\r\n")
			if to != tt.to || served != tt.to {
				t.Errorf("explained %s to %q (%s), want %q; got %q", e.Outcome, to, e.Reason, tt.to, got)
			}
		})
	}
}

// TestListenerAt: an address is that of the listener that is bound there, by its own address
// or by all; of one that is off, none is.
func TestListenerAt(t *testing.T) {
	n := testNode()
	n.Labels["istio"] = "ingressgateway"
	r := config.Read([]config.File{{Name: "test.yaml", Data: []byte(anyHost)}}, n)
	s := &mesh.Snapshot{Node: n, Config: r.Config, Registry: mesh.NewRegistry(mesh.Known{Node: n, Config: r.Config}), Rules: mesh.NewRules(n, nil)}
	o := Options{Node: n, Outbound: "127.0.0.1:15001", Inbound: "0.0.0.0:15006", GatewayPorts: map[uint32]uint32{80: 8080, 81: 8081}}
	off := NewIdle(o, s)
	defer off.Close()
	if got := off.ListenerAt(netip.MustParseAddrPort("10.0.0.5:8080")); got != "" {
		t.Errorf("without gateways: %q", got)
	}
	o.GatewayBind = "0.0.0.0"
	p := NewIdle(o, s)
	defer p.Close()
	for local, want := range map[string]string{
		"127.0.0.1:15001": "outbound", "10.0.0.5:15001": "", "10.0.0.5:15006": "inbound", "[::ffff:10.0.0.5]:15006": "inbound",
		"10.0.0.5:8080": "gateway:80", "10.0.0.5:80": "", "10.0.0.5:8081": "", // of which there is no Gateway
	} {
		if got := p.ListenerAt(netip.MustParseAddrPort(local)); got != want {
			t.Errorf("%s: %q, want %q", local, got, want)
		}
	}
}

// TestExplain_DotAtEnd: a name with a dot at its end is asked for by TLS without it.
func TestExplain_DotAtEnd(t *testing.T) {
	n := testNode()
	n.Labels["istio"] = "ingressgateway"
	r := config.Read([]config.File{{Name: "test.yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.test], tls: {mode: SIMPLE, credentialName: shop}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec: {hosts: [shop.test], gateways: [edge], http: [{directResponse: {status: 208}}]}
`)}}, n)
	p := NewIdle(Options{Node: n, GatewayBind: "0.0.0.0"}, &mesh.Snapshot{Node: n, Config: r.Config, Registry: mesh.NewRegistry(mesh.Known{Node: n, Config: r.Config}), Rules: mesh.NewRules(n, nil)})
	defer p.Close()
	for _, host := range []string{"shop.test", "Shop.test."} {
		e, err := p.Explain(explain.Question{URL: "https://" + host + "/"})
		if err != nil || e.Listener != "gateway:443" || e.Answer == nil {
			t.Errorf("%s: %+v, %v", host, e, err)
		}
	}
}
