package proxy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"isthmus/canary"
	"isthmus/explain"
	"isthmus/mesh"
)

func saltOf(hash string) uint64 { return xxhash.Sum64String(hash) }

// pin decides which of two configurations the request meets, while a candidate is
// on trial: its table from here on, or the one in force, with a look, for some, at
// what the candidate would do.
func (x *exchange) pin(tr *trial) {
	switch {
	case tr.Share > 0 && tr.place(x) < tr.Share:
		x.table = tr.table
	case x.conn.proxy.hit(tr.Sample):
		tr.compare(x)
	}
}

// place is where among all requests this one is: the same for the same value of
// the header that the trial sticks to, on every proxy, so that who was once among
// the candidate's stays there as its share grows.
func (tr *trial) place(x *exchange) mesh.Fraction {
	value, ok := headerValue(&x.req, tr.Sticky)
	if !ok {
		value = x.requestIDText()
	}
	var h xxhash.Digest
	h.ResetWithSeed(tr.salt)
	h.Write(value)
	return mesh.Fraction(h.Sum64() % uint64(mesh.AllRequests))
}

// verdict is how the decisions of two routes differ; an empty kind: they do not.
type verdict struct{ canary.Difference }

// compare has both configurations decide about the request, without a trace, and
// counts how that differs.
func (tr *trial) compare(x *exchange) {
	current, theirs := x.preview(x.table), x.preview(tr.table)
	defer current.forget()
	defer theirs.forget()
	if tr.Share == 0 {
		tr.counts.current.Count(tr.outcome(current), 0)
		tr.counts.candidate.Count(tr.outcome(theirs), 0)
	}
	d := tr.difference(current, theirs)
	if d.Kind == "" {
		tr.counts.seen.Compared()
		return
	}
	tr.counts.seen.Add(d, func() string {
		return keep(x.req.Method, maxKeptText) + " " + keep(x.req.Authority, maxKeptText) + keep(x.req.Path, maxKeptText)
	})
}

// preview is what a table decides about a copy of the request.
func (x *exchange) preview(t *table) *exchange {
	y := exchanges.Get().(*exchange)
	fields := append(y.req.Fields[:0], x.req.Fields...)
	y.conn, y.table, y.req, y.start, y.clock = x.conn, t, x.req, x.start, x.clock
	y.req.Fields = fields
	y.asked = &inquiry{access: &explain.Access{}}
	y.kind = y.decide()
	return y
}

// forget gives a preview's memory back.
func (y *exchange) forget() {
	y.asked, y.refusal, y.badToken = nil, nil, nil
	y.release()
}

// outcome is what would become of a request, as far as that can be told without
// sending it.
func (tr *trial) outcome(y *exchange) canary.Outcome {
	if y.kind != NoError {
		return canary.Refused
	}
	r := y.route
	if len(r.destinations) == 0 || slices.ContainsFunc(r.destinations, func(d destination) bool { return tr.reaches(d.target) }) {
		return canary.Served
	}
	return canary.Failed
}

// reaches reports whether a destination exists and has an endpoint.
func (tr *trial) reaches(t *target) bool {
	if known, ok := tr.reach.Load(t); ok {
		return known.(bool)
	}
	r := t.resolve()
	ok := r.known && len(r.endpoints) > 0
	tr.reach.Store(t, ok)
	return ok
}

// difference says how two decisions about one request differ.
func (tr *trial) difference(a, b *exchange) (d canary.Difference) {
	switch {
	case a.kind == NoError && b.kind == NoError:
		k := [2]*route{a.route, b.route}
		if v, ok := tr.verdicts.Load(k); ok {
			return v.(*verdict).Difference
		}
		v := &verdict{compareRoutes(a.route, b.route)}
		tr.verdicts.Store(k, v)
		return v.Difference
	case a.kind == b.kind:
		return d
	}
	return canary.Difference{Kind: "refusal", Current: a.decision(), Candidate: b.decision(), Source: sourceOf(b, a)}
}

