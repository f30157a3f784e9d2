package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// labels are those of exchanges between two services.
var labels = Labels{
	Reporter:           "source",
	Source:             Party{Workload: "client", Namespace: "a", App: "client", Cluster: "c1"},
	Destination:        Party{Workload: "s", Namespace: "b", Principal: "spiffe://td/ns/b/sa/s", Cluster: "c2"},
	DestinationService: "s.b.global", DestinationName: "s", DestinationNamespace: "b",
}

const shownLabels = `connection_security_policy="unknown",destination_app="unknown",destination_canonical_revision="unknown",destination_canonical_service="unknown",destination_cluster="c2",destination_principal="spiffe://td/ns/b/sa/s",destination_service="s.b.global",destination_service_name="s",destination_service_namespace="b",destination_version="unknown",destination_workload="s",destination_workload_namespace="b",grpc_response_status="%g",reporter="source",request_protocol="%p",response_code="%s",response_flags="%f",source_app="client",source_canonical_revision="unknown",source_canonical_service="unknown",source_cluster="c1",source_principal="unknown",source_version="unknown",source_workload="client",source_workload_namespace="a"`

func shown(status, flag, protocol, grpc string) string {
	return strings.NewReplacer("%s", status, "%f", flag, "%p", protocol, "%g", grpc).Replace(shownLabels)
}

func plain(status int, took time.Duration) *Exchange {
	return &Exchange{Status: status, Flag: NoFlag, GRPC: NoGRPC, Took: took, RequestBytes: 100, ReplyBytes: 2000}
}

func newStore() *Store[Requests, *Requests] {
	return NewStore(NewRequests, func(func(*Requests)) {})
}

// TestRequests counts under Istio's names and labels, and together what bears the
// same.
func TestRequests(t *testing.T) {
	s := newStore()
	a, b := s.Of(labels), s.Of(labels)
	a.Record(plain(200, 3*time.Millisecond))
	a.Record(plain(200, 500*time.Microsecond))
	b.Record(plain(200, 2*time.Hour))
	b.Record(&Exchange{Status: 503, Flag: "UH", GRPC: NoGRPC})
	b.Record(&Exchange{Status: 0, Flag: "DC", GRPC: NoGRPC})
	b.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: 14})
	b.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: GRPCNoStatus})
	all := page(t, s, "")
	if want := "# HELP istio_requests_total Requests by who called whom and what became of them.\n# TYPE istio_requests_total counter\n"; !strings.HasPrefix(all, want) {
		t.Errorf("no %s in\n%s", want, all)
	}
	for _, line := range []string{
		shown("0", "DC", "http", "") + "} 1", shown("200", "-", "http", "") + "} 3", shown("200", "-", "grpc", "") + "} 1",
		shown("200", "-", "grpc", "14") + "} 1", shown("503", "UH", "http", "") + "} 1",
	} {
		if line = "\nistio_requests_total{" + line + "\n"; !strings.Contains(all, line) {
			t.Errorf("no %s in\n%s", line, all)
		}
	}
	for name, lines := range map[string][]string{
		"istio_request_duration_milliseconds": {`,le="0.5"} 1`, `,le="1"} 1`, `,le="5"} 2`, `,le="+Inf"} 3`, `} 7.2000035e+06`},
		"istio_request_bytes":                 {`,le="50"} 0`, `,le="100"} 3`, `} 300`},
		"istio_response_bytes":                {`,le="1000"} 0`, `,le="2500"} 3`, `} 6000`},
	} {
		for _, line := range lines {
			if !regexp.MustCompile(`(?m)^` + name + `_(bucket|sum|count)\{` + regexp.QuoteMeta(shown("200", "-", "http", "")+line) + `$`).MatchString(all) {
				t.Errorf("%s: no %s in\n%s", name, line, all)
			}
		}
	}
}

