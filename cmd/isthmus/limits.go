package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"isthmus/admin"
	"isthmus/config"
	"isthmus/gossip"
	"isthmus/mesh"
	"isthmus/proxy"
	"isthmus/ratelimit"
	"isthmus/rpc"
)

// limitPeers are the other proxies, as limits that all keep together see them.
type limitPeers struct {
	name   string
	gossip atomic.Pointer[gossip.Gossip] // nil: there is none, or not yet
}

// Self, Others and Send implement ratelimit.Peers.
func (p *limitPeers) Self() string { return p.name }

func (p *limitPeers) Others() []string {
	if g := p.gossip.Load(); g != nil {
		return g.Talkers()
	}
	return nil
}

func (p *limitPeers) Send(to string, message []byte) {
	if g := p.gossip.Load(); g != nil {
		g.Talk(to, message)
	}
}

// makeLimits reads the limits that this proxy keeps with the others; none if the
// bootstrap file has no section rateLimits.
func (s *server) makeLimits() error {
	if s.bootstrap.RateLimits == (config.RateLimits{}) {
		return nil
	}
	s.limitFile = config.See([]string{s.bootstrap.RateLimits.Config})
	rules, err := loadLimits(s.bootstrap.RateLimits.Config, s.log)
	if err != nil {
		return err
	}
	s.peers = &limitPeers{name: s.node.Member()}
	s.limits = ratelimit.NewShared(s.peers)
	s.limits.SetRules(rules)
	return nil
}

// joinLimits has gossip carry what proxies say to each other of limits.
func (s *server) joinLimits(o *gossip.Options) {
	if s.limits == nil {
		return
	}
	changed := o.OnChange
	o.OnChange = func() {
		changed()
		s.limits.PeersChanged()
	}
	o.OnTalk = func(from string, message []byte) {
		if err := s.limits.Receive(from, message); err != nil {
			s.log.Debug("gossip message of rate limits", "from", from, "error", err)
		}
	}
}

// know has the limits talk to the others.
func (p *limitPeers) know(g *gossip.Gossip, limits *ratelimit.Shared) {
	if p == nil {
		return
	}
	p.gossip.Store(g)
	limits.PeersChanged()
}

func loadLimits(file string, log *slog.Logger) (*ratelimit.Rules, error) {
	if file == "" {
		return ratelimit.NewRules(nil), nil
	}
	domains, warnings, err := config.LoadLimits(file)
	for _, w := range warnings {
		log.Warn(w)
	}
	return ratelimit.NewRules(domains), err
}

// followLimits takes new limits over when their file changes, and serves the
// protocol.
func (s *server) followLimits(ctx context.Context) {
	if s.limits == nil {
		return
	}
	s.serveLimits()
	file := s.bootstrap.RateLimits.Config
	if file == "" {
		return
	}
	config.Watch(ctx, []string{file}, s.limitFile, func() {
		rules, err := loadLimits(file, s.log)
		if err != nil {
			s.log.Error("the new rate limits are not used", "error", err)
			return
		}
		s.limits.SetRules(rules)
		s.log.Info("rate limits read anew", "limits", len(s.limits.Rules()))
	})
}

// serveLimits serves the rate limit service's protocol.
func (s *server) serveLimits() {
	l := s.page("ratelimit")
	if l == nil {
		return
	}
	hs := rpc.NewServer(s.limits.Methods())
	hs.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	s.admin = append(s.admin, hs)
	go hs.Serve(l) // ends with hs.Close
}

// Limits implements admin.State: the filters' limits, then those that the proxies
// keep together.
func (s *server) Limits() []admin.Limit {
	out := []admin.Limit{}
	for _, l := range s.proxy.Limits() {
		out = append(out, filterLimit(&l))
	}
	if s.limits == nil {
		return out
	}
	state, proxies := s.limits.State(), s.limits.Peers()
	for _, r := range s.limits.Rules() {
		one := admin.Limit{
			Name: r.Domain + " " + r.Path, Kind: "rule", Source: r.Source.String(), Listeners: []string{}, Domain: r.Domain,
			State: state, Proxies: proxies, Shadow: r.Shadow, Buckets: []admin.Bucket{},
			Allowed: r.Counts.Allowed.Load(), Limited: r.Counts.Limited.Load(), Refused: r.Counts.Limited.Load(), WouldRefuse: r.Counts.Shadow.Load(),
		}
		if !r.Limit.Unlimited {
			one.Buckets = append(one.Buckets, admin.Bucket{Descriptor: r.Path, Limit: r.Limit.Requests, PerFill: r.Limit.Requests, Interval: r.Limit.Unit.Span().Seconds(), Shadow: r.Shadow})
		}
		out = append(out, one)
	}
	return out
}

func filterLimit(l *proxy.LimitState) admin.Limit {
	one := admin.Limit{
		Name: l.Name, Kind: l.Kind, Source: l.Source, Listeners: l.Listen, Where: l.Where, Domain: l.Domain, Service: l.Service, State: l.State, Candidate: l.Trial, Off: l.Off,
		Buckets: []admin.Bucket{}, Allowed: l.Allowed, Limited: l.Limited, Refused: l.Enforced, WouldRefuse: l.Shadow, Failed: l.Failed,
	}
	for _, b := range l.Buckets {
		bucket := admin.Bucket{
			Descriptor: b.Descriptor, Limit: b.Bucket.MaxTokens, PerFill: b.Bucket.TokensPerFill, Interval: b.Bucket.FillInterval.Seconds(), Shadow: b.Shadow, PerConnection: b.PerConnection,
		}
		if !b.PerConnection {
			remaining := b.Tokens
			bucket.Remaining = &remaining
		}
		one.Buckets = append(one.Buckets, bucket)
	}
	return one
}

func newLimitsCommand() *cobra.Command {
	return look("limits", "Show the rate limits of a running proxy", "/limits", admin.WriteLimits)
}

// checkLimitsFile judges the limits that a bootstrap file names.
func checkLimitsFile(b *config.Bootstrap, warn func(string)) error {
	if b.RateLimits.Config == "" {
		return nil
	}
	_, warnings, err := config.LoadLimits(b.RateLimits.Config)
	for _, w := range warnings {
		warn(w)
	}
	return err
}

// judgeLimits says which global rate limits nobody would decide on, as far as the
// files say.
func judgeLimits(c *mesh.Config, b *config.Bootstrap) (out []config.Finding) {
	if b.RateLimits != (config.RateLimits{}) {
		return nil // else all proxies together
	}
	node := b.MeshNode()
	s := &mesh.Snapshot{Node: node, Config: c, Registry: mesh.NewRegistry(mesh.Known{Node: node, Config: c, Now: time.Now()})}
	for _, f := range proxy.Undecided(s, b.Clusters) {
		effect := "every request passes"
		if f.Global.FailureDeny > 0 {
			effect = fmt.Sprintf("requests get %d", f.Global.StatusOnError)
		}
		out = append(out, config.Finding{
			File: f.Global.Source.File, Line: f.Global.Source.Line, Severity: config.Warning, Kind: f.Kind, Namespace: f.Namespace, Name: f.Name, Field: "rate_limit_service",
			Message: fmt.Sprintf("no address is known of %s, so nobody decides and %s: name it in clusters of the bootstrap file, in a CLUSTER patch or as a host of a ServiceEntry, or give rateLimits.config", f.Global.Cluster, effect),
			Code:    config.ISM0067,
		})
	}
	return out
}
