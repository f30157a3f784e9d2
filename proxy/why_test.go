package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"isthmus/explain"
	"isthmus/telemetry"
)

// deafAddress is one that a connection is never accepted at, since its backlog
// is full.
func deafAddress(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
	first, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return address
}

// virtualService is one for a host, with one rule on a line.
func virtualService(host, rule string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n  hosts: [%s]\n  http:\n  - %s\n---\n", host, host, rule)
}

func destinationRule(host, policy string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s}\nspec: {host: %s, trafficPolicy: {%s}}\n---\n", host, host, policy)
}

var requestIDField = regexp.MustCompile(`(?m)^x-request-id: (\S+)\r$`)

// TestWhy_Underscore: of a field that a gateway refuses for its name, the name is known.
func TestWhy_Underscore(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, atEdge(), entry("s.test", up.address)+anyHost)
	const want = `a gateway takes no field with a "_" in its name, as "x_user" has one`
	reply := exchangeRaw(t, p.address("gateway:80"), "GET / HTTP/1.1\r\nHost: s.test\r\na: b\r\nx_user: 1\r\n\r\n", whole(1))
	if got := strings.Join(askWhy(t, p, reply).Why, "\n"); status(reply) != "400" || !strings.Contains(got, want) {
		t.Errorf("%s: %q, want %q", status(reply), got, want)
	}
	e, err := p.Explain(explain.Question{URL: "http://s.test/", Listener: "gateway:80", Fields: []explain.Field{{Name: "x_user", Value: "1"}}})
	if err != nil || !strings.Contains(e.Reason, want) {
		t.Errorf("explained as %q, %v", e.Reason, err)
	}
}

// TestWhy_LongID: who asks by the whole of an id of which a part is kept, as the access
// log and the application have it, is told.
func TestWhy_LongID(t *testing.T) {
	p := serve(t, Options{}, entry("s.test", replying(t, okReply).address))
	id := strings.Repeat("0123456789", 20)
	exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: nobody.test\r\nx-request-id: "+id+"\r\n\r\n", whole(1))
	await(t, "the exchange to be over", until(func() bool { return len(p.Troubles(1)) == 1 }))
	if n := len(p.Why(id)); n != 1 {
		t.Errorf("%d are known by %s, and %+v is known", n, id, p.Troubles(1))
	}
}

// TestWhy_ManyFields: of a head over HTTP/2 that has too many fields, not its size is
// blamed alone.
func TestWhy_ManyFields(t *testing.T) {
	p := serve(t, Options{}, entry("s.test", replying(t, okReply).address))
	r, _ := http.NewRequest("GET", "http://s.test/", nil)
	for i := range 120 {
		r.Header.Set(fmt.Sprintf("x-%d", i), "1")
	}
	res, err := h2Client(t, p, "outbound").Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	got := askWhy(t, p, "x-request-id: "+res.Header.Get("x-request-id")+"\r\n")
	if why := strings.Join(got.Why, "\n"); res.StatusCode != 431 || !strings.Contains(why, "more than 100 fields") {
		t.Errorf("%d: %q", res.StatusCode, why)
	}
}

// askWhy reads the id out of a reply and asks why it came.
func askWhy(t *testing.T, p *Proxy, reply string) telemetry.Trouble {
	t.Helper()
	m := requestIDField.FindStringSubmatch(reply)
	if m == nil {
		t.Fatalf("no x-request-id in %q", reply)
	}
	var list []telemetry.Trouble
	await(t, "the exchange to be over", until(func() bool { list = p.Why(m[1]); return len(list) > 0 }))
	if len(list) != 1 {
		t.Fatalf("%d troubles of %s, want 1: %v", len(list), m[1], list)
	}
	return list[0]
}

