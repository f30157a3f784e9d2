package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"isthmus/mesh"
)

// lintVirtualService looks at the rules of one VirtualService.
func (c *checker) lintVirtualService(v *mesh.VirtualService, d *document) {
	for i, h := range v.Hosts {
		c.lintHost(v, d, h, index("hosts", i))
	}
	c.lintNamespace(v, d)
	c.lintKinds(v, d)
	c.lintProxyMatches(v, d)
	if !d.failed() {
		lintOrder(v, d) // a condition that could not be read is not there
	}
	for i, r := range v.HTTP {
		path := index("http", i)
		if f := r.Fault; f != nil {
			lintShare(d, f.DelayShare, path+".fault.delay.percentage.value")
			lintShare(d, f.AbortShare, path+".fault.abort.percentage.value")
		}
		for _, m := range r.Mirrors {
			at, one := strings.CutSuffix(m.Field, ".destination")
			if at += ".percentage.value"; !one {
				at = path + ".mirrorPercentage.value"
			}
			lintShare(d, m.Share, at)
		}
		lintWeights(d, r, path)
		if r.Retries != nil && (len(r.Route) > 0 || r.Delegate != nil) {
			c.lintRetries(v, d, r, path)
		}
		c.lintMatches(v, d, r, path)
		lintRewrite(d, r, path, r.Delegate == nil && len(v.Hosts) > 0)
		c.lintRedirect(v, d, i)
		lintOrigins(d, r, path)
	}
}

// lintShare says how little a percentage below one is.
func lintShare(d *document, share mesh.Fraction, path string) {
	if share == 0 || share >= mesh.AllRequests/100 || !d.has(path) {
		return
	}
	d.find(Info, ISM0040, path, fmt.Sprintf("is in percent: one request in %d; a tenth of the requests would be 10", mesh.AllRequests/share))
}

// lintWeights says what weights come to that look like percentages and are none. They
// may add up to anything (Istio); of small numbers, 1 and 3, everybody knows.
func lintWeights(d *document, r *mesh.HTTPRoute, path string) {
	total := uint32(0)
	for _, dest := range r.Route {
		total += min(dest.Weight, 1000)
	}
	if len(r.Route) < 2 || total == 100 || total <= 50 || total >= 200 {
		return
	}
	var parts []string
	for _, dest := range r.Route[:min(len(r.Route), maxNamed)] {
		parts = append(parts, fmt.Sprintf("%.1f %%", 100*float64(dest.Weight)/float64(total)))
	}
	d.find(Info, ISM0075, path+".route", fmt.Sprintf("the weights add up to %d, so they are no percentages: the destinations get %s", total, strings.Join(parts, ", ")))
}

// lintRetries compares times, and says where retries go.
func (c *checker) lintRetries(v *mesh.VirtualService, d *document, r *mesh.HTTPRoute, path string) {
	p := r.Retries
	if p.Attempts == 0 {
		return
	}
	unsafe := p.On & (mesh.Retry5xx | mesh.RetryGatewayError | mesh.RetryReset | mesh.RetryRetriableStatusCodes | mesh.RetryRetriable4xx)
	if len(p.Codes) == 0 {
		unsafe &^= mesh.RetryRetriableStatusCodes
	}
	if p.Explicit && unsafe != 0 && !idempotentAlone(r) {
		d.find(Warning, ISM0030, path+".retries.retryOn", fmt.Sprintf("%s repeats requests of every method that may have been carried out already, POST too: give GET a rule of its own (match method), and the others connect-failure,refused-stream", strings.Join(unsafe.Words(), ",")))
	}
	weighted := 0
	for _, dest := range r.Route {
		if dest.Weight > 0 {
			weighted++
		}
	}
	if weighted > 1 {
		d.find(Info, ISM0041, path+".retries", "go to another destination of the split when the one that was drawn has nobody left; in Istio they stay in it, so that a cluster that is gone fails its whole share")
	}
	tries := mesh.Times(1+p.Attempts, p.PerTryTimeout)
	switch {
	case !r.Timed && (r.Delegate != nil || len(v.Hosts) == 0):
		// The timeout is for the other one of delegate and root to say.
	case r.Timeout == 0 && p.PerTryTimeout > 0:
		worst := tries + p.LongestBackoffs()
		d.find(Info, ISM0050, path+".retries", fmt.Sprintf("there is no timeout for all tries together: %d of up to %s each take up to %s; write timeout beside retries", 1+p.Attempts, p.PerTryTimeout, worst))
	case r.Timeout == 0 && p.Explicit && p.On&(mesh.Retry5xx|mesh.RetryGatewayError|mesh.RetryReset) != 0:
		d.find(Info, ISM0050, path+".retries", "there is neither a timeout nor a perTryTimeout: an endpoint that takes the request and does not answer holds it for ever, and it is never tried again")
	case r.Timeout > 0 && p.PerTryTimeout > r.Timeout:
		d.find(Warning, ISM0049, path+".retries.perTryTimeout", fmt.Sprintf("%s is more than the timeout of %s, which ends the first try already: nothing is ever tried again for want of an answer", p.PerTryTimeout, r.Timeout))
	case r.Timeout > 0 && tries > r.Timeout:
		d.find(Warning, ISM0049, path+".timeout", fmt.Sprintf("%s ends before all tries can have their time: 1 + %d of up to %s each take %s, besides the waiting in between; write timeout: %s or more, or a shorter perTryTimeout", r.Timeout, p.Attempts, p.PerTryTimeout, tries, (tries+time.Second).Round(time.Second)))
	}
}

