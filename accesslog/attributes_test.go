package accesslog

import (
	"maps"
	"strings"
	"testing"
	"time"
)

// TestAttributes: what each of Envoy's names means, of an exchange of which everything is known,
// and of one of which little is: what there is none of has no value, and equals nothing.
func TestAttributes(t *testing.T) {
	full := known()
	full.Request.Header = *fields(map[string]string{"user-agent": "curl/8", "referer": "https://a.test/"})
	full.GRPCStatus, full.Failure, full.Termination = 5, "tls: bad certificate", "reset"
	untested := maps.Clone(attributes)
	for name, want := range map[string]struct{ full, little string }{ // little "": no value
		"request.path":             {"/a?b=c", ""},
		"request.url_path":         {"/a", ""},
		"request.query":            {"b=c", ""},
		"request.method":           {"GET", ""},
		"request.host":             {"reviews", ""},
		"request.scheme":           {"http", ""},
		"request.id":               {"id-1", ""},
		"request.protocol":         {"HTTP/1.1", ""},
		"request.useragent":        {"curl/8", ""},
		"request.referer":          {"https://a.test/", ""},
		"request.duration":         {"12ms", "0s"},
		"request.size":             {"3", "0"},
		"request.total_size":       {"30", "0"},
		"response.code":            {"200", "400"},
		"response.code_details":    {"via_upstream", "downstream_protocol_error"},
		"response.flags":           {"-", "DPE"},
		"response.size":            {"5", "0"},
		"response.total_size":      {"50", "0"},
		"response.grpc_status":     {"5", ""},
		"response.backend_latency": {"8ms", ""},

		"connection.mtls":                     {"true", "false"},
		"connection.requested_server_name":    {"sni.test", "empty"},
		"connection.uri_san_peer_certificate": {"spiffe://td/ns/a/sa/b", ""},
		"connection.termination_details":      {"reset", ""},
		"source.port":                         {"999", "0"},
		"source.address":                      {"[2001:db8::1]:999", ""},
		"destination.port":                    {"15006", "0"},
		"destination.address":                 {"10.0.0.9:15006", ""},

		"upstream.address":                  {"10.0.0.1:8080", ""},
		"upstream.local_address":            {"10.0.0.9:4000", ""},
		"upstream.port":                     {"8080", ""},
		"upstream.request_attempt_count":    {"2", "0"},
		"upstream.transport_failure_reason": {"tls: bad certificate", "empty"},
		"xds.cluster_name":                  {"outbound|80||reviews", ""},
		"xds.route_name":                    {"default", ""},
	} {
		root, err := parseExpression(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, of := range []struct {
			entry *Entry
			want  string
		}{{full, want.full}, {refused(), want.little}} {
			v, kind := root.eval(of.entry), root.kind()
			if of.want == "" {
				kind = kindNone
			}
			if of.want == "empty" {
				of.want = ""
			}
			if v.kind != kind || v.written() != of.want {
				t.Errorf("%s is %v %q, want %v %q", name, v.kind, v.written(), kind, of.want)
			}
		}
		delete(untested, name)
	}
	for name := range untested {
		t.Errorf("nothing is wanted of %s", name)
	}
}

// TestExpression_NoValue: what has no value decides nothing by itself, as in CEL, on either side.
func TestExpression_NoValue(t *testing.T) {
	e := known()
	e.Duration = 2 * time.Second
	const none = "request.referer == 'x'"
	for expression, want := range map[string]string{
		none:                           "",
		none + " || true":              "true",
		"true || " + none:              "true",
		none + " || false":             "",
		"false || " + none:             "",
		none + " && false":             "false",
		"false && " + none:             "false",
		none + " && true":              "",
		"true && " + none:              "",
		"!(" + none + ")":              "",
		none + " ? 1 : 2":              "",
		"true ? 1 : 2":                 "1",
		"false ? 1 : 2":                "2",
		"request.referer in ['x']":     "",
		"request.referer.contains('')": "",
		"request.referer != 'x'":       "",
		"request.referer < 'x'":        "",
		"'b' < 'a'":                    "false",
		"'a' <= 'a'":                   "true",
		"'a' >= 'b'":                   "false",
		"2 > 2":                        "false",
		"2 >= 2":                       "true",
		"1 < 2":                        "true",
		"2 < 2":                        "false",
		"-1 < 1":                       "true",
		"1 <= 0":                       "false",
		"1 != 2":                       "true",
		"2 in [1, 2]":                  "true",
		"3 in [1, 2]":                  "false",
		"3 in []":                      "false",
		"string(3)":                    "3",
		"string(true)":                 "true",
		"string(request.duration)":     "2s",
		"string(request.referer)":      "",
		"string(request.method)":       "GET",
		"has(request.referer)":         "false",
		"has(request.method)":          "true",
		"'abc'.endsWith('bc')":         "true",
		"'abc'.endsWith('ab')":         "false",
		"'abc'.matches('^b')":          "false",
	} {
		root, err := parseExpression(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got := root.eval(e); got.written() != want || (got.kind == kindNone) != (want == "") {
			t.Errorf("%s: %q of kind %v, want %q", expression, got.written(), got.kind, want)
		}
	}
}

// TestOutside: what only proxies may say there is nobody's word of a client outside the mesh: as if
// it was not there, for filters as in lines.
func TestOutside(t *testing.T) {
	for name, inner := range map[string]bool{
		"x-envoy-attempt-count": true, "X-Envoy-Peer": true, "x-isthmus-destination": true, "X-ISTHMUS-X": true,
		"x-envoyed": false, "x-isthmus": false, "x-forwarded-for": false, "envoy-": false, "a": false,
	} {
		asked, err := ParseFilter("request.headers['" + name + "'] == 'v'")
		if err != nil {
			t.Fatal(err)
		}
		there, err := ParseFilter("'" + name + "' in request.headers")
		if err != nil {
			t.Fatal(err)
		}
		format, err := ParseFormat("%REQ(" + name + ")%")
		if err != nil {
			t.Fatal(err)
		}
		for _, outside := range []bool{false, true} {
			e := known()
			e.Request.Header, e.Outside = *fields(map[string]string{name: "v"}), outside
			want, wantLine := !(inner && outside), "v"
			if !want {
				wantLine = "-"
			}
			if asked.Match(e) != want || there.Match(e) != want {
				t.Errorf("%s, outside %v: found %v, there %v, want %v", name, outside, asked.Match(e), there.Match(e), want)
			}
			if got := line(format, e); got != wantLine {
				t.Errorf("%s, outside %v: logged as %q, want %q", name, outside, got, wantLine)
			}
		}
	}
}

// TestFormat_Controls: no text ends its line, or says anything to a terminal, and all else stays.
func TestFormat_Controls(t *testing.T) {
	format, err := ParseFormat("%REQ(X-A)%|%REQ(X-A):4%")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"plain ~text~":    "plain ~text~|plai",
		"a\nb \x1b[2J c":  "a?b ?[2J c|a?b ",
		"\x00\x1f\x7f !~": "??? !~|??? ",
		"a\tb\rzürich":    "a?b?zürich|a?b?",
		"abcd":            "abcd|abcd",
		"abcde":           "abcde|abcd",
	} {
		e := known()
		e.Request.Header = *fields(map[string]string{"x-a": text})
		if got := line(format, e); got != want {
			t.Errorf("%q is logged as %q, want %q", text, got, want)
		}
	}
}

// TestExpression_Texts: what a backslash stands before, and how many parentheses there may be.
func TestExpression_Texts(t *testing.T) {
	for expression, want := range map[string]string{
		`'a\'b'`: `a'b`, `"a\"b"`: `a"b`, `'a"b'`: `a"b`, `'a\\b'`: `a\b`, `'a\nb\tc'`: "a\nb\tc", `'\d+'`: `\d+`,
		strings.Repeat("(true) && ", 200) + "(false)":                                  "false",
		strings.Repeat("(", maxNesting-1) + "true" + strings.Repeat(")", maxNesting-1): "true",
	} {
		root, err := parseExpression(expression)
		if err != nil {
			t.Errorf("%.40s: %v", expression, err)
			continue
		}
		if got := root.eval(known()).written(); got != want {
			t.Errorf("%.40s is %q, want %q", expression, got, want)
		}
	}
	for expression, want := range map[string]string{
		`'a\'`: "has no end", `'a\`: "has no end", "true && response.code": "both have to be true or false",
		strings.Repeat("(", maxNesting) + "true" + strings.Repeat(")", maxNesting):       "levels within each other",
		strings.Repeat("true ? ", maxNesting) + "1" + strings.Repeat(" : 2", maxNesting): "levels within each other",
		"request.path.matches('(')": "missing closing", "request.path.matches(response.code)": "a text in quotes",
		"'" + strings.Repeat("x", maxExpression) + "' == 'x'": "longer than",
	} {
		if _, err := parseExpression(expression); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", expression, err, want)
		}
	}
}
