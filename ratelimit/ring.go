package ratelimit

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// ring says which proxy is the home of a key: the owner of the next point on a
// circle. When a proxy comes or goes, only its own keys move.
type ring struct {
	names  []string // sorted
	points []point  // sorted by at
}

type point struct {
	at   uint64
	name uint32 // in names
}

// pointsEach is how many points each proxy has: with 32, the busiest of many has
// some half more keys than the mean.
const pointsEach = 32

func newRing(names []string) *ring {
	names = slices.Clone(names)
	slices.Sort(names)
	r := &ring{names: slices.Compact(names)}
	r.points = make([]point, 0, len(r.names)*pointsEach)
	for i, n := range r.names {
		b := append([]byte(n), 0)
		for j := range pointsEach {
			r.points = append(r.points, point{xxhash.Sum64(append(b, byte(j))), uint32(i)})
		}
	}
	slices.SortFunc(r.points, func(a, b point) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return int(a.name) - int(b.name)
	})
	return r
}

func (r *ring) same(o *ring) bool { return slices.Equal(r.names, o.names) }

// home returns the name of the proxy where a key is at home.
func (r *ring) home(k leaseKey) string {
	at := binary.LittleEndian.Uint64(k[8:])
	i, _ := slices.BinarySearchFunc(r.points, at, func(p point, at uint64) int {
		switch {
		case p.at < at:
			return -1
		case p.at > at:
			return 1
		}
		return 0
	})
	return r.names[r.points[i%len(r.points)].name]
}
