package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus/canary"
	"isthmus/explain"
	"isthmus/history"
	"isthmus/telemetry"
)

// state is a proxy as a test wants it.
type state struct {
	level  slog.LevelVar
	status Status
	did    []string
}

func (s *state) Status() Status { return s.status }
func (s *state) Endpoints() []Endpoint {
	return []Endpoint{
		{Service: "a.default", Address: "10.0.0.1:80", Cluster: "c1", Healthy: true, Source: "gossip", Owner: "c1/n/x", Weight: 1, Labels: map[string]string{}},
		{Service: "b.default", Address: "10.0.0.2:80", Cluster: "c2", Reason: "connect failed", Source: "file"},
	}
}
func (s *state) Members() []Member { return []Member{{Name: "c1/n/x", State: "alive"}} }
func (s *state) Own() Digest {
	return Digest{Ready: true, Hash: "h", Flows: []Flow{{Cluster: "c1", Traffic: Traffic{Requests: 2, P50: 1, P99: 9}}}}
}
func (s *state) Recent() []Point { return nil }
func (s *state) Findings() []Finding {
	return []Finding{{File: "a.yaml", Line: 3, Severity: "warning", Kind: "VirtualService", Name: "v", Message: "odd"}}
}
func (s *state) Routes() []Route {
	return []Route{{Listener: "outbound", Host: "a", Destinations: []Destination{{Host: "a", Port: 80, Percent: 70, Known: true}}, Source: "f:1"}}
}
func (s *state) Limits() []Limit {
	left := 7.5
	return []Limit{
		{Name: "EnvoyFilter a/b", Kind: "local", Source: "f:2", Listeners: []string{"inbound"}, Buckets: []Bucket{{Limit: 10, PerFill: 1, Interval: 1, Remaining: &left}, {Descriptor: "user=a", Limit: 2, PerFill: 1, Interval: 60, Shadow: true}}, Allowed: 5, Limited: 3, Refused: 2},
		{Name: "EnvoyFilter a/c", Kind: "service", Listeners: []string{"gateway"}, Domain: "d", State: "down", Failed: 1},
	}
}
func (s *state) Certificates() []Certificate {
	return []Certificate{{Name: "identity", Ends: time.Unix(1_900_000_000, 0), Usable: true, Reloads: 2}, {Name: "web/tls.crt", Ends: time.Unix(1, 0)}, {Name: "none/tls.crt"}}
}

func (s *state) Gossip() *Gossip {
	return &Gossip{Own: "c1", Records: 3, Behind: 1, Dropped: 4, Clusters: map[string]Distance{"c1": {RoundTrip: time.Millisecond, Age: time.Second}, "c2": {RoundTrip: 40 * time.Millisecond, Age: time.Second}}}
}

