package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

// A link that swallows packets tells nobody. A reply that is late may be late
// for good reasons, but the host's kernel acknowledges a request within a round
// trip: if that is missing, the host is out of reach, and a request that may be
// sent twice goes elsewhere before any time-out.

const (
	// stallCheck is when a request to another cluster is first looked after.
	stallCheck = instant(100 * time.Millisecond)

	// acknowledgeWithin is how long, beside round trips, the acknowledgement of a
	// request may take: Linux delays it by 40 ms at most.
	acknowledgeWithin = instant(60 * time.Millisecond)

	// verifyWithin is how long, beside two round trips, the dial may take that
	// shows whether the host is there. A SYN is answered by the kernel at once, and
	// one that is lost is not sent again within a second.
	verifyWithin = instant(50 * time.Millisecond)

	// unacknowledged bounds how long the kernel itself goes on with a connection
	// to another cluster whose peer acknowledges nothing; without it, that is a
	// quarter of an hour.
	unacknowledged = 10 * time.Second
)

// limitUnacknowledged sets the bound.
func (s *stream) limitUnacknowledged() {
	s.control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	})
}

// stalled reports whether the host has not acknowledged a request that was
// sent at the given time; if so, whether the host is there is found out. If it
// is too early to say, next is when to ask again. last says that there will be
// no other time, so that one round trip has to be enough.
func (c *upstreamConn) stalled(sent, t instant, last bool) (stalled bool, next instant) {
	var info *unix.TCPInfo
	c.control(func(fd uintptr) {
		info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if info == nil || info.Unacked == 0 {
		return false, t + clientCheck
	}
	if silent := instant(info.Last_ack_recv) * instant(time.Millisecond); t-silent > sent {
		sent = t - silent // what is not acknowledged may be others' requests, or the body, which comes along
	}
	roundTrip := instant(info.Rtt) * instant(time.Microsecond)
	due := sent + roundTrip + acknowledgeWithin
	if !last {
		due += roundTrip
	}
	if t < due {
		return false, due
	}
	c.member.verify(verifyWithin + 2*roundTrip)
	return true, 0
}
