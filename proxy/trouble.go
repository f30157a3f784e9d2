package proxy

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"isthmus/auth"
	"isthmus/http1"
	"isthmus/mesh"
	"isthmus/telemetry"
)

// trouble is a request that failed or was slow, as the proxy keeps it. It pins
// no table: a snapshot that is gone must not live on in it.
type trouble struct {
	id, method, authority, path string
	listener, peer, identity    string

	at           time.Time
	took, waited time.Duration
	answered     bool     // a reply has begun
	status       int      // of HTTP, or what means the same as that of gRPC
	grpc         grpcCode // of gRPC
	kind         Kind
	flag         string
	broken       bool // the reply broke off

	snapshot uint64
	config   string

	outside   string // of a host that is unknown: within what; "": at all
	portless  string // why a host that is known has not the port that it is asked for at; "": that is not why
	found     bool   // a virtual host was
	host      string // of the virtual host
	rules     int    // that it has
	routed    bool   // a route was found
	route     string // its name
	source    mesh.Source
	redirect  bool
	direct    bool
	fault     *mesh.Fault
	delayed   time.Duration
	retries   *mesh.Retries
	timeout   time.Duration // of the route
	deadline  time.Duration // that held, from the start on; 0: none
	patience  *patience
	targets   []string // destinations, as "HOST:PORT subset S"
	undefined []string // those that are unknown
	pool      mesh.Source

	tries   []keptTry
	cause   error
	nobody  []string
	refused error // *auth.Refusal, *auth.TokenError, *limitError or *deniedError
	slow    time.Duration
}

// keptTry is a try, without the member that it was made at.
type keptTry struct {
	upstream, endpoint, cluster string
	began, took                 time.Duration
	kind                        Kind
	status                      int
	cause                       error
	last                        bool // the one whose reply the client got
}

// maxKeptText bounds each text of a request that is kept.
const maxKeptText = 256

// maxKeptID bounds an id. Those that proxies make have 36 bytes.
const maxKeptID = 128

func keep(b []byte, most int) string { return string(b[:min(len(b), most)]) }

// remember keeps what is to be known of the exchange, if it is of the kind.
func (x *exchange) remember() {
	p := x.conn.proxy
	waited := x.trail.waited(x)
	status := x.meant()
	var r *ring
	switch own := x.kind != NoError || x.attempts == 0; {
	case x.kind == ClientGone:
		r = &p.memory.slow
	case x.kind != NoError && status < 400 || status >= 500:
		r = &p.memory.failed
	case status >= 400 && own:
		r = &p.memory.refused
	case waited > p.slow:
		r = &p.memory.slow
	default:
		return // an application's own 404, say
	}
	t := &trouble{
		id: keep(x.requestIDText(), maxKeptID), method: keep(x.req.Method, maxKeptText),
		authority: keep(x.req.Authority, maxKeptText), path: keep(x.req.Path, maxKeptText),
		listener: x.conn.listener.name, peer: x.conn.peer, identity: x.conn.identity,
		at: x.start.time(), took: time.Duration(x.clock - x.start), waited: waited, answered: x.trail.replied != 0,
		status: status, grpc: x.tally.grpc, kind: x.kind, flag: x.flag(), broken: x.replying && x.conn.aborted,
		cause: x.trail.cause, refused: x.refusedBy(), slow: p.slow,
		patience: x.conn.patience, delayed: time.Duration(x.delayed),
	}
	if s := x.table; s != nil {
		t.snapshot, t.config = s.snapshot.Number, s.snapshot.Config.Hash
	}
	if vh := x.host; vh != nil {
		t.found, t.host, t.rules = true, vh.name, len(vh.routes)
	} else if x.kind == NoRoute && x.conn.kind == outbound {
		if host, port, ok := splitAuthority(x.scratch[:], x.req.Authority); ok {
			t.outside = x.table.whyOutside(string(host))
			t.portless = x.table.whyPortless(host, port)
		}
	}
	x.keepRoute(t)
	x.keepTries(t)
	r.add(t)
}

