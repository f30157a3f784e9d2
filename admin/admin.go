// Package admin lets people and tools look into a running proxy, over HTTP: as
// tables to read, or as JSON where asked for by ?format=json or an Accept
// header.
//
// It is for loopback. Looking is GET; whatever changes something is POST, and
// is refused to requests that a browser was talked into by another site.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"isthmus/explain"
	"isthmus/history"
	"isthmus/telemetry"
)

// Endpoint is an endpoint as it is shown.
type Endpoint struct {
	Service  string            `json:"service"`
	Port     uint32            `json:"port"`
	Address  string            `json:"address"`
	Cluster  string            `json:"cluster"`
	Locality string            `json:"locality"`
	Healthy  bool              `json:"healthy"` // may get traffic
	Reason   string            `json:"reason,omitempty"`
	Source   string            `json:"source"`
	Owner    string            `json:"owner"`
	Weight   uint32            `json:"weight"`
	Labels   map[string]string `json:"labels"`
	Identity string            `json:"identity"`
	Age      float64           `json:"age"` // seconds
}

// Member is a gossip member as it is shown.
type Member struct {
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	Locality string `json:"locality"`
	Address  string `json:"address"`
	State    string `json:"state"`
	Version  string `json:"version"`

	Digest *Digest `json:"digest,omitempty"` // nil: none has come lately
}

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

// Host is what the proxy has found out of an endpoint of one upstream.
type Host struct {
	Upstream string `json:"upstream"`
	Address  string `json:"address"`
	Healthy  bool   `json:"healthy"`
	Reason   string `json:"reason,omitempty"`
	Active   int    `json:"active"`
}

// ProbeCount is how many probes ended alike.
type ProbeCount struct {
	Of     string // "workload", by a WorkloadGroup, or "endpoint", of another cluster or a dead member
	Result string // "success" or "failure"
	Count  uint64
}

// Status is the state of a proxy in short.
type Status struct {
	Ready    bool     `json:"ready"`
	Reason   string   `json:"reason,omitempty"`
	Node     string   `json:"node"`
	Version  string   `json:"version"`
	Snapshot Snapshot `json:"snapshot"`
	Canary   string   `json:"canary,omitempty"` // of a candidate configuration, in a few words
	Warnings int      `json:"warnings"`

	Endpoints      int               `json:"endpoints"`
	EndpointsReady int               `json:"endpointsReady"`
	Members        int               `json:"members"`
	Listeners      map[string]string `json:"listeners"`

	Identity     string `json:"identity,omitempty"`     // SPIFFE ID of the proxy's certificate
	IdentityEnds string `json:"identityEnds,omitempty"` // when it expires, RFC 3339
}

// Snapshot is the configuration in force.
type Snapshot struct {
	Number uint64  `json:"number"`
	Hash   string  `json:"hash"`
	Age    float64 `json:"age"`   // seconds
	Error  string  `json:"error"` // why later files are not used

	Revision uint64 `json:"revision"` // of the configuration, in its history
	Rollback uint64 `json:"rollback"` // the revision that was brought back; 0: the files are in force
}

