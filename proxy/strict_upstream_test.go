package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// arrived waits until the other side's kernel has got everything that was
// written to c, the end of the stream included, or has ended the connection.
func arrived(t testing.TB, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	for left := 1; left > 0; time.Sleep(100 * time.Microsecond) {
		var failed error
		err := raw.Control(func(fd uintptr) {
			if left, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); failed != nil {
				return
			}
			var info *unix.TCPInfo
			if info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); failed == nil && info.State == tcpClosed {
				left = 0
			}
		})
		if err != nil || failed != nil {
			t.Error(err, failed)
			return
		}
	}
}

const tcpClosed = 7 // TCP_CLOSE of linux/tcp_states.h

// asked is one request that has reached a hand, and the connection to answer
// on.
type asked struct {
	head string
	r    *bufio.Reader
	c    net.Conn
	conn int // 1 for the first connection, 2 for the second
}

// hand is an upstream that a test answers for by hand. When answer returns
// false the connection is closed.
func hand(t *testing.T, answer func(a asked) bool) *upstreamScript {
	conns := make(chan map[net.Conn]int, 1)
	conns <- map[net.Conn]int{}
	return upstreamServer(t, func(head string, r *bufio.Reader, c net.Conn) bool {
		all := <-conns
		if all[c] == 0 {
			all[c] = len(all) + 1
		}
		n := all[c]
		conns <- all
		return answer(asked{head, r, c, n})
	})
}

// path is the path of a request.
func (a asked) path() string { return strings.Fields(a.head)[1] }

// echo reads the body and answers with the request's path.
func (a asked) echo() {
	skipBody(a.head, a.r)
	if strings.HasPrefix(a.head, "HEAD ") {
		fmt.Fprintf(a.c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(a.path()))
		return
	}
	fmt.Fprintf(a.c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(a.path()), a.path())
}

// reset ends a connection with a reset.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// cutShort reports whether a client that got this can tell that it is not the
// whole of a good reply.
func cutShort(got string, clean bool) bool {
	head, body, ok := strings.Cut(got, "\r\n\r\n")
	switch lower := strings.ToLower(head); {
	case !ok, strings.HasPrefix(status(got), "5"):
		return true
	case strings.Contains(lower, "\r\ntransfer-encoding: chunked"):
		_, _, _, whole := unchunk(body)
		return !whole
	case strings.Contains(lower, "\r\ncontent-length: "):
		_, v, _ := strings.Cut(lower, "\r\ncontent-length: ")
		v, _, _ = strings.Cut(v, "\r\n")
		n, err := strconv.Atoi(v)
		return err != nil || len(body) < n
	}
	return !clean
}