// TestRequests_Exemplar: whoever asks for OpenMetrics is told of a trace, which is
// that of the slowest exchange of some time.
func TestRequests_Exemplar(t *testing.T) {
	s := newStore()
	record := func(id byte, took, end time.Duration) {
		e := plain(200, took)
		e.Trace, e.End = [16]byte{id, 15: 1}, int64(end)
		s.Of(labels).Record(e)
	}
	is := func(want ...string) {
		t.Helper()
		all := page(t, s, "application/openmetrics-text; version=1.0.0")
		for _, want := range append(want, "# TYPE istio_requests counter\n", "isthmus_more 1.0\n# EOF\n") {
			if !strings.Contains(all, want) {
				t.Errorf("no %s in\n%s", want, all)
			}
		}
		if n := strings.Count(all, "trace_id"); n != 1 {
			t.Errorf("%d exemplars", n)
		}
	}
	record(0xab, 3*time.Millisecond, 1500*time.Millisecond)
	is(`,le="5.0"} 1 # {trace_id="ab000000000000000000000000000001"} 3 1.500` + "\n")
	record(0xac, 2*time.Millisecond, 2*time.Second)
	is(`,le="5.0"} 2 # {trace_id="ab000000000000000000000000000001"} 3 1.500` + "\n")
	record(0xad, 7*time.Millisecond, 3*time.Second)
	is(`,le="10.0"} 3 # {trace_id="ad000000000000000000000000000001"} 7 3.000` + "\n")
	record(0xae, time.Millisecond, 3*time.Second+exemplarFor)
	is(`,le="1.0"} 1 # {trace_id="ae000000000000000000000000000001"} 1 18.000` + "\n")
}

// TestStore_Forgets: counters that nobody holds and nobody counts in are shown for
// a while and then gone; whoever still has one is told.
func TestStore_Forgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held []*Requests
		s := NewStore(NewRequests, func(found func(*Requests)) {
			for _, r := range held {
				found(r)
			}
		})
		other := labels
		other.Destination.Workload = "other"
		a, b := s.Of(labels), s.Of(other)
		held = []*Requests{a}
		a.Record(plain(200, 0))
		b.Record(plain(200, 0))
		count := func(want int) {
			t.Helper()
			if n := strings.Count(page(t, s, ""), "\nistio_requests_total{"); n != want {
				t.Errorf("%d series, want %d", n, want)
			}
		}
		count(2)
		time.Sleep(KeptFor)
		count(2)
		b.Record(plain(200, 0)) // it is not gone yet
		count(2)
		time.Sleep(KeptFor + time.Second)
		count(1)
		if a.Gone() || !b.Gone() || s.Of(labels) != a || s.Of(other) == b {
			t.Error("the wrong ones are gone")
		}
	})
}

// TestStore_Bounded: too many labels count together, and are told of.
func TestStore_Bounded(t *testing.T) {
	s := newStore()
	for i := range maxLabels + 10 {
		l := labels
		l.Destination.Workload = fmt.Sprint(i)
		s.Of(l)
	}
	if n := len(s.byLabels); n != maxLabels || s.Overflowed() != 0 {
		t.Errorf("%d combinations, %d exchanges on top", n, s.Overflowed())
	}
	for i, reporter := range []string{"source", "destination", "destination"} {
		l := labels
		l.Reporter, l.Destination.Workload = reporter, fmt.Sprint("one more: ", i)
		s.Of(l).Record(plain(200, 0))
	}
	if n := s.Overflowed(); n != 3 {
		t.Errorf("%d exchanges on top, want 3", n)
	}
	got := lines(t, s, "istio_requests_total", "reporter", "destination_workload")
	slices.Sort(got)
	same(t, "on top", got, "destination unknown 2", "source unknown 1")
}

// TestStore_Follow: what is of no more use goes also where nobody scrapes. A
// connection that is open keeps its counters, however long it is silent.
func TestStore_Follow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests, connections := newStore(), NewStore(NewConnections, func(func(*Connections)) {})
		for _, s := range []interface{ Follow(context.Context) }{requests, connections} {
			go s.Follow(t.Context())
		}
		r, silent, ended := requests.Of(labels), connections.Of(labels), connections.Of(Labels{})
		r.Record(plain(200, 0))
		silent.Open()
		ended.Open()
		ended.Close(NoFlag)
		time.Sleep(KeptFor)
		if r.Gone() || silent.Gone() || ended.Gone() {
			t.Error("gone too soon")
		}
		time.Sleep(KeptFor)
		if !r.Gone() || silent.Gone() || !ended.Gone() {
			t.Errorf("gone: %v, %v, %v; want all but the connection that is open", r.Gone(), silent.Gone(), ended.Gone())
		}
		silent.Close(NoFlag)
		time.Sleep(2 * KeptFor)
		if !silent.Gone() {
			t.Error("the connection that was open keeps its counters")
		}
	})
}