func (s *state) Probes() []ProbeCount {
	return []ProbeCount{{Of: "workload", Result: "success", Count: 5}, {Of: "endpoint", Result: "failure", Count: 2}}
}
func (s *state) Hosts() []Host { return []Host{{Upstream: "outbound|80||a", Address: "10.0.0.1:80"}} }
func (s *state) Explain(v url.Values) (*explain.Explanation, error) {
	if v.Get("url") == "" {
		return nil, errors.New("there is no url")
	}
	return &explain.Explanation{Request: "GET " + v.Get("url"), Outcome: explain.Refused, Status: 404, Flag: "NR", Detail: "route_not_found"}, nil
}
func (s *state) ConfigDump() any { return map[string]string{"config": "here"} }
func (s *state) Why(id string) []telemetry.Trouble {
	return slices.DeleteFunc(s.Troubles(9), func(t telemetry.Trouble) bool { return t.ID != id })
}
func (s *state) Troubles(n int) []telemetry.Trouble {
	return []telemetry.Trouble{
		{ID: "a", Status: 503, Flags: "UF", Why: []string{"the client got 503 UF because of this", "and of that"}, Attempts: []telemetry.Attempt{{Endpoint: "10.0.0.1:80", Failure: "reset", Cause: "refused"}}},
		{ID: "b", Status: 404, Flags: "NR", Why: []string{"the client got 404 NR"}, Attempts: []telemetry.Attempt{}},
	}[:min(n, 2)]
}
func (s *state) History() []history.Revision {
	return []history.Revision{
		{Number: 3, Hash: "ccc", Error: "f.yaml:1: error: bad", Changes: history.Compare(nil, nil)},
		{Number: 2, Hash: "bbb", Origin: history.FromRollback, Of: 1, InForce: true, Kept: true, Changes: history.Compare(nil, []history.Resource{{Kind: "Service", Namespace: "default", Name: "web"}})},
		{Number: 1, Hash: "aaa", Origin: history.FromFiles, Kept: true, Changes: history.Compare(nil, nil)},
	}
}
func (s *state) Diff(from, to uint64) (*history.Difference, error) {
	if to > 3 {
		return nil, history.ErrUnknown
	}
	web := history.Resource{Kind: "Service", Namespace: "default", Name: "web"}
	return &history.Difference{From: from, To: to, Changes: history.Compare(nil, []history.Resource{web}), Lines: []history.TextChange{{Resource: web.String(), Source: "f:1", Lines: []string{"+kind: Service"}}}}, nil
}
func (s *state) Rollback(_ context.Context, to uint64) (history.Revision, error) {
	if to != 1 {
		return history.Revision{}, fmt.Errorf("revision %d is what is in force", to)
	}
	s.did = append(s.did, "rollback")
	return history.Revision{Number: 4, Of: to}, nil
}
func (s *state) Canary() Canary {
	var a canary.Arm
	a.Count(canary.Failed, 0)
	return Canary{
		State: canary.Partial, Hash: "ddd", Percent: 10, Stage: 2, Stages: 3, Age: 61, Changes: history.Compare(nil, nil), Candidate: NewSide(a.Counts()),
		Compare: canary.Compare{Compared: 9, Different: 3, Differences: []canary.Difference{{Kind: "destination", Current: "a", Candidate: "b", Example: "GET x/", Count: 3}}},
	}
}
func (s *state) Steer(do string) error {
	if do != "return" {
		return errors.New("write promote, return or retry")
	}
	s.did = append(s.did, do)
	return nil
}
func (s *state) LogLevel() *slog.LevelVar { return &s.level }

func (s *state) Reload() { s.did = append(s.did, "reload") }
func (s *state) Drain() error {
	if slices.Contains(s.did, "quit") {
		return errors.New("another process takes this one's place")
	}
	s.did = append(s.did, "drain")
	return nil
}
func (s *state) Quit() error {
	s.did = append(s.did, "quit")
	return nil
}

