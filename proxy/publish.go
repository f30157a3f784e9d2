package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"isthmus/extauthz"
	"isthmus/mesh"
	"isthmus/ratelimit"
	"isthmus/telemetry"
)

// Publish compiles a snapshot, opens the gateway ports that it newly needs and
// lets requests have it. On an error nothing changes: requests go on with the
// snapshot before.
func (p *Proxy) Publish(s *mesh.Snapshot) error {
	t, candidate := compile(s, p.options), compileTrial(s, p.options)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("the proxy has been closed")
	}
	opened, heirs, err := p.openGateways(s)
	if err != nil {
		for _, name := range opened {
			p.closeListener(name)
		}
		return err
	}
	old := p.table.Load()
	t.inherit(heirs, old)
	if candidate != nil {
		candidate.heirs = t.heirs
	}
	askers := map[string]*extauthz.Asker{}
	t.access = p.compileAccess(s, askers)
	if candidate != nil {
		candidate.access = p.compileAccess(candidate.snapshot, askers)
	} else {
		p.endTrial(t)
	}
	p.askers.keep(askers, &p.mu)
	t.tracing = p.compileTracing(s)
	p.useMetrics(t)
	if candidate != nil {
		candidate.tracing, candidate.tags = t.tracing, t.tags
	}
	p.carryOver(t)
	if old != nil {
		t.keepTerminators(old)
	}
	services := map[string]*ratelimit.Service{}
	p.compileLimits(t, services, old.trialTable(), old)
	if candidate != nil {
		p.compileLimits(candidate, services, old.trialTable(), t)
	}
	p.services.keep(services, &p.mu)
	if candidate != nil {
		p.try(t, candidate)
	}
	p.table.Store(t)
	if old == nil {
		close(p.begun)
	}
	select {
	case p.published <- struct{}{}:
	default: // the sweeper will see the newest
	}
	p.keys.Retain(t.tokens(), candidate.tokens())
	p.forgetReach(t)
	p.closeGateways(s)
	for _, l := range p.listeners {
		l.expectSilence(l.kind == gateway && t.gateways[l.port].raw())
		if !p.held {
			l.begin()
		}
	}
	return nil
}

// carryOver makes anew, in the new table, every upstream that the old one had
// in use, so that hosts and connections live on. The caller holds mu.
func (p *Proxy) carryOver(t *table) {
	kept := map[upstreamKey]*upstream{}
	var gone []*upstream
	for k, old := range p.upstreams {
		if target := t.targets[k]; target != nil {
			u := newUpstream(target, &p.options, t.caller, old)
			target.upstream.Store(u)
			kept[k] = u
			continue
		}
		old.close()
		gone = append(gone, old)
	}
	p.upstreams = kept
	bequeath(gone, kept)
}

// bequeath gives what upstreams that are gone have counted to those of the same name
// that stay, which metrics show as one: counters never step back.
func bequeath(gone []*upstream, kept map[upstreamKey]*upstream) {
	if len(gone) == 0 {
		return
	}
	byName := make(map[string]*upstream, len(kept))
	for _, u := range kept {
		if u.known {
			byName[u.live.name] = u
		}
	}
	for _, old := range gone {
		if heir := byName[old.live.name]; heir != nil && old.known {
			heir.live.stats.Add(&old.live.stats)
			heir.tracker.Inherit(old.tracker)
			if from, to := old.live.room, heir.live.room; from != nil && to != nil {
				to.Inherit(from)
			}
		}
	}
}

