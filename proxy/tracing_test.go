package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus/http1"
	"isthmus/mesh"
)

// zipkin is a receiver of spans in Zipkin's format.
type zipkin struct {
	host string
	port uint32

	mu    sync.Mutex
	spans []zipkinSpan
}

type zipkinSpan struct {
	TraceID, ID, ParentID, Kind, Name string
	Local                             struct{ ServiceName string } `json:"localEndpoint"`
	Tags                              map[string]string
}

func newZipkin(t testing.TB) *zipkin {
	z := &zipkin{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var list []zipkinSpan
		if b, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(b, &list) != nil || r.URL.Path != "/api/v2/spans" {
			t.Errorf("%s %q", r.URL.Path, b)
		}
		z.mu.Lock()
		defer z.mu.Unlock()
		z.spans = append(z.spans, list...)
	}))
	t.Cleanup(s.Close)
	z.host = "127.0.0.1"
	fmt.Sscanf(s.URL, "http://127.0.0.1:%d", &z.port)
	return z
}

// tracing sends spans there, of a share in percent.
func (z *zipkin) tracing(sampling float64) mesh.Tracing {
	return mesh.Tracing{Sampling: &sampling, Collectors: []mesh.Collector{{Protocol: mesh.Zipkin, Host: z.host, Port: z.port}}}
}

