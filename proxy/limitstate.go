package proxy

import (
	"cmp"
	"math"
	"slices"
	"time"

	"isthmus/mesh"
	"isthmus/ratelimit"
)

// LimitState is a limit as it is now.
type LimitState struct {
	Name    string   // of the resource: "EnvoyFilter production/local-rate-limit"
	Filter  string   // in the listener's chain
	Source  string   // file:line
	Kind    string   // "local"; "service": another decides; "shared": the proxies together; "none": nobody; "concurrency"
	Listen  []string // "inbound", "outbound", "gateway"
	Where   string   // host or route; "": all
	Domain  string   // of a global limit
	Service string   // the cluster that a global limit names
	State   string   // "": well
	Trial   bool     // a candidate alone has it
	Off     bool     // it holds for no request: filter_enabled is 0
	Buckets []ratelimit.BucketState

	Allowed, Limited, Enforced, Shadow, Failed uint64
}

// Limits returns the limits of this proxy, sorted by resource, and those that only
// its candidate has: what both say alike is one limit.
func (p *Proxy) Limits() []LimitState {
	t := p.table.Load()
	if t == nil {
		return nil
	}
	at := now().time()
	out := make([]LimitState, 0, len(t.limits))
	for _, l := range t.limits {
		out = append(out, l.state(at, t))
	}
	if c := t.trialTable(); c != nil {
		for key, l := range c.limits {
			if t.limits[key] == nil {
				own := l.state(at, c)
				own.Trial = true
				out = append(out, own)
			}
		}
	}
	out = append(out, p.rooms()...)
	slices.SortFunc(out, func(a, b LimitState) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Where, b.Where), cmp.Compare(boolInt(a.Trial), boolInt(b.Trial)))
	})
	return out
}

// rooms are the limits of upstreams that are bounded by how long their requests
// take.
func (p *Proxy) rooms() (out []LimitState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, u := range p.upstreams {
		if u.room == nil {
			continue
		}
		s := LimitState{Name: k.String(), Kind: "concurrency", Listen: []string{}, Allowed: u.room.Admitted()}
		room := math.Floor(u.room.Limit())
		s.Buckets = []ratelimit.BucketState{{Bucket: mesh.Bucket{MaxTokens: uint32(room)}, Tokens: max(room-float64(u.live.requests.Load()), 0)}}
		for priority := range mesh.Priority(mesh.Priorities) {
			s.Enforced += u.room.Shed(priority)
		}
		s.Limited = s.Enforced
		out = append(out, s)
	}
	return out
}

func (l *limiter) state(at time.Time, t *table) LimitState {
	f := l.info.filter
	s := LimitState{Name: f.Meta.String(), Filter: f.Filter, Source: l.info.source.String(), Where: l.info.where}
	for kind, name := range [...]string{outbound: "outbound", inbound: "inbound", gateway: "gateway"} {
		if holds(&f.FilterScope, listenerKind(kind)) {
			s.Listen = append(s.Listen, name)
		}
	}
	var counts *ratelimit.Counts
	if l.local != nil {
		s.Kind, s.Buckets, counts, s.Off = "local", l.local.States(at), l.local.Counts, l.local.Rule.Enabled == 0
	} else {
		s.Off = f.Global.Enabled == 0
		s.Domain, s.Service, counts = f.Global.Domain, f.Global.Cluster, l.global.counts
		switch asker := t.askers[s.Service].(type) {
		case nil:
			s.Kind, s.State = "none", "no address is known of the service, and there is no rateLimits.config"
		case *ratelimit.Service:
			s.Kind, s.State = "service", asker.State()
		default:
			s.Kind, s.State = "shared", asker.State()
		}
	}
	s.Allowed, s.Limited, s.Enforced = counts.Allowed.Load(), counts.Limited.Load(), counts.Enforced.Load()
	s.Shadow, s.Failed = counts.Shadow.Load(), counts.Failed.Load()
	return s
}
