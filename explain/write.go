package explain

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Write writes an explanation for people: what becomes of the request first, then
// how that comes about, in the order in which a request meets it. Where something
// comes from stands behind it, as FILE:LINE.
func Write(w io.Writer, e *Explanation) error {
	p := &printer{}
	p.line("%s", e.Request)
	p.line("on the %s listener of %s, configuration %s", e.Listener, e.Node, e.Snapshot.Hash)
	p.line("")
	p.outcome(e)
	p.line("")
	p.way(e)
	for i := range e.Destinations {
		p.destination(e, i)
	}
	p.rest(e)
	_, err := io.WriteString(w, strings.TrimRight(p.String(), "\n")+"\n")
	return err
}

type printer struct{ strings.Builder }

func (p *printer) line(format string, args ...any) {
	p.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

// labelWidth is that of the words on the left.
const labelWidth = 13

// item writes a labelled line, with its source behind it.
func (p *printer) item(label, source, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if source != "" {
		text += "  [" + source + "]"
	}
	p.line("%-*s %s", labelWidth, label, text)
}

func (p *printer) outcome(e *Explanation) {
	switch e.Outcome {
	case Refused:
		p.line("=> refused: %s", status(e))
		if e.Reason != "" {
			p.line("   %s", e.Reason)
		}
	case Redirected:
		p.line("=> redirected: %d to %s", e.Answer.Status, e.Answer.Location)
	case Answered:
		p.line("=> answered by the proxy: %d %s", e.Answer.Status, e.Answer.Body)
	case PassedOn:
		if e.Host == "" {
			p.line("=> passed on as it comes")
		} else {
			p.line("=> passed on as it comes, TLS and all")
		}
		p.shares(e)
	default:
		p.line("=> sent on")
		p.shares(e)
	}
}

// shares writes what each destination gets, as things are.
func (p *printer) shares(e *Explanation) {
	for _, d := range e.Destinations {
		if d.Percent > 0 {
			to := name(&d)
			if d.There.refuses() {
				to += ", WHICH REFUSES IT (see there)"
			}
			p.line("   %7s  to %s", percent(d.Percent), to)
		}
	}
	lost := 0.0
	for _, d := range e.Destinations {
		lost += d.Drawn - d.Percent
	}
	if lost > 0.05 {
		p.line("   %7s  to nobody: 503", percent(lost))
	}
}

func status(e *Explanation) string {
	out := strconv.Itoa(e.Status)
	if e.Status == 0 {
		out = "no answer"
	}
	if e.Flag != "" && e.Flag != "-" {
		out += " " + e.Flag
	}
	return out + " (" + e.Detail + ")"
}

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) + " %" }

func name(d *Destination) string {
	out := d.Host
	if d.Port != 0 {
		out += ":" + strconv.FormatUint(uint64(d.Port), 10)
	}
	if d.Subset != "" {
		out += ", subset " + d.Subset
	}
	return out
}

// way writes what the request meets up to its route.
func (p *printer) way(e *Explanation) {
	if e.Host != "" {
		p.item("host", "", "%s", e.Host)
	}
	if a := e.Access; a != nil {
		p.access(a)
	}
	if e.TriedMore > 0 {
		p.item("not", "", "%d routes before these", e.TriedMore)
	}
	for _, t := range e.Tried {
		text := strings.Join(t.Misses, "; or ")
		if t.Name != "" {
			text = t.Name + ": " + text
		}
		p.item("not", t.Source, "%s", text)
	}
	if r := e.Route; r != nil {
		text := r.Name
		if r.Name == r.Source && r.Resource != "" || r.Name == "" {
			text = r.Resource
		} else if r.Resource != "" {
			text += " of " + r.Resource
		}
		p.item("route", r.Source, "%s: %s", text, r.Match)
	}
}

// refuses reports whether a request does not get through.
func (a *Access) refuses() bool {
	return a != nil && (a.Refused != "" || a.Verdict == "refused" || a.Token == "refused")
}

// there writes what the other end would say.
func (p *printer) there(a *Access) {
	switch {
	case a.Refused != "":
		p.item("  there", a.ModeFrom, "!! refused: %s", a.Refused)
	case a.Token == "refused":
		p.item("  there", strings.Join(a.TokenSource, ", "), "!! refused, for its token: %s", a.TokenSays)
	case a.Verdict == "refused" && a.Field == "":
		p.item("  there", a.Source, "!! refused by %s", a.By)
	case a.Verdict == "refused":
		p.item("  there", a.Source, "!! refused: no policy allows it; nearest is %s, but for %s", a.By, a.Field)
	case a.By != "":
		p.item("  there", a.Source, "allowed by %s", a.By)
	default:
		p.item("  there", a.ModeFrom, "allowed: no policy refuses it")
	}
	for _, s := range a.Asks {
		p.item("", "", "asks %s; taken as a yes", s)
	}
}

