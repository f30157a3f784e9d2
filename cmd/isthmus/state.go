package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"isthmus/admin"
	"isthmus/canary"
	"isthmus/config"
	"isthmus/history"
	"isthmus/mesh"
	"isthmus/proxy"
	"isthmus/telemetry"
)

// The methods of admin.State: server brings together what the packages know.

// Status implements admin.State.
func (s *server) Status() admin.Status {
	c := s.control.Status()
	out := admin.Status{
		Ready: c.Ready, Reason: c.Reason, Node: s.node.Member(), Version: version().Version,
		Snapshot:  admin.Snapshot{Number: c.Snapshot.Number, Hash: c.Snapshot.Hash, Age: c.Snapshot.Age, Error: c.Snapshot.Error, Revision: c.Snapshot.Revision, Rollback: c.Snapshot.Rollback},
		Warnings:  c.Warnings,
		Endpoints: c.Endpoints.Total, EndpointsReady: c.Endpoints.Ready,
		Listeners: s.proxy.Addresses(),
	}
	if t := s.Canary(); t.State != canary.None || t.Why != "" {
		out.Canary = t.String()
	}
	for name, a := range s.listening {
		out.Listeners[name] = a
	}
	if id := s.identity.Identity(); id != nil {
		out.Identity, out.IdentityEnds = id.ID, id.NotAfter.UTC().Format(time.RFC3339)
	}
	if s.gossip != nil {
		out.Listeners["gossip"] = s.gossip.Address()
		out.Members = len(s.gossip.Members())
	}
	return out
}

