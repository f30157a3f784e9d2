package config

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"isthmus/mesh"
)

func (d *document) loadBalancer(lb *networking.LoadBalancerSettings, path string) *mesh.LoadBalancer {
	out := &mesh.LoadBalancer{Source: d.source(path)}
	switch lb.GetSimple() {
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		out.Kind = mesh.RoundRobin
	case networking.LoadBalancerSettings_RANDOM:
		out.Kind = mesh.Random
	case networking.LoadBalancerSettings_PASSTHROUGH:
		d.warning(path+".simple", "PASSTHROUGH sends to the address that the application has dialled, which is not seen as long as connections are not captured: endpoints are picked as by LEAST_REQUEST")
	}
	if h := lb.GetConsistentHash(); h != nil {
		out.Kind, out.Hash = d.consistentHash(h, path+".consistentHash")
	}
	out.Warmup = d.warmup(lb, path)
	if out.Warmup != nil && out.Hash != nil {
		d.warning(path+".consistentHash", "there is no warmup with it: a request goes where its hash belongs")
	}
	if l := lb.LocalityLbSetting; l != nil {
		out.Locality = d.localityLB(l, path+".localityLbSetting")
	}
	if z := lb.ZoneAwareLbSetting; z != nil {
		at := path + ".zoneAwareLbSetting"
		if out.Locality != nil {
			d.error(at, "cannot stand beside localityLbSetting: only one of them")
		}
		if out.Locality = d.zoneAwareLB(z, at); out.Hash != nil && out.Locality.LeastHosts > 0 {
			d.warning(path+".consistentHash", "zones are not balanced with it: a request goes where its hash belongs")
			out.Locality.LeastHosts = 0
		}
	}
	return out
}

// Bounds of tables: Envoy's largest ring, and Istio's largest Maglev
// table.
const (
	maxRing   = 8 << 20
	maxMaglev = 5_000_011
)

func (d *document) consistentHash(h *networking.LoadBalancerSettings_ConsistentHashLB, path string) (mesh.LoadBalancerKind, *mesh.HashPolicy) {
	out := &mesh.HashPolicy{TableSize: 1024}
	switch {
	case h.GetHttpHeaderName() != "":
		out.Header = strings.ToLower(h.GetHttpHeaderName())
		if !validHeaderName(out.Header) && !slices.Contains(mesh.PseudoFields, out.Header) {
			d.error(path+".httpHeaderName", fmt.Sprintf("%q is no header name", h.GetHttpHeaderName()))
		}
	case h.GetHttpCookie() != nil:
		out.Cookie = d.hashCookie(h.GetHttpCookie(), path+".httpCookie")
	case h.GetUseSourceIp():
		out.SourceIP = true
	case h.GetHttpQueryParameterName() != "":
		out.QueryParam = h.GetHttpQueryParameterName()
	default:
		d.error(path, "says not what to hash: write httpHeaderName, httpCookie, useSourceIp: true or httpQueryParameterName")
	}
	if m := h.GetMaglev(); m != nil {
		out.TableSize = m.TableSize
		if out.TableSize == 0 {
			out.TableSize = 65537
		}
		if out.TableSize > maxMaglev || !big.NewInt(int64(out.TableSize)).ProbablyPrime(0) {
			d.error(path+".maglev.tableSize", fmt.Sprintf("%d is no prime number up to %d", out.TableSize, maxMaglev))
			out.TableSize = 65537
		}
		return mesh.Maglev, out
	}
	at := path + ".ringHash.minimumRingSize"
	size := h.GetRingHash().GetMinimumRingSize()
	if size == 0 {
		//lint:ignore SA1019 still written by users
		at, size = path+".minimumRingSize", h.GetMinimumRingSize()
	}
	if size > maxRing {
		d.error(at, fmt.Sprintf("%d is more than %d", size, maxRing))
		size = 0
	}
	if size > 0 {
		out.TableSize = size
	}
	return mesh.RingHash, out
}

func (d *document) hashCookie(c *networking.LoadBalancerSettings_ConsistentHashLB_HTTPCookie, path string) *mesh.HashCookie {
	out := &mesh.HashCookie{Name: c.Name, Path: c.Path, Generate: c.Ttl != nil, TTL: c.Ttl.AsDuration()}
	if !validHeaderName(c.Name) {
		d.error(path+".name", fmt.Sprintf("%q is no cookie's name", c.Name))
	}
	if !validCookieText(c.Path) {
		d.error(path+".path", fmt.Sprintf("%q cannot stand in a cookie", c.Path))
	}
	if out.TTL < 0 || out.TTL > 0 && out.TTL < time.Second {
		d.error(path+".ttl", fmt.Sprintf("%v: a cookie lives for whole seconds, or 0s for as long as the browser's session", out.TTL))
	}
	for i, a := range c.Attributes {
		at := fmt.Sprintf("%s.attributes[%d]", path, i)
		if !validHeaderName(a.Name) || !validCookieText(a.Value) {
			d.error(at, fmt.Sprintf("%q: %q cannot stand in a cookie", a.Name, a.Value))
		}
		out.Attributes = append(out.Attributes, mesh.NameValue{Name: a.Name, Value: a.Value})
	}
	return out
}