// severalPorts is a host of which a request has to name a port.
const severalPorts = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ports}
spec: {hosts: [ports.test], resolution: STATIC, ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9090, name: http-b, protocol: HTTP}], endpoints: [{address: 127.0.0.1}]}
---
`

// TestExplain_Ports: of a host that is known it is not said that nobody has it.
func TestExplain_Ports(t *testing.T) {
	p := serve(t, Options{}, severalPorts+entry("one.test", "127.0.0.1:1"))
	for host, want := range map[string]string{
		"ports.test:81": "ports.test has no port 81: it has 8080, 9090",
		"ports.test":    "ports.test has several ports, and none for requests that name none: it has 8080, 9090",
		"one.test:81":   "one.test has no port 81: it has 80",
		"nobody.test":   "no service and no VirtualService has the host nobody.test",
	} {
		e, err := p.Explain(explain.Question{URL: "http://" + host + "/"})
		if err != nil || e.Flag != "NR" || e.Reason != want {
			t.Errorf("%s: %+v, %v, want %s", host, e, err, want)
		}
	}
}

// TestWhy_Answers goes through the table of answers: whatever the proxy answers
// itself tells an id, and of that id the cause is known.
func TestWhy_Answers(t *testing.T) {
	silent := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { select {} })
	ending := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	garbage := replying(t, "NOT HTTP\r\n\r\n")
	good := replying(t, okReply)
	resetting := framerServer(t, func(f *http2.Framer, h *http2.HeadersFrame) { f.WriteRSTStream(h.StreamID, http2.ErrCodeInternal) })
	refusing := framerServer(t, func(f *http2.Framer, h *http2.HeadersFrame) { f.WriteRSTStream(h.StreamID, http2.ErrCodeRefusedStream) })
	dead := deadAddress(t)
	p := serve(t, Options{Downstream: Downstream{HeadTimeout: 100 * time.Millisecond, MaxBody: 100}}, entry("s.test", good.address)+
		virtualService("s.test", "{match: [{uri: {prefix: /ok}}], route: [{destination: {host: s.test}}]}\n  - {match: [{uri: {prefix: /direct}}], directResponse: {status: 503, body: {string: off}}}")+
		virtualService("nowhere.test", "{route: [{destination: {host: unknown.test}}]}")+
		"apiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}\n---\n"+
		entry("dead.test", dead)+
		entry("deaf.test", deafAddress(t))+destinationRule("deaf.test", "connectionPool: {tcp: {connectTimeout: 30ms}}")+
		overHTTP2(entry("reset.test", resetting)+entry("refused.test", refusing))+
		entry("ending.test", ending.address)+entry("garbage.test", garbage.address)+
		entry("silent.test", silent.address)+virtualService("silent.test", "{timeout: 30ms, name: quick, route: [{destination: {host: silent.test}}]}")+
		entry("try.test", silent.address)+virtualService("try.test", "{retries: {attempts: 1, perTryTimeout: 30ms, retryOn: connect-failure}, route: [{destination: {host: try.test}}]}")+
		entry("full.test", silent.address)+destinationRule("full.test", "connectionPool: {http: {http2MaxRequests: 1}}")+
		entry("fault.test", good.address)+virtualService("fault.test", "{fault: {abort: {percentage: {value: 100}, httpStatus: 418}}, route: [{destination: {host: fault.test}}]}")+
		entry("limited.test", good.address)+severalPorts)
	at := p.address("outbound")

	occupant, err := net.Dial("tcp", at) // of the only request that full.test may have
	if err != nil {
		t.Fatal(err)
	}
	defer occupant.Close()
	io.WriteString(occupant, get("full.test"))
	await(t, "the occupant", until(func() bool { return len(silent.seen()) == 1 }))

	told := map[Kind]bool{}
	for _, tt := range []struct {
		kind          Kind
		name, request string
		why           string // of all lines together
	}{
		{NoRoute, "unknown host", get("nobody.test"), `the client got 404 NR because the outbound listener knows nobody by the name "nobody.test"`},
		{NoRoute, "unknown port", get("dead.test:81"), `the client got 404 NR because the outbound listener knows the host of "dead.test:81", which has no port 81: it has 80`},
		{NoRoute, "unknown port of several", get("ports.test:81"), `knows the host of "ports.test:81", which has no port 81: it has 8080, 9090`},
		{NoRoute, "no port, of several", get("ports.test"), `knows the host of "ports.test", which has several ports, and none for requests that name none: it has 8080, 9090`},
		{NoRoute, "no rule fits", get("s.test"), `the client got 404 NR because none of the 2 rules of s.test fits GET /`},
		{NoDestination, "host", get("nowhere.test"), `the client got 503 NC because the rule at test.yaml:\d+ sends to what nobody defines: unknown.test`},
		{NoHealthy, "no endpoint", get("empty"), `the client got 503 UH because the route that empty.default.svc.cluster.local has without a VirtualService has no endpoint that can serve: none is known for empty.default.svc.cluster.local`},
		{ConnectFailure, "refused", get("dead.test"), `the client got 503 UF because no connection to an endpoint could be made; \d tries .*try 1, ` + dead + ` in c1, [^ ]*: no connection to an endpoint could be made: dial tcp ` + dead + `: connect: connection refused`},
		{ConnectTimeout, "deaf", get("deaf.test"), `the client got 503 UF because an endpoint did not answer when it was connected to.*try 1.*i/o timeout`},
		{Terminated, "ended", "POST / HTTP/1.1\r\nHost: ending.test\r\nContent-Length: 0\r\n\r\n", `the client got 503 UC because the endpoint ended the connection before its reply was whole.*try 1, ` + ending.address + `.*EOF`},
		{RemoteReset, "reset", get("reset.test"), `the client got 503 UR because the endpoint reset the request.*try 1.*INTERNAL_ERROR`},
		{Refused, "refused", get("refused.test"), `the client got 503 UR because the endpoint refused to look at the request; \d tries`},
		{BadReply, "garbage", get("garbage.test"), `the client got 502 UPE because the endpoint's reply is not HTTP.*malformed HTTP/1 message`},
		{NoUpgrade, "websocket", strings.Replace(asWebSocket(), "s.test", "reset.test", 1), `the client got 502 UPE because the endpoint does not take what the request asks for in the place of HTTP.*RFC 8441`},
		{Overflow, "full", get("full.test"), `the client got 503 UO because the upstream had as many requests or connections under way as its connectionPool allows \(test.yaml:\d+\)`},
		{Timeout, "route", get("silent.test"), `the client got 504 UT because the rule quick \(test.yaml:\d+\) gives it 30ms.*try 1`},
		{Timeout, "caller", "GET / HTTP/1.1\r\nHost: try.test\r\ngrpc-timeout: 5m\r\n\r\n", `504 UT because its caller waits 5ms for it`},
		{TryTimeout, "try", get("try.test"), `504 UT because no try had its reply within the perTryTimeout of 30ms of the rule at test.yaml:\d+`},
		{BadRequest, "line", "BAD REQUEST\r\n\r\n", `the client got 400 DPE because the request is not one that everybody would read alike: malformed`},
		{BadRequest, "path", "GET /%2e%2e/a HTTP/1.1\r\nHost: s.test\r\n\r\n", `400 DPE because .*dot segments`},
		{BadRequest, "connect", "CONNECT s.test:443 HTTP/1.1\r\nHost: s.test:443\r\n\r\n", `the client got 405 DPE because CONNECT is not taken`},
		{BadRequest, "large", "GET / HTTP/1.1\r\nHost: s.test\r\nx: " + strings.Repeat("a", 70000), `the client got 431 DPE because .*(head_too_large|larger than 60 KiB)`},
		{BadRequest, "authority", "GET / HTTP/1.1\r\nHost: s.test:port\r\n\r\n", `the client got 400 DPE because .*(the host it names is none|malformed)`},
		{BadRequest, "chunks", "POST /ok HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", `the client got 400 DPE because .*malformed HTTP/1 message`},
		{BadRequest, "version", "GET / HTTP/3.0\r\nHost: s.test\r\n\r\n", `the client got 505 DPE because .*malformed`},
		{RequestTimeout, "half a head", "GET / HT", `the client got 408 because the request did not come within the time`},
		{BodyTooLarge, "body", "POST /ok HTTP/1.1\r\nHost: s.test\r\nContent-Length: 101\r\n\r\n", `the client got 413 because the request's body is larger than downstream.maxBody, 100 bytes`},
		{FaultInjected, "fault", get("fault.test"), `the client got 418 FI because the rule at test.yaml:\d+ has a fault that aborts 100 % of its requests`},
		{NoError, "direct response", "GET /direct HTTP/1.1\r\nHost: s.test\r\n\r\n", `the client got 503 because the rule at test.yaml:\d+ answers so by itself`},
	} {
		told[tt.kind] = true
		t.Run(tt.kind.String()+" "+tt.name, func(t *testing.T) {
			reply := exchangeRaw(t, at, tt.request, whole(1))
			got := askWhy(t, p, reply)
			if text := strings.Join(got.Why, "\n"); !regexp.MustCompile(`(?s)` + tt.why).MatchString(text) {
				t.Errorf("got  %s\nwant %s", text, tt.why)
			}
			if fmt.Sprint(got.Status) != status(reply) || got.Flags != answers[tt.kind].flag || got.Listener != "outbound" || got.Peer != "127.0.0.1" {
				t.Errorf("told %+v of %q", got, reply)
			}
		})
	}
	// What takes more to come about has tests of its own, or words at least.
	for _, k := range []Kind{RateLimited, Misdirected, Unauthorized, Forbidden, Denied, Overloaded} {
		told[k] = true // TestWhy_Refused, TestWhy_Denied, TestOverload_Requests
	}
	for _, k := range []Kind{LinkDown, Stalled, GloballyLimited, LimitUnknown, Shed} {
		told[k] = true
		if why := (&trouble{kind: k, status: answers[k].status, flag: answers[k].flag}).why(); kindWords[k] == "" || !strings.Contains(why[0], kindWords[k]) {
			t.Errorf("%v: %q", k, why)
		}
	}
	for k := range answers {
		if a := answers[k]; (a.status != 0 || a.body != "") && !told[Kind(k)] {
			t.Errorf("nobody asks why of %s", a.detail)
		}
	}
}

