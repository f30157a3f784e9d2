package http2

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/http1"
)

// Stream is one request and its reply. One goroutine at a time may read, and one
// write; Interrupt and Err are for any. Whoever has it calls Close at the end,
// after which it is another's.
type Stream struct {
	conn *Conn

	id       uint32        // of a client's: 0 before the head is sent
	arena    []byte        // names and values of fields
	fields   []http1.Field // all that have come, heads and trailers; written by the reader
	request  []http1.Field // those of a request's head
	whole    bool          // the request has no body, as far as was known when it was taken
	taken    bool          // by Next
	tooLarge bool          // the head has more fields than we take

	// Guarded by conn.mu.
	listed    bool // among conn.streams
	closed    closing
	send      sendWindow
	recv      recvWindow
	queue     queue
	uncounted bool  // a reply's content-length is not that of its body
	counted   bool  // the body has a length:
	length    int64 // what is missing of it
	heads     []head
	headDone  bool // the reply's final head has come
	trailers  []http1.Field
	remoteEnd bool      // the peer has ended its side
	localEnd  bool      // we have ours
	opened    time.Time // a client's stream: when its head came
	replied   bool      // something has been sent
	unwanted  bool      // the server wants no more of the request
	err       error     // why it is over before its time; set by fail
	stopRead  bool      // see Interrupt
	stopWrite bool

	failed atomic.Bool            // err is set, for who looks without conn.mu
	told   atomic.Pointer[func()] // see Notify

	readable, writable waiter
}

// head is one that waits for its reader.
type head struct {
	fields []http1.Field
	end    bool
}

// tableSizeZero tells a decoder that we use no dynamic table (RFC 7541 6.3).
const tableSizeZero = 0x20

var streams = sync.Pool{New: func() any { return &Stream{readable: newWaiter(), writable: newWaiter()} }}

func takeStream(c *Conn, id uint32) *Stream {
	s := streams.Get().(*Stream)
	s.conn, s.id = c, id
	return s
}

// recycle gives a stream's memory back. What its fields point into is the arena,
// or was, so only one that is not kept has to be let go of.
func (s *Stream) recycle() {
	s.queue.clear()
	arena, fields, heads := s.arena, s.fields, s.heads
	if cap(arena) > maxFrame { // one enormous head shall not be kept for ever
		clear(fields)
		clear(heads)
		arena = nil
	}
	*s = Stream{arena: arena[:0], fields: fields[:0], heads: heads[:0], queue: queue{chunks: s.queue.chunks[:0]}, readable: s.readable, writable: s.writable}
	streams.Put(s)
}

// Request returns the fields of a request's head, pseudo fields and all, and
// whether the request ends with it. They hold until Close. large says that there
// were more than we take: the rest was left out.
func (s *Stream) Request() (fields []http1.Field, end, large bool) {
	return s.request, s.whole, s.tooLarge // which nobody writes any more
}

// ExpectLength holds the body to a length (RFC 9113 8.1.1). It is for servers,
// before anything is read.
func (s *Stream) ExpectLength(n int64) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	came := int64(s.queue.len())
	if came > n || s.remoteEnd && came < n {
		c.resetLocked(s.id, CodeProtocol)
		c.nuisance.add(glitchProvoked, c.heard) // as in Fault
		return s.err
	}
	s.counted, s.length = true, n-came
	return nil
}

// Uncount says, before the head is sent, that the reply's content-length is not that
// of its body: the request is HEAD or CONNECT (RFC 9110 8.6, 9.3.6).
func (s *Stream) Uncount() { s.uncounted = true }

// expectLength does so for a reply. The caller holds conn.mu.
func (s *Stream) expectLength(fields []http1.Field) {
	if s.uncounted || len(fields) == 0 || string(fields[0].Value) == "204" || string(fields[0].Value) == "304" {
		return
	}
	for i := range fields {
		if fields[i].ID == http1.ContentLength {
			if n, ok := http1.ParseLength(fields[i].Value); ok {
				s.counted, s.length = true, n
			}
			return
		}
	}
}

// Head returns the next head of a reply, interim or final, and whether the reply
// ends with it; ok is false if none has come. Fields hold until Close.
func (s *Stream) Head() (fields []http1.Field, end, ok bool) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if len(s.heads) == 0 {
		return nil, false, false
	}
	h := s.heads[0]
	s.heads = append(s.heads[:0], s.heads[1:]...)
	return h.fields, h.end, true
}

