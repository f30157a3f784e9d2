package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isthmus/config"
	"isthmus/mesh"
)

// testNode is the proxy that the tests run.
func testNode() *mesh.Node {
	return &mesh.Node{
		Name: "n1", Address: "127.0.0.1", Cluster: "c1", Namespace: "default", ServiceAccount: "default",
		Locality: mesh.ParseLocality("r1/z1"), TrustDomain: "cluster.local", RootNamespace: "istio-system",
		Labels: map[string]string{"app": "client"}, Domains: map[string]string{"cluster.remote": "c2"},
	}
}

// serve runs a proxy with resources in YAML, its outbound listener on a port
// of its own. announced are endpoints as gossip would bring them.
func serve(t testing.TB, o Options, yaml string, announced ...mesh.Endpoint) *Proxy {
	t.Helper()
	p := prepare(t, o)
	publish(t, p, yaml, announced...)
	return p
}

// prepare makes a proxy that serves nobody before the first publish.
func prepare(t testing.TB, o Options) *Proxy {
	t.Helper()
	if o.Node == nil {
		o.Node = testNode()
	}
	if o.Outbound == "" {
		o.Outbound = "127.0.0.1:0"
	}
	o.GatewayBind = "127.0.0.1"
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

var snapshots struct {
	sync.Mutex
	last map[*Proxy]*mesh.Snapshot
}

func publish(t testing.TB, p *Proxy, yaml string, announced ...mesh.Endpoint) {
	t.Helper()
	r := config.Read([]config.File{{Name: "test.yaml", Data: []byte(yaml)}}, p.node)
	for _, f := range r.Findings {
		if f.Severity == config.Error {
			t.Fatal(f)
		}
	}
	k := mesh.Known{Node: p.node, Config: r.Config, Announced: announced, Now: time.Now()}
	snapshots.Lock()
	defer snapshots.Unlock()
	if snapshots.last == nil {
		snapshots.last = map[*Proxy]*mesh.Snapshot{}
	}
	if last := snapshots.last[p]; last != nil {
		k.Previous = last.Registry
	}
	s := &mesh.Snapshot{Number: 1, Node: p.node, Config: r.Config, Registry: mesh.NewRegistry(k), Rules: mesh.NewRules(p.node, r.Config.DestinationRules)}
	if err := p.Publish(s); err != nil {
		t.Fatal(err)
	}
	snapshots.last[p] = s
}

// entry is a ServiceEntry of one HTTP port 80 with endpoints.
func entry(host string, addrs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
`, strings.ReplaceAll(host, "*", "all"), host)
	for _, a := range addrs {
		ap := netip.MustParseAddrPort(a)
		fmt.Fprintf(&b, "  - {address: %s, ports: {http: %d}, locality: r1/z1}\n", ap.Addr(), ap.Port())
	}
	return b.String() + "---\n"
}

// byteServer runs a server of bytes: handle has each connection for itself.
func byteServer(t testing.TB, handle func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handEach(t, l, handle)
	return l.Addr().String()
}

// handEach gives every connection of a listener to handle, and closes it when that
// returns. It ends with the test.
func handEach(t testing.TB, l net.Listener, handle func(c net.Conn)) {
	t.Cleanup(func() { l.Close() })
	go func() { // ends when l is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

// upstreamScript is a server that is told byte by byte what to do.
type upstreamScript struct {
	address string
	mu      sync.Mutex // guards what is below
	heads   []string   // of the requests, in order
	conns   int
}

// upstreamServer runs a server that calls handle for every request: its head,
// the connection to read a body from and to answer on. When handle returns
// false the connection is closed.
func upstreamServer(t testing.TB, handle func(head string, r *bufio.Reader, c net.Conn) bool) *upstreamScript {
	t.Helper()
	u := &upstreamScript{}
	u.address = byteServer(t, func(c net.Conn) {
		u.mu.Lock()
		u.conns++
		u.mu.Unlock()
		r := bufio.NewReader(c)
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			u.mu.Lock()
			u.heads = append(u.heads, head)
			u.mu.Unlock()
			if !handle(head, r, c) {
				return
			}
		}
	})
	return u
}

// replying answers every request with the same bytes.
func replying(t testing.TB, reply string) *upstreamScript {
	return upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		skipBody(head, r)
		_, err := io.WriteString(c, reply)
		return err == nil
	})
}

func skipBody(head string, r *bufio.Reader) string {
	var n int64
	for line := range strings.SplitSeq(head, "\r\n") {
		if v, ok := strings.CutPrefix(line, "content-length: "); ok {
			fmt.Sscan(v, &n)
		}
		if line == "transfer-encoding: chunked" {
			var b strings.Builder
			for {
				var size int
				l, err := r.ReadString('\n')
				if err != nil {
					return b.String()
				}
				fmt.Sscanf(l, "%x", &size)
				chunk := make([]byte, size+2)
				if _, err := io.ReadFull(r, chunk); err != nil || size == 0 {
					return b.String()
				}
				b.Write(chunk[:size])
			}
		}
	}
	body := make([]byte, n)
	io.ReadFull(r, body)
	return string(body)
}

func readHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		b.WriteString(line)
		if line == "\r\n" {
			return b.String(), nil
		}
	}
}

func (u *upstreamScript) seen() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.heads...)
}

// exchangeRaw sends bytes to a listener and returns everything that comes
// back until the connection ends, or, if done says so, until that much.
func exchangeRaw(t testing.TB, address, request string, done func(string) bool) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if done == nil {
		return toEnd(t, c)
	}
	var got bytes.Buffer
	buf := make([]byte, 64<<10)
	for !done(got.String()) {
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return got.String()
}

// toEnd reads until the connection ends, in order or by a reset. One that goes on
// until its deadline is a failure.
func toEnd(t testing.TB, r io.Reader) string {
	t.Helper()
	got, err := io.ReadAll(r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on after %.200q", got)
	}
	return string(got)
}

// whole reports whether text holds n complete replies with bodies of known
// length.
func whole(n int) func(string) bool {
	return func(text string) bool {
		r := bufio.NewReader(strings.NewReader(text))
		for range n {
			head, err := readHead(r)
			if err != nil {
				return false
			}
			var length int64
			for line := range strings.SplitSeq(strings.ToLower(head), "\r\n") {
				if v, ok := strings.CutPrefix(line, "content-length: "); ok {
					fmt.Sscan(v, &length)
				}
			}
			if m, _ := io.CopyN(io.Discard, r, length); m < length {
				return false
			}
		}
		return true
	}
}

func (p *Proxy) address(listener string) string { return p.Addresses()[listener] }

const okReply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func get(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }

// atEdge is the options of a proxy that is a gateway as well.
func atEdge() Options {
	n := testNode()
	n.Labels["istio"] = "ingressgateway"
	return Options{Node: n, GatewayPorts: map[uint32]uint32{80: 0}}
}

// anyHost is a gateway on port 80 that takes every host.
const anyHost = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
`

// edge makes a gateway on port 80 of a service.
func edge(host string) string {
	return anyHost + `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ["` + host + `"]
  gateways: [gw]
  http: [{route: [{destination: {host: ` + host + `}}]}]
`
}

// deadAddress is an address that nobody listens at, nor anybody else can.
func deadAddress(t testing.TB) string {
	address, _ := reservedPort(t)
	return address
}

// reservedPort is the same with a way to listen there after all.
func reservedPort(t testing.TB) (address string, listen func() net.Listener) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fd), "reserved")
	t.Cleanup(func() { socket.Close() })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port), func() net.Listener {
		if err := unix.Listen(fd, 128); err != nil {
			t.Fatal(err)
		}
		l, err := net.FileListener(socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
}
