package http1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func parseResponse(method, in string) (*Response, int, error) {
	var r Response
	n, err := r.Parse([]byte(in), Limits{}, []byte(method))
	return &r, n, err
}

func describeResponse(r *Response) string {
	s := fmt.Sprintf("%d %s 1.%d", r.Status, r.Reason, r.Minor)
	s += [...]string{NoBody: " none", Length: " length", Chunked: " chunked", UntilClose: " until-close"}[r.Framing]
	s += fmt.Sprintf(" %d", r.ContentLength)
	if r.Close {
		s += " close"
	}
	if r.Upgrade != nil {
		s += " upgrade=" + string(r.Upgrade)
	}
	return s
}

var acceptedResponses = []struct{ name, method, in, want string }{
	{"length", "GET", head("HTTP/1.1 200 OK", "Content-Length: 5"), "200 OK 1.1 length 5"},
	{"length zero", "GET", head("HTTP/1.1 200 OK", "Content-Length: 0"), "200 OK 1.1 none 0"},
	{"chunked", "GET", head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), "200 OK 1.1 chunked -1"},
	{"until close", "GET", head("HTTP/1.1 200 OK"), "200 OK 1.1 until-close -1 close"},
	{"until close in spite of keep-alive", "GET", head("HTTP/1.0 200 OK", "Connection: keep-alive"), "200 OK 1.0 until-close -1 close"},
	{"HTTP/1.0", "GET", head("HTTP/1.0 200 OK", "Content-Length: 5"), "200 OK 1.0 length 5 close"},
	{"HTTP/1.0 keep-alive", "GET", head("HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 5"), "200 OK 1.0 length 5"},
	{"close", "GET", head("HTTP/1.1 200 OK", "Content-Length: 5", "Connection: close"), "200 OK 1.1 length 5 close"},
	{"reason with spaces", "GET", head("HTTP/1.1 404 Not Found, \xe9", "Content-Length: 0"), "404 Not Found, \xe9 1.1 none 0"},
	{"empty reason", "GET", head("HTTP/1.1 200 ", "Content-Length: 0"), "200  1.1 none 0"},
	{"no reason and no space", "GET", head("HTTP/1.1 200", "Content-Length: 0"), "200  1.1 none 0"},
	{"unregistered status", "GET", head("HTTP/1.1 599 x", "Content-Length: 0"), "599 x 1.1 none 0"},

	{"HEAD with length", "HEAD", head("HTTP/1.1 200 OK", "Content-Length: 5"), "200 OK 1.1 none 5"},
	{"HEAD chunked", "HEAD", head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), "200 OK 1.1 none -1"},
	{"HEAD without length", "HEAD", head("HTTP/1.1 200 OK"), "200 OK 1.1 none -1"},
	{"head is another method", "head", head("HTTP/1.1 200 OK", "Content-Length: 5"), "200 OK 1.1 length 5"},
	{"304 with length", "GET", head("HTTP/1.1 304 Not Modified", "Content-Length: 5"), "304 Not Modified 1.1 none 5"},
	{"304 without length", "GET", head("HTTP/1.1 304 Not Modified"), "304 Not Modified 1.1 none -1"},
	{"204", "GET", head("HTTP/1.1 204 No Content"), "204 No Content 1.1 none -1"},
	{"204 with length 0", "GET", head("HTTP/1.1 204 No Content", "Content-Length: 0"), "204 No Content 1.1 none 0"},
	{"204 with length", "GET", head("HTTP/1.1 204 No Content", "Content-Length: 5"), "204 No Content 1.1 none 5 close"},
	{"204 chunked", "GET", head("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked"), "204 No Content 1.1 none -1 close"},
	{"205 has no exception", "GET", head("HTTP/1.1 205 Reset Content", "Content-Length: 5"), "205 Reset Content 1.1 length 5"},
	{"100", "PUT", head("HTTP/1.1 100 Continue"), "100 Continue 1.1 none -1"},
	{"103", "GET", head("HTTP/1.1 103 Early Hints", "Link: </a>"), "103 Early Hints 1.1 none -1"},
	{"103 with length", "GET", head("HTTP/1.1 103 Early Hints", "Content-Length: 5"), "103 Early Hints 1.1 none 5 close"},
	{"101", "GET", head("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"), "101 Switching Protocols 1.1 none -1 upgrade=websocket"},
	{"CONNECT", "CONNECT", head("HTTP/1.1 200 OK"), "200 OK 1.1 none -1"},
	{"CONNECT with length", "CONNECT", head("HTTP/1.1 200 OK", "Content-Length: 5"), "200 OK 1.1 none 5 close"},
	{"CONNECT refused", "CONNECT", head("HTTP/1.1 403 Forbidden", "Content-Length: 5"), "403 Forbidden 1.1 length 5"},
	{"Host means nothing", "GET", head("HTTP/1.1 200 OK", "Content-Length: 5", "Host: a", "Host: /"), "200 OK 1.1 length 5"},
}

func TestResponse_Accepts(t *testing.T) {
	for _, tt := range acceptedResponses {
		for _, step := range []int{1, 3, 1 << 20} {
			t.Run(fmt.Sprint(tt.name, " by ", step), func(t *testing.T) {
				var r Response
				n, err := feedResponse(&r, []byte(tt.in+"next"), tt.method, step)
				if err != nil || n != len(tt.in) || r.HeadLen != n {
					t.Fatalf("Parse(%q) = %d, %v with HeadLen %d, want %d", tt.in, n, err, r.HeadLen, len(tt.in))
				}
				if got := describeResponse(&r); got != tt.want {
					t.Errorf("Parse(%q)\n got %s\nwant %s", tt.in, got, tt.want)
				}
			})
		}
	}
}

