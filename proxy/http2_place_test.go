package proxy

import (
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	isthmus "isthmus/http2"
)

// TestHTTP2_PlaceOfWhoDoesNotRead: the place that a connection has by maxConnections is free
// when it is over, though its peer has not read what is on its way to it, and does not.
func TestHTTP2_PlaceOfWhoDoesNotRead(t *testing.T) {
	for _, name := range []string{"it has ended its side", "we have ended ours"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ends, over := make(chan struct{}), make(chan struct{})
			defer close(over)
			u := streamsOf(t, "connectionPool: {tcp: {maxConnections: 1}}", byteServer(t, func(c net.Conn) {
				f := http2.NewFramer(c, nil)
				f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
				f.WriteWindowUpdate(0, 1<<30)
				select {
				case <-ends:
					c.(*net.TCPConn).CloseWrite()
				case <-over:
				}
				<-over
			}))
			m := u.members[0]
			c, err := u.leaseStream(m, sinkStream(), now(), now()+instant(10*time.Second), false)
			if err != nil {
				t.Fatal(err)
			}
			head := isthmus.AppendMethod(nil, []byte("POST"))
			head = isthmus.AppendPath(isthmus.AppendScheme(head, schemeHTTP), []byte("/"), nil, false)
			if _, err := c.h2.Start(isthmus.AppendAuthority(head, []byte("s.test")), nil, false); err != nil {
				t.Fatal(err)
			}
			written := make(chan error, 1)
			go func() { written <- c.h2.Write(make([]byte, 64<<20), true, time.Time{}) }() // ends with the stream
			await(t, "what finds no room", until(func() (full bool) {
				c.control(func(fd uintptr) {
					info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
					full = err == nil && info.Notsent_bytes >= unsent
				})
				return full
			}))
			if name == "we have ended ours" {
				c.h2.InterruptWrite()
				m.shared.abandon(c.shared)
			} else {
				close(ends)
			}
			if await(t, "the end of the body", written) == nil {
				t.Error("all of it has found room")
			}
			c.discard()
			await(t, "its place", until(func() bool { return u.live.queue.open.Load() == 0 }))
		})
	}
}