// TestWhy_Refused: refusals name who refuses, where that stands, and what did
// not fit.
func TestWhy_Refused(t *testing.T) {
	tr, i := newTrust(t), newTokenIssuer(t)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), replying(t, okReply).address, tokensOf(i, "web")+apiPolicy+`
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: prod}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value: {stat_prefix: x, token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s}, filter_enabled: {default_value: {numerator: 100}}}
`)
	frontend := tr.identity("shop", "frontend")
	ask := func(path, token string) string {
		return overTLSAt(t, callee.address("inbound"), asCaller(frontend, ""),
			"GET "+path+" HTTP/1.1\r\nHost: web.prod\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	}
	good := i.token(map[string]any{"groups": []string{"users"}})
	for _, tt := range []struct{ name, path, token, status, by, policy, why string }{
		{"policy", "/admin", good, "403", "policy", "AuthorizationPolicy prod/api", `the client got 403 because a policy says no: .*prod/api rules\[0\] \(test.yaml:\d+\), but for to`},
		{"token", "/api/x", "nonsense", "401", "token", "", `the client got 401 because its token is not to be believed: `},
		{"let pass", "/api/x", good, "200", "", "", ""},
		{"limit", "/api/x", good, "429", "rate limit", "EnvoyFilter prod/limit", `the client got 429 RL because a rate limit has no room for it: EnvoyFilter prod/limit \(test.yaml:\d+\): 1 requests at once`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply := ask(tt.path, tt.token)
			if status(reply) != tt.status {
				t.Fatalf("got %q, want %s", reply, tt.status)
			}
			if tt.status == "200" {
				return
			}
			got := askWhy(t, callee, reply)
			r := got.Refusal
			if text := strings.Join(got.Why, "\n"); r == nil || r.By != tt.by || r.Policy != tt.policy || !regexp.MustCompile(tt.why).MatchString(text) {
				t.Errorf("got  %s by %+v\nwant %s by %s %s", text, r, tt.why, tt.by, tt.policy)
			}
			if got.Identity != frontend.Identity().ID || got.Path != tt.path {
				t.Errorf("told of %s %s", got.Identity, got.Path)
			}
		})
	}

	secure := issuer{t, t.TempDir()}
	secure.credential("a", "a.test")
	gw := serveSecure(t, secure.dir, secureGateway(server("a.test", "mode: SIMPLE, credentialName: a")))
	got := askWhy(t, gw, overTLSTo(t, gw, &stdtls.Config{ServerName: "a.test", RootCAs: secure.roots("a")}, get("z.test")))
	if want := `the client got 421 because TLS was begun for another server of the gateway than the one that is for "z.test", or none is`; got.Why[0] != want {
		t.Errorf("got %q, want %q", got.Why[0], want)
	}
}

