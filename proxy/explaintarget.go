package proxy

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"isthmus/balancer"
	"isthmus/explain"
	"isthmus/mesh"
)

// explainDestinations lists where the route sends to, with what each destination
// gets as things are. It picks an endpoint for each, as forward would; the kind
// is NoError if that works for one of them.
func (x *exchange) explainDestinations(e *explain.Explanation) Kind {
	a := &x.route.action
	if len(a.destinations) == 0 {
		e.Notes = append(e.Notes, "no destination of the route may get traffic")
		return NoDestination
	}
	kind := NoHealthy
	plan := retryPlan{policy: a.retries}
	served := make([]float64, len(a.destinations))
	for i := range a.destinations {
		drawn := 0.0
		switch {
		case a.totalWeight > 0:
			drawn = float64(a.destinations[i].weight) / float64(a.totalWeight)
		case i == 0:
			drawn = 1
		}
		e.Destinations = append(e.Destinations, x.explainDestination(&a.destinations[i], drawn))
		if drawn == 0 {
			continue
		}
		switch d, _, _, k := x.pick(i, &plan); k {
		case NoError:
			served[slices.IndexFunc(a.destinations, func(o destination) bool { return o.target == d.target && o.standby == d.standby })] += drawn
			kind = NoError
		case NoDestination:
			if kind == NoHealthy {
				kind = NoDestination
			}
		}
	}
	for i := range e.Destinations {
		d := &e.Destinations[i]
		d.Percent = 100 * served[i]
		if served[i] > 0 && !slices.ContainsFunc(d.Endpoints, func(p explain.Endpoint) bool { return p.Healthy && p.Percent > 0 }) {
			e.Notes = append(e.Notes, fmt.Sprintf("no endpoint of %s is known to be well: those that are there are tried as a last resort", d.Host))
		}
	}
	if kind != NoError {
		e.Reason, e.Unheard = x.whyNobody(e), kind == NoDestination && x.unheard()
	}
	return kind
}

// unheard reports whether all destinations that get traffic and are not known are services
// that gossip may bring.
func (x *exchange) unheard() bool {
	for i := range x.route.destinations {
		d := &x.route.destinations[i]
		if d.weight > 0 && !x.upstream(d.target).known && !x.table.snapshot.Registry.MayBeHeard(d.target.key.host) {
			return false
		}
	}
	return true
}

// whyNobody says why no destination can serve.
func (x *exchange) whyNobody(e *explain.Explanation) string {
	var out []string
	for _, d := range e.Destinations {
		if d.Problem != "" {
			out = append(out, d.Problem)
		}
	}
	return strings.Join(out, "; ")
}

func (x *exchange) explainDestination(d *destination, drawn float64) explain.Destination {
	u := x.upstream(d.target)
	out := explain.Destination{
		Host: d.rule.Host, Subset: d.rule.Subset, Port: d.target.key.port, Weight: d.weight, Drawn: 100 * drawn, Standby: d.standby,
		Endpoints: []explain.Endpoint{}, Policies: []explain.Policy{},
	}
	if k := &d.target.key; k.pod != "" {
		out.Host = k.pod + "." + k.host
	}
	if !u.known {
		out.Problem = x.table.whyUnknown(d)
		return out
	}
	shares := u.set.Shares()
	hash := x.hash(u)
	chosen, byHash := -1, false
	if hash != 0 {
		chosen, byHash = u.set.Pick(nil, hash)
	}
	for i, m := range u.members {
		ep, share := m.host.Endpoint(), shares[i]
		state, reason := m.host.State()
		if ep.Unready != "" {
			reason = ep.Unready
		}
		p := explain.Endpoint{
			Cluster: ep.Cluster, Locality: ep.Locality.String(), Priority: share.Priority,
			Percent: 100 * share.Part, Healthy: state != balancer.Ejected && ep.Unready == "", Reason: reason, LastResort: share.LastResort,
			Wire: describeWire(&u.wires[i], u),
		}
		p.Address, p.ByName = x.table.addressText(m.address)
		if byHash {
			p.Percent = 0
			if i == chosen {
				p.Percent = 100
			}
		}
		out.Endpoints = append(out.Endpoints, p)
	}
	slices.SortStableFunc(out.Endpoints, func(a, b explain.Endpoint) int { return a.Priority - b.Priority })
	out.Balancing = describeBalancing(u, byHash)
	out.Policies = describePolicies(u)
	if len(u.members) == 0 {
		out.Problem = x.table.whyEmpty(d)
	} else if u.set.Usable() == 0 {
		out.Problem = fmt.Sprintf("none of the %d endpoints of %s can serve", len(u.members), d.rule.Host)
	}
	return out
}