// TestStore_Asked: what somebody has just asked for is not forgotten before it is
// counted in, however long nobody has.
func TestStore_Asked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(NewConnections, func(func(*Connections)) {})
		go s.Follow(t.Context())
		s.Of(labels)
		time.Sleep(KeptFor + sweepEvery - time.Second)
		c := s.Of(labels)
		time.Sleep(2 * time.Second) // a sweep comes in between
		c.Open()
		time.Sleep(KeptFor)
		c.Close(NoFlag)
		if all := page(t, s, ""); c.Gone() || !strings.Contains(all, "istio_tcp_connections_closed_total{") {
			t.Errorf("forgotten: %v\n%s", c.Gone(), all)
		}
	})
}

// TestRecord_AllocatesNothing once a series is there.
func TestRecord_AllocatesNothing(t *testing.T) {
	r, e := NewRequests(Labels{}), plain(200, time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { r.Record(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// page is what a scrape shows of a source, and of a gauge that a registry has.
func page(t *testing.T, s Source, accept string) string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isthmus_more"}, func() float64 { return 1 }))
	req := httptest.NewRequest("GET", "/", nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	Handler(1, r, s).ServeHTTP(w, req)
	text := w.Body.String()
	if w.Code != 200 {
		t.Fatal(text)
	}
	if accept == "" {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
	return text
}

func TestLinks(t *testing.T) {
	l := NewLinks(Place{"c1", "r1/z1"}, func(func(*Link)) {})
	k := l.To(Place{"c2", "r2/z2"})
	k.Reply(200, 40*time.Millisecond, 100, 2000)
	k.Reply(503, time.Millisecond, 100, 50)
	k.Reply(0, 0, 100, 0)
	k.Gone(100)
	k.Silent.Add(2)
	k.RoundTrip(40*time.Millisecond, time.Now())
	const to = `destination_cluster="c2",destination_locality="r2/z2",`
	const from = `source_cluster="c1",source_locality="r1/z1"} `
	all := page(t, l, "")
	for _, line := range []string{
		"isthmus_link_requests_total{" + to + `outcome="success",` + from + "1", "isthmus_link_requests_total{" + to + `outcome="error",` + from + "1",
		"isthmus_link_requests_total{" + to + `outcome="lost",` + from + "1", "isthmus_link_requests_total{" + to + `outcome="gone",` + from + "1", "isthmus_link_sent_bytes_total{" + to + from + "400", "isthmus_link_received_bytes_total{" + to + from + "2050",
		"isthmus_link_connect_failures_total{" + to + `reason="timeout",` + from + "2", "isthmus_link_rtt_seconds{" + to + from + "0.04", "isthmus_link_latency_milliseconds_count{" + to + from + "2",
	} {
		if !strings.Contains(all, line+"\n") {
			t.Errorf("no %s in\n%s", line, all)
		}
	}
}

// TestLinks_Gone: a place is forgotten some time after the last endpoint there, and begins
// anew if it comes back.
func TestLinks_Gone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used *Link
		l := NewLinks(Place{"c1", "r1/z1"}, func(found func(*Link)) { found(used) })
		shown := func() bool { return strings.Contains(page(t, l, ""), `destination_cluster="c2"`) }
		used = l.To(Place{"c2", "r2/z2"})
		used.Reply(200, time.Millisecond, 1, 1)
		time.Sleep(2 * KeptFor)
		if !shown() {
			t.Error("a place in use is not shown")
		}
		held := used
		used = nil
		time.Sleep(KeptFor)
		held.Reply(200, time.Millisecond, 1, 1)
		if !shown() {
			t.Error("a place is not shown though something has been counted")
		}
		time.Sleep(KeptFor)
		if !shown() {
			t.Error("a place is not shown long enough")
		}
		time.Sleep(time.Second)
		if shown() || len(l.List()) != 0 {
			t.Error("a place that is gone is still shown")
		}
		if l.To(Place{"c2", "r2/z2"}) == held || !shown() {
			t.Error("a place that is back is not shown")
		}
	})
}

// TestLinks_NoRoundTrip: a round trip is not shown when nothing has been heard for
// long, though somebody looks at a connection that is kept; nor in the place of one
// that another connection has made since.
func TestLinks_NoRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLinks(Place{"c1", "r1/z1"}, func(func(*Link)) {})
		k, heard := l.To(Place{"c2", "r2/z2"}), time.Now()
		for _, want := range []int{1, 0} {
			k.RoundTrip(40*time.Millisecond, heard)
			if n := strings.Count(page(t, l, ""), "\nisthmus_link_rtt_seconds{"); n != want {
				t.Errorf("%d round trips are shown, want %d", n, want)
			}
			time.Sleep(rttKept)
		}
		k.RoundTrip(20*time.Millisecond, time.Now())
		k.RoundTrip(40*time.Millisecond, heard)
		if all := page(t, l, ""); !strings.Contains(all, " 0.02\n") {
			t.Errorf("not what was heard last:\n%s", all)
		}
	})
}