// wait returns the spans as soon as there are n, those of the same trace in the
// order of their kinds and names.
func (z *zipkin) wait(t testing.TB, n int) []zipkinSpan {
	t.Helper()
	for range 10000 {
		z.mu.Lock()
		spans := slices.Clone(z.spans)
		z.mu.Unlock()
		if len(spans) >= n {
			return spans
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("not %d spans: %v", n, z.spans)
	return nil
}

// upstreamFields are the fields of the last request that an upstream saw.
func upstreamFields(u *upstreamScript) map[string]string {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := map[string]string{}
	for line := range strings.SplitSeq(u.heads[len(u.heads)-1], "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			out[strings.ToLower(name)] = value
		}
	}
	return out
}

const (
	someTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	someSpan  = "00f067aa0ba902b7"
)

// TestTracing_Spans: one span for the exchange and one for each try, each the
// parent of what comes after it.
func TestTracing_Spans(t *testing.T) {
	up, z := replying(t, okReply), newZipkin(t)
	p := serve(t, Options{Tracing: z.tracing(0)}, entry("s.test", deadAddress(t), up.address))
	for up.requests() < 1 || failures(p) == 0 {
		exchangeRaw(t, p.address("outbound"), "GET /a?secret=1 HTTP/1.1\r\nHost: s.test\r\nUser-Agent: test\r\nTraceparent: 00-"+someTrace+"-"+someSpan+"-01\r\nTracestate: a=b\r\n\r\n", whole(1))
	}
	awaitGone(p)
	p.Close()
	var whole, tries []zipkinSpan
	for _, s := range z.wait(t, 3) {
		if s.TraceID != someTrace {
			t.Errorf("another trace: %+v", s)
		}
		if s.Tags["isthmus.attempt"] == "" {
			whole = append(whole, s)
		} else {
			tries = append(tries, s)
		}
	}
	for _, s := range whole {
		if s.ParentID != someSpan || s.Kind != "CLIENT" || s.Name != "s.test:80/*" || s.Local.ServiceName != "client.default" {
			t.Errorf("%+v", s)
		}
		for key, want := range map[string]string{
			"component": "proxy", "http.method": "GET", "http.url": "http://s.test/a", "http.status_code": "200", "response_flags": "-", "upstream_cluster": "outbound|80||s.test",
			"node_id": "c1/default/n1", "istio.canonical_service": "client", "istio.namespace": "default", "user_agent": "test", "http.protocol": "HTTP/1.1", "response_size": "2",
		} {
			if s.Tags[key] != want {
				t.Errorf("%s: %q, want %q", key, s.Tags[key], want)
			}
		}
		if len(s.Tags["guid:x-request-id"]) != uuidLength {
			t.Errorf("request id %q", s.Tags["guid:x-request-id"])
		}
	}
	failed := slices.DeleteFunc(slices.Clone(tries), func(s zipkinSpan) bool { return s.Tags["error"] == "" })
	if len(failed) == 0 || failed[0].Tags["response_flags"] != "UF" || !strings.Contains(failed[0].Tags["isthmus.cause"], "refused") {
		t.Errorf("failed tries %+v", failed)
	}
	for _, s := range tries {
		if s.Kind != "CLIENT" || s.Tags["isthmus.cluster"] != "c1" || !slices.ContainsFunc(whole, func(w zipkinSpan) bool { return w.ID == s.ParentID }) {
			t.Errorf("%+v", s)
		}
	}
	names := map[string]bool{strings.Repeat("0", 16): true}
	for _, s := range slices.Concat(whole, tries) {
		if names[s.ID] {
			t.Errorf("a span has no name of its own: %+v", s)
		}
		names[s.ID] = true
	}
	got := upstreamFields(up)
	trace, span, _ := strings.Cut(strings.TrimPrefix(got["traceparent"], "00-"), "-")
	if trace != someTrace || !slices.ContainsFunc(tries, func(s zipkinSpan) bool { return s.ID+"-01" == span }) || got["tracestate"] != "a=b" || got["x-b3-traceid"] != "" {
		t.Errorf("the upstream saw %v", got)
	}
	if sent, lost := p.Spans(); lost != 0 || int(sent) != len(whole)+len(tries) {
		t.Errorf("%d sent, %d lost", sent, lost)
	}
}

// TestTracing_NoEndpoint: the span says which upstream had nobody.
func TestTracing_NoEndpoint(t *testing.T) {
	z := newZipkin(t)
	p := serve(t, Options{Tracing: z.tracing(100)}, `
kind: ServiceEntry
apiVersion: networking.istio.io/v1
metadata: {name: s}
spec:
  hosts: [s.test]
  ports: [{number: 80, name: http, protocol: HTTP}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: none}}
`)
	for _, host := range []string{"s.test", "nobody.test"} {
		exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n", whole(1))
	}
	awaitGone(p)
	p.Close()
	got := map[string]string{}
	for _, s := range z.wait(t, 2) {
		got[s.Tags["response_flags"]] = s.Tags["upstream_cluster"] + " " + s.Tags["upstream_cluster.name"]
	}
	if len(got) != 2 || got["UH"] != "outbound|80||s.test outbound|80||s.test" || got["NR"] != " " {
		t.Errorf("got %v", got)
	}
}

// requests is how many the upstream has seen.
func (u *upstreamScript) requests() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.heads)
}

// failures is how many connections could not be opened.
func failures(p *Proxy) (n uint64) {
	for _, u := range p.Upstreams() {
		n += u.Counters.ConnectFailures.Load()
	}
	return n
}