// addressText is an endpoint's address; where DNS is not asked, with the name for
// which it would be.
func (t *table) addressText(a netip.AddrPort) (text string, byName bool) {
	if name, ok := t.snapshot.Registry.StandsFor(a.Addr()); ok {
		return name + ":" + strconv.FormatUint(uint64(a.Port()), 10), true
	}
	return a.String(), false
}

// whyUnknown says what of a destination is not there.
func (t *table) whyUnknown(d *destination) string {
	host := d.target.key.host // of one Pod, where that is asked for
	v, ok := t.snapshot.Registry.View(host)
	switch {
	case !ok:
		return fmt.Sprintf("no service has the host %s%s", host, cmp.Or(t.whyHidden(host), t.whyNoPod(host)))
	case d.rule.Subset != "" && t.snapshot.Rules.Find(v.Host, v.Namespace, d.target.key.port, d.rule.Subset).Subset == nil:
		return fmt.Sprintf("no DestinationRule defines subset %q for %s", d.rule.Subset, d.rule.Host)
	}
	return fmt.Sprintf("%s has no port %d", d.rule.Host, d.rule.Port)
}

// whyEmpty says why a destination has no endpoints.
func (t *table) whyEmpty(d *destination) string {
	v, ok := t.snapshot.Registry.View(d.rule.Host)
	if ok && d.rule.Subset != "" {
		if all := t.snapshot.Registry.Endpoints(v, d.target.key.port); len(all) > 0 {
			return fmt.Sprintf("none of the %d endpoints of %s bears the labels of subset %s", len(all), d.rule.Host, d.rule.Subset)
		}
	}
	if names := t.unanswered(v); ok && len(names) > 0 {
		return fmt.Sprintf("no endpoint of %s is known: DNS has given no address for %s", d.rule.Host, strings.Join(names, ", "))
	}
	if ok && v.Cluster != "" && v.Cluster != t.snapshot.Node.Cluster {
		return fmt.Sprintf("no endpoint of %s in cluster %s is known: files give none, and gossip has brought none", d.rule.Host, v.Cluster)
	}
	return fmt.Sprintf("no endpoint of %s is known: files give none, and gossip has brought none", d.rule.Host)
}

