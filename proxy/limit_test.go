package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// limitFilter is an EnvoyFilter with a local rate limit of the outbound
// listener, and more patches.
func limitFilter(settings, more string) string {
	return `---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_OUTBOUND}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: x
          filter_enabled: {default_value: {numerator: 100}}
          ` + settings + "\n" + more
}

// ofRoutes is a patch of routes, or of virtual hosts.
func ofRoutes(applyTo, match, value string) string {
	return `
  - applyTo: ` + applyTo + `
    match: {context: SIDECAR_OUTBOUND, routeConfiguration: ` + match + `}
    patch:
      operation: MERGE
      value: ` + value + "\n"
}

const hourly = `tokens_per_fill: 1, fill_interval: 3600s`

// localLimit is a local rate limit of n requests an hour, for
// typed_per_filter_config.
func localLimit(n int) string {
	return fmt.Sprintf(`{envoy.filters.http.local_ratelimit: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: r, token_bucket: {max_tokens: %d, %s}, filter_enabled: {default_value: {numerator: 100}}}}`, n, hourly)
}

const limitHosts = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [one.test, two.test]
  http:
  - {name: named, match: [{uri: {prefix: /named}}], directResponse: {status: 200}}
  - {directResponse: {status: 200}}
`

// passed sends requests until one is refused, 30 at most, and returns how many
// were let in.
func passed(t *testing.T, p *Proxy, host, path, fields string) (n int) {
	t.Helper()
	for range 30 {
		got := exchangeRaw(t, p.address("outbound"), "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n"+fields+"\r\n", whole(1))
		switch status(got) {
		case "200":
			n++
		case "429":
			return n
		default:
			t.Fatalf("%s%s: %q", host, path, got)
		}
	}
	return n
}

// TestLimit_Places: which limit holds for which route.
func TestLimit_Places(t *testing.T) {
	const all = 30
	type request struct {
		host, path string
		want       int
	}
	for _, tt := range []struct {
		name, yaml string
		requests   []request
	}{
		{"the listener's", limitFilter("token_bucket: {max_tokens: 3, "+hourly+"}", ""), []request{{"one.test", "/", 3}, {"two.test", "/", 0}}},
		{"of no bucket", limitFilter("", ""), []request{{"one.test", "/", all}}},
		{"a virtual host's", limitFilter("", ofRoutes("VIRTUAL_HOST", `{vhost: {name: "one.test:80"}}`, "{typed_per_filter_config: "+localLimit(2)+"}")),
			[]request{{"one.test", "/", 2}, {"one.test", "/named", 0}, {"two.test", "/", all}}},
		{"by domain", limitFilter("", ofRoutes("VIRTUAL_HOST", `{vhost: {domainName: two.test}}`, "{typed_per_filter_config: "+localLimit(2)+"}")),
			[]request{{"one.test", "/", all}, {"two.test", "/", 2}}},
		{"each virtual host's own", limitFilter("", ofRoutes("VIRTUAL_HOST", `{portNumber: 80}`, "{typed_per_filter_config: "+localLimit(2)+"}")),
			[]request{{"one.test", "/", 2}, {"two.test", "/", 2}}},
		{"of another port", limitFilter("", ofRoutes("VIRTUAL_HOST", `{portNumber: 81}`, "{typed_per_filter_config: "+localLimit(2)+"}")), []request{{"one.test", "/", all}}},
		{"a route's", limitFilter("token_bucket: {max_tokens: 20, "+hourly+"}", ofRoutes("HTTP_ROUTE", `{vhost: {route: {name: named}}}`, "{typed_per_filter_config: "+localLimit(1)+"}")),
			[]request{{"one.test", "/named", 1}, {"two.test", "/named", 1}, {"two.test", "/", 20}}},
		{"of routes that redirect", limitFilter("", ofRoutes("HTTP_ROUTE", `{vhost: {route: {action: REDIRECT}}}`, "{typed_per_filter_config: "+localLimit(1)+"}")),
			[]request{{"one.test", "/", all}}},
		{"a route's before the virtual host's", limitFilter("", ofRoutes("VIRTUAL_HOST", `{}`, "{typed_per_filter_config: "+localLimit(5)+"}")+ofRoutes("HTTP_ROUTE", `{vhost: {route: {name: named}}}`, "{typed_per_filter_config: "+localLimit(1)+"}")),
			[]request{{"one.test", "/named", 1}, {"one.test", "/", 5}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, limitHosts+tt.yaml)
			for _, r := range tt.requests {
				if got := passed(t, p, r.host, r.path, ""); got != r.want {
					t.Errorf("%s%s: %d pass, want %d", r.host, r.path, got, r.want)
				}
			}
		})
	}
}

// TestLimit_NamedPlaces: which virtual hosts a patch means, by the names that Istio gives them,
// their routes and their gateways, where it is not the outbound listener's.
func TestLimit_NamedPlaces(t *testing.T) {
	up := replying(t, okReply)
	_, target, _ := net.SplitHostPort(up.address)
	own := `