// Finding is one thing to say about the configuration in force, as "isthmus
// validate" does.
type Finding struct {
	File      string `json:"file"`
	Line      int    `json:"line"`
	Severity  string `json:"severity"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Field     string `json:"field"`
	Message   string `json:"message"`
	Code      string `json:"code"` // see docs/findings
}

// Certificate is how one is that the proxy shows, or lives by.
type Certificate struct {
	Name    string    `json:"name"`              // "identity", "root" for the one that vouches for it, or the file
	Ends    time.Time `json:"ends,omitzero"`     // zero: there never was one that can be used
	Usable  bool      `json:"usable"`            // its files as they are now
	Reloads uint64    `json:"reloads,omitempty"` // of the identity
	List    bool      `json:"list,omitempty"`    // it is a revocation list
}

// State is what admin shows, and what it can set off.
type State interface {
	Status() Status
	Endpoints() []Endpoint
	Members() []Member
	Own() Digest     // of this proxy, all flows included
	Recent() []Point // how requests went over the last minutes, the oldest first
	Routes() []Route
	Limits() []Limit
	Hosts() []Host
	Probes() []ProbeCount
	Certificates() []Certificate
	Gossip() *Gossip // nil: there is none
	ConfigDump() any
	Why(id string) []telemetry.Trouble  // the requests with an id that failed or were slow
	Troubles(n int) []telemetry.Trouble // the latest of all
	Findings() []Finding
	Explain(url.Values) (*explain.Explanation, error)
	History() []history.Revision // the latest first
	Diff(from, to uint64) (*history.Difference, error)
	Rollback(ctx context.Context, to uint64) (history.Revision, error)
	Canary() Canary
	Steer(do string) error // a candidate: promote, return or retry
	Reload()
	Drain()
	Quit()
}

// New returns the handler of the admin listener. metrics serves their page.
func New(s State, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	console(mux)
	addMetrics(mux, metrics)
	mux.HandleFunc("GET /ready", ready(s))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		st := s.Status()
		reply(w, r, st, func(o io.Writer) { WriteStatus(o, st) })
	})
	mux.HandleFunc("GET /mesh", func(w http.ResponseWriter, r *http.Request) {
		m := look(s)
		reply(w, r, m, func(o io.Writer) { WriteMesh(o, m) })
	})
	mux.HandleFunc("GET /services", list(func(q url.Values) []Service {
		list := filter(servicesOf(members(s, s.Status()), s.Endpoints()), q, serviceTexts)
		sortServices(list, q.Get("sort"))
		return list
	}, WriteServices))
	mux.HandleFunc("GET /endpoints", list(func(q url.Values) []Endpoint {
		list := slices.DeleteFunc(s.Endpoints(), func(e Endpoint) bool {
			return q.Has("service") && e.Service != q.Get("service") || q.Has("cluster") && e.Cluster != q.Get("cluster") ||
				q.Has("healthy") && q.Get("healthy") != strconv.FormatBool(e.Healthy)
		})
		return filter(list, q, endpointTexts)
	}, WriteEndpoints))
	mux.HandleFunc("GET /members", list(func(q url.Values) []Member {
		list := s.Members()
		if q.Has("digest") {
			list = members(s, s.Status())
		}
		return filter(list, q, memberTexts)
	}, WriteMembers))
	mux.HandleFunc("GET /routes", list(func(q url.Values) []Route {
		return filter(s.Routes(), q, routeTexts)
	}, WriteRoutes))
	mux.HandleFunc("GET /limits", list(func(q url.Values) []Limit {
		return filter(s.Limits(), q, limitText)
	}, WriteLimits))
	mux.HandleFunc("GET /certificates", list(func(url.Values) []Certificate {
		return append([]Certificate{}, s.Certificates()...)
	}, WriteCertificates))
	mux.HandleFunc("GET /clusters", func(w http.ResponseWriter, r *http.Request) {
		list := s.Hosts()
		reply(w, r, list, func(o io.Writer) { writeClusters(o, list) })
	})
	mux.HandleFunc("GET /why", why(s))
	mux.HandleFunc("GET /config/findings", list(func(q url.Values) []Finding {
		return filter(s.Findings(), q, findingTexts)
	}, WriteFindings))
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		e, err := s.Explain(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply(w, r, e, func(o io.Writer) { explain.Write(o, e) })
	})
	serveHistory(mux, s)
	serveCanary(mux, s)
	mux.HandleFunc("GET /config_dump", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, s.ConfigDump()) })
	for path, act := range map[string]func(){"/drain": s.Drain, "/quitquitquit": s.Quit, "/reload": s.Reload} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			act()
			fmt.Fprintln(w, "OK")
		})
	}
	return guard(mux)
}

// Probes returns the handler of the metrics listener's health checks.
func Probes(s State) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz/ready", ready(s))
	mux.HandleFunc("GET /healthz/live", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "live") })
	return mux
}

func ready(s State) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if st := s.Status(); !st.Ready {
			http.Error(w, "not ready: "+st.Reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	}
}

// list makes the page of a list, or of a part of it: see [part].
func list[T any](get func(url.Values) []T, text func(io.Writer, []T)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		some, err := part(w, q, get(q))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply(w, r, some, func(o io.Writer) { text(o, some) })
	}
}

// guard refuses what a foreign web page has made a browser send: a POST of
// another origin, and any request for a name that is not this machine's (DNS
// rebinding).
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
		w.Header().Set("X-Content-Type-Options", "nosniff") // texts of others are no page
		switch {
		case err != nil && host != "localhost" && host != "":
			http.Error(w, "the admin listener answers to an IP address or localhost only", http.StatusForbidden)
		case r.Method != http.MethodGet && (origin != "" && origin != "http://"+r.Host || site != "" && site != "same-origin" && site != "none"):
			http.Error(w, "requests of other web pages are refused", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func reply(w http.ResponseWriter, r *http.Request, v any, text func(io.Writer)) {
	if r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json") {
		writeJSON(w, v)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text(w)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v)
}

// WriteStatus writes a status for people.
func WriteStatus(w io.Writer, s Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	state := "ready"
	if !s.Ready {
		state = "not ready: " + s.Reason
	}
	fmt.Fprintf(t, "proxy\t%s\t%s\n", s.Node, state)
	fmt.Fprintf(t, "snapshot\t%d\tconfiguration %s, revision %d, %s old\n", s.Snapshot.Number, s.Snapshot.Hash, s.Snapshot.Revision, age(s.Snapshot.Age))
	fmt.Fprintf(t, "endpoints\t%d\t%d of them ready\n", s.Endpoints, s.EndpointsReady)
	fmt.Fprintf(t, "members\t%d\t\n", s.Members)
	for _, name := range sortedKeys(s.Listeners) {
		fmt.Fprintf(t, "listener\t%s\t%s\n", name, s.Listeners[name])
	}
	if s.Identity != "" {
		fmt.Fprintf(t, "identity\t%s\tuntil %s\n", s.Identity, s.IdentityEnds)
	}
	if s.Canary != "" {
		fmt.Fprintf(t, "candidate\t%s\t\n", s.Canary)
	}
	t.Flush()
	if s.Snapshot.Rollback != 0 {
		fmt.Fprintf(w, "\nrolled back: the configuration of revision %d is in force until the files change\n", s.Snapshot.Rollback)
	}
	if s.Snapshot.Error != "" {
		fmt.Fprintf(w, "\nthe files have changed since, and are not used:\n%s\n", s.Snapshot.Error)
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// age writes seconds as 3s, 5m, 2h, 4d.
func age(seconds float64) string {
	switch s := int(seconds); {
	case s < 120:
		return fmt.Sprintf("%ds", s)
	case s < 7200:
		return fmt.Sprintf("%dm", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%dh", s/3600)
	default:
		return fmt.Sprintf("%dd", s/86400)
	}
}

// WriteEndpoints writes endpoints for people.
func WriteEndpoints(w io.Writer, list []Endpoint) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tPORT\tADDRESS\tCLUSTER\tLOCALITY\tHEALTH\tSOURCE\tOWNER\tAGE")
	for _, e := range list {
		health := "healthy"
		if !e.Healthy {
			health = "unhealthy (" + e.Reason + ")"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Service, e.Port, e.Address, e.Cluster, dash(e.Locality), health, e.Source, dash(e.Owner), age(e.Age))
	}
	t.Flush()
}

// WriteMembers writes members for people.
func WriteMembers(w io.Writer, list []Member) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tCLUSTER\tLOCALITY\tADDRESS\tSTATE\tVERSION")
	for _, m := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Cluster, dash(m.Locality), m.Address, m.State, dash(m.Version))
	}
	t.Flush()
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

// WriteCertificates writes certificates for people.
func WriteCertificates(w io.Writer, list []Certificate) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CERTIFICATE\tENDS\tIN FORCE")
	for _, c := range list {
		inForce := "as its files are"
		if !c.Usable {
			inForce = "an earlier one: its files cannot be used"
		}
		ends := "-"
		if !c.Ends.IsZero() {
			ends = c.Ends.UTC().Format(time.RFC3339)
		} else {
			inForce = "none: its files cannot be used"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.Name, ends, inForce)
	}
	t.Flush()
}

// WriteFindings writes findings for people, a line each.
func WriteFindings(w io.Writer, list []Finding) {
	for _, f := range list {
		parts := []string{fmt.Sprintf("%s:%d", f.File, f.Line), f.Severity, f.Kind, f.Field, f.Message}
		if f.Name != "" {
			parts[2] += " " + f.Namespace + "/" + f.Name
		}
		fmt.Fprintln(w, strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": "))
	}
}

func destination(d Destination) string {
	s := fmt.Sprintf("%s:%d", d.Host, d.Port)
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

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// writeClusters writes hosts as Envoy's /clusters does, for scripts that know
// it.
func writeClusters(w io.Writer, list []Host) {
	for _, h := range list {
		flags := "healthy"
		if !h.Healthy {
			flags = "/failed_outlier_check"
		}
		fmt.Fprintf(w, "%s::%s::rq_active::%d\n%s::%s::health_flags::%s\n", h.Upstream, h.Address, h.Active, h.Upstream, h.Address, flags)
	}
}
