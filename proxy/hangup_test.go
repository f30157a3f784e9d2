package proxy

import (
	"bufio"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHangUp: what the kernel tells of a client, with bytes unread before it.
func TestHangUp(t *testing.T) {
	for _, tt := range []struct {
		name        string
		do          func(c *net.TCPConn)
		half, whole bool
	}{
		{"open", func(*net.TCPConn) {}, false, false},
		{"ended", func(c *net.TCPConn) { c.CloseWrite() }, true, false},
		{"reset", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, true, true},
		{"ended, then reset", func(c *net.TCPConn) { c.CloseWrite(); c.SetLinger(0); c.Close() }, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server := connected(t)
			client.Write([]byte("unread"))
			tt.do(client)
			s, err := newStream(server)
			if err != nil {
				t.Fatal(err)
			}
			var half, whole bool
			for range 1000 { // until it has arrived
				s.control(func(fd uintptr) { half, whole = rawHangUp(fd) })
				if half == tt.half && whole == tt.whole {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if half != tt.half || whole != tt.whole {
				t.Errorf("half %v, whole %v, want %v, %v", half, whole, tt.half, tt.whole)
			}
			if s.gone() != tt.whole {
				t.Errorf("gone: %v", !tt.whole)
			}
			var probes int
			s.control(func(fd uintptr) { probes, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE) })
			if want := tt.half && !tt.whole; s.doubted != want || probes == 1 != want {
				t.Errorf("doubted %v, probes %d, want %v", s.doubted, probes, want)
			}
		})
	}
}

// connected returns both ends of a connection; the server's sends no probes of
// its own accord.
func connected(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// TestHangUp_Full: whoever looks at a client that takes nothing does not wait for it.
func TestHangUp_Full(t *testing.T) {
	client, server := connected(t)
	s, err := newStream(server)
	if err != nil {
		t.Fatal(err)
	}
	unread := 0
	for full := 0; full < 5; time.Sleep(10 * time.Millisecond) { // until the other side's kernel has no room either
		s.control(func(fd uintptr) {
			n, errno := rawSend(fd, make([]byte, 64<<10))
			unread += n
			full++
			if errno == 0 {
				full = 0
			}
		})
	}
	client.CloseWrite()
	s.prods = true
	lost := make(chan bool)
	look := func() bool {
		go func() { lost <- s.lost() }() // ends with the look
		return await(t, "the look", lost)
	}
	for !s.doubted {
		if look() {
			t.Fatal("it is taken for one that has gone")
		}
	}
	if _, err := io.CopyN(io.Discard, client, int64(unread)); err != nil {
		t.Fatal(err)
	}
	await(t, "room for a word", until(s.takesMore))
	if look() || s.prods {
		t.Errorf("once it reads, it is not prodded")
	}
	got := make([]byte, len(unasked100))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != string(unasked100) {
		t.Errorf("it got %q, %v", got, err)
	}
}

// TestQueue_ClientGone: who has gone does not stand in line, and nothing of his
// is sent.
func TestQueue_ClientGone(t *testing.T) {
	for name, leave := range map[string]func(c *net.TCPConn){
		"reset":  func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"closed": func(c *net.TCPConn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) { queueClientGone(t, leave) })
	}
}

func queueClientGone(t *testing.T, leave func(c *net.TCPConn)) {
	t.Parallel()
	release := make(chan struct{})
	var requests atomic.Int32
	up := upstreamServer(t, func(_ string, _ *bufio.Reader, c net.Conn) bool {
		requests.Add(1)
		<-release
		_, err := c.Write([]byte(okReply))
		return err == nil
	})
	p := serve(t, Options{}, entry("s.test", up.address)+`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: one}
spec:
  host: s.test
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}
`)
	first := dial(t, p.address("outbound"))
	first.send(get("s.test"))
	await(t, "the first request", until(func() bool { return requests.Load() == 1 }))
	second := dial(t, p.address("outbound"))
	second.send(get("s.test"))
	queue := func() int32 {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, u := range p.upstreams {
			return u.live.queue.waiting.Load()
		}
		return 0
	}
	await(t, "the second in line", until(func() bool { return queue() == 1 }))
	leave(second.Conn.(*net.TCPConn))
	await(t, "an empty line", until(func() bool { return queue() == 0 }))
	close(release)
	first.head("200")
	awaitCounted(t, p, "0 DC 1", "200 - 1")
	if n := requests.Load(); n != 1 {
		t.Errorf("the upstream got %d requests, want 1", n)
	}
}

// until closes its channel when a condition holds.
func until(ok func() bool) <-chan struct{} {
	c := make(chan struct{})
	go func() { // ends when the condition holds, or with the test's process
		for !ok() {
			time.Sleep(time.Millisecond)
		}
		close(c)
	}()
	return c
}
