package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"

	"isthmus/mesh"
)

func hashed(kind mesh.LoadBalancerKind) *mesh.LoadBalancer {
	return &mesh.LoadBalancer{Kind: kind, Hash: &mesh.HashPolicy{SourceIP: true}}
}

var hashKinds = map[string]mesh.LoadBalancerKind{"ring hash": mesh.RingHash, "maglev": mesh.Maglev}

// TestHashing_Stays: a hash belongs to one host, whoever asks and in whatever
// order the hosts are known.
func TestHashing_Stays(t *testing.T) {
	for name, kind := range hashKinds {
		t.Run(name, func(t *testing.T) {
			list := hosts(10, "r/z")
			shuffled := append([]*Host(nil), list...)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			small := hashed(kind) // hosts are in each other's way while the table is filled
			small.Hash.TableSize = 101
			a := NewSet(list, small, nil, Caller{})
			b := NewSet(shuffled, small, nil, Caller{})
			for range 1000 {
				h := rand.Uint64()
				i, _ := a.Pick(nil, h)
				j, _ := b.Pick(nil, h)
				if list[i] != shuffled[j] {
					t.Fatalf("hash %x belongs to %v and to %v", h, list[i].Endpoint().Address, shuffled[j].Endpoint().Address)
				}
			}
		})
	}
}

// TestHashing_Shares: hosts get their part by weight, within what the tables
// promise: maglev is nearly even, a ring of 1024 points is not quite.
func TestHashing_Shares(t *testing.T) {
	const n = 200_000
	for name, tt := range map[string]struct {
		kind mesh.LoadBalancerKind
		off  float64 // of the host's part
	}{"ring hash": {mesh.RingHash, .35}, "maglev": {mesh.Maglev, .05}} {
		t.Run(name, func(t *testing.T) {
			list := []*Host{host(1, "r/z", 1), host(2, "r/z", 2), host(3, "r/z", 3), host(4, "r/z", 4)}
			s := NewSet(list, hashed(tt.kind), nil, Caller{})
			got := make([]float64, len(list))
			for range n {
				i, _ := s.Pick(nil, rand.Uint64())
				got[i] += 1.0 / n
			}
			for i := range list {
				if want := float64(i+1) / 10; math.Abs(got[i]-want) > tt.off*want {
					t.Errorf("host %d of weight %d has %.3f", i, i+1, got[i])
				}
			}
		})
	}
}

// TestRing: a ring has as many points as it is to have, and each host as many of them as it
// weighs, where Envoy has them; a hash belongs to the next one, and what is beyond the last
// one to the first.
func TestRing(t *testing.T) {
	list := []candidate{{host: host(1, "r/z", 1), index: 0, weight: 1}, {host: host(2, "r/z", 1), index: 1, weight: 2}, {host: host(3, "r/z", 1), index: 2, weight: 7}}
	for _, size := range []uint64{1, 10, 1024, 1025} {
		r, points := newRing(list, size), map[int32]int{}
		for _, p := range r {
			points[p.host]++
		}
		if uint64(len(r)) < size || len(r) > int(size)+10 || points[1] != 2*points[0] || points[2] != 7*points[0] {
			t.Errorf("a ring of %d has %d points: %v", size, len(r), points)
		}
	}
	if i, _ := newRing(list, 1024).seek(xxhash.Sum64String("10.0.0.2:80_11")); i != 1 {
		t.Errorf("the host 10.0.0.2 does not stand where it does in Envoy's ring")
	}
	r := ring{{10, 0}, {20, 1}, {30, 2}}
	for _, tt := range []struct {
		hash uint64
		want int32
		next uint64
	}{{0, 0, 11}, {10, 0, 11}, {11, 1, 21}, {30, 2, 31}, {31, 0, 11}, {math.MaxUint64, 0, 11}} {
		if i, next := r.seek(tt.hash); i != tt.want || next != tt.next {
			t.Errorf("%d belongs to %d, and then %d, want %d and %d", tt.hash, i, next, tt.want, tt.next)
		}
	}
}

// TestNewHashTable: which table an algorithm has, and how large it is unless the policy says so.
// Proxies of different versions that share a service must go by the same.
func TestNewHashTable(t *testing.T) {
	list := []candidate{{host: host(1, "r/z", 1), index: 0, weight: 1}, {host: host(2, "r/z", 1), index: 1, weight: 1}}
	for _, tt := range []struct {
		kind mesh.LoadBalancerKind
		size uint64
		want int
	}{{mesh.RingHash, 0, 1024}, {mesh.RingHash, 2048, 2048}, {mesh.Maglev, 0, 65537}, {mesh.Maglev, 101, 101}} {
		size := 0
		switch table := newHashTable(tt.kind, list, tt.size).(type) {
		case ring:
			if size = len(table); tt.kind != mesh.RingHash {
				t.Errorf("kind %d has a ring", tt.kind)
			}
		case maglev:
			if size = len(table); tt.kind != mesh.Maglev {
				t.Errorf("kind %d has a table of maglev", tt.kind)
			}
		}
		if size != tt.want {
			t.Errorf("kind %d of %d has a table of %d", tt.kind, tt.size, size)
		}
	}
	if got := mix(0); got != 0xe220a8397b1dcdaf { // the first number of SplitMix64 from 0
		t.Errorf("0 is mixed to %x", got)
	}
}

