package ratelimit

import (
	"testing"

	"pgregory.net/rapid"
)

// TestLRU: it is a map, of the keys that were used last.
func TestLRU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 20).Draw(t, "most")
		l := newLRU[int, int](most)
		var order []int // of keys, the lately used first
		values := map[int]int{}
		use := func(key int) {
			for i, k := range order {
				if k == key {
					order = append(order[:i], order[i+1:]...)
					break
				}
			}
			order = append([]int{key}, order...)
			if len(order) > most {
				delete(values, order[most])
				order = order[:most]
			}
		}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			key, peek := rapid.IntRange(0, 30).Draw(t, "key"), rapid.Bool().Draw(t, "peek")
			read := l.get
			if peek {
				read = l.peek
			}
			got, want := read(key), values[key]
			switch {
			case want == 0 && got != nil || want != 0 && (got == nil || *got != want):
				t.Fatalf("key %d: %v, want %d", key, got, want)
			case want == 0:
				values[key] = 1 + rapid.Int().Draw(t, "value")&0xffff
				l.put(key, values[key])
				use(key)
			case !peek:
				use(key)
			}
			var keys []int
			l.each(func(k int, _ *int) bool { keys = append(keys, k); return true })
			if len(keys) != len(order) || len(l.nodes) > most {
				t.Fatalf("keys %v, want %v", keys, order)
			}
			for i := range keys {
				if keys[i] != order[i] {
					t.Fatalf("keys %v, want %v", keys, order)
				}
			}
		}
	})
}
