package proxy

import (
	"slices"
	"strings"
	"testing"
)

// accepted is a request that gets through, changed as it must be: want is the
// message that the upstream sees, as messages says it.
type accepted struct{ name, request, want, at string }

// sentOn is a message as the upstream should see it: its first line, the fields
// that are not ours, and what follows the head. A field of ours among them
// stands in the place of the usual one.
func sentOn(line string, rest string, fields ...string) string {
	for _, ours := range []string{"host: s.test", "x-envoy-attempt-count: 1", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-request-id: ID"} {
		name, _, _ := strings.Cut(ours, ":")
		if !slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, name+":") }) {
			fields = append(fields, ours)
		}
	}
	return messages(line + " HTTP/1.1\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n")[0] + rest
}

// TestStrict_RequestsAccepted: of a request that gets through the upstream sees
// exactly what it should, and the next request begins where this one ends.
func TestStrict_RequestsAccepted(t *testing.T) {
	next := "GET /next HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n"
	for _, tt := range slices.Concat(acceptedBodies, acceptedFields, acceptedTargets) {
		for _, at := range []string{"outbound", "gateway:80"} {
			if tt.at != "" && tt.at != at {
				continue
			}
			t.Run(tt.name+" at "+at, func(t *testing.T) {
				up := newTape(t, okReply)
				p := strictProxy(t, up.address)
				got, clean := talk(t, p.address(at), tt.request+next)
				want := []string{tt.want, sentOn("GET /next", "")}
				if strings.Contains(tt.request, " HTTP/1.0\r\n") && !strings.Contains(tt.request, "keep-alive") {
					want = want[:1] // it ends the connection
				}
				if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || replies(got) != len(want) || !clean {
					t.Errorf("answered %.500q, want %d times 200", got, len(want))
				}
				var seen []string
				for _, stream := range up.all(t, p) {
					seen = append(seen, messages(stream)...)
				}
				if !slices.Equal(seen, want) {
					t.Errorf("the upstream saw\n%.2000q\nwant\n%.2000q", seen, want)
				}
			})
		}
	}
}