// unanswered are the names by which a service's ServiceEntries, or its ExternalName, leave
// its endpoints to DNS.
func (t *table) unanswered(v *mesh.View) (names []string) {
	if v == nil {
		return nil
	}
	entries := slices.Clone(v.Entries)
	for _, s := range t.snapshot.Config.Services {
		if !s.IsEntry() && s.Key() == v.Service {
			entries = append(entries, s) // an ExternalName
		}
	}
	for _, e := range entries {
		if e.Resolution != mesh.ResolveDNS && e.Resolution != mesh.ResolveDNSRoundRobin {
			continue
		}
		asked := []string{v.Host}
		if len(e.Endpoints) > 0 {
			asked = nil
		}
		for _, w := range e.Endpoints {
			asked = append(asked, mesh.NormalizeHost(w.Address))
		}
		for _, name := range asked {
			if _, found := slices.BinarySearch(t.snapshot.Registry.Unresolved(), name); found && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func describeWire(w *wire, u *upstream) string {
	switch w.mode {
	case wirePolicy:
		return "TLS"
	case wireMesh:
		return "mTLS"
	}
	return "plain text"
}

func describeBalancing(u *upstream, byHash bool) string {
	lb := u.policy.LoadBalancer
	if lb == nil {
		return "the less busy of two"
	}
	switch lb.Kind {
	case mesh.RoundRobin:
		return "in turn"
	case mesh.Random:
		return "by chance"
	case mesh.PeakEWMA:
		return "the quicker of two"
	case mesh.RingHash, mesh.Maglev:
		if !byHash {
			return "by chance, as the request has nothing of what its place is found by: " + describeHash(lb.Hash)
		}
		return "where it belongs, by " + describeHash(lb.Hash)
	}
	return "the less busy of two"
}

func describeHash(h *mesh.HashPolicy) string {
	switch {
	case h.Header != "":
		return "header " + h.Header
	case h.Cookie != nil:
		return "cookie " + h.Cookie.Name
	case h.SourceIP:
		return "the client's address"
	}
	return "parameter " + h.QueryParam
}

// describePolicies lists what holds for an upstream, block by block; those that
// no file says come without a source.
func describePolicies(u *upstream) []explain.Policy {
	p := &u.policy
	var out []explain.Policy
	add := func(block string, source mesh.Source, says []string) {
		out = append(out, explain.Policy{Block: block, Source: source.String(), Says: strings.Join(says, ", ")})
	}
	if s := p.Subset; s != nil {
		add("subset", s.Source, []string{cmp.Or(mesh.LabelText(s.Labels), "every endpoint")})
	}
	if b := p.LoadBalancer; b != nil {
		add("loadBalancer", b.Source, describeLoadBalancer(b))
	}
	if b := p.ConnectionPool; b != nil {
		add("connectionPool", b.Source, describePool(b))
	} else {
		add("connectionPool", mesh.Source{}, []string{"connectTimeout " + defaultConnectTimeout.String()})
	}
	if b := p.OutlierDetection; b != nil {
		add("outlierDetection", b.Source, describeOutliers(b, len(u.members)))
	}
	if b := p.TLS; b != nil {
		add("tls", b.Source, []string{[...]string{"DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"}[b.Mode]})
	}
	if b := p.RetryBudget; b != nil {
		add("retryBudget", b.Source, []string{fmt.Sprintf("%g %% of requests under way, at least %d", b.Percent, b.MinConcurrency)})
	}
	if u.room != nil {
		add("adaptiveConcurrency", *p.Adaptive, []string{fmt.Sprintf("%.0f requests under way at most as things are, the least important refused first", math.Floor(u.room.Limit()))})
	}
	return out
}

func describeLoadBalancer(b *mesh.LoadBalancer) (out []string) {
	out = append(out, [...]string{"LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "PEAK_EWMA", "ringHash", "maglev"}[b.Kind])
	if w := b.Warmup; w != nil {
		out = append(out, "warmup "+w.Duration.String())
	}
	l := b.Locality
	switch {
	case l == nil:
	case l.Disabled:
		out = append(out, "localities do not count")
	case len(l.Distribute) > 0:
		for _, d := range l.Distribute {
			var to []string
			for _, s := range d.To {
				to = append(to, fmt.Sprintf("%s %d %%", s.Locality, s.Percent))
			}
			out = append(out, "from "+d.From+" to "+strings.Join(to, " and "))
		}
	default:
		if l.LeastHosts > 0 {
			out = append(out, fmt.Sprintf("zone-aware with %d endpoints or more in the region", l.LeastHosts))
		}
		for _, f := range l.Failover {
			out = append(out, "failover from "+f.From+" to "+f.To)
		}
		if len(l.FailoverPriority) > 0 {
			out = append(out, "failoverPriority "+strings.Join(l.FailoverPriority, ", "))
		}
	}
	return out
}

func describePool(b *mesh.ConnectionPool) (out []string) {
	number := func(name string, n uint32) {
		if n != 0 {
			out = append(out, name+" "+strconv.FormatUint(uint64(n), 10))
		}
	}
	timed := func(name string, d time.Duration) {
		if d != 0 {
			out = append(out, name+" "+d.String())
		}
	}
	number("maxConnections", b.MaxConnections)
	timed("connectTimeout", b.ConnectTimeout)
	number("http1MaxPendingRequests", b.MaxPending)
	number("http2MaxRequests", b.MaxRequests)
	number("maxRequestsPerConnection", b.MaxRequestsPerCon)
	number("maxRetries", b.MaxRetries)
	timed("idleTimeout", b.IdleTimeout)
	timed("maxConnectionDuration", b.MaxDuration)
	return out
}

func describeOutliers(b *mesh.OutlierDetection, endpoints int) (out []string) {
	if b.Consecutive5xx != 0 {
		out = append(out, fmt.Sprintf("%d errors 5xx in a row eject", b.Consecutive5xx))
	}
	if b.ConsecutiveGatewayErrors != 0 {
		out = append(out, fmt.Sprintf("%d of 502, 503, 504 in a row eject", b.ConsecutiveGatewayErrors))
	}
	out = append(out, fmt.Sprintf("for %s", b.BaseEjectionTime))
	most := endpoints * int(b.MaxEjectionPercent) / 100
	if endpoints > 1 && most == 0 {
		most = 1
	}
	if most == 0 {
		out = append(out, fmt.Sprintf("none of %d can be", endpoints))
	} else {
		out = append(out, fmt.Sprintf("at most %d of %d at once", most, endpoints))
	}
	if b.MinHealthPercent > 0 {
		out = append(out, fmt.Sprintf("health ignored below %d %%", b.MinHealthPercent))
	}
	return out
}