// keepRoute notes the route and what of it may be the cause.
func (x *exchange) keepRoute(t *trouble) {
	r := x.route
	if r == nil {
		return
	}
	if x.kind == NoHealthy {
		t.nobody = x.nobody()
	}
	t.routed, t.route, t.source = true, x.routeName(), r.rule.Source
	t.redirect, t.direct, t.fault, t.retries = r.redirect != nil, r.direct != nil, r.fault, r.retries
	t.timeout = time.Duration(r.timeout)
	if x.deadline != 0 {
		t.deadline = time.Duration(x.deadline - x.start)
	}
	if x.kind != NoDestination && x.kind != NoHealthy && x.kind != Overflow {
		return
	}
	for i := range r.destinations {
		d := &r.destinations[i]
		text := d.rule.Host
		if d.rule.Subset != "" {
			text += " subset " + d.rule.Subset
		}
		u := x.upstream(d.target)
		if !u.known {
			t.undefined = append(t.undefined, text)
		}
		if p := u.policy.ConnectionPool; p != nil {
			t.pool = p.Source
		}
		t.targets = append(t.targets, text)
	}
}

// keepTries notes the tries, the one that the client was answered by last.
func (x *exchange) keepTries(t *trouble) {
	add := func(m *member, began, ended instant) *keptTry {
		t.tries = append(t.tries, keptTry{
			upstream: m.upstream.Load().key.String(), endpoint: m.address.String(), cluster: m.host.Endpoint().Cluster,
			began: time.Duration(began - x.start), took: time.Duration(ended - began),
		})
		return &t.tries[len(t.tries)-1]
	}
	for i := range x.trail.failed {
		f := &x.trail.failed[i]
		k := add(f.member, f.began, f.ended)
		k.kind, k.status, k.cause = f.kind, f.status, f.cause
	}
	if x.attempts > len(x.trail.failed) && x.member != nil {
		k := add(x.member, x.trail.began, x.clock)
		k.last, k.kind, k.cause = true, x.kind, x.trail.cause
		if x.trail.replied != 0 {
			k.status = x.res.Status
		}
	}
}

// requestIDText is the id by which the request is known: its own, or the one
// that it was given.
func (x *exchange) requestIDText() []byte {
	if id, ok := x.req.Get(http1.XRequestID); ok && len(id) > 0 {
		return id[:min(len(id), maxKeptID)]
	}
	return x.requestID()
}

// refusedBy returns who has refused the request; nil: nobody.
func (x *exchange) refusedBy() error {
	switch x.kind {
	case Forbidden:
		return x.refusal
	case Unauthorized:
		return x.badToken
	case Denied, RateLimited, GloballyLimited:
		return x.trail.cause
	}
	return nil
}

// size is about how many bytes of memory a trouble takes.
func (t *trouble) size() int {
	n := int(unsafe.Sizeof(*t)) + len(t.id) + len(t.method) + len(t.authority) + len(t.path) + len(t.outside)
	for _, list := range [][]string{t.nobody, t.targets, t.undefined} {
		for _, s := range list {
			n += 16 + len(s)
		}
	}
	for i := range t.tries {
		n += int(unsafe.Sizeof(t.tries[i])) + len(t.tries[i].upstream) + len(t.tries[i].endpoint)
	}
	if t.cause != nil || t.refused != nil {
		n += 256 // an error of the network, with what it holds
	}
	return n
}

// memory holds the troubles of a proxy. What comes in crowds does not push out
// the rest: a scanner's 404s are kept apart from failures.
type memory struct {
	failed  ring // 5xx, and replies that broke off
	refused ring // 4xx of our own
	slow    ring // slow ones, and clients that went away
}

// Bounds of one ring: at a failure or two a second the last hour; and no more
// than what a proxy can spare.
const (
	maxTroubles     = 4096
	maxTroubleBytes = 2 << 20
)

// ring keeps the latest troubles within its bounds.
type ring struct {
	mu    sync.Mutex // guards what is below
	list  []*trouble // the oldest at first; a circle once it has come round
	first int        // the oldest
	n     int
	bytes int
}

func (r *ring) add(t *trouble) {
	size := t.size()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.n > 0 && (r.n == maxTroubles || r.bytes+size > maxTroubleBytes) {
		r.bytes -= r.list[r.first].size()
		r.list[r.first] = nil
		r.first = (r.first + 1) % len(r.list)
		r.n--
	}
	if r.n == len(r.list) {
		grown := make([]*trouble, min(max(16, 2*len(r.list)), maxTroubles))
		for i := range r.n {
			grown[i] = r.list[(r.first+i)%len(r.list)]
		}
		r.list, r.first = grown, 0
	}
	r.list[(r.first+r.n)%len(r.list)] = t
	r.n++
	r.bytes += size
}