// acceptedBodies is bodies that are framed in a legal way.
var acceptedBodies = []accepted{
	{"row 5: TE behind a tab", asPost("3\r\nabc\r\n"+end, "Transfer-Encoding:\tchunked"), sentOn("POST /", "[abc]\n"), ""},
	{"row 5: TE between spaces", asPost("3\r\nabc\r\n"+end, "Transfer-Encoding:   chunked \t "), sentOn("POST /", "[abc]\n"), ""},
	{"row 5: TE without space", asPost("3\r\nabc\r\n"+end, "Transfer-Encoding:chunked"), sentOn("POST /", "[abc]\n"), ""},
	{"row 5: TE in other case", asPost("3\r\nabc\r\n"+end, "tRANSFER-eNCODING: cHUNKED"), sentOn("POST /", "[abc]\n"), ""},
	{"row 5: TE named by Connection", asPost("3\r\nabc\r\n"+end, "Connection: transfer-encoding", "Transfer-Encoding: chunked"), sentOn("POST /", "[abc]\n"), ""},
	{"row 7: CL named by Connection", asPost("abc", "Connection: Content-Length", "Content-Length: 3"), sentOn("POST /", "[abc]\n"), ""},
	{"row 7: CL with zeros before", asPost("abc", "Content-Length: 0003"), sentOn("POST /", "[abc]\n"), ""},
	{"row 7: CL between spaces", asPost("abc", "Content-Length: \t 3 \t"), sentOn("POST /", "[abc]\n"), ""},
	{"row 7: CL 0", asPost("", "Content-Length: 0"), sentOn("POST /", ""), ""},
	{"row 7: a request for a body", asPost(inner, "Content-Length: 37"), sentOn("POST /", "["+inner+"]\n"), ""},
	{"row 7: a request for the body of a GET", asGet("Content-Length: 37") + inner, sentOn("GET /", "["+inner+"]\n"), ""},
	{"row 7: CL in HTTP/1.0", "POST / HTTP/1.0\r\nHost: s.test\r\nContent-Length: 3\r\n\r\nabc", sentOn("POST /", "[abc]\n"), ""},
	{"row 8: a request for a chunk", asChunks("25\r\n" + inner + "\r\n" + end), sentOn("POST /", "["+inner+"]\n"), ""},
	{"row 8: sizes in both cases", asChunks("A\r\n0123456789\r\na\r\n0123456789\r\n" + end), sentOn("POST /", "[01234567890123456789]\n"), ""},
	{"row 8: sizes with zeros before", asChunks("003\r\nabc\r\n000\r\n\r\n"), sentOn("POST /", "[abc]\n"), ""},
	{"row 8: data that looks like chunks", asChunks("7\r\n\r\n" + end + "\r\n" + end), sentOn("POST /", "[\r\n"+end+"]\n"), ""},
	{"row 8: no data", asChunks(end), sentOn("POST /", ""), ""},
	{"row 10: extensions are dropped", asChunks("3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n"), sentOn("POST /", "[abc]\n"), ""},

	{"row 13: trailers for the head", asChunks("3\r\nabc\r\n0\r\n" + asLines([]string{
		"Content-Length: 9", "Transfer-Encoding: chunked", "Host: other.test", "HOST: other.test", "Connection: close", "Upgrade: h2c",
		"Authorization: x", "Proxy-Authorization: x", "Cookie: a=b", "Set-Cookie: a=b", "Expect: 100-continue", "TE: trailers",
		"Content-Type: a/b", "Content-Encoding: gzip", "Trailer: A", "Content_Length: 9", "Transfer_Encoding: chunked"}) + "\r\n"), sentOn("POST /", "[abc]\n"), ""},
	{"row 13: trailers for identity", asChunks("3\r\nabc\r\n0\r\n" + asLines([]string{
		"X-Forwarded-For: 10.0.0.9", "x-forwarded-proto: https", "X-FORWARDED-HOST: other.test", "X-Forwarded-Client-Cert: By=x", "X_Forwarded_For: 10.0.0.9",
		"Forwarded: for=10.0.0.9", "X-Real-IP: 10.0.0.9", "X-Envoy-Attempt-Count: 9", "X-Envoy-Internal: true", "X-Isthmus-Destination: other:80", "X-Isthmus-Unsent: true"}) + "\r\n"),
		sentOn("POST /", "[abc]\n"), ""},
	{"row 13: other trailers stay", asChunks("3\r\nabc\r\n0\r\nHost: other.test\r\nGrpc-Status: 0\r\nContent-Length: 9\r\nX-Sum: 1\r\n\r\n"), sentOn("POST /", "[abc]\n{Grpc-Status: 0\r\nX-Sum: 1}\n"), ""},
	{"row 13: trailers without a body", asChunks("0\r\nContent-Length: 9\r\nHost: other.test\r\n\r\n"), sentOn("POST /", ""), ""},
}

