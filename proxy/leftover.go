package proxy

import (
	"math"
	"time"

	"isthmus/http1"
)

// An upstream may answer before it has read the whole request. Its client has
// often sent the rest already, or is about to: a body in chunks ends with a write
// of its own. Who has been told nothing else takes its connection for one that
// stays, and may send its next request at the moment at which we close it. So the
// reply says that the connection ends, if it is known to be early when it leaves
// and more may be left than a little. Else what is left is read and thrown away,
// if that is soon done (as net/http and nginx do).

const (
	// maxLeftover is how much of a body is thrown away: net/http's
	// maxPostHandlerReadBytes.
	maxLeftover = 256 << 10

	// leftoverTimeout is how long that may take, and longer than what was under way
	// when the reply left needs to arrive.
	leftoverTimeout = instant(500 * time.Millisecond)
)

// leftover is how much of the request's body has not been taken from the client
// while it is sent on, as far as the request says.
func (x *exchange) leftover() int64 {
	if x.body.framing != http1.Length {
		return math.MaxInt64
	}
	return x.body.length - int64(len(x.body.data)) - x.tally.pumped.Load()
}

// discardLeftover reads what is left of the body after the reply, over HTTP/1.1,
// and reports whether the connection is where the next request begins.
func (x *exchange) discardLeftover() bool {
	in, left := &x.conn.in, x.leftover()
	counted := x.body.framing == http1.Length
	if counted && left > maxLeftover {
		return false
	}
	x.pumping.begun.Store(true) // nobody keeps what is taken from here on
	limit := now() + leftoverTimeout
	for taken := 0; taken <= maxLeftover; {
		if counted {
			n := min(int64(in.len()), left)
			in.r += int(n)
			if left -= n; left == 0 {
				return true
			}
		} else {
			out, n, done, kind := x.takeBody(x.out[:0], asHTTP2) // as it is, without chunks
			x.out = out[:0]
			if kind != NoError || done {
				return kind == NoError
			}
			taken += n
		}
		if in.len() == 0 {
			in.r, in.w = 0, 0
		}
		x.conn.limit = limit
		if _, err := x.conn.fill(); err != nil && err != errInterrupted {
			return false
		}
	}
	return false
}
