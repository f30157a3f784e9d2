package proxy

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// badChunks is chunked bodies whose end two readers could see in two different
// places, or that are not worth their data: rows 8 to 10.
var badChunks = []struct{ name, body string }{
	{"row 8: 0x5", "0x5\r\nabcde\r\n" + end},
	{"row 8: 0X5", "0X5\r\nabcde\r\n" + end},
	{"row 8: 0x", "0x\r\n\r\n"},
	{"row 8: x5", "x5\r\nabcde\r\n" + end},
	{"row 8: 1zz", "1zz\r\na\r\n" + end},
	{"row 8: g", "g\r\n" + strings.Repeat("a", 16) + "\r\n" + end},
	{"row 8: -1", "-1\r\na\r\n" + end},
	{"row 8: +5", "+5\r\nabcde\r\n" + end},
	{"row 8: -0", "-0\r\n\r\n"},
	{"row 8: 5.0", "5.0\r\nabcde\r\n" + end},
	{"row 8: 1_0", "1_0\r\n" + strings.Repeat("a", 16) + "\r\n" + end},
	{"row 8: 5,5", "5,5\r\nabcde\r\n" + end},
	{"row 8: \"5\"", "\"5\"\r\nabcde\r\n" + end},
	{"row 8: empty", "\r\nabcde\r\n" + end},
	{"row 8: empty with extension", ";a\r\nabcde\r\n" + end},
	{"row 8: space before", " 5\r\nabcde\r\n" + end},
	{"row 8: tab before", "\t5\r\nabcde\r\n" + end},
	{"row 8: space behind", "5 \r\nabcde\r\n" + end},
	{"row 8: tab behind", "5\t\r\nabcde\r\n" + end},
	{"row 8: space before extension", "5 ;a\r\nabcde\r\n" + end},
	{"row 8: space within", "1 0\r\n" + strings.Repeat("a", 16) + "\r\n" + end},
	{"row 8: space before the last", "5\r\nabcde\r\n 0\r\n\r\n"},
	{"row 8: vertical tab before", "\v5\r\nabcde\r\n" + end},
	{"row 8: NUL behind", "5\x00\r\nabcde\r\n" + end},
	{"row 8: \\xa0 before", "\xa05\r\nabcde\r\n" + end},
	{"row 8: 2^64", "10000000000000000\r\nabcde\r\n" + end},
	{"row 8: 2^64+5", "10000000000000005\r\nabcde\r\n" + end},
	{"row 8: 2^64-1", "ffffffffffffffff\r\nabcde\r\n" + end},
	{"row 8: 2^63", "8000000000000000\r\nabcde\r\n" + end},
	{"row 8: 2^32 and more in 24 digits", "000000010000000000000005\r\nabcde\r\n" + end},
	{"row 8: zeros without end", strings.Repeat("0", 2000)},
	{"row 8: data longer than said", "5\r\nabcdef\r\n" + end},
	{"row 8: data shorter than said", "5\r\nabcd\r\n" + end},
	{"row 8: no CRLF behind data", "5\r\nabcde" + end},
	{"row 8: other bytes for CRLF", "5\r\nabcdeXX" + end},
	{"row 8: CR behind data", "5\r\nabcde\r" + end},
	{"row 8: LFCR behind data", "5\r\nabcde\n\r" + end},

	{"row 9: LF behind size", "5\nabcde\r\n" + end},
	{"row 9: CR behind size", "5\rabcde\r\n" + end},
	{"row 9: CR CR LF behind size", "5\r\r\nabcde\r\n" + end},
	{"row 9: LF CR behind size", "5\n\rabcde\r\n" + end},
	{"row 9: LF behind data", "5\r\nabcde\n" + end},
	{"row 9: LF behind the last size", "0\n\r\n"},
	{"row 9: CR behind the last size", "0\r\r\n"},
	{"row 9: LF for the end", "0\r\n\n"},
	{"row 9: CR for the end", "0\r\n\rG"},
	{"row 9: LF behind extension", "5;a\nabcde\r\n" + end},
	{"row 9: LF in extension", "5;a\nb\r\nabcde\r\n" + end},
	{"row 9: CR in extension", "5;a\rb\r\nabcde\r\n" + end},
	{"row 9: LF in quoted extension", "5;a=\"\n\"\r\nabcde\r\n" + end},
	{"row 9: a request in an extension", "0;\n" + inner},
	{"row 9: LF behind trailer", "0\r\nA: b\n\r\n"},
	{"row 9: CR in trailer", "0\r\nA: b\rC: d\r\n\r\n"},

	{"row 10: long extension", "5;" + strings.Repeat("a", 4000) + "\r\nabcde\r\n" + end},
	{"row 10: many extensions", "5" + strings.Repeat(";a=b", 1000) + "\r\nabcde\r\n" + end},
	{"row 10: extensions of many chunks", strings.Repeat("1;"+strings.Repeat("a", 240)+"\r\na\r\n", 30) + end},
	{"row 10: extension that does not end", "5;" + strings.Repeat("a", 8000)},
	{"row 10: NUL in extension", "5;a\x00\r\nabcde\r\n" + end},

	{"row 12: space before colon in trailer", "0\r\nA : b\r\n\r\n"},
	{"row 12: folded trailer", "0\r\nA: b\r\n c\r\n\r\n"},
	{"row 12: trailer without name", "0\r\n: b\r\n\r\n"},
	{"row 12: trailer without colon", "0\r\nA\r\n\r\n"},
	{"row 12: request for a trailer", "0\r\n" + inner},
	{"row 11: NUL in trailer", "0\r\nA: b\x00\r\n\r\n"},
}

