package telemetry

import (
	"math"
	"testing"
	"time"
)

// TestMeter_Rates: what was counted within the window, divided by its length.
func TestMeter_Rates(t *testing.T) {
	web := NewRequests(Labels{Reporter: "source", Source: Party{App: "client"}, DestinationService: "web.test", Destination: Party{Cluster: "c1"}})
	subset := NewRequests(Labels{Reporter: "source", DestinationService: "web.test", Destination: Party{Cluster: "c1"}})
	quiet := NewRequests(Labels{Reporter: "source", DestinationService: "quiet.test"})
	list := []*Requests{web, subset, quiet}
	m := NewMeter(func() []*Requests { return list }, func() OverloadState { return OverloadState{} })
	start := time.Unix(1_000_000, 0)
	quiet.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: NoGRPC, Took: time.Millisecond})
	web.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: NoGRPC, Took: time.Hour}) // before anybody looked
	m.look(start)
	if m.Rates() != nil {
		t.Error("rates of a single reading")
	}
	for range 98 {
		web.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: NoGRPC, Took: 7 * time.Millisecond})
	}
	web.Record(&Exchange{Status: 503, Flag: "UH", GRPC: NoGRPC, Took: 7 * time.Millisecond})
	subset.Record(&Exchange{Status: 0, Flag: "UC", GRPC: NoGRPC, Took: 7 * time.Millisecond})
	subset.Record(&Exchange{Status: 0, Flag: clientGone, GRPC: NoGRPC, Took: 7 * time.Millisecond})
	subset.Record(&Exchange{Status: 404, Flag: "NR", GRPC: NoGRPC, Took: 700 * time.Millisecond})
	m.look(start.Add(2 * time.Second))
	got := m.Rates()
	if len(got) != 1 || got[0].DestinationService != "web.test" || got[0].Source.App != "" {
		t.Fatalf("got %+v, want web.test alone", got)
	}
	if r := got[0]; r.Requests != 51 || r.Errors != 1 {
		t.Errorf("%v requests, %v errors a second; want 51, 1", r.Requests, r.Errors)
	}
	// 101 of 102 lie between 5 and 10 ms.
	if r := got[0]; math.Abs(r.P50-(5+5*51.0/101)) > 1e-9 || math.Abs(r.P99-(5+5*100.98/101)) > 1e-9 {
		t.Errorf("p50 %v, p99 %v", r.P50, r.P99)
	}
	if h := m.History(); len(h) != 1 || h[0].Requests != 51 || h[0].Errors != 1 {
		t.Errorf("history %+v", h)
	}

	// Counters that are forgotten, and come again, make others no less, nor count
	// twice what they had.
	again := NewRequests(subset.labels)
	list = []*Requests{web, again}
	again.Record(&Exchange{Status: 200, Flag: NoFlag, GRPC: NoGRPC, Took: time.Millisecond})
	m.look(start.Add(4 * time.Second))
	if got := m.Rates(); len(got) != 1 || got[0].Requests != 103.0/4 || got[0].Errors != 0.5 {
		t.Errorf("after counters were forgotten: %+v, want 103 requests and 2 errors in 4 s", got)
	}
	if h := m.History(); len(h) != 2 || h[1].Requests != 0.5 || h[1].Errors != 0 {
		t.Errorf("history %+v", h)
	}
	for i := range 2 * meterHistory {
		m.look(start.Add(time.Duration(6+2*i) * time.Second))
	}
	if got := m.Rates(); got != nil {
		t.Errorf("long after: %+v", got)
	}
	if n := len(m.History()); n != meterHistory || len(m.samples) != meterWindow+1 {
		t.Errorf("%d points, %d samples kept", n, len(m.samples))
	}
}

func TestOutcome_Failed(t *testing.T) {
	for _, tt := range []struct {
		name string
		outcome
		want bool
	}{
		{"well", outcome{status: 200, flag: NoFlag, grpc: NoGRPC}, false},
		{"not found", outcome{status: 404, flag: "NR", grpc: NoGRPC}, false},
		{"an application's own", outcome{status: 500, flag: NoFlag, grpc: NoGRPC}, true},
		{"no reply", outcome{status: 0, flag: "UC", grpc: NoGRPC}, true},
		{"the client went", outcome{status: 0, flag: "DC", grpc: NoGRPC}, false},
		{"the client went while a fault delayed it", outcome{status: 0, flag: "DI,DC", grpc: NoGRPC}, false},
		{"gRPC, well", outcome{status: 200, flag: NoFlag, grpc: 0}, false},
		{"gRPC, not found", outcome{status: 200, flag: NoFlag, grpc: 5}, false},
		{"gRPC, unavailable", outcome{status: 200, flag: "UH", grpc: 14}, true},
		{"gRPC, internal", outcome{status: 200, flag: NoFlag, grpc: 13}, true},
		{"gRPC, the client went", outcome{status: 0, flag: "DC", grpc: GRPCNoStatus}, false},
		{"gRPC without a status", outcome{status: 200, flag: NoFlag, grpc: GRPCNoStatus}, false},
		{"gRPC, limited", outcome{status: 200, flag: "RL", grpc: 14}, false},
		{"gRPC, limited after a delay", outcome{status: 200, flag: "DI,RL", grpc: 14}, false},
		{"gRPC, without a route", outcome{status: 200, flag: "NR", grpc: 12}, false},
		{"gRPC, malformed", outcome{status: 200, flag: "DPE", grpc: 13}, false},
		{"gRPC, not found by a server that fails", outcome{status: 503, flag: NoFlag, grpc: 5}, true},
		{"gRPC, answered by no gRPC", outcome{status: 502, flag: NoFlag, grpc: GRPCNoStatus}, true},
	} {
		if got := tt.failed(); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestSum_Quantile(t *testing.T) {
	beyond := sum{}
	beyond.buckets[len(bounds)] = 3
	for _, tt := range []struct {
		name string
		sum  sum
		want float64
	}{{"nothing", sum{}, 0}, {"behind the last bound", beyond, bounds[len(bounds)-1]}} {
		if got := tt.sum.quantile(0.5); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestMeter_Shed: the worst of what was refused or ended within the window, and
// nothing once it is over.
func TestMeter_Shed(t *testing.T) {
	var now OverloadState
	m := NewMeter(func() []*Requests { return nil }, func() OverloadState { return now })
	if s := m.Shed(); s != "" {
		t.Errorf("before anybody has looked: %q", s)
	}
	at := time.Unix(1_000_000, 0)
	now.Requests, now.Refused, now.Ended, now.Reset = 9, 9, 9, 9 // before anybody has looked
	m.look(at)
	for _, step := range []struct {
		happens func()
		want    Shed
	}{
		{func() {}, ""},
		{func() { now.Ended++ }, ShedIdleConnection},
		{func() { now.Reset++ }, ShedStream},
		{func() { now.Refused++ }, ShedConnection},
		{func() { now.Requests++ }, ShedRequest},
	} {
		step.happens()
		if s := m.Shed(); s != step.want {
			t.Errorf("got %q, want %q", s, step.want)
		}
	}
	for range meterWindow {
		at = at.Add(meterInterval)
		m.look(at)
	}
	if s := m.Shed(); s != ShedRequest {
		t.Errorf("ten seconds later: %q", s)
	}
	m.look(at.Add(meterInterval))
	if s := m.Shed(); s != "" {
		t.Errorf("later still: %q", s)
	}
	if now.Refusing = 1; m.Shed() != ShedRequest {
		t.Error("requests are refused, though none comes")
	}
}
