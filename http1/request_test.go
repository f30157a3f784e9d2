package http1

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// parseRequest parses a whole head.
func parseRequest(in string) (*Request, int, error) {
	var r Request
	n, err := r.Parse([]byte(in), Limits{})
	return &r, n, err
}

// head makes a request of a request line and field lines.
func head(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

// describe writes what a request says in one line.
func describe(r *Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s path=%s", r.Method, r.Path)
	if r.HasQuery {
		fmt.Fprintf(&b, " query=%s", r.Query)
	}
	if r.Scheme != nil {
		fmt.Fprintf(&b, " scheme=%s", r.Scheme)
	}
	if r.Authority != nil {
		fmt.Fprintf(&b, " authority=%s", r.Authority)
	}
	fmt.Fprintf(&b, " 1.%d", r.Minor)
	switch r.Framing {
	case Length:
		fmt.Fprintf(&b, " length=%d", r.ContentLength)
	case Chunked:
		b.WriteString(" chunked")
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{{r.Close, "close"}, {r.Hop, "hop"}, {r.Expect100, "expect100"}, {r.Trailers, "trailers"}, {r.Underscore, "underscore"}} {
		if flag.set {
			b.WriteString(" " + flag.name)
		}
	}
	if r.Upgrade != nil {
		fmt.Fprintf(&b, " upgrade=%s", r.Upgrade)
	}
	return b.String()
}

var acceptedRequests = []struct{ name, in, want string }{
	{"plain", head("GET / HTTP/1.1", "Host: a"), "GET path=/ authority=a 1.1"},
	{"query", head("GET /p?x=1&y HTTP/1.1", "Host: a"), "GET path=/p query=x=1&y authority=a 1.1"},
	{"empty query", head("GET /p? HTTP/1.1", "Host: a"), "GET path=/p query= authority=a 1.1"},
	{"second question mark belongs to the query", head("GET /p?a?b HTTP/1.1", "Host: a"), "GET path=/p query=a?b authority=a 1.1"},
	{"unregistered method", head("FROB-1 / HTTP/1.1", "Host: a"), "FROB-1 path=/ authority=a 1.1"},
	{"method is case-sensitive", head("get / HTTP/1.1", "Host: a"), "get path=/ authority=a 1.1"},
	{"two slashes", head("GET //a/b HTTP/1.1", "Host: a"), "GET path=//a/b authority=a 1.1"},
	{"escapes in path", head("GET /%2Fa%25 HTTP/1.1", "Host: a"), "GET path=/%2Fa%25 authority=a 1.1"},
	{"lone percent in query", head("GET /?off=10% HTTP/1.1", "Host: a"), "GET path=/ query=off=10% authority=a 1.1"},
	{"what browsers leave in queries", head("GET /?`{|}^[]\\ HTTP/1.1", "Host: a"), "GET path=/ query=`{|}^[]\\ authority=a 1.1"},
	{"what people leave in queries", head(`GET /q?up{job="x"}>1<2?" HTTP/1.1`, "Host: a"), `GET path=/q query=up{job="x"}>1<2?" authority=a 1.1`},
	{"empty line before", "\r\n" + head("GET / HTTP/1.1", "Host: a"), "GET path=/ authority=a 1.1"},
	{"white space around value", head("GET / HTTP/1.1", "Host:\t a \t"), "GET path=/ authority=a 1.1"},
	{"no white space before value", head("GET / HTTP/1.1", "Host:a"), "GET path=/ authority=a 1.1"},
	{"obs-text in value", head("GET / HTTP/1.1", "Host: a", "X: \x80\xff"), "GET path=/ authority=a 1.1"},
	{"tab in value", head("GET / HTTP/1.1", "Host: a", "X: 0123456\t8\t\t\t\t\t\t\t\t9"), "GET path=/ authority=a 1.1"},
	{"empty value", head("GET / HTTP/1.1", "Host: a", "X:"), "GET path=/ authority=a 1.1"},
	{"underscore in name", head("GET / HTTP/1.1", "Host: a", "x_y: 1"), "GET path=/ authority=a 1.1 underscore"},

	{"host in capitals", head("GET / HTTP/1.1", "HOST: Example.COM:8080"), "GET path=/ authority=Example.COM:8080 1.1"},
	{"host with trailing dot", head("GET / HTTP/1.1", "Host: a.b."), "GET path=/ authority=a.b. 1.1"},
	{"host with underscore", head("GET / HTTP/1.1", "Host: a_b"), "GET path=/ authority=a_b 1.1"},
	{"IPv4 host", head("GET / HTTP/1.1", "Host: 127.0.0.1:80"), "GET path=/ authority=127.0.0.1:80 1.1"},
	{"IPv6 host", head("GET / HTTP/1.1", "Host: [::1]"), "GET path=/ authority=[::1] 1.1"},
	{"IPv6 host and port", head("GET / HTTP/1.1", "Host: [fe80::1:2.3.4.5]:65535"), "GET path=/ authority=[fe80::1:2.3.4.5]:65535 1.1"},

	{"absolute form", head("GET http://a/p?q HTTP/1.1", "Host: a"), "GET path=/p query=q scheme=http authority=a 1.1"},
	{"absolute form, case of scheme and host", head("GET HTTPS://A:1/p HTTP/1.1", "Host: a:1"), "GET path=/p scheme=HTTPS authority=A:1 1.1"},
	{"absolute form without path", head("GET http://a HTTP/1.1", "Host: a"), "GET path=/ scheme=http authority=a 1.1"},
	{"absolute form with query alone", head("GET http://a?q HTTP/1.1", "Host: a"), "GET path=/ query=q scheme=http authority=a 1.1"},
	{"absolute form without Host in 1.0", head("GET http://a/ HTTP/1.0"), "GET path=/ scheme=http authority=a 1.0 close"},
	{"OPTIONS of the server", head("OPTIONS * HTTP/1.1", "Host: a"), "OPTIONS path=* authority=a 1.1"},
	{"OPTIONS of the server, absolute form", head("OPTIONS http://a HTTP/1.1", "Host: a"), "OPTIONS path=* scheme=http authority=a 1.1"},
	{"CONNECT", head("CONNECT a:443 HTTP/1.1", "Host: a:443"), "CONNECT path= authority=a:443 1.1"},
	{"CONNECT, Host without port", head("CONNECT a:443 HTTP/1.1", "Host: A"), "CONNECT path= authority=a:443 1.1"},

	{"content length", head("POST / HTTP/1.1", "Host: a", "Content-Length: 5"), "POST path=/ authority=a 1.1 length=5"},
	{"content length zero", head("POST / HTTP/1.1", "Host: a", "Content-Length: 0"), "POST path=/ authority=a 1.1 length=0"},
	{"largest content length", head("POST / HTTP/1.1", "Host: a", "Content-Length: 9223372036854775807"), "POST path=/ authority=a 1.1 length=9223372036854775807"},
	{"leading zeros", head("POST / HTTP/1.1", "Host: a", "Content-Length: 0005"), "POST path=/ authority=a 1.1 length=5"},
	{"chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: Chunked"), "POST path=/ authority=a 1.1 chunked"},
	{"body with GET", head("GET / HTTP/1.1", "Host: a", "Content-Length: 1"), "GET path=/ authority=a 1.1 length=1"},
	{"content length in 1.0", head("POST / HTTP/1.0", "Content-Length: 1"), "POST path=/ 1.0 length=1 close"},

	{"close", head("GET / HTTP/1.1", "Host: a", "Connection: Close"), "GET path=/ authority=a 1.1 close hop"},
	{"keep-alive and close", head("GET / HTTP/1.1", "Host: a", "Connection: keep-alive, close"), "GET path=/ authority=a 1.1 close hop"},
	{"close in a second line", head("GET / HTTP/1.1", "Host: a", "Connection: x", "Connection: ,\tclose "), "GET path=/ authority=a 1.1 close hop"},
	{"closed is not close", head("GET / HTTP/1.1", "Host: a", "Connection: closed"), "GET path=/ authority=a 1.1 hop"},
	{"1.0 without Host", head("GET / HTTP/1.0"), "GET path=/ 1.0 close"},
	{"1.0 keep-alive", head("GET / HTTP/1.0", "Connection: Keep-Alive"), "GET path=/ 1.0 hop"},
	{"1.0 keep-alive and close", head("GET / HTTP/1.0", "Connection: keep-alive", "Connection: close"), "GET path=/ 1.0 close hop"},
	{"proxy-connection is nothing", head("GET / HTTP/1.0", "Proxy-Connection: keep-alive"), "GET path=/ 1.0 close"},

	{"upgrade", head("GET / HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: keep-alive, Upgrade"), "GET path=/ authority=a 1.1 hop upgrade=websocket"},
	{"upgrade that Connection does not list", head("GET / HTTP/1.1", "Host: a", "Upgrade: websocket"), "GET path=/ authority=a 1.1"},
	{"upgrade in 1.0", head("GET / HTTP/1.0", "Upgrade: websocket", "Connection: keep-alive, upgrade"), "GET path=/ 1.0 hop"},
	{"upgrade offered twice", head("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"), "GET path=/ authority=a 1.1 hop upgrade=websocket"},

	{"expect", head("PUT / HTTP/1.1", "Host: a", "Content-Length: 1", "Expect: 100-Continue"), "PUT path=/ authority=a 1.1 length=1 expect100"},
	{"expect with chunks", head("PUT / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Expect: 100-continue"), "PUT path=/ authority=a 1.1 chunked expect100"},
	{"expect without a body", head("PUT / HTTP/1.1", "Host: a", "Expect: 100-continue"), "PUT path=/ authority=a 1.1"},
	{"expect in 1.0", head("PUT / HTTP/1.0", "Content-Length: 1", "Expect: 100-continue"), "PUT path=/ 1.0 length=1 close"},
	{"TE trailers", head("GET / HTTP/1.1", "Host: a", "TE: deflate;q=0.5, Trailers"), "GET path=/ authority=a 1.1 trailers"},
	{"TE without trailers", head("GET / HTTP/1.1", "Host: a", "TE: gzip"), "GET path=/ authority=a 1.1"},
}

func TestRequest_Accepts(t *testing.T) {
	for _, tt := range acceptedRequests {
		t.Run(tt.name, func(t *testing.T) {
			r, n, err := parseRequest(tt.in + "next")
			if err != nil || n != len(tt.in) || r.HeadLen != n {
				t.Fatalf("Parse(%q) = %d, %v with HeadLen %d, want %d", tt.in, n, err, r.HeadLen, len(tt.in))
			}
			if got := describe(r); got != tt.want {
				t.Errorf("Parse(%q)\n got %s\nwant %s", tt.in, got, tt.want)
			}
		})
	}
}

var refusedRequests = []struct {
	name, in string
	want     *Error
}{
	// Framing: RFC 9112 6.1, 6.3.
	{"length and chunked", head("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"), errLengthAndTE},
	{"chunked and length", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 5"), errLengthAndTE},
	{"chunked in 1.0", head("POST / HTTP/1.0", "Transfer-Encoding: chunked"), errTEOld},
	{"chunked twice", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), errTECount},
	{"chunked and identity in two lines", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), errTECount},
	{"chunked, chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked, chunked"), errTE},
	{"gzip, chunked, chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked, chunked"), errTE},
	{"unknown coding", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: cow"), errTEUnknown},
	{"identity", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: identity"), errTEUnknown},
	{"chunked not last", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked, gzip"), errTEUnknown},
	{"chunked last", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"), errTEUnknown},
	{"coding with parameter", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip;q=1"), errTEUnknown},
	{"chunked with parameter", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked;q=1"), errTE},
	{"empty coding", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding:"), errTE},
	{"comma before chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: ,chunked"), errTE},
	{"comma after chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked,"), errTE},
	{"no-break space before chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: \xa0chunked"), errTE},
	{"vertical tab before chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: \x0bchunked"), errFieldValue},
	{"quoted chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: \"chunked\""), errTE},
	{"chunked space chunked", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked chunked"), errTE},
	{"two lengths", head("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 6"), errLengthCount},
	{"two equal lengths", head("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 5"), errLengthCount},
	{"list of lengths", head("POST / HTTP/1.1", "Host: a", "Content-Length: 5, 5"), errLength},
	{"length with sign", head("POST / HTTP/1.1", "Host: a", "Content-Length: +5"), errLength},
	{"negative length", head("POST / HTTP/1.1", "Host: a", "Content-Length: -5"), errLength},
	{"hexadecimal length", head("POST / HTTP/1.1", "Host: a", "Content-Length: 0x10"), errLength},
	{"length with underscore", head("POST / HTTP/1.1", "Host: a", "Content-Length: 1_0"), errLength},
	{"length with fraction", head("POST / HTTP/1.1", "Host: a", "Content-Length: 5.0"), errLength},
	{"empty length", head("POST / HTTP/1.1", "Host: a", "Content-Length:"), errLength},
	{"length of 2^63", head("POST / HTTP/1.1", "Host: a", "Content-Length: 9223372036854775808"), errLength},
	{"length of 2^64", head("POST / HTTP/1.1", "Host: a", "Content-Length: 18446744073709551616"), errLength},
	{"length with no-break space", head("POST / HTTP/1.1", "Host: a", "Content-Length: \xa05"), errLength},

	// Field lines: RFC 9112 5, RFC 9110 5.
	{"NUL in value", head("GET / HTTP/1.1", "Host: a", "X: a\x00b"), errFieldValue},
	{"NUL at the end of a value", head("GET / HTTP/1.1", "Host: a", "X: 01234567\x00"), errFieldValue},
	{"DEL in value", head("GET / HTTP/1.1", "Host: a", "X: a\x7fb"), errFieldValue},
	{"escape in value", head("GET / HTTP/1.1", "Host: a", "X: \x1b[2J"), errFieldValue},
	{"bare CR in value", head("GET / HTTP/1.1", "Host: a", "X: a\rb"), errLineEnd},
	{"CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", errLineEnd},
	{"bare LF in value", head("GET / HTTP/1.1", "Host: a", "X: a\nY: b"), errLineEnd},
	{"bare LF after field", "GET / HTTP/1.1\r\nHost: a\n\r\n", errLineEnd},
	{"bare LFs", "GET / HTTP/1.1\nHost: a\n\n", errRequestLine},
	{"bare LF for the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", errLineEnd},
	{"bare CR for the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\rx", errLineEnd},
	{"folded value", head("GET / HTTP/1.1", "Host: a", "X: a", " b"), errFold},
	{"folded with tab", head("GET / HTTP/1.1", "Host: a", "X: a", "\tb"), errFold},
	{"white space before the first field", head("GET / HTTP/1.1", " Host: a"), errFold},
	{"folded coding", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding:", " chunked"), errTE},
	{"space before colon", head("GET / HTTP/1.1", "Host : a"), errFieldName},
	{"tab before colon", head("GET / HTTP/1.1", "Host: a", "Content-Length\t: 5"), errFieldName},
	{"empty name", head("GET / HTTP/1.1", "Host: a", ": b"), errFieldName},
	{"no colon", head("GET / HTTP/1.1", "Host: a", "X"), errFieldName},
	{"name with space", head("GET / HTTP/1.1", "Host: a", "X Y: b"), errFieldName},
	{"name with NUL", head("GET / HTTP/1.1", "Host: a", "X\x00: b"), errFieldName},
	{"name with obs-text", head("GET / HTTP/1.1", "Host: a", "Content\xadLength: 1"), errFieldName},
	{"name in quotes", head("GET / HTTP/1.1", "Host: a", "\"X\": b"), errFieldName},
	{"name with slash", head("GET / HTTP/1.1", "Host: a", "X/Y: b"), errFieldName},

	// Request line: RFC 9112 3.
	{"no method", head(" / HTTP/1.1", "Host: a"), errRequestLine},
	{"method with colon", head("G:T / HTTP/1.1", "Host: a"), errMethod},
	{"method with obs-text", head("G\xc9T / HTTP/1.1", "Host: a"), errMethod},
	{"long method", head(strings.Repeat("A", 33)+" / HTTP/1.1", "Host: a"), errMethod},
	{"TLS", "\x16\x03\x01\x02\x00\x01", errMethod},
	{"two spaces after method", head("GET  / HTTP/1.1", "Host: a"), errRequestLine},
	{"tab after method", head("GET\t/ HTTP/1.1", "Host: a"), errRequestLine},
	{"two spaces before version", head("GET /  HTTP/1.1", "Host: a"), errRequestLine},
	{"tab before version", head("GET /\tHTTP/1.1", "Host: a"), errRequestLine},
	{"space after version", head("GET / HTTP/1.1 ", "Host: a"), errRequestLine},
	{"space in target", head("GET /a b HTTP/1.1", "Host: a"), errRequestLine},
	{"two empty lines before", "\r\n\r\n" + head("GET / HTTP/1.1", "Host: a"), errRequestLine},
	{"bare LF before", "\n" + head("GET / HTTP/1.1", "Host: a"), errRequestLine},
	{"bare CR before", "\r" + head("GET / HTTP/1.1", "Host: a"), errLineEnd},
	{"bare LF ends the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", errRequestLine},
	{"bare CR ends the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", errLineEnd},

	// Version: RFC 9110 2.5, RFC 9112 2.3.
	{"simple request", "GET /\r\n", errRequestLine},
	{"simple request with space", "GET / \r\n", errVersion},
	{"0.9", head("GET / HTTP/0.9", "Host: a"), errVersion},
	{"1.2", head("GET / HTTP/1.2", "Host: a"), errVersion},
	{"1.32", head("GET / HTTP/1.32", "Host: a"), errVersion},
	{"01.1", head("GET / HTTP/01.1", "Host: a"), errVersion},
	{"1", head("GET / HTTP/1", "Host: a"), errVersion},
	{"1.", head("GET / HTTP/1.", "Host: a"), errVersion},
	{"1,1", head("GET / HTTP/1,1", "Host: a"), errVersion},
	{"lower-case name", head("GET / http/1.1", "Host: a"), errVersion},
	{"another protocol", head("GET / ICE/1.0", "Host: a"), errVersion},
	{"long version", head("GET / HTTP/1.1111111111", "Host: a"), errVersion},
	{"2.0", head("GET / HTTP/2.0", "Host: a"), errMajor},
	{"3.0", head("GET / HTTP/3.0", "Host: a"), errMajor},
	{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", errMajor},

	// Target: RFC 9112 3.2.
	{"asterisk with GET", head("GET * HTTP/1.1", "Host: a"), errTarget},
	{"asterisk and more", head("OPTIONS *a HTTP/1.1", "Host: a"), errTarget},
	{"relative path", head("GET admin HTTP/1.1", "Host: a"), errTarget},
	{"authority with GET", head("GET a:80 HTTP/1.1", "Host: a:80"), errTarget},
	{"origin form with CONNECT", head("CONNECT / HTTP/1.1", "Host: a"), errTarget},
	{"CONNECT without port", head("CONNECT a HTTP/1.1", "Host: a"), errTarget},
	{"CONNECT to IPv6 without port", head("CONNECT [::1] HTTP/1.1", "Host: [::1]"), errTarget},
	{"CONNECT with another Host", head("CONNECT a:443 HTTP/1.1", "Host: b"), errHostMismatch},
	{"other scheme", head("GET ftp://a/ HTTP/1.1", "Host: a"), errTarget},
	{"absolute form without slashes", head("GET http:a HTTP/1.1", "Host: a"), errTarget},
	{"empty scheme", head("GET ://a/ HTTP/1.1", "Host: a"), errTarget},
	{"absolute form without host", head("GET http:///p HTTP/1.1", "Host: a"), errHost},
	{"user name", head("GET http://u@a/ HTTP/1.1", "Host: a"), errHost},
	{"absolute form and Host differ", head("GET http://a/ HTTP/1.1", "Host: b"), errHostMismatch},
	{"absolute form and Host differ in port", head("GET http://a:8080/ HTTP/1.1", "Host: a"), errHostMismatch},
	{"fragment", head("GET /a#b HTTP/1.1", "Host: a"), errTarget},
	{"obs-text in target", head("GET /\xe9 HTTP/1.1", "Host: a"), errTarget},
	{"NUL in target", head("GET /\x00 HTTP/1.1", "Host: a"), errTarget},
	{"DEL in target", head("GET /\x7f HTTP/1.1", "Host: a"), errTarget},
	{"quote in target", head("GET /\" HTTP/1.1", "Host: a"), errTarget},
	{"angle bracket in target", head("GET /<a> HTTP/1.1", "Host: a"), errTarget},
	{"quote before a query", head("GET /\"?a HTTP/1.1", "Host: a"), errTarget},
	{"fragment behind a quote", head("GET /?\"#b HTTP/1.1", "Host: a"), errTarget},
	{"DEL behind a quote", head("GET /?\"\x7f HTTP/1.1", "Host: a"), errTarget},
	{"broken escape", head("GET /%zz HTTP/1.1", "Host: a"), errTarget},
	{"half an escape", head("GET /%2 HTTP/1.1", "Host: a"), errTarget},
	{"long target", head("GET /"+strings.Repeat("a", 8<<10)+" HTTP/1.1", "Host: a"), errTargetLong},
	{"long target that does not end", "GET /" + strings.Repeat("a", 9<<10), errTargetLong},

	// Host: RFC 9112 3.2, RFC 9110 7.2.
	{"no Host", head("GET / HTTP/1.1"), errHostMissing},
	{"no Host with absolute form", head("GET http://a/ HTTP/1.1"), errHostMissing},
	{"two Hosts", head("GET / HTTP/1.1", "Host: a", "Host: b"), errHostCount},
	{"two equal Hosts", head("GET / HTTP/1.1", "Host: a", "host: a"), errHostCount},
	{"three Hosts", head("GET / HTTP/1.1", "Host: a", "host: a", "host: a"), errHostCount},
	{"two Hosts in 1.0", head("GET / HTTP/1.0", "Host: a", "Host: a"), errHostCount},
	{"empty Host", head("GET / HTTP/1.1", "Host:"), errHost},
	{"Host with comma", head("GET / HTTP/1.1", "Host: a,b"), errHost},
	{"Host with user", head("GET / HTTP/1.1", "Host: u@a"), errHost},
	{"Host with space", head("GET / HTTP/1.1", "Host: a b"), errHost},
	{"Host with path", head("GET / HTTP/1.1", "Host: a/b"), errHost},
	{"Host with query", head("GET / HTTP/1.1", "Host: a?b"), errHost},
	{"Host with escape", head("GET / HTTP/1.1", "Host: %61"), errHost},
	{"Host with obs-text", head("GET / HTTP/1.1", "Host: \xe9"), errHost},
	{"Host with scheme", head("GET / HTTP/1.1", "Host: http://a"), errHost},
	{"port alone", head("GET / HTTP/1.1", "Host: :80"), errHost},
	{"empty port", head("GET / HTTP/1.1", "Host: a:"), errHost},
	{"port with letters", head("GET / HTTP/1.1", "Host: a:8o"), errHost},
	{"port with sign", head("GET / HTTP/1.1", "Host: a:+80"), errHost},
	{"port 0", head("GET / HTTP/1.1", "Host: a:0"), errHost},
	{"port 65536", head("GET / HTTP/1.1", "Host: a:65536"), errHost},
	{"port of six digits", head("GET / HTTP/1.1", "Host: a:000080"), errHost},
	{"two ports", head("GET / HTTP/1.1", "Host: a:80:80"), errHost},
	{"IPv6 without brackets", head("GET / HTTP/1.1", "Host: ::1"), errHost},
	{"IPv6 with zone", head("GET / HTTP/1.1", "Host: [fe80::1%25eth0]"), errHost},
	{"IPv6 with open bracket", head("GET / HTTP/1.1", "Host: [::1"), errHost},
	{"IPv6 and more", head("GET / HTTP/1.1", "Host: [::1]a"), errHost},
	{"brackets around a name", head("GET / HTTP/1.1", "Host: [a.b]"), errHost},
	{"bad Host in 1.0", head("GET / HTTP/1.0", "Host: a/b"), errHost},

	// Size: RFC 6585 5.
	{"too many fields", head("GET / HTTP/1.1", "Host: a"+strings.Repeat("\r\nX: 1", 100)), errFieldCount},
	{"head too large", head("GET / HTTP/1.1", "Host: a", "X: "+strings.Repeat("x", 60<<10)), errHeadLarge},
	{"head that does not end", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 60<<10), errHeadLarge},
	{"too many connection options", head("GET / HTTP/1.1", "Host: a", "Connection: "+strings.Repeat("x,", 32)), errOptions},
}

func TestRequest_Refuses(t *testing.T) {
	for _, tt := range refusedRequests {
		t.Run(tt.name, func(t *testing.T) {
			_, n, err := parseRequest(tt.in)
			if n != 0 || err != error(tt.want) {
				t.Errorf("Parse(%.300q) = %d, %v, want %v (%d)", tt.in, n, err, tt.want, tt.want.Status)
			}
		})
	}
}

func TestError_StatusesAndKinds(t *testing.T) {
	kinds := map[string]bool{}
	for _, e := range []*Error{
		errRequestLine, errMethod, errTarget, errTargetLong, errVersion, errMajor, errStatusLine, errHeadLarge, errFieldCount,
		errOptions, errFieldName, errFieldValue, errFold, errLineEnd, errHostMissing, errHostCount, errHost, errHostMismatch,
		errLengthCount, errLength, errLengthAndTE, errTEOld, errTECount, errTE, errTEUnknown, errChunkSize, errChunkExtension,
		errChunkEnd, errTrailer, errTrailerLarge,
	} {
		if kinds[e.Kind] {
			t.Errorf("kind %q is there twice", e.Kind)
		}
		kinds[e.Kind] = true
		if !strings.HasSuffix(e.Error(), e.Kind) {
			t.Errorf("%s: text %q", e.Kind, e)
		}
		if StatusText(e.Status) == "" {
			t.Errorf("%s: status %d", e.Kind, e.Status)
		}
		if r := e.inReply(); r.Status != 502 || r.Kind != e.Kind {
			t.Errorf("%s in a reply: %d %s, want 502", e.Kind, r.Status, r.Kind)
		}
	}
}

// TestRequest_StatusesOfTheContract holds what clients see.
func TestRequest_StatusesOfTheContract(t *testing.T) {
	want := map[int][]*Error{
		414: {errTargetLong},
		431: {errHeadLarge, errFieldCount, errOptions, errTrailerLarge},
		501: {errTEUnknown},
		505: {errMajor},
	}
	for _, tt := range refusedRequests {
		status := 400
		for s, list := range want {
			if slices.Contains(list, tt.want) {
				status = s
			}
		}
		var e *Error
		if _, _, err := parseRequest(tt.in); !errors.As(err, &e) || e.Status != status {
			t.Errorf("%s: got %v, want status %d", tt.name, err, status)
		}
	}
}

func TestRequest_LimitsAreExact(t *testing.T) {
	fits := head("GET /abc HTTP/1.1", "Host: a", "X: 1")
	for _, tt := range []struct {
		name string
		lim  Limits
		want *Error
	}{
		{"all fit", Limits{HeadBytes: len(fits), Fields: 2, TargetBytes: 4}, nil},
		{"head", Limits{HeadBytes: len(fits) - 1, Fields: 2, TargetBytes: 4}, errHeadLarge},
		{"fields", Limits{HeadBytes: len(fits), Fields: 1, TargetBytes: 4}, errFieldCount},
		{"target", Limits{HeadBytes: len(fits), Fields: 2, TargetBytes: 3}, errTargetLong},
	} {
		var r Request
		n, err := r.Parse([]byte(fits+"body"), tt.lim)
		if tt.want == nil && (n != len(fits) || err != nil) || tt.want != nil && err != error(tt.want) {
			t.Errorf("%s: Parse = %d, %v, want %v", tt.name, n, err, tt.want)
		}
	}
}

// feedRequest parses in, given in pieces of step bytes that each come in
// another buffer, and overwrites the old ones.
func feedRequest(r *Request, in []byte, step int) (n int, err error) {
	var buf []byte
	for have := min(step, len(in)); ; have = min(have+step, len(in)) {
		old := buf
		buf = bytes.Clone(in[:have])
		for i := range old {
			old[i] = 'Z'
		}
		if n, err = r.Parse(buf, Limits{}); n > 0 || err != nil || have == len(in) {
			return n, err
		}
	}
}

func TestRequest_PiecesMakeNoDifference(t *testing.T) {
	for _, tt := range acceptedRequests {
		for _, step := range []int{1, 2, 3, 7, 16} {
			var r Request
			n, err := feedRequest(&r, []byte(tt.in), step)
			if got := describe(&r); n != len(tt.in) || err != nil || got != tt.want {
				t.Errorf("%s in steps of %d: %d, %v\n got %s\nwant %s", tt.name, step, n, err, got, tt.want)
			}
		}
	}
	for _, tt := range refusedRequests {
		step := 1 + len(tt.in)/1000
		var r Request
		n, err := feedRequest(&r, []byte(tt.in), step)
		var e *Error
		if n != 0 || !errors.As(err, &e) && tt.name != "bare CR for the empty line" { // that one waits
			t.Errorf("%s in steps of %d: Parse = %d, %v, want an error", tt.name, step, n, err)
		}
	}
}

// TestRequest_RefusesEarly holds that what can never become a request is
// refused before its sender stops sending.
func TestRequest_RefusesEarly(t *testing.T) {
	for _, in := range []string{
		"\x16", "\n", "GET /\r\n", "GET / HTTP/2.0\r\n", "GET / HTTP/1.1\nHost: a\n", "GET / HTTP/1.1\r\nHost: a\nX", "GET admin HTTP/1.1\r\n",
	} {
		for _, step := range []int{1, 2, 64} {
			var r Request
			if _, err := feedRequest(&r, []byte(in), step); err == nil {
				t.Errorf("Parse(%q) in steps of %d waits for more", in, step)
			}
		}
	}
}

func TestRequest_WaitsForMore(t *testing.T) {
	whole := "\r\n" + head("POST http://a/p?q HTTP/1.0", "Host: a", "Content-Length: 3")
	for i := range whole {
		r, n, err := parseRequest(whole[:i])
		if n != 0 || err != nil {
			t.Errorf("Parse(%q) = %d, %v, want 0, nil", whole[:i], n, err)
		}
		if r.Method != nil || len(r.Fields) > 0 {
			t.Errorf("Parse(%q) leaves %s and %d fields behind", whole[:i], r.Method, len(r.Fields))
		}
	}
}

// TestRequest_ScansOnce holds that a head that drips in is looked through once
// and not once per call: quadratic, a megabyte by single bytes takes minutes.
func TestRequest_ScansOnce(t *testing.T) {
	in := []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20))
	var r Request
	for i := range in {
		if n, err := r.Parse(in[:i], Limits{HeadBytes: 2 << 20}); n != 0 || err != nil {
			t.Fatalf("after %d bytes: %d, %v", i, n, err)
		}
		if i > 0 && r.scan != i {
			t.Fatalf("after %d bytes, %d were looked at", i, r.scan)
		}
	}
}

func TestRequest_ResetForgets(t *testing.T) {
	var r Request
	all := head("PUT http://a/p?q HTTP/1.1", "Host: a", "Content-Length: 1", "Expect: 100-continue", "TE: trailers",
		"Connection: close, upgrade", "Upgrade: x", "X_Y: 1")
	if _, err := r.Parse([]byte(all), Limits{}); err != nil {
		t.Fatal(err)
	}
	r.Reset()
	if _, err := r.Parse([]byte(head("GET / HTTP/1.1", "Host: b")), Limits{}); err != nil {
		t.Fatal(err)
	}
	if got, want := describe(&r), "GET path=/ authority=b 1.1"; got != want || len(r.Fields) != 1 {
		t.Errorf("got %s with %d fields, want %s with 1", got, len(r.Fields), want)
	}
}

func TestRequest_FieldsCannotGrowIntoTheBuffer(t *testing.T) {
	buf := []byte(head("GET /p?q HTTP/1.1", "Host: a", "X: b"))
	before := string(buf)
	var r Request
	if _, err := r.Parse(buf, Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{r.Method, r.Target, r.Path, r.Query, r.Authority, r.Fields[0].Name, r.Fields[1].Value} {
		_ = append(b, "overwritten"...)
	}
	if string(buf) != before {
		t.Errorf("appending to a part of the message changed the buffer to %q", buf)
	}
}

func TestRequest_ParseAllocatesNothing(t *testing.T) {
	var r Request
	bad := []byte(head("GET / HTTP/1.1", "Host: a", "Content-Length: +5"))
	chunked := []byte(head("POST http://[::1]:80/ HTTP/1.1", "Host: [::1]:80", "Transfer-Encoding: chunked", "Connection: keep-alive, x, te",
		"X: 1", "TE: trailers"))
	if n := testing.AllocsPerRun(100, func() {
		for _, in := range [][]byte{usualRequest, chunked} {
			r.Reset()
			if n, err := r.Parse(in, Limits{}); n != len(in) || err != nil {
				t.Fatal(n, err)
			}
			r.StripListed()
		}
		r.Reset()
		if _, err := r.Parse(bad, Limits{}); err == nil {
			t.Fatal("accepted")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
