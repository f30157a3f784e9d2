package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isthmus/telemetry"
)

// sample is a line of the metrics.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

var sampleLine = regexp.MustCompile(`(?m)^(\w+)\{(.*)\} (\S+)$`)
var sampleLabel = regexp.MustCompile(`(\w+)="([^"]*)"`)

// samples are the lines that a source shows.
func samples(t *testing.T, s telemetry.Source) (out []sample) {
	t.Helper()
	w := httptest.NewRecorder()
	telemetry.Handler(1, prometheus.NewRegistry(), s).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for _, line := range sampleLine.FindAllStringSubmatch(w.Body.String(), -1) {
		value, err := strconv.ParseFloat(line[3], 64)
		if err != nil {
			t.Fatal(line, err)
		}
		labels := map[string]string{}
		for _, l := range sampleLabel.FindAllStringSubmatch(line[2], -1) {
			labels[l[1]] = l[2]
		}
		out = append(out, sample{line[1], labels, value})
	}
	return out
}

// counted returns the proxy's request counters as "labels value", for the
// labels given.
func counted(t *testing.T, p *Proxy, names ...string) (out []string) {
	t.Helper()
	for _, s := range samples(t, p.Requests()) {
		if s.name != "istio_requests_total" {
			continue
		}
		var line []string
		for _, name := range names {
			line = append(line, s.labels[name])
		}
		out = append(out, fmt.Sprint(strings.Join(line, " "), " ", s.value))
	}
	slices.Sort(out)
	return out
}

