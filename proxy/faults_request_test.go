package proxy

import (
	"strings"
	"testing"
)

// smuggled is a request hidden behind another one: no fault may bring it to
// the upstream.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: s.test\r\n\r\n"

// fields is a GET with the given field lines behind its Host.
func fields(lines string) string { return "GET / HTTP/1.1\r\nHost: s.test\r\n" + lines + "\r\n\r\n" }

// post is a POST with field lines and what comes behind its head.
func post(lines, body string) string {
	return "POST / HTTP/1.1\r\nHost: s.test\r\n" + lines + "\r\n\r\n" + body
}

// chunked is a POST of a chunked body.
func chunked(body string) string { return post("Transfer-Encoding: chunked", body) }

const chunkEnd = "0\r\n\r\n"

// TestFaults_RefusedRequests: requests that two readers could take for two
// different things, or that are too much of something, are refused with the
// given status, the connection ends, and the upstream sees nothing of them or
// of what comes behind.
func TestFaults_RefusedRequests(t *testing.T) {
	for _, tt := range []struct{ name, status, request string }{
		{"length and coding", "400", post("Content-Length: 5\r\nTransfer-Encoding: chunked", chunkEnd)},
		{"coding and length", "400", post("Transfer-Encoding: chunked\r\nContent-Length: 5", chunkEnd)},
		{"length and unknown coding", "400", post("Content-Length: 5\r\nTransfer-Encoding: gzip", chunkEnd)},
		{"coding in HTTP/1.0", "400", "POST / HTTP/1.0\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunkEnd},
		{"coding twice in two lines", "400", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunkEnd)},
		{"coding twice in one line", "400", post("Transfer-Encoding: chunked, chunked", chunkEnd)},
		{"identity and chunked", "501", post("Transfer-Encoding: identity, chunked", chunkEnd)},
		{"unknown coding", "501", post("Transfer-Encoding: gzip", "")},
		{"unknown before chunked", "501", post("Transfer-Encoding: gzip, chunked", chunkEnd)},
		{"chunked not last", "501", post("Transfer-Encoding: chunked, gzip", chunkEnd)},
		{"coding with comma before", "400", post("Transfer-Encoding: ,chunked", chunkEnd)},
		{"coding with comma behind", "400", post("Transfer-Encoding: chunked,", chunkEnd)},
		{"coding with 0xa0", "400", post("Transfer-Encoding: \xa0chunked", chunkEnd)},
		{"coding with vertical tab", "400", post("Transfer-Encoding: \vchunked", chunkEnd)},
		{"coding with form feed", "400", post("Transfer-Encoding: \fchunked", chunkEnd)},
		{"coding in quotes", "400", post(`Transfer-Encoding: "chunked"`, chunkEnd)},
		{"coding with parameter", "400", post("Transfer-Encoding: chunked;q=1", chunkEnd)},
		{"coding empty", "400", post("Transfer-Encoding:", "")},
		{"coding folded", "400", post("Transfer-Encoding:\r\n chunked", chunkEnd)},
		{"coding with space before colon", "400", post("Transfer-Encoding : chunked", chunkEnd)},
		{"coding behind a NUL", "400", post("Transfer-Encoding: chunked\x00", chunkEnd)},
		{"length twice, different", "400", post("Content-Length: 5\r\nContent-Length: 6", "abcdef")},
		{"length twice, equal", "400", post("Content-Length: 5\r\nContent-Length: 5", "abcde")},
		{"length as list", "400", post("Content-Length: 5, 5", "abcde")},
		{"length +5", "400", post("Content-Length: +5", "abcde")},
		{"length -1", "400", post("Content-Length: -1", "")},
		{"length 0x10", "400", post("Content-Length: 0x10", "")},
		{"length empty", "400", post("Content-Length:", "")},
		{"length with space in it", "400", post("Content-Length: 1 2", "")},
		{"length with underscore", "400", post("Content-Length: 1_0", "")},
		{"length over 2^63", "400", post("Content-Length: 9223372036854775808", "")},
		{"length over 2^64", "400", post("Content-Length: 18446744073709551620", "")},
		{"length with space before colon", "400", post("Content-Length : 5", "abcde")},

		{"chunk size 0x5", "400", chunked("0x5\r\nabcde\r\n" + chunkEnd)},
		{"chunk size 5zz", "400", chunked("5zz\r\nabcde\r\n" + chunkEnd)},
		{"chunk size -1", "400", chunked("-1\r\nabcde\r\n" + chunkEnd)},
		{"chunk size +5", "400", chunked("+5\r\nabcde\r\n" + chunkEnd)},
		{"chunk size with space before", "400", chunked(" 5\r\nabcde\r\n" + chunkEnd)},
		{"chunk size with space behind", "400", chunked("5 \r\nabcde\r\n" + chunkEnd)},
		{"chunk size empty", "400", chunked("\r\nabcde\r\n" + chunkEnd)},
		{"chunk size of 17 digits", "400", chunked("10000000000000005\r\nabcde\r\n" + chunkEnd)},
		{"chunk size of 16 digits", "400", chunked("ffffffffffffffff\r\nabcde\r\n" + chunkEnd)},
		{"LF behind chunk size", "400", chunked("5\nabcde\r\n" + chunkEnd)},
		{"CR behind chunk size", "400", chunked("5\rabcde\r\n" + chunkEnd)},
		{"LF in chunk extension", "400", chunked("5;a\nb\r\nabcde\r\n" + chunkEnd)},
		{"LF behind chunk data", "400", chunked("5\r\nabcde\n" + chunkEnd)},
		{"chunk data too long", "400", chunked("5\r\nabcdef\r\n" + chunkEnd)},
		{"LF behind last chunk", "400", chunked("0\n\r\n")},
		{"long chunk extension", "400", chunked("5;" + strings.Repeat("x", 300) + "\r\nabcde\r\n" + chunkEnd)},
		{"flood of chunk extensions", "400", chunked(strings.Repeat("1;"+strings.Repeat("x", 200)+"\r\na\r\n", 30) + chunkEnd)},
		{"malformed trailer", "400", chunked("0\r\nBad Trailer: 1\r\n\r\n")},
		{"trailer ended by LF", "400", chunked("0\r\nA: 1\n\r\n")},
		{"trailers too large", "400", chunked("0\r\n" + strings.Repeat("A: "+strings.Repeat("x", 1000)+"\r\n", 10) + "\r\n")},

		{"NUL in value", "400", fields("A: b\x00c")},
		{"NUL in name", "400", fields("A\x00: b")},
		{"CR in value", "400", fields("A: b\rc")},
		{"CR before CRLF", "400", fields("A: b\r")},
		{"control character in value", "400", fields("A: b\x01c")},
		{"DEL in value", "400", fields("A: b\x7fc")},
		{"LF as line end", "400", "GET / HTTP/1.1\nHost: s.test\n\n"},
		{"LF behind a field", "400", fields("A: b\nC: d")},
		{"LF before the end", "400", "GET / HTTP/1.1\r\nHost: s.test\r\n\n"},
		{"folded field", "400", fields("A: b\r\n c")},
		{"folded by tab", "400", fields("A: b\r\n\tc")},
		{"first line folded", "400", "GET / HTTP/1.1\r\n Host: s.test\r\n\r\n"},
		{"space before colon", "400", fields("A : b")},
		{"tab before colon", "400", fields("A\t: b")},
		{"name empty", "400", fields(": b")},
		{"no colon", "400", fields("A")},
		{"non-ASCII name", "400", fields("\xc3\xa4: b")},

		{"absolute target and other Host", "400", "GET http://other.test/ HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"absolute target with user", "400", "GET http://u@s.test/ HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"absolute target of another scheme", "400", "GET ftp://s.test/ HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"absolute target without Host", "400", "GET http://s.test/ HTTP/1.1\r\n\r\n"},
		{"no Host", "400", "GET / HTTP/1.1\r\n\r\n"},
		{"Host empty", "400", "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
		{"two Hosts", "400", fields("Host: s.test")},
		{"two Hosts, one in other case", "400", fields("hOST: other.test")},
		{"Host with comma", "400", "GET / HTTP/1.1\r\nHost: s.test,other.test\r\n\r\n"},
		{"Host with user", "400", "GET / HTTP/1.1\r\nHost: u@s.test\r\n\r\n"},
		{"Host with path", "400", "GET / HTTP/1.1\r\nHost: s.test/a\r\n\r\n"},
		{"Host with space", "400", "GET / HTTP/1.1\r\nHost: s.test other.test\r\n\r\n"},
		{"Host with scheme", "400", "GET / HTTP/1.1\r\nHost: http://s.test\r\n\r\n"},
		{"Host with bad port", "400", "GET / HTTP/1.1\r\nHost: s.test:80a\r\n\r\n"},
		{"Host with two ports", "400", "GET / HTTP/1.1\r\nHost: s.test:80:81\r\n\r\n"},
		{"Host with port 65536", "400", "GET / HTTP/1.1\r\nHost: s.test:65536\r\n\r\n"},
		{"Host with escape", "400", "GET / HTTP/1.1\r\nHost: s%2etest\r\n\r\n"},
		{"Host with open bracket", "400", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"},

		{"target *", "400", "GET * HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target without slash", "400", "GET admin HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target with fragment", "400", "GET /a#b HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target with space", "400", "GET /a b HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target with tab", "400", "GET /a\tb HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target with NUL", "400", "GET /a\x00 HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target with 0xff", "400", "GET /\xff HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target with broken escape", "400", "GET /%zz HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"target empty", "400", "GET  HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"two spaces before target", "400", "GET  / HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"two spaces before version", "400", "GET /  HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"tab before target", "400", "GET\t/ HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"space before method", "400", " GET / HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"method with colon", "400", "GET: / HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"method in quotes", "400", "\"GET\" / HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"method of 40 letters", "400", strings.Repeat("G", 40) + " / HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"HTTP/0.9", "400", "GET /\r\n"},
		{"HTTP/1.32", "400", "GET / HTTP/1.32\r\nHost: s.test\r\n\r\n"},
		{"HTTP/1.2", "400", "GET / HTTP/1.2\r\nHost: s.test\r\n\r\n"},
		{"http/1.1", "400", "GET / http/1.1\r\nHost: s.test\r\n\r\n"},
		{"HTTP/01.1", "400", "GET / HTTP/01.1\r\nHost: s.test\r\n\r\n"},
		{"HTTP/2.0", "505", "GET / HTTP/2.0\r\nHost: s.test\r\n\r\n"},
		{"HTTP/3.0", "505", "GET / HTTP/3.0\r\nHost: s.test\r\n\r\n"},

		{"head over 60 KiB", "431", fields("A: " + strings.Repeat("x", 61<<10))},
		{"101 fields", "431", fields(strings.TrimSuffix(strings.Repeat("A: b\r\n", 101), "\r\n"))},
		{"40 connection options", "431", fields("Connection: " + strings.Repeat("a,", 40) + "b")},
		{"target over 8 KiB", "414", "GET /" + strings.Repeat("x", 9<<10) + " HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"CONNECT", "405", "CONNECT s.test:80 HTTP/1.1\r\nHost: s.test:80\r\n\r\n"},
		{"CONNECT with a path", "400", "CONNECT / HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"escaped dot segment", "400", "GET /a/%2e%2e/b HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"escaped slash makes a dot segment", "400", "GET /a/..%2fb HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"escaped backslash makes a dot segment", "400", "GET /a/..%5cb HTTP/1.1\r\nHost: s.test\r\n\r\n"},
		{"gateway: underscore in name", "400", strings.Replace(fields("X_Forwarded_For: 10.0.0.1"), "/", "/gateway", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := record(t, okReply)
			p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
			listener := "outbound"
			if strings.HasPrefix(tt.name, "gateway: ") {
				listener = "gateway:80"
			}
			got := exchangeRaw(t, p.address(listener), tt.request+smuggled, nil)
			if status(got) != tt.status {
				t.Errorf("answered %q, want %s", got, tt.status)
			}
			if n := strings.Count(got, "HTTP/1.1 "); n != 1 || !strings.Contains(got, "connection: close\r\n") {
				t.Errorf("%d answers, want one that says close: %q", n, got)
			}
			if seen := up.seen(); seen != "" {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}

// TestFaults_NothingPassesInPieces sends each refused body in two parts, the
// fault in the second, when the head has gone to the upstream already: the
// request must end without a clean end.
func TestFaults_NothingPassesInPieces(t *testing.T) {
	for name, second := range map[string]string{
		"chunk size": "zz\r\n", "chunk data": "5\r\nabcdef\r\n", "bare LF": "5\nabcde\r\n", "extension": "5;" + strings.Repeat("x", 300) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			up := record(t, okReply)
			p := serve(t, Options{}, entry("s.test", up.address))
			got := inPieces(t, p.address("outbound"), chunked("3\r\nabc\r\n"), func() bool { return strings.Contains(up.seen(), "abc") }, second+chunkEnd+smuggled)
			if status(got) != "400" || strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("answered %q, want one 400", got)
			}
			if seen := up.seen(); strings.Contains(seen, "\r\n0\r\n") || strings.Contains(seen, "smuggled") {
				t.Errorf("the upstream saw %q", seen)
			}
		})
	}
}
