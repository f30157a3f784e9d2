package admin

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"isthmus/telemetry"
)

func TestMetrics(t *testing.T) {
	s := &state{status: Status{Ready: true, Snapshot: Snapshot{Number: 7, Age: 3, Error: "a.yaml:1: error"}}}
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(NewCollector(s)); err != nil {
		t.Fatal(err)
	}
	h := Metrics(s, telemetry.Handler(1, r))
	for _, path := range []string{"/metrics", "/stats/prometheus"} {
		w := ask(h, "GET", path, nil)
		for _, line := range []string{
			"isthmus_ready 1", "isthmus_snapshot_number 7", "isthmus_snapshot_age_seconds 3", "isthmus_config_in_force 0",
			`isthmus_probes_total{of="workload",result="success"} 5`, `isthmus_probes_total{of="endpoint",result="failure"} 2`,
			`isthmus_certificate_expiration_timestamp_seconds{certificate="identity"} 1.9e+09`, `isthmus_certificate_in_force{certificate="identity"} 1`,
			`isthmus_certificate_in_force{certificate="web/tls.crt"} 0`, `isthmus_certificate_in_force{certificate="none/tls.crt"} 0`, "envoy_server_days_until_first_cert_expiring 0", "isthmus_identity_reloads_total 2",
			"isthmus_gossip_records 3", "isthmus_gossip_records_behind 1", `isthmus_gossip_rtt_seconds{cluster="c1"} 0.001`, `isthmus_gossip_rtt_seconds{cluster="c2"} 0.04`, `isthmus_gossip_last_heard_age_seconds{cluster="c2"} 1`, "envoy_server_live 1", "envoy_server_state 0",
			`isthmus_gossip_members{state="alive"} 1`, `isthmus_gossip_members{state="dead"} 0`,
			`isthmus_endpoints{cluster="c1",healthy="true"} 1`, `isthmus_endpoints{cluster="c1",healthy="false"} 0`, `isthmus_endpoints{cluster="c2",healthy="false"} 1`,
		} {
			if !strings.Contains(w.Body.String(), line+"\n") {
				t.Errorf("%s: %s is missing in\n%s", path, line, w.Body)
			}
		}
	}
	if w := ask(h, "GET", "/metrics", nil); strings.Contains(w.Body.String(), `expiration_timestamp_seconds{certificate="none/tls.crt"}`) {
		t.Error("a certificate that never was has an end")
	}
	if w := ask(h, "GET", "/metrics", nil); strings.Contains(w.Body.String(), `last_heard_age_seconds{cluster="c1"}`) {
		t.Error("a cluster tells of itself that it has been heard of")
	}
	if w := ask(h, "GET", "/healthz/live", nil); w.Code != 200 {
		t.Errorf("live: %d", w.Code)
	}
}