// TestStrict_RequestChunks: a body whose chunks are bad is refused before
// anything is sent on, where the fault has come with the head.
func TestStrict_RequestChunks(t *testing.T) {
	for _, tt := range badChunks {
		t.Run(tt.name, func(t *testing.T) {
			up := newTape(t, okReply)
			p := strictProxy(t, up.address)
			for _, at := range []string{"outbound", "gateway:80"} {
				got, _ := talk(t, p.address(at), asChunks(tt.body)+inner)
				refused(t, at, got, "400")
				got, _ = talk(t, p.address(at), asChunks("3\r\nabc\r\n"+tt.body)+inner)
				refused(t, at+", behind a chunk", got, "400")
			}
			if seen := up.all(t, p); len(seen) > 0 {
				t.Errorf("the upstream saw %.300q", seen)
			}
		})
	}
}

// TestStrict_RequestChunksLate: when the fault comes after the upstream has got
// the beginning of the body, the upstream must see no end of it.
func TestStrict_RequestChunksLate(t *testing.T) {
	flood := struct{ name, body string }{"row 10: extensions of 20000 chunks", strings.Repeat("1;abcdefghijkl\r\na\r\n", 20000) + end}
	for _, tt := range append(slices.Clone(badChunks), flood) {
		t.Run(tt.name, func(t *testing.T) {
			began := make(chan struct{})
			saw := make(chan string, 1)
			up := upstreamServer(t, func(head string, r *bufio.Reader, _ net.Conn) bool {
				var b strings.Builder
				io.CopyN(&b, r, int64(len("3\r\nabc\r\n")))
				close(began)
				io.Copy(&b, r)
				saw <- head + b.String()
				return false
			})
			p := strictProxy(t, up.address)
			c, err := net.Dial("tcp", p.address("outbound"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, asChunks("3\r\nabc\r\n"))
			await(t, "the beginning at the upstream", began)
			go io.WriteString(c, tt.body+inner) // ends with the connection
			got, _ := readAll(t, c)
			refused(t, "late", got, "400")
			p.Close()
			if seen := await(t, "the end at the upstream", saw); !strings.HasPrefix(messages(seen)[0], "broken: ") || strings.Contains(seen, "/inner") || strings.Contains(seen, ";") {
				t.Errorf("the upstream saw %.500q", seen)
			}
			if n := len(up.seen()); n != 1 {
				t.Errorf("the upstream saw %d requests", n)
			}
		})
	}
}
