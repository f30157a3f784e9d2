package admin

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"isthmus/telemetry"
)

// Bounds of how many troubles are shown of those that no id is given for.
const (
	defaultTroubles = 100
	maxTroubles     = 10000
)

// why shows what is known of the requests with an id, or of the latest that
// failed or were slow.
func why(s State) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if id := q.Get("id"); id != "" {
			list := s.Why(id)
			reply(w, r, list, func(o io.Writer) { WriteWhy(o, id, list) })
			return
		}
		if q.Has("offset") || q.Has("q") {
			list(func(q url.Values) []telemetry.Trouble { return filter(s.Troubles(maxTroubles), q, troubleTexts) }, WriteTroubles)(w, r)
			return
		}
		n := defaultTroubles
		if text := q.Get("limit"); text != "" {
			var err error
			if n, err = strconv.Atoi(text); err != nil || n < 1 || n > maxTroubles {
				http.Error(w, fmt.Sprintf("limit=%s: write a number from 1 to %d", text, maxTroubles), http.StatusBadRequest)
				return
			}
		}
		list := s.Troubles(n)
		reply(w, r, list, func(o io.Writer) { WriteTroubles(o, list) })
	}
}

// WriteWhy writes what is known of the requests with an id, for people.
func WriteWhy(w io.Writer, id string, list []telemetry.Trouble) {
	if len(list) == 0 {
		fmt.Fprintf(w, "nothing is known of %s: it did not fail here and was not slow, or it was so long ago that others have taken its place\n", id)
		return
	}
	for i := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		writeTrouble(w, &list[i])
	}
}

func writeTrouble(w io.Writer, t *telemetry.Trouble) {
	for i, line := range t.Why {
		if line = oneCell(line); i > 0 {
			line = "  " + line
		}
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "request\t%s %s\n", dash(t.Method), oneCell(t.Authority+t.Path))
	fmt.Fprintf(tab, "id\t%s\n", oneCell(t.ID))
	fmt.Fprintf(tab, "when\t%s, for %s\n", t.Time.UTC().Format(time.RFC3339Nano), lasted(t.Duration))
	from := t.Peer
	if t.Identity != "" {
		from += ", " + t.Identity
	}
	fmt.Fprintf(tab, "from\t%s, by the %s listener\n", from, t.Listener)
	fmt.Fprintf(tab, "answer\t%d, flags %s, %s\n", t.Status, t.Flags, t.Detail)
	if t.Route != nil {
		fmt.Fprintf(tab, "route\t%s %s\n", t.Route.Name, unlessSame(t.Route.Source, t.Route.Name))
	}
	for i, a := range t.Attempts {
		fmt.Fprintf(tab, "try %d\t%s in %s, of %s, after %s for %s: %s\n", i+1, a.Endpoint, dash(a.Cluster), a.Upstream, lasted(a.Began), lasted(a.Took), oneCell(attempted(a)))
	}
	if r := t.Refusal; r != nil {
		fmt.Fprintf(tab, "refused by\t%s %s %s\n", r.By, r.Policy, r.Source)
	}
	fmt.Fprintf(tab, "snapshot\t%d, configuration %s\n", t.Snapshot, dash(t.Config))
	tab.Flush()
}

func attempted(a telemetry.Attempt) string {
	switch {
	case a.Failure != "" && a.Cause != "":
		return a.Failure + ": " + a.Cause
	case a.Failure != "" && a.Status != 0:
		return fmt.Sprintf("%d, thrown away: %s", a.Status, a.Failure)
	case a.Failure != "":
		return a.Failure
	}
	return strconv.Itoa(a.Status)
}

func unlessSame(s, other string) string {
	if s == other {
		return ""
	}
	return s
}

// lasted writes how many seconds something took, with three digits.
func lasted(seconds float64) string {
	switch ms := 1000 * seconds; {
	case ms < 999.5:
		return fmt.Sprintf("%.3g ms", ms)
	case seconds < 99.95:
		return fmt.Sprintf("%.3g s", seconds)
	}
	return fmt.Sprintf("%.0f s", seconds)
}

// ofToday is for how long a time alone says when something was; the console's
// lists.js has the same.
const ofToday = 12 * time.Hour

// WriteTroubles writes the latest requests that failed or were slow, a line each.
func WriteTroubles(w io.Writer, list []telemetry.Trouble) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tSTATUS\tFLAGS\tREQUEST\tID\tWHY")
	for i := range list {
		r := &list[i]
		at := r.Time.UTC().Format("15:04:05.000")
		if time.Since(r.Time) > ofToday {
			at = r.Time.UTC().Format(time.DateTime) // where few fail, the latest are old
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s %s\t%s\t%s\n", at, r.Status, r.Flags, dash(r.Method), oneCell(r.Authority+r.Path), oneCell(r.ID), oneCell(r.Why[0]))
	}
	t.Flush()
}

// oneCell keeps a text that others have written within its column and line: an id may
// hold a tab, and what is behind it would stand where others say why.
func oneCell(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

func troubleTexts(b []byte, t *telemetry.Trouble) []byte {
	b = texts(b, t.ID, strconv.Itoa(t.Status), t.Flags, t.Detail, t.Method, t.Authority, t.Path, t.Listener, t.Peer, t.Identity)
	b = texts(b, t.Why...)
	if t.Route != nil {
		b = texts(b, t.Route.Host, t.Route.Name, t.Route.Source)
	}
	if t.Refusal != nil {
		b = texts(b, t.Refusal.Policy, t.Refusal.Source)
	}
	for _, a := range t.Attempts {
		b = texts(b, a.Upstream, a.Endpoint, a.Cluster)
	}
	return b
}
