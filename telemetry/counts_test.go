package telemetry

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestConnections: what is counted of connections that are passed on, under Istio's names.
func TestConnections(t *testing.T) {
	s := NewStore(NewConnections, func(func(*Connections)) {})
	c, other := labels, labels
	other.Destination.Workload = "other"
	a := s.Of(c)
	a.Open()
	a.Open()
	a.Open()
	a.Sent(5)
	a.Sent(6)
	a.Received(7)
	a.Close("UF")
	a.Close(NoFlag)
	s.Of(other) // of which none was opened
	same(t, "opened", lines(t, s, "istio_tcp_connections_opened_total", "response_flags", "request_protocol", "response_code"), "- tcp none 3")
	same(t, "sent", lines(t, s, "istio_tcp_sent_bytes_total", "response_flags"), "- 11")
	same(t, "received", lines(t, s, "istio_tcp_received_bytes_total", "response_flags"), "- 7")
	closed := lines(t, s, "istio_tcp_connections_closed_total", "response_flags")
	slices.Sort(closed)
	same(t, "closed", closed, "- 1", "UF 1")
}

// TestRequests_Statuses: exchanges count by their status, whatever an application makes of it, and
// messages of gRPC where it was spoken.
func TestRequests_Statuses(t *testing.T) {
	s := newStore()
	r := s.Of(labels)
	for _, status := range []int{200, 204, 200, 299, 0, 99, 100, 599, 600, 999, 600} {
		r.Record(plain(status, 0))
	}
	r.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: 0, RequestMessages: 3, ReplyMessages: 4})
	got := lines(t, s, "istio_requests_total", "response_code", "grpc_response_status")
	slices.Sort(got)
	want := []string{"0  1", "100  1", "200  2", "200 0 1", "204  1", "299  1", "599  1", "600  2", "99  1", "999  1"}
	slices.Sort(want)
	same(t, "statuses", got, want...)
	same(t, "asked", lines(t, s, "istio_request_messages_total", "grpc_response_status"), "0 3")
	same(t, "told", lines(t, s, "istio_response_messages_total", "grpc_response_status"), "0 4")
}

// TestPage_Escapes: whatever a name holds, whoever scrapes reads the same.
func TestPage_Escapes(t *testing.T) {
	for name, want := range map[string]string{
		"web": "web", `a"b`: `a"b`, `a\b`: `a\b`, "a\nb": "a\nb", "a\\\"\nb": "a\\\"\nb", "zürich": "zürich", "a\xffb": "a\uFFFDb", "\"\xff": "\"\uFFFD", `\n`: `\n`,
	} {
		s, l := newStore(), labels
		l.Source.App = name
		s.Of(l).Record(plain(200, 0))
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(page(t, s, "")))
		if err != nil {
			t.Fatal(err)
		}
		for _, label := range families["istio_requests_total"].Metric[0].Label {
			if label.GetName() == "source_app" && label.GetValue() != want {
				t.Errorf("%q is read as %q, want %q", name, label.GetValue(), want)
			}
		}
	}
}

// TestMeter_Order: those with most requests are first, and others by their names.
func TestMeter_Order(t *testing.T) {
	of := func(reporter, service, cluster string) *Requests {
		return NewRequests(Labels{Reporter: reporter, DestinationService: service, DestinationName: "n", DestinationNamespace: "ns", Destination: Party{Cluster: cluster, App: "gone"}})
	}
	list := []*Requests{of("source", "b", "c1"), of("source", "a", "c2"), of("destination", "a", "c1"), of("source", "a", "c1"), of("source", "most", "c1")}
	m := NewMeter(func() []*Requests { return list }, func() OverloadState { return OverloadState{} })
	start := time.Unix(1_000_000, 0)
	m.look(start)
	m.look(start) // no time has passed
	if got := m.Rates(); got != nil || len(m.History()) != 0 {
		t.Errorf("of no time: %+v, %+v", got, m.History())
	}
	for i, r := range list {
		for range 1 + i/4 {
			r.Record(plain(200, 0))
		}
	}
	m.look(start.Add(time.Second))
	got := ""
	for _, r := range m.Rates() {
		if r.DestinationName != "n" || r.DestinationNamespace != "ns" || r.Destination.App != "" {
			t.Errorf("labels %+v", r.Labels)
		}
		got += fmt.Sprint(r.Reporter, " ", r.DestinationService, " ", r.Destination.Cluster, " ", r.Requests, "; ")
	}
	if want := "source most c1 2; destination a c1 1; source a c1 1; source a c2 1; source b c1 1; "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestLinks_List: what the console shows of each place.
func TestLinks_List(t *testing.T) {
	l := NewLinks(Place{"c1", "r1/z1"}, func(func(*Link)) {})
	a, b := l.To(Place{"c2", "r2/z2"}), l.To(Place{"c3", ""})
	a.Reply(200, 40*time.Millisecond, 100, 2000)
	a.Reply(499, 10*time.Millisecond, 1, 2)
	a.Reply(500, 2*time.Millisecond, 1, 0)
	a.Reply(0, time.Hour, 1, 0)
	a.RoundTrip(30*time.Millisecond, time.Now())
	b.Refused.Add(1)
	b.Silent.Add(2)
	b.Handshakes.Add(4)
	got := l.List()
	slices.SortFunc(got, func(a, b LinkStats) int { return cmp.Compare(a.To.Cluster, b.To.Cluster) })
	want := []LinkStats{
		{To: Place{"c2", "r2/z2"}, Succeeded: 2, Failed: 1, Lost: 1, Sent: 103, Received: 2002, Latency: 52 * time.Millisecond, RoundTrip: 30 * time.Millisecond},
		{To: Place{"c3", ""}, ConnectFailures: 7},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestOverloadCollector: what clients take and what was refused are shown, and bounds where there are any.
func TestOverloadCollector(t *testing.T) {
	all := OverloadState{Memory: 1, MemoryLimit: 2, Refusing: 1, Connections: 3, ConnectionsLimit: 4, Bodies: 5, Requests: 6, Refused: 7, Ended: 8, Reset: 9}
	unbound := all
	unbound.MemoryLimit, unbound.ConnectionsLimit = 0, 0
	const always = "isthmus_client_connections=3 isthmus_memory_held_bytes=1 isthmus_overload_shed_total{connection}=7 isthmus_overload_shed_total{idle_connection}=8 " +
		"isthmus_overload_shed_total{request}=6 isthmus_overload_shed_total{stream}=9"
	for _, tt := range []struct {
		name  string
		state OverloadState
		want  string
	}{
		{"bound", all, always + " isthmus_client_connections_limit=4 isthmus_memory_limit_bytes=2 isthmus_overload_refusing=1 isthmus_unread_body_bytes=5"},
		{"unbound", unbound, always},
	} {
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(OverloadCollector(func() OverloadState { return tt.state }))
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range families {
			for _, m := range f.Metric {
				name := f.GetName()
				for _, label := range m.Label {
					name += "{" + label.GetValue() + "}"
				}
				got = append(got, fmt.Sprintf("%s=%v", name, m.GetGauge().GetValue()+m.GetCounter().GetValue()))
			}
		}
		want := strings.Fields(tt.want)
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("%s: got %q\nwant %q", tt.name, got, want)
		}
	}
}
