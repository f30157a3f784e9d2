package proxy

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"isthmus/canary"
	"isthmus/config"
	"isthmus/mesh"
)

// snapshotOf makes a snapshot of resources in YAML.
func snapshotOf(t testing.TB, p *Proxy, yaml string, previous *mesh.Registry) *mesh.Snapshot {
	t.Helper()
	r := config.Read([]config.File{{Name: "test.yaml", Data: []byte(yaml)}}, p.node)
	if r.HasErrors() {
		t.Fatal(r.Findings)
	}
	reg := mesh.NewRegistry(mesh.Known{Node: p.node, Config: r.Config, Previous: previous, Beside: previous, Now: time.Now()})
	return &mesh.Snapshot{Number: 1, Node: p.node, Config: r.Config, Registry: reg, Rules: mesh.NewRules(p.node, r.Config.DestinationRules)}
}

// beside publishes two configurations, of which the second is a candidate.
func beside(t testing.TB, p *Proxy, yaml, candidate string, how mesh.Candidate) {
	t.Helper()
	s := snapshotOf(t, p, yaml, nil)
	c := snapshotOf(t, p, candidate, s.Registry)
	how.Config, how.Registry, how.Rules = c.Config, c.Registry, c.Rules
	s.Candidate = &how
	if err := p.Publish(s); err != nil {
		t.Fatal(err)
	}
}

func askPath(p *Proxy, t testing.TB, path, header string) string {
	return exchangeRaw(t, p.address("outbound"), "GET "+path+" HTTP/1.1\r\nHost: s.test\r\n"+header+"\r\n", whole(1))
}

// TestCandidate_Shadow: the candidate decides nothing; what it would decide
// otherwise is counted by rule.
func TestCandidate_Shadow(t *testing.T) {
	one, two := replying(t, okReply), replying(t, okReply)
	base := entry("s.test", one.address) + entry("t.test", two.address)
	rules := func(list ...string) string { return virtualService("s.test", strings.Join(list, "\n  - ")) }
	const (
		same   = "{match: [{uri: {prefix: /same}}], route: [{destination: {host: s.test}}], timeout: 5s}"
		others = "{route: [{destination: {host: s.test}}]}"
	)
	current := base + rules(same, "{match: [{uri: {prefix: /to}}], route: [{destination: {host: s.test}}]}", "{match: [{uri: {prefix: /settings}}], route: [{destination: {host: s.test}}]}", others)
	// The same rules under other names, in other lines, are no difference.
	candidate := base + "# moved\n\n" + rules(strings.Replace(same, "{match", "{name: renamed, match", 1),
		"{match: [{uri: {prefix: /to}}], route: [{destination: {host: s.test}, weight: 90}, {destination: {host: t.test}, weight: 10}]}",
		"{match: [{uri: {prefix: /settings}}], route: [{destination: {host: s.test}}], rewrite: {uri: /}}",
		"{match: [{uri: {prefix: /answer}}], directResponse: {status: 410}}", "{match: [{uri: {prefix: /found}}], route: [{destination: {host: s.test}}]}")
	p := serve(t, Options{}, current)
	beside(t, p, current, candidate, mesh.Candidate{Sample: mesh.AllRequests, Sticky: "x-request-id"})
	for path, n := range map[string]int{"/same": 3, "/to": 5, "/settings": 2, "/answer": 4, "/lost": 6, "/found": 1} {
		for range n {
			if got := askPath(p, t, path, ""); status(got) != "200" {
				t.Fatalf("%s: %q", path, got)
			}
		}
	}
	a, b, seen := p.Canary()
	if seen.Compared != 21 || seen.Different != 17 {
		t.Errorf("%d compared, %d different; want 21 and 17", seen.Compared, seen.Different)
	}
	if a.Requests != 21 || a.Refused != 6 || b.Requests != 21 || b.Refused != 0 {
		t.Errorf("candidate %+v, current %+v", a, b)
	}
	got := map[string]uint64{}
	for _, d := range seen.Differences {
		got[d.Kind+" "+d.Example] += d.Count
		if !strings.HasPrefix(d.Source, "test.yaml:") {
			t.Errorf("no source in %+v", d)
		}
	}
	want := map[string]uint64{"destination GET s.test/to": 5, "route GET s.test/settings": 2, "destination GET s.test/answer": 4, "refusal GET s.test/lost": 6}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v: %+v", got, want, seen.Differences)
	}
	for _, d := range seen.Differences {
		if d.Example == "GET s.test/to" && !strings.HasSuffix(d.Candidate, ": to s.test:80 90 %, t.test:80 10 %") {
			t.Errorf("told %q", d.Candidate)
		}
	}
	if len(two.seen()) != 0 {
		t.Error("a request has gone where only the candidate sends it")
	}
}

