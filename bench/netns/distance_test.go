package main

import (
	"strings"
	"testing"
	"time"
)

// TestLane_Rate: packets leave one after the other, and those that would wait
// too long are lost.
func TestLane_Rate(t *testing.T) {
	l := &lane{now: condition{delay: 20 * time.Millisecond, rate: 1000, buffer: 5 * time.Millisecond}}
	packet := func(n int) []byte { return make([]byte, n) }
	for _, step := range []struct {
		at, size int
		taken    bool
		due      int // of the last one
	}{
		{0, 3, true, 23}, {0, 2, true, 25}, {0, 1, true, 26}, {0, 1, false, 26},
		{1, 1, true, 27},   // 5 ms to wait
		{50, 10, true, 80}, // the line is free again
	} {
		if taken := l.admit(at(step.at), packet(step.size)); taken != step.taken {
			t.Fatalf("%d bytes at %d ms: taken %v", step.size, step.at, taken)
		}
		if due := l.queue[len(l.queue)-1].due; !due.Equal(at(step.due)) {
			t.Errorf("%d bytes at %d ms: due at %v, want %d ms", step.size, step.at, due.Sub(epoch), step.due)
		}
	}
	if l.lost != 1 {
		t.Errorf("%d lost, want 1", l.lost)
	}
}

func TestDistancePage(t *testing.T) {
	side := func(mib float64, p50 int) beside {
		return beside{large: mib * (1 << 20), small: latencies{n: 9, p50: time.Duration(p50) * time.Millisecond, p99: time.Second}}
	}
	for _, tt := range []struct {
		name  string
		http2 distance
		want  string
		good  bool
	}{
		{"as good", distance{down: side(19, 100), up: side(20, 60)}, "| 19.0 of 20.0 MiB/s | met |", true},
		{"held by its window", distance{down: side(1.6, 60), up: side(20, 60)}, "| 1.6 of 20.0 MiB/s | **missed** |", false},
		{"small ones wait", distance{down: side(20, 60), up: side(20, 101)}, "| 101 ms, 60 ms | **missed** |", false},
		{"failures", distance{down: side(20, 60), up: side(20, 60), failed: 2}, "| 2 failed | **missed** |", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.http2.protocol = "HTTP/2"
			lossy := distance{protocol: "HTTP/2", loss: 0.01, down: side(0.3, 400), up: side(0.3, 400)}
			page, good := distancePage([]distance{{protocol: "HTTP/1.1", down: side(20, 60), up: side(20, 60)}, tt.http2, lossy}, "bin/netns -distance", "A machine.", time.Second)
			if good != tt.good || !strings.Contains(page, tt.want) {
				t.Errorf("good %v; want %v and %q in\n%s", good, tt.good, tt.want, page)
			}
			if want := "| HTTP/2 | 1 % | 0.3 | 0.3 | 0.0 ms, 0.0 ms | 400 ms, 1000 ms | 400 ms, 1000 ms |"; !strings.Contains(page, want) {
				t.Errorf("the page lacks %q:\n%s", want, page)
			}
		})
	}
}
