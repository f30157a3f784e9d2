package main

import (
	"math"
	"time"

	"isthmus/admin"
	"isthmus/gossip"
	"isthmus/telemetry"
)

// Own implements admin.State: what this proxy would tell the others of itself,
// were there room for all of it.
func (s *server) Own() admin.Digest {
	st := s.control.Status()
	d := admin.Digest{Ready: st.Ready, Snapshot: st.Snapshot.Number, Hash: st.Snapshot.Hash, Refused: st.Snapshot.Error != "", Shed: s.meter.Shed(), Flows: []admin.Flow{}}
	if id := s.identity.Identity(); id != nil {
		d.CertificateEnds = id.NotAfter.Unix()
	}
	type flow struct {
		service, cluster string
		inbound          bool
	}
	flows := map[flow]*admin.Flow{}
	var order []flow
	add := func(k flow, t admin.Traffic) {
		f := flows[k]
		if f == nil {
			f = &admin.Flow{Service: k.service, Cluster: k.cluster, Inbound: k.inbound}
			flows[k], order = f, append(order, k)
		}
		f.Add(t)
	}
	for _, r := range s.meter.Rates() {
		t := admin.Traffic{Requests: r.Requests, Errors: r.Errors, P50: r.P50, P99: r.P99}
		service := serviceOf(&r.Labels)
		inbound := r.Reporter == "destination"
		cluster := r.Destination.Cluster
		if inbound {
			cluster = s.node.Cluster
		} else {
			add(flow{cluster: cluster}, t)
		}
		if service != "" {
			add(flow{service, cluster, inbound}, t)
		}
	}
	for _, k := range order {
		d.Flows = append(d.Flows, *flows[k])
	}
	return d
}

// serviceOf is what endpoints call the service of an exchange: name.namespace, or a
// ServiceEntry's host, whose namespace is the entry's.
func serviceOf(l *telemetry.Labels) string {
	if l.DestinationNamespace == "" || l.DestinationName == l.DestinationService {
		return l.DestinationName
	}
	return l.DestinationName + "." + l.DestinationNamespace
}

// Recent implements admin.State.
func (s *server) Recent() []admin.Point {
	out := []admin.Point{}
	for _, p := range s.meter.History() {
		out = append(out, admin.Point(p))
	}
	return out
}

// digest is what this proxy tells the others of itself.
func (s *server) digest() gossip.Digest {
	own := s.Own()
	d := gossip.Digest{Ready: own.Ready, Snapshot: own.Snapshot, Hash: own.Hash, Refused: own.Refused, Shed: string(own.Shed), Ends: own.CertificateEnds}
	for _, f := range own.Flows {
		d.Flows = append(d.Flows, gossip.Flow{
			Service: f.Service, Cluster: f.Cluster, Inbound: f.Inbound,
			Requests: short(f.Requests), Errors: short(f.Errors), P50: short(f.P50), P99: short(f.P99),
		})
	}
	return d
}

// short rounds to three figures, which are shorter to tell.
func short(n float64) float64 {
	if n <= 0 {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(n))-2)
	if unit < 1 { // divided by a whole number, the quotient has no digits too many
		return math.Round(n/unit) / math.Round(1/unit)
	}
	return math.Round(n/unit) * unit
}

// toldBy is the digest of a gossip member, nil if none has come lately.
func toldBy(h gossip.Heard, ok bool) *admin.Digest {
	if !ok {
		return nil
	}
	d := &admin.Digest{
		Age: h.Age.Round(time.Millisecond).Seconds(), Ready: h.Ready, Snapshot: h.Snapshot, Hash: h.Hash, Refused: h.Refused, Shed: telemetry.Shed(h.Shed),
		CertificateEnds: h.Ends, Flows: []admin.Flow{},
	}
	for _, f := range h.Flows {
		d.Flows = append(d.Flows, admin.Flow{
			Service: f.Service, Cluster: f.Cluster, Inbound: f.Inbound,
			Traffic: admin.Traffic{Requests: f.Requests, Errors: f.Errors, P50: f.P50, P99: f.P99},
		})
	}
	return d
}
