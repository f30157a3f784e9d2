package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus/accesslog"
	"isthmus/explain"
)

// newLog makes a log that tests can read.
func newLog(t testing.TB, format string, on bool) (*accesslog.Log, func() []string) {
	t.Helper()
	f, err := accesslog.ParseFormat(format)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "access.log")
	l := accesslog.New(accesslog.Options{Path: path, Format: f, Rule: accesslog.Rule{Share: 1}, On: on})
	t.Cleanup(l.Close)
	return l, func() []string {
		l.Close()
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

// awaitGone waits until the proxy has no connection any more, and so has told of
// all exchanges, those of clients that keep theirs included.
func awaitGone(p *Proxy, clients ...*http.Client) {
	for left := 1; left > 0; time.Sleep(100 * time.Microsecond) {
		for _, c := range clients { // again, since one may still be busy with a reply that it has given out
			c.CloseIdleConnections()
		}
		left = 0
		p.mu.Lock()
		for _, l := range p.listeners {
			l.mu.Lock()
			left += len(l.conns)
			l.mu.Unlock()
		}
		p.mu.Unlock()
		left += p.workers.underWay()
	}
}

// TestAccessLog_Reply: lines hold fields of the reply, well known or not, and those
// behind its body.
func TestAccessLog_Reply(t *testing.T) {
	up := replying(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Flavour: sweet\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\n\r\n0\r\nGrpc-Status: 3\r\n\r\n")
	log, lines := newLog(t, "%RESP(X-FLAVOUR)% %RESP(CONTENT-TYPE)% %RESP(VIA?SET-COOKIE)% %TRAILER(GRPC-STATUS)%", true)
	p := serve(t, Options{AccessLog: log}, entry("s.test", up.address))
	exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\nTE: trailers\r\n\r\n", whole(1))
	awaitGone(p)
	if got := lines(); len(got) != 1 || got[0] != "sweet text/plain a=b 3" {
		t.Errorf("%q", got)
	}
}

// TestAccessLog_ReplySent: lines hold fields as the client gets them, those of our own
// answers too.
func TestAccessLog_ReplySent(t *testing.T) {
	up := replying(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Secret: a\r\nX-Flavour: sour\r\n\r\n")
	log, lines := newLog(t, "%RESPONSE_CODE% %RESP(X-SECRET)% %RESP(X-FLAVOUR)% %RESP(LOCATION)% %RESP(CONTENT-TYPE)% %RESP(CONTENT-LENGTH)% %REQ(X-REQUEST-ID)%", true)
	p := serve(t, Options{AccessLog: log}, entry("s.test", up.address)+virtualService("s.test", "{match: [{uri: {exact: /moved}}], redirect: {uri: /there}}\n"+
		"  - {match: [{uri: {exact: /own}}], directResponse: {status: 403, body: {string: no}}, headers: {response: {set: {x-flavour: bitter}}}}\n"+
		"  - {headers: {response: {set: {x-flavour: sweet}, remove: [x-secret]}}, route: [{destination: {host: s.test}}]}"))
	for _, request := range []string{"/ HTTP/1.1\r\nX-Request-Id: 1", "/moved HTTP/1.1", "/own HTTP/1.1\r\nX-Request-Id: 3"} {
		exchangeRaw(t, p.address("outbound"), "GET "+request+"\r\nHost: s.test\r\n\r\n", whole(1))
		awaitGone(p)
	}
	want := []string{"200 - sweet - - 0 1", "301 - - http://s.test/there - 0 -", "403 - bitter - text/plain 2 3"}
	if got := lines(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestAccessLog_MatchNames: the name of a match is logged behind that of its rule, and so
// says explain; a delegate's behind its root's.
func TestAccessLog_MatchNames(t *testing.T) {
	log, lines := newLog(t, "%ROUTE_NAME%", true)
	const answer = "directResponse: {status: 200}}\n"
	p := serve(t, Options{AccessLog: log}, entry("s.test", "127.0.0.1:1")+virtualService("s.test",
		"{name: r, match: [{name: a, uri: {exact: /a}}, {uri: {exact: /b}}], "+answer+
			"  - {match: [{name: c, uri: {exact: /c}}], "+answer+
			"  - {name: root, match: [{name: x, uri: {prefix: /d}}], delegate: {name: inner}}\n"+
			"  - {name: all, "+answer+
			"---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: inner}\nspec:\n  http:\n"+
			"  - {name: inner, match: [{name: y, uri: {exact: /d/1}}], "+answer+
			"  - {"+answer))
	paths := []string{"/a", "/b", "/c", "/d/1", "/d/2", "/e"}
	for _, path := range paths {
		exchangeRaw(t, p.address("outbound"), "GET "+path+" HTTP/1.1\r\nHost: s.test\r\n\r\n", whole(1))
		awaitGone(p)
	}
	want := []string{"r.a", "r", "c", "root-inner.x-y", "root.x", "all"}
	if got := lines(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for i, path := range paths {
		e, err := p.Explain(explain.Question{URL: "http://s.test" + path})
		if err != nil || e.Route == nil || e.Route.Name != want[i] {
			t.Errorf("%s: explained by %+v, %v, want %s", path, e.Route, err, want[i])
		}
	}
}

// TestAccessLog_Answers: every answer has its line, ours with flag and details.
func TestAccessLog_Answers(t *testing.T) {
	up := replying(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Flavour: sweet\r\n\r\nok")
	chunked := replying(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
	gone := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	log, lines := newLog(t, "%REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %RESP(X-FLAVOUR)% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %ROUTE_NAME%", true)
	p := serve(t, Options{AccessLog: log}, entry("s.test", up.address)+entry("chunked.test", chunked.address)+entry("gone.test", gone.address)+entry("dead.test", deadAddress(t))+`apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own}
spec:
  hosts: [own.test]
  http:
  - match: [{uri: {exact: /redirect}}]
    redirect: {uri: /}
  - match: [{uri: {exact: /fault}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: s.test}}]
  - match: [{uri: {exact: /nobody}}]
    route: [{destination: {host: nobody.test, port: {number: 80}}}]
  - name: here
    directResponse: {status: 200, body: {string: hello}}
`)
	for _, request := range []string{
		"GET /a?b=c HTTP/1.1\r\nHost: s.test\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: chunked.test\r\nContent-Length: 4\r\n\r\nbody",
		get("gone.test"), get("dead.test"), get("empty"), get("none.test"), get("own.test"),
		"GET /redirect HTTP/1.1\r\nHost: own.test\r\n\r\n",
		"GET /fault HTTP/1.1\r\nHost: own.test\r\n\r\n",
		"GET /nobody HTTP/1.1\r\nHost: own.test\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
	} {
		exchangeRaw(t, p.address("outbound"), request, whole(1))
		awaitGone(p)
	}
	want := []string{
		"GET s.test /a?b=c 200 - via_upstream 0 2 outbound|80||s.test sweet 1 default",
		"POST chunked.test /a 200 - via_upstream 4 5 outbound|80||chunked.test - 1 default",
		"GET gone.test / 503 UC upstream_reset_before_response_started{connection_termination} 0 95 outbound|80||gone.test - 2 default",
		"GET dead.test / 503 UF upstream_reset_before_response_started{connection_failure} 0 91 outbound|80||dead.test - 3 default",
		"GET empty / 503 UH no_healthy_upstream 0 19 outbound|80||empty.default.svc.cluster.local - 0 default",
		"GET none.test / 404 NR route_not_found 0 0 - - 0 -",
		"GET own.test / 200 - direct_response 0 5 - - 0 here",
		"GET own.test /redirect 301 - direct_response 0 0 - - 0 test.yaml:56",
		"GET own.test /fault 418 FI fault_filter_abort 0 18 outbound|80||s.test - 0 test.yaml:58",
		"GET own.test /nobody 503 NC cluster_not_found 0 0 outbound|80||nobody.test - 0 test.yaml:61",
		"GET - / 400 DPE downstream_protocol_error 0 0 - - 0 -",
	}
	got := lines()
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

// TestAccessLog_JSON: the times and addresses are real ones.
func TestAccessLog_JSON(t *testing.T) {
	up := replying(t, okReply)
	log, lines := newLog(t, "json", true)
	p := serve(t, Options{AccessLog: log}, entry("s.test", up.address))
	began := time.Now().Add(-time.Second)
	exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
	awaitGone(p)
	got := lines()
	var line struct {
		Start      time.Time `json:"start_time"`
		Duration   *float64
		Service    *float64 `json:"upstream_service_time"`
		Host       string   `json:"upstream_host"`
		Local      string   `json:"upstream_local_address"`
		Downstream string   `json:"downstream_local_address"`
		Remote     string   `json:"downstream_remote_address"`
		ID         string   `json:"request_id"`
	}
	if len(got) != 1 || json.Unmarshal([]byte(got[0]), &line) != nil {
		t.Fatalf("%q", got)
	}
	if line.Start.Before(began) || line.Start.After(time.Now()) || line.Duration == nil || line.Service == nil || *line.Service > *line.Duration ||
		line.Host != up.address || line.Downstream != p.address("outbound") || !strings.HasPrefix(line.Local, "127.0.0.1:") || !strings.HasPrefix(line.Remote, "127.0.0.1:") || len(line.ID) != uuidLength {
		t.Errorf("%s", got[0])
	}
}

// TestAccessLog_Telemetry: resources switch the log on and off, for one side, and
// filter it.
func TestAccessLog_Telemetry(t *testing.T) {
	up := replying(t, okReply)
	telemetry := func(namespace, spec string) string {
		return fmt.Sprintf("apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: t, namespace: %s}\nspec: {%s}\n---\n", namespace, spec)
	}
	for _, tt := range []struct {
		name, yaml string
		on         bool
		want       int
	}{
		{"nothing said, off", "", false, 0},
		{"nothing said, on", "", true, 2},
		{"on by the mesh", telemetry("istio-system", "accessLogging: [{providers: [{name: envoy}]}]"), false, 2},
		{"off by the namespace", telemetry("istio-system", "accessLogging: [{providers: [{name: envoy}]}]") + telemetry("default", "accessLogging: [{disabled: true}]"), false, 0},
		{"for servers", telemetry("istio-system", "accessLogging: [{match: {mode: SERVER}}]"), false, 0},
		{"for others", telemetry("default", "selector: {matchLabels: {app: other}}, accessLogging: [{}]"), false, 0},
		{"for this one", telemetry("default", "selector: {matchLabels: {app: client}}, accessLogging: [{}]"), false, 2},
		{"filtered", telemetry("istio-system", "accessLogging: [{filter: {expression: 'response.code >= 400'}}]"), true, 1},
		{"filter inherited", telemetry("istio-system", "accessLogging: [{filter: {expression: 'response.code >= 400'}}]") + telemetry("default", "accessLogging: [{}]"), true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, lines := newLog(t, "%RESPONSE_CODE%", tt.on)
			p := serve(t, Options{AccessLog: log}, entry("s.test", up.address)+tt.yaml)
			exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
			exchangeRaw(t, p.address("outbound"), get("none.test"), whole(1))
			awaitGone(p)
			if got := lines(); len(got) != tt.want {
				t.Errorf("%q, want %d lines", got, tt.want)
			}
		})
	}
}

// TestAccessLog_Retried: of several tries, a line says whom the last one asked, and by
// which connection its reply came, if one came.
func TestAccessLog_Retried(t *testing.T) {
	log, lines := newLog(t, "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_LOCAL_ADDRESS%", true)
	ill := replying(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	gone := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	p := serve(t, Options{AccessLog: log}, entry("s.test", ill.address, gone.address)+
		virtualService("s.test", "{retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: s.test}}]}"))
	for range 20 {
		exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1))
	}
	awaitGone(p)
	silent, replied := 0, 0
	for _, line := range lines() {
		switch {
		case line == "UC "+gone.address+" -":
			silent++
		case strings.HasPrefix(line, "- "+ill.address+" 127.0.0.1:"):
			replied++
		default:
			t.Errorf("got %s", line)
		}
	}
	if silent == 0 || replied == 0 {
		t.Errorf("%d last tries without a reply and %d with one, want some of both", silent, replied)
	}
}

// TestAccessLog_EndOfBody: a body that ends as it should, with its connection or its stream, is no failure.
func TestAccessLog_EndOfBody(t *testing.T) {
	const h1 = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
	closing := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool { io.WriteString(c, h1); return false })
	asked := make(chan struct{})
	streaming := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		<-asked // the proxy has sent on what it had, and waits
		w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
	})
	log, lines := newLog(t, "%REQ(:AUTHORITY)% %RESPONSE_CODE% %BYTES_SENT% %UPSTREAM_TRANSPORT_FAILURE_REASON%", true)
	p := serve(t, Options{AccessLog: log}, entry("close.test", closing.address)+
		strings.Replace(entry("stream.test", streaming), "protocol: HTTP}", "protocol: HTTP2}", 1))
	client := h1Client(t, p, "outbound")
	for host, begun := range map[string]func(){"close.test": func() {}, "stream.test": func() { close(asked) }} {
		res, err := client.Get("http://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(res.Body, make([]byte, 5))
		begun()
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	awaitGone(p, client)
	got := lines()
	slices.Sort(got)
	if want := []string{"close.test 200 5 -", "stream.test 200 5 -"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAccessLog_BrokenOff: a line tells a reply that has failed on its way from one that
// never began.
func TestAccessLog_BrokenOff(t *testing.T) {
	log, lines := newLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %BYTES_SENT%", true)
	half := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		return false
	})
	gone := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	p := serve(t, Options{AccessLog: log}, entry("half.test", half.address)+entry("gone.test", gone.address))
	exchangeRaw(t, p.address("outbound"), get("half.test"), nil)
	awaitGone(p)
	exchangeRaw(t, p.address("outbound"), get("gone.test"), whole(1))
	awaitGone(p)
	want := []string{
		"200 UC upstream_reset_after_response_started{connection_termination} upstream_reset_after_response_started{connection_termination} 5",
		"503 UC upstream_reset_before_response_started{connection_termination} - 95",
	}
	if got := lines(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if why := p.Troubles(0); len(why) != 2 || why[1].Detail != "upstream_reset_after_response_started{connection_termination}" || why[1].Attempts[0].Failure != why[1].Detail {
		t.Errorf("why tells %+v", why)
	}
}

// TestAccessLog_UploadGone: of a client that has gone amid its request a line says how
// much has come, and for how long it was waited for.
func TestAccessLog_UploadGone(t *testing.T) {
	up := replying(t, okReply)
	for try := range 100 { // the proxy may be late to look at the head, and has waited for nothing then
		log, lines := newLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %REQUEST_DURATION% %DURATION%", true)
		p := serve(t, Options{AccessLog: log}, entry("s.test", up.address))
		c := dial(t, p.address("outbound"))
		c.send("POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 1000\r\n\r\nhello")
		time.Sleep(time.Duration(try+1) * time.Millisecond)
		c.Close()
		awaitGone(p)
		var duration int
		got := lines()
		if len(got) == 1 && got[0] != "0 DC 5 - 0" {
			if _, err := fmt.Sscanf(got[0], "0 DC 5 - %d", &duration); err == nil && duration > 0 {
				return
			}
		}
		if try == 99 {
			t.Errorf("got %q, want 0 DC 5 - and a duration", got)
		}
	}
}

// TestAccessLog_CutOff: what a drain does not bring to an end has a line, and is not said
// to be the client's doing.
func TestAccessLog_CutOff(t *testing.T) {
	log, lines := newLog(t, "%REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS%", true)
	over := make(chan struct{})
	saying := func(text string) *upstreamScript {
		return upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
			io.WriteString(c, text)
			<-over
			return false
		})
	}
	hanging, streaming := saying(""), saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
	t.Cleanup(func() { close(over) })
	p := serve(t, Options{AccessLog: log}, entry("hang.test", hanging.address)+entry("stream.test", streaming.address))
	c := dial(t, p.address("outbound"))
	c.send(get("stream.test"))
	if _, err := readHead(c.r); err != nil {
		t.Fatal(err)
	}
	dial(t, p.address("outbound")).send(get("hang.test"))
	for hanging.requests() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Drain(ctx); err == nil {
		t.Error("it has drained")
	}
	p.End(20 * time.Second)
	got := lines()
	slices.Sort(got)
	if want := []string{"hang.test 0 LR drain_timeout drain_timeout", "stream.test 200 LR drain_timeout drain_timeout"}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestAccessLog_Relayed: a connection that is passed on as it comes has one line,
// and so has one that goes nowhere.
func TestAccessLog_Relayed(t *testing.T) {
	log, lines := newLog(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %PROTOCOL% %UPSTREAM_CLUSTER% %REQUESTED_SERVER_NAME% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST%", true)
	o := atEdge()
	o.AccessLog = log
	up := greeter(t, "a")
	p := serve(t, o, passEntry("a.up", overTLSPort, up)+passEntry("down.up", overTLSPort, refusing(t))+tlsGateway)
	greeting(t, p.address("gateway:80"), "a.test")
	greeting(t, p.address("gateway:80"), "down.test")
	greeting(t, p.address("gateway:80"), "x.test")
	awaitGone(p)
	got := strings.Join(lines(), "\n")
	for _, want := range []string{
		`(?m)^0 (?:- - -|DC - \S+) - outbound\|443\|\|a\.up a\.test [1-9]\d+ [1-9]\d+ ` + regexp.QuoteMeta(up) + `$`,
		`(?m)^0 UF - \S*connection_failure\S* - outbound\|443\|\|down\.up down\.test 0 0 `,
		`(?m)^0 NR - route_not_found - - x\.test 0 0 -$`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// TestAccessLog_Outside: at a gateway no client says which path is logged, nor anything else
// that proxies alone may say, and traces do not tell it either; at a sidecar the proxy before does.
func TestAccessLog_Outside(t *testing.T) {
	up := replying(t, okReply)
	const tags = `---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: istio-system}
spec: {tracing: [{customTags: {path: {header: {name: X-Envoy-Original-Path, defaultValue: none}}}}]}
`
	const policy = `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: istio-system}
spec: {rules: [{}]}
`
	for _, tt := range []struct{ name, more, listener, want, tag string }{
		{"gateway", "", "gateway:80", "/a -", "none"},
		{"gateway with policies", policy, "gateway:80", "/a -", "none"},
		{"outbound", "", "outbound", "/forged 7", "/forged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, lines := newLog(t, "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(X-ISTHMUS-ANY)%", true)
			o, z := atEdge(), newZipkin(t)
			o.AccessLog, o.Tracing = log, z.tracing(100)
			p := serve(t, o, entry("s.test", up.address)+edge("s.test")+tt.more+tags)
			if got := exchangeRaw(t, p.address(tt.listener), "GET /a HTTP/1.1\r\nHost: s.test\r\nX-Envoy-Original-Path: /forged\r\nX-Isthmus-Any: 7\r\n\r\n", whole(1)); status(got) != "200" {
				t.Fatalf("got %q", got)
			}
			awaitGone(p)
			if got := lines(); len(got) != 1 || got[0] != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			for _, s := range z.wait(t, 2) {
				if tag := s.Tags["path"]; tag != "" && tag != tt.tag || tag == "" && s.ParentID == "" {
					t.Errorf("the span %+v, want its tag path to be %q", s, tt.tag)
				}
			}
		})
	}
}
