package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestRead_AccessLog: where the mesh configuration wants lines, and how.
func TestRead_AccessLog(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       mesh.AccessLog
		err        string
	}{
		{"text", "accessLogFile: /dev/stdout", mesh.AccessLog{Path: "/dev/stdout", Format: "text"}, ""},
		{"json", "{accessLogFile: /var/log/a, accessLogEncoding: JSON}", mesh.AccessLog{Path: "/var/log/a", Format: "json"}, ""},
		{"own", `{accessLogFile: /dev/stdout, accessLogFormat: "%DURATION%\n"}`, mesh.AccessLog{Path: "/dev/stdout", Format: "%DURATION%\n"}, ""},
		{"no file", "{accessLogFile: '', accessLogEncoding: JSON, enableAutoMtls: true}", mesh.AccessLog{}, ""},
		{"encoding", "{accessLogFile: /dev/stdout, accessLogEncoding: XML}", mesh.AccessLog{}, "none of TEXT and JSON"},
		{"operator", "{accessLogFile: /dev/stdout, accessLogFormat: '%NOPE%'}", mesh.AccessLog{}, "is no operator"},
	} {
		r := Read([]File{{Name: "a.yaml", Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " + tt.text + "\n")}}, nil)
		if tt.err != "" {
			if r.Count(Error) != 1 || !strings.Contains(r.Findings[0].String(), tt.err) || r.Findings[0].Line < 5 {
				t.Errorf("%s: %v", tt.name, r.Findings)
			}
			continue
		}
		if r.Count(Error) > 0 || r.Config.AccessLog != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, r.Config.AccessLog, r.Findings)
		}
	}
}

// TestRead_Metrics: which metrics a Telemetry resource changes, and how.
func TestRead_Metrics(t *testing.T) {
	r := Read([]File{{Name: "a.yaml", Data: []byte(`apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t}
spec:
  metrics:
  - providers: [{name: prometheus}]
    overrides:
    - {match: {metric: REQUEST_COUNT, mode: CLIENT}, tagOverrides: {tenant: {value: "request.headers['x-tenant']"}, source_app: {operation: REMOVE}}}
    - {match: {customMetric: request_bytes}, disabled: true}
    - {disabled: false}
    - {match: {customMetric: mine}, disabled: true}
    - {tagOverrides: {peer: {value: upstream_peer.app}, reporter: {operation: REMOVE}}}
    - {tagOverrides: {a-b: {value: "'x'"}, empty: {}}}
`)}}, nil)
	if r.Count(Error) != 2 || r.Count(Warning) != 3 {
		t.Fatal(r.Findings)
	}
	if len(r.Config.Telemetries) != 1 {
		t.Fatal("no resource")
	}
	rules := r.Config.Telemetries[0].Metrics
	slices.SortFunc(rules[0].Tags, func(a, b mesh.MetricTag) int { return strings.Compare(a.Name, b.Name) })
	if got, want := fmt.Sprint(rules[0].Sides, rules[0].Metrics, rules[0].Tags), "1 [istio_requests_total] [{source_app true } {tenant false request.headers['x-tenant']}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !*rules[1].Disabled || rules[1].Metrics[0] != "istio_request_bytes" || *rules[2].Disabled || len(rules[2].Metrics) != 10 || len(rules[4].Tags) != 0 {
		t.Errorf("%+v", rules)
	}
}