// TestWhy_Remembers: what is kept of requests that end well for their clients,
// and of those of whom it is not the proxy's doing.
func TestWhy_Remembers(t *testing.T) {
	t.Parallel()
	up := upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		code := 200
		switch {
		case strings.HasPrefix(head, "GET /slow"):
			time.Sleep(1100 * time.Millisecond)
		case strings.HasPrefix(head, "GET /broken"):
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			return false
		case strings.HasPrefix(head, "GET /4"):
			code = 404
		case strings.HasPrefix(head, "GET /5"):
			code = 500
		}
		_, err := fmt.Fprintf(c, "HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", code)
		return err == nil
	})
	p := serve(t, Options{Slow: time.Second}, entry("s.test", up.address)+destinationRule("s.test", "connectionPool: {http: {maxRetries: 1}}"))
	for _, tt := range []struct{ path, why string }{
		{"/slow", `the client waited [0-9.]+s for its 200 because its reply took longer than 1s to begin`},
		{"/broken", `the client got a 200 that broke off because the endpoint ended the connection before its reply was whole`},
		{"/5", `the client got 500 because the endpoint answered so`},
		{"/4", ""},
		{"/good", ""},
	} {
		t.Run(tt.path, func(t *testing.T) {
			id := "id-of" + strings.ReplaceAll(tt.path, "/", "-")
			exchangeRaw(t, p.address("outbound"), "GET "+tt.path+"?secret HTTP/1.1\r\nHost: s.test\r\nX-Request-ID: "+id+"\r\nConnection: close\r\n\r\n", nil)
			if tt.why == "" {
				if list := p.Why(id); len(list) != 0 {
					t.Errorf("told %+v, want nothing", list)
				}
				return
			}
			var list []telemetry.Trouble
			await(t, "the exchange to be over", until(func() bool { list = p.Why(id); return len(list) == 1 }))
			if !regexp.MustCompile(tt.why).MatchString(list[0].Why[0]) || list[0].Path != tt.path || len(list[0].Attempts) == 0 {
				t.Errorf("told %+v, want %s", list[0], tt.why)
			}
		})
	}
}