// TestTracing_Context: what goes to the upstream, by what has come and by what is
// configured.
func TestTracing_Context(t *testing.T) {
	z := newZipkin(t)
	w3c := func(flags string) string { return "traceparent: 00-" + someTrace + "-" + someSpan + "-" + flags }
	telemetry := func(spec string) string {
		return "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: t, namespace: istio-system}\nspec: {tracing: [" + spec + "]}\n---\n"
	}
	all, none := z.tracing(100), z.tracing(0)
	for _, tt := range []struct {
		name    string
		tracing mesh.Tracing
		yaml    string
		in      string            // a field
		want    map[string]string // a prefix, or "-": it is not there
		sampled bool
	}{
		{"no collector: as it came", mesh.Tracing{}, "", w3c("01"), map[string]string{"traceparent": w3c("01")[13:]}, false},
		{"no collector, nothing came", mesh.Tracing{}, "", "", map[string]string{"traceparent": "-", "x-b3-traceid": "-"}, false},
		{"not sampled by the caller: as it came", all, "", w3c("00"), map[string]string{"traceparent": w3c("00")[13:], "x-b3-traceid": "-"}, false},
		{"sampled by the caller", none, "", w3c("01"), map[string]string{"traceparent": "00-" + someTrace + "-", "x-b3-traceid": "-"}, true},
		{"b3 stays b3", none, "", "b3: " + someTrace + "-" + someSpan + "-1", map[string]string{"b3": someTrace + "-", "traceparent": "-"}, true},
		{"nothing came, drawn", all, "", "", map[string]string{"traceparent": "00-", "x-b3-traceid": "", "x-b3-sampled": "1"}, true},
		{"nothing came, not drawn: the others hear it", none, "", "", map[string]string{"traceparent": "00-", "x-b3-sampled": "0", "x-b3-parentspanid": "-"}, false},
		{"nonsense came", all, "", "traceparent: nonsense", map[string]string{"traceparent": "00-", "x-b3-sampled": "1"}, true},
		{"nonsense came, and a state of it", all, "", "traceparent: nonsense\r\nTraceState: a=b", map[string]string{"traceparent": "00-", "tracestate": "-"}, true},
		{"a state of nothing", none, "", "tracestate: a=b", map[string]string{"traceparent": "00-", "tracestate": "-"}, false},
		{"no collector: a state of nothing", mesh.Tracing{}, "", "tracestate: a=b", map[string]string{"tracestate": "a=b"}, false},
		{"a resource draws", none, telemetry("{randomSamplingPercentage: 100}"), "", map[string]string{"x-b3-sampled": "1"}, true},
		{"for servers", none, telemetry("{match: {mode: SERVER}, randomSamplingPercentage: 100}"), "", map[string]string{"x-b3-sampled": "0"}, false},
		{"nothing is told, nor decided", all, telemetry("{disableSpanReporting: true}"), "", map[string]string{"traceparent": "-", "x-b3-sampled": "-"}, false},
		{"nothing is told: as it came", all, telemetry("{disableSpanReporting: true}"), w3c("01") + "\r\ntracestate: a=b", map[string]string{"traceparent": w3c("01")[13:], "tracestate": "a=b"}, false},
		{"the context ends", all, telemetry("{disableContextPropagation: true}"), w3c("01") + "\r\ntracestate: a=b", map[string]string{"traceparent": "-", "tracestate": "-"}, true},
		{"the context ends, in each language", none, telemetry("{disableContextPropagation: true}"), "b3: 0\r\nx-b3-traceid: " + someTrace + "\r\nx-b3-spanid: " + someSpan, map[string]string{"b3": "-", "x-b3-traceid": "-", "x-b3-spanid": "-"}, false},
		{"the context ends where nothing came", all, telemetry("{disableContextPropagation: true}"), "tracestate: a=b", map[string]string{"traceparent": "-", "x-b3-traceid": "-", "tracestate": "-"}, true},
		{"the context of what is not sampled ends", all, telemetry("{disableContextPropagation: true}"), w3c("00"), map[string]string{"traceparent": "-"}, false},
		{"the context ends, and nothing is told", all, telemetry("{disableContextPropagation: true, disableSpanReporting: true}"), w3c("01"), map[string]string{"traceparent": "-"}, false},
		{"the context ends without a collector", mesh.Tracing{}, telemetry("{disableContextPropagation: true}"), w3c("01"), map[string]string{"traceparent": "-"}, false},
		{"the first default provider", mesh.Tracing{}, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    defaultProviders: {tracing: [b, a]}\n    defaultConfig: {tracing: {sampling: 100}}\n    extensionProviders:\n    - {name: a, opentelemetry: {service: nobody.test, port: 1}}\n    - {name: b, zipkin: {service: %s, port: %d}}\n---\n", z.host, z.port), "", map[string]string{"x-b3-sampled": "1"}, true},
		{"the ConfigMap's collector", mesh.Tracing{}, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tracing-config, namespace: istio-system}\ndata:\n  config.yaml: |-\n    tracing:\n      sampling: 100\n      zipkin:\n        address: %s:%d\n---\n", z.host, z.port), "", map[string]string{"x-b3-sampled": "1"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z.mu.Lock()
			z.spans = nil
			z.mu.Unlock()
			up := replying(t, okReply)
			p := serve(t, Options{Tracing: tt.tracing}, entry("s.test", up.address)+tt.yaml)
			head := "GET / HTTP/1.1\r\nHost: s.test\r\n"
			if tt.in != "" {
				head += tt.in + "\r\n"
			}
			exchangeRaw(t, p.address("outbound"), head+"\r\n", whole(1))
			awaitGone(p)
			p.Close()
			got := upstreamFields(up)
			for name, want := range tt.want {
				value, ok := got[name]
				if want == "-" && ok || want != "-" && (!ok || !strings.HasPrefix(value, want)) {
					t.Errorf("%s: %q, want %q", name, value, want)
				}
			}
			for _, s := range z.wait(t, 0) {
				if s.ID == strings.Repeat("0", 16) {
					t.Errorf("a span without a name: %+v", s)
				}
			}
			sent, lost := p.Spans()
			if lost != 0 || sent != 0 != tt.sampled {
				t.Errorf("%d spans sent, %d lost", sent, lost)
			}
		})
	}
}

