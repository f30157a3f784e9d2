package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"isthmus/mesh"
)

const probeHeaders = "x-isthmus-destination: %s\r\nx-isthmus-probe: 1\r\n"

// probe asks a proxy's inbound listener whether it serves a destination.
func probe(t *testing.T, p *Proxy, destination string) (code, reason string) {
	t.Helper()
	got := exchangeRaw(t, p.address("inbound"), "GET / HTTP/1.1\r\nHost: x\r\n"+fmt.Sprintf(probeHeaders, destination)+"\r\n", whole(1))
	if !strings.Contains(got, "\r\nx-isthmus-probe: 1\r\n") {
		t.Errorf("the answer does not say that it is one:\n%s", got)
	}
	_, reason, _ = strings.Cut(got, "\r\n\r\n")
	return status(got), reason
}

func ownService(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return `
apiVersion: v1
kind: Service
metadata: {name: own}
spec:
  selector: {app: client}
  ports: [{name: http, port: 80, targetPort: ` + port + `}]
---
`
}

// TestProbe_Sidecar: the sidecar says whether its application can serve, by
// its own probe or, without one, by a connection.
func TestProbe_Sidecar(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{Inbound: "127.0.0.1:0"}, ownService(up.address))
	for range 3 { // at once: one connection tells all of them
		if code, reason := probe(t, p, "own.default:80"); code != "200" || reason != "" {
			t.Errorf("a running application: %s %s", code, reason)
		}
	}
	if code, reason := probe(t, p, "other.default:80"); code != "404" || reason != "not served here" {
		t.Errorf("another service: %s %s", code, reason)
	}
	for _, tt := range []struct {
		application  *mesh.Health
		code, reason string
	}{
		{&mesh.Health{Unready: "probe: GET /: 500"}, "503", "probe: GET /: 500"},
		{&mesh.Health{}, "200", ""},
	} {
		s := *p.table.Load().snapshot
		s.Application = tt.application
		if err := p.Publish(&s); err != nil {
			t.Fatal(err)
		}
		if code, reason := probe(t, p, "own.default:80"); code != tt.code || reason != tt.reason {
			t.Errorf("probed as %+v: %s %s, want %s %s", tt.application, code, reason, tt.code, tt.reason)
		}
	}
	p.draining.Store(true)
	if code, reason := probe(t, p, "own.default:80"); code != "503" || reason != "draining" {
		t.Errorf("draining: %s %s", code, reason)
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if len(up.heads) != 0 || up.conns > 1 {
		t.Errorf("the application has seen %d requests over %d connections", len(up.heads), up.conns)
	}
	if list := counted(t, p, "response_code"); len(list) > 0 {
		t.Errorf("probes are counted as requests: %v", list)
	}
}

// TestProbe_ApplicationDown says so, without a probe of a WorkloadGroup.
func TestProbe_ApplicationDown(t *testing.T) {
	p := serve(t, Options{Inbound: "127.0.0.1:0"}, ownService(deadAddress(t)))
	if code, reason := probe(t, p, "own.default:80"); code != "503" || reason != "connection refused" {
		t.Errorf("%s %s", code, reason)
	}
}

// TestProbe_Gateway: an east-west gateway says whether one of those behind it
// can be connected to.
func TestProbe_Gateway(t *testing.T) {
	up := replying(t, okReply).address
	for _, tt := range []struct {
		name         string
		addresses    []string
		unready      string
		code, reason string
	}{
		{"all are there", []string{up}, "", "200", ""},
		{"one is not", []string{deadAddress(t), up}, "", "200", ""},
		{"none is", []string{deadAddress(t)}, "", "503", "connection refused"},
		{"none is ready", []string{up}, "probe: GET /: 500", "503", "probe: GET /: 500"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []mesh.Endpoint
			for _, a := range tt.addresses {
				list = append(list, mesh.Endpoint{
					Service: "s.default", Port: mesh.Port{Number: 80, Name: "http"}, Address: netip.MustParseAddrPort(a), Cluster: "c1", Weight: 1,
					Unready: tt.unready, Source: mesh.SourceGossip,
				})
			}
			p := serve(t, Options{Inbound: "127.0.0.1:0", Through: true}, "", list...)
			if code, reason := probe(t, p, "s.default:80"); code != tt.code || reason != tt.reason {
				t.Errorf("%s %s, want %s %s", code, reason, tt.code, tt.reason)
			}
		})
	}
}

// TestProbe_InboundAlone: on other listeners the field means nothing, and goes
// no further.
func TestProbe_InboundAlone(t *testing.T) {
	up := replying(t, okReply)
	o := atEdge()
	p := serve(t, o, entry("s.test", up.address)+edge("s.test"))
	for _, listener := range []string{"outbound", "gateway:80"} {
		got := exchangeRaw(t, p.address(listener), "GET / HTTP/1.1\r\nHost: s.test\r\n"+fmt.Sprintf(probeHeaders, "own.default:80")+"\r\n", whole(1))
		if status(got) != "200" || !strings.HasSuffix(got, "ok") {
			t.Errorf("%s: %s", listener, got)
		}
	}
	heads := up.seen()
	if len(heads) != 2 {
		t.Fatalf("%d requests have arrived, want 2", len(heads))
	}
	for _, h := range heads {
		if strings.Contains(h, "x-isthmus-probe") {
			t.Errorf("the field was sent on:\n%s", h)
		}
	}
}

// TestProbe_Forgets what it knows of services that are gone.
func TestProbe_Forgets(t *testing.T) {
	p := serve(t, Options{Inbound: "127.0.0.1:0"}, ownService(replying(t, okReply).address))
	probe(t, p, "own.default:80")
	count := func() (n int) {
		p.reached.Range(func(_, _ any) bool { n++; return true })
		return n
	}
	if count() != 1 {
		t.Fatalf("%d known, want 1", count())
	}
	publish(t, p, "")
	if count() != 0 {
		t.Errorf("%d known of a service that is gone", count())
	}
}
