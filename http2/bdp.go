package http2

import "time"

// bdpMax is as far as a window grows, as in grpc-go: some systems let TCP have
// that much under way.
const bdpMax = 16 << 20

// bdpEstimator finds out how wide a receive window has to be for a sender to be
// held back by the network alone: bandwidth times delay, with room. It takes
// the time in which half the window comes, after which an update is sent. A
// sender that waits for updates gets one in each round trip at least; so when
// one is due within two round trips of the one before, the window may be too
// narrow, and is doubled. It ends at four to eight times of what a round trip
// carries. Chromium and quic-go do so for QUIC.
//
// How long a round trip takes a PING tells, one with the first half of a window
// and one whenever it has grown. What counts is the shortest, which has not
// waited in queues: a window that fills them makes round trips longer, and so
// would justify itself. (grpc-go compares what comes in one round trip with the
// window, and needs a PING for each; where data come in bursts, what it counts
// depends on where in a burst it begins.)
type bdpEstimator struct {
	window int           // the widest so far
	sample int           // bytes of the half that is coming
	began  time.Time     // when the half before was complete
	rtt    time.Duration // the shortest; 0: not known
	sent   time.Time     // when the PING under way was sent
	pinged bool          // there is one
}

// newBDPEstimator begins with the window that has been announced.
func newBDPEstimator(window uint32) bdpEstimator { return bdpEstimator{window: int(window)} }

// receive takes down n bytes of data, of any stream. It returns the window that
// each stream and the connection should have, 0 if it is what it was, and
// whether a PING is to be sent now, whose answer is for acknowledge.
func (b *bdpEstimator) receive(n int, now time.Time) (window uint32, ping bool) {
	b.sample += n
	if b.sample < b.window/2 || b.window >= bdpMax {
		return 0, false
	}
	took := now.Sub(b.began)
	b.sample, b.began = 0, now
	if b.rtt > 0 {
		if took >= 2*b.rtt {
			return 0, false
		}
		b.window = min(2*b.window, bdpMax)
		window = uint32(b.window)
	}
	ping = !b.pinged
	if ping {
		b.pinged, b.sent = true, now
	}
	return window, ping
}

// acknowledge takes down that the PING has been answered.
func (b *bdpEstimator) acknowledge(now time.Time) {
	if !b.pinged {
		return // nobody has asked
	}
	b.pinged = false
	// Where clocks are too coarse to tell, the way is short.
	if rtt := max(now.Sub(b.sent), time.Microsecond); b.rtt == 0 || rtt < b.rtt {
		b.rtt = rtt
	}
}
