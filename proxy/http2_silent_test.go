package proxy

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHTTP2_SilentHost: requests do not go on over a connection to a host that is gone
// without a word once one of them has been given up, by a time-out or by its client.
func TestHTTP2_SilentHost(t *testing.T) {
	for _, tt := range []struct {
		name, rule string
		patience   time.Duration // of the client
		want       string
	}{
		{"time-out", "timeout: 300ms, ", 20 * time.Second, "504"},
		{"time-out of a try", "retries: {attempts: 1, perTryTimeout: 300ms, retryOn: unavailable}, ", 20 * time.Second, "504"},
		{"client gone", "", 300 * time.Millisecond, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conns := make(chan net.Conn, 10)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			up := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
				ConnContext: func(ctx context.Context, c net.Conn) context.Context { conns <- c; return ctx }}
			up.Protocols.SetUnencryptedHTTP2(true)
			go up.Serve(l) // ends when the server is closed
			t.Cleanup(func() { up.Close() })
			p := serve(t, Options{}, overHTTP2(entry("s.test", l.Addr().String()))+routed(tt.rule+"route: [{destination: {host: s.test}}]"))
			ask := func(patience time.Duration) string {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				r, _ := http.NewRequestWithContext(ctx, "POST", "http://s.test/", nil)
				res, err := h2Client(t, p, "outbound").Do(r)
				if err != nil {
					return ""
				}
				res.Body.Close()
				return res.Status[:3]
			}
			if s := ask(20 * time.Second); s != "200" {
				t.Fatal(s)
			}
			swallow(t, <-conns)
			if s := ask(tt.patience); s != tt.want {
				t.Errorf("over the silent connection: %q, want %q", s, tt.want)
			}
			time.Sleep(1500 * time.Millisecond) // for it to be noticed, at the latest, that a client has gone
			if s := ask(20 * time.Second); s != "200" {
				t.Errorf("after that: %q", s)
			}
		})
	}
}

// swallow has the kernel throw away what comes for a connection, without a word.
func swallow(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	})
	if err != nil {
		t.Fatal(err)
	}
}