// acceptedFields is fields of which not all go on: rows 23, 26, 50 and 51.
var acceptedFields = []accepted{
	{"row 23: h2c", asGet("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"), sentOn("GET /", ""), ""},
	{"row 23: in other case", asGet("CONNECTION: uPGRADE", "uPGRADE: H2C"), sentOn("GET /", ""), ""},
	{"row 23: not named by Connection", asGet("Upgrade: h2c"), sentOn("GET /", ""), ""},
	{"row 23: h2c in a list", asGet("Connection: upgrade", "Upgrade: h2c, HTTP/2.0,TLS/1.0, ,a b,c/d/e"), sentOn("GET /", ""), ""},
	{"row 23: with a body", asPost("abc", "Connection: upgrade", "Upgrade: foo", "Content-Length: 3"), sentOn("POST /", "[abc]\n"), ""},
	{"row 23: GET with a body", asGet("Connection: upgrade", "Upgrade: foo", "Content-Length: 3") + "abc", sentOn("GET /", "[abc]\n"), ""},
	{"row 23: POST", asPost("", "Connection: upgrade", "Upgrade: websocket"), sentOn("POST /", ""), ""},
	{"row 23: in HTTP/1.0", "GET / HTTP/1.0\r\nHost: s.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", sentOn("GET /", ""), ""},

	{"row 26: x-forwarded-for", asGet("Connection: x-forwarded-for", "X-Forwarded-For: 10.0.0.9"), sentOn("GET /", ""), ""},
	{"row 26: X-FORWARDED-FOR", asGet("Connection: X-FORWARDED-FOR", "x-forwarded-for: 10.0.0.9"), sentOn("GET /", ""), ""},
	{"row 26: behind close to nothing", asGet("Connection: , ,\t,X-Forwarded-For,,", "X-Forwarded-For: 10.0.0.9"), sentOn("GET /", ""), ""},
	{"row 26: in a second Connection", asGet("Connection: keep-alive", "X-Forwarded-For: 10.0.0.9", "cONNECTION: x-Forwarded-for"), sentOn("GET /", ""), ""},
	{"row 26: Connection behind the field", asGet("X-Forwarded-For: 10.0.0.9", "Connection: x-forwarded-for"), sentOn("GET /", ""), ""},
	{"row 26: all of ours", asGet("Connection: x-forwarded-proto, x-request-id, x-envoy-attempt-count, x-isthmus-destination, x-forwarded-client-cert, x-forwarded-for",
		"X-Forwarded-For: 10.0.0.9", "X-Forwarded-Proto: https", "X-Request-Id: a", "X-Envoy-Attempt-Count: 9", "X-Forwarded-Client-Cert: By=x"), sentOn("GET /", ""), ""},
	{"row 26: Host stays", asGet("Connection: host, Host", "A: b"), sentOn("GET /", "", "A: b"), ""},
	{"row 26: others, all of a name", asGet("Connection: a, B", "A: 1", "b: 2", "a: 3", "C: 4"), sentOn("GET /", "", "C: 4"), ""},
	{"row 26: a name that is a part of another's", asGet("Connection: x-a", "X-A: 1", "X-A-B: 2", "X: 3"), sentOn("GET /", "", "X-A-B: 2", "X: 3"), ""},
	{"row 26: those that are always of one connection", asGet("Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip, trailers"), sentOn("GET /", ""), ""},
	{"row 26: named without being there", asGet("Connection: x-forwarded-for, a"), sentOn("GET /", ""), ""},

	{"row 50: underscores within", asGet("X_Forwarded_For: 10.0.0.9", "_: a", "A_b: c"), sentOn("GET /", "", "X_Forwarded_For: 10.0.0.9", "_: a", "A_b: c"), "outbound"},
	{"row 50: Content_Length is no length", asGet("Content_Length: 37"), sentOn("GET /", "", "Content_Length: 37"), "outbound"},
	{"row 50: Transfer_Encoding is no coding", asPost("abc", "Content-Length: 3", "Transfer_Encoding: chunked"), sentOn("POST /", "[abc]\n", "Transfer_Encoding: chunked"), "outbound"},

	{"row 51: client certificate", asGet("X-Forwarded-Client-Cert: By=spiffe://x;URI=spiffe://y", "x-FORWARDED-client-CERT: By=z"), sentOn("GET /", ""), ""},
	{"row 51: addresses are added to", asGet("X-Forwarded-For: 10.0.0.8"), sentOn("GET /", "", "x-forwarded-for: 10.0.0.8, 127.0.0.1"), ""},
	{"row 51: addresses in two lines", asGet("X-Forwarded-For: 10.0.0.8", "A: b", "x-forwarded-for: 10.0.0.9"), sentOn("GET /", "", "A: b", "x-forwarded-for: 10.0.0.8, 10.0.0.9, 127.0.0.1"), ""},
	{"row 51: no address", asGet("X-Forwarded-For:"), sentOn("GET /", ""), ""},
	{"row 51: attempts and destination are ours", asGet("X-Envoy-Attempt-Count: 9", "X-Isthmus-Destination: other.test:80"), sentOn("GET /", ""), ""},
	{"row 51: x-envoy-*", asGet("X-Envoy-Internal: true", "x-envoy-external-address: 10.0.0.9", "X-ENVOY-ORIGINAL-PATH: /a", "X-Envoy-Expected-Rq-Timeout-Ms: 1",
		"X-Envoy-Upstream-Rq-Timeout-Ms: 1", "X-Envoy-Retry-On: 5xx", "X-Envoy-Decorator-Operation: a", "X-Envoy-Peer-Metadata: a", "x-Envoy-a: b", "X-Envoys: c"), sentOn("GET /", "", "X-Envoys: c"), "gateway:80"},
	{"row 51: x-isthmus-*", asGet("X-Isthmus-Destination: other.test:80", "X-ISTHMUS-UNSENT: true", "x-isthmus-a: b", "X-Isthmuses: c"), sentOn("GET /", "", "X-Isthmuses: c"), "gateway:80"},
	{"row 51: x-forwarded-proto", asGet("X-Forwarded-Proto: https"), sentOn("GET /", ""), "gateway:80"},
	{"row 51: x-forwarded-proto, twice", asGet("X-Forwarded-Proto: http", "x-FORWARDED-proto: https"), sentOn("GET /", ""), "gateway:80"},
	{"row 51: what certificate has been shown", asGet("Client-Cert: :AA==:", "client-CERT-chain: :AA==:", "Client-Certs: a"), sentOn("GET /", "", "Client-Certs: a"), "gateway:80"},
	{"row 51: other words about the way here", asGet("Forwarded: for=10.0.0.9;proto=https", "X-Forwarded-Host: other.test", "X-Forwarded-Port: 443", "X-Real-IP: 10.0.0.9"), sentOn("GET /", ""), "gateway:80"},

	{"row 12: obs-text and tabs in a value stay", asGet("A: b\tc\x80\xff"), sentOn("GET /", "", "A: b\tc\x80\xff"), ""},
	{"row 12: an empty line before", "\r\n" + asGet(), sentOn("GET /", ""), ""},
	{"row 18: 100 fields", asGet(slicesOf("A: b", 99)...), sentOn("GET /", "", slicesOf("A: b", 99)...), ""},
	{"row 18: a head of 50 KiB", asGet("A: " + strings.Repeat("x", 50<<10)), sentOn("GET /", "", "A: "+strings.Repeat("x", 50<<10)), ""},
}

