package proxy

import "sync"

// lease is the connection to an endpoint that an exchange has, to be given back by it on
// every way out.
type lease struct {
	mu sync.Mutex // guards c, against clientGone
	c  *upstreamConn

	// The exchange's alone.
	queue  *connQueue // of the upstream, where it bounds how many requests wait; nil: it does not
	ending bool       // the queue knows that the connection is about to be given back
}

// begin notes the connection.
func (l *lease) begin(c *upstreamConn, u *upstream) {
	l.set(c)
	if u.limits.pending != 0 {
		l.queue = &u.live.queue
	}
}

// end says that the last of the reply is about to be written: whoever has that and sends
// the next request may wait for what this one still has.
func (l *lease) end() {
	if l.queue != nil && !l.ending {
		l.ending = true
		l.queue.ending.Add(1)
	}
}

// over says that the connection has been given back.
func (l *lease) over() {
	if l.queue == nil {
		return
	}
	if l.ending {
		l.queue.ending.Add(-1)
	}
	l.queue, l.ending = nil, false
}

// set notes the connection; nil: it is given back from here on.
func (l *lease) set(c *upstreamConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.c = c
}

// giveBack gives a connection back; reusable says whether another exchange may have it.
func (x *exchange) giveBack(c *upstreamConn, u *upstream, reusable bool) {
	x.leased.set(nil)
	if reusable {
		c.forgetInterrupt() // it was meant for this exchange
		u.release(c, x.clock)
	} else {
		c.discard()
	}
	x.leased.over()
}

// giveUp ends the connection of an exchange that has panicked before it gave it back.
func (x *exchange) giveUp() {
	if c := x.leased.c; c != nil {
		x.leased.set(nil)
		x.stopPump(c)
		c.discard()
		x.leased.over()
	}
}

// clientGone has whoever waits for the reply look at the client, whose stream has ended.
// Any goroutine may call it.
func (x *exchange) clientGone() {
	x.leased.mu.Lock()
	defer x.leased.mu.Unlock()
	if c := x.leased.c; c != nil {
		c.interrupt()
	}
}
