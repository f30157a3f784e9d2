package proxy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"isthmus/mesh"
	"isthmus/ratelimit"
)

// limitChain is what limits the requests of a virtual host or of a route, in
// the order of the filters. Nil: nothing.
type limitChain struct {
	limits []limiter
}

// limiter is one rate limit as it holds for a virtual host or a route: exactly
// one of local and global is set.
type limiter struct {
	local  *ratelimit.Local
	global *globalLimit

	actions []*mesh.RateLimitAction // what requests are counted by
	refusal *limitReply             // as far as it is the same for all
	info    *limitInfo
}

// globalLimit is a global rate limit with who decides on it.
type globalLimit struct {
	rule   *mesh.GlobalRateLimit
	domain string
	asker  limitAsker // nil: nobody
	nobody error      // says so
	counts *ratelimit.Counts

	// byDefault: nothing says what requests are counted by, so they are counted
	// as one, and by where they go.
	byDefault bool
}

// limitAsker says whether a request with descriptors may pass.
type limitAsker interface {
	Ask(timeout time.Duration, domain string, d *ratelimit.Descriptors) (ratelimit.Verdict, error)
	State() string
}

// limitInfo says where a limit comes from and where it holds.
type limitInfo struct {
	key    string // what it is kept by from snapshot to snapshot
	filter *mesh.RateLimitFilter
	source mesh.Source
	where  string       // host or route; "": all
	bucket *mesh.Bucket // of all requests; nil: there is none
}

// limitCompiler makes the chains of one table.
type limitCompiler struct {
	*table
	node    *mesh.Node
	filters []*mesh.RateLimitFilter
	patches []*mesh.RoutePatch
	kept    map[string]*limiter // of the tables before, by key
	made    map[string]*limiter
}

// compileLimits gives every virtual host and route of a table its limits. Their
// buckets and counters live on from the tables before, of which the last wins, as
// long as the rules stay the same, so that a new snapshot does not fill them, and
// a candidate that says the same shares them. The services that it asks
// are entered into services. The caller holds mu.
func (p *Proxy) compileLimits(t *table, services map[string]*ratelimit.Service, before ...*table) {
	t.askers = p.limitServices(t.snapshot, services)
	l := &limitCompiler{table: t, node: t.snapshot.Node, kept: map[string]*limiter{}, made: map[string]*limiter{}}
	for _, b := range before {
		if b != nil {
			maps.Copy(l.kept, b.limits)
		}
	}
	l.filters = limitFilters(t.snapshot)
	if len(l.filters) == 0 {
		return
	}
	for _, p := range t.snapshot.Config.RoutePatches {
		if p.AppliesTo(l.node) {
			l.patches = append(l.patches, p)
		}
	}
	byPlace(l.patches, l.node, func(p *mesh.RoutePatch) (*mesh.FilterScope, int32) { return &p.FilterScope, p.Priority })
	t.eachVirtualHost(l.compileHost)
	t.limits = l.made
}

// compileHost gives a virtual host and its routes their limits.
func (l *limitCompiler) compileHost(kind listenerKind, vh *virtualHost) {
	var filters []*mesh.RateLimitFilter
	for _, f := range l.filters {
		if holds(&f.FilterScope, kind) && atPort(f.Port, vh) {
			filters = append(filters, f)
		}
	}
	if len(filters) == 0 {
		return
	}
	var ofHost, ofRoutes []*mesh.RoutePatch
	for _, p := range l.patches {
		switch {
		case !holds(&p.FilterScope, kind) || !l.matchesHost(p, kind, vh):
		case p.Routes:
			ofRoutes = append(ofRoutes, p)
		default:
			ofHost = append(ofHost, p)
		}
	}
	at := limitPlace{host: ofHost}
	if len(ofHost) > 0 {
		at.hostName = fmt.Sprintf("%s:%d", vh.name, vh.port)
	}
	vh.limits = l.chain(filters, at)
	for _, r := range vh.routes {
		at.route, at.routeName = nil, ""
		for _, p := range ofRoutes {
			if matchesRoute(p, r) {
				at.route = append(at.route, p)
			}
		}
		if len(at.route) > 0 {
			at.routeName = fmt.Sprintf("%s:%d %s", vh.name, vh.port, r.name)
			if at.routeKey = at.routeName; r.rule.Name == "" && r.of != nil { // whose name are its lines, which move
				at.routeKey = fmt.Sprintf("%s:%d %s/%s %d", vh.name, vh.port, r.of.Namespace, r.of.Name, r.nth)
			}
			r.limits = l.chain(filters, at)
		}
	}
}

// limitPlace is where a chain holds: what patches say of the virtual host and of
// the route.
type limitPlace struct {
	host, route         []*mesh.RoutePatch
	hostName, routeName string
	routeKey            string // what the limits of the route are kept by
}

// chain makes the limits of a place; nil if there are none.
func (l *limitCompiler) chain(filters []*mesh.RateLimitFilter, at limitPlace) *limitChain {
	c := &limitChain{}
	for _, f := range filters {
		var one *limiter
		if f.Local != nil {
			one = l.local(f, at)
		} else {
			one = l.global(f, at)
		}
		if one != nil {
			c.limits = append(c.limits, *one)
		}
	}
	if len(c.limits) == 0 {
		return nil
	}
	return c
}

