package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"isthmus/config"
	"isthmus/proxy"
)

// TestAccessLog_OfTheMesh: lines go where the mesh configuration says, unless the
// bootstrap file says something else.
func TestAccessLog_OfTheMesh(t *testing.T) {
	for _, own := range []bool{false, true} {
		dir := t.TempDir()
		said, other := filepath.Join(dir, "mesh.log"), filepath.Join(dir, "own.log")
		mesh := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: " + said + "\n    accessLogEncoding: JSON\n"
		if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config", "mesh.yaml"), []byte(mesh), 0o644); err != nil {
			t.Fatal(err)
		}
		env := []string{"ISTHMUS_LISTENERS_OUTBOUND=127.0.0.1:0", "ISTHMUS_LISTENERS_INBOUND=", "ISTHMUS_LISTENERS_ADMIN=", "ISTHMUS_LISTENERS_METRICS=", "ISTHMUS_GOSSIP_BIND="}
		if own {
			env = append(env, "ISTHMUS_ACCESS_LOG_PATH="+other, "ISTHMUS_ACCESS_LOG_FORMAT=%RESPONSE_FLAGS%")
		}
		b, _, err := config.LoadBootstrap("", env)
		if err != nil {
			t.Fatal(err)
		}
		s, err := start(b, proxy.Overload{}, []string{filepath.Join(dir, "config")}, slog.New(slog.NewTextHandler(io.Discard, nil)), new(slog.LevelVar), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.Get("http://" + s.proxy.Addresses()["outbound"] + "/x")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		// The reply may be here before the exchange is over, which has its line then.
		eventually(t, "a line is written", func() bool { written, _ := s.accessLog.Lines(); return written == 1 })
		s.close()
		inMesh, _ := os.ReadFile(said)
		inOwn, _ := os.ReadFile(other)
		if !own && !strings.Contains(string(inMesh), `"response_flags":"NR"`) || own && (len(inMesh) > 0 || string(inOwn) != "NR\n") {
			t.Errorf("bootstrap file says so %v: %q and %q", own, inMesh, inOwn)
		}
	}
}

// TestServe_Idle: a connection that asks nothing is not kept for ever, with the file
// that the proxy may have open for it.
func TestServe_Idle(t *testing.T) {
	s := &server{log: slog.New(slog.DiscardHandler), listening: map[string]string{}, bootstrap: &config.Bootstrap{}}
	s.bootstrap.Listeners.Metrics = "127.0.0.1:0"
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	s.serve("metrics", http.NotFoundHandler(), longestPage)
	defer s.close()
	if d := s.admin[0].IdleTimeout; d <= time.Minute || d > 5*time.Minute {
		t.Errorf("kept for %v", d)
	}
	if d := s.admin[0].WriteTimeout; d != longestPage {
		t.Errorf("who does not read is kept for %v", d)
	}
}

// TestServe_WithoutBody: a body that is announced and does not come keeps no connection.
func TestServe_WithoutBody(t *testing.T) {
	for _, tt := range []struct {
		name, fields string
		bounded      bool
	}{
		{"none", "", false},
		{"of no bytes", "Content-Length: 0\r\n", false},
		{"of a length", "Content-Length: 9\r\n", true},
		{"in chunks", "Transfer-Encoding: chunked\r\n", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			client, conn := net.Pipe()
			served := http.Server{Handler: withoutBody(http.NotFoundHandler())}
			go served.Serve(&oneConn{conn: conn, closed: make(chan struct{})})
			began := time.Now()
			go io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\n"+tt.fields+"\r\n")
			client.SetReadDeadline(began.Add(time.Hour))
			_, err := io.ReadAll(client)
			if took := time.Since(began); (took <= headAdmin) != tt.bounded {
				t.Errorf("%s: the connection ended after %v: %v", tt.name, took, err)
			}
			served.Close()
			client.Close()
		})
	}
}

// TestServe_Many: one connection too many takes the place of one that says nothing.
func TestServe_Many(t *testing.T) {
	s := &server{log: slog.New(slog.DiscardHandler), listening: map[string]string{}, bootstrap: &config.Bootstrap{}}
	s.bootstrap.Listeners.Metrics = "127.0.0.1:0"
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	s.serve("metrics", http.NotFoundHandler(), longestPage)
	defer s.close()
	connect := func() net.Conn {
		c, err := net.Dial("tcp", s.listening["metrics"])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	answered := func(c net.Conn) bool {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		n, _ := c.Read(make([]byte, 4<<10))
		return n > 0
	}
	kept := connect()
	if !answered(kept) {
		t.Fatal("no answer")
	}
	silent := []net.Conn{}
	for range visitorsFor(raiseFileLimit(s.log)) - 2 {
		silent = append(silent, connect())
	}
	if !answered(connect()) { // after all of them have been accepted
		t.Fatal("no answer")
	}
	for i := range 3 {
		if !answered(kept) { // lately
			t.Fatal("whoever asks has to go")
		}
		if !answered(connect()) {
			t.Error("no answer where there are many who say nothing")
		}
		if _, err := silent[i].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("who has been silent for the longest is still there: %v", err)
		}
	}
}

// TestCrowd: who asks nothing goes before whoever is being answered, and of those
// the first.
func TestCrowd(t *testing.T) {
	c := newCrowd(3)
	var all []net.Conn
	enter := func() net.Conn {
		conn, _ := net.Pipe()
		c.changed(conn, http.StateNew)
		all = append(all, conn)
		return conn
	}
	here := func() (out []int) {
		for i, conn := range all {
			if _, ok := c.all[conn]; ok {
				out = append(out, i)
			}
		}
		return out
	}
	first, second, third := enter(), enter(), enter()
	c.changed(first, http.StateActive)
	c.changed(third, http.StateActive)
	enter()
	if got := here(); !slices.Equal(got, []int{0, 2, 3}) {
		t.Errorf("there are %v, want the silent one to be gone", got)
	}
	c.changed(second, http.StateActive) // what it has sent before
	c.changed(all[3], http.StateActive)
	enter()
	if got := here(); !slices.Equal(got, []int{2, 3, 4}) {
		t.Errorf("there are %v, want the first that is answered to be gone", got)
	}
	c.changed(third, http.StateClosed)
	enter()
	if got := here(); !slices.Equal(got, []int{3, 4, 5}) {
		t.Errorf("there are %v, want nobody to have gone for the last", got)
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
