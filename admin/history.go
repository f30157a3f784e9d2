package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"isthmus/history"
)

// serveHistory enters the pages of the configuration's history.
func serveHistory(mux *http.ServeMux, s State) {
	mux.HandleFunc("GET /config/history", func(w http.ResponseWriter, r *http.Request) {
		list := s.History()
		reply(w, r, list, func(o io.Writer) { WriteHistory(o, list) })
	})
	mux.HandleFunc("GET /config/diff", func(w http.ResponseWriter, r *http.Request) {
		from, to, err := revisions(s.History(), r.URL.Query().Get("from"), r.URL.Query().Get("to"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d, err := s.Diff(from, to)
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, r, d, func(o io.Writer) { WriteDiff(o, d) })
	})
	mux.HandleFunc("POST /config/rollback", func(w http.ResponseWriter, r *http.Request) {
		to, err := strconv.ParseUint(r.URL.Query().Get("to"), 10, 64)
		if err != nil {
			http.Error(w, "to=REVISION is missing, or no number", http.StatusBadRequest)
			return
		}
		done, err := s.Rollback(r.Context(), to)
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, r, done, func(o io.Writer) { WriteRollback(o, done) })
	})
}

// fail answers that something cannot be done: 404 of a revision that nobody
// knows, else 409.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusConflict
	if errors.Is(err, history.ErrUnknown) {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}

// revisions reads which two are to be compared: by default what was in force
// before with what is, or one with what is in force. list has the latest first.
func revisions(list []history.Revision, from, to string) (a, b uint64, err error) {
	accepted := slices.DeleteFunc(slices.Clone(list), func(r history.Revision) bool { return r.Refused() })
	number := func(name, text string, place int) (uint64, error) {
		if text == "" {
			if place >= len(accepted) {
				return 0, errors.New("there has been one configuration only since the history began")
			}
			return accepted[place].Number, nil
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s=%s: write the number of a revision", name, text)
		}
		return n, nil
	}
	if b, err = number("to", to, 0); err != nil {
		return 0, 0, err
	}
	a, err = number("from", from, 1)
	return a, b, err
}

// WriteHistory writes the revisions for people.
func WriteHistory(w io.Writer, list []history.Revision) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REVISION\tTIME\tHASH\tSTATE\tORIGIN\tRESOURCES\tCHANGES")
	for i := range list {
		r := &list[i]
		state := "accepted"
		switch {
		case r.Refused():
			state = "refused"
		case r.InForce:
			state = "in force"
		}
		if !r.Kept {
			state += ", not kept"
		}
		origin := string(r.Origin)
		if r.Of != 0 {
			origin += fmt.Sprintf(" to %d", r.Of)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d\t%s\n", r.Number, r.Time.UTC().Format(time.DateTime), r.Hash, state, origin, r.Resources, changed(r.Changes))
	}
	t.Flush()
	for i := range list {
		if r := &list[i]; r.Refused() {
			fmt.Fprintf(w, "\n%d was refused:\n%s\n", r.Number, r.Error)
			break // the latest; JSON has all
		}
	}
}

// maxNamed bounds how many resources one line names.
const maxNamed = 4

// changed writes changes on a line: "+VirtualService a/b ~DestinationRule c/d".
func changed(c history.Changes) string {
	if c.Empty() {
		return "-"
	}
	var parts []string
	for _, l := range []struct {
		mark string
		list []history.Resource
	}{{"~", c.Changed}, {"+", c.Added}, {"-", c.Removed}} {
		for _, r := range l.list {
			parts = append(parts, l.mark+r.String())
		}
	}
	named := min(len(parts), maxNamed)
	switch more := len(parts) - named + c.More; {
	case named == 0:
		return "not known" // what was in force before is not kept
	case more > 0:
		parts = append(parts[:named], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, " ")
}

// WriteDiff writes how two revisions differ, resource by resource.
func WriteDiff(w io.Writer, d *history.Difference) {
	if d.Changes.Empty() {
		fmt.Fprintf(w, "revisions %d and %d declare the same\n", d.From, d.To)
		return
	}
	for _, c := range d.Lines {
		mark := "changed"
		switch {
		case slices.ContainsFunc(d.Changes.Added, func(r history.Resource) bool { return r.String() == c.Resource }):
			mark = "added"
		case slices.ContainsFunc(d.Changes.Removed, func(r history.Resource) bool { return r.String() == c.Resource }):
			mark = "removed"
		}
		fmt.Fprintf(w, "%s %s (%s)\n", c.Resource, mark, c.Source)
		for _, l := range c.Lines {
			fmt.Fprintf(w, "  %s\n", l)
		}
	}
	if d.Changes.More > 0 {
		fmt.Fprintf(w, "and %d resources more\n", d.Changes.More)
	}
}

// WriteRollback writes what a rollback has done.
func WriteRollback(w io.Writer, r history.Revision) {
	fmt.Fprintf(w, "revision %d is in force, the configuration of revision %d: until the files change\n", r.Number, r.Of)
}