// TestStrict_RepliesTruncated, row 41: what breaks off does not look whole, for
// clients of either version, whether the upstream ends or resets the
// connection, or goes on talking nonsense.
func TestStrict_RepliesTruncated(t *testing.T) {
	chunks := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	large := strings.Repeat("x", 1<<20)
	for _, tt := range []struct{ name, reply string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"},
		{"length, no body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"},
		{"length, one byte short", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf"},
		{"length, large", "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n" + large},
		{"length, closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhalf"},
		{"length, HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nhalf"},
		{"chunk", chunks + "a\r\nhalf"},
		{"chunk, large", chunks + "100001\r\n" + large},
		{"no chunk", chunks},
		{"chunk size", chunks + "4"},
		{"chunk size and CR", chunks + "4\r"},
		{"end of chunk", chunks + "4\r\nhalf"},
		{"CR of the end of a chunk", chunks + "4\r\nhalf\r"},
		{"last chunk", chunks + "4\r\nhalf\r\n"},
		{"size of the last chunk", chunks + "4\r\nhalf\r\n0"},
		{"end of the last chunk", chunks + "4\r\nhalf\r\n0\r\n"},
		{"CR of the end of the last chunk", chunks + "4\r\nhalf\r\n0\r\n\r"},
		{"trailers", chunks + "4\r\nhalf\r\n0\r\nA: b\r\n"},
		{"bad: chunk size", chunks + "4\r\nhalf\r\nzz\r\n\r\n"},
		{"bad: chunk size 0x0", chunks + "4\r\nhalf\r\n0x0\r\n\r\n"},
		{"bad: chunk size -0", chunks + "4\r\nhalf\r\n-0\r\n\r\n"},
		{"bad: chunk size 2^64", chunks + "4\r\nhalf\r\n10000000000000000\r\n\r\n"},
		{"bad: end of chunk", chunks + "4\r\nhalfXX" + end},
		{"bad: LF behind chunk size", chunks + "4\nhalf\r\n" + end},
		{"bad: LF behind chunk", chunks + "4\r\nhalf\n" + end},
		{"bad: LF behind the last chunk", chunks + "4\r\nhalf\r\n0\n\n"},
		{"bad: extensions", chunks + strings.Repeat("1;"+strings.Repeat("a", 240)+"\r\na\r\n", 100) + end},
		{"bad: trailer", chunks + "4\r\nhalf\r\n0\r\nA b\r\n\r\n"},
		{"bad: trailers for ever", chunks + "4\r\nhalf\r\n0\r\n" + strings.Repeat("A: b\r\n", 10000)},
		{"bad: a reply for a chunk", chunks + "4\r\nhalf\r\n" + okReply},
		{"bad: head", "HTTP/1.1 200 OK\r\nContent-Le"},
		{"bad: status line", "HTTP/1.1 20"},
		{"bad: half a head", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n"},
	} {
		for _, ending := range []string{"end", "reset", "silence"} {
			nonsense := strings.HasPrefix(tt.name, "bad: ")
			if ending == "silence" && (!nonsense || !strings.Contains(tt.reply, "\r\n\r\n")) {
				continue // the rest might still come
			}
			for _, version := range []string{"1.0", "1.1"} {
				t.Run("row 41: "+tt.name+", "+ending+", HTTP/"+version, func(t *testing.T) {
					up := upstreamServer(t, func(_ string, r *bufio.Reader, c net.Conn) bool {
						if _, err := io.WriteString(c, tt.reply); err != nil {
							return false
						}
						switch ending {
						case "reset":
							reset(c)
						case "silence":
							io.Copy(io.Discard, r) // until the proxy has had enough
						}
						return false
					})
					p := strictProxy(t, up.address)
					got, clean := talk(t, p.address("outbound"), "POST / HTTP/"+version+"\r\nHost: s.test\r\nConnection: close\r\n\r\n")
					if !cutShort(got, clean) {
						t.Errorf("%.500q looks whole", got)
					}
					if n := len(up.seen()); n != 1 {
						t.Errorf("the POST was sent %d times", n)
					}
				})
			}
		}
	}
}

// TestStrict_RepliesTruncatedLate, row 41: a reply without a length is whole
// when its connection ends, and is not when it is reset.
func TestStrict_RepliesTruncatedLate(t *testing.T) {
	for _, version := range []string{"1.0", "1.1"} {
		for _, ending := range []string{"end", "reset"} {
			t.Run("row 41: "+ending+", HTTP/"+version, func(t *testing.T) {
				began := make(chan struct{})
				up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
					io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf")
					<-began
					if ending == "reset" {
						reset(c)
					}
					return false
				})
				p := strictProxy(t, up.address)
				c, err := net.Dial("tcp", p.address("outbound"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprintf(c, "GET / HTTP/%s\r\nHost: s.test\r\nConnection: close\r\n\r\n", version)
				r := bufio.NewReader(c)
				var got strings.Builder
				for !strings.Contains(got.String(), "half") {
					b, err := r.ReadByte()
					if err != nil {
						t.Fatalf("got %q, %v", got.String(), err)
					}
					got.WriteByte(b)
				}
				close(began)
				rest, clean := readAll(t, r)
				if cut := cutShort(got.String()+rest, clean); cut != (ending == "reset") {
					t.Errorf("%q, cleanly ended: %v, is cut short: %v", got.String()+rest, clean, cut)
				}
			})
		}
	}
}

// TestStrict_Refused, row 40: an endpoint that cannot be connected to is passed
// over, for every method, and the request reaches another one once.
func TestStrict_Refused(t *testing.T) {
	for _, request := range []string{asGet(), asPost("abc", "Content-Length: 3"), asChunks("3\r\nabc\r\n" + end)} {
		t.Run(fmt.Sprintf("row 40: %.40q", request), func(t *testing.T) {
			up := newTape(t, okReply)
			p := serve(t, Options{}, entry("s.test", deadAddress(t), deadAddress(t), up.address)+entry("dead.test", deadAddress(t)))
			for range 6 { // the dead ones are drawn first now and then
				if got := exchangeRaw(t, p.address("outbound"), request, whole(1)); status(got) != "200" {
					t.Errorf("answered %q, want 200", got)
				}
			}
			dead := strings.Replace(request, "s.test", "dead.test", 1)
			if got := exchangeRaw(t, p.address("outbound"), dead, whole(1)); status(got) != "503" || !strings.HasSuffix(got, "reset reason: connection failure") {
				t.Errorf("answered %q, want 503", got)
			}
			n := 0
			for _, stream := range up.all(t, p) {
				n += len(messages(stream))
			}
			if n != 6 {
				t.Errorf("the upstream saw %d requests, want 6", n)
			}
		})
	}
}
