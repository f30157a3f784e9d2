package http2

import (
	"runtime"
	"sync"
	"time"
)

// What is to be sent is gathered in one buffer. Workers append their frames to
// it and go on; the flusher writes what there is, and while it writes, the next
// frames gather in another one. It yields before it writes: workers that are
// about to append do so first, and several replies leave in one write.

const (
	// outSize is how much may be gathered; one large write.
	outSize = 64 << 10

	// bodyRoom and shortRoom are how much may be gathered before those have to wait
	// who send much, and little: a frame fits behind either. What is short is at
	// most a quarter of a frame, which heads and small replies are: they need not
	// wait for their turn behind large ones.
	bodyRoom  = shortRoom - maxFrame - frameHeaderLen
	shortRoom = outSize - maxFrame - frameHeaderLen
	short     = maxFrame / 4

	// slowWrite is how long a write may take before the socket counts as slow. Where
	// it is, what has been gathered is what a small reply waits behind, and saving
	// calls is no use: a frame is gathered at a time. 64 KiB in a millisecond are half
	// a gigabit a second.
	slowWrite = time.Millisecond

	// mostYields is how often it yields while more is appended. Goroutines that yield
	// wait in a queue that the scheduler looks into when there is no other work, and
	// at every 61st turn: then the flusher comes amid the replies that the poller has
	// handed over together, the youngest first, and would leave the oldest behind. By
	// the second time they are through.
	mostYields = 2

	// outLimit bounds what the reader adds by itself, acknowledgements of a peer
	// that sends PING and SETTINGS and does not read (CVE-2019-9512, -9515).
	outLimit = 4 * outSize
)

var outs = sync.Pool{New: func() any { return new([outSize]byte) }}

// borrow returns an empty buffer.
func (c *Conn) borrow() []byte { return outs.Get().(*[outSize]byte)[:0] }

// room returns what is to be sent, to be appended to, and has the flusher see to
// it. The caller holds mu.
func (c *Conn) room() []byte {
	if c.out == nil {
		c.out = c.borrow()
		if !c.writing {
			c.ready.Signal()
		}
	}
	return c.out
}

// most is how much may have been gathered when n bytes more are to be. The caller
// holds mu.
func (c *Conn) most(n int) int {
	switch {
	case n <= short:
		return shortRoom
	case c.slow:
		return maxFrame
	}
	return bodyRoom
}

// giveBack keeps a buffer for others, unless it has had to grow.
func giveBack(b []byte) {
	if cap(b) == outSize {
		outs.Put((*[outSize]byte)(b[:outSize]))
	}
}

// Flush hands what is to be sent to write until the connection is over, or
// write fails, which ends it. write must not keep the bytes. Each call of write
// takes as long as the peer makes it. A client's connection only opens no more streams
// when write has failed: what has come before may say what the server has not looked
// at, and is to be received before Close.
func (c *Conn) Flush(write func(p []byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.writing = false
		for c.out == nil && c.err == nil && !c.left() {
			c.ready.Wait()
		}
		if c.out == nil {
			return c.err
		}
		c.writing = true
		for yields, had := 0, 0; yields < mostYields && had < len(c.out) && len(c.out) < bodyRoom; yields++ {
			had = len(c.out)
			c.mu.Unlock()
			runtime.Gosched()
			c.mu.Lock()
		}
		out := c.out
		c.out = nil
		c.roomMade()
		c.mu.Unlock()
		begun, n := time.Now(), len(out)
		err := write(out)
		took := time.Since(begun)
		giveBack(out)
		c.mu.Lock()
		if took > slowWrite || n >= maxFrame { // few bytes that go at once say nothing
			c.slow = took > slowWrite
		}
		if err != nil {
			if c.refused = true; c.server {
				c.end(err)
			}
			giveBack(c.out)
			c.out = nil
			return err
		}
	}
}

// roomMade wakes those who wait for room in the buffer. The caller holds mu.
func (c *Conn) roomMade() {
	for i, s := range c.waiting {
		s.writable.signal()
		c.waiting[i] = nil
	}
	c.waiting = c.waiting[:0]
}

// flooded reports whether the peer makes us say more than it reads. The caller
// holds mu.
func (c *Conn) flooded() bool { return len(c.out) > outLimit }
