package accesslog

import (
	"strings"
	"testing"
	"time"
)

const textLine = `[2026-01-02T03:04:05.678Z] "GET /a?b=c HTTP/1.1" 503 UH no_healthy_upstream - "-" 0 19 3 - "10.1.2.3" "curl/8 (a \"b\")" "6f0d3f6c" "web.example:80" "-" outbound|80|v1|web.example - 10.0.0.1:15001 10.0.0.2:4711 sni.test canary`

// TestParseLine reads both formats, and refuses what tells of no request.
func TestParseLine(t *testing.T) {
	want := Record{
		Start: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC), Method: "GET", Path: "/a?b=c", Authority: "web.example:80", Status: 503, Flags: "UH",
		Details: "no_healthy_upstream", Route: "canary", Upstream: "outbound|80|v1|web.example", UserAgent: `curl/8 (a \"b\")`, ForwardedFor: "10.1.2.3",
		RequestID: "6f0d3f6c", Client: "10.0.0.2:4711", Local: "10.0.0.1:15001", ServerName: "sni.test",
	}
	json := `{"start_time":"2026-01-02T03:04:05.678Z","method":"GET","path":"/a?b=c","protocol":"HTTP/1.1","response_code":503,"response_flags":"UH",
"response_code_details":"no_healthy_upstream","bytes_sent":19,"x_forwarded_for":"10.1.2.3","user_agent":"curl/8 (a \\\"b\\\")","request_id":"6f0d3f6c",
"authority":"web.example:80","upstream_host":null,"upstream_cluster":"outbound|80|v1|web.example","downstream_local_address":"10.0.0.1:15001","downstream_remote_address":"10.0.0.2:4711","requested_server_name":"sni.test","route_name":"canary"}`
	for _, line := range []string{textLine, strings.ReplaceAll(json, "\n", "")} {
		got, err := ParseLine([]byte(line))
		if err != nil || got != want {
			t.Errorf("%s\ngot  %+v, %v\nwant %+v", line, got, err, want)
		}
	}
	want.Path = `/a?b="c"`
	for _, line := range []string{textLine, strings.ReplaceAll(json, "\n", "")} {
		quote := `"`
		if line[0] == '{' {
			quote = `\"`
		}
		got, err := ParseLine([]byte(strings.Replace(line, "/a?b=c", "/a?b="+quote+"c"+quote, 1)))
		if err != nil || got != want {
			t.Errorf("%s with quotes\ngot  %+v, %v\nwant %+v", line, got, err, want)
		}
	}
	for _, line := range []string{"", "{", "nonsense", `{"method":"GET"}`, `[x] "- - -" 0 DC - - "-" 0 0 0 - "-" "-" "-" "-" "-" - - - - - -`, `{"method":"GET","path":"*","authority":"a"}`} {
		if r, err := ParseLine([]byte(line)); err == nil {
			t.Errorf("%q: %+v", line, r)
		}
	}
}

// FuzzParseLine: whatever a line holds, there is a request or an error.
func FuzzParseLine(f *testing.F) {
	f.Add([]byte(textLine))
	f.Add([]byte(`{"method":"GET","path":"/","authority":"a","response_code":"200","start_time":1}`))
	f.Add([]byte(`[`))
	f.Add([]byte(`" "`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseLine(line)
		if err == nil && (r.Method == "" || r.Authority == "" || r.Path[0] != '/') {
			t.Errorf("%+v", r)
		}
	})
}