// appendTo appends those that are wanted to list.
func (r *ring) appendTo(list []*trouble, want func(*trouble) bool) []*trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.n {
		if t := r.list[(r.first+i)%len(r.list)]; want(t) {
			list = append(list, t)
		}
	}
	return list
}

// Why returns what is known of the requests with an id that failed or were slow,
// the latest first.
func (p *Proxy) Why(id string) []telemetry.Trouble {
	id = strings.TrimSpace(id)
	id = id[:min(len(id), maxKeptID)] // others, as access logs, have all of it
	return p.troubles(0, func(t *trouble) bool { return t.id == id })
}

// Troubles returns the latest requests that failed or were slow, n at most, the
// latest first.
func (p *Proxy) Troubles(n int) []telemetry.Trouble {
	return p.troubles(n, func(*trouble) bool { return true })
}

func (p *Proxy) troubles(n int, want func(*trouble) bool) []telemetry.Trouble {
	var list []*trouble
	for _, r := range []*ring{&p.memory.failed, &p.memory.refused, &p.memory.slow} {
		list = r.appendTo(list, want)
	}
	slices.SortStableFunc(list, func(a, b *trouble) int { return b.at.Compare(a.at) })
	if n > 0 && len(list) > n {
		list = list[:n]
	}
	out := make([]telemetry.Trouble, len(list))
	for i, t := range list {
		out[i] = t.tell()
	}
	return out
}

// tell puts a trouble into words.
func (t *trouble) tell() telemetry.Trouble {
	out := telemetry.Trouble{
		ID: t.id, Time: t.at, Duration: t.took.Seconds(), Status: t.status, Flags: t.flag, Detail: detailOf(t.kind, t.answered), Why: t.why(),
		Method: t.method, Authority: t.authority, Path: t.path, Listener: t.listener, Peer: t.peer, Identity: t.identity,
		Snapshot: t.snapshot, Config: t.config, Attempts: []telemetry.Attempt{}, Refusal: t.refusal(),
	}
	if t.kind == NoError && len(t.tries) == 0 {
		out.Detail = "direct_response"
	}
	if t.answered {
		out.Waited = t.waited.Seconds()
	}
	if t.routed {
		out.Route = &telemetry.TroubleRoute{Host: t.host, Name: t.route, Source: t.source.String()}
	}
	for i := range t.tries {
		k := &t.tries[i]
		a := telemetry.Attempt{Upstream: k.upstream, Endpoint: k.endpoint, Cluster: k.cluster, Began: k.began.Seconds(), Took: k.took.Seconds(), Status: k.status}
		if k.kind != NoError {
			a.Failure = detailOf(k.kind, k.last && t.answered)
		}
		if k.cause != nil {
			a.Cause = k.cause.Error()
		}
		out.Attempts = append(out.Attempts, a)
	}
	return out
}

// detailOf is Envoy's detail of what went wrong; begun: after the upstream's reply had.
func detailOf(k Kind, begun bool) string {
	switch {
	case int(k) >= len(answers):
		return "via_upstream" // a reply that was thrown away
	case begun:
		return lateDetails[k]
	}
	return k.String()
}

// lateDetails are the details of answers where the upstream's reply had begun (Envoy:
// LateUpstreamReset).
var lateDetails = func() (list [len(answers)]string) {
	for k := range answers {
		list[k] = strings.Replace(answers[k].detail, "reset_before_response_started", "reset_after_response_started", 1)
	}
	return list
}()

// refusal tells who has refused the request, and why.
func (t *trouble) refusal() *telemetry.Refusal {
	if t.refused == nil {
		return nil
	}
	out := &telemetry.Refusal{Reason: t.refused.Error()}
	switch r := t.refused.(type) {
	case *auth.Refusal:
		out.By, out.Field = "policy", r.Field
		if r.Policy != nil {
			out.Policy, out.Source = r.Policy.Meta.String(), r.Policy.Source.String()
		}
		if r.Policy != nil && r.Rule >= 0 {
			out.Rule, out.Source = &r.Rule, r.Policy.Rules[r.Rule].Source.String()
		}
	case *auth.TokenError:
		out.By = "token"
	case *limitError:
		out.By, out.Policy, out.Source = "rate limit", r.filter.Meta.String(), r.source.String()
	case *deniedError:
		out.By, out.Policy, out.Source = "authorization service", r.policy.Meta.String(), r.policy.Source.String()
	}
	return out
}
