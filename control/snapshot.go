package control

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"isthmus/health"
	"isthmus/mesh"
)

// update publishes a snapshot of what is known now, if it differs from the one
// before.
func (c *Controller) update() error {
	c.mu.Lock()
	last := c.snapshot
	c.mu.Unlock()
	if c.gossip != nil && last != nil && last.Config == c.config {
		c.gossip.Announce(c.announcements()) // nothing is promised that is not in force
	}
	now := time.Now()
	c.probes.goBy(c.config)
	workloads := probedWorkloads(c.options.Node, c.config)
	application, probed := c.probes.health(workloads)
	announced, suspects := c.announced(now, application)
	known := mesh.Known{
		Node: c.options.Node, Config: c.config,
		Announced: announced, Addresses: c.dns.answers(), Probed: probed, Now: now,
	}
	if last != nil {
		known.Previous = last.Registry
		known.Unreachable = c.probes.unreachable(last.Registry)
	}
	reg := mesh.NewRegistry(known)
	unresolved := reg.Unresolved()
	candidate := c.candidate(known, reg)
	if candidate != nil {
		unresolved = slices.Concat(unresolved, candidate.Registry.Unresolved())
	}
	follow := func() {
		c.dns.watch(unresolved)
		c.probes.watch(workloads, suspects, reg)
	}
	if last != nil && last.Config == c.config && sameEndpoints(last.Registry, reg) && reflect.DeepEqual(last.Application, application) && sameCandidate(last.Candidate, candidate) {
		follow()
		return nil
	}
	s := &mesh.Snapshot{
		Number: 1, Time: now, Node: c.options.Node, Config: c.config, Registry: reg, Rules: mesh.NewRules(c.options.Node, c.config.DestinationRules),
		Application: application, Candidate: candidate,
	}
	if last != nil {
		s.Number = last.Number + 1
	}
	if err := c.options.Publish(s); err != nil {
		return err // who stays in force keeps the addresses that DNS has given it
	}
	follow()
	c.mu.Lock()
	c.snapshot = s
	c.mu.Unlock()
	if c.gossip != nil {
		c.Wake() // what is announced follows from the snapshot
	}
	c.log.Info("snapshot published", "number", s.Number, "config", s.Config.Hash, "endpoints", len(reg.All()))
	return nil
}

// sameEndpoints compares by pointer: a registry keeps those that are equal.
func sameEndpoints(a, b *mesh.Registry) bool {
	return slices.Equal(a.All(), b.All()) && reflect.DeepEqual(a.Services(), b.Services())
}

// announced is what gossip knows, with what probing has found out of members
// that died, and this proxy's own endpoints. suspects are the endpoints of
// members that died.
func (c *Controller) announced(now time.Time, application *mesh.Health) (out []mesh.Endpoint, suspects []health.Subject) {
	if c.gossip == nil {
		own := c.ownEndpoints(application)
		for i := range own {
			own[i].Source = mesh.SourceFile
		}
		return own, nil
	}
	for _, a := range c.gossip.Endpoints() {
		if !a.OwnerDead {
			out = append(out, a.Endpoint)
			continue
		}
		s := c.probes.subjectOf(&a.Endpoint)
		suspects = append(suspects, s)
		switch state := c.probes.endpoints.State(s); {
		case state.Failing != "" && now.Sub(state.Since) > dropAfter:
			continue
		case state.Failing != "":
			a.Unready = fmt.Sprintf("%s died; %s", a.Owner, state.Failing)
		case !state.Known && a.OwnerGone > dropAfter:
			// Who has known it that long has dropped it by now, unless it answers.
			a.Unready = a.Owner + " died long ago; not looked at yet"
		}
		out = append(out, a.Endpoint)
	}
	return out, suspects
}
