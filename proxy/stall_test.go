package proxy

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStalled: what counts is for how long nothing has been acknowledged that was sent, not
// for how long the request has been on its way: its body comes along all the time.
func TestStalled(t *testing.T) {
	server, client := connected(t)
	s, err := newStream(client)
	if err != nil {
		t.Fatal(err)
	}
	c := &upstreamConn{stream: s, member: &member{}}
	c.member.verifying.Store(true) // nobody need look at it
	sent := now() - instant(time.Minute)
	s.write([]byte("a part"), now())
	await(t, "its acknowledgement", until(func() (ok bool) {
		s.control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			ok = err == nil && info.Unacked == 0
		})
		return ok
	}))
	last := now()
	swallow(t, server)
	s.write([]byte("the next"), now())
	for {
		at := now()
		stalled, next := c.stalled(sent, at, false)
		if !stalled && at-last < instant(5*time.Second) {
			time.Sleep(min(time.Duration(next-at), 10*time.Millisecond))
			continue
		}
		if silent := at - last; !stalled || silent < acknowledgeWithin/2 {
			t.Errorf("%v after the last acknowledgement: %v", time.Duration(silent), stalled)
		}
		return
	}
}
