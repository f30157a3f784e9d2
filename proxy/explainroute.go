package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"isthmus/explain"
	"isthmus/mesh"
)

// maxTried bounds how many routes before the one that fits are told of.
const maxTried = 50

// explainTried says of the routes before the one that fits why they do not.
func (x *exchange) explainTried(e *explain.Explanation, vh *virtualHost) {
	for _, r := range vh.routes {
		if r == x.route {
			break
		}
		t := explain.Tried{Name: r.rule.Name, Source: r.rule.Source.String(), Misses: []string{}}
		for i := range r.matches {
			t.Misses = append(t.Misses, x.describeMiss(&r.matches[i], r.matches[i].miss(x)))
		}
		e.Tried = append(e.Tried, t)
	}
	if n := len(e.Tried) - maxTried; n > 0 {
		e.TriedMore, e.Tried = n, e.Tried[n:]
	}
}

// describeMiss says what was asked for, and what there is.
func (x *exchange) describeMiss(m *requestMatch, at miss) string {
	is := func(what string, want *mesh.StringMatch, got []byte) string {
		return fmt.Sprintf("%s %s: it is %q", what, describeString(want), clip(got))
	}
	named := func(what string, want *mesh.NamedMatch, got []byte, ok bool) string {
		if !ok {
			return fmt.Sprintf("%s %s %s: there is none", what, want.Name, describeString(&want.StringMatch))
		}
		return is(what+" "+want.Name, &want.StringMatch, got)
	}
	switch at.of {
	case onURI:
		return is("uri", m.uri, x.req.Path)
	case onMethod:
		return is("method", m.method, x.req.Method)
	case onAuthority:
		return is("authority", m.authority, x.req.Authority)
	case onScheme:
		return is("scheme", m.scheme, x.scheme())
	case onHeader:
		h := &m.headers[at.index]
		if h.Claim != nil {
			texts := x.subject.Claims.Values(h.Claim...)
			return named("claim", h, []byte(strings.Join(texts, ", ")), len(texts) > 0)
		}
		got, ok := x.fieldValue(h.Name)
		return named("header", h, got, ok)
	case onWithoutHeader:
		h := &m.withoutHeaders[at.index]
		if h.Claim != nil {
			return is("without claim "+h.Name, &h.StringMatch, []byte(strings.Join(x.subject.Claims.Values(h.Claim...), ", ")))
		}
		got, ok := x.fieldValue(h.Name)
		if !ok {
			return fmt.Sprintf("without header %s %s: there is none, which counts as empty", h.Name, describeString(&h.StringMatch))
		}
		return is("without header "+h.Name, &h.StringMatch, got)
	case onQueryParam:
		q := &m.queryParams[at.index]
		got, ok := queryValue(x.req.Query, q.Name)
		return named("query", q, got, ok)
	}
	return "it fits"
}

// clip shortens what a client has sent.
func clip(b []byte) string {
	const most = 80
	if len(b) > most {
		return string(b[:most]) + "..."
	}
	return string(b)
}

// explainRoute says what the route does, and NoError unless that ends in a
// refusal.
func (x *exchange) explainRoute(e *explain.Explanation) Kind {
	r := x.route
	e.Route = &explain.Route{Name: x.routeName(), Match: "any", Source: r.rule.Source.String()}
	if r.of != nil {
		e.Route.Resource = r.of.Meta.String()
	}
	if x.matched != nil {
		e.Route.Match = describeMatches([]requestMatch{*x.matched})
	}
	switch {
	case r.cors != nil && x.answersPreflight(r.cors):
		e.Outcome, e.Answer = explain.Answered, &explain.Answer{Status: 200}
		e.Notes = append(e.Notes, "a preflight of CORS, which the proxy answers")
		return NoError
	case r.redirect != nil:
		e.Outcome = explain.Redirected
		e.Answer = &explain.Answer{Status: r.redirect.Code, Location: x.location(r.redirect)}
		return NoError
	case r.direct != nil:
		e.Outcome = explain.Answered
		e.Answer = &explain.Answer{Status: r.direct.Status, Body: clip(r.direct.Body)}
		return NoError
	}
	e.Outcome = explain.Forwarded
	x.explainEffects(e)
	kind := x.explainDestinations(e)
	x.explainTimes(e)
	if f := r.fault; f != nil && f.AbortShare >= mesh.AllRequests {
		return FaultInjected // before any destination is asked
	}
	return kind
}

// explainEffects lists what else the route does.
func (x *exchange) explainEffects(e *explain.Explanation) {
	r := x.route
	source := r.rule.Source.String()
	add := func(name, says string) {
		e.Effects = append(e.Effects, explain.Effect{Name: name, Says: says, Source: source})
	}
	if f := r.fault; f != nil {
		if f.DelayShare > 0 {
			add("fault", fmt.Sprintf("%s of requests wait %s first", fraction(f.DelayShare), f.Delay))
		}
		if f.AbortShare > 0 {
			status := f.AbortStatus
			if f.AbortGRPC != 0 && x.dialect == notGRPC {
				status = f.AbortGRPC.HTTPStatus()
			}
			add("fault", fmt.Sprintf("%s of requests get %d at once", fraction(f.AbortShare), status))
		}
	}
	if w := r.rewrite; w != nil {
		var to []string
		if w.HasURI {
			to = append(to, "path to "+string(x.rewritePath(w)))
		}
		if w.Regex != nil {
			to = append(to, fmt.Sprintf("path, %s to %s: %s", w.Regex, w.Substitution, x.rewritePath(w)))
		}
		if w.Authority != "" {
			to = append(to, "authority to "+w.Authority)
		}
		add("rewrite", strings.Join(to, ", "))
	}
	for _, m := range r.mirrors {
		add("mirror", fmt.Sprintf("copies of %s of requests go to %s", fraction(m.share), m.route.destinations[0].rule.Host))
	}
	if h := r.headers; h != nil {
		add("headers", describeHeaders(h.said))
	}
	if r.cors != nil {
		add("corsPolicy", "replies tell browsers which origins may read them")
	}
}