// Read reads what has come of the body. [ErrWait]: nothing has. [io.EOF]: that
// was all, and the trailers have come, if there are any.
func (s *Stream) Read(p []byte) (n int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	n = s.queue.read(p)
	switch {
	case n > 0:
		c.hold(-n)
		c.grantStream(s, n)
		if c.withheld > 0 {
			c.grant(0)
		}
		return n, nil
	case s.err != nil:
		return 0, s.err
	case s.remoteEnd:
		return 0, io.EOF
	}
	return 0, ErrWait
}

// Ended reports whether Read has returned all that there is.
func (s *Stream) Ended() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.remoteEnd && s.queue.len() == 0
}

// Trailers returns the fields that came behind the body, once Read has returned
// io.EOF or Ended says so. They hold until Close.
func (s *Stream) Trailers() []http1.Field {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.trailers
}

// Wait waits until there is something to read, a head, or the end.
// [ErrTimeout]: limit came before. [ErrInterrupted]: Interrupt did. A zero limit
// never comes.
func (s *Stream) Wait(limit time.Time) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case s.stopRead:
			s.stopRead = false
			return ErrInterrupted
		case s.queue.len() > 0 || len(s.heads) > 0 || s.remoteEnd:
			return nil
		case s.err != nil:
			return s.err
		}
		c.mu.Unlock()
		err := s.readable.wait(limit)
		c.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// LookOut waits until the stream is over before its time, and returns why, or
// [ErrTimeout] at limit.
func (s *Stream) LookOut(limit time.Time) error {
	for {
		if err := s.Err(); err != nil {
			return err
		}
		if err := s.readable.wait(limit); err != nil {
			return err
		}
	}
}

// Err returns why the stream is over before its time; nil while it is not.
func (s *Stream) Err() error {
	if !s.failed.Load() {
		return nil
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.err
}

// replyWhole reports whether a reply has come whole: nothing that ends the stream then
// takes anything of it, and all that is missing is the rest of a request that is not
// wanted any more. The caller holds conn.mu.
func (s *Stream) replyWhole() bool { return !s.conn.server && s.headDone && s.remoteEnd }

// Notify has fn called once when the stream is over before its time, unless it is already.
// fn must not call the connection, nor wait.
func (s *Stream) Notify(fn *func()) { s.told.Store(fn) }

// fail notes why the stream is over before its time. The caller holds conn.mu.
func (s *Stream) fail(err error) {
	s.err = err
	s.failed.Store(true)
	if fn := s.told.Load(); fn != nil {
		(*fn)()
	}
}

// Interrupt ends a wait for something to read under way, or the next one.
func (s *Stream) Interrupt() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.stopRead = true
	s.readable.signal()
}

// InterruptWrite ends a Write under way, and all that follow.
func (s *Stream) InterruptWrite() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.stopWrite = true
	s.writable.signal()
}

// HeadWaits reports whether a head has come that Head has not returned.
func (s *Stream) HeadWaits() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return len(s.heads) > 0
}

// Fault ends the stream for what its head is, as if the connection had found out.
func (s *Stream) Fault(err *StreamError) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.reset(err.Code)
	c.nuisance.add(glitchProvoked, c.heard) // too much of it ends the connection with its next frame
}

// endRemote notes that the peer has ended its side. The caller holds conn.mu.
func (s *Stream) endRemote() {
	s.remoteEnd = true
	if s.localEnd {
		s.conn.close(s, finished)
	}
}

// over forgets a stream that both sides have ended. The caller holds conn.mu.
func (s *Stream) over() {
	if s.localEnd && s.remoteEnd {
		s.conn.close(s, finished)
		if !s.tooLarge {
			s.conn.nuisance.add(workRequest, s.conn.heard)
		}
		s.conn.done(s)
	}
}

// Reset ends the stream before its time.
func (s *Stream) Reset(code ErrCode) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.reset(code)
}

func (s *Stream) reset(code ErrCode) {
	if s.id != 0 && s.err == nil && !s.unwanted && !(s.localEnd && s.remoteEnd) {
		s.conn.resetLocked(s.id, code)
	}
}

// Close is the last that is done with a stream. What the peer has not ended is
// reset: with NO_ERROR by a server whose reply is whole (RFC 9113 8.1), else
// with CANCEL.
func (s *Stream) Close() {
	c := s.conn
	c.mu.Lock()
	code := CodeCancel
	if c.server && s.localEnd {
		code = CodeNo
	}
	s.reset(code)
	c.remove(s)
	c.hold(-s.queue.len())
	if c.withheld > 0 && c.err == nil {
		c.grant(0)
	}
	c.active--
	if s.closed != stillOpen {
		c.closed[s.closed]--
	}
	if c.left() {
		c.ready.Signal()
	}
	c.mu.Unlock()
	s.recycle()
}
