package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"isthmus/mesh"
)

// certificate is one that every name may use.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"*"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// greeter says its name over TLS, and what it hears.
func greeter(t testing.TB, name string) string {
	return byteServer(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate()}})
		if s.Handshake() == nil {
			io.WriteString(s, name+"\n")
			io.Copy(s, s)
			s.CloseWrite()
		}
	})
}

// passEntry is a ServiceEntry of one port with endpoints.
func passEntry(host, port string, addrs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: %s}\nspec:\n  hosts: [%s]\n  resolution: STATIC\n  ports: [%s]\n  endpoints:\n",
		strings.ReplaceAll(host, "*", "all"), host, port)
	for _, a := range addrs {
		ap := netip.MustParseAddrPort(a)
		fmt.Fprintf(&b, "  - {address: %s, ports: {p: %d}}\n", ap.Addr(), ap.Port())
	}
	return b.String() + "---\n"
}

const (
	overTLSPort = "{number: 443, name: p, protocol: TLS}"
	overTCPPort = "{number: 5432, name: p, protocol: TCP}"
)

// greeting is what a TLS client for a name gets first; "" and the error if it
// gets nothing.
func greeting(t testing.TB, address, name string) (string, error) {
	t.Helper()
	d := &net.Dialer{Timeout: 20 * time.Second}
	c, err := tls.DialWithDialer(d, "tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 100)
	n, err := c.Read(b)
	return strings.TrimSpace(string(b[:n])), err
}

// relayed sums up the metrics of relayed connections.
func relayed(t *testing.T, p *Proxy) string {
	t.Helper()
	sums, flags := map[string]float64{}, map[string]float64{}
	for _, s := range samples(t, p.Connections()) {
		sums[s.name] += s.value
		if s.name == "istio_tcp_connections_closed_total" {
			flags[s.labels["response_flags"]] += s.value
		}
	}
	return fmt.Sprintf("opened %v sent %v received %v closed %v",
		sums["istio_tcp_connections_opened_total"], sums["istio_tcp_sent_bytes_total"], sums["istio_tcp_received_bytes_total"], flags)
}

func awaitRelayed(t *testing.T, p *Proxy, want string) {
	t.Helper()
	for range 5000 {
		if relayed(t, p) == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("counted %s, want %s", relayed(t, p), want)
}

const tlsGateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ["*.test", "b.example"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: ["*.test", b.example, c.example]
  gateways: [gw, mesh]
  tls:
  - {match: [{sniHosts: [a.test]}], route: [{destination: {host: a.up}}]}
  - {match: [{sniHosts: ["*.w.test"]}], route: [{destination: {host: w.up}}]}
  - {match: [{sniHosts: [b.w.test, b.example, c.example]}], route: [{destination: {host: b.up}}]}
  - {match: [{sniHosts: ["*.test"], gateways: [mesh]}], route: [{destination: {host: w.up}}]}
  - {match: [{sniHosts: [down.test]}], route: [{destination: {host: down.up}}]}
  - {match: [{sniHosts: [half.test]}], route: [{destination: {host: half.up}}]}
  - {match: [{sniHosts: [nobody.test]}], route: [{destination: {host: nobody.up}}]}
`

// TestRelay_SNI: a server name picks the route, the most specific first.
func TestRelay_SNI(t *testing.T) {
	a, b, w, own := greeter(t, "a"), greeter(t, "b"), greeter(t, "w"), greeter(t, "own")
	p := serve(t, atEdge(), passEntry("a.up", overTLSPort, a)+passEntry("b.up", overTLSPort, b)+passEntry("w.up", overTLSPort, w)+
		passEntry("down.up", overTLSPort, refusing(t))+passEntry("half.up", overTLSPort, refusing(t), a)+passEntry("own.mesh", overTLSPort, own)+
		entry("plain.mesh", replying(t, okReply).address)+tlsGateway)
	for _, tt := range []struct{ listener, name, want string }{
		{"gateway:80", "a.test", "a"},
		{"gateway:80", "A.TEST", "a"},
		{"gateway:80", "x.w.test", "w"},
		{"gateway:80", "b.w.test", "b"},
		{"gateway:80", "b.example", "b"},
		{"gateway:80", "half.test", "a"},
		{"gateway:80", "c.example", "tls: unrecognized name"}, // no host of the server
		{"gateway:80", "x.test", "tls: unrecognized name"},    // a route of the mesh
		{"gateway:80", "", "tls: unrecognized name"},
		{"gateway:80", "own.mesh", "tls: unrecognized name"},
		{"gateway:80", "down.test", "tls: internal error"},
		{"gateway:80", "nobody.test", "tls: internal error"},
		{"outbound", "x.test", "w"},
		{"outbound", "a.test", "a"},
		{"outbound", "own.mesh", "own"},
		{"outbound", "plain.mesh", "tls: unrecognized name"},
	} {
		got, err := greeting(t, p.address(tt.listener), tt.name)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s, %q: %q, want %q", tt.listener, tt.name, got, tt.want)
		}
	}
	if got := exchangeRaw(t, p.address("outbound"), get("plain.mesh"), whole(1)); status(got) != "200" {
		t.Errorf("HTTP beside TLS: %q", got)
	}
}

// TestRelay_PortsOfMatches: the matches of a rule may each name a port of their
// own, of the destination where that has several.
func TestRelay_PortsOfMatches(t *testing.T) {
	p := serve(t, Options{}, strings.Replace(passEntry("up.test", overTLSPort+", {number: 8443, name: q, protocol: TLS}", greeter(t, "first")),
		"ports: {p:", "ports: {q: "+portOf(t, greeter(t, "second"))+", p:", 1)+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [x.test, y.test]
  tls:
  - match: [{port: 443, sniHosts: [x.test]}, {port: 8443, sniHosts: [y.test]}]
    route: [{destination: {host: up.test, port: {number: 443}}}]
  - match: [{port: 443, sniHosts: [x.test]}, {port: 8443, sniHosts: [y.test]}]
    route: [{destination: {host: up.test, port: {number: 8443}}}]
`)
	for _, name := range []string{"x.test", "y.test"} {
		if got, err := greeting(t, p.address("outbound"), name); got != "first" {
			t.Errorf("%s: %q, %v, want what the first rule says", name, got, err)
		}
	}
}

func portOf(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestRelay_WildcardBeforeService: a route for a wildcard is for the services
// below it, over TLS as in HTTP; others keep theirs.
func TestRelay_WildcardBeforeService(t *testing.T) {
	p := serve(t, Options{}, passEntry("own.test", overTLSPort, greeter(t, "own"))+passEntry("own.example", overTLSPort, greeter(t, "example"))+
		passEntry(`"*.w.test"`, overTLSPort, greeter(t, "below"))+passEntry("w.up", overTLSPort, greeter(t, "routed"))+`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: ["*.test"]
  tls:
  - match: [{sniHosts: ["*.test"]}]
    route: [{destination: {host: w.up}}]
  - match: [{sniHosts: ["*.test"], gateways: [elsewhere]}]
    route: [{destination: {host: own.example}}]
`)
	for name, want := range map[string]string{"own.test": "routed", "x.w.test": "routed", "own.example": "example", "w.up": "routed"} {
		if got, err := greeting(t, p.address("outbound"), name); got != want {
			t.Errorf("%s: %q, %v, want %s", name, got, err, want)
		}
	}
}

// TestRelay_HelloInPieces: a ClientHello that comes byte by byte arrives whole.
func TestRelay_HelloInPieces(t *testing.T) {
	p := serve(t, Options{}, passEntry("a.test", overTLSPort, greeter(t, "a")))
	raw, err := net.Dial("tcp", p.address("outbound"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(dripping{raw}, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
	b := make([]byte, 2)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "a\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// dripping sends byte by byte.
type dripping struct{ net.Conn }

func (d dripping) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// TestRelay_Malformed: what begins as TLS and is none ends with an alert, and
// goes nowhere.
func TestRelay_Malformed(t *testing.T) {
	up := record(t, "")
	p := serve(t, Options{}, passEntry("a.test", overTLSPort, up.address))
	for name, b := range map[string]string{
		"an empty record": "\x16\x03\x01\x00\x00", "HTTP behind it": "\x16GET / HTTP/1.1\r\n\r\n", "too long": "\x16\x03\x01\x40\x00\x01\x00\x40\x00",
		"endless": strings.Repeat("\x16\x03\x01\x00\x01\x01", 1) + strings.Repeat("\x16\x03\x01\x00\x01\x00", 12000),
	} {
		got := exchangeRaw(t, p.address("outbound"), b, nil)
		// What is left unread of the endless one may reset it before the alert is read.
		if got != "\x15\x03\x03\x00\x02\x02\x32" && (name != "endless" || got != "") {
			t.Errorf("%s: got %q, want a decode error", name, got)
		}
	}
	if up.seen() != "" {
		t.Errorf("the upstream saw %q", up.seen())
	}
}

// tcpGateway is a gateway of protocol TCP with a rule, in YAML on one line.
func tcpGateway(rule string) string {
	return `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [db.test]
  gateways: [gw]
  tcp: ` + rule + "\n---\n"
}

// policyOf is a DestinationRule's trafficPolicy for db.up.
func policyOf(policy string) string {
	return `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: db.up
  trafficPolicy: ` + policy + "\n"
}

const toDB = "[{route: [{destination: {host: db.up}}]}]"

func dialTCP(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// TestRelay_Weights: connections are shared out by weight, and a standby of
// weight 0 stays off where it is none.
func TestRelay_Weights(t *testing.T) {
	name := func(n string) string { return byteServer(t, func(c net.Conn) { io.WriteString(c, n) }) }
	p := serve(t, atEdge(), passEntry("a.up", overTCPPort, name("a"))+passEntry("b.up", overTCPPort, name("b"))+passEntry("c.up", overTCPPort, name("c"))+
		tcpGateway("[{route: [{destination: {host: a.up}, weight: 80}, {destination: {host: b.up}, weight: 20}, {destination: {host: c.up}, weight: 0}]}]"))
	const n = 1000
	got := map[string]int{}
	for range n {
		b, err := io.ReadAll(dialTCP(t, p.address("gateway:80")))
		if err != nil {
			t.Fatal(err)
		}
		got[string(b)]++
	}
	if got["a"]+got["b"] != n || got["a"] < 740 || got["a"] > 860 { // six standard deviations
		t.Errorf("%v of %d, want 80 and 20 %%", got, n)
	}
}

// TestRelay_Limits: a connection more than maxConnections waits for a place as
// long as it may take to connect, and then ends.
func TestRelay_Limits(t *testing.T) {
	t.Parallel()
	up := byteServer(t, func(c net.Conn) { io.Copy(c, c) })
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+
		policyOf("{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 1s}}}"))
	echo := func(c net.Conn) error {
		io.WriteString(c, "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	first := dialTCP(t, p.address("gateway:80"))
	if err := echo(first); err != nil {
		t.Fatal(err)
	}
	if err := echo(dialTCP(t, p.address("gateway:80"))); err == nil {
		t.Error("a second connection has got through")
	}
	awaitRelayed(t, p, "opened 2 sent 1 received 1 closed map[UO:1]")
	first.Close()
	awaitRelayed(t, p, "opened 2 sent 1 received 1 closed map[-:1 UO:1]")
	if err := echo(dialTCP(t, p.address("gateway:80"))); err != nil {
		t.Errorf("after the first has gone: %v", err)
	}
}

// TestRelay_OnlyEndpoint: an endpoint that cannot be connected to, and is the only one, is not
// tried again.
func TestRelay_OnlyEndpoint(t *testing.T) {
	var conns atomic.Int32
	up := byteServer(t, func(c net.Conn) { // ends the handshake
		conns.Add(1)
		c.Read(make([]byte, 1))
	})
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+policyOf("{tls: {mode: SIMPLE, insecureSkipVerify: true}}"))
	c := dialTCP(t, p.address("gateway:80"))
	io.WriteString(c, "x")
	if got, _ := io.ReadAll(c); len(got) > 0 || conns.Load() != 1 {
		t.Errorf("%q after %d connections, want 1", got, conns.Load())
	}
}

// TestRelay_ConnectTimeout: an endpoint that does not answer within connectTimeout is out at
// once, as for requests.
func TestRelay_ConnectTimeout(t *testing.T) {
	released := make(chan struct{})
	up := byteServer(t, func(net.Conn) { <-released }) // no handshake
	defer close(released)
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB)+
		policyOf("{tls: {mode: SIMPLE, insecureSkipVerify: true}, connectionPool: {tcp: {connectTimeout: 200ms}}}"))
	c := dialTCP(t, p.address("gateway:80"))
	io.WriteString(c, "x")
	io.ReadAll(c)
	for _, h := range p.HostStates() {
		if h.Healthy {
			t.Errorf("%s is still in", h.Address)
		}
	}
}

// TestRelay_KeepsNoLook: a connection by which an endpoint was looked at is not kept, since
// no other one will be relayed over it.
func TestRelay_KeepsNoLook(t *testing.T) {
	ended := make(chan struct{}, 2)
	up := byteServer(t, func(c net.Conn) {
		io.Copy(c, c)
		ended <- struct{}{}
	})
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB))
	c := dialTCP(t, p.address("gateway:80"))
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var members []*member
	p.mu.Lock()
	for _, u := range p.upstreams {
		members = append(members, u.members...)
	}
	p.mu.Unlock()
	for _, m := range members {
		if !m.look() {
			t.Error("the endpoint cannot be reached")
		}
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the connection is kept")
	}
}

// TestRelay_Recovers: an endpoint that refused a connection, and takes them again,
// gets as many as the others at once, though none of them ends.
func TestRelay_Recovers(t *testing.T) {
	t.Parallel()
	greet := func(name string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, name); io.Copy(io.Discard, c) }
	}
	b, listen := reservedPort(t)
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, byteServer(t, greet("a")), b)+tcpGateway(toDB)+
		policyOf("{outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 100}}"))
	open := func() string {
		c := dialTCP(t, p.address("gateway:80"))
		name := make([]byte, 1)
		if _, err := io.ReadFull(c, name); err != nil {
			t.Fatal(err)
		}
		return string(name)
	}
	usable := func() bool {
		for _, h := range p.HostStates() {
			if h.Reason != "" && h.Key.Address.String() == b {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(20 * time.Second); usable(); {
		if time.Now().After(deadline) {
			t.Fatal("nobody tried b")
		}
		if name := open(); name != "a" {
			t.Fatalf("connected to %q", name)
		}
	}
	handEach(t, listen(), greet("b"))
	for deadline := time.Now().Add(20 * time.Second); open() != "b"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("b gets no connection")
		}
	}
	if !usable() {
		t.Error("b is not restored by a connection")
	}
	got := map[string]int{}
	for range 20 {
		got[open()]++
	}
	if got["b"] < 10 { // the less busy one
		t.Errorf("%v, want most of them to go to b", got)
	}
}