apiVersion: v1
kind: Service
metadata: {name: own, namespace: default}
spec:
  selector: {app: client}
  ports: [{name: http, port: 80, targetPort: ` + target + `}]
---
`
	at := func(context, match string) string {
		return strings.ReplaceAll(limitFilter("", ofRoutes("VIRTUAL_HOST", match, "{typed_per_filter_config: "+localLimit(1)+"}")), "SIDECAR_OUTBOUND", context)
	}
	for _, tt := range []struct {
		match   string
		gateway bool
		limited bool
	}{
		{`{}`, true, true},
		{`{vhost: {name: "s.test:80"}}`, true, true},
		{`{vhost: {name: "o.test:80"}}`, true, false},
		{`{name: http.80}`, true, true},
		{`{name: http.81}`, true, false},
		{`{name: https.800.https.gw.default}`, true, false},
		{`{gateway: default/gw}`, true, true},
		{`{gateway: other/gw}`, true, false},
		{`{}`, false, true},
		{`{portNumber: 80}`, false, true},
		{`{portNumber: ` + target + `}`, false, true},
		{`{portNumber: 81}`, false, false},
		{`{vhost: {name: "inbound|http|80"}}`, false, true},
		{`{vhost: {name: "inbound|http|` + target + `"}}`, false, true},
		{`{vhost: {name: "inbound|http|81"}}`, false, false},
		{`{name: "inbound|` + target + `||"}`, false, true},
		{`{name: "inbound|81||"}`, false, false},
	} {
		listener, options, context, yaml := "inbound", Options{Inbound: "127.0.0.1:0"}, "SIDECAR_INBOUND", own
		host := "own"
		if tt.gateway {
			listener, options, context, yaml = "gateway:80", atEdge(), "GATEWAY", entry("s.test", up.address)+edge("s.test")+"---\n"
			host = "s.test"
		}
		t.Run(listener+", "+tt.match, func(t *testing.T) {
			p := serve(t, options, yaml+at(context, tt.match))
			want := map[bool]string{true: "429", false: "200"}[tt.limited]
			first := exchangeRaw(t, p.address(listener), get(host), whole(1))
			if second := exchangeRaw(t, p.address(listener), get(host), whole(1)); status(first) != "200" || status(second) != want {
				t.Errorf("got %q and %q, want 200 and %s", first, second, want)
			}
		})
	}
}

// TestLimit_OverTLS: limits hold for whatever server of a gateway ends TLS, by its name, by a
// wildcard, or for all.
func TestLimit_OverTLS(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("a", "a.test")
	i.credential("w", "*.w.test")
	i.credential("any", "z.test")
	yaml := entry("up.test", replying(t, okReply).address) + secureGateway(
		server("a.test", "mode: SIMPLE, credentialName: a")+server(`"*.w.test"`, "mode: SIMPLE, credentialName: w")+server(`"*"`, "mode: SIMPLE, credentialName: any"),
		"a.test", "x.w.test", "z.test")
	for _, tt := range []struct{ match, want string }{
		{`{}`, "429"},
		{`{name: https.80.https.gw.default}`, "429"},
		{`{name: https.800.https.gw.default}`, "200"},
		{`{name: https.8}`, "200"},
	} {
		p := serveSecure(t, i.dir, yaml+strings.ReplaceAll(limitFilter("", ofRoutes("VIRTUAL_HOST", tt.match, "{typed_per_filter_config: "+localLimit(1)+"}")), "SIDECAR_OUTBOUND", "GATEWAY"))
		for _, host := range []string{"a.test", "x.w.test", "z.test"} {
			config := &tls.Config{ServerName: host, RootCAs: i.roots("a", "w", "any")}
			first := overTLSTo(t, p, config, get(host))
			if second := overTLSTo(t, p, config, get(host)); status(first) != "200" || status(second) != tt.want {
				t.Errorf("%s, %s: got %q and %q, want 200 and %s", tt.match, host, first, second, tt.want)
			}
		}
	}
}

// TestLimit_Descriptors: actions make descriptors, which have buckets of their
// own.
func TestLimit_Descriptors(t *testing.T) {
	filter := func(descriptors, more string) string {
		return limitFilter("token_bucket: {max_tokens: 20, "+hourly+"}\n          descriptors: "+descriptors, more)
	}
	bucket := "token_bucket: {max_tokens: 2, " + hourly + "}"
	of := func(key, value string) string {
		return fmt.Sprintf("[{entries: [{key: %s, value: %q}], %s}]", key, value, bucket)
	}
	routes := func(actions string) string {
		return ofRoutes("HTTP_ROUTE", "{}", "{route: {rate_limits: [{actions: ["+actions+"]}]}}")
	}
	const all, none = 20, 20 // what the common bucket lets pass
	for _, tt := range []struct {
		name, yaml, path, fields string
		want                     int
	}{
		{"a header", filter(of("user", "a"), routes("{request_headers: {header_name: X-User, descriptor_key: user}}")), "/", "x-user: a\r\n", 2},
		{"another value", filter(of("user", "a"), routes("{request_headers: {header_name: X-User, descriptor_key: user}}")), "/", "x-user: b\r\n", all},
		{"no header", filter(of("user", "a"), routes("{request_headers: {header_name: X-User, descriptor_key: user}}")), "/", "", none},
		{"a wildcard", filter("[{entries: [{key: user}], "+bucket+"}]", routes("{request_headers: {header_name: X-User, descriptor_key: user}}")), "/", "x-user: b\r\n", 2},
		{"a part that is not there spoils all", filter(of("user", "a"), routes("{request_headers: {header_name: X-User, descriptor_key: user}}, {request_headers: {header_name: x-none, descriptor_key: none}}")), "/", "x-user: a\r\n", none},
		{"unless it may be skipped", filter(of("user", "a"), routes("{request_headers: {header_name: X-User, descriptor_key: user}}, {request_headers: {header_name: x-none, descriptor_key: none, skip_if_absent: true}}")), "/", "x-user: a\r\n", 2},
		{"the path", filter(of("path", "/p?a=1"), routes("{request_headers: {header_name: ':path', descriptor_key: path}}")), "/p?a=1", "", 2},
		{"a parameter", filter(of("q", "x y"), routes("{query_parameters: {query_parameter_name: q, descriptor_key: q}}")), "/?q=x%20y", "", 2},
		{"the address", filter(of("remote_address", "127.0.0.1"), routes("{remote_address: {}}")), "/", "", 2},
		{"a masked address", filter(of("masked_remote_address", "127.0.0.0/8"), routes("{masked_remote_address: {v4_prefix_mask_len: 8}}")), "/", "", 2},
		{"a generic key", filter(of("generic_key", "v"), routes("{generic_key: {descriptor_value: v}}")), "/", "", 2},
		{"a named key", filter(of("k", "v"), routes("{generic_key: {descriptor_key: k, descriptor_value: v}}")), "/", "", 2},
		{"the caller", filter(of("source_cluster", "client.default"), routes("{source_cluster: {}}")), "/", "", 2},
		{"a header that fits", filter(of("header_match", "v"), routes("{header_value_match: {descriptor_value: v, headers: [{name: ':method', string_match: {exact: GET}}, {name: x-a, string_match: {suffix: z, ignore_case: true}}]}}")), "/", "x-a: xyZ\r\n", 2},
		{"a header that does not", filter(of("header_match", "v"), routes("{header_value_match: {descriptor_value: v, headers: [{name: ':method', exact_match: POST}]}}")), "/", "", none},
		{"and is not to", filter(of("header_match", "v"), routes("{header_value_match: {descriptor_value: v, expect_match: false, headers: [{name: ':method', exact_match: POST}]}}")), "/", "", 2},
		{"a number in a range", filter(of("header_match", "v"), routes("{header_value_match: {descriptor_value: v, headers: [{name: x-n, range_match: {start: 1, end: 5}}]}}")), "/", "x-n: 4\r\n", 2},
		{"a number beyond", filter(of("header_match", "v"), routes("{header_value_match: {descriptor_value: v, headers: [{name: x-n, range_match: {start: 1, end: 5}}]}}")), "/", "x-n: 5\r\n", none},
		{"a header that is absent", filter(of("header_match", "v"), routes("{header_value_match: {descriptor_value: v, headers: [{name: x-n, present_match: false}]}}")), "/", "", 2},
		{"inverted", filter(of("header_match", "v"), routes("{header_value_match: {descriptor_value: v, headers: [{name: x-n, present_match: true, invert_match: true}]}}")), "/", "", 2},
		{"a parameter that fits", filter(of("query_match", "v"), routes("{query_parameter_value_match: {descriptor_value: v, query_parameters: [{name: a, string_match: {prefix: b}}]}}")), "/?a=bc", "", 2},
		{"metadata that nobody has", filter(of("m", "d"), routes("{metadata: {descriptor_key: m, default_value: d, metadata_key: {key: x, path: [{key: y}]}}}")), "/", "", 2},
		{"of another stage", filter(of("generic_key", "v"), ofRoutes("HTTP_ROUTE", "{}", "{route: {rate_limits: [{stage: 1, actions: [{generic_key: {descriptor_value: v}}]}]}}")), "/", "", none},
		{"the filter's own", filter(of("generic_key", "v")+"\n          rate_limits: [{actions: [{generic_key: {descriptor_value: v}}]}]", routes("{generic_key: {descriptor_value: w}}")), "/", "", 2},
		{"two hits each", filter("[{entries: [{key: generic_key, value: v}], token_bucket: {max_tokens: 8, "+hourly+"}}]", ofRoutes("HTTP_ROUTE", "{}", "{route: {rate_limits: [{hits_addend: {number: 2}, actions: [{generic_key: {descriptor_value: v}}]}]}}")), "/", "", 4},
		{"no hits", filter("[{entries: [{key: generic_key, value: v}], token_bucket: {max_tokens: 1, "+hourly+"}}]", ofRoutes("HTTP_ROUTE", "{}", "{route: {rate_limits: [{hits_addend: {number: 0}, actions: [{generic_key: {descriptor_value: v}}]}]}}")), "/", "", none},
		{"as many hits as a header says", filter("[{entries: [{key: generic_key, value: v}], token_bucket: {max_tokens: 9, "+hourly+"}}]", ofRoutes("HTTP_ROUTE", "{}", "{route: {rate_limits: [{hits_addend: {format: '%REQ(x-cost)%'}, actions: [{generic_key: {descriptor_value: v}}]}]}}")), "/", "x-cost: 3\r\n", 3},
		{"millions of hits", filter("[{entries: [{key: generic_key, value: v}], token_bucket: {max_tokens: 9000000, "+hourly+"}}]", ofRoutes("HTTP_ROUTE", "{}", "{route: {rate_limits: [{hits_addend: {format: '%REQ(x-cost)%'}, actions: [{generic_key: {descriptor_value: v}}]}]}}")), "/", "x-cost: 3000000\r\n", 3},
		{"the virtual host's, where the route has none", filter(of("generic_key", "v"), ofRoutes("VIRTUAL_HOST", "{}", "{rate_limits: [{actions: [{generic_key: {descriptor_value: v}}]}]}")), "/", "", 2},
		{"the route's in its place", filter(of("generic_key", "v"), ofRoutes("VIRTUAL_HOST", "{}", "{rate_limits: [{actions: [{generic_key: {descriptor_value: v}}]}]}")+routes("{generic_key: {descriptor_value: w}}")), "/", "", none},
		{"both", filter(of("generic_key", "v"), ofRoutes("VIRTUAL_HOST", "{}", "{rate_limits: [{actions: [{generic_key: {descriptor_value: v}}]}]}")+ofRoutes("HTTP_ROUTE", "{}", "{route: {include_vh_rate_limits: true, rate_limits: [{actions: [{generic_key: {descriptor_value: w}}]}]}}")), "/", "", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, limitHosts+tt.yaml)
			if got := passed(t, p, "one.test", tt.path, tt.fields); got != tt.want {
				t.Errorf("%d pass, want %d", got, tt.want)
			}
		})
	}
}

// TestLimit_Replies: what refused callers are told.
func TestLimit_Replies(t *testing.T) {
	const empty = "token_bucket: {max_tokens: 1, " + hourly + "}"
	const grpc = "content-type: application/grpc\r\n"
	for _, tt := range []struct {
		name, settings, fields string
		want                   []string
	}{
		{"plain", empty, "", []string{"HTTP/1.1 429 ", "x-envoy-ratelimited: true\r\n", "\r\n\r\nlocal_rate_limited"}},
		{"another status", empty + "\n          status: {code: 503}", "", []string{"HTTP/1.1 503 "}},
		{"a status that is no error", empty + "\n          status: {code: 200}", "", []string{"HTTP/1.1 429 "}},
		{"fields", empty + "\n          response_headers_to_add: [{header: {key: X-Why, value: much}}]", "", []string{"x-why: much\r\n"}},
		{"the state", empty + "\n          enable_x_ratelimit_headers: DRAFT_VERSION_03", "", []string{"x-ratelimit-limit: 1\r\n", "x-ratelimit-remaining: 0\r\n", "x-ratelimit-reset: 3600\r\n"}},
		{"gRPC", empty, grpc, []string{"HTTP/1.1 200 ", "grpc-status: 14\r\n", "x-envoy-ratelimited: true\r\n"}},
		{"gRPC, otherwise", empty + "\n          rate_limited_as_resource_exhausted: true", grpc, []string{"HTTP/1.1 200 ", "grpc-status: 8\r\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, limitHosts+limitFilter(tt.settings, ""))
			request := "GET / HTTP/1.1\r\nHost: one.test\r\n" + tt.fields + "\r\n"
			exchangeRaw(t, p.address("outbound"), request, whole(1))
			got := exchangeRaw(t, p.address("outbound"), request, whole(1))
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("the reply is %q, want %q in it", got, want)
				}
			}
		})
	}
}

// TestLimit_NotEnforced: who is over a limit that is not enforced is let in, with
// a field that says so, and replies tell of the bucket.
func TestLimit_NotEnforced(t *testing.T) {
	up := replying(t, okReply)
	p := serve(t, Options{}, entry("s.test", up.address)+strings.TrimPrefix(limitFilter("token_bucket: {max_tokens: 1, "+hourly+`}
          filter_enforced: {default_value: {numerator: 0}}
          enable_x_ratelimit_headers: DRAFT_VERSION_03
          request_headers_to_add_when_not_enforced: [{header: {key: x-over, value: "yes"}}]`, ""), "---\n"))
	for i, remaining := range []string{"0", "0"} {
		if got := exchangeRaw(t, p.address("outbound"), get("s.test"), whole(1)); status(got) != "200" || !strings.Contains(got, "x-ratelimit-remaining: "+remaining+"\r\n") {
			t.Errorf("request %d: %q", i+1, got)
		}
	}
	if heads := up.seen(); strings.Contains(heads[0], "x-over") || !strings.Contains(heads[1], "x-over: yes\r\n") {
		t.Errorf("the upstream got %q", heads)
	}
	if l := p.Limits(); len(l) != 1 || l[0].Allowed != 1 || l[0].Limited != 1 || l[0].Enforced != 0 || len(l[0].Buckets) != 1 || l[0].Off {
		t.Errorf("shown: %+v", l)
	}
	publish(t, p, entry("s.test", up.address)+strings.Replace(strings.TrimPrefix(limitFilter("token_bucket: {max_tokens: 1, "+hourly+"}", ""), "---\n"), "numerator: 100", "numerator: 0", 1))
	if l := p.Limits(); len(l) != 1 || !l[0].Off {
		t.Errorf("shown of one that is off: %+v", l)
	}
}

// TestLimit_PerConnection: each connection has a bucket of its own.
func TestLimit_PerConnection(t *testing.T) {
	p := serve(t, Options{}, limitHosts+limitFilter("local_rate_limit_per_downstream_connection: true\n          token_bucket: {max_tokens: 2, "+hourly+"}", ""))
	for range 3 {
		c, err := net.Dial("tcp", p.address("outbound"))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		last := "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n"
		io.WriteString(c, get("one.test")+get("one.test")+get("one.test")+last)
		got := toEnd(t, c)
		c.Close()
		if ok, refused := strings.Count(got, " 200 "), strings.Count(got, " 429 "); ok != 2 || refused != 2 {
			t.Errorf("%d let in, %d refused, want 2 and 2: %q", ok, refused, got)
		}
	}
}

// TestLimit_ConnectionOutlivesSnapshots: a new snapshot fills no bucket of a
// connection either.
func TestLimit_ConnectionOutlivesSnapshots(t *testing.T) {
	yaml := limitHosts + limitFilter("local_rate_limit_per_downstream_connection: true\n          token_bucket: {max_tokens: 2, "+hourly+"}", "")
	p := serve(t, Options{}, yaml)
	c, err := net.Dial("tcp", p.address("outbound"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(c)
	for i, want := range []int{200, 200, 429} {
		io.WriteString(c, get("one.test"))
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		if res.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i+1, res.StatusCode, want)
		}
		publish(t, p, yaml)
	}
}

// TestLimit_LinesMove: the buckets of routes without a name are not filled because lines
// before them come and go, and each route has its own.
func TestLimit_LinesMove(t *testing.T) {
	yaml := strings.Replace(limitHosts, "name: named, ", "", 1) + limitFilter("", ofRoutes("HTTP_ROUTE", "{}", "{typed_per_filter_config: "+localLimit(2)+"}"))
	p := serve(t, Options{}, yaml)
	for i, want := range []int{2, 0} {
		for _, path := range []string{"/named", "/"} {
			if got := passed(t, p, "one.test", path, ""); got != want {
				t.Errorf("configuration %d: %d requests for %s pass, want %d", i, got, path, want)
			}
		}
		publish(t, p, "# more\n"+yaml)
	}
	for _, l := range p.Limits() {
		if !strings.Contains(l.Where, " test.yaml:") {
			t.Errorf("a limit is shown at %q, want the place of its route", l.Where)
		}
	}
}

// TestLimit_OneOfRule: a rule without a name has one limit of its own, though it is several
// routes: where it holds in part for a port, and where what it says of all requests stands
// behind the rules of other VirtualServices.
func TestLimit_OneOfRule(t *testing.T) {
	const vs = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec: {hosts: [one.test], http: [%s]}\n---\n"
	const answer = "directResponse: {status: 200}}"
	filter := limitFilter("", ofRoutes("HTTP_ROUTE", "{}", "{typed_per_filter_config: "+localLimit(2)+"}"))
	type request struct {
		host, path string
		want       int
	}
	for _, tt := range []struct {
		name, yaml string
		requests   []request
	}{
		{"alternatives", fmt.Sprintf(vs, "a", "{match: [{uri: {prefix: /a}}, {uri: {prefix: /}}], "+answer) + fmt.Sprintf(vs, "b", "{match: [{uri: {prefix: /b}}], "+answer),
			[]request{{"one.test", "/a", 2}, {"one.test", "/c", 0}, {"one.test", "/b", 2}}},
		{"a rule before it for a port", fmt.Sprintf(vs, "a", "{match: [{port: 80, uri: {prefix: /a}}], "+answer+", {match: [{uri: {prefix: /b}}], "+answer),
			[]request{{"one.test:8080", "/b", 2}, {"one.test", "/b", 0}, {"one.test", "/a", 2}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, Options{}, tt.yaml+filter)
			for _, r := range tt.requests {
				if got := passed(t, p, r.host, r.path, ""); got != r.want {
					t.Errorf("%s%s: %d pass, want %d", r.host, r.path, got, r.want)
				}
			}
		})
	}
}

// TestRateLimit: the burst passes, the rest is refused, and a new snapshot
// fills no bucket.
func TestRateLimit(t *testing.T) {
	const yaml = rules + `---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit}