func TestUpstreams(t *testing.T) {
	u := &Upstream{}
	u.Tries.Add(3)
	u.Replied(200)
	u.Replied(503)
	u.ConnectTimeouts.Add(1)
	c := Upstreams(func() []UpstreamState {
		return []UpstreamState{{Name: "outbound|80||s", Counters: u, Hosts: 3, Healthy: 2, Ejected: 1, Ejections: 4, ConnectionsOpen: true}}
	})
	all := page(t, c, "")
	for _, line := range []string{
		"upstream_rq_total{%} 3", `upstream_rq_xx{%,envoy_response_code_class="5"} 1`, "membership_total{%} 3", "membership_healthy{%} 2", "outlier_detection_ejections_active{%} 1",
		"outlier_detection_ejections_enforced_total{%} 4", "upstream_cx_connect_fail{%} 1", "circuit_breakers_default_cx_open{%} 1", "lb_healthy_panic{%} 0",
	} {
		line = "envoy_cluster_" + strings.ReplaceAll(line, "%", `envoy_cluster_name="outbound|80||s"`)
		if !strings.Contains(all, line+"\n") {
			t.Errorf("no %s in\n%s", line, all)
		}
	}
}

// TestUpstreams_OfOneName: what Envoy's names do not tell apart is one series, in
// whatever order it comes.
func TestUpstreams_OfOneName(t *testing.T) {
	a, b, other := &Upstream{}, &Upstream{}, &Upstream{}
	a.Tries.Add(3)
	a.Replied(200)
	b.Tries.Add(4)
	b.Replied(503)
	states := []UpstreamState{
		{Name: "inbound|80||s", Counters: a, Hosts: 2, Healthy: 1, Requests: 2, Ejections: 1},
		{Name: "inbound|80||t", Counters: other, Hosts: 1},
		{Name: "inbound|80||s", Counters: b, Hosts: 3, Healthy: 2, Requests: 1, Ejections: 1, PendingOpen: true},
	}
	for range 2 {
		all := page(t, Upstreams(func() []UpstreamState { return slices.Clone(states) }), "")
		for _, line := range []string{
			"upstream_rq_total{%} 7", `upstream_rq_xx{%,envoy_response_code_class="2"} 1`, `upstream_rq_xx{%,envoy_response_code_class="5"} 1`, "membership_total{%} 3", "membership_healthy{%} 2",
			"upstream_rq_active{%} 3", "outlier_detection_ejections_total{%} 2", "circuit_breakers_default_rq_pending_open{%} 1",
		} {
			line = "envoy_cluster_" + strings.ReplaceAll(line, "%", `envoy_cluster_name="inbound|80||s"`)
			if strings.Count(all, line[:strings.IndexByte(line, '}')+1]) != 1 || !strings.Contains(all, line+"\n") {
				t.Errorf("not once %s in\n%s", line, all)
			}
		}
		slices.Reverse(states)
	}
	if a.Tries.Load() != 3 || b.Tries.Load() != 4 {
		t.Error("the counters themselves have changed")
	}
}

