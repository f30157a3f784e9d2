package config

import (
	"slices"
	"strings"
	"testing"

	"isthmus/mesh"
)

// TestMirrors reads what may be written, and says what does nothing.
func TestMirrors(t *testing.T) {
	one := func(share mesh.Fraction, field string) []mesh.Mirror {
		return []mesh.Mirror{{Destination: mesh.Destination{Host: "b.test"}, Share: share, Field: field}}
	}
	for _, tt := range []struct {
		name, rule string
		want       []mesh.Mirror
		warning    string // the beginning of the only one; "": none
	}{
		{"all", "mirror: {host: b.test}", one(mesh.AllRequests, "http[0].mirror"), ""},
		{"a part", "mirror: {host: b.test}, mirrorPercentage: {value: 0.5}", one(5000, "http[0].mirror"), ""},
		{"none", "mirror: {host: b.test}, mirrorPercentage: {value: 0}", one(0, "http[0].mirror"), ""},
		{"the old field", "mirror: {host: b.test}, mirrorPercent: 10", one(100_000, "http[0].mirror"), "http[0].mirrorPercent: is deprecated"},
		{"the very old field", "mirror: {host: b.test}, mirror_percent: 10", one(100_000, "http[0].mirror"), "http[0].mirrorPercent: is deprecated"},
		{"several", "mirrors: [{destination: {host: b.test}, percentage: {value: 1}}]", one(10_000, "http[0].mirrors[0].destination"), ""},
		{"several, all", "mirrors: [{destination: {host: b.test}}]", one(mesh.AllRequests, "http[0].mirrors[0].destination"), ""},
		{"a percentage of nothing", "mirrorPercentage: {value: 1}", nil, "http[0].mirrorPercentage: has no effect without mirror"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule, warnings := readRoute(t, tt.rule)
			if !slices.Equal(rule.Mirrors, tt.want) {
				t.Errorf("read as %+v, want %+v", rule.Mirrors, tt.want)
			}
			if !strings.HasPrefix(warnings, tt.warning) || (tt.warning == "") != (warnings == "") || strings.Contains(warnings, "\n") {
				t.Errorf("warnings %q, want %q", warnings, tt.warning)
			}
		})
	}
}