// decision says what became of a preview.
func (y *exchange) decision() string {
	switch y.kind {
	case NoError:
		return y.route.says()
	case Forbidden:
		return "403: " + y.refusal.Error()
	case Unauthorized:
		return fmt.Sprintf("%d: %s", y.badToken.Status, y.badToken.Body)
	}
	return fmt.Sprintf("%d %s", answers[y.kind].status, strings.ReplaceAll(answers[y.kind].detail, "_", " "))
}

// sourceOf is the place of the rule that decides in the first of the exchanges
// that one does in.
func sourceOf(list ...*exchange) string {
	for _, y := range list {
		if r := y.refusal; r != nil && r.Policy != nil {
			return r.Policy.Source.String()
		}
		if y.route != nil && y.route.rule.Source.File != "" {
			return y.route.rule.Source.String()
		}
	}
	return ""
}

// compareRoutes compares what two routes do, wherever they stand and whatever
// they are called.
func compareRoutes(a, b *route) (d canary.Difference) {
	kind := ""
	switch {
	case !slices.EqualFunc(a.destinations, b.destinations, func(x, y destination) bool {
		return x.target.key == y.target.key && x.weight == y.weight && x.standby == y.standby
	}):
		kind = "destination"
	case !sameSettings(a.rule, b.rule):
		kind = "route"
	default:
		return d
	}
	source := b.rule.Source
	if source.File == "" {
		source = a.rule.Source
	}
	return canary.Difference{Kind: kind, Current: a.says(), Candidate: b.says(), Source: source.String()}
}

// sameSettings reports whether two rules do the same to a request, but for where
// it goes.
func sameSettings(a, b *mesh.HTTPRoute) bool {
	bare := func(r *mesh.HTTPRoute) mesh.HTTPRoute {
		c := *r
		c.Name, c.Source, c.Match, c.Delegate, c.Timed = "", mesh.Source{}, nil, nil, false
		c.Route = slices.Clone(r.Route)
		for i := range c.Route {
			c.Route[i].Source, c.Route[i].Destination, c.Route[i].Weight = mesh.Source{}, mesh.Destination{}, 0
		}
		if r.Retries != nil {
			retries := *r.Retries
			retries.Source = mesh.Source{}
			c.Retries = &retries
		}
		return c
	}
	return reflect.DeepEqual(bare(a), bare(b))
}

// says tells what a route does, on a line.
func (r *route) says() string {
	name := r.name
	if s := r.rule.Source.String(); s != "" && s != name {
		name += " (" + s + ")"
	}
	switch {
	case r.redirect != nil:
		return fmt.Sprintf("%s: redirect %d", name, r.redirect.Code)
	case r.direct != nil:
		return fmt.Sprintf("%s: answer %d", name, r.direct.Status)
	case len(r.destinations) == 0:
		return name + ": to nobody"
	}
	var to []string
	for i := range r.destinations {
		d := &r.destinations[i]
		text := fmt.Sprintf("%s:%d", d.target.key.host, d.target.key.port)
		if d.target.key.subset != "" {
			text += " subset " + d.target.key.subset
		}
		if d.standby {
			text += " standby"
		} else if r.totalWeight > 0 && d.weight != r.totalWeight {
			text += fmt.Sprintf(" %.3g %%", 100*float64(d.weight)/float64(r.totalWeight))
		}
		to = append(to, text)
	}
	return name + ": to " + strings.Join(to, ", ")
}

// outcome is what has become of the exchange, for a trial. A call of gRPC is judged
// by its own status.
func (x *exchange) outcome() canary.Outcome {
	status := x.meant()
	switch {
	case x.kind == ClientGone || x.kind == CutOff:
		return canary.Gone
	case status >= 500, x.kind != NoError && status < 400:
		return canary.Failed
	case status >= 400:
		return canary.Refused
	}
	return canary.Served
}