func fraction(f mesh.Fraction) string { return percentOf(float64(f) / float64(mesh.AllRequests)) }

func percentOf(part float64) string {
	return strconv.FormatFloat(part*100, 'f', -1, 64) + " %"
}

func describeHeaders(h *mesh.HeaderRules) string {
	var out []string
	ops := func(what string, o *mesh.HeaderOps) {
		for _, nv := range o.Set {
			out = append(out, what+" gets "+nv.Name)
		}
		for _, nv := range o.Add {
			out = append(out, what+" gets one more "+nv.Name)
		}
		for _, n := range o.Remove {
			out = append(out, what+" loses "+n)
		}
	}
	ops("request", &h.Request)
	ops("reply", &h.Response)
	return strings.Join(out, ", ")
}

// explainTimes says what may be tried again, and how long all of it can take.
func (x *exchange) explainTimes(e *explain.Explanation) {
	p := x.route.retries
	total := time.Duration(0)
	if deadline := x.deadlineFrom(x.start); deadline != 0 {
		total = time.Duration(deadline - x.start)
		e.Timeout = total.String()
	}
	out := &explain.Retries{Attempts: p.Attempts, On: describeRetryOn(p), Source: p.Source.String()}
	e.Retries = out
	per := p.PerTryTimeout
	if per != 0 {
		out.PerTry = per.String()
	}
	if total != 0 && (per == 0 || per > total) {
		per = total
	}
	failover := x.longestConnect()
	if per != 0 {
		failover = min(failover, per)
	}
	backoff := p.LongestBackoffs()
	because := []string{"1 try"}
	if p.Attempts > 0 {
		because = append(because, "up to "+count(p.Attempts, "retry", "retries"))
	}
	within := ""
	if per != 0 {
		within = " of at most " + per.String()
	}
	because[len(because)-1] += within
	endpoints, forgets := x.endpoints()
	others, tries := endpoints-1, 1+p.Attempts
	if forgets {
		others *= tries
	}
	others = min(others, maxFailovers)
	if x.idempotent() { // see retryPlan.again
		because = append(because, "1 more try"+within+" where its connection is lost")
		others, tries = min(others, maxFailovers-1), tries+1
	}
	if others > 0 {
		because = append(because, fmt.Sprintf("up to %s, each for at most %s, where nothing could be sent", count(others, "more endpoint", "more endpoints"), failover))
	}
	if backoff > 0 {
		because = append(because, fmt.Sprintf("at most %s of waiting in between", backoff))
	}
	out.Because = strings.Join(because, "; ")
	worst := mesh.Times(tries, per) + time.Duration(max(others, 0))*failover + backoff
	switch {
	case per == 0 && total == 0:
		out.Because += "; no time-out ends a try that an endpoint has taken and does not answer"
	case total != 0 && worst >= total:
		out.Worst = total.String()
		out.Because += "; the time-out ends all of it"
		if p.Attempts > 0 && p.PerTryTimeout != 0 && mesh.Times(1+p.Attempts, per) > total {
			out.Because += fmt.Sprintf(", so that %d of the %d tries can take their whole time", int(total/per), 1+p.Attempts)
		}
	default:
		out.Worst = worst.String()
	}
	if f := x.route.fault; f != nil && f.DelayShare > 0 && out.Worst != "" {
		out.Because += fmt.Sprintf("; and %s before it for %s of requests", f.Delay, fraction(f.DelayShare))
	}
}

// endpoints is how many the route leads to; forgets: a retry may go to those again that
// have been tried, see retryPlan.forget.
func (x *exchange) endpoints() (n int, forgets bool) {
	all := map[netip.AddrPort]bool{}
	for i := range x.route.destinations {
		u := x.upstream(x.route.destinations[i].target)
		forgets = forgets || u.hash != nil
		for _, m := range u.members {
			all[m.address] = true
		}
	}
	if ignore := x.route.retries.IgnorePreviousHosts; ignore != nil {
		forgets = !*ignore
	}
	return len(all), forgets
}

// longestConnect is the longest connect time-out of the route's destinations.
func (x *exchange) longestConnect() (d time.Duration) {
	for i := range x.route.destinations {
		if u := x.upstream(x.route.destinations[i].target); u.known {
			d = max(d, time.Duration(u.connectTimeout))
		}
	}
	return cmp.Or(d, defaultConnectTimeout)
}

// describeRetryOn writes the conditions as retryOn has them.
func describeRetryOn(p *mesh.Retries) string {
	words := p.On.Words()
	for _, c := range p.Codes {
		words = append(words, strconv.Itoa(c))
	}
	if p.Attempts == 0 || len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}