// TestRelay_Matches: conditions on addresses and ports.
func TestRelay_Matches(t *testing.T) {
	name := func(n string) string { return byteServer(t, func(c net.Conn) { io.WriteString(c, n) }) }
	ups := passEntry("a.up", overTCPPort, name("a")) + passEntry("b.up", overTCPPort, name("b"))
	for _, tt := range []struct{ match, want string }{
		{"{port: 80}", "a"},
		{"{port: 81}", "b"},
		{"{sourceSubnet: 127.0.0.0/8}", "a"},
		{"{sourceSubnet: 10.0.0.1}", "b"},
		{"{destinationSubnets: [10.0.0.0/8, 127.0.0.1]}", "a"},
		{"{destinationSubnets: [10.0.0.0/8]}", "b"},
		{"{sourceLabels: {istio: ingressgateway}}", "a"},
		{"{sourceLabels: {istio: other}}", "b"},
		{"{gateways: [other]}", "b"},
		{"{port: 81}, {port: 80, sourceSubnet: 127.0.0.1}", "a"},
	} {
		p := serve(t, atEdge(), ups+tcpGateway("[{match: ["+tt.match+"], route: [{destination: {host: a.up}}]}, {route: [{destination: {host: b.up}}]}]"))
		if b, err := io.ReadAll(dialTCP(t, p.address("gateway:80"))); err != nil || string(b) != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.match, b, err, tt.want)
		}
	}
}