spec:
  workloadSelector: {labels: {app: client}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_OUTBOUND}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value:
            stat_prefix: x
            token_bucket: {max_tokens: 3, tokens_per_fill: 1, fill_interval: 3600s}
            filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}
`
	p := serve(t, Options{}, yaml)
	for i, want := range []string{"299", "299", "299", "429", "429"} {
		got := exchangeRaw(t, p.address("outbound"), get("rules.test"), whole(1))
		if status(got) != want {
			t.Fatalf("request %d: status %s, want %s", i+1, status(got), want)
		}
		if want == "429" && (!strings.Contains(got, "x-envoy-ratelimited: true\r\n") || !strings.HasSuffix(got, "local_rate_limited")) {
			t.Errorf("the refusal is %q", got)
		}
	}
	publish(t, p, yaml+"---\n"+entry("more.test", "127.0.0.1:1"))
	if got := exchangeRaw(t, p.address("outbound"), get("rules.test"), whole(1)); status(got) != "429" {
		t.Errorf("a new snapshot has filled the bucket: %q", got)
	}
	node := testNode()
	node.Labels = map[string]string{"app": "other"}
	other := serve(t, Options{Node: node}, yaml)
	for range 5 {
		if got := exchangeRaw(t, other.address("outbound"), get("rules.test"), whole(1)); status(got) != "299" {
			t.Fatalf("a proxy that is not selected: %q", got)
		}
	}
}