func ask(h http.Handler, method, target string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:15000"+target, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestNew_JSON holds the keys that scripts rely on.
func TestNew_JSON(t *testing.T) {
	h := New(&state{}, http.NotFoundHandler())
	for path, keys := range map[string][]string{
		"/endpoints": {"service", "address", "cluster", "locality", "healthy", "source", "owner", "weight", "labels", "identity", "age"},
		"/members":   {"name", "cluster", "locality", "address", "state", "version"},
		"/routes":    {"listener", "host", "name", "match", "destinations", "source"},
		"/why":       {"id", "time", "duration", "waited", "status", "flags", "detail", "why", "method", "authority", "path", "listener", "peer", "snapshot", "config", "attempts"},
	} {
		w := ask(h, "GET", path+"?format=json", nil)
		var list []map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, k := range keys {
			if _, ok := list[0][k]; !ok {
				t.Errorf("%s has no key %q: %v", path, k, list[0])
			}
		}
	}
	w := ask(h, "GET", "/status", func(r *http.Request) { r.Header.Set("Accept", "application/json") })
	var s struct {
		Ready    *bool
		Snapshot *struct {
			Number *uint64
			Hash   *string
			Age    *float64
			Error  *string
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || s.Ready == nil || s.Snapshot == nil || s.Snapshot.Error == nil || s.Snapshot.Age == nil {
		t.Errorf("status %s: %v", w.Body, err)
	}
	if w := ask(h, "GET", "/endpoints?service=b.default", nil); strings.Contains(w.Body.String(), "a.default") || !strings.Contains(w.Body.String(), "unhealthy (connect failed)") {
		t.Errorf("endpoints of one service: %s", w.Body)
	}
}

func TestNew_Ready(t *testing.T) {
	s := &state{}
	s.status.Reason = "draining"
	for _, h := range []struct {
		handler http.Handler
		path    string
	}{{New(s, http.NotFoundHandler()), "/ready"}, {Probes(s), "/healthz/ready"}} {
		s.status.Ready = false
		if w := ask(h.handler, "GET", h.path, nil); w.Code != 503 || !strings.Contains(w.Body.String(), "draining") {
			t.Errorf("%s while draining: %d %s", h.path, w.Code, w.Body)
		}
		s.status.Ready = true
		if w := ask(h.handler, "GET", h.path, nil); w.Code != 200 {
			t.Errorf("%s: %d", h.path, w.Code)
		}
	}
}

// fetched is what a browser says of why it asks.
func fetched(site, mode, dest string) func(*http.Request) {
	return func(r *http.Request) {
		for name, value := range map[string]string{"Site": site, "Mode": mode, "Dest": dest} {
			r.Header.Set("Sec-Fetch-"+name, value)
		}
	}
}

// TestWritePrintable: nobody's name steers a terminal.
func TestWritePrintable(t *testing.T) {
	for text, want := range map[string]string{
		"a\tb\nnée €":                     "a\tb\nnée €",
		"\x1b]0;owned\a\x1b[2J\r":         "?]0;owned??[2J?",
		"CSI as one: \u009b31m, raw \x9b": "CSI as one: ?31m, raw \ufffd",
		"turned \u202e\u2066":             "turned ??",
	} {
		var b strings.Builder
		if WritePrintable(&b, func(w io.Writer) { io.WriteString(w, text) }); b.String() != want {
			t.Errorf("%q is written as %q, want %q", text, b.String(), want)
		}
	}
	s := &state{status: Status{Node: "c1/n/\x1b[31m"}}
	if w := ask(New(s, http.NotFoundHandler()), "GET", "/status", nil); !strings.Contains(w.Body.String(), "c1/n/?[31m") {
		t.Errorf("%q", w.Body)
	}
}

// TestNew_Acts: only POST does something, and not for a web page.
func TestNew_Acts(t *testing.T) {
	s := &state{}
	h := New(s, http.NotFoundHandler())
	for _, tt := range []struct {
		method, path string
		change       func(*http.Request)
		code         int
	}{
		{"GET", "/drain", nil, 405}, {"GET", "/quitquitquit", nil, 405}, {"GET", "/reload", nil, 405},
		{"POST", "/drain", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		{"GET", "/endpoints", func(r *http.Request) { r.Host = "evil.example" }, 403},
		{"GET", "/endpoints", fetched("cross-site", "no-cors", "image"), 403},
		{"GET", "/endpoints", fetched("same-site", "cors", "empty"), 403},
		{"GET", "/debug/pprof/profile", fetched("cross-site", "navigate", "iframe"), 403},
		{"GET", "/endpoints", fetched("cross-site", "navigate", "document"), 200},
		{"GET", "/endpoints", fetched("same-origin", "cors", "empty"), 200},
		{"GET", "/endpoints", fetched("none", "navigate", "document"), 200},
		{"POST", "/drain", fetched("cross-site", "navigate", "document"), 403},
		{"GET", "/endpoints", func(r *http.Request) { r.Host = "localhost:15000" }, 200},
		{"GET", "/endpoints", func(r *http.Request) { r.Host = "[::1]:15000" }, 200},
		{"GET", "/nowhere", nil, 404},
		{"POST", "/drain", nil, 200}, {"POST", "/reload", nil, 200}, {"POST", "/quitquitquit", nil, 200}, {"POST", "/drain", nil, 409},
	} {
		if w := ask(h, tt.method, tt.path, tt.change); w.Code != tt.code {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.code)
		}
	}
	if want := []string{"drain", "reload", "quit"}; !slices.Equal(s.did, want) {
		t.Errorf("did %v, want %v", s.did, want)
	}
}

// TestNew_Logging: the level of the log is shown and changed, to one that there is.
func TestNew_Logging(t *testing.T) {
	s := &state{}
	h := New(s, http.NotFoundHandler())
	for _, tt := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/logging", 200, "info"},
		{"POST", "/logging?level=debug", 200, "debug"},
		{"GET", "/logging?level=error", 200, "debug"},
		{"POST", "/logging?level=chatty", 400, `level "chatty": write debug, info, warn or error`},
		{"POST", "/logging", 400, `level "": write debug`},
		{"GET", "/logging?format=json", 200, "{\n  \"level\": \"debug\"\n}"},
	} {
		if w := ask(h, tt.method, tt.path, nil); w.Code != tt.code || !strings.HasPrefix(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, w.Code, w.Body, tt.code, tt.want)
		}
	}
	if s.level.Level() != slog.LevelDebug {
		t.Errorf("the level is %v", s.level.Level())
	}
}

// TestNew_Pages: every link of the first page leads somewhere.
func TestNew_Pages(t *testing.T) {
	h := New(&state{}, http.NotFoundHandler())
	page := ask(h, "GET", "/", nil).Body.String()
	for _, path := range []string{"/status", "/endpoints", "/members", "/routes", "/clusters", "/config_dump"} {
		if !strings.Contains(page, `href="`+path+`"`) {
			t.Errorf("no link to %s", path)
		}
		if w := ask(h, "GET", path, nil); w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %d bytes", path, w.Code, w.Body.Len())
		}
	}
}

