package main

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"isthmus/accesslog"
	"isthmus/explain"
)

// decision is what became, or would become, of a request.
type decision struct {
	refusal   string // "404 NR"; "": it went through
	reason    string
	unknown   bool     // it is refused for what is not known now
	route     string   // "": nobody knows
	upstreams []string // "outbound|80|v1|host", where it may go; none: nobody knows, or nowhere
	standbys  []string // likewise, where it may go when none of these can serve
	went      bool     // upstreams is where it has gone
	nobody    string   // why no endpoint is known of any of these, as of services that gossip tells of; "": there is one
	lacking   string   // what the refusal is as long as there is none, "503 UH"
	answer    string   // "301 to /new", of the proxy itself in the place of an upstream; "": none, or nobody knows
	source    string   // of what decides
}

func decisionOf(e *explain.Explanation) decision {
	var d decision
	if e.Route != nil {
		d.route, d.source = e.Route.Name, e.Route.Source
	}
	for _, to := range e.Destinations {
		list := &d.upstreams
		switch {
		case to.Standby:
			list = &d.standbys
		case to.Drawn == 0:
			continue
		}
		*list = append(*list, fmt.Sprintf("%s|%d|%s|%s", "outbound", to.Port, to.Subset, to.Host))
	}
	if a := e.Answer; a != nil {
		d.answer = strings.TrimSuffix(fmt.Sprintf("%d to %s", a.Status, a.Location), " to ")
	}
	switch {
	case e.Flag == "FI": // a fault of every request; those of a part are no matter of one
		d.answer = fmt.Sprintf("%d by a fault", e.Status)
		d.upstreams, d.standbys = nil, nil
	case e.Flag == noEndpoint || e.Unheard:
		d.nobody, d.lacking = e.Reason, strconv.Itoa(e.Status)+" "+e.Flag
	case e.Outcome == explain.Refused:
		d.refusal, d.reason = strconv.Itoa(e.Status)+" "+e.Flag, e.Reason
		switch {
		case e.Access != nil && e.Access.Verdict == "refused":
			d.source = e.Access.Source
		default:
			for _, l := range e.Limits {
				if l.Refused {
					d.source = l.Source
				}
			}
		}
	}
	return d
}

// noEndpoint is the flag of requests for which no endpoint can serve.
const noEndpoint = "UH"

// recorded is what a line says was done.
func recorded(rec *accesslog.Record) decision {
	d := decision{route: rec.Route}
	if place.MatchString(d.route) {
		d.route = "" // other lines shift it
	}
	for _, r := range refusals {
		if strings.HasPrefix(rec.Details, r.details) {
			status := rec.Status
			if status == http.StatusOK { // a call of gRPC, whose status is not in the line
				status = r.status
			}
			d.refusal, d.unknown = fmt.Sprintf("%d %s", status, cmp.Or(rec.Flags, "-")), r.unknown
			return d
		}
	}
	if strings.HasPrefix(rec.Details, "fault_filter_abort") {
		return d // nor does Envoy's line know where it would have gone
	}
	if direction, rest, ok := strings.Cut(rec.Upstream, "|"); ok && direction == "outbound" {
		d.upstreams, d.went = []string{"outbound|" + rest}, true
	}
	return d
}

// refusals are the details of exchanges that were refused before they went
// anywhere, with the status that they get. What endpoints have failed at says
// nothing of a configuration. Of some nobody knows why they were: for tokens, which a log
// has not, and by services that are not asked now.
var refusals = []struct {
	details string
	status  int
	unknown bool
}{
	{"route_not_found", 404, false}, {"cluster_not_found", 503, false}, {"rbac_access_denied", 403, false}, {"jwt_authn_access_denied", 401, true}, {"local_rate_limited", 429, false},
	{"request_rate_limited", 429, true}, {"downstream_protocol_error", 400, false}, {"ext_authz_denied", 403, true}, {"misdirected_request", 421, false},
}

// place is a name of a route that is no name, but where it stands.
var place = regexp.MustCompile(`:\d+$`)

// differs says what of a decision is another one; "": nothing that is known.
func (was decision) differs(now decision) (what, old, new string) {
	reason := func(d decision) string {
		if d.reason != "" {
			return d.refusal + ": " + d.reason
		}
		return d.refusal
	}
	switch {
	case was.refusal == "" && now.refusal != "":
		return "refused", cmp.Or(was.route, strings.Join(was.upstreams, " or "), "let through"), reason(now)
	case was.unknown && now.refusal == "":
		return "", "", ""
	case was.refusal != "" && now.refusal == "":
		return "let through", reason(was), cmp.Or(now.route, strings.Join(now.upstreams, " or "))
	case was.refusal != now.refusal:
		return "refused otherwise", reason(was), reason(now)
	case was.refusal != "":
		return "", "", ""
	case was.route != "" && now.route != "" && was.route != now.route && !(place.MatchString(was.route) && (was.answer != now.answer || slices.Equal(was.upstreams, now.upstreams))):
		return "route", was.route, now.route
	case now.answer != was.answer && (was.answer != "" || len(was.upstreams) > 0) && (now.answer != "" || len(now.upstreams) > 0):
		return "answer", cmp.Or(was.answer, strings.Join(was.upstreams, " or ")), cmp.Or(now.answer, strings.Join(now.upstreams, " or "))
	case len(was.upstreams) > 0 && len(now.upstreams) > 0 && !slices.ContainsFunc(was.upstreams, func(u string) bool {
		same := func(o string) bool { return sameUpstream(u, o) }
		return slices.ContainsFunc(now.upstreams, same) || was.went && slices.ContainsFunc(now.standbys, same)
	}):
		return "destination", strings.Join(was.upstreams, " or "), strings.Join(now.upstreams, " or ")
	}
	return "", "", ""
}

// sameUpstream reports whether two upstreams are one; of a service that is not known
// neither is the port, which is 0 then.
func sameUpstream(a, b string) bool {
	x, y := strings.SplitN(a, "|", 3), strings.SplitN(b, "|", 3)
	return a == b || len(x) == 3 && len(y) == 3 && x[2] == y[2] && (x[1] == "0" || y[1] == "0")
}
