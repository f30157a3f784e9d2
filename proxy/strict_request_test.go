package proxy

import (
	"slices"
	"strings"
	"testing"
)

// refusal is a request that must not get through: it is answered with status
// and the end of the connection, and the upstream sees not one byte of it. at
// is the listener; "" stands for both.
type refusal struct{ name, request, status, at string }

// inner is a request hidden behind another one. Nothing may bring it to an
// answer or to the upstream.
const inner = "GET /inner HTTP/1.1\r\nHost: s.test\r\n\r\n"

// end is the last chunk.
const end = "0\r\n\r\n"

// TestStrict_Requests sends every request that must be refused alone, in two
// pieces, and behind a request that is good.
func TestStrict_Requests(t *testing.T) {
	good := "GET /good HTTP/1.1\r\nHost: s.test\r\n\r\n"
	for _, tt := range slices.Concat(refusedFraming, refusedFields, refusedTargets) {
		t.Run(tt.name, func(t *testing.T) {
			up := newTape(t, okReply)
			p := strictProxy(t, up.address)
			goods := 0
			for _, at := range []string{"outbound", "gateway:80"} {
				if tt.at != "" && tt.at != at {
					continue
				}
				got, _ := talk(t, p.address(at), tt.request+inner)
				refused(t, at, got, tt.status)
				half := len(tt.request) / 2
				if i := strings.Index(tt.request, "\r\n\r\n"); i > 0 {
					half = i / 2 // in the head: a fault in the body shall come with what is before it
				}
				got, _ = talk(t, p.address(at), tt.request[:half], tt.request[half:]+inner)
				refused(t, at+", in two pieces", got, tt.status)
				got, _ = talk(t, p.address(at), good+tt.request+inner)
				rest, found := strings.CutPrefix(got, okReply[:len("HTTP/1.1 200 OK\r\n")])
				_, rest, _ = strings.Cut(rest, "\r\n\r\nok")
				if !found {
					t.Errorf("%s: the good request is answered with %.300q", at, got)
				}
				goods++
				refused(t, at+", behind a good one", rest, tt.status)
			}
			var seen []string
			for _, stream := range up.all(t, p) {
				seen = append(seen, messages(stream)...)
			}
			for _, m := range seen {
				if !strings.HasPrefix(m, "GET /good HTTP/1.1\n") || strings.Contains(m, "[") {
					t.Errorf("the upstream saw %.300q", m)
				}
			}
			if len(seen) != goods {
				t.Errorf("the upstream saw %d requests, want the %d good ones", len(seen), goods)
			}
		})
	}
}

// refused checks that got is one answer with status, whose connection ends.
func refused(t *testing.T, how, got, status string) {
	t.Helper()
	if !strings.HasPrefix(got, "HTTP/1.1 "+status+" ") {
		t.Errorf("%s: answered %.300q, want %s", how, got, status)
	}
	if n := replies(got); n != 1 || !strings.Contains(strings.ToLower(got), "\r\nconnection: close\r\n") {
		t.Errorf("%s: %d answers, want one that says close: %.300q", how, n, got)
	}
}

