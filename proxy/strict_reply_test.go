package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// as200 is a reply of status 200 with field lines and what comes behind them.
func as200(body string, lines ...string) string {
	return "HTTP/1.1 200 OK\r\n" + asLines(lines) + "\r\n" + body
}

// refusedReplies is replies that two readers could take for two different
// things, or that are none: rows 44 and 45.
var refusedReplies = []struct{ name, reply string }{
	{"row 44: CL, TE", as200("2\r\nok\r\n"+end, "Content-Length: 2", "Transfer-Encoding: chunked")},
	{"row 44: TE, CL", as200("2\r\nok\r\n"+end, "Transfer-Encoding: chunked", "Content-Length: 2")},
	{"row 44: CL 0, TE", as200("2\r\nok\r\n"+end, "Content-Length: 0", "Transfer-Encoding: chunked")},
	{"row 44: CL, unknown TE", as200("ok", "Content-Length: 2", "Transfer-Encoding: gzip")},
	{"row 44: two CL, different", as200("okk", "Content-Length: 2", "Content-Length: 3")},
	{"row 44: two CL, equal", as200("ok", "Content-Length: 2", "content-length: 2")},
	{"row 44: CL 2, 2", as200("ok", "Content-Length: 2, 2")},
	{"row 44: CL 2,3", as200("okk", "Content-Length: 2,3")},
	{"row 44: CL +2", as200("ok", "Content-Length: +2")},
	{"row 44: CL -1", as200("ok", "Content-Length: -1")},
	{"row 44: CL 0x2", as200("ok", "Content-Length: 0x2")},
	{"row 44: CL empty", as200("ok", "Content-Length:")},
	{"row 44: CL 2 2", as200("ok", "Content-Length: 2 2")},
	{"row 44: CL 2^63", as200("ok", "Content-Length: 9223372036854775808")},
	{"row 44: CL 2^64+2", as200("ok", "Content-Length: 18446744073709551618")},
	{"row 44: TE gzip", as200("ok", "Transfer-Encoding: gzip")},
	{"row 44: TE identity", as200("ok", "Transfer-Encoding: identity")},
	{"row 44: TE gzip, chunked", as200("2\r\nok\r\n"+end, "Transfer-Encoding: gzip, chunked")},
	{"row 44: TE chunked, gzip", as200("2\r\nok\r\n"+end, "Transfer-Encoding: chunked, gzip")},
	{"row 44: TE chunked, chunked", as200("2\r\nok\r\n"+end, "Transfer-Encoding: chunked, chunked")},
	{"row 44: two TE", as200("2\r\nok\r\n"+end, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")},
	{"row 44: TE ,chunked", as200("2\r\nok\r\n"+end, "Transfer-Encoding: ,chunked")},
	{"row 44: TE \\vchunked", as200("2\r\nok\r\n"+end, "Transfer-Encoding: \vchunked")},
	{"row 44: TE \\xa0chunked", as200("2\r\nok\r\n"+end, "Transfer-Encoding: \xa0chunked")},
	{"row 44: TE empty", as200("2\r\nok\r\n"+end, "Transfer-Encoding:")},
	{"row 44: TE folded", as200("2\r\nok\r\n"+end, "Transfer-Encoding:", " chunked")},
	{"row 44: TE in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + end},

	{"row 44: NUL in value", as200("ok", "A: b\x00c", "Content-Length: 2")},
	{"row 44: NUL in name", as200("ok", "A\x00: b", "Content-Length: 2")},
	{"row 44: CR in value", as200("ok", "A: b\rc", "Content-Length: 2")},
	{"row 44: CR splits the reply", as200("ok", "A: b\rSet-Cookie: c", "Content-Length: 2")},
	{"row 44: CR CR LF", as200("ok", "A: b\r", "Content-Length: 2")},
	{"row 44: LF in value", as200("ok", "A: b\nSet-Cookie: c", "Content-Length: 2")},
	{"row 44: LF LF splits the reply", as200("ok", "A: b\n\nHTTP/1.1 200 OK", "Content-Length: 2")},
	{"row 44: LFs for all line ends", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
	{"row 44: LF for the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok"},
	{"row 44: folded", as200("ok", "A: b", " c", "Content-Length: 2")},
	{"row 44: folded by tab", as200("ok", "A: b", "\tc", "Content-Length: 2")},
	{"row 44: first field folded", as200("ok", " A: b", "Content-Length: 2")},
	{"row 44: space before colon", as200("ok", "Content-Length : 2")},
	{"row 44: name empty", as200("ok", ": b", "Content-Length: 2")},
	{"row 44: no colon", as200("ok", "A", "Content-Length: 2")},
	{"row 44: escape in value", as200("ok", "A: \x1b[2J", "Content-Length: 2")},

	{"row 44: empty line before", "\r\n" + okReply},
	{"row 44: status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: status +20", "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: status 999", "HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: no status", "HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: two spaces before status", "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: NUL in reason", "HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: CR in reason", "HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: HTTP/1.2", "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: http/1.1", "http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"row 44: HTTP/0.9", "<html>ok</html>\r\n\r\n"},
	{"row 44: a request", get("s.test")},
	{"row 44: another protocol", "220 s.test ESMTP\r\n\r\n"},
	{"row 44: settings of HTTP/2", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
	{"row 44: alert of TLS", "\x15\x03\x01\x00\x02\x02\x46"},

	{"row 45: 20 times 103", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 20) + okReply},
	{"row 45: 20 times 100", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20) + okReply},
	{"row 45: 2000 times 102", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 2000) + okReply},
	{"row 45: one field of 61 KiB", as200("ok", "A: "+strings.Repeat("x", 61<<10), "Content-Length: 2")},
	{"row 45: 101 fields", as200("ok", append(slicesOf("A: b", 100), "Content-Length: 2")...)},
	{"row 45: reason of 61 KiB", "HTTP/1.1 200 " + strings.Repeat("x", 61<<10) + "\r\nContent-Length: 2\r\n\r\nok"},
	{"row 45: large head of a 103", "HTTP/1.1 103 Early Hints\r\nA: " + strings.Repeat("x", 61<<10) + "\r\n\r\n" + okReply},
	{"row 45: 101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + okReply},
	{"row 45: 101 unasked, without Upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n" + okReply},
	{"row 45: 101 behind a 103", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"},
}

// TestStrict_Replies: a bad reply is a 502, its connection is not used again,
// and nothing of it is taken for the answer to another request.
func TestStrict_Replies(t *testing.T) {
	for _, tt := range refusedReplies {
		t.Run(tt.name, func(t *testing.T) {
			up := replying(t, tt.reply)
			p := strictProxy(t, up.address)
			sent := 0
			for _, request := range []string{
				asGet(), asPost("abc", "Content-Length: 3"), asGet("Connection: upgrade", "Upgrade: foo"), asWebSocket(), asGet("Connection: close"),
			} {
				final := func(s string) bool { return strings.HasSuffix(s, "reset reason: protocol error") }
				got := exchangeRaw(t, p.address("outbound"), request, final)
				if i := strings.LastIndex(got, "HTTP/1.1 "); i < 0 || status(got[i:]) != "502" {
					t.Fatalf("%.30q: answered %.500q, want 502", request, got)
				}
				if strings.Contains(got, "ok") || strings.Contains(got, "HTTP/1.1 101") {
					t.Errorf("%.30q: answered %.500q", request, got)
				}
				sent++
			}
			heads := up.seen()
			up.mu.Lock()
			defer up.mu.Unlock()
			if len(heads) != up.conns {
				t.Errorf("%d requests over %d connections, want no connection used twice", len(heads), up.conns)
			}
			posts := 0
			for _, h := range heads {
				if strings.HasPrefix(h, "POST ") {
					posts++
				}
			}
			if posts != 1 || len(heads) < sent {
				t.Errorf("the upstream saw %d requests, %d of them POSTs, want one POST", len(heads), posts)
			}
		})
	}
}

// TestStrict_RepliesEndless, row 45: what never ends is given up.
func TestStrict_RepliesEndless(t *testing.T) {
	for _, tt := range []struct{ name, first, more string }{
		{"103 for ever", "", "HTTP/1.1 103 Early Hints\r\n\r\n"},
		{"100 for ever", "", "HTTP/1.1 100 Continue\r\n\r\n"},
		{"one field for ever", "HTTP/1.1 200 OK\r\nA: ", "xxxxxxxxxxxxxxxx"},
		{"fields for ever", "HTTP/1.1 200 OK\r\n", "A: b\r\n"},
		{"reason for ever", "HTTP/1.1 200 ", "xxxxxxxxxxxxxxxx"},
		{"digits for ever", "HTTP/1.1 2", "0"},
		{"zeros for ever", "", "\x00"},
	} {
		t.Run("row 45: "+tt.name, func(t *testing.T) {
			up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
				for text := tt.first; ; text = strings.Repeat(tt.more, 100) {
					if _, err := io.WriteString(c, text); err != nil {
						return false // the proxy has had enough
					}
				}
			})
			p := strictProxy(t, up.address)
			got, _ := talk(t, p.address("outbound"), asGet("Connection: close"))
			if i := strings.LastIndex(got, "HTTP/1.1 "); i < 0 || status(got[i:]) != "502" {
				t.Errorf("answered %.500q, want 502", got)
			}
		})
	}
}

// TestStrict_RepliesInterim: a few interim replies are none too many.
func TestStrict_RepliesInterim(t *testing.T) {
	up := replying(t, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 3)+okReply)
	p := strictProxy(t, up.address)
	got, clean := talk(t, p.address("outbound"), asGet()+asGet("Connection: close"))
	if replies(got) != 8 || strings.Count(got, "HTTP/1.1 200 OK") != 2 || !clean {
		t.Errorf("got %q, want three interim replies and one other, twice", got)
	}
	if up.mu.Lock(); up.conns != 1 {
		t.Errorf("%d connections, want one that is kept", up.conns)
	}
	up.mu.Unlock()
}

// TestStrict_RepliesInterimFields: of an interim reply, too, what is about the upstream's
// connection, and what proxies say to each other, stays here.
func TestStrict_RepliesInterimFields(t *testing.T) {
	up := replying(t, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Isthmus-Unsent: true\r\nX-Isthmus-Refusal: a\r\n\r\n"+okReply)
	p := strictProxy(t, up.address)
	for listener, want := range map[string]string{
		"outbound":   "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Isthmus-Refusal: a\r\n\r\n",
		"gateway:80": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
	} {
		if got, _ := talk(t, p.address(listener), asGet("Connection: close")); !strings.HasPrefix(got, want+"HTTP/1.1 200 OK\r\n") {
			t.Errorf("%s: got %q, want %q first", listener, got, want)
		}
	}
}

// TestStrict_RepliesBodiless, row 46: a body where there can be none is not
// delivered, and its connection is not used again.
func TestStrict_RepliesBodiless(t *testing.T) {
	poison := "HTTP/1.1 200 stray\r\nContent-Length: 5\r\n\r\nstray"
	length := fmt.Sprint("Content-Length: ", len(poison))
	chunks := fmt.Sprintf("%x\r\n%s\r\n", len(poison), poison) + end
	for _, tt := range []struct{ name, method, head, body string }{
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\n" + length, poison},
		{"HEAD, without length", "HEAD", "HTTP/1.1 200 OK", poison},
		{"HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", chunks},
		{"HEAD, five bytes", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5", "stray"},
		{"HEAD, 404", "HEAD", "HTTP/1.1 404 Not Found\r\n" + length, poison},
		{"204", "GET", "HTTP/1.1 204 No Content", poison},
		{"204, length", "GET", "HTTP/1.1 204 No Content\r\n" + length, poison},
		{"204, chunked", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", chunks},
		{"204, five bytes", "DELETE", "HTTP/1.1 204 No Content\r\nContent-Length: 5", "stray"},
		{"304", "GET", "HTTP/1.1 304 Not Modified", poison},
		{"304, length", "GET", "HTTP/1.1 304 Not Modified\r\n" + length, poison},
		{"304, chunked", "GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked", chunks},
		{"304, HEAD", "HEAD", "HTTP/1.1 304 Not Modified\r\n" + length, poison},
		{"204, POST", "POST", "HTTP/1.1 204 No Content", poison},
	} {
		t.Run("row 46: "+tt.name, func(t *testing.T) {
			up := replying(t, tt.head+"\r\n\r\n"+tt.body)
			p := strictProxy(t, up.address)
			request := tt.method + " / HTTP/1.1\r\nHost: s.test\r\n"
			got, clean := talk(t, p.address("outbound"), strings.Repeat(request+"\r\n", 2)+request+"Connection: close\r\n\r\n")
			if want, _, _ := strings.Cut(tt.head, "\r\n"); strings.Count(got, want+"\r\n") != 3 || replies(got) != 3 || strings.Contains(got, "stray") || !clean {
				t.Errorf("got %q, want %s three times and nothing else", got, want)
			}
			if strings.Count(strings.ToLower(got), "\r\ntransfer-encoding:") > 0 && !strings.HasPrefix(tt.method, "HEAD") {
				t.Errorf("got %q, which speaks of a body", got)
			}
			if up.mu.Lock(); up.conns != 3 || len(up.heads) != 3 {
				t.Errorf("%d requests over %d connections, want 3 and 3", len(up.heads), up.conns)
			}
			up.mu.Unlock()
		})
	}
}

// TestStrict_RepliesFirstChunk, row 43: a chunked reply whose first chunk is
// broken is refused, not begun.
func TestStrict_RepliesFirstChunk(t *testing.T) {
	for name, body := range map[string]string{"size": "zz\r\nabc", "line end": "3\nabc", "data": "3\r\nabcd\r\n"} {
		t.Run("row 43: "+name, func(t *testing.T) {
			up := replying(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
			p := strictProxy(t, up.address)
			got, clean := talk(t, p.address("outbound"), asGet()+asGet("Connection: close"))
			if strings.Count(got, "HTTP/1.1 502 ") != 2 || replies(got) != 2 || !clean {
				t.Errorf("got %q, want 502 twice", got)
			}
		})
	}
}

// TestStrict_Trailers: what would not come through in a header does not come in
// a trailer.
func TestStrict_Trailers(t *testing.T) {
	const trailers = "X-Kept: 1\r\nX-Hop: 2\r\nx_under: 3\r\n\r\n"
	body := "3\r\nabc\r\n0\r\n" + trailers
	request := post("Transfer-Encoding: chunked\r\nConnection: x-hop", body)
	for _, tt := range []struct{ listener, want string }{
		{"outbound", "0\r\nX-Kept: 1\r\nx_under: 3\r\n\r\n"},
		{"gateway:80", "0\r\nX-Kept: 1\r\n\r\n"},
	} {
		for _, cut := range []int{0, len(body)} { // all at once, or the body behind the head
			up := record(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\n\r\n"+body)
			p := serve(t, atEdge(), entry("s.test", up.address)+edge("s.test"))
			c := dial(t, p.address(tt.listener))
			c.send(request[:len(request)-cut])
			if cut > 0 {
				await(t, "the head at the upstream", until(func() bool { return strings.Contains(up.seen(), "\r\n\r\n") }))
			}
			c.send(request[len(request)-cut:])
			c.head("200")
			got := make([]byte, len("3\r\nabc\r\n0\r\nX-Kept: 1\r\nx_under: 3\r\n\r\n"))
			if _, err := io.ReadFull(c.r, got); err != nil || !strings.HasSuffix(string(got), "0\r\nX-Kept: 1\r\nx_under: 3\r\n\r\n") {
				t.Errorf("%s: the client got %q, %v", tt.listener, got, err)
			}
			if seen := up.seen(); !strings.HasSuffix(seen, tt.want) {
				t.Errorf("%s: the upstream got %q, want %q at its end", tt.listener, seen, tt.want)
			}
		}
	}
}

// TestStrict_Date: a reply without Date gets one; one that has it keeps it.
func TestStrict_Date(t *testing.T) {
	for _, line := range []string{"", "DATE: Tue, 15 Nov 1994 08:12:31 GMT\r\n"} {
		up := replying(t, "HTTP/1.1 200 OK\r\n"+line+"Content-Length: 0\r\n\r\n")
		got := exchangeRaw(t, serve(t, Options{}, entry("s.test", up.address)).address("outbound"), get("s.test"), whole(1))
		r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
		if err != nil {
			t.Fatal(err)
		}
		at, err := http.ParseTime(r.Header.Get("Date"))
		if len(r.Header["Date"]) != 1 || err != nil || (line == "") != (time.Since(at) < time.Hour) {
			t.Errorf("with %q: got %q", line, got)
		}
	}
}