// acceptedTargets is request lines that are legal, if unusual: rows 14, 16, 17,
// 19, and 48, where what is forwarded is what was matched.
var acceptedTargets = []accepted{
	{"row 14: absolute target", "GET http://s.test/a?b HTTP/1.1\r\nHost: s.test\r\n\r\n", sentOn("GET /a?b", ""), ""},
	{"row 14: absolute target without path", "GET http://s.test HTTP/1.1\r\nHost: s.test\r\n\r\n", sentOn("GET /", ""), ""},
	{"row 14: absolute target in other case", "GET HTTP://S.test/ HTTP/1.1\r\nHost: s.TEST\r\n\r\n", sentOn("GET /", "", "host: S.test"), ""},
	{"row 14: a URL in a query", asLine("GET /?http://u@other.test/../a HTTP/1.1"), sentOn("GET /?http://u@other.test/../a", ""), ""},
	{"row 16: quotes and angle brackets in a query", asLine("GET /q?up{job=\"x\"}<1 HTTP/1.1"), sentOn("GET /q?up{job=\"x\"}<1", ""), ""},
	{"row 17: get", asLine("get / HTTP/1.1"), sentOn("get /", ""), ""},
	{"row 17: gEt", asLine("gEt / HTTP/1.1"), sentOn("gEt /", ""), ""},
	{"row 17: head, which has a body", asLine("head / HTTP/1.1"), sentOn("head /", ""), ""},
	{"row 17: connect", asLine("connect / HTTP/1.1"), sentOn("connect /", ""), ""},
	{"row 17: unknown method", asLine("FROB-1!#$ / HTTP/1.1"), sentOn("FROB-1!#$ /", ""), ""},
	{"row 17: HTTP/1.0", "GET / HTTP/1.0\r\nHost: s.test\r\n\r\n", sentOn("GET /", ""), ""},
	{"row 19: target of 7 KiB", asLine("GET /" + strings.Repeat("x", 7<<10) + " HTTP/1.1"), sentOn("GET /"+strings.Repeat("x", 7<<10), ""), ""},

	{"row 48: ..", asLine("GET /a/../b HTTP/1.1"), sentOn("GET /b", ""), ""},
	{"row 48: .. out of what is forbidden", asLine("GET /admin/../a HTTP/1.1"), sentOn("GET /a", ""), ""},
	{"row 48: ..\\ out of what is forbidden", asLine("GET /admin\\..\\a HTTP/1.1"), sentOn("GET /a", ""), ""},
	{"row 48: above the root", asLine("GET /../../a HTTP/1.1"), sentOn("GET /a", ""), ""},
	{"row 48: .. at the end", asLine("GET /a/b/.. HTTP/1.1"), sentOn("GET /a/", ""), ""},
	{"row 48: . at the end", asLine("GET /a/. HTTP/1.1"), sentOn("GET /a/", ""), ""},
	{"row 48: nothing but ..", asLine("GET /.. HTTP/1.1"), sentOn("GET /", ""), ""},
	{"row 48: . and .. mixed", asLine("GET /./a/./b/../c/. HTTP/1.1"), sentOn("GET /a/c/", ""), ""},
	{"row 48: three dots", asLine("GET /a/.../b HTTP/1.1"), sentOn("GET /a/.../b", ""), ""},
	{"row 48: dots in names", asLine("GET /.a/..b/c..d/e. HTTP/1.1"), sentOn("GET /.a/..b/c..d/e.", ""), ""},
	{"row 48: ..;", asLine("GET /a/..;/admin HTTP/1.1"), sentOn("GET /a/..;/admin", ""), ""},
	{"row 48: ..;a=b", asLine("GET /a/..;a=b/admin HTTP/1.1"), sentOn("GET /a/..;a=b/admin", ""), ""},
	{"row 48: query is left alone", asLine("GET /a?b=/../c%2f\\.. HTTP/1.1"), sentOn("GET /a?b=/../c%2f\\..", ""), ""},
	{"row 48: escaped slash", asLine("GET /a%2fadmin HTTP/1.1"), sentOn("GET /a%2fadmin", ""), ""},
	{"row 48: escaped twice", asLine("GET /a/%252e%252e/admin HTTP/1.1"), sentOn("GET /a/%252e%252e/admin", ""), ""},
	{"row 48: slash escaped twice", asLine("GET /a/..%252fadmin HTTP/1.1"), sentOn("GET /a/..%252fadmin", ""), ""},
	{"row 48: escapes beside ..", asLine("GET /a%2fb/../c%2fd HTTP/1.1"), sentOn("GET /c%2fd", ""), ""},
	{"row 48: escapes that nothing needs", asLine("GET /%62lu%65%2Ex%7E%20 HTTP/1.1"), sentOn("GET /blue.x~%20", ""), ""},
	{"row 48: overlong dots", asLine("GET /a/%c0%ae%c0%ae/admin HTTP/1.1"), sentOn("GET /a/%c0%ae%c0%ae/admin", ""), ""},
	{"row 48: two slashes", asLine("GET //admin HTTP/1.1"), sentOn("GET //admin", ""), ""},
	{"row 48: two slashes and ..", asLine("GET //a/../b HTTP/1.1"), sentOn("GET //b", ""), ""},
	{"row 48: absolute target", "GET http://s.test/a/../b HTTP/1.1\r\nHost: s.test\r\n\r\n", sentOn("GET /b", ""), ""},
}