// makeUpstream makes the upstream of a target that is used for the first time. A
// request of a table before gets what the table in force has of the same key: an
// upstream takes its hosts and connections over, so there is one way only, from
// table to table.
func (p *Proxy) makeUpstream(of *table, t *target) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := t.upstream.Load(); u != nil {
		return u
	}
	inForce := p.table.Load()
	var u *upstream
	trial := inForce.trialTable()
	switch {
	case of.candidate && trial != nil && trial.targets[t.key] != nil:
		u = p.candidateUpstream(inForce, trial, trial.targets[t.key])
	case inForce.targets[t.key] != nil:
		u = p.ownUpstream(inForce, inForce.targets[t.key])
	case p.upstreams[t.key] != nil:
		u = p.upstreams[t.key]
	default: // gone already: the next table ends it
		u = newUpstream(t, &p.options, of.caller, nil)
		p.upstreams[t.key] = u
	}
	t.upstream.Store(u)
	return u
}

// askedUpstream returns what the upstream of a target would be that no request has come
// for. It is for whoever only asks what would become of one: it goes with the table, and
// what it would count is not shown.
func (p *Proxy) askedUpstream(of *table, t *target) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := cmp.Or(t.upstream.Load(), of.asked[t]); u != nil {
		return u
	}
	o := p.options
	o.stores = newStores(o.Node, func(func(*telemetry.Requests)) {}, func(func(*telemetry.Connections)) {}, func(func(*telemetry.Link)) {})
	u := newUpstream(t, &o, of.caller, nil)
	if of.asked == nil {
		of.asked = map[*target]*upstream{}
	}
	of.asked[t] = u
	return u
}

// ownUpstream returns the upstream of a target of the table in force, made if need
// be. The caller holds mu.
func (p *Proxy) ownUpstream(inForce *table, t *target) *upstream {
	u := t.upstream.Load()
	if u == nil {
		u = newUpstream(t, &p.options, inForce.caller, p.upstreams[t.key])
		t.upstream.Store(u)
		p.upstreams[t.key] = u
	}
	return u
}

func gatewayName(port uint32) string { return "gateway:" + strconv.FormatUint(uint64(port), 10) }

// openGateways opens the ports that a snapshot needs and that are not open,
// and returns the names of those, and which of them has taken over from which port that
// goes. The caller holds mu.
func (p *Proxy) openGateways(s *mesh.Snapshot) (opened []string, heirs map[uint32]uint32, err error) {
	heirs = map[uint32]uint32{}
	if p.options.GatewayBind == "" || p.shut.Load() {
		return nil, heirs, nil // nobody is, or would be, accepted there
	}
	ports := gatewayPorts(s)
	for _, port := range ports {
		name := gatewayName(port)
		if p.listeners[name] != nil {
			continue
		}
		bound := port
		if b, ok := p.options.GatewayPorts[port]; ok {
			bound = b
		}
		address := net.JoinHostPort(p.options.GatewayBind, strconv.FormatUint(uint64(bound), 10))
		if from := p.leaving(address, ports); from != nil && bound != 0 {
			err = p.takeOver(name, port, from)
			heirs[from.port] = port
		} else {
			err = p.listenLocked(name, address, gateway, port)
		}
		if err != nil {
			return opened, heirs, fmt.Errorf("open port %d of a Gateway: %w", port, err)
		}
		opened = append(opened, name)
	}
	return opened, heirs, nil
}

// leaving returns the listener of a Gateway's port that goes, at an address; nil: there is
// none, or another one has it. ports are those that stay, or come. The caller holds mu.
func (p *Proxy) leaving(address string, ports []uint32) (from *listener) {
	for _, l := range p.listeners {
		switch {
		case l.wanted != address:
		case l.kind != gateway || slices.Contains(ports, l.port):
			return nil
		default:
			from = l
		}
	}
	return from
}

// closeGateways closes the ports that a snapshot no longer wants. The caller
// holds mu.
func (p *Proxy) closeGateways(s *mesh.Snapshot) {
	want := map[string]bool{}
	for _, port := range gatewayPorts(s) {
		want[gatewayName(port)] = true
	}
	for name, l := range p.listeners {
		if l.kind != gateway || want[name] {
			continue
		}
		p.closeListener(name)
		for _, heir := range p.listeners {
			if heir.address == l.address { // see takeOver
				l.part()
			}
		}
	}
}
