package admin

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limit is a rate limit as it is shown.
type Limit struct {
	Name      string   `json:"name"` // the resource: "EnvoyFilter production/local-rate-limit"; of a rule, its domain and descriptor
	Kind      string   `json:"kind"` // "local"; "service": a rate limit service decides; "shared": all proxies together; "none": nobody; "rule": of the latter; "concurrency"
	Source    string   `json:"source"`
	Listeners []string `json:"listeners"`
	Where     string   `json:"where,omitempty"` // host or route; "": all
	Domain    string   `json:"domain,omitempty"`
	Service   string   `json:"service,omitempty"`
	Proxies   int      `json:"proxies,omitempty"`   // how many keep the limit together
	State     string   `json:"state,omitempty"`     // what is wrong
	Shadow    bool     `json:"shadow,omitempty"`    // it only counts
	Candidate bool     `json:"candidate,omitempty"` // the configuration on trial alone has it
	Off       bool     `json:"off,omitempty"`       // it holds for no request: filter_enabled is 0
	Buckets   []Bucket `json:"buckets"`

	Allowed     uint64 `json:"allowed"`
	Limited     uint64 `json:"limited"`     // were too many
	Refused     uint64 `json:"refused"`     // and refused
	WouldRefuse uint64 `json:"wouldRefuse"` // had the limit not been one that only counts
	Failed      uint64 `json:"failed"`      // nobody could tell
}

// Bucket is a token bucket of a limit.
type Bucket struct {
	Descriptor string   `json:"descriptor,omitempty"` // "": of all requests
	Limit      uint32   `json:"limit"`
	PerFill    uint32   `json:"perFill"`
	Interval   float64  `json:"interval"`            // seconds; 0: Limit is how many may be under way
	Remaining  *float64 `json:"remaining,omitempty"` // nil: others know, or each connection has its own
	Shadow     bool     `json:"shadow,omitempty"`

	PerConnection bool `json:"perConnection,omitempty"`
}

func limitText(b []byte, l *Limit) []byte {
	return texts(texts(b, l.Name, l.Kind, l.Where, l.Domain, l.Service, l.State, l.Source), l.Listeners...)
}

// WriteLimits writes limits for people.
func WriteLimits(w io.Writer, list []Limit) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LIMIT\tKIND\tWHERE\tBUCKET\tLEFT\tALLOWED\tREFUSED\tWOULD REFUSE\tUNKNOWN\tSOURCE\tSTATE")
	for _, l := range list {
		where := strings.Join(l.Listeners, ",")
		if l.Where != "" {
			where = l.Where
		}
		if l.Candidate {
			where = strings.TrimSpace("candidate: " + where)
		}
		state := dash(l.State)
		if l.Off {
			state = "off: filter_enabled is 0"
		}
		line := func(name, bucket, left string) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", name, l.Kind, dash(where), bucket, left, l.Allowed, l.Refused, l.WouldRefuse+l.spared(), l.Failed, dash(l.Source), state)
		}
		if len(l.Buckets) == 0 {
			bucket := "-"
			switch {
			case l.Kind == "rule":
				bucket = "unlimited"
			case l.Domain != "":
				bucket = "domain " + l.Domain
			}
			line(l.Name, bucket, "-")
			continue
		}
		line(l.Name, l.Buckets[0].text(), l.Buckets[0].left())
		for _, b := range l.Buckets[1:] {
			fmt.Fprintf(t, "\t\t\t%s\t%s\t\t\t\t\t\t\n", b.text(), b.left())
		}
	}
	t.Flush()
}

func (b *Bucket) text() string {
	if b.Interval == 0 {
		return fmt.Sprintf("%d under way at most", b.Limit)
	}
	text := fmt.Sprintf("%d, %d every %v", b.Limit, b.PerFill, time.Duration(b.Interval*float64(time.Second)))
	if b.Descriptor != "" {
		text = b.Descriptor + ": " + text
	}
	if b.PerConnection {
		text += ", each connection"
	}
	if b.Shadow {
		text += " (counts only)"
	}
	return text
}

func (b *Bucket) left() string {
	if b.Remaining == nil {
		return "-"
	}
	return strconv.FormatFloat(math.Floor(*b.Remaining), 'f', 0, 64) // less than one lets nobody in
}

// spared is how many requests were too many and not refused, since the filter
// enforces the limit for a part of them.
func (l *Limit) spared() uint64 { return l.Limited - min(l.Refused, l.Limited) }

var limitsDesc = prometheus.NewDesc("isthmus_rate_limit_requests_total", "Requests by the rate limit that they met and what it said: allowed, refused, limited (too many, but not refused), shadow (the limit only counts), unknown (nobody could tell).", []string{"limit", "kind", "where", "outcome"}, nil)

// collectLimits shows what limits have said. Two filters of one EnvoyFilter may be alike
// but for where they stand; what nothing tells apart, such as two ways to one port, is
// shown as one.
func collectLimits(out chan<- prometheus.Metric, list []Limit) {
	type key struct{ limit, kind, where string }
	type entry struct {
		key
		outcome string
	}
	first := map[key]string{} // whose source is not told
	sums := map[entry]uint64{}
	for _, l := range list {
		k := key{l.Name, l.Kind, l.Where}
		if l.Candidate {
			k.where = strings.TrimSpace("candidate " + k.where)
		}
		if source, ok := first[k]; !ok {
			first[k] = l.Source
		} else if source != l.Source {
			k.where = strings.TrimSpace(k.where + " " + l.Source)
		}
		for outcome, n := range map[string]uint64{"allowed": l.Allowed, "refused": l.Refused, "limited": l.spared(), "shadow": l.WouldRefuse, "unknown": l.Failed} {
			sums[entry{key: k, outcome: outcome}] += n
		}
	}
	for e, n := range sums {
		out <- prometheus.MustNewConstMetric(limitsDesc, prometheus.CounterValue, float64(n), e.limit, e.kind, e.where, e.outcome)
	}
}