// Certificates implements admin.State.
func (s *server) Certificates() []admin.Certificate {
	var out []admin.Certificate
	add := func(c admin.Certificate, err error) {
		if c.Usable = err == nil; err != nil {
			c.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		out = append(out, c)
	}
	if own, ok := s.identity.Status(); ok {
		add(admin.Certificate{Name: "identity", Ends: own.NotAfter, Reloads: own.Reloads}, own.Err)
		add(admin.Certificate{Name: "root", Ends: own.RootEnds}, own.Err)
	}
	for _, c := range s.store.Status() {
		add(admin.Certificate{Name: c.Name, Ends: c.NotAfter, List: c.List}, c.Err)
	}
	return out
}

// Gossip implements admin.State.
func (s *server) Gossip() *admin.Gossip {
	if s.gossip == nil {
		return nil
	}
	st := s.gossip.Stats()
	out := &admin.Gossip{Own: s.node.Cluster, Records: st.Records, Behind: st.Behind, Queued: st.Queued, Dropped: st.Dropped, Health: st.Health, Clusters: map[string]admin.Distance{}}
	for cluster, d := range st.Clusters {
		out.Clusters[cluster] = admin.Distance{RoundTrip: d.RoundTrip, Age: time.Since(d.Heard)}
	}
	return out
}

// Endpoints implements admin.State: what the snapshot says, and what the proxy
// has found out by itself, which outranks it.
func (s *server) Endpoints() []admin.Endpoint {
	ejected := map[mesh.EndpointKey]string{}
	for _, h := range s.proxy.HostStates() {
		if !h.Healthy {
			ejected[h.Key] = h.Reason
		}
	}
	list := s.control.Snapshot().Registry.All()
	out := make([]admin.Endpoint, len(list))
	for i, e := range list {
		reason := e.Unready
		if r := ejected[e.Key()]; r != "" {
			reason = r
		}
		labels := e.Labels
		if labels == nil {
			labels = map[string]string{}
		}
		out[i] = admin.Endpoint{
			Service: e.Service, Port: e.Port.Number, Address: e.Address.String(), Cluster: e.Cluster, Locality: e.Locality.String(),
			Healthy: reason == "", Reason: reason, Source: string(e.Source), Owner: e.Owner, Weight: e.Weight, Labels: labels, Hostname: e.Pod(),
			Identity: e.Identity, Age: time.Since(e.Since).Seconds(),
		}
	}
	return out
}

// Members implements admin.State.
func (s *server) Members() []admin.Member {
	out := []admin.Member{}
	if s.gossip != nil {
		digests := s.gossip.Digests()
		for _, m := range s.gossip.Members() {
			told, ok := digests[m.Name]
			out = append(out, admin.Member{
				Name: m.Name, Cluster: m.Cluster, Locality: m.Locality, Address: m.Address, State: m.State, Version: m.Version, Digest: toldBy(told, ok),
			})
		}
	}
	return out
}

// Routes implements admin.State.
func (s *server) Routes() []admin.Route {
	out := []admin.Route{}
	for _, r := range s.proxy.Routes() {
		out = append(out, admin.Route{
			Listener: r.Listener, Host: r.Host, Name: r.Name, Match: r.Match, Source: r.Source, Destinations: destinations(r.Destinations),
		})
	}
	return out
}

func destinations(list []proxy.DestinationInfo) []admin.Destination {
	out := make([]admin.Destination, len(list))
	for i, d := range list {
		out[i] = admin.Destination(d)
	}
	return out
}

// Hosts implements admin.State.
func (s *server) Hosts() []admin.Host {
	out := []admin.Host{}
	for _, h := range s.proxy.HostStates() {
		out = append(out, admin.Host{Upstream: h.Upstream, Address: h.Address.String(), Healthy: h.Healthy, Reason: h.Reason, Active: h.Active})
	}
	return out
}

// Probes implements admin.State.
func (s *server) Probes() []admin.ProbeCount {
	n := s.control.Probes()
	return []admin.ProbeCount{
		{Of: "workload", Result: "success", Count: n.WorkloadsSucceeded}, {Of: "workload", Result: "failure", Count: n.WorkloadsFailed},
		{Of: "endpoint", Result: "success", Count: n.EndpointsSucceeded}, {Of: "endpoint", Result: "failure", Count: n.EndpointsFailed},
	}
}

// ConfigDump implements admin.State.
func (s *server) ConfigDump() any {
	snap := s.control.Snapshot()
	return map[string]any{
		"bootstrap": s.bootstrap, "node": s.node,
		"snapshot":  map[string]any{"number": snap.Number, "time": snap.Time, "hash": snap.Config.Hash},
		"config":    snap.Config,
		"endpoints": s.Endpoints(),
		"routes":    s.Routes(),
	}
}

// Why implements admin.State.
func (s *server) Why(id string) []telemetry.Trouble { return s.proxy.Why(id) }

// Troubles implements admin.State.
func (s *server) Troubles(n int) []telemetry.Trouble { return s.proxy.Troubles(n) }

// History implements admin.State.
func (s *server) History() []history.Revision { return s.history.List() }

// Diff implements admin.State.
func (s *server) Diff(from, to uint64) (*history.Difference, error) { return s.history.Diff(from, to) }

// Rollback implements admin.State.
func (s *server) Rollback(ctx context.Context, to uint64) (history.Revision, error) {
	if err := s.handing.decide(); err != nil {
		return history.Revision{}, err
	}
	return s.control.Rollback(ctx, to)
}

// Findings implements admin.State: what the files say, and what this proxy has
// measured that does not go with it.
func (s *server) Findings() []admin.Finding {
	out := []admin.Finding{}
	for _, f := range slices.Concat(s.control.Findings(), s.hurried()) {
		out = append(out, admin.Finding{
			File: f.File, Line: f.Line, Severity: f.Severity.String(), Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, Field: f.Field, Message: f.Message, Code: string(f.Code),
		})
	}
	return out
}

// hurried are findings of connect time-outs that are too short for the links that
// they hold for.
func (s *server) hurried() (out []config.Finding) {
	clusters := map[string]time.Duration{}
	if s.gossip != nil {
		for cluster, d := range s.gossip.Stats().Clusters {
			clusters[cluster] = d.RoundTrip
		}
	}
	for _, h := range s.proxy.Hurried(clusters) {
		out = append(out, config.Finding{
			File: h.Source.File, Line: h.Source.Line, Severity: config.Warning, Kind: "DestinationRule", Field: "connectionPool.tcp.connectTimeout", Code: config.ISM0048,
			Message: fmt.Sprintf("%v is less than connecting to %s takes (%s of %s): %v, by a round trip of %v as measured; every attempt fails there: write 1s or more",
				h.Timeout, h.Place.Cluster, cmp.Or(h.Place.Locality, "an endpoint"), h.Host, h.Takes.Round(time.Millisecond/10), h.RoundTrip.Round(time.Millisecond/10)),
		})
	}
	slices.SortFunc(out, func(a, b config.Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
	return out
}

// Canary implements admin.State.
func (s *server) Canary() admin.Canary {
	c := s.control.Candidate()
	out := admin.Canary{
		State: c.State, Hash: c.Hash, Why: c.Why, Percent: c.Percent, Stage: c.Stage, Stages: c.Stages, Changes: c.Changes,
		Candidate: admin.NewSide(c.Candidate), Current: admin.NewSide(c.Current), Compare: c.Seen,
	}
	if c.State != canary.None {
		out.Age = time.Since(c.Since).Seconds()
	}
	return out
}

// steerTimeout bounds how long an operator waits for what was decided to hold.
const steerTimeout = 5 * time.Second

// Steer implements admin.State: who is told that it is done finds it so.
func (s *server) Steer(do string) error {
	if err := s.handing.decide(); err != nil {
		return err
	}
	if err := s.control.Steer(do); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), steerTimeout)
	defer cancel()
	s.control.AwaitSteered(ctx)
	if c := s.control.Candidate(); do == "promote" && c.State == canary.Returned {
		return errors.New(c.Why) // the data plane does not take it
	}
	return nil
}

// LogLevel implements admin.State.
func (s *server) LogLevel() *slog.LevelVar { return s.level }

// Reload implements admin.State.
func (s *server) Reload() { s.control.Reload() }

// Drain implements admin.State: the proxy is no longer ready, and tells the
// others, but goes on serving who comes all the same.
func (s *server) Drain() error {
	if err := s.handing.decide(); err != nil {
		return err
	}
	s.control.Drain()
	s.leaveOnce.Do(func() { close(s.leaving) })
	return nil
}

// Quit implements admin.State: as SIGTERM.
func (s *server) Quit() error {
	return s.handing.unlessOver(func() { s.quitOnce.Do(func() { close(s.quit) }) })
}
