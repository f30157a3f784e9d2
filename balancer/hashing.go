package balancer

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"isthmus/mesh"
)

// hashTable says to which host of a group a hash belongs. It is made of all
// hosts of the group, whatever their health, so that a host that fails moves
// its own requests only, and gets them back when it returns.
type hashTable interface {
	// seek returns the host at a hash, and where to look on if it cannot serve.
	seek(hash uint64) (host int32, next uint64)
}

// ring is Envoy's ring hash (Ketama): hosts stand on a circle at many points
// each, and a request goes to the next one clockwise.
type ring []ringPoint

type ringPoint struct {
	hash uint64
	host int32
}

func (r ring) seek(hash uint64) (int32, uint64) {
	i := sort.Search(len(r), func(i int) bool { return r[i].hash >= hash })
	if i == len(r) {
		i = 0
	}
	return r[i].host, r[i].hash + 1
}

// maxRing is Envoy's largest ring (maximum_ring_size).
const maxRing = 8 << 20

// newRing makes a ring of at least size points. Each host has points in
// proportion to its weight, at the hashes of its address followed by "_0",
// "_1" and so on, as in Envoy.
func newRing(hosts []candidate, size uint64) ring {
	var total, least uint64 = 0, math.MaxUint64
	for _, c := range hosts {
		total += c.weight
		least = min(least, c.weight)
	}
	// As many points as make the lightest host's a whole number.
	lightest := float64(least) / float64(total)
	scale := min(math.Ceil(lightest*float64(size))/lightest, maxRing)
	r := make(ring, 0, int(scale)+len(hosts))
	var key []byte
	target := 0.0
	for _, c := range hosts {
		target += scale * float64(c.weight) / float64(total)
		key = append(c.host.Endpoint().Address.AppendTo(key[:0]), '_')
		n := len(key)
		for i := int64(0); float64(len(r)) < target; i++ {
			key = strconv.AppendInt(key[:n], i, 10)
			r = append(r, ringPoint{xxhash.Sum64(key), int32(c.index)})
		}
	}
	slices.SortFunc(r, func(a, b ringPoint) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.host, b.host))
	})
	return r
}

// maglev is Google's table: every host owns its part of the places, nearly
// evenly, and most places stay where they are when a host comes or goes
// (Eisenbud et al., NSDI 2016).
type maglev []int32

func (m maglev) seek(hash uint64) (int32, uint64) {
	return m[hash%uint64(len(m))], mix(hash)
}

// maglevEntry is a host while a table is filled: its permutation of the places
// begins at offset and goes on by skip.
type maglevEntry struct {
	host         int32
	offset, skip uint64
	next         uint64 // how far it has come
	weight, due  float64
}

func (e *maglevEntry) place(size uint64) uint64 { return (e.offset + e.next*e.skip) % size }

// newMaglev fills a table of a prime number of places: the hosts in turn each
// take the next free place of their own permutation of all places. A host of
// less weight sits turns out, as in Envoy.
func newMaglev(hosts []candidate, size uint64) maglev {
	var most uint64
	for _, c := range hosts {
		most = max(most, c.weight)
	}
	entries := make([]maglevEntry, len(hosts))
	for i, c := range hosts {
		key := c.host.Endpoint().Address.AppendTo(nil)
		h := xxhash.Sum64(key)
		entries[i] = maglevEntry{host: int32(c.index), offset: h % size, skip: mix(h)%(size-1) + 1, weight: float64(c.weight)}
	}
	// The order of turns must not depend on the order in which hosts are known.
	slices.SortFunc(entries, func(a, b maglevEntry) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.skip, b.skip))
	})
	table := make(maglev, size)
	for i := range table {
		table[i] = -1
	}
	for filled, turn := uint64(0), 1.0; ; turn++ {
		for i := range entries {
			e := &entries[i]
			if turn*e.weight < e.due {
				continue
			}
			e.due += float64(most)
			place := e.place(size)
			for table[place] >= 0 {
				e.next++
				place = e.place(size)
			}
			table[place] = e.host
			e.next++
			if filled++; filled == size {
				return table
			}
		}
	}
}

// mix spreads the bits of a hash (the finalizer of SplitMix64).
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Sizes of tables where the policy names none: those of Istio's schema.
const (
	defaultRing   = 1024
	defaultMaglev = 65537
)

func newHashTable(kind mesh.LoadBalancerKind, hosts []candidate, size uint64) hashTable {
	if kind == mesh.Maglev {
		return newMaglev(hosts, cmp.Or(size, defaultMaglev))
	}
	return newRing(hosts, cmp.Or(size, defaultRing))
}

// maxSeeks is how many places are looked at before any host will do.
const maxSeeks = 32

// byHash takes the host that a hash belongs to or, if that one cannot serve
// or was tried, the next one that the table names.
func (s *Set) byHash(g *group, hash uint64, tried []*Host) (int, bool) {
	for range maxSeeks {
		i, next := g.table.seek(hash)
		if h := s.hosts[i]; g.takes(h) && h.free() && !contains(tried, h) {
			return int(i), true
		}
		hash = next
	}
	return 0, false
}
