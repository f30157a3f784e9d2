package admin

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Route is a route as it is shown.
type Route struct {
	Listener     string        `json:"listener"`
	Host         string        `json:"host"`
	Name         string        `json:"name"`
	Match        string        `json:"match"`
	Destinations []Destination `json:"destinations"`
	Source       string        `json:"source"`
}

// Destination is where a route sends to.
type Destination struct {
	Host      string  `json:"host"`
	Subset    string  `json:"subset,omitempty"`
	Port      uint32  `json:"port"`
	Percent   float64 `json:"percent"`
	Standby   bool    `json:"standby,omitempty"`
	Known     bool    `json:"known"`
	Endpoints int     `json:"endpoints"`
	Usable    int     `json:"usable"`
}

// WriteRoutes writes routes for people.
func WriteRoutes(w io.Writer, list []Route) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LISTENER\tHOST\tMATCH\tDESTINATION\tSOURCE")
	for _, r := range list {
		dests := make([]string, len(r.Destinations))
		for i, d := range r.Destinations {
			dests[i] = destination(d)
		}
		if len(dests) == 0 {
			dests = []string{r.Name}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Listener, r.Host, r.Match, strings.Join(dests, ", "), dash(r.Source))
	}
	t.Flush()
}

func destination(d Destination) string {
	s := d.Host
	if d.Port != 0 { // that of a host that nobody knows is not known either
		s += fmt.Sprintf(":%d", d.Port)
	}
	if d.Subset != "" {
		s += " subset " + d.Subset
	}
	switch {
	case !d.Known:
		return s + " (unknown)"
	case d.Standby:
		s += " standby"
	case d.Percent < 100:
		s += fmt.Sprintf(" %.0f%%", d.Percent)
	}
	return fmt.Sprintf("%s (%d/%d)", s, d.Usable, d.Endpoints)
}

func routeTexts(b []byte, r *Route) []byte {
	b = texts(b, r.Listener, r.Host, r.Name, r.Match, r.Source)
	for _, d := range r.Destinations {
		b = texts(b, d.Host, d.Subset)
	}
	return b
}
