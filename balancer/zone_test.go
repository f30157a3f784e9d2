package balancer

import (
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"isthmus/mesh"
)

// TestSet_Zones divides a region among its zones as Envoy's documentation of
// zone-aware routing does.
func TestSet_Zones(t *testing.T) {
	var list []*Host
	for zone, n := range map[string]int{"r/a": 4, "r/b": 2, "r/c": 2, "far/a": 2} {
		for range n {
			list = append(list, host(len(list)+1, zone, 1))
		}
	}
	for _, tt := range []struct {
		name  string
		least uint32
		peers Zones
		from  string
		eject map[string]int
		want  map[string]float64
	}{
		{"as many callers as endpoints in each zone: all stay", 6, Zones{"a": 4, "b": 2, "c": 2}, "r/a", nil, map[string]float64{"a": 1}},
		{"fewer callers than endpoints here: all stay", 6, Zones{"a": 1, "b": 9}, "r/a", nil, map[string]float64{"a": 1}},
		// Half of the callers, a quarter of the endpoints: half stays, and the rest
		// goes where there are more endpoints than callers: a has 25 % more, c none.
		{"more callers than endpoints here", 6, Zones{"a": 1, "b": 2, "c": 1}, "r/b", nil, map[string]float64{"b": .5, "a": .5}},
		{"the rest in proportion", 6, Zones{"b": 1}, "r/b", nil, map[string]float64{"b": .25, "a": .5, "c": .25}},
		{"too few endpoints", 9, Zones{"b": 1}, "r/b", nil, map[string]float64{"a": .5, "b": .25, "c": .25}},
		{"peers unknown", 6, nil, "r/b", nil, map[string]float64{"a": .5, "b": .25, "c": .25}},
		{"nobody well here", 6, Zones{"b": 1}, "r/b", map[string]int{"r/b": 2}, map[string]float64{"a": 2. / 3, "c": 1. / 3}},
		{"one of two well here", 6, Zones{"b": 1}, "r/b", map[string]int{"r/b": 1}, map[string]float64{"b": 1. / 7, "a": 4. / 7, "c": 2. / 7}},
		{"nobody well in the region", 6, Zones{"b": 1}, "r/b", map[string]int{"r/a": 4, "r/b": 2, "r/c": 2}, map[string]float64{"far": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, h := range list {
				h.Restore()
			}
			for zone, n := range tt.eject {
				for _, h := range list {
					if n > 0 && h.Endpoint().Locality.String() == zone {
						h.Eject("test", 1<<40, true)
						n--
					}
				}
			}
			s := NewSet(list, &mesh.LoadBalancer{Locality: &mesh.LocalityLB{LeastHosts: tt.least}}, nil, Caller{Locality: mesh.ParseLocality(tt.from), Peers: tt.peers})
			defer s.Close()
			st := s.current()
			got, before := map[string]float64{}, uint64(0)
			for _, g := range st.groups {
				l := mesh.ParseLocality(g.locality)
				zone := l.Zone
				if l.Region == "far" {
					zone = "far"
				}
				got[zone] += float64(g.until-before) / float64(st.total)
				before = g.until
			}
			for _, zone := range []string{"a", "b", "c", "far"} {
				if math.Abs(got[zone]-tt.want[zone]) > .001 {
					t.Errorf("shares %v, want %v", got, tt.want)
					break
				}
			}
		})
	}
}

// TestSet_ZonesPanic: where too few are well, so that health is ignored, zones are not balanced: all
// hosts get the same.
func TestSet_ZonesPanic(t *testing.T) {
	list := []*Host{host(1, "r/a", 1), host(2, "r/a", 1), host(3, "r/b", 1), host(4, "far/a", 1)}
	for _, h := range list[1:] {
		h.Eject("test", 1<<40, true)
	}
	lb := &mesh.LoadBalancer{Locality: &mesh.LocalityLB{LeastHosts: 2}}
	s := NewSet(list, lb, &mesh.OutlierDetection{MinHealthPercent: 90}, Caller{Locality: mesh.ParseLocality("r/b"), Peers: Zones{"b": 1}})
	for i, got := range s.Shares() {
		if math.Abs(got.Part-.25) > 1e-5 {
			t.Errorf("host %d gets %v, want a quarter", i, got.Part)
		}
	}
}

// TestSet_ZonesElsewhere: zones of another region are not ours, though they have the same names.
func TestSet_ZonesElsewhere(t *testing.T) {
	list := []*Host{host(1, "far/1", 1), host(2, "far/2", 1), host(3, "far/2", 1), host(4, "far/2", 1)}
	lb := &mesh.LoadBalancer{Locality: &mesh.LocalityLB{LeastHosts: 2}}
	s := NewSet(list, lb, nil, Caller{Locality: mesh.ParseLocality("r/1"), Peers: Zones{"1": 1, "2": 1}})
	for i, got := range s.Shares() {
		if math.Abs(got.Part-.25) > 1e-5 {
			t.Errorf("host %d gets %v, want a quarter", i, got.Part)
		}
	}
}

// TestSet_ZonesEven: whatever the numbers, when every caller balances so, every
// endpoint of the region gets the same, as far as callers are in zones with
// endpoints.
func TestSet_ZonesEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.IntRange(2, 5).Draw(t, "zones")
		peers, endpoints := Zones{}, Zones{}
		var cells []*cell
		var carry []uint64
		for i := range zones {
			name := strconv.Itoa(i)
			peers[name], endpoints[name] = rapid.IntRange(1, 20).Draw(t, "callers"), rapid.IntRange(1, 20).Draw(t, "endpoints")
			cells = append(cells, &cell{key: groupKey{0, mesh.Locality{Region: "r", Zone: name}}, good: make([]candidate, endpoints[name])})
			carry = append(carry, uint64(endpoints[name]))
		}
		got := make([]float64, zones)
		for i := range zones {
			p := plan{from: mesh.Locality{Region: "r", Zone: strconv.Itoa(i)}, leastHosts: 1, peers: peers}
			shares := p.zoneShares(1, cells, carry)
			sum := 0.0
			for j, share := range shares {
				sum += share
				got[j] += share * float64(peers[strconv.Itoa(i)])
			}
			if math.Abs(sum-1) > 1e-9 {
				t.Fatalf("the shares of zone %d are %v", i, shares)
			}
		}
		each := float64(peers.total()) / float64(endpoints.total())
		for i := range got {
			if per := got[i] / float64(endpoints[strconv.Itoa(i)]); math.Abs(per-each) > 1e-9*each {
				t.Fatalf("an endpoint of zone %d gets %v, want %v", i, per, each)
			}
		}
	})
}