// TestCandidate_Share: requests stay on their side by the header, more of them
// are the candidate's as its share grows, and each side is counted.
func TestCandidate_Share(t *testing.T) {
	one, two := replying(t, okReply), replying(t, strings.Replace(okReply, "ok", "no", 1))
	base := entry("s.test", one.address) + entry("t.test", two.address)
	current := base + virtualService("s.test", "{route: [{destination: {host: s.test}}]}")
	candidate := base + virtualService("s.test", "{route: [{destination: {host: t.test}}]}")
	p := serve(t, Options{}, current)
	const users = 400
	before := map[int]bool{}
	for stage, percent := range []mesh.Fraction{10, 50} {
		beside(t, p, current, candidate, mesh.Candidate{Stage: stage, Share: percent * mesh.AllRequests / 100, Sticky: "x-user"})
		n := 0
		for user := range users {
			his := strings.HasSuffix(askPath(p, t, "/", fmt.Sprintf("X-User: %d\r\n", user)), "no")
			if again := strings.HasSuffix(askPath(p, t, "/", fmt.Sprintf("X-User: %d\r\n", user)), "no"); again != his {
				t.Fatalf("user %d changed sides", user)
			}
			if before[user] && !his {
				t.Errorf("user %d was the candidate's at a smaller share", user)
			}
			if before[user] = his; his {
				n++
			}
		}
		if want := int(percent) * users / 100; n < want/2 || n > want*2 {
			t.Errorf("%d of %d users are the candidate's, want about %d", n, users, want)
		}
		if got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", whole(1)); status(got) != "400" {
			t.Fatalf("a malformed request: %q", got)
		}
		await(t, "all to be counted, but for what neither has decided", until(func() bool {
			a, b, _ := p.Canary()
			return a.Requests == uint64(2*n) && b.Requests == uint64(2*(users-n))
		}))
	}
}

// TestCandidate_GRPC: calls are judged by their own status, be it the upstream's or
// the proxy's, in a head or in trailers; a candidate by which they fail is worse.
func TestCandidate_GRPC(t *testing.T) {
	answering := func(code int) string {
		return grpcServer(t, func(http.ResponseWriter, *http.Request) int { return code })
	}
	good := answering(0)
	trailers := grpcServer(t, func(w http.ResponseWriter, _ *http.Request) int {
		w.Header().Set("Trailer", "grpc-status")
		w.Write([]byte{0, 0, 0, 0, 0})
		w.Header().Set("grpc-status", "14")
		return -1
	})
	for _, tt := range []struct {
		name, candidate string
		failed, refused bool
	}{
		{"OK", entry("s.test", answering(0)), false, false},
		{"UNAVAILABLE", entry("s.test", answering(14)) + routed("retries: {attempts: 0}, route: [{destination: {host: s.test}}]"), true, false},
		{"UNAVAILABLE in trailers", entry("s.test", trailers), true, false},
		{"PERMISSION_DENIED", entry("s.test", answering(7)), false, true},
		{"nobody there", entry("s.test", refusing(t)), true, false},
		{"a fault", entry("s.test", good) + routed("fault: {abort: {percentage: {value: 100}, grpcStatus: INTERNAL}}, route: [{destination: {host: s.test}}]"), true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const calls = 40
			p := serve(t, Options{}, overHTTP2(entry("s.test", good)))
			beside(t, p, overHTTP2(entry("s.test", good)), overHTTP2(tt.candidate), mesh.Candidate{Share: mesh.AllRequests / 2, Sticky: "x-user"})
			c := h2Client(t, p, "outbound")
			for i := range calls {
				call(t, c, "x-user", fmt.Sprint(i))
			}
			await(t, "all to be counted", until(func() bool {
				a, b, _ := p.Canary()
				return a.Requests+b.Requests == calls
			}))
			a, b, _ := p.Canary()
			want := func(is bool) uint64 {
				if is {
					return a.Requests
				}
				return 0
			}
			if a.Failed != want(tt.failed) || a.Refused != want(tt.refused) || b.Failed+b.Refused > 0 {
				t.Errorf("candidate %+v, current %+v", a, b)
			}
			if worse := canary.DefaultGuard.Worse(a, b); (worse != "") != (tt.failed || tt.refused) {
				t.Errorf("guard: %q", worse)
			}
		})
	}
}