// idempotentAlone reports whether a rule is for methods alone that may be repeated
// (RFC 9110 9.2.2).
func idempotentAlone(r *mesh.HTTPRoute) bool {
	for _, m := range r.Match {
		if m.Method == nil || m.Method.Kind != mesh.MatchExact || !slices.Contains([]string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"}, m.Method.Value) {
			return false
		}
	}
	return len(r.Match) > 0
}

// lintHost says that a host is served although no service bears it.
func (c *checker) lintHost(v *mesh.VirtualService, d *document, host, path string) {
	if !slices.Contains(v.Gateways, mesh.MeshGateway) || strings.HasPrefix(host, "*") {
		return
	}
	svc, suffix, ok := mesh.ServiceOf(host)
	known := c.services[svc] != nil
	switch {
	case len(c.entriesOf(host)) > 0, known && suffix != "global":
	case !ok && c.services[host] != nil && slices.Contains(v.Hosts, c.full(host)): // Istio takes that one
	case !ok && c.services[host] != nil:
		d.find(Info, ISM0056, path, fmt.Sprintf("%q means service %s; Istio takes it for a full name, which no service has, and would ignore the VirtualService: write %s", host, host, c.full(host)))
	case ok && known:
		d.find(Info, ISM0056, path, fmt.Sprintf("no ServiceEntry has the host %q, which means service %s in every cluster; Istio would ignore the VirtualService", host, svc))
	default:
		d.find(Info, ISM0056, path, fmt.Sprintf("no file has a service of the host %q: it is served all the same; Istio would ignore the VirtualService", host))
	}
}

// lintNamespace says of a VirtualService without a namespace where it stands, if
// it is about another one.
func (c *checker) lintNamespace(v *mesh.VirtualService, d *document) {
	if d.has("metadata.namespace") {
		return
	}
	about := ""
	for _, r := range v.HTTP {
		for _, dest := range r.Route {
			svc, _, ok := mesh.ServiceOf(dest.Host)
			_, namespace, _ := strings.Cut(svc, ".")
			if !ok || namespace == v.Namespace || about != "" && about != namespace {
				return
			}
			about = namespace
		}
	}
	if about != "" {
		d.find(Info, ISM0054, "metadata.name", fmt.Sprintf("names no namespace, so it stands in %q, while all it routes to is in %q: short names in it mean services of %q", v.Namespace, about, v.Namespace))
	}
}

