package proxy

import "sync"

// lease is the connection to an endpoint that an exchange has, to be given back by it on
// every way out.
type lease struct {
	mu sync.Mutex // guards c, against clientGone
	c  *upstreamConn
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
}

// giveUp ends the connection of an exchange that has panicked before it gave it back.
func (x *exchange) giveUp() {
	if c := x.leased.c; c != nil {
		x.leased.set(nil)
		x.stopPump(c)
		c.discard()
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
