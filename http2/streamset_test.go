package http2

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestStreamSet: it holds what a map would, however long some streams last.
func TestStreamSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set streamSet
		want := map[uint32]*Stream{}
		next := uint32(1)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				next += 2 * rapid.Uint32Range(1, 2*ringSize).Draw(t, "further")
				s := &Stream{id: next}
				set.add(s)
				want[next] = s
			},
			"remove": func(t *rapid.T) {
				if len(want) == 0 {
					t.Skip()
				}
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(want))).Draw(t, "id")
				set.remove(want[id])
				delete(want, id)
			},
			"": func(t *rapid.T) {
				got := map[uint32]*Stream{}
				for s := range set.all() {
					got[s.id] = s
				}
				if !maps.Equal(got, want) || set.len() != len(want) {
					t.Fatalf("%d streams, want %d", len(got), len(want))
				}
				for id := uint32(1); id <= next+2*ringSize; id += 2 {
					if set.get(id) != want[id] {
						t.Fatalf("stream %d: %v, want %v", id, set.get(id), want[id])
					}
				}
			},
		})
	})
}
