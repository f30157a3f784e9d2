package proxy

import (
	stdtls "crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"isthmus/http2"
)

// stream is one TCP connection with the bytes read from it. It is used by one
// goroutine at a time for reading and by one for writing.
//
// Reads and writes go to the non-blocking socket by raw system calls within
// syscall.RawConn: they never block, so the scheduler need not be told, and
// its monitor thread sleeps on. At moderate load that thread is half of a Go
// proxy's CPU time.
//
// A connection that was accepted is not even known to the runtime until
// somebody has to wait for it: one that brings its request along and ends with
// the reply costs no registration.
type stream struct {
	fd  int             // of a connection that the runtime does not know yet
	raw syscall.RawConn // nil for one of those
	in  buffer

	secure   *stdtls.Conn // nil: the bytes are as they come
	farewell bool         // the last that TLS has to say is being written

	vouched atomic.Pointer[voucher] // of a peer that has proved who it is; nil: it has not

	// A stream of a connection that speaks HTTP/2 has no socket of its own: under
	// is the connection, and what is read here is a body.
	h2     *http2.Stream
	under  *stream
	copied bool // a sink takes the reply to a copy of a request that has come over one

	asking asking
	rest   []byte // of a request that fill has to send
	cut    bool   // it has failed to: the peer has a part of a request, and must not get another

	// limit is when reading has to end; armed is the deadline that the runtime
	// was told of. The runtime is told anew only if limit comes before armed, or
	// when armed has passed and limit has not, so that a kept connection costs a
	// timer operation per time-out instead of one per request.
	limit, armed instant

	stall      instant // how long a write may stand, at the least
	until      instant // when it has to end at the latest, if the socket does not take all at once; 0: by stall alone
	writeArmed instant // the deadline for writing that the runtime knows
	ended      bool    // the peer has ended its side in order
	doubted    bool    // whether the peer is there is being found out
	prods      bool    // it may be sent something to that end, once for each request: it speaks HTTP/1.1

	// What a wait may do to the buffer, and what a read borrows.
	pinned  bool // something points into it: it stays
	movable bool // nothing does, so it may shrink
	large   bool // a body is being read: borrow a large one

	// The closures given to raw, made once, and what they work on.
	readFn, askFn, writeFn, readableFn func(fd uintptr) bool
	n                                  int
	readErr, writeErr                  syscall.Errno
	out                                []byte

	interrupted atomic.Bool // interrupt came and fill has not told yet

	mu   sync.Mutex  // guards conn against interrupt and kill by other goroutines
	conn pollable    // nil while the runtime does not know the connection
	dead atomic.Bool // kill came: read, write and wait no more; set under mu
}

// pollable is what *net.TCPConn and *os.File have in common.
type pollable interface {
	SyscallConn() (syscall.RawConn, error)
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Close() error
}

// newStream makes the stream of a connection that was dialled.
func newStream(c *net.TCPConn) (*stream, error) {
	s := &stream{conn: c, stall: stallTimeout}
	return s, s.register()
}

// acceptedStream makes the stream of a connection that was accepted.
func acceptedStream(fd int, stall instant) *stream {
	return &stream{fd: fd, stall: stall}
}

// stallTimeout is how long an upstream may leave a write standing, at the
// least; HAProxy's usual "timeout server". A write is of some 64 KiB at most, so
// this is a minimum rate as well: a slow reader takes at least that much in
// twice the time.
const stallTimeout = instant(60 * time.Second)

var (
	// errTimeout is the end of a read whose limit has passed.
	errTimeout = errors.New("deadline exceeded")

	// errInterrupted is the end of a read that [stream.interrupt] broke off.
	errInterrupted = errors.New("interrupted")

	// errStale is the end of a request that was not sent, since the peer had
	// ended the connection, or had sent what nobody asked for.
	errStale = errors.New("connection not as it was left")
)

// register makes the connection known to the runtime, so that it can be waited
// for.
func (s *stream) register() error {
	if s.h2 != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead.Load() {
		return net.ErrClosed
	}
	if s.conn == nil {
		s.conn = os.NewFile(uintptr(s.fd), "tcp")
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	s.raw = raw
	s.readFn, s.askFn, s.writeFn, s.readableFn = s.tryRead, s.tryAsk, s.tryWrite, s.readable
	return nil
}

// fill reads once, as many bytes as come and fit. io.EOF when the peer has
// ended its side; errTimeout when limit has passed. A full buffer is an error
// of the caller's: it must grow or consume first.
//
// If [stream.ask] has left a request, it is sent first. errStale: it was not.
func (s *stream) fill() (int, error) {
	if s.in.data != nil && s.in.w == len(s.in.data) {
		s.in.compact()
	}
	switch {
	case s.h2 != nil:
		return s.fillStream()
	case s.secure != nil:
		return s.fillSecure()
	}
	if s.raw == nil {
		if !s.dead.Load() && s.tryRead(uintptr(s.fd)) {
			return s.filled()
		}
		if err := s.register(); err != nil {
			return 0, err
		}
	}
	if s.asking != askNothing {
		if err := s.wait(s.askFn); err != nil {
			return 0, err
		}
		asked := s.asking
		s.asking = askNothing
		switch asked {
		case askStale:
			return 0, errStale
		case askSent:
			return s.filled()
		}
		// The socket takes no more for now. A failure to send the rest does not
		// matter yet: there may be an early reply.
		s.cut = s.write(s.rest, now()) != nil
	}
	if err := s.wait(s.readFn); err != nil {
		return 0, err
	}
	return s.filled()
}

// filled takes over what tryRead has put into the buffer.
func (s *stream) filled() (int, error) {
	n, err := s.received()
	s.in.w += n
	return n, err
}

// received is the outcome of a read.
func (s *stream) received() (int, error) {
	switch {
	case s.readErr != 0:
		return 0, s.readErr
	case s.n == 0:
		s.ended = true
		return 0, io.EOF
	}
	return s.n, nil
}

// wait lets the runtime call fn until it returns true: first at once, and then
// whenever the socket has become readable. errTimeout when limit has passed.
func (s *stream) wait(fn func(fd uintptr) bool) error {
	for {
		if s.limit != 0 && (s.armed == 0 || s.limit < s.armed) {
			s.arm()
		}
		// Arming takes the place of the deadline by which interrupt wakes us, so the
		// look for an interrupt comes after it.
		if s.interrupted.Load() && s.interrupted.Swap(false) {
			return errInterrupted
		}
		err := s.raw.Read(fn)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case s.limit != 0 && now() >= s.limit:
			return errTimeout
		}
		s.arm() // armed has passed before limit, or somebody called interrupt
	}
}