func BenchmarkRecord(b *testing.B) {
	r, e := NewRequests(Labels{}), plain(200, time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		r.Record(e)
	}
}

// manySeries is a store of 150 combinations of labels: some 10,000 lines.
func manySeries() *Store[Requests, *Requests] {
	s := newStore()
	for i := range 150 {
		l := labels
		l.Destination.Workload = fmt.Sprint(i)
		s.Of(l).Record(plain(200, time.Millisecond))
	}
	return s
}

// nowhere takes a page and keeps nothing of it.
type nowhere struct {
	header http.Header
	lines  int
	pieces int
	most   int
}

func (n *nowhere) Header() http.Header { return n.header }
func (n *nowhere) WriteHeader(int)     {}
func (n *nowhere) Write(b []byte) (int, error) {
	n.lines += bytes.Count(b, []byte("\n"))
	n.pieces++
	n.most = max(n.most, len(b))
	return len(b), nil
}

// TestPage_Light: a page of 10,000 lines goes out in pieces, and is no work for
// the collector of garbage.
func TestPage_Light(t *testing.T) {
	s := manySeries()
	h := Handler(1, prometheus.NewRegistry(), s)
	w, req := &nowhere{header: http.Header{}}, httptest.NewRequest("GET", "/", nil)
	n := testing.AllocsPerRun(10, func() {
		*w = nowhere{header: w.header}
		h.ServeHTTP(w, req)
	})
	if w.lines < 10000 || w.pieces < 100 || w.most > 2*pieceSize {
		t.Errorf("%d lines in %d pieces, of which the largest has %d bytes", w.lines, w.pieces, w.most)
	}
	if n > 100 {
		t.Errorf("%v allocations", n)
	}
}

// slow takes a page piece by piece, as on a connection that has deadlines, and does
// something at each.
type slow struct {
	nowhere
	deadline time.Time
	piece    func()
}

func (s *slow) SetWriteDeadline(at time.Time) error {
	s.deadline = at
	return nil
}

func (s *slow) Write(b []byte) (int, error) {
	s.piece()
	return s.nowhere.Write(b)
}

// TestPage_Slow: however long whoever scrapes takes for what it gets, exchanges and
// connections are counted at once; and it has not for ever.
func TestPage_Slow(t *testing.T) {
	requests, connections := newStore(), NewStore(NewConnections, func(func(*Connections)) {})
	r := requests.Of(labels)
	for code := range 17 {
		r.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: code})
	}
	var conns []*Connections
	for i := range 200 {
		l := labels
		l.Destination.Workload = fmt.Sprint(i)
		c := connections.Of(l)
		c.Open()
		c.Close(NoFlag)
		conns = append(conns, c)
	}
	w := &slow{nowhere: nowhere{header: http.Header{}}}
	w.piece = func() {
		if left := time.Until(w.deadline); left <= 0 || left > pieceTime {
			t.Errorf("a piece is to be taken within %v", left)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: 14})
			for _, c := range conns {
				c.Close(NoFlag)
			}
		}()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("what is counted waits for whoever scrapes")
		}
	}
	Handler(1, prometheus.NewRegistry(), requests, connections).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.pieces < 10 || !w.deadline.IsZero() {
		t.Errorf("%d pieces; the connection has the deadline %v afterwards", w.pieces, w.deadline)
	}
}

// TestHandler_Many: who asks when enough others do is sent away.
func TestHandler_Many(t *testing.T) {
	blocked, begun := make(chan struct{}), make(chan struct{})
	h := Handler(1, prometheus.NewRegistry(), Upstreams(func() []UpstreamState { close(begun); <-blocked; return nil }))
	var wg sync.WaitGroup
	wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) })
	<-begun
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	close(blocked)
	wg.Wait()
	if w.Code != http.StatusServiceUnavailable {
		t.Error(w.Code, w.Body)
	}
}

func BenchmarkScrape(b *testing.B) {
	h := Handler(1, prometheus.NewRegistry(), manySeries())
	w, req := &nowhere{header: http.Header{}}, httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		w.lines = 0
		h.ServeHTTP(w, req)
	}
	b.ReportMetric(float64(w.lines), "lines")
}
