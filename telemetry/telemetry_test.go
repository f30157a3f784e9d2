package telemetry

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
)

// TestCollector adds up what bears the same labels and tells the rest apart.
func TestCollector(t *testing.T) {
	a := NewRequests(Labels{Reporter: "source", SourceApp: "client", DestinationService: "s.test", DestinationCluster: "c1"})
	b := NewRequests(Labels{Reporter: "source", SourceApp: "client", DestinationService: "s.test", DestinationCluster: "c1"})
	a.Record(200, NoFlag, 3*time.Millisecond)
	a.Record(200, NoFlag, 500*time.Microsecond)
	b.Record(200, NoFlag, 2*time.Hour)
	b.Record(503, "UH", 0)
	b.Record(0, "DC", 0)
	const labels = `connection_security_policy="unknown",destination_cluster="c1",destination_service="s.test",destination_service_name="unknown",destination_service_namespace="unknown",reporter="source",request_protocol="http",response_code="%s",response_flags="%f",source_app="client",source_cluster="unknown",source_version="unknown",source_workload="unknown",source_workload_namespace="unknown"`
	with := func(status, flag string) string {
		return strings.NewReplacer("%s", status, "%f", flag).Replace(labels)
	}
	want := `# HELP istio_requests_total Requests by who called whom and what became of them.
# TYPE istio_requests_total counter
istio_requests_total{` + with("0", "DC") + `} 1
istio_requests_total{` + with("200", "-") + `} 3
istio_requests_total{` + with("503", "UH") + `} 1
`
	c := Collector(func() []*Requests { return []*Requests{a, b} })
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "istio_requests_total"); err != nil {
		t.Error(err)
	}
	all, err := testutil.CollectAndFormat(c, expfmt.TypeTextPlain, "istio_request_duration_milliseconds")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`bucket{` + with("200", "-") + `,le="0.5"} 1`, `bucket{` + with("200", "-") + `,le="1"} 1`, `bucket{` + with("200", "-") + `,le="5"} 2`,
		`bucket{` + with("200", "-") + `,le="+Inf"} 3`, `sum{` + with("200", "-") + `} 7.2000035e+06`,
	} {
		if !strings.Contains(string(all), line) {
			t.Errorf("no %s in\n%s", line, all)
		}
	}
}

// TestRecord_AllocatesNothing once a series is there.
func TestRecord_AllocatesNothing(t *testing.T) {
	r := NewRequests(Labels{})
	if n := testing.AllocsPerRun(100, func() { r.Record(200, NoFlag, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := NewRequests(Labels{})
	b.ReportAllocs()
	for b.Loop() {
		r.Record(200, NoFlag, time.Millisecond)
	}
}