// TestNew_Why: one request by its id, the latest without, and what is no number.
func TestNew_Why(t *testing.T) {
	h := New(&state{}, http.NotFoundHandler())
	for _, tt := range []struct {
		target string
		status int
		want   string
	}{
		{"/why?id=a", 200, "the client got 503 UF because of this\n  and of that\n"},
		{"/why?id=a", 200, "10.0.0.1:80 in -"},
		{"/why?id=c", 200, "nothing is known of c"},
		{"/why", 200, "404     NR"},
		{"/why?limit=1", 200, "503     UF"},
		{"/why?limit=0", 400, "write a number from 1 to 10000"},
		{"/why?limit=x", 400, "write a number"},
	} {
		if w := ask(h, "GET", tt.target, nil); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: %d %q, want %d and %q", tt.target, w.Code, w.Body, tt.status, tt.want)
		}
	}
}

// TestWriteTroubles_OneCell: no text of a client makes a column or a line of its own.
func TestWriteTroubles_OneCell(t *testing.T) {
	for name, write := range map[string]func(io.Writer, []telemetry.Trouble){
		"the list": WriteTroubles, "one": func(w io.Writer, list []telemetry.Trouble) { WriteWhy(w, "x", list) },
	} {
		told := func(sep string) string {
			var b strings.Builder
			at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			write(&b, []telemetry.Trouble{{
				ID: "1" + sep + "2", Time: at, Authority: "a" + sep, Path: "/" + sep + "b", Why: []string{"first" + sep, "then" + sep + "x"},
				Attempts: []telemetry.Attempt{{Failure: "f", Cause: "c" + sep + "d"}},
			}})
			return b.String()
		}
		for _, sep := range []string{"\t", "\n", "\v", "\f"} {
			if got, want := told(sep), told("?"); got != want {
				t.Errorf("%s with %q: got\n%s, want\n%s", name, sep, got, want)
			}
		}
	}
}

// TestWriteTroubles: what is not of today is not told as if it were.
func TestWriteTroubles(t *testing.T) {
	var b strings.Builder
	now := time.Now().UTC()
	WriteTroubles(&b, []telemetry.Trouble{{ID: "a", Time: now, Why: []string{"x"}}, {ID: "b", Time: now.Add(-100 * time.Hour), Why: []string{"x"}}})
	lines := strings.Split(b.String(), "\n")
	if !strings.HasPrefix(lines[1], now.Format("15:04:05.000 ")) || !strings.HasPrefix(lines[2], now.Add(-100*time.Hour).Format(time.DateTime+" ")) {
		t.Errorf("%s", b.String())
	}
}