// refusedFraming is where two readers could see two different ends of a body:
// rows 1 to 7.
var refusedFraming = []refusal{
	{"row 1: CL, TE", asPost(end, "Content-Length: 5", "Transfer-Encoding: chunked"), "400", ""},
	{"row 1: TE, CL", asPost(end, "Transfer-Encoding: chunked", "Content-Length: 5"), "400", ""},
	{"row 1: CL 0, TE", asPost(end, "Content-Length: 0", "Transfer-Encoding: chunked"), "400", ""},
	{"row 1: TE, CL of the inner request", asPost(end, "Transfer-Encoding: chunked", "Content-Length: 44"), "400", ""},
	{"row 1: CL, TE with a field between, other case", asPost(end, "cONTENT-lENGTH: 5", "A: b", "TRANSFER-ENCODING: CHUNKED"), "400", ""},
	{"row 1: CL, TE on GET", asGet("Content-Length: 5", "Transfer-Encoding: chunked") + end, "400", ""},
	{"row 1: CL, TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: s.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + end, "400", ""},
	{"row 1: CL, unknown TE", asPost("abcde", "Content-Length: 5", "Transfer-Encoding: gzip"), "400", ""},
	{"row 1: CL, identity", asPost("abcde", "Content-Length: 5", "Transfer-Encoding: identity"), "400", ""},
	{"row 1: CL, TE empty", asPost("abcde", "Content-Length: 5", "Transfer-Encoding:"), "400", ""},
	{"row 1: CL empty, TE", asPost(end, "Content-Length:", "Transfer-Encoding: chunked"), "400", ""},
	{"row 1: CL, TE, both named by Connection", asPost(end, "Connection: content-length, transfer-encoding", "Content-Length: 5", "Transfer-Encoding: chunked"), "400", ""},

	{"row 2: TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n" + end, "400", ""},
	{"row 2: TE in HTTP/1.0, kept alive", "POST / HTTP/1.0\r\nHost: s.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + end, "400", ""},
	{"row 2: identity in HTTP/1.0", "POST / HTTP/1.0\r\nHost: s.test\r\nTransfer-Encoding: identity\r\n\r\n", "400", ""},
	{"row 2: TE in HTTP/1.0 on GET", "GET / HTTP/1.0\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n" + end, "400", ""},

	{"row 3: chunked, chunked", asPost(end, "Transfer-Encoding: chunked, chunked"), "400", ""},
	{"row 3: chunked,chunked", asPost(end, "Transfer-Encoding: chunked,chunked"), "400", ""},
	{"row 3: chunked, CHUNKED", asPost(end, "Transfer-Encoding: chunked, CHUNKED"), "400", ""},
	{"row 3: two lines", asPost(end, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "400", ""},
	{"row 3: two lines, apart and in other case", asPost(end, "Transfer-Encoding: chunked", "A: b", "transfer-encoding: chunked"), "400", ""},
	{"row 3: two lines, chunked and identity", asPost(end, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), "400", ""},
	{"row 3: two lines, identity and chunked", asPost(end, "Transfer-Encoding: identity", "Transfer-Encoding: chunked"), "400", ""},
	{"row 3: two lines, the second empty", asPost(end, "Transfer-Encoding: chunked", "Transfer-Encoding:"), "400", ""},
	{"row 3: two lines, the first empty", asPost(end, "Transfer-Encoding:", "Transfer-Encoding: chunked"), "400", ""},
	{"row 3: gzip, chunked, chunked", asPost(end, "Transfer-Encoding: gzip, chunked, chunked"), "400", ""},
	{"row 3: chunked chunked", asPost(end, "Transfer-Encoding: chunked chunked"), "400", ""},

	{"row 4: gzip", asPost("", "Transfer-Encoding: gzip"), "501", ""},
	{"row 4: identity", asPost("", "Transfer-Encoding: identity"), "501", ""},
	{"row 4: xchunked", asPost(end, "Transfer-Encoding: xchunked"), "501", ""},
	{"row 4: chunke", asPost(end, "Transfer-Encoding: chunke"), "501", ""},
	{"row 4: chunkedx", asPost(end, "Transfer-Encoding: chunkedx"), "501", ""},
	{"row 4: x-chunked", asPost(end, "Transfer-Encoding: x-chunked"), "501", ""},
	{"row 4: gzip, chunked", asPost(end, "Transfer-Encoding: gzip, chunked"), "501", ""},
	{"row 4: identity, chunked", asPost(end, "Transfer-Encoding: identity, chunked"), "501", ""},
	{"row 4: unknown before chunked", asPost(end, "Transfer-Encoding: cow, chunked"), "501", ""},
	{"row 4: gzip with parameter", asPost("", "Transfer-Encoding: gzip;q=1"), "501", ""},
	{"row 4: chunked, gzip", asPost(end, "Transfer-Encoding: chunked, gzip"), "501", ""},
	{"row 4: chunked, identity", asPost(end, "Transfer-Encoding: chunked, identity"), "501", ""},

	{"row 5: TE ,chunked", asPost(end, "Transfer-Encoding: ,chunked"), "400", ""},
	{"row 5: TE , chunked", asPost(end, "Transfer-Encoding: , chunked"), "400", ""},
	{"row 5: TE chunked,", asPost(end, "Transfer-Encoding: chunked,"), "400", ""},
	{"row 5: TE \\xa0chunked", asPost(end, "Transfer-Encoding: \xa0chunked"), "400", ""},
	{"row 5: TE chunked\\xa0", asPost(end, "Transfer-Encoding: chunked\xa0"), "400", ""},
	{"row 5: TE \\x85chunked", asPost(end, "Transfer-Encoding: \x85chunked"), "400", ""},
	{"row 5: TE \\xffchunked", asPost(end, "Transfer-Encoding: \xffchunked"), "400", ""},
	{"row 5: TE with byte order mark", asPost(end, "Transfer-Encoding: \xef\xbb\xbfchunked"), "400", ""},
	{"row 5: TE with Kelvin sign", asPost(end, "Transfer-Encoding: chun\xe2\x84\xaaed"), "400", ""},
	{"row 5: TE \\vchunked", asPost(end, "Transfer-Encoding: \vchunked"), "400", ""},
	{"row 5: TE chunked\\v", asPost(end, "Transfer-Encoding: chunked\v"), "400", ""},
	{"row 5: TE \\fchunked", asPost(end, "Transfer-Encoding: \fchunked"), "400", ""},
	{"row 5: TE chunked\\f", asPost(end, "Transfer-Encoding: chunked\f"), "400", ""},
	{"row 5: TE chun\\tked", asPost(end, "Transfer-Encoding: chun\tked"), "400", ""},
	{"row 5: TE chunked\\x00", asPost(end, "Transfer-Encoding: chunked\x00"), "400", ""},
	{"row 5: TE \\x00chunked", asPost(end, "Transfer-Encoding: \x00chunked"), "400", ""},
	{"row 5: TE \\bchunked", asPost(end, "Transfer-Encoding: \bchunked"), "400", ""},
	{"row 5: TE \\x7fchunked", asPost(end, "Transfer-Encoding: \x7fchunked"), "400", ""},
	{"row 5: TE \"chunked\"", asPost(end, `Transfer-Encoding: "chunked"`), "400", ""},
	{"row 5: TE chunked;", asPost(end, "Transfer-Encoding: chunked;"), "400", ""},
	{"row 5: TE chunked;q=1", asPost(end, "Transfer-Encoding: chunked;q=1"), "400", ""},
	{"row 5: TE ;chunked", asPost(end, "Transfer-Encoding: ;chunked"), "400", ""},
	{"row 5: TE : chunked", asPost(end, "Transfer-Encoding: : chunked"), "400", ""},
	{"row 5: TE empty", asPost(end, "Transfer-Encoding:"), "400", ""},
	{"row 5: TE of a comma", asPost(end, "Transfer-Encoding: ,"), "400", ""},
	{"row 5: TE folded", asPost(end, "Transfer-Encoding:", " chunked"), "400", ""},
	{"row 5: TE folded, with a coding before", asPost(end, "Transfer-Encoding: chunked", " , identity"), "400", ""},
	{"row 5: TE behind CR", asPost(end, "Transfer-Encoding: \rchunked"), "400", ""},
	{"row 5: TE behind CR in another field", asPost(end, "A: b\rTransfer-Encoding: chunked"), "400", ""},
	{"row 5: TE behind LF in another field", asPost(end, "A: b\nTransfer-Encoding: chunked"), "400", ""},
	{"row 5: TE before colon a space", asPost(end, "Transfer-Encoding : chunked"), "400", ""},
	{"row 5: TE before colon a tab", asPost(end, "Transfer-Encoding\t: chunked"), "400", ""},
	{"row 5: TE before colon a NUL", asPost(end, "Transfer-Encoding\x00: chunked"), "400", ""},
	{"row 5: TE before the name a vertical tab", asPost(end, "\vTransfer-Encoding: chunked"), "400", ""},

	{"row 6: two CL, different", asPost("abcdef", "Content-Length: 5", "Content-Length: 6"), "400", ""},
	{"row 6: two CL, equal", asPost("abcde", "Content-Length: 5", "Content-Length: 5"), "400", ""},
	{"row 6: two CL, apart and in other case", asPost("abcde", "Content-Length: 5", "A: b", "content-LENGTH: 0"), "400", ""},
	{"row 6: two CL, the first 0", asPost("abcde", "Content-Length: 0", "Content-Length: 5"), "400", ""},
	{"row 6: two CL, the second empty", asPost("abcde", "Content-Length: 5", "Content-Length:"), "400", ""},
	{"row 6: two CL, the second bad", asPost("abcde", "Content-Length: 5", "Content-Length: x"), "400", ""},
	{"row 6: three CL", asPost("abcde", "Content-Length: 5", "Content-Length: 5", "Content-Length: 5"), "400", ""},
	{"row 6: two CL on GET", asGet("Content-Length: 0", "Content-Length: 39"), "400", ""},
	{"row 6: CL 5, 5", asPost("abcde", "Content-Length: 5, 5"), "400", ""},
	{"row 6: CL 5,6", asPost("abcdef", "Content-Length: 5,6"), "400", ""},
	{"row 6: CL 5,", asPost("abcde", "Content-Length: 5,"), "400", ""},
	{"row 6: CL ,5", asPost("abcde", "Content-Length: ,5"), "400", ""},

	{"row 7: CL +5", asPost("abcde", "Content-Length: +5"), "400", ""},
	{"row 7: CL -1", asPost("", "Content-Length: -1"), "400", ""},
	{"row 7: CL -0", asPost("", "Content-Length: -0"), "400", ""},
	{"row 7: CL 0x10", asPost("", "Content-Length: 0x10"), "400", ""},
	{"row 7: CL 0X5", asPost("abcde", "Content-Length: 0X5"), "400", ""},
	{"row 7: CL 0o5", asPost("abcde", "Content-Length: 0o5"), "400", ""},
	{"row 7: CL a", asPost("", "Content-Length: a"), "400", ""},
	{"row 7: CL 5a", asPost("abcde", "Content-Length: 5a"), "400", ""},
	{"row 7: CL 5.0", asPost("abcde", "Content-Length: 5.0"), "400", ""},
	{"row 7: CL 1e1", asPost("", "Content-Length: 1e1"), "400", ""},
	{"row 7: CL 1_0", asPost("", "Content-Length: 1_0"), "400", ""},
	{"row 7: CL \"5\"", asPost("abcde", `Content-Length: "5"`), "400", ""},
	{"row 7: CL 5;", asPost("abcde", "Content-Length: 5;"), "400", ""},
	{"row 7: CL empty", asPost("", "Content-Length:"), "400", ""},
	{"row 7: CL of spaces", asPost("", "Content-Length:   "), "400", ""},
	{"row 7: CL 1 2", asPost("", "Content-Length: 1 2"), "400", ""},
	{"row 7: CL 1\\t2", asPost("", "Content-Length: 1\t2"), "400", ""},
	{"row 7: CL \\v5", asPost("abcde", "Content-Length: \v5"), "400", ""},
	{"row 7: CL 5\\x00", asPost("abcde", "Content-Length: 5\x00"), "400", ""},
	{"row 7: CL \\xa05", asPost("abcde", "Content-Length: \xa05"), "400", ""},
	{"row 7: CL in Arabic digits", asPost("abcde", "Content-Length: \xd9\xa5"), "400", ""},
	{"row 7: CL 2^63", asPost("", "Content-Length: 9223372036854775808"), "400", ""},
	{"row 7: CL 2^64", asPost("", "Content-Length: 18446744073709551616"), "400", ""},
	{"row 7: CL 2^64+5", asPost("abcde", "Content-Length: 18446744073709551621"), "400", ""},
	{"row 7: CL of 40 digits", asPost("", "Content-Length: 1"+strings.Repeat("0", 39)), "400", ""},
	{"row 7: CL before colon a space", asPost("abcde", "Content-Length : 5"), "400", ""},
	{"row 7: CL folded", asPost("abcde", "Content-Length:", " 5"), "400", ""},
	{"row 7: CL in HTTP/1.0", "POST / HTTP/1.0\r\nHost: s.test\r\nContent-Length: +5\r\n\r\nabcde", "400", ""},
}
