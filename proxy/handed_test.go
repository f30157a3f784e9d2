package proxy

import (
	"encoding/json"
	"net"
	"testing"

	"golang.org/x/sys/unix"

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
