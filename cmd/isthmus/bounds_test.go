package main

import (
	"math"
	"testing"
)

// TestConnectionsFor: with as many connections to endpoints as clients have, there are
// files left for the rest.
func TestConnectionsFor(t *testing.T) {
	for files, want := range map[uint64]int{0: 0, 128: 48, 1024: 384, 4096: 1536, 20_000: 9488, 1 << 20: 523_776, math.MaxUint64: math.MaxInt32} {
		if got := connectionsFor(files); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
}

// TestVisitorsFor: those of the admin and the metrics listener and of the gossip port,
// together, are not all of what clients leave.
func TestVisitorsFor(t *testing.T) {
	for files, want := range map[uint64]int{0: 256, 1: 1, 128: 8, 1024: 64, 4096: 256, 1 << 20: 256, math.MaxUint64: 256} {
		if got := visitorsFor(files); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
}