// arm tells the runtime of limit.
func (s *stream) arm() {
	s.armed = s.limit
	if s.limit == 0 {
		s.conn.SetReadDeadline(time.Time{})
		return
	}
	s.conn.SetReadDeadline(s.limit.time())
}

// interrupt ends a read under way or the next one, from another goroutine:
// fill returns errInterrupted, once.
func (s *stream) interrupt() {
	if s.h2 != nil {
		s.h2.Interrupt()
		return
	}
	s.interrupted.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.SetReadDeadline(epoch)
	}
}

// forgetInterrupt takes an interrupt back that came when nobody was to read any more.
// Nobody interrupts meanwhile.
func (s *stream) forgetInterrupt() {
	if s.interrupted.Load() {
		s.interrupted.Store(false)
	}
}

// kill ends the connection, from another goroutine: whoever waits for it, or
// will, gets an error. With a reset, the peer cannot take what it has got for
// the whole.
//
// A descriptor that the runtime does not know is not ours to close: its number
// may be another connection's before whoever uses it has noticed. He closes it,
// with his next read or write or when he looks whether the peer has gone; so does
// the kernel, if the process ends before.
func (s *stream) kill(reset bool) {
	if s.h2 != nil {
		s.h2.Reset(http2.CodeCancel)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead.Swap(true) {
		return
	}
	if s.conn == nil {
		if reset {
			resetOnClose(uintptr(s.fd))
		}
		return
	}
	if raw, err := s.conn.SyscallConn(); err == nil && reset {
		raw.Control(resetOnClose)
	}
	s.conn.Close()
}

func resetOnClose(fd uintptr) {
	unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// tryRead is called by the runtime until it returns true.
func (s *stream) tryRead(fd uintptr) bool {
	s.in.borrow(s.large)
	if s.in.w == smallBufferSize && len(s.in.data) == smallBufferSize {
		s.in.grow()
	}
	n, errno := rawReceive(fd, s.in.data[s.in.w:])
	if errno == syscall.EAGAIN {
		s.idleBuffer()
		return false
	}
	s.n, s.readErr = n, errno
	return true
}

// idleBuffer gives back what a wait does not need of the buffer.
func (s *stream) idleBuffer() {
	switch {
	case s.pinned:
	case s.in.len() == 0:
		s.in.release()
	case s.movable:
		s.in.shrink()
	}
}

// control calls fn with the connection's descriptor. What fn calls must not
// block.
func (s *stream) control(fn func(fd uintptr)) error {
	if s.under != nil {
		return s.under.control(fn)
	}
	if s.raw == nil {
		fn(uintptr(s.fd))
		return nil
	}
	return s.raw.Control(fn)
}

// peek looks at the socket without waiting: whether the peer has gone, or has
// sent what nobody asked for.
func (s *stream) peek() peekResult {
	if s.dead.Load() {
		return peekBroken
	}
	result := peekOpen
	err := s.control(func(fd uintptr) {
		var b [1]byte
		n, errno := rawPeek(fd, b[:])
		switch {
		case n > 0:
			result = peekBytes
		case errno == 0:
			result = peekEnded
		case errno != syscall.EAGAIN:
			result = peekBroken
		}
	})
	if err != nil {
		return peekBroken
	}
	return result
}

type peekResult uint8

const (
	peekOpen   peekResult = iota // nothing to read
	peekBytes                    // bytes wait
	peekEnded                    // the peer has ended its side
	peekBroken                   // reset, or closed by us
)

// close ends the connection and gives its buffer back.
func (s *stream) close() {
	s.in.release()
	if s.h2 != nil {
		s.h2.Close()
		s.h2 = nil
		return
	}
	s.endTLS()
	if s.raw == nil && s.conn == nil {
		s.mu.Lock()
		s.dead.Store(true) // from here on kill lets the number be
		s.mu.Unlock()
		rawClose(s.fd)
		return
	}
	s.conn.Close()
}

// abort ends the connection with a reset, so that the peer cannot take what
// it has got for the whole.
func (s *stream) abort() {
	if s.h2 != nil {
		s.h2.Reset(http2.CodeInternal)
		s.close()
		return
	}
	s.control(resetOnClose)
	s.secure = nil // nothing more is said
	s.close()
}