// TestCandidate_CutOff: what a drain does not bring to an end is no failure of either side.
func TestCandidate_CutOff(t *testing.T) {
	over := make(chan struct{})
	up := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool {
		<-over
		return false
	})
	t.Cleanup(func() { close(over) })
	current := entry("s.test", up.address)
	p := serve(t, Options{}, current)
	beside(t, p, current, current+"# other\n", mesh.Candidate{Share: mesh.AllRequests / 2, Sticky: "x-user"})
	dial(t, p.address("outbound")).send(get("s.test"))
	await(t, "the request", until(func() bool { return up.requests() == 1 }))
	p.End(20 * time.Second)
	if a, b, _ := p.Canary(); a.Failed+b.Failed != 0 {
		t.Errorf("candidate %+v, current %+v: counted as failed", a, b)
	}
}

// TestCandidate_Limits: what both say alike of a limit is one bucket; a limit that
// the candidate has otherwise is its own, which shadow takes nothing from, a new
// snapshot does not fill, and which comes into force with it.
func TestCandidate_Limits(t *testing.T) {
	limit := func(n int) string {
		return limitHosts + limitFilter(fmt.Sprintf("token_bucket: {max_tokens: %d, %s}", n, hourly), "")
	}
	shadow := mesh.Candidate{Sample: mesh.AllRequests, Sticky: "x-request-id"}
	all := mesh.Candidate{Share: mesh.AllRequests, Sticky: "x-request-id"}
	p := serve(t, Options{}, limit(9))
	letIn := func(n int) {
		t.Helper()
		for range n {
			if got := exchangeRaw(t, p.address("outbound"), get("one.test"), whole(1)); status(got) != "200" {
				t.Fatalf("refused: %q", got)
			}
		}
	}
	left := func(what string, want int) {
		t.Helper()
		if got := passed(t, p, "one.test", "/", ""); got != want {
			t.Errorf("%s: %d are let in, want %d", what, got, want)
		}
	}
	beside(t, p, limit(9), limit(2), shadow)
	letIn(3)
	beside(t, p, limit(9), limit(2), all)
	left("the candidate's own", 2)
	beside(t, p, limit(9), limit(2), all)
	left("the candidate's own in a new snapshot", 0)
	publish(t, p, limit(9))
	letIn(3)
	beside(t, p, limit(9), limit(9)+"# alike\n", all)
	left("of both alike, after 6 of 9", 3)
	beside(t, p, limit(9), limit(2), all)
	letIn(1)
	publish(t, p, limit(2))
	left("the candidate's own, in force", 1)
}

// TestCandidate_Moved: what both say alike of an upstream, if in other lines, is one upstream.
func TestCandidate_Moved(t *testing.T) {
	up := replying(t, okReply)
	rule := func(pool string) string {
		return entry("s.test", up.address) + `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, annotations: {isthmus.io/adaptive-concurrency: "true"}}
spec:
  host: s.test
  trafficPolicy:
    loadBalancer: {simple: RANDOM, localityLbSetting: {failoverPriority: [topology.istio.io/cluster]}}
    connectionPool: {http: {` + pool + `}}
    outlierDetection: {consecutive5xxErrors: 7}
    tls: {mode: DISABLE}
    retryBudget: {percent: 30}
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 8}}}]
`
	}
	current := rule("http2MaxRequests: 10")
	for _, tt := range []struct {
		name, candidate string
		own             int
	}{
		{"moved", "# moved\n" + current, 0},
		{"moved and changed", "# moved\n" + rule("http2MaxRequests: 11"), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, current)
			beside(t, p, current, tt.candidate, mesh.Candidate{Share: mesh.AllRequests, Sticky: "x-user"})
			got := askPath(p, t, "/", "")
			p.mu.Lock()
			defer p.mu.Unlock()
			if status(got) != "200" || len(p.candidates) != tt.own {
				t.Errorf("%q, %d upstreams of the candidate's own, want %d", got, len(p.candidates), tt.own)
			}
		})
	}
}

