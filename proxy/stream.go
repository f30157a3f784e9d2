package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bufferSize is what a message head and a small body fit in, so that they are
// one read and one write; the same as nginx's and HAProxy's default buffers.
const bufferSize = 16 << 10

// largeBufferSize is for heads beyond bufferSize, up to the limit of 60 KiB,
// and for bodies under way.
const largeBufferSize = 64 << 10

var (
	smallBuffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBufferSize]byte) }}
)

// buffer is bytes read and not yet consumed: data[r:w]. Its memory is borrowed
// from a pool and given back when the connection falls idle, so an idle
// connection holds none.
type buffer struct {
	data []byte // nil while nothing is borrowed
	r, w int
}

func (b *buffer) bytes() []byte { return b.data[b.r:b.w] }
func (b *buffer) len() int      { return b.w - b.r }

// borrow makes room to read into, if there is none yet.
func (b *buffer) borrow() {
	if b.data == nil {
		b.data = smallBuffers.Get().(*[bufferSize]byte)[:]
	}
}

// release gives the memory back; what was not consumed is lost.
func (b *buffer) release() {
	b.recycle()
	*b = buffer{}
}

// recycle gives the memory of a buffer back that nobody looks at any more.
func (b buffer) recycle() {
	switch len(b.data) {
	case bufferSize:
		smallBuffers.Put((*[bufferSize]byte)(b.data))
	case largeBufferSize:
		largeBuffers.Put((*[largeBufferSize]byte)(b.data))
	}
}

// grow exchanges a small buffer for a large one and reports whether that made
// it any larger.
func (b *buffer) grow() bool {
	if len(b.data) == largeBufferSize {
		return false
	}
	large := largeBuffers.Get().(*[largeBufferSize]byte)
	n := copy(large[:], b.bytes())
	b.release()
	b.data, b.w = large[:], n
	return true
}

// compact moves what is left to the front. Slices into the buffer are void
// afterwards.
func (b *buffer) compact() {
	if b.r > 0 {
		b.w = copy(b.data, b.data[b.r:b.w])
		b.r = 0
	}
}

// stream is one TCP connection with the bytes read from it. It is used by one
// goroutine at a time for reading and by one for writing.
//
// Reads and writes go to the non-blocking socket by RawSyscall within
// syscall.RawConn: they never block, so the scheduler need not be told, and
// its monitor thread sleeps on. At moderate load that thread is half of a Go
// proxy's CPU time.
type stream struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	in   buffer

	// limit is when reading has to end; armed is the deadline that the runtime
	// was told of. The runtime is told anew only if limit comes before armed, or
	// when armed has passed and limit has not, so that a kept connection costs a
	// timer operation per time-out instead of one per request.
	limit, armed instant

	writeArmed instant // the deadline for writing that the runtime knows
	ended      bool    // the peer has ended its side in order

	// The closures given to raw, made once, and what they work on.
	readFn, writeFn   func(fd uintptr) bool
	n                 int
	readErr, writeErr syscall.Errno
	out               []byte

	// idle says that the reader waits for a new message, so that it may give its
	// buffer back while it waits.
	idle bool
}

func newStream(c *net.TCPConn) (*stream, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &stream{conn: c, raw: raw}
	s.readFn, s.writeFn = s.tryRead, s.tryWrite
	return s, nil
}

// errTimeout is the end of a read whose limit has passed.
var errTimeout = errors.New("deadline exceeded")

// errInterrupted is the end of a read that [stream.interrupt] broke off.
var errInterrupted = errors.New("interrupted")

// fill reads once, as many bytes as come and fit. io.EOF when the peer has
// ended its side; errTimeout when limit has passed. A full buffer is an error
// of the caller's: it must grow or consume first.
func (s *stream) fill() (int, error) {
	s.in.borrow()
	if s.in.w == len(s.in.data) {
		s.in.compact()
	}
	for {
		if s.limit != 0 && (s.armed == 0 || s.limit < s.armed) {
			s.arm()
		}
		err := s.raw.Read(s.readFn)
		switch {
		case err == nil && s.readErr != 0:
			return 0, s.readErr
		case err == nil && s.n == 0:
			s.ended = true
			return 0, io.EOF
		case err == nil:
			s.in.w += s.n
			return s.n, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, err
		case s.limit != 0 && now() >= s.limit:
			return 0, errTimeout
		}
		// Either armed has passed before limit, or somebody called interrupt.
		interrupted := s.armed == 0 || now() < s.armed
		s.arm()
		if interrupted {
			return 0, errInterrupted
		}
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
// fill returns errInterrupted, once. One that arms the deadline at the same
// moment may miss it, so whoever needs an answer asks again.
func (s *stream) interrupt() { s.conn.SetReadDeadline(epoch) }

// tryRead is called by the runtime until it returns true, first at once and
// then whenever the socket has become readable.
func (s *stream) tryRead(fd uintptr) bool {
	s.in.borrow()
	p := s.in.data[s.in.w:]
	for {
		n, errno := rawRead(fd, p)
		switch errno {
		case 0:
			s.n, s.readErr = n, 0
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			if s.idle && s.in.len() == 0 {
				s.in.release()
			}
			return false
		default:
			s.n, s.readErr = 0, errno
			return true
		}
	}
}

// writeTimeout is how long a peer may leave a write standing, at the least;
// HAProxy's usual "timeout client".
const writeTimeout = instant(60 * time.Second)

// write sends all of p. t is about now. A peer that does not read for
// writeTimeout, or twice that, ends the write: like a read's, the runtime's
// deadline is moved once per time-out, not once per write.
func (s *stream) write(p []byte, t instant) error {
	if t+writeTimeout > s.writeArmed {
		s.writeArmed = t + 2*writeTimeout
		s.conn.SetWriteDeadline(s.writeArmed.time())
	}
	s.out = p
	err := s.raw.Write(s.writeFn)
	s.out = nil
	if err == nil && s.writeErr != 0 {
		return s.writeErr
	}
	return err
}

func (s *stream) tryWrite(fd uintptr) bool {
	for len(s.out) > 0 {
		n, errno := rawWrite(fd, s.out)
		switch errno {
		case 0:
			s.out = s.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.writeErr = errno
			return true
		}
	}
	return true
}

// peek looks at the socket without waiting: whether the peer has gone, or has
// sent what nobody asked for.
func (s *stream) peek() peekResult {
	result := peekOpen
	err := s.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case n > 0:
			result = peekBytes
		case err == nil:
			result = peekEnded
		case err != unix.EAGAIN && err != unix.EINTR:
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
	s.conn.Close()
	s.in.release()
}

// abort ends the connection with a reset, so that the peer cannot take what
// it has got for the whole.
func (s *stream) abort() {
	s.conn.SetLinger(0)
	s.close()
}
