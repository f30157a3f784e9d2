package proxy

import (
	"maps"
	"reflect"
	"slices"
	"sync"

	"isthmus/canary"
	"isthmus/mesh"
)

// A snapshot may bring a candidate: a second configuration that is compiled into
// a table of its own. Each request pins one of the two tables and meets nothing
// of the other. What both say alike of an upstream is one upstream, with its
// hosts and connections; where they differ, the candidate has its own, so that
// what it does to them hurts nobody else.

// trial is what the table in force knows of a candidate.
type trial struct {
	*mesh.Candidate
	table    *table // the candidate's
	salt     uint64 // so that each candidate meets other requests
	counts   *trialCounts
	verdicts sync.Map // [2]*route -> *verdict
	reach    sync.Map // *target -> bool: somebody is there
}

// trialCounts are what one stage of a trial counts, and what a whole trial has
// seen.
type trialCounts struct {
	hash               string // of the candidate's configuration
	trial              uint64
	stage              int
	candidate, current *canary.Arm
	seen               *canary.Differences
}

// compileTrial makes the candidate's table, if a snapshot has one.
func compileTrial(s *mesh.Snapshot, o Options) *table {
	c := s.Candidate
	if c == nil {
		return nil
	}
	as := *s
	as.Config, as.Registry, as.Rules, as.Candidate = c.Config, c.Registry, c.Rules, nil
	t := compile(&as, o)
	t.candidate = true
	return t
}

// trialTable is the candidate's table beside this one; nil: there is none.
func (t *table) trialTable() *table {
	if t == nil || t.trial == nil {
		return nil
	}
	return t.trial.table
}

// try puts a candidate's table beside the one that is to be in force. The caller
// holds mu.
func (p *Proxy) try(t, candidate *table) {
	c := t.snapshot.Candidate
	n := p.trialCounts
	if hash := c.Config.Hash; n == nil || n.hash != hash || n.trial != c.Trial || n.stage != c.Stage {
		seen := &canary.Differences{}
		if n != nil && n.hash == hash && n.trial == c.Trial {
			seen = n.seen
		}
		n = &trialCounts{hash, c.Trial, c.Stage, &canary.Arm{}, &canary.Arm{}, seen}
		p.trialCounts = n
	}
	candidate.keepTerminators(t)
	p.carryCandidates(t, candidate)
	t.trial = &trial{Candidate: c, table: candidate, salt: saltOf(c.Config.Hash), counts: n}
	if c.Share > 0 {
		t.arm, candidate.arm = n.current, n.candidate
	}
}

// Canary returns what was counted in this stage of a candidate's trial, and what
// comparing it has shown. Without one, or after it, it is what the last had.
func (p *Proxy) Canary() (candidate, current canary.Counts, seen canary.Compare) {
	p.mu.Lock()
	n := p.trialCounts
	p.mu.Unlock()
	if n == nil {
		return candidate, current, canary.Compare{Differences: []canary.Difference{}}
	}
	return n.candidate.Counts(), n.current.Counts(), n.seen.Seen()
}

// carryCandidates makes the candidate's own upstreams anew, so that their hosts
// and connections live on. The caller holds mu.
func (p *Proxy) carryCandidates(t, candidate *table) {
	kept := map[upstreamKey]*upstream{}
	for k, old := range p.candidates {
		target := candidate.targets[k]
		if target == nil || p.shared(t, target) {
			old.close()
			continue
		}
		u := newUpstream(target, &p.options, candidate.caller, old)
		target.upstream.Store(u)
		kept[k] = u
	}
	p.candidates = kept
}

// endTrial gives the candidate's own upstreams up, or, where the table to be in
// force has them and no other did, takes them over: it may be the candidate's. The
// caller holds mu.
func (p *Proxy) endTrial(t *table) {
	for k, u := range p.candidates {
		if p.upstreams[k] == nil && t.targets[k] != nil {
			p.upstreams[k] = u
			continue
		}
		u.close()
	}
	p.candidates = nil
}

// close ends the connections of an upstream that is gone, and the trials of clusters
// that cannot be reached. The caller holds mu.
func (u *upstream) close() {
	u.live.join(nil)
	for _, m := range u.members {
		m.close()
	}
}

// shared makes the upstream of a candidate's target that of the table in force,
// if both say the same of it, and reports whether they do. The caller holds mu.
func (p *Proxy) shared(inForce *table, t *target) bool {
	same := inForce.targets[t.key]
	if same == nil {
		return false
	}
	u := p.ownUpstream(inForce, same)
	r := t.resolve()
	if u.known != r.known || !slices.Equal(u.endpoints, r.endpoints) || !reflect.DeepEqual(u.wires, r.wires) || !samePolicy(u.policy, r.policy) {
		return false
	}
	t.upstream.Store(u)
	return true
}

// samePolicy reports whether two policies say the same, wherever they stand. What a subset
// is shows in its endpoints.
func samePolicy(a, b mesh.Policy) bool {
	return (a.Adaptive == nil) == (b.Adaptive == nil) &&
		sameBlock(a.LoadBalancer, b.LoadBalancer, func(b *mesh.LoadBalancer) *mesh.Source { return &b.Source }) &&
		sameBlock(a.ConnectionPool, b.ConnectionPool, func(b *mesh.ConnectionPool) *mesh.Source { return &b.Source }) &&
		sameBlock(a.OutlierDetection, b.OutlierDetection, func(b *mesh.OutlierDetection) *mesh.Source { return &b.Source }) &&
		sameBlock(a.TLS, b.TLS, func(b *mesh.ClientTLS) *mesh.Source { return &b.Source }) &&
		sameBlock(a.RetryBudget, b.RetryBudget, func(b *mesh.RetryBudget) *mesh.Source { return &b.Source })
}

// sameBlock reports whether two blocks, which may be nil, say the same but for their sources.
func sameBlock[B any](a, b *B, source func(*B) *mesh.Source) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	*source(&x), *source(&y) = mesh.Source{}, mesh.Source{}
	return reflect.DeepEqual(x, y)
}

// candidateUpstream returns the upstream of a target of the candidate, made if
// need be. The caller holds mu.
func (p *Proxy) candidateUpstream(inForce, candidate *table, t *target) *upstream {
	if u := t.upstream.Load(); u != nil {
		return u
	}
	if p.shared(inForce, t) {
		return t.upstream.Load()
	}
	u := newUpstream(t, &p.options, candidate.caller, p.candidates[t.key])
	t.upstream.Store(u)
	p.candidates[t.key] = u
	return u
}

// inUse returns the upstreams in use, those of a candidate alone included. The
// caller holds mu.
func (p *Proxy) inUse() []*upstream {
	return slices.AppendSeq(slices.Collect(maps.Values(p.upstreams)), maps.Values(p.candidates))
}
