package proxy

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"isthmus/auth"
	"isthmus/handover"
)

// TestListen_HandedOver: a socket that was an admin page's before sends to clients as one of
// the proxy's own does, without delay.
func TestListen_HandedOver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	socket, err := handover.Duplicate("admin", address, l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	records, err := unix.MemfdCreate("records", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	estate, _ := json.Marshal(map[string]any{"conn": pair[0], "records": records, "sockets": []handover.Socket{socket}})
	t.Setenv("_ISTHMUS_HANDOVER", string(estate))
	before, err := handover.Inherit()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Ready()
	p := &Proxy{options: Options{Predecessor: before}}
	own, err := p.socket("outbound", address)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	raw, err := own.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if on, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || on == 0 {
			t.Errorf("TCP_NODELAY is %d, %v", on, err)
		}
		if s, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); err != nil || s == 0 {
			t.Errorf("TCP_DEFER_ACCEPT is %d, %v", s, err)
		}
	})
}

// TestHandOver_Wakes: connections that are idle are told at once, and when their time is over,
// and not all the time in between, of which a hand-over has half a minute.
func TestHandOver_Wakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := auth.NewKeys(auth.KeysOptions{})
		keys.Close()
		p := newProxy(Options{Node: testNode(), Keys: keys})
		l := &listener{proxy: p, kind: gateway, conns: map[*conn]struct{}{}}
		c := &conn{stream: &stream{fd: -1}, client: &client{proxy: p, listener: l}}
		c.waiting.Store(true)
		l.conns[c], p.listeners["gateway:80"] = struct{}{}, l
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- p.HandOver(ctx) }()
		woken := func(within time.Duration) (n int) {
			for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if c.interrupted.Swap(false) {
					n++
				}
			}
			return n
		}
		if woken(50*time.Millisecond) == 0 {
			t.Error("it is not told")
		}
		if n := woken(20 * time.Second); n > 50 {
			t.Errorf("it is woken %d times in 20 s", n)
		}
		for !p.shut.Load() {
			woken(10 * time.Millisecond)
		}
		if woken(50*time.Millisecond) == 0 {
			t.Error("its time is over, and it is not told")
		}
		if err := <-drained; err == nil {
			t.Error("it is still there")
		}
	})
}

// TestDrain_WakesWithin: nor are those of the application woken all the time, which may have other
// requests for as long as it has one to answer.
func TestDrain_WakesWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := auth.NewKeys(auth.KeysOptions{})
		keys.Close()
		p := newProxy(Options{Node: testNode(), Keys: keys})
		add := func(name string, kind listenerKind) (*listener, *conn) {
			l := &listener{proxy: p, kind: kind, conns: map[*conn]struct{}{}}
			c := &conn{stream: &stream{fd: -1}, client: &client{proxy: p, listener: l}}
			l.conns[c], p.listeners[name] = struct{}{}, l
			return l, c
		}
		asked, asks := add("inbound", inbound)
		_, c := add("outbound", outbound)
		c.waiting.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- p.Drain(ctx) }()
		woken := func(within time.Duration) (n int) {
			for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if c.interrupted.Swap(false) {
					n++
				}
			}
			return n
		}
		for !p.shut.Load() {
			woken(10 * time.Millisecond)
		}
		if n := woken(20 * time.Second); n == 0 || n > 50 {
			t.Errorf("it is woken %d times in 20 s", n)
		}
		asked.forget(asks)
		if woken(50*time.Millisecond) == 0 {
			t.Error("its time is over, and it is not told")
		}
		if err := <-drained; err == nil {
			t.Error("it is still there")
		}
	})
}
