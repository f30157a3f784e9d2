package proxy

import (
	"bytes"
	"errors"
	"time"

	"isthmus/http2"
)

// How many requests a client may have under way over one connection. A client of
// a gateway is anybody, and gets what Envoy's guide for the edge advises; proxies
// that carry those of many clients get more, so that few connections do.
const (
	edgeStreams = 100
	meshStreams = 256
)

// speaksHTTP2 reports whether a connection in plain text begins with the preface
// of HTTP/2 (RFC 9113 3.3, prior knowledge). It waits for as much of it as may be
// one.
func (c *conn) speaksHTTP2() bool {
	c.limit = now() + c.patience.head
	for {
		b := c.in.bytes()
		n := min(len(b), len(http2.Preface))
		if !bytes.Equal(b[:n], []byte(http2.Preface[:n])) {
			return false
		}
		if n == len(http2.Preface) {
			return true
		}
		if _, err := c.fill(); err != nil && !errors.Is(err, errInterrupted) {
			return false // which the reading of the head finds out, too
		}
	}
}

// brokenPreface reports whether what a connection begins with is neither HTTP/1.1
// nor HTTP/2, but looks as if it should have been the latter: three words, of
// which none is a target or a version, and an empty line. An answer in HTTP/1.1
// would be nonsense to whoever sends that (RFC 9113 3.4).
func brokenPreface(b []byte) bool {
	line, rest, _ := bytes.Cut(b, []byte("\r\n"))
	return bytes.HasPrefix(rest, []byte("\r\n")) && bytes.Count(line, []byte(" ")) == 2 && !bytes.ContainsAny(line, "/*:")
}

// serveHTTP2 serves a connection that speaks HTTP/2 until either side ends it. It
// reads, workers serve, and a goroutine of its own, which ends with it, writes.
func (c *conn) serveHTTP2() {
	o := http2.Options{MaxStreams: meshStreams, Budget: c.proxy.overload.bodies}
	if c.kind == gateway {
		o.MaxStreams, o.DropUnderscores = edgeStreams, true
	}
	if c.register() != nil {
		return
	}
	c.keepShort()
	h := http2.NewServer(o)
	made.Add(http2Made)
	c.shared.Store(true)
	c.told() // which its streams ask for
	c.large = true
	for c.in.data != nil && c.in.grow() {
		// What the connection was found out by lies in a buffer that a whole frame may
		// not fit into.
	}
	flushed := make(chan struct{})
	go func() {
		h.Flush(func(p []byte) error { return c.write(p, now()) })
		close(flushed)
		c.interrupt() // who reads has to know
	}()
	err := c.readFrames(h, flushed)
	c.in.release()
	h.Close(err)
	<-flushed
}

// readFrames reads until the connection is over, and returns why. It has workers
// serve what streams are opened.
func (c *conn) readFrames(h *http2.Conn, flushed <-chan struct{}) error {
	opened := now()
	begun := opened // of a frame, or a header block, that is not whole
	leaving, asked := instant(0), false
	leaves := c.leaves() // whoever has had it leave before it was shared has woken nobody
	for {
		if c.in.len() > 0 {
			came := now()
			n, err := h.Receive(c.in.bytes())
			c.in.r += n
			for s := h.Next(); s != nil; s = h.Next() {
				asked = true
				c.proxy.workers.serve(job{c.client, c.stream, s, came})
			}
			if err != nil {
				return err
			}
			if n > 0 {
				begun = came
			}
		}
		// The first request of a new connection may be under way: who hears before it that no
		// more are taken does not send it, and finds the next connection as this one.
		if leaves && leaving == 0 && (asked || now() >= opened+acceptDelay) {
			leaving = now()
			h.Leave()
		}
		idle := h.Idle()
		switch {
		case c.in.len() > 0 || h.Pending():
			c.limit = begun + c.patience.head
		case leaves && leaving == 0:
			c.limit = opened + acceptDelay
		case leaving != 0:
			c.limit = now() + leaveTime
		default:
			c.limit = now() + c.patience.idle
		}
		c.waiting.Store(idle)
		_, err := c.fill()
		c.waiting.Store(false)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, errTimeout) && !errors.Is(err, errInterrupted):
			return err
		}
		select {
		case <-flushed:
			return nil
		default:
		}
		switch {
		case err == errTimeout && (c.in.len() > 0 || h.Pending()):
			return errPartial
		case leaving != 0 && (err == errTimeout || now() > leaving+leaveTime):
			h.LeaveNow() // the client takes its time with the answer to our PING
		case err == errTimeout && leaving == 0 && h.Idle():
			leaves, asked = true, true
		default:
			leaves = leaves || c.leaves()
		}
	}
}

// errPartial is the end of a connection on which a frame does not become whole.
var errPartial = errors.New("a frame has come in part")

// leaveTime is how long requests may be under way that a client has sent before
// it has read that it should send no more.
const leaveTime = instant(time.Second)