// TestNew_History: what is compared where one or both revisions are left out,
// and what cannot be done.
func TestNew_History(t *testing.T) {
	h := New(&state{}, http.NotFoundHandler())
	for _, tt := range []struct {
		method, target string
		status         int
		want           string
	}{
		{"GET", "/config/history", 200, "2         0001-01-01 00:00:00  bbb   in force           rollback to 1  0          +Service default/web\n"},
		{"GET", "/config/history", 200, "3 was refused:\nf.yaml:1: error: bad\n"},
		{"GET", "/config/history?format=json", 200, `"inForce": true`},
		{"GET", "/config/diff", 200, "Service default/web added (f:1)\n  +kind: Service\n"},
		{"GET", "/config/diff?format=json", 200, `"from": 1`},
		{"GET", "/config/diff?from=3&format=json", 200, `"to": 2`},
		{"GET", "/config/diff?from=x", 400, "from=x: write the number of a revision"},
		{"GET", "/config/diff?to=9", 404, "no such revision"},
		{"GET", "/config/rollback?to=1", 405, ""},
		{"POST", "/config/rollback", 400, "to=REVISION is missing"},
		{"POST", "/config/rollback?to=2", 409, "is what is in force"},
		{"POST", "/config/rollback?to=1", 200, "revision 4 is in force, the configuration of revision 1"},
	} {
		if w := ask(h, tt.method, tt.target, nil); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %q, want %d and %q", tt.method, tt.target, w.Code, w.Body, tt.status, tt.want)
		}
	}
}

// TestNew_Canary: what is shown of a candidate, and what may be asked of it.
func TestNew_Canary(t *testing.T) {
	h := New(&state{}, http.NotFoundHandler())
	for _, tt := range []struct {
		method, target string
		status         int
		want           string
	}{
		{"GET", "/config/canary", 200, "ddd, 10 % of the requests for 61s: 1, of which 1 failed and 0 were refused"},
		{"GET", "/config/canary", 200, "3      destination  a        b          -       GET x/"},
		{"GET", "/config/canary?format=json", 200, `"compared": 9`},
		{"GET", "/config/canary?format=json", 200, `"failed": 1`},
		{"GET", "/config/canary?format=json", 200, `"p90": 0`},
		{"POST", "/config/canary", 409, "write promote"},
		{"POST", "/config/canary?do=return", 200, "candidate"},
	} {
		if w := ask(h, tt.method, tt.target, nil); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %q, want %d and %q", tt.method, tt.target, w.Code, w.Body, tt.status, tt.want)
		}
	}
}

// TestChanged: a line names a few resources, and says how many more there are.
func TestChanged(t *testing.T) {
	some := func(n int) (list []history.Resource) {
		for i := range n {
			list = append(list, history.Resource{Kind: "Service", Namespace: "a", Name: fmt.Sprint(i)})
		}
		return list
	}
	for _, tt := range []struct {
		changes history.Changes
		want    string
	}{
		{history.Changes{}, "-"},
		{history.Changes{Added: some(1), Removed: some(1)}, "+Service a/0 -Service a/0"},
		{history.Changes{Changed: some(4)}, "~Service a/0 ~Service a/1 ~Service a/2 ~Service a/3"},
		{history.Changes{Changed: some(6)}, "~Service a/0 ~Service a/1 ~Service a/2 ~Service a/3 and 2 more"},
		{history.Changes{Changed: some(6), More: 10}, "~Service a/0 ~Service a/1 ~Service a/2 ~Service a/3 and 12 more"},
		{history.Changes{Changed: some(1), More: 10}, "~Service a/0 and 10 more"},
		{history.Changes{More: 2}, "not known"},
	} {
		if got := changed(tt.changes); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// TestDestination: what a route sends to, in a few words.
func TestDestination(t *testing.T) {
	for want, d := range map[string]Destination{
		"a.test:80 (1/2)":               {Host: "a.test", Port: 80, Percent: 100, Known: true, Usable: 1, Endpoints: 2},
		"a.test:80 subset v1 30% (0/1)": {Host: "a.test", Port: 80, Subset: "v1", Percent: 30, Known: true, Endpoints: 1},
		"a.test:80 standby (1/1)":       {Host: "a.test", Port: 80, Standby: true, Known: true, Usable: 1, Endpoints: 1},
		"a.test:80 (unknown)":           {Host: "a.test", Port: 80},
		"a.test (unknown)":              {Host: "a.test"},
	} {
		if got := destination(d); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestWriteCanary_Stays: of a candidate whose stage does not end it is shown why.
func TestWriteCanary_Stays(t *testing.T) {
	for why, want := range map[string]string{"": "stage      1 of 3\nchanges", "20 % failed": "stage      1 of 3\nstays      20 % failed\nchanges"} {
		var b strings.Builder
		WriteCanary(&b, Canary{State: canary.Partial, Hash: "abc", Percent: 1, Stage: 1, Stages: 3, Why: why})
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q: %s", why, b.String())
		}
	}
}