// lintOrder names rules that an earlier one takes everything from.
func lintOrder(v *mesh.VirtualService, d *document) {
	// The matches before, by the path that they ask for.
	type earlier struct {
		rule int
		m    *mesh.HTTPMatch
	}
	var anyPath []earlier
	prefixes, exact := map[string][]earlier{}, map[string][]earlier{}
	swallowed := func(m *mesh.HTTPMatch) int {
		find := func(list []earlier) int {
			for _, e := range list {
				if covers(e.m, m) {
					return e.rule
				}
			}
			return -1
		}
		first := find(anyPath)
		if m.URI == nil {
			return first
		}
		lower := func(at int) {
			if at >= 0 && (first < 0 || at < first) {
				first = at
			}
		}
		for n := 1; n <= len(m.URI.Value) && len(prefixes) > 0; n++ {
			lower(find(prefixes[m.URI.Value[:n]]))
		}
		lower(find(exact[m.URI.Value]))
		return first
	}
	for i, r := range v.HTTP {
		if len(r.Match) > 0 && len(anyPath)+len(prefixes)+len(exact) > 0 {
			at := -1
			whole := !slices.ContainsFunc(r.Match, func(m *mesh.HTTPMatch) bool {
				k := swallowed(m)
				at = max(at, k)
				return k < 0 || k >= i
			})
			if whole && len(v.HTTP[at].Match) > 0 {
				d.find(Warning, IST0130, index("http", i), fmt.Sprintf("is never reached: all that it matches, http[%d] in %s matches before it; put it first", at, v.HTTP[at].Source))
			}
		}
		for _, m := range r.Match {
			e := earlier{i, m}
			switch {
			case m.URI == nil || m.URI.Kind == mesh.MatchPresent:
				anyPath = append(anyPath, e)
			case m.URI.Kind == mesh.MatchPrefix:
				prefixes[m.URI.Value] = append(prefixes[m.URI.Value], e)
			case m.URI.Kind == mesh.MatchExact:
				exact[m.URI.Value] = append(exact[m.URI.Value], e)
			case m.URI.Kind == mesh.MatchRegex:
				exact[m.URI.Value] = append(exact[m.URI.Value], e)
			}
		}
	}
}

// covers reports whether whatever inner fits, outer fits too. It may be false
// where that is hard to tell.
func covers(outer, inner *mesh.HTTPMatch) bool {
	one := func(a, b *mesh.StringMatch) bool { return a == nil || b != nil && contains(a, b) }
	if !one(outer.URI, inner.URI) || !one(outer.Method, inner.Method) || !one(outer.Authority, inner.Authority) || !one(outer.Scheme, inner.Scheme) {
		return false
	}
	if outer.URI != nil && outer.IgnoreURICase != inner.IgnoreURICase && !outer.IgnoreURICase {
		return false
	}
	all := func(a, b []mesh.NamedMatch) bool {
		for i := range a {
			if !slices.ContainsFunc(b, func(o mesh.NamedMatch) bool {
				return o.Name == a[i].Name && contains(&a[i].StringMatch, &o.StringMatch)
			}) {
				return false
			}
		}
		return true
	}
	same := func(a, b []mesh.NamedMatch) bool {
		return !slices.ContainsFunc(a, func(m mesh.NamedMatch) bool {
			return !slices.ContainsFunc(b, func(o mesh.NamedMatch) bool { return o.Name == m.Name && o.Kind == m.Kind && o.Value == m.Value })
		})
	}
	if !all(outer.Headers, inner.Headers) || !all(outer.QueryParams, inner.QueryParams) || !same(outer.WithoutHeaders, inner.WithoutHeaders) {
		return false
	}
	if outer.Port != 0 && outer.Port != inner.Port || outer.SourceNamespace != "" && outer.SourceNamespace != inner.SourceNamespace {
		return false
	}
	for k, w := range outer.SourceLabels {
		if inner.SourceLabels[k] != w {
			return false
		}
	}
	return slices.Equal(outer.Gateways, inner.Gateways)
}

// contains reports whether whatever inner matches, outer matches too.
func contains(outer, inner *mesh.StringMatch) bool {
	if outer.Kind == mesh.MatchRegex {
		switch inner.Kind {
		case mesh.MatchRegex:
			return inner.Value == outer.Value
		case mesh.MatchExact:
			return outer.Regex != nil && outer.Regex.Match([]byte(inner.Value))
		}
		return false
	}
	return outer.Covers(inner)
}
