package admin

import (
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"isthmus/canary"
	"isthmus/history"
)

// Canary is the configuration that is tried beside the one in force.
type Canary struct {
	State   canary.State    `json:"state"` // "": there is none
	Hash    string          `json:"hash"`
	Why     string          `json:"why"`     // of one that was taken back or refused, or stays in its stage; without one, why nothing is tried
	Percent float64         `json:"percent"` // of the requests that it decides
	Stage   int             `json:"stage"`   // 0: shadow
	Stages  int             `json:"stages"`
	Age     float64         `json:"age"`     // seconds in this stage
	Changes history.Changes `json:"changes"` // against what is in force

	Candidate Side `json:"candidate"` // what became of its requests in this stage
	Current   Side `json:"current"`   // and of the others

	canary.Compare // of decisions, since the trial began
}

// Side is what became of the requests that one configuration decides.
type Side struct {
	canary.Counts
	P50 float64 `json:"p50"` // seconds until the reply began, of those that were served
	P90 float64 `json:"p90"`
}

// NewSide makes a side of counts.
func NewSide(c canary.Counts) Side {
	return Side{c, c.Quantile(0.5).Seconds(), c.Quantile(0.9).Seconds()}
}

// serveCanary enters the page of the candidate.
func serveCanary(mux *http.ServeMux, s State) {
	mux.HandleFunc("GET /config/canary", func(w http.ResponseWriter, r *http.Request) {
		c := s.Canary()
		reply(w, r, c, func(o io.Writer) { WriteCanary(o, c) })
	})
	mux.HandleFunc("POST /config/canary", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Steer(r.URL.Query().Get("do")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		c := s.Canary()
		reply(w, r, c, func(o io.Writer) { WriteCanary(o, c) })
	})
}

// String says in a few words how far it has come.
func (c *Canary) String() string {
	switch c.State {
	case canary.None:
		if c.Why != "" {
			return "none: " + c.Why
		}
		return "none"
	case canary.Shadow:
		return fmt.Sprintf("%s, in shadow for %s: %d requests compared, %d decided otherwise", c.Hash, age(c.Age), c.Compared, c.Different)
	case canary.Partial:
		return fmt.Sprintf("%s, %g %% of the requests for %s: %d, of which %d failed and %d were refused", c.Hash, c.Percent, age(c.Age), c.Candidate.Requests, c.Candidate.Failed, c.Candidate.Refused)
	case canary.Promoted:
		return c.Hash + ", promoted: it is in force until the files change"
	case canary.Waiting:
		return c.Hash + ", tried by other proxies"
	}
	return fmt.Sprintf("%s, %s: %s", c.Hash, c.State, c.Why)
}

// WriteCanary writes it for people.
func WriteCanary(w io.Writer, c Canary) {
	if c.State == canary.None {
		fmt.Fprint(w, "there is no candidate configuration")
		if c.Why != "" {
			fmt.Fprintf(w, ": %s", c.Why)
		}
		fmt.Fprintln(w)
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "candidate\t%s\n", c.String())
	if c.State.Live() {
		fmt.Fprintf(t, "stage\t%d of %d\n", c.Stage, c.Stages)
		if c.Why != "" {
			fmt.Fprintf(t, "stays\t%s\n", c.Why)
		}
	}
	fmt.Fprintf(t, "changes\t%s\n", changed(c.Changes))
	t.Flush()
	if c.Candidate.Requests > 0 || c.Current.Requests > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "DECIDED BY\tREQUESTS\tFAILED\tREFUSED\tP50\tP90")
		for _, side := range []struct {
			name string
			Side
		}{{"candidate", c.Candidate}, {"current", c.Current}} {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\n", side.name, side.Requests, side.Failed, side.Refused, lasted(side.P50), lasted(side.P90))
		}
		t.Flush()
	}
	if c.Compared > 0 {
		fmt.Fprintf(w, "\n%d requests compared, %d decided otherwise\n", c.Compared, c.Different)
	}
	if len(c.Differences) > 0 {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "COUNT\tIN\tCURRENT\tCANDIDATE\tSOURCE\tEXAMPLE")
		for _, d := range c.Differences {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", d.Count, d.Kind, d.Current, d.Candidate, dash(d.Source), d.Example)
		}
		t.Flush()
	}
}
