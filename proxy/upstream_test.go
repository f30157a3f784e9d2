package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestUpstream_Prepared: when endpoints of an upstream in use have changed, requests do not
// wait until it is worked out anew who gets what, which takes the longer the more there are.
func TestUpstream_Prepared(t *testing.T) {
	const many = 2000
	of := func(n int) string {
		var endpoints strings.Builder
		for i := range n {
			fmt.Fprintf(&endpoints, "{address: 10.0.%d.%d}, ", i/250, i%250+1)
		}
		return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: many}\nspec: {hosts: [many.test], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [" + endpoints.String() + "]}\n---\n" +
			destinationRule("many.test", "loadBalancer: {consistentHash: {httpHeaderName: x-user}}")
	}
	p := serve(t, Options{}, of(many))
	inUse := func() *upstream {
		table := p.table.Load()
		for k, target := range table.targets {
			if k.host == "many.test" {
				return p.makeUpstream(table, target)
			}
		}
		t.Fatal("no target")
		return nil
	}
	inUse()
	publish(t, p, of(many+1))
	u := inUse()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, ok := u.set.Pick(nil, 12345)
	runtime.ReadMemStats(&after)
	if made := after.TotalAlloc - before.TotalAlloc; !ok || made > many*16 {
		t.Errorf("a host is picked: %v; %d bytes were made for it", ok, made)
	}
}

// TestUpstream_FailoverPriority: which cluster the proxy is in counts, without a label that
// says so.
func TestUpstream_FailoverPriority(t *testing.T) {
	far, near := replying(t, okReply), replying(t, okReply)
	services := strings.Replace(entry("s.test", far.address, near.address), "locality: r1/z1}", "locality: r1/z1, labels: {topology.istio.io/cluster: c2}}", 1)
	p := serve(t, Options{}, services+destinationRule("s.test", "loadBalancer: {localityLbSetting: {failoverPriority: [topology.istio.io/cluster]}}"))
	for range 20 {
		askPath(p, t, "/", "")
	}
	if n := len(near.seen()); n != 20 {
		t.Errorf("%d of 20 requests went to the own cluster", n)
	}
}

// TestUpstream_OutlierDetectionGone: what a policy has ejected gets requests again once that
// policy is gone, whatever time it has named.
func TestUpstream_OutlierDetectionGone(t *testing.T) {
	var well atomic.Bool
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		reply := okReply
		if !well.Load() {
			reply = "HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"
		}
		_, err := io.WriteString(c, reply)
		return err == nil
	})
	with := func(policy string) string { return entry("s.test", up.address) + destinationRule("s.test", policy) }
	const eject = "outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100}"
	p := serve(t, Options{}, with(eject))
	if first, second := status(askPath(p, t, "/", "")), status(askPath(p, t, "/", "")); first != "500" || second != "503" {
		t.Fatalf("%s and %s, want 500 and, ejected, 503", first, second)
	}
	well.Store(true)
	publish(t, p, "# moved\n"+with(eject+", loadBalancer: {simple: RANDOM}"))
	if got := status(askPath(p, t, "/", "")); got != "503" {
		t.Errorf("%s after a change of another block, want 503", got)
	}
	publish(t, p, with("loadBalancer: {simple: RANDOM}"))
	await(t, "a reply", until(func() bool { return status(askPath(p, t, "/", "")) == "200" }))
}

// TestUpstream_ConnectionAges: a connection that is as old as maxConnectionDuration lets it be
// carries no more requests, though it was not when the last one was over.
func TestUpstream_ConnectionAges(t *testing.T) {
	const longest = 100 * time.Millisecond
	for _, http2 := range []bool{false, true} {
		for _, swept := range []bool{false, true} {
			t.Run(fmt.Sprintf("http2 %v, swept %v", http2, swept), func(t *testing.T) {
				t.Parallel()
				services := entry("s.test", h2Upstream(t, func(http.ResponseWriter, *http.Request) {}))
				if http2 {
					services = overHTTP2(services)
				}
				p := serve(t, Options{}, services+destinationRule("s.test", "connectionPool: {tcp: {maxConnectionDuration: 100ms}}"))
				for range 3 {
					if got := status(askPath(p, t, "/", "")); got != "200" {
						t.Fatal(got)
					}
					time.Sleep(longest)
					if swept {
						u := theUpstream(t, p)
						u.members[0].pool.sweep(u)
						u.members[0].shared.sweep(u)
						await(t, "the end of it", until(func() bool { return u.live.queue.open.Load() == 0 }))
					}
				}
				if n := theUpstream(t, p).live.stats.Connects.Load(); n != 3 {
					t.Errorf("%d connections for three requests", n)
				}
			})
		}
	}
}

// TestUpstream_NoNewer: endpoints that are spoken to otherwise do not warm up for that, so that
// those of other localities get no part of their traffic.
func TestUpstream_NoNewer(t *testing.T) {
	services := strings.Replace(entry("s.test", "10.0.0.1:80", "10.0.0.2:80"), "locality: r1/z1}", "locality: r2/z2}", 1)
	const warmup = "loadBalancer: {warmup: {duration: 1h}}"
	p := serve(t, Options{}, services+destinationRule("s.test", warmup))
	shares := func() (parts []float64) {
		table := p.table.Load()
		for k, target := range table.targets {
			if k.host == "s.test" {
				for _, s := range p.makeUpstream(table, target).set.Shares() {
					parts = append(parts, s.Part)
				}
			}
		}
		return parts
	}
	for _, tls := range []string{"", ", tls: {mode: SIMPLE}", ", tls: {mode: SIMPLE, sni: a.test}", ", tls: {mode: DISABLE}"} {
		publish(t, p, services+destinationRule("s.test", warmup+tls))
		if got := shares(); !slices.Equal(got, []float64{0, 1}) {
			t.Errorf("with %q the shares are %v, want those of the own zone alone", tls, got)
		}
	}
}
