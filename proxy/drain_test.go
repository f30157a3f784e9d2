package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestProxy_DrainWithin: an application gets the mesh, over new connections and kept ones, for as
// long as it has a request to answer, though nobody gets to it any more.
func TestProxy_DrainWithin(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	up := upstreamServer(t, func(head string, _ *bufio.Reader, c net.Conn) bool {
		if strings.HasPrefix(head, "GET /long") {
			close(started)
			<-release
		}
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	_, port, _ := net.SplitHostPort(up.address)
	p := serve(t, Options{Inbound: "127.0.0.1:0"}, entry("s.test", up.address)+fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: own}
spec:
  selector: {app: client}
  ports: [{name: http, port: 80, targetPort: %s}]
`, port))
	address := map[string]string{"inbound": p.address("inbound"), "outbound": p.address("outbound")}
	kept := dialTCP(t, address["outbound"])
	io.WriteString(kept, get("s.test"))
	got := make([]byte, 1<<10)
	if n, err := kept.Read(got); status(string(got[:n])) != "200" {
		t.Fatalf("before the drain: %q, %v", got[:n], err)
	}
	long := dialTCP(t, address["inbound"])
	io.WriteString(long, "GET /long HTTP/1.1\r\nHost: own\r\n\r\n")
	await(t, "the request", started)
	drained := make(chan error, 1)
	go func() { drained <- p.Drain(t.Context()) }()
	shut := func(listener string) bool {
		c, err := net.Dial("tcp", address[listener])
		if err == nil {
			c.Close()
		}
		return err != nil
	}
	for !shut("inbound") {
		time.Sleep(10 * time.Millisecond)
	}
	for _, c := range []net.Conn{kept, dialTCP(t, address["outbound"])} {
		io.WriteString(c, get("s.test"))
		if got := toEnd(t, c); status(got) != "200" || !strings.Contains(got, "connection: close") {
			t.Errorf("a request of the application got %q", got)
		}
	}
	close(release)
	if got := toEnd(t, long); status(got) != "200" || !strings.Contains(got, "connection: close") {
		t.Errorf("the request under way: %q", got)
	}
	if err := await(t, "the end of the drain", drained); err != nil {
		t.Error(err)
	}
	if !shut("outbound") {
		t.Error("the application's connections are accepted after the end")
	}
}