func (p *printer) access(a *Access) {
	caller := a.Caller
	if caller == "" {
		caller = "nobody that is known: plain text, or no certificate"
	}
	p.item("caller", "", "%s", caller)
	if a.Mode != "" {
		source := a.ModeFrom
		if source == "" {
			source = "default"
		}
		p.item("mTLS", source, "%s", a.Mode)
	}
	switch a.Token {
	case "not read":
	case "none":
		p.item("token", strings.Join(a.TokenSource, ", "), "none, which is no reason to refuse")
	case "unverified":
		p.item("token", strings.Join(a.TokenSource, ", "), "%s; taken as good, as there are no keys here to verify it with", a.TokenSays)
	default:
		p.item("token", strings.Join(a.TokenSource, ", "), "%s: %s", a.Token, a.TokenSays)
	}
	for _, s := range a.Asks {
		p.item("asks", "", "%s; not asked now, taken as a yes", s)
	}
	for _, s := range a.Counts {
		p.item("counted", "", "%s fits, and decides nothing", s)
	}
	switch {
	case a.Verdict == "refused":
		p.item("policies", a.Source, "refused, as said above")
	case a.Verdict == "allowed" && a.By != "":
		p.item("policies", a.Source, "allowed by %s", a.By)
	case a.Verdict == "allowed":
		p.item("policies", "", "none is for this proxy that would refuse it")
	}
}

func (p *printer) destination(e *Explanation, i int) {
	d := &e.Destinations[i]
	p.line("")
	head := name(d)
	switch {
	case d.Standby:
		head += ": a standby, for when no other destination can serve"
	case len(e.Destinations) > 1:
		head += fmt.Sprintf(": weight %d, %s", d.Weight, percent(d.Drawn))
	}
	if d.Percent > d.Drawn+0.05 {
		head += fmt.Sprintf("; gets %s, as others cannot serve", percent(d.Percent))
	}
	p.item("destination", "", "%s", head)
	if d.Problem != "" {
		p.item("", "", "!! %s", d.Problem)
	}
	if d.There != nil {
		p.there(d.There)
	}
	p.endpoints(d)
	for _, b := range d.Policies {
		source := b.Source
		if source == "" {
			source = "default"
		}
		p.item("  policy", source, "%s: %s", b.Block, b.Says)
	}
}

// maxEndpoints bounds how many endpoints of a destination are written out.
const maxEndpoints = 20

func (p *printer) endpoints(d *Destination) {
	if len(d.Endpoints) == 0 {
		return
	}
	p.item("  endpoints", "", "%d, %s", len(d.Endpoints), d.Balancing)
	for i, ep := range d.Endpoints {
		if i == maxEndpoints {
			p.line("%-*s   and %d more", labelWidth, "", len(d.Endpoints)-i)
			break
		}
		text := fmt.Sprintf("%7s  P%d  %-21s  %s", percent(ep.Percent), ep.Priority, ep.Address, ep.Wire)
		if ep.Cluster != "" {
			text += ", " + ep.Cluster
		}
		if ep.Locality != "" {
			text += ", " + ep.Locality
		}
		if ep.ByName {
			text += ": by DNS at run time"
		}
		if ep.Reason != "" {
			text += ": " + ep.Reason
		}
		if ep.LastResort {
			text += " (last resort)"
		}
		p.line("%-*s %s", labelWidth, "", text)
	}
}

// rest writes what holds for the whole exchange.
func (p *printer) rest(e *Explanation) {
	if e.Retries == nil && len(e.Limits)+len(e.Notes)+len(e.Effects) == 0 {
		return
	}
	p.line("")
	if r := e.Retries; r != nil {
		p.item("time-out", "", "%s", orNone(e.Timeout))
		source := r.Source
		if source == "" {
			source = "default"
		}
		text := "none"
		if r.Attempts > 0 {
			text = fmt.Sprintf("%d on %s", r.Attempts, r.On)
			if r.PerTry != "" {
				text += ", each try within " + r.PerTry
			}
		}
		p.item("retries", source, "%s", text)
		worst := "at worst " + r.Worst
		if r.Worst == "" {
			worst = "no bound"
		}
		p.item("", "", "%s: %s", worst, r.Because)
	}
	for _, f := range e.Effects {
		p.item("besides", f.Source, "%s: %s", f.Name, f.Says)
	}
	for _, l := range e.Limits {
		p.item("limit", l.Source, "%s", l.Says)
		for _, d := range l.Descriptors {
			p.item("", "", "  descriptor %s", d)
		}
	}
	for _, n := range e.Notes {
		p.item("note", "", "%s", n)
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