// TestRecord: every answer is counted once, ours and upstreams', with its flag
// and where it went.
func TestRecord(t *testing.T) {
	up := replying(t, okReply)
	gone := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	p := serve(t, Options{}, entry("s.test", up.address)+entry("reviews.prod.svc.cluster.local", up.address)+entry("gone.test", gone.address)+`apiVersion: v1
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
  - directResponse: {status: 200}
`)
	for _, request := range []string{
		get("s.test"), get("s.test"), get("reviews.prod.svc.cluster.local"), get("gone.test"), get("empty"), get("nobody.test"), get("own.test"),
		"GET /redirect HTTP/1.1\r\nHost: own.test\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
	} {
		exchangeRaw(t, p.address("outbound"), request, whole(1))
	}
	awaitIdle(p)
	want := []string{
		"source c1 empty.default.svc.cluster.local empty default unknown 503 UH 1",
		"source c1 gone.test gone.test default c1 503 UC 1",
		"source c1 reviews.prod.svc.cluster.local reviews prod c1 200 - 1",
		"source c1 s.test s.test default c1 200 - 2",
		"source c1 unknown BlackHoleCluster unknown unknown 400 DPE 1",
		"source c1 unknown BlackHoleCluster unknown unknown 404 NR 1",
		"source c1 unknown unknown unknown unknown 200 - 1",
		"source c1 unknown unknown unknown unknown 301 - 1",
	}
	var got []string
	for range 1000 { // a request is counted a moment after its client has the reply
		got = counted(t, p, "reporter", "source_cluster", "destination_service", "destination_service_name", "destination_service_namespace", "destination_cluster", "response_code", "response_flags")
		if slices.Equal(got, want) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// eventuallyCounted waits until the counters are as wanted: a request is counted a
// moment after its client has the reply.
func eventuallyCounted(t *testing.T, p *Proxy, want []string, names ...string) {
	t.Helper()
	var got []string
	for range 5000 {
		if got = counted(t, p, names...); slices.Equal(got, want) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
}

// TestRecord_Parties: both proxies know both ends, as certificates prove them and
// as the proxies say of themselves; the application sees nothing of that.
func TestRecord_Parties(t *testing.T) {
	tr := newTrust(t)
	application := replying(t, okReply)
	callee := sidecarOfWeb(t, tr.identity("prod", "web"), application.address, "")
	id := "spiffe://cluster.local/ns/prod/sa/web"
	o := proxyOf("shop", "frontend", tr.identity("shop", "frontend"))
	o.Node.Name = "frontend-7d9f8b6c5-x2x9k"
	e := webAt(callee, id)
	e.Owner, e.Labels = "c2/prod/web-0", map[string]string{"app": "web", "version": "v2"}
	caller := serve(t, o, webService(application.address), e)
	for range 3 {
		exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))
	}
	exchangeRaw(t, callee.address("inbound"), "GET / HTTP/1.1\r\nHost: "+webHost+"\r\nX-Isthmus-Source: app=liar\r\n\r\n", whole(1))

	names := []string{
		"reporter", "source_workload", "source_workload_namespace", "source_principal", "source_app", "source_cluster",
		"destination_workload", "destination_workload_namespace", "destination_principal", "destination_app", "destination_version", "destination_canonical_revision", "destination_cluster", "connection_security_policy",
	}
	line := func(values map[string]string, n int) string {
		var out []string
		for _, name := range names {
			out = append(out, values[name])
		}
		return fmt.Sprint(strings.Join(out, " "), " ", n)
	}
	source := map[string]string{
		"reporter": "source", "source_workload": "frontend", "source_workload_namespace": "shop", "source_principal": "spiffe://cluster.local/ns/shop/sa/frontend", "source_app": "frontend", "source_cluster": "c1",
		"destination_workload": "web", "destination_workload_namespace": "prod", "destination_principal": id, "destination_app": "web", "destination_version": "v2", "destination_canonical_revision": "v2", "destination_cluster": "c2",
		"connection_security_policy": "unknown",
	}
	eventuallyCounted(t, caller, []string{line(source, 3)}, names...)
	destination := map[string]string{
		"reporter": "destination", "source_workload": "frontend", "source_workload_namespace": "shop", "source_principal": "spiffe://cluster.local/ns/shop/sa/frontend", "source_app": "frontend", "source_cluster": "c1",
		"destination_workload": "n1", "destination_workload_namespace": "prod", "destination_principal": id, "destination_app": "web", "destination_version": "unknown", "destination_canonical_revision": "latest", "destination_cluster": "c1",
		"connection_security_policy": "mutual_tls",
	}
	unproved := map[string]string{
		"reporter": "destination", "source_workload": "unknown", "source_workload_namespace": "unknown", "source_principal": "unknown", "source_app": "unknown", "source_cluster": "unknown",
		"destination_workload": "n1", "destination_workload_namespace": "prod", "destination_principal": "unknown", "destination_app": "web", "destination_version": "unknown", "destination_canonical_revision": "latest", "destination_cluster": "c1",
		"connection_security_policy": "none",
	}
	want := []string{line(destination, 3), line(unproved, 1)}
	slices.Sort(want)
	eventuallyCounted(t, callee, want, names...)
	application.mu.Lock()
	defer application.mu.Unlock()
	if all := strings.ToLower(strings.Join(application.heads, "")); len(application.heads) != 4 || strings.Contains(all, "isthmus-source") {
		t.Errorf("the application saw %q", application.heads)
	}
}

// TestMetrics_Telemetry: resources change the metrics of the mesh, of the namespace,
// and back, and what a request holds becomes a label.
func TestMetrics_Telemetry(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+`apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  metrics:
  - overrides:
    - {match: {metric: RESPONSE_SIZE}, disabled: true}
    - {match: {metric: REQUEST_SIZE}, disabled: true}
    - {match: {metric: REQUEST_COUNT, mode: SERVER}, disabled: true}
    - {match: {metric: REQUEST_COUNT}, tagOverrides: {tenant: {value: "request.headers['x-tenant']"}, response_code: {operation: REMOVE}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: ns}
spec:
  metrics:
  - overrides:
    - {match: {metric: REQUEST_SIZE}, disabled: false}
    - {match: {metric: REQUEST_COUNT}, tagOverrides: {port: {value: "string(destination.port) == '0' ? 'none' : 'some'"}}}
`)
	for _, tenant := range []string{"a", "a", "", "\xff", "\xfe\xff"} {
		exchangeRaw(t, p.address("outbound"), strings.Replace(get("s.test"), "\r\n\r\n", "\r\nx-tenant: "+tenant+"\r\n\r\n", 1), whole(1))
	}
	awaitGone(p)
	got := strings.Join(counted(t, p, "tenant", "port", "response_code", "destination_service"), ", ")
	if want := "a some  s.test 2, unknown some  s.test 1, \uFFFD some  s.test 2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	names := map[string]bool{}
	for _, s := range samples(t, p.Requests()) {
		names[s.name] = true
	}
	if names["istio_response_bytes_count"] || !names["istio_request_bytes_count"] || !names["istio_request_duration_milliseconds_count"] {
		t.Errorf("%v", names)
	}
}

