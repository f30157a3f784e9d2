package proxy

import (
	"sync"
	"time"

	"isthmus/auth"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// tallies count what policies have matched, for as long as there are such and some time
// more.
type tallies struct {
	mu       sync.Mutex // guards byPolicy
	byPolicy map[telemetry.Policy]*keptTally
}

type keptTally struct {
	auth.Tally
	gone time.Time // since when it was found to be of no policy; zero: it was not
}

func tallied(p *mesh.AuthorizationPolicy) telemetry.Policy {
	return telemetry.Policy{Name: p.Namespace + "/" + p.Name, Action: p.Action.String(), DryRun: p.DryRun}
}

func (t *tallies) of(p *mesh.AuthorizationPolicy) *auth.Tally {
	k := tallied(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byPolicy == nil {
		t.byPolicy = map[telemetry.Policy]*keptTally{}
	}
	if t.byPolicy[k] == nil {
		t.byPolicy[k] = &keptTally{}
	}
	t.byPolicy[k].gone = time.Time{} // whoever asks is about to use it
	return &t.byPolicy[k].Tally
}

// list returns what has been counted, and forgets those of policies that have been gone
// for long.
func (t *tallies) list(inUse map[telemetry.Policy]bool) map[telemetry.Policy]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, out := time.Now(), map[telemetry.Policy]uint64{}
	for k, kept := range t.byPolicy {
		switch {
		case inUse[k]:
			kept.gone = time.Time{}
		case kept.gone.IsZero():
			kept.gone = at
		case at.Sub(kept.gone) > telemetry.KeptFor:
			delete(t.byPolicy, k)
			continue
		}
		out[k] = kept.Matched.Load()
	}
	return out
}

// PolicyMatches returns how many requests each AuthorizationPolicy has matched.
func (p *Proxy) PolicyMatches() map[telemetry.Policy]uint64 {
	inUse := map[telemetry.Policy]bool{}
	t := p.table.Load()
	for _, t := range []*table{t, t.trialTable()} {
		if t != nil {
			for _, policy := range mesh.AuthorizationOf(t.snapshot.Node, t.snapshot.Config.AuthorizationPolicies) {
				inUse[tallied(policy)] = true
			}
		}
	}
	return p.tallies.list(inUse)
}
