package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests in this file drive real servers of others; bench/conformance.sh
// installs them and says where they are.

// startTool runs a server of others until the test ends.
func startTool(t *testing.T, name string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, log.String())
		}
	})
}

// prom is a Prometheus that scrapes every proxy of a mesh.
type prom struct{ address string }

func startPrometheus(t *testing.T, m *demoMesh) *prom {
	t.Helper()
	program := os.Getenv("ISTHMUS_PROMETHEUS")
	if program == "" {
		t.Skip("ISTHMUS_PROMETHEUS names no Prometheus: see make conformance-metrics")
	}
	var port int
	if err := freePorts([]*int{&port}); err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, n := range m.nodes {
		targets = append(targets, fmt.Sprintf("'127.0.0.1:%d'", n.admin))
	}
	dir := t.TempDir()
	config := fmt.Sprintf(`global: {scrape_interval: 1s}
scrape_configs:
- job_name: isthmus
  metrics_path: /stats/prometheus
  static_configs: [{targets: [%s]}]
`, strings.Join(targets, ", "))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &prom{fmt.Sprintf("127.0.0.1:%d", port)}
	startTool(t, program, "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", p.address)
	eventually(t, "Prometheus scrapes every proxy", func() bool {
		got, err := p.query("sum(up)")
		return err == nil && got[""] == float64(len(m.nodes))
	})
	return p
}

// query asks for the values of an expression, by the values of some labels.
func (p *prom) query(expression string, labels ...string) (map[string]float64, error) {
	res, err := http.Get("http://" + p.address + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil || answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s: %s, %v", expression, b, answer.Error, err)
	}
	out := map[string]float64{}
	for _, r := range answer.Data.Result {
		var key []string
		for _, l := range labels {
			key = append(key, r.Metric[l])
		}
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		out[strings.Join(key, " ")] += v
	}
	return out, nil
}

// TestConformance_Metrics: Prometheus scrapes two clusters, and the queries of
// Istio's dashboards say what the load has counted.
func TestConformance_Metrics(t *testing.T) {
	m := startMesh(t)
	p := startPrometheus(t, m)
	const service, n = "payment-service.production.global", 2000
	client := newDemoClient(m.node(central, "callers").outbound)
	var took []float64
	by := map[string]int{}
	send := func() { // half of n
		for range n / 2 {
			sent := time.Now()
			status, who, err := client.get(service, "/")
			if err != nil || status != http.StatusOK {
				t.Fatal(status, err)
			}
			by[who]++
			took = append(took, float64(time.Since(sent))/float64(time.Millisecond))
		}
	}
	for range 100 {
		client.get("nobody.test", "/")
	}
	send()

	exactly := func(what, expression string, want map[string]float64, labels ...string) {
		t.Helper()
		var got map[string]float64
		var err error
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			if got, err = p.query(expression, labels...); err == nil && fmt.Sprint(got) == fmt.Sprint(want) {
				t.Logf("%s: %v", what, got)
				return
			}
		}
		t.Errorf("%s: %v, %v; want %v", what, got, err, want)
	}
	// Rates are of what comes between two looks.
	exactly("the first half", `sum(istio_requests_total{reporter="source",destination_service=~".*payment-service.*"})`, map[string]float64{"": n / 2})
	send()
	want := map[string]float64{
		"us-central 200 -": float64(by["payment-service.us-central"]), "us-west 200 -": float64(by["payment-service.us-west"]),
	}
	exactly("requests by cluster, as the caller reports", `sum(istio_requests_total{reporter="source",destination_service=~".*payment-service.*"}) by (destination_cluster,response_code,response_flags)`,
		want, "destination_cluster", "response_code", "response_flags")
	exactly("requests by cluster, as the called report", `sum(istio_requests_total{reporter="destination",destination_service_name="payment-service",source_workload="callers",connection_security_policy="mutual_tls"}) by (destination_cluster,response_code,response_flags)`,
		want, "destination_cluster", "response_code", "response_flags")
	exactly("who has called", `sum(istio_requests_total{reporter="destination",destination_service_name="payment-service"}) by (source_principal,source_cluster,source_workload_namespace)`,
		map[string]float64{"spiffe://cluster.local/ns/production/sa/callers us-central production": n}, "source_principal", "source_cluster", "source_workload_namespace")
	exactly("nobody's", `sum(istio_requests_total{reporter="source",destination_service_name="BlackHoleCluster",response_code="404"})`, map[string]float64{"": 100})
	exactly("requests by link", `sum(isthmus_link_requests_total{source_cluster="us-central",outcome="success"}) by (destination_cluster)`,
		map[string]float64{central: want["us-central 200 -"], west: want["us-west 200 -"]}, "destination_cluster")
	exactly("sizes", `sum(istio_response_bytes_count{reporter="source",destination_service=~".*payment-service.*"})`, map[string]float64{"": n})

	about := func(what, expression string, want, tolerance float64) {
		t.Helper()
		got, err := p.query(expression)
		if err != nil || len(got) != 1 || math.Abs(got[""]-want) > tolerance*want {
			t.Errorf("%s: %v, %v; want about %.3f", what, got, err, want)
			return
		}
		t.Logf("%s: %.3f, want about %.3f", what, got[""], want)
	}
	about("client success rate", `sum(rate(istio_requests_total{reporter="source",destination_service=~".*payment-service.*|unknown",response_code!~"5.*"}[1m])) / sum(rate(istio_requests_total{reporter="source",destination_service=~".*payment-service.*|unknown"}[1m]))`, 1, 0.0001)
	slices.Sort(took)
	bounds := []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500}
	for _, q := range []float64{0.5, 0.9, 0.99} {
		expression := fmt.Sprintf(`histogram_quantile(%v, sum(rate(istio_request_duration_milliseconds_bucket{reporter="source",destination_service=~".*payment-service.*"}[5m])) by (le))`, q)
		got, err := p.query(expression)
		measured := took[int(q*float64(len(took)-1))]
		// The client waits a little longer than the proxy takes, as a rule: it may get
		// the last of the reply before the proxy has seen that it is sent. So the next
		// bucket will do.
		i, _ := slices.BinarySearch(bounds, measured)
		if err != nil || !(got[""] > 0 && got[""] <= bounds[min(i+1, len(bounds)-1)]) {
			t.Errorf("p%v: %v, %v; the client measured %.3f ms", 100*q, got, err, measured)
			continue
		}
		t.Logf("p%v: %.3f ms, the client measured %.3f ms", 100*q, got[""], measured)
	}
}