// TestTracing_State: a span has the whole of a tracestate, within bounds.
func TestTracing_State(t *testing.T) {
	long := strings.Repeat("k=v,", maxState/4-1) + "k=v" // as long as one may be
	for _, tt := range []struct {
		name string
		in   []string
		want string
	}{
		{"none", nil, ""},
		{"one", []string{"a=b"}, "a=b"},
		{"several", []string{"a=b", "c=d,e=f", "g=h"}, "a=b,c=d,e=f,g=h"},
		{"long", []string{long}, long},
		{"too long", []string{long, "a=b"}, long},
		{"a member that is too long", []string{strings.Repeat("a", maxState) + "=b"}, ""},
		{"cut within a member", []string{"a=b", strings.Repeat("c", maxState)}, "a=b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fields := []http1.Field{{Name: []byte("Accept"), Value: []byte("x")}}
			for _, v := range tt.in {
				fields = append(fields, http1.Field{Name: []byte("TraceState"), Value: []byte(v)})
			}
			w := &spanWriter{text: []byte("before")}
			if got := w.traceState(fields); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestTracing_Mirror: where the context ends, it does not go on with a copy either.
func TestTracing_Mirror(t *testing.T) {
	up, shadow := capturing(t, okReply), capturing(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+entry("m.test", shadow.address)+mirrored("")+`---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: istio-system}
spec: {tracing: [{disableContextPropagation: true}]}
`)
	exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\nTraceparent: 00-"+someTrace+"-"+someSpan+"-01\r\nTracestate: a=b\r\n\r\n", whole(1))
	awaitMirrors(t, p, 1, 0, 0, 0)
	for _, head := range []string{up.last(), shadow.last()} {
		if head == "" || strings.Contains(strings.ToLower(head), "\r\ntrace") {
			t.Errorf("%q", head)
		}
	}
}

// TestTracing_ThroughTwoProxies: a request through both is one trace, each span
// the child of the one before.
func TestTracing_ThroughTwoProxies(t *testing.T) {
	z, tr := newZipkin(t), newTrust(t)
	application := replying(t, okReply)
	id := "spiffe://cluster.local/ns/prod/sa/web"
	o := proxyOf("prod", "web", tr.identity("prod", "web"))
	o.Inbound, o.Tracing = "127.0.0.1:0", z.tracing(0)
	callee := serve(t, o, webService(application.address))
	o = proxyOf("shop", "frontend", tr.identity("shop", "frontend"))
	o.Tracing = z.tracing(100)
	caller := serve(t, o, webService(application.address), webAt(callee, id))
	exchangeRaw(t, caller.address("outbound"), get(webHost), whole(1))
	awaitGone(caller)
	caller.Close()
	awaitGone(callee)
	callee.Close()
	spans := z.wait(t, 4)
	parent := ""
	for n := range 4 {
		i := slices.IndexFunc(spans, func(s zipkinSpan) bool { return s.ParentID == parent && s.TraceID == spans[0].TraceID })
		if i < 0 {
			t.Fatalf("no span %d: %+v", n, spans)
		}
		if want := []string{"frontend.shop", "frontend.shop", "web.prod", "web.prod"}[n]; spans[i].Local.ServiceName != want || (spans[i].Kind == "SERVER") != (n == 2) {
			t.Errorf("span %d of the chain: %+v", n, spans[i])
		}
		parent = spans[i].ID
	}
	if got := upstreamFields(application)["traceparent"]; got != "00-"+spans[0].TraceID+"-"+parent+"-01" {
		t.Errorf("the application saw %q, want the last span %s", got, parent)
	}
}

// TestTracing_HTTP2 writes the context as it does for HTTP/1.1.
func TestTracing_HTTP2(t *testing.T) {
	z := newZipkin(t)
	seen := make(chan http.Header, 1)
	address := h2Upstream(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header })
	p := serve(t, Options{Tracing: z.tracing(100)}, strings.Replace(entry("s.test", address), "protocol: HTTP", "protocol: HTTP2", 1))
	req, _ := http.NewRequest("GET", "http://s.test/", nil)
	req.Header.Set("B3", "1")
	res, err := h2Client(t, p, "outbound").Do(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	h := <-seen
	if h.Get("B3") == "1" || h.Get("Traceparent") == "" || h.Get("X-B3-Sampled") != "1" {
		t.Errorf("the upstream saw %v", h)
	}
	spans := z.wait(t, 2)
	if spans[0].TraceID != h.Get("X-B3-TraceId") {
		t.Errorf("%+v, and the upstream saw %v", spans, h)
	}
}

// TestTracing_UTF8: whatever requests hold, what spans say is UTF-8, as OTLP's texts have to
// be, and their parts are characters.
func TestTracing_UTF8(t *testing.T) {
	bodies := make(chan []byte, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies <- b
	}))
	t.Cleanup(s.Close)
	c := mesh.Collector{Protocol: mesh.OTLPHTTP, Host: "127.0.0.1"}
	fmt.Sscanf(s.URL, "http://127.0.0.1:%d", &c.Port)
	all := 100.0
	p := serve(t, Options{Tracing: mesh.Tracing{Sampling: &all, Collectors: []mesh.Collector{c}}}, entry("s.test", replying(t, okReply).address)+`
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: t, namespace: istio-system}
spec: {tracing: [{customTags: {tenant: {header: {name: x-tenant}}, peer.address: {header: {name: x-long}}}}]}
`)
	long := strings.Repeat("a", maxTag-1)
	reply := exchangeRaw(t, p.address("outbound"), "GET / HTTP/1.1\r\nHost: s.test\r\nUser-Agent: agent\xe9\r\nX-Request-Id: id\xe9\r\nX-Tenant: tenant\xe9\r\nX-Long: "+long+"é\r\n"+
		"Traceparent: 00-"+someTrace+"-"+someSpan+"-01\r\nTracestate: state\xe9\r\n\r\n", whole(1))
	if status(reply) != "200" {
		t.Fatalf("%q", reply)
	}
	awaitGone(p)
	p.Close()
	got := string(<-bodies)
	for _, text := range []string{"agent", "id", "tenant", "state"} {
		if !strings.Contains(got, text+"\uFFFD") || strings.Contains(got, text+"\xe9") {
			t.Errorf("%s is not as UTF-8 has it: %q", text, got)
		}
	}
	if !strings.Contains(got, long) || strings.Contains(got, long+"\xc3") {
		t.Errorf("got %q", got)
	}
}
