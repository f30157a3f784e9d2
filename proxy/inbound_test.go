package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// TestInbound_Limits: a Sidecar limits the connections to the application; a
// DestinationRule for the own host, which is made for its clients, does not
// unless it says so.
func TestInbound_Limits(t *testing.T) {
	const pool = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}"
	const destinationRule = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: own, annotations: {%s}}
spec: {host: own, trafficPolicy: {` + pool + `}}
`
	for _, tt := range []struct {
		name, yaml string
		limited    bool
	}{
		{"none", "", false},
		{"a rule for clients", fmt.Sprintf(destinationRule, ""), false},
		{"a rule for both sides", fmt.Sprintf(destinationRule, `isthmus.io/inbound: "true"`), true},
		{"a Sidecar", `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s}
spec: {` + strings.Replace(pool, "connectionPool", "inboundConnectionPool", 1) + `}
`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const clients = 4
			var mu sync.Mutex
			arrived, all := 0, make(chan struct{})
			release := make(chan struct{})
			up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
				mu.Lock()
				if arrived++; arrived == clients {
					close(all)
				}
				mu.Unlock()
				<-release
				_, err := io.WriteString(c, okReply)
				return err == nil
			})
			_, port, _ := net.SplitHostPort(up.address)
			p := serve(t, Options{Inbound: "127.0.0.1:0"}, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: own, namespace: default}
spec:
  selector: {app: client}
  ports: [{name: http, port: 80, targetPort: %s}]
---`, port)+tt.yaml)
			replies := make(chan string, clients)
			for range clients {
				go func() { // ends with the reply
					replies <- status(exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\nHost: own\r\n\r\n", whole(1)))
				}()
			}
			overflows := 0
			if tt.limited {
				// One is under way and one waits; the others are told at once.
				for range clients - 2 {
					if s := <-replies; s == "503" {
						overflows++
					}
				}
			} else {
				<-all
			}
			close(release)
			for range clients - overflows {
				if s := <-replies; s != "200" {
					t.Errorf("status %s", s)
				}
			}
			if want := map[bool]int{true: clients - 2}[tt.limited]; overflows != want {
				t.Errorf("%d overflows, want %d", overflows, want)
			}
		})
	}
}

// TestInbound_TargetByName: the number of a target port that is a name is what an
// EndpointSlice has for the node's address, or the WorkloadGroup of the node.
func TestInbound_TargetByName(t *testing.T) {
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		_, err := io.WriteString(c, okReply)
		return err == nil
	})
	_, port, _ := net.SplitHostPort(up.address)
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: default}\nspec: {selector: {app: client}, ports: [{name: http, port: 80, targetPort: web}]}\n---\n"
	node := testNode()
	node.Address = "10.0.0.1"
	for name, text := range map[string]string{
		"EndpointSlice": "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: own, labels: {kubernetes.io/service-name: own}}\naddressType: IPv4\nports: [{name: http, port: " + port + "}]\nendpoints: [{addresses: [10.0.0.1]}]\n",
		"WorkloadGroup": "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: own}\nspec: {metadata: {labels: {app: client}}, template: {ports: {web: " + port + "}}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, Options{Inbound: "127.0.0.1:0", Node: node}, service+text)
			if got := exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\nHost: own\r\n\r\n", whole(1)); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Errorf("got %q", got)
			}
		})
	}
}
