package balancer

import "isthmus/mesh"

// Caller is the proxy whose traffic a set balances.
type Caller struct {
	Cluster  string
	Locality mesh.Locality
	Labels   map[string]string

	// Peers are the ready endpoints of the caller's own service in its region, by
	// zone, the caller included; empty where there is no such service, as for most
	// gateways.
	Peers Zones
}

// Zones are numbers of endpoints by zone of one region.
type Zones map[string]int

func (z Zones) total() (n int) {
	for _, count := range z {
		n += count
	}
	return n
}

// zoneShares divides what a priority carries among the zones of the caller's
// region so that requests stay in their zone as far as every endpoint still gets
// the same (Envoy: zone_aware.rst). carry is what the candidates of each cell
// weigh. Nil where Envoy would not do it either: zones of other regions, too few
// endpoints, nobody in the own zone, or nothing known of the caller's peers.
//
// If the caller's zone has a larger part of the callers than of the endpoints,
// the rest goes to zones that have more endpoints than callers, in proportion to
// the difference.
func (p *plan) zoneShares(load float64, cells []*cell, carry []uint64) []float64 {
	if p.leastHosts == 0 || cells[0].key.locality.Region != p.from.Region {
		return nil
	}
	endpoints, weights := Zones{}, map[string]uint64{}
	for i, c := range cells {
		if carry[i] > 0 {
			endpoints[c.key.locality.Zone] += len(c.good)
			weights[c.key.locality.Zone] += carry[i]
		}
	}
	hosts, peers := endpoints.total(), p.peers.total()
	if hosts < p.leastHosts || len(endpoints) < 2 || endpoints[p.from.Zone] == 0 || p.peers[p.from.Zone] == 0 {
		return nil
	}
	part := func(of Zones, zone string, total int) float64 { return float64(of[zone]) / float64(total) }
	own := min(1, part(endpoints, p.from.Zone, hosts)/part(p.peers, p.from.Zone, peers))
	spare, sum := map[string]float64{}, 0.0
	for zone := range endpoints {
		if zone != p.from.Zone {
			spare[zone] = max(0, part(endpoints, zone, hosts)-part(p.peers, zone, peers))
			sum += spare[zone]
		}
	}
	out := make([]float64, len(cells))
	for i, c := range cells {
		if carry[i] == 0 {
			continue
		}
		zone, share := c.key.locality.Zone, own
		if zone != p.from.Zone {
			if share = 0; sum > 0 {
				share = (1 - own) * spare[zone] / sum
			}
		} else if sum == 0 {
			share = 1 // rounding, or peers in zones without an endpoint
		}
		out[i] = load * share * float64(carry[i]) / float64(weights[zone])
	}
	return out
}
