package proxy

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isthmus/telemetry"
)

// counted returns the proxy's request counters as "labels value", for the
// labels given.
func counted(t *testing.T, p *Proxy, names ...string) []string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(telemetry.Collector(p.Requests))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != "istio_requests_total" {
			continue
		}
		for _, m := range f.Metric {
			var line []string
			for _, name := range names {
				for _, l := range m.Label {
					if l.GetName() == name {
						line = append(line, l.GetValue())
					}
				}
			}
			out = append(out, fmt.Sprint(strings.Join(line, " "), " ", m.Counter.GetValue()))
		}
	}
	slices.Sort(out)
	return out
}

// TestRecord: every answer is counted once, ours and upstreams', with its flag
// and where it went.
func TestRecord(t *testing.T) {
	up := replying(t, okReply)
	gone := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	p := serve(t, Options{}, entry("s.test", up.address)+entry("reviews.prod.svc.cluster.local", up.address)+entry("gone.test", gone.address)+`apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own}
spec:
  hosts: [own.test]
  http:
  - match: [{uri: {exact: /redirect}}]
    redirect: {uri: /}
  - directResponse: {status: 200}
`)
	for _, request := range []string{
		get("s.test"), get("s.test"), get("reviews.prod.svc.cluster.local"), get("gone.test"), get("empty"), get("nobody.test"), get("own.test"),
		"GET /redirect HTTP/1.1\r\nHost: own.test\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
	} {
		exchangeRaw(t, p.address("outbound"), request, whole(1))
	}
	awaitIdle(p)
	want := []string{
		"source c1 empty.default.svc.cluster.local empty default unknown 503 UH 1",
		"source c1 gone.test gone.test unknown c1 503 UC 1",
		"source c1 reviews.prod.svc.cluster.local reviews prod c1 200 - 1",
		"source c1 s.test s.test unknown c1 200 - 2",
		"source c1 unknown BlackHoleCluster unknown unknown 400 DPE 1",
		"source c1 unknown BlackHoleCluster unknown unknown 404 NR 1",
		"source c1 unknown unknown unknown unknown 200 - 1",
		"source c1 unknown unknown unknown unknown 301 - 1",
	}
	var got []string
	for range 1000 { // a request is counted a moment after its client has the reply
		got = counted(t, p, "reporter", "source_cluster", "destination_service", "destination_service_name", "destination_service_namespace", "destination_cluster", "response_code", "response_flags")
		if slices.Equal(got, want) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	publish(t, p, entry("s.test", up.address))
	if left := counted(t, p, "destination_service"); len(left) != 5 {
		t.Errorf("after the others have gone: %q", left)
	}
}
