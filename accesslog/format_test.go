package accesslog

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isthmus/http1"
)

// fields is a message with these fields.
func fields(of map[string]string) *http1.Header {
	h := &http1.Header{}
	for name, value := range of {
		h.Add([]byte(name), []byte(value))
	}
	return h
}

// known is an exchange of which everything is known.
func known() *Entry {
	return &Entry{
		Facts: Facts{
			Start: time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC).UnixNano(), Duration: 12 * time.Millisecond, Received: time.Millisecond, FirstByte: 9 * time.Millisecond, ServiceTime: 8 * time.Millisecond,
			GRPCStatus: Unknown, RequestBody: 3, ReplyBody: 5, Route: "default", Attempts: 2,
		},
		Outcome: Outcome{Protocol: "HTTP/1.1", Status: 200, Flags: "-", Details: "via_upstream"},
		Request: &http1.Request{
			Method: []byte("GET"), Path: []byte("/a"), Query: []byte("b=c"), HasQuery: true, Authority: []byte("reviews"),
			Header: *fields(map[string]string{"user-agent": "curl/8", "x-forwarded-for": "10.1.1.1", "x-quote": `a"b\c`}),
		},
		Scheme: []byte("http"), RequestID: []byte("id-1"), Trace: [16]byte{1, 2}, Reply: fields(map[string]string{"x-flavour": "sweet"}),
		RequestBytes: 30, ReplyBytes: 50,
		Upstream: &UpstreamEnd{Name: "outbound|80||reviews", Host: netip.MustParseAddrPort("10.0.0.1:8080"), Local: netip.MustParseAddrPort("10.0.0.9:4000"), Cluster: "c2"},
		Client:   &ClientEnd{Local: netip.MustParseAddrPort("10.0.0.9:15006"), Remote: netip.MustParseAddrPort("[2001:db8::1]:999"), ServerName: "sni.test", Peer: "spiffe://td/ns/a/sa/b"},
	}
}

// line is what a format makes of an exchange.
func line(f *Format, e *Entry) string {
	var b batch
	b.add(f, e)
	text := b.records[0].appendLine(nil, &source{texts: b.texts})
	return strings.TrimSuffix(string(text), "\n")
}

// refused is an exchange of which little is known.
func refused() *Entry {
	return &Entry{
		Facts:   Facts{Received: Unknown, FirstByte: Unknown, ServiceTime: Unknown, GRPCStatus: Unknown},
		Outcome: Outcome{Flags: "DPE", Details: "downstream_protocol_error", Status: 400},
		Request: &http1.Request{}, Client: &ClientEnd{}, Upstream: &UpstreamEnd{},
	}
}