// feedResponse is feedRequest for replies.
func feedResponse(r *Response, in []byte, method string, step int) (n int, err error) {
	var buf []byte
	for have := min(step, len(in)); ; have = min(have+step, len(in)) {
		old := buf
		buf = bytes.Clone(in[:have])
		for i := range old {
			old[i] = 'Z'
		}
		if n, err = r.Parse(buf, Limits{}, []byte(method)); n > 0 || err != nil || have == len(in) {
			return n, err
		}
	}
}

var refusedResponses = []struct {
	name, in string
	want     *Error
}{
	{"two lengths", head("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 5"), errLengthCount},
	{"length and chunked", head("HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: chunked"), errLengthAndTE},
	{"chunked and length", head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Content-Length: 5"), errLengthAndTE},
	{"bad length", head("HTTP/1.1 200 OK", "Content-Length: -1"), errLength},
	{"chunked in 1.0", head("HTTP/1.0 200 OK", "Transfer-Encoding: chunked"), errTEOld},
	{"unknown coding", head("HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked"), errTEUnknown},
	{"malformed coding", head("HTTP/1.1 200 OK", "Transfer-Encoding: ,chunked"), errTE},
	{"two lengths with 204", head("HTTP/1.1 204 No Content", "Content-Length: 0", "Content-Length: 0"), errLengthCount},

	{"status of two digits", head("HTTP/1.1 20 OK"), errStatusLine},
	{"status of four digits", head("HTTP/1.1 2000 OK"), errStatusLine},
	{"status with sign", head("HTTP/1.1 +20 OK"), errStatusLine},
	{"status 099", head("HTTP/1.1 099 x"), errStatusLine},
	{"status 600", head("HTTP/1.1 600 x"), errStatusLine},
	{"two spaces before status", head("HTTP/1.1  200 OK"), errStatusLine},
	{"tab before status", head("HTTP/1.1\t200 OK"), errStatusLine},
	{"tab after status", head("HTTP/1.1 200\tOK"), errStatusLine},
	{"NUL in reason", head("HTTP/1.1 200 O\x00K"), errStatusLine},
	{"bare CR in reason", head("HTTP/1.1 200 O\rK"), errLineEnd},
	{"bare LF after reason", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", errLineEnd},
	{"bare LF after status", "HTTP/1.1 200\nContent-Length: 0\r\n\r\n", errLineEnd},
	{"bare LF after field", "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", errLineEnd},
	{"empty line before", "\r\n" + head("HTTP/1.1 200 OK"), errStatusLine},
	{"version 2", head("HTTP/2.0 200 OK"), errMajor},
	{"version 1.2", head("HTTP/1.2 200 OK"), errVersion},
	{"lower-case version", head("http/1.1 200 OK"), errStatusLine},
	{"no version", head("ICY 200 OK music"), errStatusLine},
	{"HTTP/0.9", "<html>", errStatusLine},
	{"frame of HTTP/2", "\x00\x00\x12\x04\x00", errStatusLine},

	{"folded value", head("HTTP/1.1 200 OK", "X: a", " b"), errFold},
	{"space before colon", head("HTTP/1.1 200 OK", "Content-Length : 0"), errFieldName},
	{"NUL in value", head("HTTP/1.1 200 OK", "X: \x00"), errFieldValue},
	{"splitting", head("HTTP/1.1 200 OK", "X: a\nSet-Cookie: b"), errLineEnd},
	{"too many fields", head("HTTP/1.1 200 OK" + strings.Repeat("\r\nX: 1", 101)), errFieldCount},
	{"head too large", head("HTTP/1.1 200 OK", "X: "+strings.Repeat("x", 60<<10)), errHeadLarge},
	{"head that does not end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 60<<10), errHeadLarge},
	{"too many connection options", head("HTTP/1.1 200 OK", "Connection: "+strings.Repeat("x,", 32)), errOptions},
}

func TestResponse_Refuses(t *testing.T) {
	for _, tt := range refusedResponses {
		t.Run(tt.name, func(t *testing.T) {
			_, n, err := parseResponse("GET", tt.in)
			if n != 0 || err != error(tt.want.inReply()) {
				t.Errorf("Parse(%.300q) = %d, %v, want 502 %v", tt.in, n, err, tt.want)
			}
			var r Response
			if n, err := feedResponse(&r, []byte(tt.in), "GET", 1+len(tt.in)/1000); n != 0 || err == nil {
				t.Errorf("Parse(%.300q) in pieces = %d, %v, want an error", tt.in, n, err)
			}
		})
	}
}

func TestResponse_WaitsForMore(t *testing.T) {
	whole := head("HTTP/1.1 200 OK", "Content-Length: 3")
	for i := range whole {
		if r, n, err := parseResponse("GET", whole[:i]); n != 0 || err != nil || r.Reason != nil {
			t.Errorf("Parse(%q) = %d, %v, reason %q, want nothing", whole[:i], n, err, r.Reason)
		}
	}
}

func TestResponse_ParseAllocatesNothing(t *testing.T) {
	var r Response
	method := []byte("GET")
	bad := []byte(head("HTTP/1.1 200 OK", "Content-Length: +5"))
	if n := testing.AllocsPerRun(100, func() {
		r.Reset()
		if n, err := r.Parse(usualResponse, Limits{}, method); n != len(usualResponse) || err != nil {
			t.Fatal(n, err)
		}
		r.Reset()
		if _, err := r.Parse(bad, Limits{}, method); err == nil {
			t.Fatal("accepted")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
