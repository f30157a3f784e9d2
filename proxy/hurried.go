package proxy

import (
	"time"

	"isthmus/mesh"
	"isthmus/telemetry"
)

// Hurried is a connect time-out that does not leave the time which connecting to a
// place takes.
type Hurried struct {
	Host      string // of the destination
	Place     telemetry.Place
	Timeout   time.Duration
	RoundTrip time.Duration
	Takes     time.Duration
	Source    mesh.Source // of the connectionPool
}

// Hurried returns those of upstreams in use, one for each place in a policy. How far
// places are, connections to them have told; of clusters to which there is none,
// somebody else may know it.
func (p *Proxy) Hurried(clusters map[string]time.Duration) (out []Hurried) {
	places := map[telemetry.Place]time.Duration{}
	for _, l := range p.Links().List() {
		places[l.To] = l.RoundTrip
	}
	type entry struct {
		source mesh.Source
		place  telemetry.Place
	}
	told := map[entry]bool{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.upstreams {
		pool := u.policy.ConnectionPool
		if pool == nil || pool.ConnectTimeout == 0 {
			continue
		}
		for _, m := range u.members {
			e := m.host.Endpoint()
			place := telemetry.Place{Cluster: e.Cluster, Locality: e.Locality.String()}
			trip := places[place]
			if trip == 0 && e.Cluster != p.node.Cluster {
				trip = clusters[e.Cluster]
			}
			takes := trip
			if m.tls != nil {
				takes += trip // TLS 1.3
			}
			if takes < pool.ConnectTimeout || told[entry{pool.Source, place}] {
				continue
			}
			told[entry{pool.Source, place}] = true
			out = append(out, Hurried{u.key.host, place, pool.ConnectTimeout, trip, takes, pool.Source})
		}
	}
	return out
}
