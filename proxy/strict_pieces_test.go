package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// smuggled is a request hidden behind another one: no fault may bring it to
// the upstream.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: s.test\r\n\r\n"

// post is a POST with field lines and what comes behind its head.
func post(lines, body string) string {
	return "POST / HTTP/1.1\r\nHost: s.test\r\n" + lines + "\r\n\r\n" + body
}

// chunked is a POST of a chunked body.
func chunked(body string) string { return post("Transfer-Encoding: chunked", body) }

const chunkEnd = "0\r\n\r\n"

// TestStrict_BodiesInPieces sends each refused body in two parts, the
// fault in the second, when the head has gone to the upstream already: the
// request must end without a clean end.
func TestStrict_BodiesInPieces(t *testing.T) {
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

// inPieces sends the first bytes, waits until they have arrived, sends the
// others, and returns everything that comes back.
func inPieces(t *testing.T, address, first string, arrived func() bool, second string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, first)
	for !arrived() {
		time.Sleep(time.Millisecond)
	}
	io.WriteString(c, second)
	return toEnd(t, c)
}

// TestStrict_BodyBehindHead: head and body in packets of their own, as most
// clients send them, with a pause between. Sizes are those of the buffers.
func TestStrict_BodyBehindHead(t *testing.T) {
	const pad = "X-Pad: pppppppppppppppppppppppppppppppppppppppp\r\nX-Last: last"
	for _, n := range []int{1, 2, 1000, bufferSize - 300, bufferSize - 1, bufferSize, bufferSize + 1, 30000, largeBufferSize - 1, largeBufferSize, largeBufferSize + 1, 300000} {
		body := strings.Repeat("b", n-1) + "e"
		for _, tt := range []struct{ name, head, wire string }{
			{"length", post(fmt.Sprintf("Content-Length: %d\r\n%s", n, pad), ""), body},
			{"chunked", post("Transfer-Encoding: chunked\r\n"+pad, ""), fmt.Sprintf("%x\r\n%s\r\n", n, body) + chunkEnd},
		} {
			for _, pieces := range [][]int{{0}, {0, 1}, {1}, {n / 2}, {0, n / 2, n - 1}} {
				t.Run(fmt.Sprint(tt.name, " ", n, " ", pieces), func(t *testing.T) {
					t.Parallel()
					up := capturing(t, okReply)
					p := serve(t, Options{}, entry("s.test", up.address))
					c := dial(t, p.address("outbound"))
					text, at := tt.head+tt.wire, 0
					for _, piece := range pieces {
						c.send(text[at : len(tt.head)+piece])
						at = len(tt.head) + piece
						time.Sleep(20 * time.Millisecond) // so that the proxy waits for the next one
					}
					c.send(text[at:])
					c.head("200")
					head, got, _ := strings.Cut(up.last(), "\r\n\r\n")
					if got != body {
						t.Errorf("the upstream got %d bytes of %d", len(got), n)
					}
					if !strings.HasPrefix(head, "POST / HTTP/1.1\r\nhost: s.test\r\n") || !strings.Contains(head, "\r\n"+pad+"\r\n") {
						t.Errorf("the upstream got the head %q", head)
					}
					c.send("\r\n")
				})
			}
		}
	}
}
