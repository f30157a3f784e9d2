package config

import (
	"strings"
	"testing"
	"time"

	"isthmus/mesh"
)

// readRoute reads a VirtualService whose only rule says more than a route, in
// YAML on one line, and returns the rule and the warnings.
func readRoute(t *testing.T, more string) (*mesh.HTTPRoute, string) {
	t.Helper()
	r := Read([]File{{Name: "v.yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [a.test]
  http: [{route: [{destination: {host: a.test}}], ` + more + `}]
`)}}, nil)
	var warnings []string
	for _, f := range r.Findings {
		switch {
		case f.Severity == Error:
			t.Fatal(f)
		case f.Severity == Warning && !strings.Contains(f.Message, "no file defines"):
			warnings = append(warnings, f.Field+": "+f.Message)
		}
	}
	return r.Config.VirtualServices[0].HTTP[0], strings.Join(warnings, "\n")
}

// TestFault reads what may be written, and says what does nothing.
func TestFault(t *testing.T) {
	for _, tt := range []struct {
		name, fault string
		want        mesh.Fault
		warning     string // the beginning of the only one; "": none
	}{
		{"a tenth of a percent", "{delay: {percentage: {value: 0.1}, fixedDelay: 5s}}", mesh.Fault{Delay: 5 * time.Second, DelayShare: 1000}, ""},
		{"29 hundredths", "{delay: {percentage: {value: 0.29}, fixedDelay: 5s}}", mesh.Fault{Delay: 5 * time.Second, DelayShare: 2900}, ""},
		{"all", "{abort: {percentage: {value: 100}, httpStatus: 503}}", mesh.Fault{AbortStatus: 503, AbortShare: mesh.AllRequests}, ""},
		{"by name", "{abort: {percentage: {value: 1}, grpcStatus: UNAVAILABLE}}", mesh.Fault{AbortGRPC: 14, AbortShare: 10_000}, ""},
		{"percent", "{delay: {percent: 10, fixedDelay: 5s}}", mesh.Fault{Delay: 5 * time.Second, DelayShare: 100_000}, "http[0].fault.delay.percent: is deprecated"},
		{"percentage wins", "{delay: {percent: 10, percentage: {value: 1}, fixedDelay: 5s}}", mesh.Fault{Delay: 5 * time.Second, DelayShare: 10_000}, ""},
		{"no percentage of a delay", "{delay: {fixedDelay: 5s}}", mesh.Fault{Delay: 5 * time.Second}, "http[0].fault.delay.percentage: is missing, which means 0 %"},
		{"no percentage of an abort", "{abort: {httpStatus: 503}}", mesh.Fault{AbortStatus: 503}, "http[0].fault.abort.percentage: is missing, which means 0 %"},
		{"no status", "{abort: {percentage: {value: 1}}}", mesh.Fault{}, "http[0].fault.abort: has neither httpStatus nor grpcStatus"},
		{"too fine", "{abort: {percentage: {value: 0.00001}, httpStatus: 503}}", mesh.Fault{AbortStatus: 503}, "http[0].fault.abort.percentage: 1e-05 % is less than one in a million"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule, warnings := readRoute(t, "fault: "+tt.fault)
			if *rule.Fault != tt.want {
				t.Errorf("read as %+v, want %+v", *rule.Fault, tt.want)
			}
			if !strings.HasPrefix(warnings, tt.warning) || (tt.warning == "") != (warnings == "") || strings.Contains(warnings, "\n") {
				t.Errorf("warnings %q, want %q", warnings, tt.warning)
			}
		})
	}
}