func TestFormat_Text(t *testing.T) {
	for _, tt := range []struct{ name, format, want string }{
		{"default", "text", `[2026-03-04T05:06:07.089Z] "GET /a?b=c HTTP/1.1" 200 - via_upstream - "-" 3 5 12 8 "10.1.1.1" "curl/8" "id-1" "reviews" "10.0.0.1:8080" outbound|80||reviews 10.0.0.9:4000 10.0.0.9:15006 [2001:db8::1]:999 sni.test default`},
		{"request", "%REQ(:AUTHORITY)% %REQ(X-NONE?USER-AGENT):4% %REQ(X-NONE)%", "reviews curl -"},
		{"reply", "%RESP(X-Flavour)%", "sweet"},
		{"times", "%REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %START_TIME(%Y/%m/%dT%H:%M:%S.%3f %s)%", "1 9 3 2026/03/04T05:06:07.089 1772600767"},
		{"addresses", "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS%", "10.0.0.1 2001:db8::1 10.0.0.9:15006"},
		{"who", "%DOWNSTREAM_PEER_URI_SAN% %TRACE_ID% %ISTHMUS_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", "spiffe://td/ns/a/sa/b 01020000000000000000000000000000 c2 2"},
		{"nothing", "%GRPC_STATUS% %DYNAMIC_METADATA(a:b)% 100%%", "- - 100%"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFormat(tt.format)
			if err != nil {
				t.Fatal(err)
			}
			if got := line(f, known()); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	f, _ := ParseFormat("text")
	if got, want := line(f, refused()), `[1970-01-01T00:00:00.000Z] "- - -" 400 DPE downstream_protocol_error - "-" 0 0 0 - "-" "-" "-" "-" "-" - - - - - -`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e := known()
	e.Request.Path = []byte("/a\nb\x7f")
	if got := line(f, e); strings.ContainsAny(got, "\n\x7f") {
		t.Errorf("more than one line: %q", got)
	}
}

func TestFormat_JSON(t *testing.T) {
	f, err := ParseFormat("json")
	if err != nil {
		t.Fatal(err)
	}
	var full, empty map[string]any
	if err := json.Unmarshal([]byte(line(f, known())), &full); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(line(f, refused())), &empty); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"start_time": "2026-03-04T05:06:07.089Z", "path": "/a?b=c", "response_code": 200., "bytes_sent": 5., "duration": 12., "upstream_service_time": 8.,
		"upstream_transport_failure_reason": nil, "upstream_cluster": "outbound|80||reviews", "requested_server_name": "sni.test", "response_flags": "-",
	} {
		if got, ok := full[key]; !ok || got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
	if len(full) != 24 || empty["upstream_host"] != nil || empty["path"] != nil || empty["response_code"] != 400. {
		t.Errorf("%d keys; %v", len(full), empty)
	}

	f, err = ParseFormat(`{"code": "%RESPONSE_CODE%", "both": "%REQ(X-QUOTE)% \"%PROTOCOL%\"", "in": {"trace": "%TRACE_ID%"}, "as it is": "x", "n": -1.5, "t": true, "nothing": null, "text": "7", "hex": 0x10, "none": ~}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := line(f, known()), `{"code":200,"both":"a\"b\\c \"HTTP/1.1\"","in":{"trace":"01020000000000000000000000000000"},"as it is":"x","n":-1.5,"t":true,"nothing":null,"text":"7","hex":"0x10","none":"~"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestFormat_GRPC: a status of gRPC is written as the format asks for.
func TestFormat_GRPC(t *testing.T) {
	const text = "%GRPC_STATUS% %GRPC_STATUS(CAMEL_STRING)% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%"
	const fields = `{"name": "%GRPC_STATUS(SNAKE_STRING)%", "number": "%GRPC_STATUS(NUMBER)%"}`
	for _, tt := range []struct {
		status     int32
		text, json string
	}{
		{0, "OK OK OK 0 0", `{"name":"OK","number":0}`},
		{1, "Canceled Canceled CANCELLED 1 1", `{"name":"CANCELLED","number":1}`},
		{7, "PermissionDenied PermissionDenied PERMISSION_DENIED 7 7", `{"name":"PERMISSION_DENIED","number":7}`},
		{16, "Unauthenticated Unauthenticated UNAUTHENTICATED 16 16", `{"name":"UNAUTHENTICATED","number":16}`},
		{17, "17 17 17 17 17", `{"name":"17","number":17}`},
		{Unknown, "- - - - -", `{"name":null,"number":null}`},
	} {
		for format, want := range map[string]string{text: tt.text, fields: tt.json} {
			f, err := ParseFormat(format)
			if err != nil {
				t.Fatal(err)
			}
			e := known()
			e.GRPCStatus = tt.status
			if got := line(f, e); got != want {
				t.Errorf("status %d: got %s, want %s", tt.status, got, want)
			}
		}
	}
}

func TestParseFormat_Refuses(t *testing.T) {
	for format, want := range map[string]string{
		"jsn":                  "neither text nor json",
		"%NOPE%":               "is no operator",
		"%DURATION(x)%":        "takes no argument",
		"%GRPC_STATUS(snake)%": "may be CAMEL_STRING, SNAKE_STRING or NUMBER",
		"%REQ(X":               "there is no )",
		"%REQ(X):0%":           "a length",
		"%REQ()%":              "name is missing",
		"%DURATION":            "ends with %",
		"100%":                 "ends with %",
		"%START_TIME(%Q)%":     "%Q is not known",
		`{"a": ["x"]}`:         "must be a text",
		`{"a": "%DURATION"}`:   "a: ",
		"{}":                   "must be a mapping",
		`{"a": `:               "not a mapping",
		"%START_TIME(%Y%m%)%":  "nothing behind",
	} {
		if _, err := ParseFormat(format); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", format, err, want)
		}
	}
}

// TestBatch_AllocatesNothing once there is memory for it, and what is said of the
// connections is remembered.
func TestBatch_AllocatesNothing(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		f, err := ParseFormat(format)
		if err != nil {
			t.Fatal(err)
		}
		e, out := known(), make([]byte, 0, 2048)
		var b batch
		var from source
		n := testing.AllocsPerRun(100, func() {
			e.Status ^= 4
			b.add(f, e)
			from.texts = b.texts
			b.records[0].appendLine(out[:0], &from)
			b.reset()
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", format, n)
		}
	}
}

// TestBatch_Outcomes: lines that go otherwise than the one before say so.
func TestBatch_Outcomes(t *testing.T) {
	one, other := format(t, "%RESPONSE_CODE% %REQ(:PATH)% %RESPONSE_FLAGS%"), format(t, "%RESPONSE_CODE%")
	var b batch
	var want string
	for i, status := range []int{200, 200, 503, 200, 503, 503} {
		e := known()
		e.Flags = "-"
		if i == 4 {
			e.Flags = "UO" // another of the same status
		}
		e.Request.HasQuery, e.Request.Path, e.Status = false, []byte{'/', byte('0' + i)}, status
		b.add(one, e)
		b.add(other, e)
		want += fmt.Sprintf("%d /%d %s\n%d\n", status, i, e.Flags, status)
	}
	from, got := source{texts: b.texts}, []byte(nil)
	for i := range b.records {
		got = b.records[i].appendLine(got, &from)
	}
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestEnds: what is remembered of a connection holds for one format, and for no
// other connection.
func TestEnds(t *testing.T) {
	e := known()
	both, one := format(t, "%UPSTREAM_HOST% %RESPONSE_CODE% %REQUESTED_SERVER_NAME%/%UPSTREAM_CLUSTER%"), format(t, "%UPSTREAM_HOST%")
	for range 2 {
		if got, want := line(both, e), "10.0.0.1:8080 200 sni.test/outbound|80||reviews"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := line(one, e); got != "10.0.0.1:8080" {
			t.Errorf("%q", got)
		}
	}
	e.Upstream, e.Client = &UpstreamEnd{Host: netip.MustParseAddrPort("10.0.0.2:8080")}, &ClientEnd{ServerName: "other.test"}
	if got, want := line(both, e), "10.0.0.2:8080 200 other.test/-"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzParseFormat: no format breaks, what a format of JSON makes of whatever a
// client has sent is JSON on one line, and a text has no line break that its
// format does not write.
func FuzzParseFormat(f *testing.F) {
	f.Add("text", "/", "ua")
	f.Add("json", "/\"\\\x00\xff", "\xe2\x80\xa8")
	f.Add(`{"a": "%REQ(USER-AGENT):3% x", "b": {"c": "%START_TIME(%Y%3f)%"}}`, "/", "é")
	f.Add("%REQ(A?:PATH):2%%%%ENVIRONMENT(X)%", "/", "")
	f.Add("\n%%", "/\n", "\n")
	f.Fuzz(func(t *testing.T, format, path, agent string) {
		parsed, err := ParseFormat(format)
		if err != nil {
			return
		}
		e := known()
		e.Request.Path, e.Request.Header = []byte(path), *fields(map[string]string{"user-agent": agent})
		got, breaks := line(parsed, e), strings.Count(format, "\n")
		if parsed.json {
			breaks = 0
		}
		if parsed.json && !json.Valid([]byte(got)) || strings.Count(got, "\n") > breaks {
			t.Errorf("%q makes %q", format, got)
		}
	})
}

// BenchmarkBatch_Add is what a line costs an exchange.
func BenchmarkBatch_Add(b *testing.B) {
	f, e, full := format(b, "json"), known(), batch{}
	b.ReportAllocs()
	for b.Loop() {
		if full.add(f, e); full.size() >= writeFrom {
			full.reset()
		}
	}
}

// BenchmarkBatch_Lines is what it costs the writer, without the disk.
func BenchmarkBatch_Lines(b *testing.B) {
	f, e, full := format(b, "json"), known(), batch{}
	for full.size() < writeFrom {
		full.add(f, e)
	}
	out := make([]byte, 0, 2*writeFrom)
	from, i := source{texts: full.texts}, 0
	b.ReportAllocs()
	for b.Loop() {
		out = full.records[i].appendLine(out, &from)
		if i++; i == len(full.records) {
			from.texts, i, out = full.texts, 0, out[:0]
		}
	}
}