// local makes a local limit as it holds at a place: what the route says of the
// filter, else what the virtual host does, else the filter.
func (l *limitCompiler) local(f *mesh.RateLimitFilter, at limitPlace) *limiter {
	rule, where, place := f.Local, "", ""
	for _, p := range at.host {
		if r := p.Local[f.Filter]; r != nil {
			rule, where, place = r, at.hostName, at.hostName
		}
	}
	for _, p := range at.route {
		if r := p.Local[f.Filter]; r != nil {
			rule, where, place = r, at.routeName, at.routeKey
		}
	}
	if rule.Bucket == nil && len(rule.Descriptors) == 0 {
		return nil
	}
	info := &limitInfo{filter: f, source: rule.Source, where: where, bucket: rule.Bucket}
	same := *rule
	same.Source, same.Actions = mesh.Source{}, nil
	one := l.keep(info, place, same, func() *limiter {
		return &limiter{local: ratelimit.NewLocal(rule), info: info, refusal: localRefusal(rule)}
	})
	if len(rule.Descriptors) > 0 {
		withActions := *one
		withActions.actions = actionsOf(rule.Actions, nil, rule.VirtualHost, rule.Stage, at)
		return &withActions
	}
	return one
}

// global makes a global limit as it holds at a place.
func (l *limitCompiler) global(f *mesh.RateLimitFilter, at limitPlace) *limiter {
	g := &globalLimit{rule: f.Global, domain: f.Global.Domain, asker: l.askers[f.Global.Cluster]}
	var own *mesh.GlobalOverride
	for _, list := range [][]*mesh.RoutePatch{at.host, at.route} {
		for _, p := range list {
			if o := p.Global[f.Filter]; o != nil {
				own = o
			}
		}
	}
	fromRoute, vh := []*mesh.RateLimitAction(nil), mesh.VirtualHostOverride
	if own != nil {
		fromRoute, vh = own.Actions, own.VirtualHost
		g.domain = cmp.Or(own.Domain, g.domain)
	}
	info := &limitInfo{filter: f, source: f.Global.Source}
	same := *f.Global
	same.Source, same.Actions = mesh.Source{}, nil
	one := l.keep(info, "", same, func() *limiter {
		return &limiter{global: &globalLimit{counts: &ratelimit.Counts{}}, info: info, refusal: globalRefusal(f.Global)}
	})
	g.counts = one.global.counts
	g.byDefault = !l.counted(f)
	if g.asker == nil {
		g.nobody = fmt.Errorf("rate limit service %s: no address is known of it, and there is no rateLimits.config", f.Global.Cluster)
	}
	return &limiter{
		global: g, info: info, refusal: one.refusal,
		actions: actionsOf(f.Global.Actions, fromRoute, vh, f.Global.Stage, at),
	}
}

// keep returns the limiter of a rule at a place, "" for every one: the one made for this table or
// the one before, if there is one.
func (l *limitCompiler) keep(info *limitInfo, place string, rule any, create func() *limiter) *limiter {
	text, err := json.Marshal(rule) // which has no other pointers than to values
	if err != nil {
		panic("a rate limit always encodes: " + err.Error())
	}
	f := info.filter
	nth := 0 // of the filters that its EnvoyFilter inserts; lines move
	for _, other := range l.filters {
		if other == f {
			break
		}
		if other.Namespace == f.Namespace && other.Name == f.Name {
			nth++
		}
	}
	info.key = fmt.Sprintf("%s/%s %d %s %s %s", f.Namespace, f.Name, nth, f.Filter, place, text)
	one := l.made[info.key]
	if one == nil {
		if one = create(); l.kept[info.key] != nil {
			one.adopt(l.kept[info.key])
		}
		l.made[info.key] = one
	}
	return one
}

// adopt takes over what outlives snapshots.
func (l *limiter) adopt(before *limiter) {
	if l.local != nil {
		l.local.Adopt(before.local)
		return
	}
	l.global.counts = before.global.counts
}

// counted reports whether anything says what requests of a filter are counted
// by.
func (l *limitCompiler) counted(f *mesh.RateLimitFilter) bool {
	if len(f.Global.Actions) > 0 {
		return true
	}
	return slices.ContainsFunc(l.patches, func(p *mesh.RoutePatch) bool {
		o := p.Global[f.Filter]
		return f.Shares(&p.FilterScope) && (len(p.Actions) > 0 || o != nil && len(o.Actions) > 0)
	})
}

// actionsOf returns the actions of a stage that hold at a place: those of the
// route's settings of the filter, else the filter's own, else the route's with,
// or in the place of, the virtual host's.
func actionsOf(filter, settings []*mesh.RateLimitAction, vh mesh.VirtualHostLimits, stage uint32, at limitPlace) (out []*mesh.RateLimitAction) {
	add := func(list []*mesh.RateLimitAction) {
		for _, a := range list {
			if a.Stage == stage {
				out = append(out, a)
			}
		}
	}
	switch {
	case len(settings) > 0:
		add(settings)
	case len(filter) > 0:
		add(filter)
	default:
		for _, p := range at.route {
			add(p.Actions)
			if p.IncludeVirtualHost {
				vh = mesh.VirtualHostInclude
			}
		}
		if vh == mesh.VirtualHostInclude || vh == mesh.VirtualHostOverride && len(out) == 0 {
			for _, p := range at.host {
				add(p.Actions)
			}
		}
	}
	return out
}
