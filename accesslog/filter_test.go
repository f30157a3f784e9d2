package accesslog

import (
	"strings"
	"testing"

	"isthmus/http1"
)

func TestFilter(t *testing.T) {
	for expression, want := range map[string]bool{
		"response.code >= 400":                                  false,
		"response.code < 400":                                   true,
		"response.code == 200 && request.method == 'GET'":       true,
		"response.code in [200, 204]":                           true,
		"request.method in ['POST', 'PUT']":                     false,
		"request.duration > duration('10ms')":                   true,
		`request.duration > duration("1s") || connection.mtls`:  true,
		"connection.mtls && request.url_path.contains('v1')":    false,
		"request.path.startsWith('/a') && !(response.code > 5)": false,
		"request.path.matches('^/[a-z]$')":                      false, // Envoy's has the query
		"request.url_path.matches('^/[a-z]$')":                  true,
		"request.path == '/a?b=c'":                              true,
		"request.query == 'b=c'":                                true,
		"'user-agent' in request.headers && response.code > 0":  true,
		"!('X-Nope' in request.headers)":                        true,
		"destination.address == '10.0.0.9:15006'":               true,
		"upstream.port == 8080 && upstream.local_address == '10.0.0.9:4000' && upstream.request_attempt_count == 2": true,
		"upstream.transport_failure_reason == ''": true, // Envoy's is there, and empty
		"request.host.endsWith('views')":          true,
		`!has(request.useragent) || !(request.useragent.startsWith("Amazon-Route53-Health-Check-Service"))`: true,
		"has(request.referer)":                             false,
		"request.referer == 'x'":                           false,
		"!(request.referer == 'x')":                        false, // no value, as in CEL
		"request.referer == 'x' || true":                   true,
		"request.headers['X-Forwarded-For'] == '10.1.1.1'": true,
		"request.headers.nope == 'a'":                      false,
		"xds.cluster_name == 'outbound|80||reviews'":       true,
		"response.backend_latency <= duration('8ms')":      true,
		"!!true":                              true,
		"!true":                               false,
		"response.grpc_status == 0":           false,
		"response.flags != '-'":               false,
		"(true || false) && (false)":          false,
		"request.size == 3":                   true,
		"upstream.address == '10.0.0.1:8080'": true,
		"request.protocol == \"HTTP/1.1\"":    true,
	} {
		f, err := ParseFilter(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got := f.Match(known()); got != want {
			t.Errorf("%s: %v, want %v", expression, got, want)
		}
	}
}

// TestFilter_NoRequest: of a connection that is passed on there is no request to
// compare with, and no status.
func TestFilter_NoRequest(t *testing.T) {
	e := known()
	e.Request, e.Scheme, e.RequestID, e.Status = &http1.Request{}, nil, nil, 0
	for _, expression := range []string{
		"request.method != 'GET'", "request.path != '/healthz'", "request.url_path != '/healthz'", "request.host != 'a'", "request.scheme != 'https'", "request.id != 'a'", "has(request.path)",
		"request.query != 'a'", "response.code != 200", "response.code < 400",
	} {
		f, err := ParseFilter(expression)
		if err != nil || f.Match(e) {
			t.Errorf("%s fits, %v", expression, err)
		}
	}
}

// TestFilter_Empty: a query, and a name that TLS asks for, are texts also where there
// is none.
func TestFilter_Empty(t *testing.T) {
	e := known()
	e.Request.Query, e.Request.HasQuery = nil, false
	e.Client.ServerName = ""
	for _, expression := range []string{
		"request.query == ''", "!request.query.contains('debug')", "request.path == '/a'",
		"connection.requested_server_name != 'a.test'", "!connection.requested_server_name.startsWith('outbound')",
	} {
		f, err := ParseFilter(expression)
		if err != nil || !f.Match(e) {
			t.Errorf("%s does not fit, %v", expression, err)
		}
	}
}

// TestWholePath: whatever was received, the path and its query.
func TestWholePath(t *testing.T) {
	for target, path := range map[string]string{
		"/a?b=c": "/a", "http://reviews/a?b=c": "/a", "/./a?b=c": "/a", "/x?b=c": "/a", "/a?b=d": "/a", "": "/a", "c": "/a", "/a%2Fb?b=c": "/a/b",
	} {
		e := known()
		e.Request.Target, e.Request.Path = []byte(target), []byte(path)
		if got := string(e.wholePath()); got != path+"?b=c" {
			t.Errorf("%s: %s", target, got)
		}
	}
}

func TestParseFilter_Refuses(t *testing.T) {
	for expression, want := range map[string]string{
		"":                                      "ends too early",
		"response.code":                         "not true or false",
		"response.code == '200'":                "compares a number with a text",
		"response.cod == 200":                   "response.cod is not known",
		"response.code == 200 200":              "one too many",
		"(response.code == 200":                 `")" is expected`,
		"request.path.size() == 2":              "none of startsWith",
		"response.code.contains('a')":           "asked of a number",
		"request.path.matches('(')":             "missing closing",
		"request.path == 'abc":                  "has no end",
		"response.code == 99999999999999999999": "is no number",
		"response.code && true":                 "both have to be true or false",
		"!response.code":                        "! stands before a number",
		"request.duration > duration('x')":      "write 500ms",
		"response.code in ['a']":                "may hold a number only",
		"response.code in request.headers":      "not a name in quotes",
		"'a' in request.path":                   "or request.headers",
		"response.code # 1":                     "nothing that an expression may hold",
		strings.Repeat("(", 100) + "true":       "levels within each other",
	} {
		if _, err := ParseFilter(expression); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", expression, err, want)
		}
	}
}

// TestFilter_AllocatesNothing: filters stand in the way of every request.
func TestFilter_AllocatesNothing(t *testing.T) {
	f, err := ParseFilter("response.code >= 400 || request.duration > duration('1s') || request.path.startsWith('/admin') || request.headers['x'] == 'y'")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/a?b=c", "http://reviews/a?b=c"} { // the second is what http_proxy makes clients send
		e := known()
		e.Request.Target = []byte(target)
		if n := testing.AllocsPerRun(100, func() { f.Match(e) }); n != 0 {
			t.Errorf("%s: %v allocations", target, n)
		}
	}
}

// FuzzParseFilter: no expression breaks, read or asked.
func FuzzParseFilter(f *testing.F) {
	f.Add("response.code >= 400 && !has(request.useragent) || request.duration > duration('1s')")
	f.Add("request.headers['a'].matches(\"x\\\"\") in ['b', 'c']")
	f.Add("!(((true))) || -1 in [-1]")
	f.Fuzz(func(t *testing.T, expression string) {
		filter, err := ParseFilter(expression)
		if err != nil {
			return
		}
		filter.Match(known())
		filter.Match(refused())
	})
}
