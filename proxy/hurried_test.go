package proxy

import (
	"net/netip"
	"testing"
	"time"

	"isthmus/mesh"
)

// TestHurried: a time-out is held to the round trips that connecting takes, by TLS
// one more, and only where somebody knows the way.
func TestHurried(t *testing.T) {
	tr := newTrust(t)
	far := mesh.Endpoint{
		Service: "web.prod", Port: mesh.Port{Number: 80, Name: "http", Protocol: mesh.ProtocolHTTP}, Address: netip.MustParseAddrPort(refusing(t)),
		Cluster: "c2", Weight: 1, Via: true, Source: mesh.SourceGossip, Owner: "c2/prod/web",
	}
	secure := far
	secure.Identity = tr.identity("prod", "web").Identity().ID
	rule := destinationRule(webHost, "connectionPool: {tcp: {connectTimeout: 30s}}")
	for _, tt := range []struct {
		name     string
		endpoint mesh.Endpoint
		trips    map[string]time.Duration
		takes    time.Duration // 0: nothing is said
	}{
		{"nobody knows", far, nil, 0},
		{"near", far, map[string]time.Duration{"c2": 29 * time.Second}, 0},
		{"far", far, map[string]time.Duration{"c2": 31 * time.Second}, 31 * time.Second},
		{"near, but for TLS", secure, map[string]time.Duration{"c2": 16 * time.Second}, 32 * time.Second},
		{"the own cluster", secure, map[string]time.Duration{"c1": time.Minute}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, proxyOf("shop", "frontend", tr.identity("shop", "frontend")), rule, tt.endpoint)
			exchangeRaw(t, p.address("outbound"), get(webHost), whole(1)) // so that the upstream is in use
			got := p.Hurried(tt.trips)
			if tt.takes == 0 && len(got) > 0 || tt.takes > 0 && (len(got) != 1 || got[0].Takes != tt.takes || got[0].Source.String() != "test.yaml:4") {
				t.Errorf("got %+v, want %v", got, tt.takes)
			}
		})
	}
}