// validCookieText reports whether a text may be the value of an attribute of
// Set-Cookie (RFC 6265 4.1.1).
func validCookieText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ';' })
}

func (d *document) warmup(lb *networking.LoadBalancerSettings, path string) *mesh.Warmup {
	w := lb.Warmup
	if w == nil {
		//lint:ignore SA1019 still written by users
		if lb.WarmupDurationSecs == nil {
			return nil
		}
		//lint:ignore SA1019 still written by users
		w, path = &networking.WarmupConfiguration{Duration: lb.WarmupDurationSecs}, path+".warmupDurationSecs"
	} else {
		path += ".warmup"
	}
	out := &mesh.Warmup{Duration: w.Duration.AsDuration(), MinPercent: 10, Aggression: 1}
	if out.Duration < time.Millisecond {
		d.error(path, "needs a duration of 1ms or more")
	}
	if w.MinimumPercent != nil {
		if out.MinPercent = w.MinimumPercent.Value; out.MinPercent < 0 || out.MinPercent > 100 {
			d.error(path+".minimumPercent", fmt.Sprintf("%v is not between 0 and 100", out.MinPercent))
		}
	}
	if w.Aggression != nil {
		if out.Aggression = w.Aggression.Value; out.Aggression <= 0 {
			d.error(path+".aggression", fmt.Sprintf("%v is not more than 0", out.Aggression))
			out.Aggression = 1
		}
	}
	return out
}

// algorithmAnnotation chooses an algorithm that Istio has no word for.
const algorithmAnnotation = "isthmus.io/load-balancer"

// algorithms are its values.
var algorithms = map[string]mesh.LoadBalancerKind{"peak-ewma": mesh.PeakEWMA}

// chooseAlgorithm applies the annotation to a rule: to its own policy, and to
// those of ports and subsets that have a loadBalancer of their own and do not
// name another algorithm there.
func (d *document) chooseAlgorithm(r *mesh.DestinationRule) {
	name, ok := d.annotations[algorithmAnnotation]
	if !ok {
		return
	}
	path := join("metadata.annotations", algorithmAnnotation)
	kind, ok := algorithms[name]
	if !ok {
		d.error(path, fmt.Sprintf("%q is no algorithm: write peak-ewma, or leave the annotation out", name))
		return
	}
	if r.Policy.LoadBalancer == nil {
		r.Policy.LoadBalancer = &mesh.LoadBalancer{Source: d.source(path)}
	}
	policies := []*mesh.TrafficPolicy{&r.Policy}
	for i := range r.Subsets {
		policies = append(policies, &r.Subsets[i].Policy)
	}
	for _, p := range policies {
		for _, level := range p.PortLevel {
			if level.LoadBalancer == nil { // the one above does not hold for the port
				level.LoadBalancer = &mesh.LoadBalancer{Source: d.source(path)}
			}
			policies = append(policies, level)
		}
	}
	applied := false
	for _, p := range policies {
		if p.LoadBalancer != nil && p.LoadBalancer.Kind == mesh.LeastRequest {
			p.LoadBalancer.Kind, applied = kind, true
		}
	}
	if !applied {
		d.warning(path, "has no effect: simple or consistentHash names another algorithm")
	}
}

func (d *document) retryBudget(b *networking.TrafficPolicy_RetryBudget, path string) *mesh.RetryBudget {
	out := &mesh.RetryBudget{Percent: 20, MinConcurrency: 3, Source: d.source(path)}
	if b.Percent != nil {
		if out.Percent = b.Percent.Value; out.Percent < 0 || out.Percent > 100 {
			d.error(path+".percent", fmt.Sprintf("%v is not between 0 and 100", out.Percent))
		}
	}
	if b.MinRetryConcurrency != 0 {
		out.MinConcurrency = b.MinRetryConcurrency
	}
	if out.Interval = b.BudgetInterval.AsDuration(); out.Interval < 0 {
		d.error(path+".budgetInterval", "must not be negative")
	}
	return out
}

