package proxy

import (
	"bufio"
	stdtls "crypto/tls"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// narrow makes a listener whose connections take a few kilobytes that nobody reads.
func narrow(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
	}}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// narrowKept has idle connections to upstreams take a few kilobytes, and returns how
// many these are.
func narrowKept(p *Proxy) (n int) {
	for _, target := range p.table.Load().targets {
		u := target.upstream.Load()
		if u == nil {
			continue
		}
		for _, m := range u.members {
			m.pool.mu.Lock()
			for _, c := range m.pool.idle {
				c.control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10) })
				n++
			}
			m.pool.mu.Unlock()
		}
	}
	return n
}

// TestWrite_Deadline: a request that its upstream does not take ends with its time, not
// only when the write has stood for long.
func TestWrite_Deadline(t *testing.T) {
	i := issuer{t, t.TempDir()}
	i.credential("up", "up.test")
	ca := "caCertificates: " + filepath.Join(i.dir, "up", "ca.crt")
	for _, tt := range []struct {
		name, rule, policy string
		secure             bool
	}{
		{"timeout", "timeout: 300ms", "", false},
		{"perTryTimeout", "retries: {attempts: 1, perTryTimeout: 300ms}", "", false},
		{"over TLS", "timeout: 300ms", overTLSRule("mode: SIMPLE, sni: up.test, " + ca), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, over := narrow(t), make(chan struct{})
			t.Cleanup(func() { close(over) })
			handEach(t, l, func(c net.Conn) {
				if tt.secure {
					c = stdtls.Server(c, &stdtls.Config{Certificates: []stdtls.Certificate{i.pair("up")}})
				}
				if _, err := readHead(bufio.NewReader(c)); err != nil {
					return
				}
				io.WriteString(c, okReply)
				<-over // reads no more
			})
			p := serve(t, Options{}, entry("up.test", l.Addr().String())+tt.policy+virtualService("up.test", "{"+tt.rule+", route: [{destination: {host: up.test}}]}"))
			if got := exchangeRaw(t, p.address("outbound"), get("up.test"), whole(1)); status(got) != "200" {
				t.Fatalf("got %q", got)
			}
			await(t, "the connection", until(func() bool { return narrowKept(p) == 1 }))
			start := time.Now()
			got := exchangeRaw(t, p.address("outbound"), "POST / HTTP/1.1\r\nHost: up.test\r\nContent-Length: 65000\r\nx-much: "+strings.Repeat("x", 40<<10)+"\r\n\r\n"+strings.Repeat("x", 65000), whole(1))
			if took := time.Since(start); status(got) != "504" || took > 3*time.Second {
				t.Errorf("got %.200q after %v, want 504 after 300ms", got, took)
			}
		})
	}
}

// TestWrite_Cut: a connection whose peer has answered before it has taken the whole
// request is not for another one.
func TestWrite_Cut(t *testing.T) {
	l := narrow(t)
	defer l.Close()
	client := dialTCP(t, l.Addr().String())
	client.SetWriteBuffer(4 << 10)
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	s, err := newStream(client)
	if err != nil {
		t.Fatal(err)
	}
	s.stall, s.limit = instant(50*time.Millisecond), now()+instant(5*time.Second)
	s.in.borrow(false)
	s.ask(make([]byte, 1<<20))
	time.AfterFunc(10*time.Millisecond, func() { io.WriteString(peer, "early") })
	if n, err := s.fill(); n != len("early") || err != nil || !s.cut {
		t.Errorf("%d bytes, %v, cut %v, want the early reply and that the request is not whole", n, err, s.cut)
	}
}
