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
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"isthmus/explain"
	"isthmus/history"
	"isthmus/telemetry"
)

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
	Steer(do string) error    // a candidate: promote, return or retry
	LogLevel() *slog.LevelVar // of what the process says of itself
	Reload()
	Drain() error // not at this moment, as Quit
	Quit() error
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
	mux.HandleFunc("GET /certificates", list(func(q url.Values) []Certificate {
		return filter(append([]Certificate{}, s.Certificates()...), q, certificateTexts)
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
	mux.HandleFunc("GET /logging", logging(s))
	mux.HandleFunc("POST /logging", logging(s))
	mux.HandleFunc("GET /debug/pprof/profile", profile)
	mux.HandleFunc("GET /config_dump", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, s.ConfigDump()) })
	reload := func() error { s.Reload(); return nil }
	for path, act := range map[string]func() error{"/drain": s.Drain, "/quitquitquit": s.Quit, "/reload": reload} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := act(); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
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

// logging shows the level of the process's log, and changes it, until the process ends.
func logging(s State) http.HandlerFunc {
	type answer struct {
		Level string `json:"level"`
	}
	return func(w http.ResponseWriter, r *http.Request) {
		level := s.LogLevel()
		if r.Method == http.MethodPost {
			text := r.URL.Query().Get("level")
			if err := level.UnmarshalText([]byte(text)); err != nil {
				http.Error(w, fmt.Sprintf("level %q: write debug, info, warn or error", text), http.StatusBadRequest)
				return
			}
		}
		a := answer{strings.ToLower(level.Level().String())}
		reply(w, r, a, func(o io.Writer) { fmt.Fprintln(o, a.Level) })
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
// another origin, what it has asked for as a part of itself, and any request for a
// name that is not this machine's (DNS rebinding). Who follows a link to here is let
// in.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
		foreign := site != "" && site != "same-origin" && site != "none"
		link := r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
		w.Header().Set("X-Content-Type-Options", "nosniff") // texts of others are no page
		switch {
		case err != nil && host != "localhost" && host != "":
			http.Error(w, "the admin listener answers to an IP address or localhost only", http.StatusForbidden)
		case foreign && !link, r.Method != http.MethodGet && origin != "" && origin != "http://"+r.Host:
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
	WritePrintable(w, text)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v)
}

// dash writes "-" for nothing, so that every column of a table has a word.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
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