// TestConformance_Traces: a real collector gets the spans of a request that
// crosses two clusters, by OTLP over HTTP, over gRPC and in Zipkin's format, and
// they are one trace.
func TestConformance_Traces(t *testing.T) {
	program := os.Getenv("ISTHMUS_OTELCOL")
	if program == "" {
		t.Skip("ISTHMUS_OTELCOL names no collector: see make conformance-metrics")
	}
	var grpc, otlp, zipkin int
	if err := freePorts([]*int{&grpc, &otlp, &zipkin}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf(`receivers:
  otlp: {protocols: {grpc: {endpoint: "127.0.0.1:%d"}, http: {endpoint: "127.0.0.1:%d"}}}
  zipkin: {endpoint: "127.0.0.1:%d"}
exporters:
  file/otlp: {path: %s/otlp.json}
  file/zipkin: {path: %s/zipkin.json}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces/otlp: {receivers: [otlp], exporters: [file/otlp]}
    traces/zipkin: {receivers: [zipkin], exporters: [file/zipkin]}
`, grpc, otlp, zipkin, dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "otelcol.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	startTool(t, program, "--config", filepath.Join(dir, "otelcol.yaml"))
	eventually(t, "the collector is ready", func() bool {
		res, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/v1/traces", otlp), "application/json", strings.NewReader("{}"))
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	for _, endpoint := range []string{fmt.Sprintf("http://127.0.0.1:%d", otlp), fmt.Sprintf("grpc://127.0.0.1:%d", grpc)} {
		t.Run(endpoint[:4], func(t *testing.T) {
			m := startMesh(t, fmt.Sprintf("tracing: {sampling: 0, otlp: {endpoint: %q}, zipkin: {address: '127.0.0.1:%d'}}\n", endpoint, zipkin))
			client := newDemoClient(m.node(central, "callers").outbound)
			trace := fmt.Sprintf("4bf92f3577b34da6a3ce929d%08x", time.Now().UnixNano()&0xffffffff)
			const caller = "00f067aa0ba902b7"
			if status, by, err := client.get("catalog-service.production.global", "/", "user-type", "premium", "traceparent", "00-"+trace+"-"+caller+"-01"); err != nil || status != 200 || by != "catalog-service.us-west" {
				t.Fatal(status, by, err)
			}
			for _, file := range []string{"otlp.json", "zipkin.json"} {
				var chain []string
				eventually(t, file+" has the whole trace", func() bool {
					chain = chainOf(t, filepath.Join(dir, file), trace, caller)
					return len(chain) >= 4
				})
				want := []string{"callers.production us-central", "callers.production us-central", "services.production us-west", "services.production us-west"}
				if !slices.Equal(chain, want) {
					t.Errorf("%s: %q, want %q", file, chain, want)
				}
				t.Logf("%s: %s", file, strings.Join(chain, " -> "))
			}
		})
	}
}

// chainOf reads the spans of a trace that a collector has written, and follows
// them from the caller's to the last: whose each is, and in which cluster.
func chainOf(t *testing.T, file, trace, caller string) (chain []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	type span struct{ id, who string }
	children := map[string]span{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		type attribute struct {
			Key   string
			Value struct{ StringValue string }
		}
		var line struct {
			ResourceSpans []struct {
				Resource   struct{ Attributes []attribute }
				ScopeSpans []struct {
					Spans []struct {
						TraceID, SpanID, ParentSpanID string
						Attributes                    []attribute
					}
				}
			}
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue // it is being written
		}
		get := func(list []attribute, key string) string {
			for _, a := range list {
				if a.Key == key {
					return a.Value.StringValue
				}
			}
			return ""
		}
		for _, r := range line.ResourceSpans {
			for _, sc := range r.ScopeSpans {
				for _, s := range sc.Spans {
					if s.TraceID != trace {
						continue
					}
					cluster := get(s.Attributes, "istio.cluster_id")
					if cluster == "" { // of a try: that of its exchange, which comes before it
						cluster = "try"
					}
					children[s.ParentSpanID] = span{s.SpanID, get(r.Resource.Attributes, "service.name") + " " + cluster}
				}
			}
		}
	}
	for at := caller; ; {
		next, ok := children[at]
		if !ok {
			return chain
		}
		if who, ok := strings.CutSuffix(next.who, " try"); ok && len(chain) > 0 {
			_, cluster, _ := strings.Cut(chain[len(chain)-1], " ")
			next.who = who + " " + cluster
		}
		chain = append(chain, next.who)
		at = next.id
	}
}
