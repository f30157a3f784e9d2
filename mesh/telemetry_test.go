package mesh

import (
	"reflect"
	"strings"
	"testing"
)

// TestTelemetryOf: from the general to the particular, one of each level, and nothing that is
// for others.
func TestTelemetryOf(t *testing.T) {
	n := &Node{Namespace: "prod", RootNamespace: "istio-system", Labels: map[string]string{"app": "web", "version": "v1"}}
	web := map[string]string{"app": "web"}
	of := func(namespace, name string, selector map[string]string) *Telemetry {
		return &Telemetry{Meta: Meta{Namespace: namespace, Name: name, Source: Source{File: name}}, Selector: selector}
	}
	for _, tt := range []struct {
		name string
		list []*Telemetry
		want string // their names
	}{
		{"none", nil, ""},
		{"levels", []*Telemetry{of("prod", "workload", web), of("prod", "namespace", nil), of("istio-system", "mesh", nil)}, "mesh namespace workload"},
		{"other namespaces, other workloads", []*Telemetry{of("shop", "a", nil), of("shop", "b", web), of("prod", "c", map[string]string{"app": "db"})}, ""},
		{"two of a level", []*Telemetry{of("prod", "b", nil), of("prod", "a", nil), of("prod", "d", web), of("prod", "c", web)}, "a c"},
		{"a selector in the root's namespace", []*Telemetry{of("istio-system", "a", web)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, o := range TelemetryOf(n, tt.list) {
				got = append(got, o.Name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%v, want %s", got, tt.want)
			}
		})
	}
}

// TestTracingOf: each field is the last one's that says something of it.
func TestTracingOf(t *testing.T) {
	yes, no, one, all := true, false, 1.0, 100.0
	general := TracingRule{
		Sides: BothSides, Collector: "a", Sampling: &one, Disabled: &yes, Ends: &yes, NoIstioTags: &yes,
		Tags: []TraceTag{{Name: "a", Literal: "1"}, {Name: "b", Literal: "1"}},
	}
	for _, tt := range []struct {
		name   string
		rules  []TracingRule
		change func(*TracingRule) // of the general one; nil: there is no rule
	}{
		{"none", nil, nil},
		{"of the other side", []TracingRule{{Sides: ServerSide, Sampling: &one}}, nil},
		{"one", []TracingRule{general}, func(*TracingRule) {}},
		{"the particular says nothing", []TracingRule{general, {Sides: BothSides}}, func(*TracingRule) {}},
		{"a collector", []TracingRule{general, {Sides: BothSides, Collector: "b"}}, func(r *TracingRule) { r.Collector = "b" }},
		{"a share", []TracingRule{general, {Sides: ClientSide, Sampling: &all}}, func(r *TracingRule) { r.Sampling = &all }},
		{"a share of the other side", []TracingRule{general, {Sides: ServerSide, Sampling: &all}}, func(*TracingRule) {}},
		{"spans again", []TracingRule{general, {Sides: BothSides, Disabled: &no}}, func(r *TracingRule) { r.Disabled = &no }},
		{"the context goes on again", []TracingRule{general, {Sides: BothSides, Ends: &no}}, func(r *TracingRule) { r.Ends = &no }},
		{"Istio's tags again", []TracingRule{general, {Sides: BothSides, NoIstioTags: &no}}, func(r *TracingRule) { r.NoIstioTags = &no }},
		{"tags, which take the place of all", []TracingRule{general, {Sides: BothSides, Tags: []TraceTag{{Name: "b", Literal: "2"}}}}, func(r *TracingRule) { r.Tags = []TraceTag{{Name: "b", Literal: "2"}} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []*Telemetry
			for _, r := range tt.rules {
				list = append(list, &Telemetry{Tracing: []TracingRule{r}})
			}
			var want *TracingRule
			if tt.change != nil {
				r := general
				r.Sides = 0
				tt.change(&r)
				want = &r
			}
			if got := TracingOf(list, ClientSide); !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}