// TestRing_Bounds: the oldest go, by number and by size.
func TestRing_Bounds(t *testing.T) {
	var r ring
	for i := range 3 * maxTroubles {
		r.add(&trouble{id: fmt.Sprint(i)})
	}
	all := r.appendTo(nil, func(*trouble) bool { return true })
	if n := len(all); n == 0 || n > maxTroubles || all[n-1].id != fmt.Sprint(3*maxTroubles-1) || r.bytes > maxTroubleBytes {
		t.Errorf("%d kept, %d bytes, the last %s", len(all), r.bytes, all[len(all)-1].id)
	}
	for range 100 {
		r.add(&trouble{path: strings.Repeat("x", maxTroubleBytes/10)})
	}
	if n := len(r.appendTo(nil, func(*trouble) bool { return true })); n > 10 || n == 0 {
		t.Errorf("%d large ones kept in %d bytes", n, r.bytes)
	}
}

// TestWhy_Denied: an authorization service that says no, and one that cannot be
// asked.
func TestWhy_Denied(t *testing.T) {
	tr := newTrust(t)
	service := newAuthorizer(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), replying(t, okReply).address, service.asked("prod", "timeout: 5s"))
	for _, want := range []string{
		`^the client got 401 UAEX because an authorization service does not let it pass: AuthorizationPolicy prod/tickets \(test.yaml:\d+\) asks provider tickets, which answered 401$`,
		`^the client got 403 UAEX because .* provider tickets, which could not be asked: .*refused`,
	} {
		got := askWhy(t, callee, exchangeRaw(t, callee.address("inbound"), get("web.prod"), whole(1)))
		if r := got.Refusal; !regexp.MustCompile(want).MatchString(got.Why[0]) || r == nil || r.By != "authorization service" || r.Policy != "AuthorizationPolicy prod/tickets" {
			t.Errorf("got  %s by %+v\nwant %s", got.Why[0], r, want)
		}
		service.Close()
	}
}

// TestWhy_OutsideSidecar: of a host that a Sidecar keeps from the proxy, that one is named.
func TestWhy_OutsideSidecar(t *testing.T) {
	const sidecar = `apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow}
spec: {egress: [{hosts: ["./s.test"]}]}
---
`
	up := replying(t, okReply)
	p := serve(t, Options{}, sidecar+entry("s.test", up.address)+entry("hidden.test", up.address)+virtualService("s.test", "{match: [{uri: {prefix: /a}}], route: [{destination: {host: s.test}}]}"))
	for host, want := range map[string]string{
		"hidden.test": `the client got 404 NR because the outbound listener knows nobody by the name "hidden.test" within what egress of Sidecar default/narrow (test.yaml:1) lets this proxy know`,
		"s.test":      `the client got 404 NR because none of the 1 rules of s.test fits GET /`,
	} {
		reply := exchangeRaw(t, p.address("outbound"), get(host), whole(1))
		if got := askWhy(t, p, reply).Why[0]; got != want {
			t.Errorf("%s: %s", host, got)
		}
	}
}
