package mesh

import "testing"

func TestParseDestinationSNI(t *testing.T) {
	for _, tt := range []struct {
		name         string
		port         uint32
		subset, host string
	}{
		{"outbound_.80_._.web.prod.svc.cluster.local", 80, "", "web.prod.svc.cluster.local"},
		{"outbound_.8080_.v1_.web.prod.global", 8080, "v1", "web.prod.global"},
	} {
		port, subset, host, ok := ParseDestinationSNI(tt.name)
		if !ok || port != tt.port || subset != tt.subset || host != tt.host {
			t.Errorf("%s: got %d, %q, %q, %v", tt.name, port, subset, host, ok)
		}
		if back := DestinationSNI(port, subset, host); back != tt.name {
			t.Errorf("%s became %s", tt.name, back)
		}
	}
	for _, name := range []string{
		"", "web.prod", "outbound_.", "outbound_.80_._.", "outbound_.0_._.web", "outbound_.x_._.web", "outbound_.70000_._.web", "outbound_.80_.web", "inbound_.80_._.web",
	} {
		if _, _, host, ok := ParseDestinationSNI(name); ok {
			t.Errorf("%q names %q", name, host)
		}
	}
}