// TestRecord_Link: what clients end, and what a limit here keeps from being sent, is no
// failure of the way to a cluster.
func TestRecord_Link(t *testing.T) {
	streaming := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for ; err == nil; time.Sleep(time.Millisecond) {
			_, err = io.WriteString(c, "1\r\nx\r\n")
		}
		return false
	})
	gone := upstreamServer(t, func(string, *bufio.Reader, net.Conn) bool { return false })
	reading := upstreamServer(t, func(_ string, r *bufio.Reader, _ net.Conn) bool {
		io.Copy(io.Discard, r)
		return false
	})
	p := serve(t, Options{}, entry("s.test", streaming.address)+entry("gone.test", gone.address)+entry("reading.test", reading.address)+
		destinationRule("s.test", "connectionPool: {http: {http2MaxRequests: 1}}"))
	outcomes := func() (out string) {
		for _, s := range samples(t, p.Links()) {
			if s.name == "isthmus_link_requests_total" && s.value > 0 {
				out += fmt.Sprint(s.labels["outcome"], " ", s.value, " ")
			}
		}
		return out
	}
	c := dial(t, p.address("outbound"))
	c.send(get("s.test"))
	for streaming.requests() == 0 {
		time.Sleep(time.Millisecond)
	}
	if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); !strings.HasPrefix(got, "HTTP/1.1 503") {
		t.Errorf("beside another one: %s", got)
	}
	c.Close()
	awaitGone(p)
	if got := outcomes(); got != "success 1 " {
		t.Errorf("the client left amid the reply: %s", got)
	}
	c = dial(t, p.address("outbound"))
	c.send("POST / HTTP/1.1\r\nHost: reading.test\r\nContent-Length: 1000000\r\n\r\nhello")
	c.Close()
	awaitGone(p)
	exchangeRaw(t, p.address("outbound"), "POST / HTTP/1.1\r\nHost: gone.test\r\nContent-Length: 0\r\n\r\n", whole(1))
	awaitGone(p)
	if got := outcomes(); got != "success 1 lost 1 gone 1 " {
		t.Errorf("another left amid its request, and one got no reply: %s", got)
	}
}

// TestRecord_Refused: what a policy refuses counts, and is logged, as of the service that
// it was for.
func TestRecord_Refused(t *testing.T) {
	up, tr := replying(t, okReply), newTrust(t)
	const deny = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/no"]}}]}]}
`
	log, lines := newLog(t, "%RESPONSE_CODE% %UPSTREAM_CLUSTER% %ROUTE_NAME%", true)
	o := atEdge()
	o.AccessLog = log
	gw := serve(t, o, edge("s.test")+"---\n"+entry("s.test", up.address)+deny)
	web := sidecarOfWeb(t, tr.identity("prod", "web"), up.address, deny)
	for p, listener := range map[*Proxy]string{gw: "gateway:80", web: "inbound"} {
		host := map[string]string{"gateway:80": "s.test", "inbound": "web.prod"}[listener]
		exchangeRaw(t, p.address(listener), "GET /no HTTP/1.1\r\nHost: "+host+"\r\n\r\n", whole(1))
	}
	eventuallyCounted(t, gw, []string{"s.test 403 1"}, "destination_service", "response_code")
	eventuallyCounted(t, web, []string{"web.prod.svc.cluster.local 403 1"}, "destination_service", "response_code")
	awaitGone(gw)
	if got := lines(); len(got) != 1 || !strings.HasPrefix(got[0], "403 outbound|80||s.test ") || strings.HasSuffix(got[0], " -") {
		t.Errorf("the log has %q", got)
	}
}