// TestCandidate_Upstreams: what both say alike of an upstream is one, with its
// connections; what the candidate says otherwise is its own, counted with the
// other, and is taken over when it comes into force.
func TestCandidate_Upstreams(t *testing.T) {
	up, new := replying(t, okReply), replying(t, okReply)
	current := entry("s.test", up.address) + destinationRule("s.test", "connectionPool: {tcp: {connectTimeout: 5s}}")
	all := mesh.Candidate{Share: mesh.AllRequests, Sticky: "x-request-id"}
	p := serve(t, Options{}, current)
	ask := func(host string) {
		t.Helper()
		// The client's connection ends once the upstream's is kept.
		if got := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n", nil); status(got) != "200" {
			t.Fatalf("%s: %q", host, got)
		}
	}
	ask("s.test")
	beside(t, p, current, current+"# no difference\n", all)
	ask("s.test")
	up.mu.Lock()
	conns := up.conns
	up.mu.Unlock()
	if conns != 1 || len(p.candidates) != 0 {
		t.Errorf("%d connections, %d upstreams of the candidate's own; want one and none", conns, len(p.candidates))
	}
	other := entry("s.test", up.address) + destinationRule("s.test", "connectionPool: {tcp: {connectTimeout: 6s}}") + entry("new.test", new.address)
	beside(t, p, current, other, all)
	for range 2 {
		ask("s.test")
		ask("new.test")
		beside(t, p, current, other, all) // published anew, as when an endpoint comes
	}
	up.mu.Lock()
	conns = up.conns
	up.mu.Unlock()
	if conns != 2 || len(p.candidates) != 2 {
		t.Errorf("%d connections, %d upstreams of the candidate's own; want two and two", conns, len(p.candidates))
	}
	publish(t, p, other)
	ask("new.test")
	new.mu.Lock()
	conns = new.conns
	new.mu.Unlock()
	if conns != 1 || p.candidates != nil || p.table.Load().trial != nil {
		t.Errorf("after the promotion: %d connections to what was new, %d upstreams of a candidate", conns, len(p.candidates))
	}
}

// TestCandidate_Policies: a candidate's policies are its own, and what would be
// refused is known before anybody is.
func TestCandidate_Policies(t *testing.T) {
	tr := newTrust(t)
	web := tr.identity("prod", "web")
	deny := authorization("prod", "closed", `action: DENY, rules: [{to: [{operation: {paths: ["/secret"]}}]}]`)
	p := sidecarOfWeb(t, web, replying(t, okReply).address, "")
	current := webService(replying(t, okReply).address)
	ask := func(path string) string {
		return status(exchangeRaw(t, p.address("inbound"), "GET "+path+" HTTP/1.1\r\nHost: web.prod\r\n\r\n", whole(1)))
	}
	for _, tt := range []struct {
		share mesh.Fraction
		want  string
	}{{0, "200"}, {mesh.AllRequests, "403"}} {
		beside(t, p, current, current+"---\n"+deny, mesh.Candidate{Stage: int(tt.share), Share: tt.share, Sample: mesh.AllRequests, Sticky: "x-request-id"})
		if got := ask("/secret"); got != tt.want {
			t.Errorf("share %d: %s, want %s", tt.share, got, tt.want)
		}
		if got := ask("/open"); got != "200" {
			t.Errorf("share %d: an open path gets %s", tt.share, got)
		}
	}
	_, _, seen := p.Canary()
	if len(seen.Differences) != 1 || seen.Differences[0].Kind != "refusal" || !strings.HasPrefix(seen.Differences[0].Candidate, "403: AuthorizationPolicy prod/closed rules[0] (test.yaml:") {
		t.Errorf("%+v", seen)
	}
	if n := len(p.PolicyMatches()); n != 1 {
		t.Errorf("%d policies have counters", n)
	}
	for k, n := range p.PolicyMatches() {
		if n != 1 {
			t.Errorf("%s matched %d times; a look at a decision is none", k.Name, n)
		}
	}
}

// TestCandidate_LimitsShown: what both configurations say of limits is one limit, and
// what only the candidate says is shown as its own.
func TestCandidate_LimitsShown(t *testing.T) {
	current := limitHosts + limitFilter("token_bucket: {max_tokens: 30, "+hourly+"}", "")
	p := serve(t, Options{}, current)
	patch := ofRoutes("VIRTUAL_HOST", `{vhost: {domainName: two.test}}`, "{typed_per_filter_config: "+localLimit(3)+"}")
	beside(t, p, current, current+patch, mesh.Candidate{Stage: 1, Share: mesh.AllRequests, Sticky: "x-user"})
	if got := passed(t, p, "two.test", "/", ""); got != 3 {
		t.Errorf("%d are let in, want the candidate's 3", got)
	}
	list := p.Limits()
	if len(list) != 2 || list[0].Trial || list[0].Allowed != 0 || !list[1].Trial || list[1].Allowed != 3 || list[1].Enforced != 1 || list[1].Where != "two.test:80" {
		t.Errorf("%+v", list)
	}
	beside(t, p, current, current, mesh.Candidate{Stage: 1, Share: mesh.AllRequests, Sticky: "x-user"})
	if list := p.Limits(); len(list) != 1 || list[0].Trial {
		t.Errorf("%+v of two configurations that are alike", list)
	}
}