// TestRelay_Close: at the end of a drain's time a connection is reset.
func TestRelay_Close(t *testing.T) {
	up := byteServer(t, func(c net.Conn) { io.Copy(c, c) })
	p := serve(t, atEdge(), passEntry("db.up", overTCPPort, up)+tcpGateway(toDB))
	c := dialTCP(t, p.address("gateway:80"))
	io.WriteString(c, "x")
	io.ReadFull(c, make([]byte, 1))
	p.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// database is an endpoint as gossip would bring it.
func database(address string, via bool) mesh.Endpoint {
	return mesh.Endpoint{
		Service: "db.default", Port: mesh.Port{Number: 5432, Name: "tcp-db", Protocol: mesh.ProtocolTCP}, Address: netip.MustParseAddrPort(address),
		Cluster: "c1", Weight: 1, Via: via, Source: mesh.SourceGossip, Owner: "c1/default/x",
	}
}

// TestRelay_Via: an endpoint at another proxy's inbound listener is none.
func TestRelay_Via(t *testing.T) {
	up := byteServer(t, func(c net.Conn) { io.WriteString(c, "direct") })
	p := serve(t, atEdge(), `apiVersion: v1
kind: Service
metadata: {name: db}
spec: {ports: [{name: tcp-db, port: 5432}]}
---
`+tcpGateway("[{route: [{destination: {host: db.default.svc.cluster.local}}]}]"), database(up, true))
	if b, err := io.ReadAll(dialTCP(t, p.address("gateway:80"))); len(b) != 0 {
		t.Errorf("through a proxy: %q, %v", b, err)
	}
	awaitRelayed(t, p, "opened 1 sent 0 received 0 closed map[UH:1]")
	publish(t, p, `apiVersion: v1
kind: Service
metadata: {name: db}
spec: {ports: [{name: tcp-db, port: 5432}]}
---
`+tcpGateway("[{route: [{destination: {host: db.default.svc.cluster.local}}]}]"), database(up, false))
	if b, err := io.ReadAll(dialTCP(t, p.address("gateway:80"))); string(b) != "direct" {
		t.Errorf("direct: %q, %v", b, err)
	}
}
