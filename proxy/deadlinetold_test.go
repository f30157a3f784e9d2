package proxy

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"isthmus/tls"
)

// TestDeadline_ToldByProxy: a deadline at which the other end's proxy gives up a moment
// before this one is this one's: it is logged as that, may be tried again as that, and a
// gateway's client who hardly waits has nobody ejected by it.
func TestDeadline_ToldByProxy(t *testing.T) {
	const eject = "outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 100}"
	for _, tt := range []struct {
		name, listener, rule, fields string
		silent                       int32 // requests that get no answer
		status, detail               string
		ejected                      bool
	}{
		{"the route's", "outbound", "timeout: 0.05s", "", 100, "504", "upstream_response_timeout", true},
		{"a try's", "outbound", "retries: {attempts: 1, perTryTimeout: 0.05s, retryOn: connect-failure}", "", 100, "504", "upstream_per_try_timeout", true},
		{"a try's, and there is another one", "outbound", "retries: {attempts: 1, perTryTimeout: 1s, retryOn: reset}", "", 1, "200", "", false},
		{"that of a gateway's client", "gateway:80", "timeout: 0s", "grpc-timeout: 50m\r\n", 100, "504", "upstream_response_timeout", false},
	} {
		for _, wire := range []string{"plain text", "mTLS"} {
			t.Run(tt.name+", by "+wire, func(t *testing.T) {
				tr := newTrust(t)
				own, web := (*tls.Own)(nil), (*tls.Own)(nil)
				if wire == "mTLS" {
					own, web = tr.identity("shop", "frontend"), tr.identity("prod", "web")
				}
				var asked atomic.Int32
				application := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
					skipBody(head, r)
					if asked.Add(1) <= tt.silent {
						r.ReadByte() // until the proxy has enough
						return false
					}
					_, err := io.WriteString(c, okReply)
					return err == nil
				})
				callee := sidecarOfWeb(t, web, application.address, "")
				identity := ""
				if id := web.Identity(); id != nil {
					identity = id.ID
				}
				o := proxyOf("shop", "frontend", own)
				o.Node.Labels["istio"] = "ingressgateway"
				o.GatewayPorts = map[uint32]uint32{80: 0}
				yaml := strings.Replace(edge(webHost), "gateways: [gw]", "gateways: [gw, mesh]", 1)
				yaml = strings.Replace(yaml, "{route:", "{"+tt.rule+", route:", 1)
				caller := serve(t, o, strings.Replace(destinationRule(webHost, eject), "metadata: {", "metadata: {namespace: shop, ", 1)+strings.ReplaceAll(yaml, "metadata: {", "metadata: {namespace: shop, "), webAt(callee, identity))
				out := func() bool {
					return slices.ContainsFunc(caller.HostStates(), func(h HostState) bool { return !h.Healthy })
				}
				tries := 3
				if tt.ejected {
					tries = 1000 // a deadline may pass before there is a connection
				}
				for i := 0; i < tries && !out(); i++ {
					got := exchangeRaw(t, caller.address(tt.listener), "GET / HTTP/1.1\r\nHost: "+webHost+"\r\n"+tt.fields+"\r\n", whole(1))
					if status(got) != tt.status {
						t.Fatalf("answered %q, want %s", got, tt.status)
					}
					if tt.detail != "" {
						if why := askWhy(t, caller, got); why.Detail != tt.detail || why.Flags != "UT" {
							t.Errorf("told as %s, flags %s, want %s, UT", why.Detail, why.Flags, tt.detail)
						}
					}
				}
				if out() != tt.ejected {
					t.Errorf("ejected %v, want %v", out(), tt.ejected)
				}
			})
		}
	}
}