// TestHashing_Failure: when a host fails, its requests move and no others; when
// it returns, they return.
func TestHashing_Failure(t *testing.T) {
	for name, kind := range hashKinds {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				list := hosts(rapid.IntRange(2, 20).Draw(t, "hosts"), "r/z")
				if n := rapid.IntRange(1, 4).Draw(t, "localities"); n > 1 {
					for i := range list {
						list[i] = host(i, fmt.Sprint("r/", i%n), 1)
					}
				}
				s := NewSet(list, hashed(kind), nil, Caller{})
				gone := rapid.IntRange(0, len(list)-1).Draw(t, "gone")
				var hashes [300]uint64
				var owner [len(hashes)]int
				for k := range hashes {
					hashes[k] = rand.Uint64() | 1
					owner[k], _ = s.Pick(nil, hashes[k])
				}
				list[gone].Eject("test", time.Hour, false)
				for k, h := range hashes {
					if i, ok := s.Pick(nil, h); !ok || i == gone || owner[k] != gone && i != owner[k] {
						t.Fatalf("hash of host %d went to %d, %v when %d failed", owner[k], i, ok, gone)
					}
				}
				list[gone].Restore()
				for k, h := range hashes {
					if i, _ := s.Pick(nil, h); i != owner[k] {
						t.Fatalf("hash of host %d goes to %d after the return", owner[k], i)
					}
				}
			})
		})
	}
}

// TestHashing_Localities: affinity does not cross the priorities: the near
// hosts keep the requests as long as they can serve.
func TestHashing_Localities(t *testing.T) {
	list := append(hosts(4, "r/near"), host(100, "r2/far", 1))
	s := NewSet(list, hashed(mesh.RingHash), nil, Caller{Locality: mesh.ParseLocality("r/near")})
	for range 500 {
		if i, ok := s.Pick(nil, rand.Uint64()); !ok || i == 4 {
			t.Fatalf("picked %d, %v", i, ok)
		}
	}
	for i := range 4 {
		list[i].Eject("test", time.Hour, false)
	}
	if i, ok := s.Pick(nil, 7); !ok || i != 4 {
		t.Fatalf("picked %d, %v when the near ones are gone", i, ok)
	}
}

// TestHashing_Distribute: localities get what distribute says, and when one of them
// cannot serve, only its own requests go elsewhere.
func TestHashing_Distribute(t *testing.T) {
	const n = 20_000
	list := []*Host{host(1, "r/a", 1), host(2, "r/b", 1), host(3, "r/c", 1), host(4, "r/c", 1)}
	lb := hashed(mesh.RingHash)
	lb.Locality = &mesh.LocalityLB{Distribute: []mesh.Distribute{{From: "*", To: []mesh.LocalityShare{
		{Locality: "r/a", Percent: 50}, {Locality: "r/b", Percent: 30}, {Locality: "r/c", Percent: 20},
	}}}}
	s := NewSet(list, lb, nil, Caller{Locality: mesh.ParseLocality("r/a")})
	var hashes [n]uint64
	var owner [n]int
	got := map[string]float64{}
	for k := range hashes {
		hashes[k] = rand.Uint64() | 1
		owner[k], _ = s.Pick(nil, hashes[k])
		got[list[owner[k]].Endpoint().Locality.String()] += 1.0 / n
	}
	for locality, want := range map[string]float64{"r/a": .5, "r/b": .3, "r/c": .2} {
		if !near(got[locality], want, n) {
			t.Errorf("%s has %.3f, want %.2f", locality, got[locality], want)
		}
	}
	for gone := range 2 {
		list[gone].Eject("test", time.Hour, false)
		for k, h := range hashes {
			if i, ok := s.Pick(nil, h); !ok || i == gone || owner[k] != gone && i != owner[k] {
				t.Fatalf("hash of host %d went to %d, %v when %d failed", owner[k], i, ok, gone)
			}
		}
		list[gone].Restore()
	}
}

// TestHashing_Beyond: another locality is found within a priority.
func TestHashing_Beyond(t *testing.T) {
	list := []*Host{host(1, "r/a", 1), host(2, "r/a", 1), host(3, "r/b", 1)}
	s := NewSet(list, hashed(mesh.RingHash), nil, Caller{})
	for range 50 {
		if i, ok := s.PickBeyond(list[:1]); !ok || i != 2 {
			t.Fatalf("picked %d, %v", i, ok)
		}
	}
	if i, ok := s.PickBeyond(list[1:]); ok {
		t.Fatalf("picked %d, though all localities were tried", i)
	}
}

// TestHashing_Tried: a host that was tried is not picked again while there is
// another one.
func TestHashing_Tried(t *testing.T) {
	for name, kind := range hashKinds {
		list := hosts(3, "r/z")
		s := NewSet(list, hashed(kind), nil, Caller{})
		for range 300 {
			h := rand.Uint64()
			var tried []*Host
			for range list {
				i, ok := s.Pick(tried, h)
				if !ok || contains(tried, list[i]) {
					t.Fatalf("%s: picked %d, %v after %d tries", name, i, ok, len(tried))
				}
				tried = append(tried, list[i])
			}
			if _, ok := s.Pick(tried, h); ok {
				t.Fatalf("%s: somebody is left", name)
			}
		}
	}
}