func (d *document) localityLB(l *networking.LocalityLoadBalancerSetting, path string) *mesh.LocalityLB {
	out := &mesh.LocalityLB{Disabled: l.Enabled != nil && !l.Enabled.Value, FailoverPriority: l.FailoverPriority}
	if len(l.Distribute) > 0 && len(l.Failover) > 0 {
		d.error(path+".distribute", "cannot stand beside failover: only one of them")
	}
	if len(l.Distribute) > 0 && len(l.FailoverPriority) > 0 {
		d.warning(path+".failoverPriority", "has no effect beside distribute, in Istio neither: leave one of them out")
		out.FailoverPriority = nil
	}
	for i, x := range l.Distribute {
		at := fmt.Sprintf("%s.distribute[%d]", path, i)
		rule := mesh.Distribute{From: x.From}
		d.checkLocality(x.From, at+".from")
		for _, o := range out.Distribute {
			if overlap(o.From, x.From) {
				d.error(at+".from", fmt.Sprintf("%q overlaps with %q", x.From, o.From))
			}
		}
		sum := uint32(0)
		for _, to := range slices.Sorted(maps.Keys(x.To)) {
			percent := x.To[to]
			d.checkLocality(to, join(at+".to", to))
			if percent < 1 || percent > 100 {
				d.error(join(at+".to", to), fmt.Sprintf("%d is not between 1 and 100", percent))
			}
			for _, o := range rule.To {
				if overlap(o.Locality, to) {
					d.error(join(at+".to", to), fmt.Sprintf("%q overlaps with %q", to, o.Locality))
				}
			}
			sum += percent
			rule.To = append(rule.To, mesh.LocalityShare{Locality: to, Percent: percent})
		}
		if sum != 100 {
			d.error(at+".to", fmt.Sprintf("the shares add up to %d, not 100", sum))
		}
		out.Distribute = append(out.Distribute, rule)
	}
	for i, f := range l.Failover {
		out.Failover = append(out.Failover, d.failover(f.From, f.To, fmt.Sprintf("%s.failover[%d]", path, i)))
	}
	for i, label := range l.FailoverPriority {
		if len(l.Failover) > 0 && slices.Contains(zoneLabels, label) {
			d.error(fmt.Sprintf("%s.failoverPriority[%d]", path, i), fmt.Sprintf("%s cannot stand beside failover, which says the order of regions: name other labels, or leave failover out", label))
		}
	}
	return out
}

func (d *document) failover(from, to, path string) mesh.Failover {
	switch {
	case from == to:
		d.error(path, fmt.Sprintf("from and to are both %q", from))
	case strings.ContainsAny(from+to, "/*"):
		d.error(path, "from and to are regions, without a zone and without *")
	}
	return mesh.Failover{From: from, To: to}
}

// zoneLabels are those of a locality, which zone-aware balancing looks at by itself, and
// which Istio refuses beside failover (ValidateLocalityLbSetting).
var zoneLabels = []string{"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"}

func (d *document) zoneAwareLB(z *networking.ZoneAwareLoadBalancerSetting, path string) *mesh.LocalityLB {
	out := &mesh.LocalityLB{LeastHosts: 6, FailoverPriority: z.FailoverPriority}
	if z.MinClusterSize != nil {
		if out.LeastHosts = z.MinClusterSize.Value; out.LeastHosts == 0 {
			out.LeastHosts = 1 // as few as there are
		}
	}
	if z.Enabled != nil && !z.Enabled.Value {
		out.Disabled, out.LeastHosts = true, 0
	}
	for i, f := range z.Failover {
		out.Failover = append(out.Failover, d.failover(f.From, f.To, fmt.Sprintf("%s.failover[%d]", path, i)))
	}
	for i, label := range z.FailoverPriority {
		if key, _, _ := strings.Cut(label, "="); slices.Contains(zoneLabels, key) {
			d.error(fmt.Sprintf("%s.failoverPriority[%d]", path, i), fmt.Sprintf("%s is looked at by itself: name other labels", key))
		}
	}
	return out
}

// checkLocality refuses a pattern in which a "*" is not the last part.
func (d *document) checkLocality(l, path string) {
	parts := strings.Split(l, "/")
	for i, p := range parts {
		switch {
		case p == "":
			d.error(path, fmt.Sprintf("%q is no locality: write region/zone/subzone", l))
			return
		case strings.Contains(p, "*") && (p != "*" || i != len(parts)-1):
			d.error(path, fmt.Sprintf("%q: a * may only stand for the last part", l))
			return
		}
	}
}

// overlap reports whether a locality could match both patterns.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; i < len(x) && i < len(y); i++ {
		if x[i] == "*" || y[i] == "*" {
			return true
		}
		if x[i] != y[i] {
			return false
		}
	}
	return true
}
