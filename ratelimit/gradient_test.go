package ratelimit

import (
	"testing"
	"time"

	"isthmus/mesh"
)

// server is an upstream that works on so many requests at once, each in so long;
// others wait.
type server struct {
	workers int
	takes   time.Duration
}

// flood has a server get so many requests at once as the limit allows, as callers
// without end would, for a time of its own, and returns the limit.
func (s *server) flood(g *Gradient, now *time.Duration, d time.Duration) float64 {
	for end := *now + d; *now < end; {
		active := max(int(g.Limit()), 1)
		took := s.takes * time.Duration(max(active, s.workers)) / time.Duration(s.workers)
		*now += took / time.Duration(active)
		g.Observe(*now, took, int32(active))
	}
	return g.Limit()
}

// TestGradient_FindsLimit: the limit is near what the server can do at once, grows
// with it, and shrinks again.
func TestGradient_FindsLimit(t *testing.T) {
	g, now := NewGradient(), time.Duration(0)
	s := &server{50, 10 * time.Millisecond}
	if got := s.flood(g, &now, time.Minute); got < 40 || got > 150 {
		t.Errorf("limit %.0f for 50 workers", got)
	}
	s.workers = 10 // such as after a fault
	if got := s.flood(g, &now, 5*time.Second); got > 50 {
		t.Errorf("limit %.0f for 10 workers, after 50", got)
	}
	s.workers = 200
	if got := s.flood(g, &now, time.Minute); got < 120 {
		t.Errorf("limit %.0f for 200 workers, after 10", got)
	}
}

// TestGradient_Idle: what is not reached is not changed.
func TestGradient_Idle(t *testing.T) {
	g := NewGradient()
	for i := range 1000 {
		g.Observe(time.Duration(i)*10*time.Millisecond, 10*time.Millisecond, 3)
	}
	if g.Limit() != firstLimit {
		t.Errorf("limit %.0f, want %d", g.Limit(), firstLimit)
	}
}

// TestGradient_Priorities: the least important are shed first, and one request is
// always let through.
func TestGradient_Priorities(t *testing.T) {
	g := NewGradient()
	for _, tt := range []struct {
		active int32
		want   [mesh.Priorities]bool
	}{
		{1, [mesh.Priorities]bool{true, true, true, true}}, {10, [mesh.Priorities]bool{true, true, true, true}}, {11, [mesh.Priorities]bool{true, true, true, false}},
		{16, [mesh.Priorities]bool{true, true, false, false}}, {19, [mesh.Priorities]bool{true, false, false, false}}, {21, [mesh.Priorities]bool{}},
	} {
		for p := range mesh.Priority(mesh.Priorities) {
			if got := g.Admit(tt.active, p); got != tt.want[p] {
				t.Errorf("P%d with %d under way: %v, want %v", p+1, tt.active, got, tt.want[p])
			}
		}
	}
	if g.Shed(mesh.P4) != 4 || g.Shed(mesh.P1) != 1 || g.Admitted() != 14 {
		t.Errorf("shed %d of P4 and %d of P1, admitted %d; want 4, 1 and 14", g.Shed(mesh.P4), g.Shed(mesh.P1), g.Admitted())
	}
}
