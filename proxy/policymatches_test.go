package proxy

import (
	"testing"
	"testing/synctest"
	"time"

	"isthmus/mesh"
	"isthmus/telemetry"
)

// TestTallies: what a policy has matched is shown some time longer than it is there.
func TestTallies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all tallies
		policy := &mesh.AuthorizationPolicy{Meta: mesh.Meta{Namespace: "prod", Name: "p"}, Action: mesh.ActionDeny, DryRun: true}
		used := map[telemetry.Policy]bool{tallied(policy): true}
		all.of(policy).Matched.Add(1)
		time.Sleep(2 * telemetry.KeptFor)
		for _, tt := range []struct {
			inUse map[telemetry.Policy]bool
			after time.Duration
			want  int
		}{
			{used, 0, 1}, {nil, 0, 1}, {nil, telemetry.KeptFor, 1}, // not yet
			{used, time.Hour, 1}, // it is back
			{nil, time.Hour, 1}, {nil, telemetry.KeptFor + time.Second, 0},
		} {
			time.Sleep(tt.after)
			got := all.list(tt.inUse)
			if len(got) != tt.want {
				t.Errorf("%v: %v, want %d of them", tt, got, tt.want)
			}
			for k, n := range got {
				if k != (telemetry.Policy{Name: "prod/p", Action: "DENY", DryRun: true}) || n != 1 {
					t.Errorf("%+v has matched %d, want one", k, n)
				}
			}
		}
		if n := all.of(policy).Matched.Load(); n != 0 {
			t.Errorf("a new one begins at %d", n)
		}
	})
}
