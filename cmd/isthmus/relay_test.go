package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// relayGateway is a running gateway that passes connections on.
type relayGateway struct {
	cmd                             *exec.Cmd
	tls, tcp, shared, short, closed string // where its Gateway's ports are
	outbound, admin, metrics        string
	certificates                    *httptest.Server // whose client trusts the upstreams over TLS
}

// relayConfig is what the gateway does; the upstreams come before it.
const relayConfig = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  servers:
  - {port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ["example.com", "*.example.com"]}
  - {port: {number: 5432, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 5433, name: shared, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 5434, name: short, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 5435, name: closed, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: relayed}
spec:
  hosts: [example.com, "*.example.com"]
  gateways: [edge, mesh]
  tls:
  - {match: [{sniHosts: [example.com]}], route: [{destination: {host: secure.up}}]}
  - {match: [{sniHosts: [down.example.com]}], route: [{destination: {host: down.up}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: relayed-tcp}
spec:
  hosts: [db.test]
  gateways: [edge]
  tcp:
  - {match: [{port: 5432}], route: [{destination: {host: echo.up}}]}
  - {match: [{port: 5433}], route: [{destination: {host: echo.up}, weight: 80}, {destination: {host: other.up}, weight: 20}]}
  - {match: [{port: 5434}], route: [{destination: {host: short.up}}]}
  - {match: [{port: 5435}], route: [{destination: {host: reset.up}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: short}
spec:
  host: short.up
  trafficPolicy: {connectionPool: {tcp: {idleTimeout: 3s, maxConnections: 1, connectTimeout: 1s}}}
---
`

func relayEntry(host, protocol string, addresses ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: %s}\nspec:\n  hosts: [%[1]s]\n  resolution: STATIC\n  ports: [{number: 443, name: p, protocol: %s}]\n  endpoints:\n", host, protocol)
	for _, a := range addresses {
		h, port, _ := net.SplitHostPort(a)
		fmt.Fprintf(&b, "  - {address: %s, ports: {p: %s}}\n", h, port)
	}
	return b.String() + "---\n"
}

// tcpServer has each connection handled; it ends with the test.
func tcpServer(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends when l is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

func startRelay(t *testing.T, drain string) *relayGateway {
	t.Helper()
	g := &relayGateway{certificates: httptest.NewTLSServer(nil)}
	t.Cleanup(g.certificates.Close)
	named := func(name string) string {
		return tcpServer(t, func(c *net.TCPConn) { io.WriteString(c, name); io.Copy(c, c); c.CloseWrite() })
	}
	echo := named("1")
	reset := tcpServer(t, func(c *net.TCPConn) { io.ReadFull(c, make([]byte, 1)); c.SetLinger(0) })
	secure := tcpServer(t, func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: g.certificates.TLS.Certificates, NextProtos: []string{"proto"}})
		if s.Handshake() == nil {
			io.Copy(s, s)
			s.CloseWrite()
		}
	})
	var down int
	var ports [8]int
	list := []*int{&down}
	for i := range ports {
		list = append(list, &ports[i])
	}
	if err := freePorts(list); err != nil {
		t.Fatal(err)
	}
	address := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	refusing := fmt.Sprintf("127.0.0.1:%d", down)
	g.outbound, g.admin, g.metrics = address(0), address(1), address(2)
	g.tls, g.tcp, g.shared, g.short, g.closed = address(3), address(4), address(5), address(6), address(7)
	dir := t.TempDir()
	for file, text := range map[string]string{
		"node.yaml": fmt.Sprintf(`node: {name: edge, address: 127.0.0.1}
listeners:
  outbound: %q
  inbound: "127.0.0.1:0"
  gateway: {bind: 127.0.0.1, ports: {443: %d, 5432: %d, 5433: %d, 5434: %d, 5435: %d}}
  admin: %q
  metrics: %q
drain: {timeout: %s}
`, g.outbound, ports[3], ports[4], ports[5], ports[6], ports[7], g.admin, g.metrics, drain),
		"mesh.yaml": relayEntry("secure.up", "TLS", refusing, secure) + relayEntry("down.up", "TLS", refusing) +
			relayEntry("echo.up", "TCP", echo) + relayEntry("other.up", "TCP", named("2")) + relayEntry("short.up", "TCP", echo) +
			relayEntry("reset.up", "TCP", reset) + relayConfig,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	g.cmd = exec.Command(program, "run", "--bootstrap", filepath.Join(dir, "node.yaml"), "--config", filepath.Join(dir, "mesh.yaml"))
	g.cmd.Stdout, g.cmd.Stderr = &log, &log
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.cmd.Process.Kill()
		g.cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	eventually(t, "the gateway is ready", func() bool {
		status, _ := page("http://"+g.admin+"/ready", "")
		return status == 200
	})
	return g
}

func dialRelay(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c.(*net.TCPConn)
}

// firstByte is what a server of TCP says at once: its name.
func firstByte(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// bothWays sends 8 MiB, ends its side, and checks that they come back.
func bothWays(t *testing.T, c interface {
	io.ReadWriter
	CloseWrite() error
}) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Errorf("sending: %v", err)
		}
		c.CloseWrite()
	})
	got, err := io.ReadAll(c)
	sending.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes have come back, equal: %v, %v", len(got), len(sent), bytes.Equal(got, sent), err)
	}
}

// received are the bytes that clients have sent over relayed connections.
func received(t *testing.T, g *relayGateway) (sum float64) {
	t.Helper()
	_, text := page("http://"+g.metrics+"/metrics", "")
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "istio_tcp_received_bytes_total{") {
			n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// TestRelay_Gateway: real clients of a gateway that passes on what it does not
// read.
func TestRelay_Gateway(t *testing.T) {
	g := startRelay(t, "1s")
	dialTLS := func(address, name string) (*tls.Conn, error) {
		config := g.certificates.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		config.ServerName, config.NextProtos = name, []string{"proto"}
		return tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", address, config)
	}
	for listener, address := range map[string]string{"Gateway": g.tls, "outbound": g.outbound} {
		t.Run("TLS by "+listener, func(t *testing.T) {
			for range 4 { // one of the two endpoints is down
				c, err := dialTLS(address, "example.com")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if p := c.ConnectionState().NegotiatedProtocol; p != "proto" {
					t.Errorf("negotiated %q with the upstream, want proto", p)
				}
				bothWays(t, c)
			}
			for name, alert := range map[string]string{"nobody.example.com": "unrecognized name", "down.example.com": "internal error"} {
				if _, err := dialTLS(address, name); err == nil || !strings.Contains(err.Error(), alert) {
					t.Errorf("%s: %v, want %s", name, err, alert)
				}
			}
		})
	}
	t.Run("TCP", func(t *testing.T) {
		c := dialRelay(t, g.tcp)
		if name := firstByte(t, c); name != "1" {
			t.Errorf("got to %q", name)
		}
		bothWays(t, c)
	})
	t.Run("weights", func(t *testing.T) {
		const n = 1000
		got := map[string]int{}
		for range n {
			c := dialRelay(t, g.shared)
			got[firstByte(t, c)]++
			c.Close()
		}
		if got["1"] < 740 || got["1"] > 860 || got["1"]+got["2"] != n { // more than four standard deviations
			t.Errorf("%v of %d, want 80 and 20 %%", got, n)
		}
	})
	t.Run("reset", func(t *testing.T) {
		c := dialRelay(t, g.closed)
		io.WriteString(c, "x")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server resets: the client gets %v", err)
		}
	})
	t.Run("limit and idle time", func(t *testing.T) {
		first := dialRelay(t, g.short)
		firstByte(t, first)
		if b, err := io.ReadAll(dialRelay(t, g.short)); len(b) > 0 {
			t.Errorf("a second connection got %q, %v", b, err)
		}
		if b, err := io.ReadAll(first); err != nil || len(b) > 0 {
			t.Errorf("a silent connection: %q, %v, want an end in order", b, err)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		for _, want := range []string{`response_flags="NR"`, `response_flags="UF"`, `response_flags="UC"`, `response_flags="UO"`} {
			eventually(t, want, func() bool {
				_, text := page("http://"+g.metrics+"/metrics", "")
				for line := range strings.SplitSeq(text, "\n") {
					if strings.HasPrefix(line, "istio_tcp_connections_closed_total{") && strings.Contains(line, want) && strings.Contains(line, `request_protocol="tcp"`) {
						return true
					}
				}
				return false
			})
		}
	})
	t.Run("bytes are counted while they move", func(t *testing.T) {
		before := received(t, g)
		c := dialRelay(t, g.tcp)
		io.WriteString(c, "hello")
		eventually(t, "five bytes more, of a connection that goes on", func() bool { return received(t, g) >= before+5 })
	})
	t.Run("routes", func(t *testing.T) {
		out, err := exec.Command(program, "routes", "--admin", "http://"+g.admin, "-o", "json").Output()
		if err != nil {
			t.Fatal(err)
		}
		var routes []struct {
			Listener, Host, Match, Source string
			Destinations                  []json.RawMessage
		}
		if err := json.Unmarshal(out, &routes); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		found := map[string]bool{}
		for _, r := range routes {
			if strings.Contains(r.Source, "mesh.yaml:") && len(r.Destinations) > 0 {
				found[r.Listener+" "+r.Host+" "+r.Match] = true
			}
		}
		for _, want := range []string{"gateway:443 example.com sni example.com", "outbound example.com sni example.com", "gateway:5432  tcp"} {
			if !found[want] {
				t.Errorf("no route %q in %v", want, found)
			}
		}
	})
}

// TestRelay_Drain: a connection goes on while the gateway drains, and is reset
// when its time is over.
func TestRelay_Drain(t *testing.T) {
	g := startRelay(t, "3s")
	c := dialRelay(t, g.tcp)
	firstByte(t, c)
	g.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "the gateway takes no more connections", func() bool {
		other, err := net.Dial("tcp", g.tcp)
		if err == nil {
			other.Close()
		}
		return err != nil
	})
	io.WriteString(c, "x")
	if got := firstByte(t, c); got != "x" {
		t.Errorf("while it drains: %q", got)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("at the end of its time: %v, want a reset", err)
	}
	if err := g.cmd.Wait(); err != nil {
		t.Errorf("the gateway ends with %v", err)
	}
}
