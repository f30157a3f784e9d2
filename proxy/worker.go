package proxy

import (
	"slices"
	"sync"
	"sync/atomic"

	"isthmus/http1"
	"isthmus/http2"
)

// A request over HTTP/2 is carried by a worker: a goroutine that waits for the
// next one when it is done, so that a stream costs no new goroutine, nor its
// stack to be grown anew.

// workers are those that wait. The youngest is at the end, so that what is not
// needed any more grows old at the front.
type workers struct {
	mu     sync.Mutex // guards what is below
	idle   []*worker
	busy   int          // how many do not
	count  atomic.Int64 // of all
	ending atomic.Int64 // those whose reply is over for the client, or about to be, and that do not wait yet
	least  int          // how few have waited since the last trim
	closed bool
}

// worker is one of them. It has all that an exchange over HTTP/2 needs instead
// of a connection, and the exchange.
type worker struct {
	of       *workers
	job      job           // the next one, which is there when next says so
	next     chan struct{} // of capacity 1; closed: there are no more
	conn     conn
	exchange exchange
	gone     func() // exchange.clientGone
}

// mostEnding bounds for how many of those that are about to wait others are made: clients
// that do not read what is left can hold them up.
const mostEnding = meshStreams

// ends says, where there may be few more, that one is about to wait, before its client can
// send the next request.
func (p *workers) ends(x *exchange) {
	if !x.ending && p.count.Load() > x.conn.proxy.overload.workers-mostEnding {
		x.ending = true
		p.ending.Add(1)
	}
}

// job is a stream to be served.
type job struct {
	client *client
	under  *stream
	h2     *http2.Stream
	came   instant
}

// serve has a worker serve a stream, unless there is none and no memory for one more.
// It does not wait.
func (p *workers) serve(j job) {
	proxy := j.client.proxy
	p.mu.Lock()
	var w *worker
	if n := len(p.idle); n > 0 {
		w = p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.least = min(p.least, n-1)
	} else if p.count.Load()-min(p.ending.Load(), mostEnding) < proxy.overload.workers && proxy.refusing() == refuseNothing {
		made.Add(workerMemory)
		p.count.Add(1)
		w = &worker{of: p, next: make(chan struct{}, 1)}
		w.conn.stream = &stream{}
		go w.run()
	} else {
		p.mu.Unlock()
		proxy.refuseStream(j.h2, j.client.kind)
		return
	}
	p.busy++
	p.mu.Unlock()
	w.job = j
	w.next <- struct{}{}
}

// run serves streams until nobody has needed the worker for a while, or one has
// panicked: the goroutine that sends its body may still use what is the worker's.
func (w *worker) run() {
	w.gone = w.exchange.clientGone
	for range w.next {
		broken := w.serve()
		w.of.mu.Lock()
		w.of.busy--
		if w.exchange.ending {
			w.exchange.ending = false
			w.of.ending.Add(-1)
		}
		last := w.of.closed || broken
		if last {
			w.of.count.Add(-1)
		} else {
			w.of.idle = append(w.of.idle, w)
		}
		w.of.mu.Unlock()
		if last {
			return
		}
	}
}

// underWay returns how many streams are being served, those of connections that
// have ended included.
func (p *workers) underWay() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy
}

// trim ends workers that nobody has needed since the last call.
func (p *workers) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(p.least, len(p.idle))
	for _, w := range p.idle[:n] {
		close(w.next)
	}
	p.count.Add(-int64(n))
	p.idle = slices.Delete(p.idle, 0, n) // which lets go of them
	p.least = len(p.idle)
}

// close ends all that wait, and the others when they are done.
func (p *workers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.idle {
		close(w.next)
	}
	p.idle = nil
}

// serve carries one exchange over a stream. It reports whether that has panicked.
func (w *worker) serve() (broken bool) {
	c, x, j := &w.conn, &w.exchange, w.job
	w.job = job{}
	c.client, c.last, c.aborted = j.client, 0, false
	c.stream.lend(j.h2, j.under, j.client.patience.write)
	j.h2.Notify(&w.gone)
	defer c.close()
	defer func() { broken = c.recoverStream(recover()) }()
	x.conn = c
	if kind, status := c.readStream(x); kind != NoError {
		if kind != ClientGone {
			x.refuseHead(kind, status)
		}
	} else if c.kind == inbound && x.isProbe() {
		x.serveProbe()
	} else {
		x.serve(j.came)
	}
	x.reset()
	if c.aborted {
		j.h2.Reset(http2.CodeInternal)
	}
	return false
}

// readStream reads a request's head; see readHead.
func (c *conn) readStream(x *exchange) (Kind, int) {
	fields, end, large := c.h2.Request()
	x.req.Reset()
	if large {
		x.trail.cause = errHeadTooLarge
		return BadRequest, 431
	}
	var err error
	x.cookies, err = http2.ReadRequest(&x.req, fields, x.cookies[:0], end)
	switch err := err.(type) {
	case *http1.Error:
		x.trail.cause = err
		return BadRequest, err.Status
	case *http2.StreamError:
		c.h2.Fault(err)
		return ClientGone, 0
	}
	if string(x.req.Method) == "CONNECT" {
		if kind, status := x.readConnect(end); kind != NoError {
			return kind, status
		}
	}
	switch {
	case x.req.Underscore && c.kind == gateway:
		x.trail.cause = underscored(&x.req)
		return BadRequest, 400
	case x.req.Framing == http1.Length && c.h2.ExpectLength(x.req.ContentLength) != nil:
		return ClientGone, 0
	}
	return NoError, 0
}

// recoverStream keeps one broken request, which has panicked with r unless that
// is nil, from taking the others along.
func (c *conn) recoverStream(r any) (broken bool) {
	if r == nil {
		return false
	}
	c.logPanic(r)
	c.h2.Reset(http2.CodeInternal)
	return true
}
