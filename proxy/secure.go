package proxy

import (
	stdtls "crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A stream speaks TLS once secure is set: crypto/tls does, over a netConn, by
// which its reads and writes come down to the same system calls as ours. It is
// never left waiting: a read finds nothing, and the stream waits as it always
// does, without a buffer of ours. (crypto/tls keeps one of its own for a record
// that has come in part, and for the largest that came before.)

// acceptTLS makes the stream speak TLS as the server, and shakes hands until
// limit. What has been read already belongs to that.
func (s *stream) acceptTLS(config *stdtls.Config, limit instant) error {
	return s.shake(limit, func(c net.Conn) *stdtls.Conn { return stdtls.Server(c, config) })
}

// connectTLS does so as the client.
func (s *stream) connectTLS(config *stdtls.Config, limit instant) error {
	return s.shake(limit, func(c net.Conn) *stdtls.Conn { return stdtls.Client(c, config) })
}

func (s *stream) shake(limit instant, side func(net.Conn) *stdtls.Conn) error {
	if s.raw == nil {
		if err := s.register(); err != nil {
			return err
		}
	}
	n := &netConn{stream: s, head: append([]byte(nil), s.in.bytes()...), blocking: true}
	n.receive = func(fd uintptr) { n.n, n.errno = rawReceive(fd, n.p) }
	s.in.release()
	s.limit = limit
	secure := side(n)
	if err := secure.Handshake(); err != nil {
		return err
	}
	n.blocking = false
	s.secure = secure
	return nil
}

// fillSecure is fill for a stream that speaks TLS.
func (s *stream) fillSecure() (int, error) {
	if s.asking == askPending {
		s.asking = askNothing
		if !s.quiet() {
			return 0, errStale
		}
		// A failure to send does not matter yet: there may be an early reply.
		_, err := s.secure.Write(s.rest)
		s.cut = err != nil
	}
	for {
		s.in.borrow(s.large)
		if s.in.w == len(s.in.data) {
			s.in.grow() // of a small buffer, which a wait has left; see fill for a full one
		}
		n, err := s.secure.Read(s.in.data[s.in.w:])
		switch {
		case n > 0:
			s.in.w += n
			s.n = n
			return n, nil
		case err == io.EOF:
			s.ended = true
			return 0, io.EOF
		case err != errWouldBlock:
			return 0, err
		}
		s.idleBuffer()
		if err := s.wait(s.readableFn); err != nil {
			return 0, err
		}
	}
}

// readable reports whether a read would find something, or the end.
func (s *stream) readable(fd uintptr) bool {
	var b [1]byte
	_, errno := rawPeek(fd, b[:])
	return errno != syscall.EAGAIN
}

// quiet reports whether nothing has come over a kept connection that speaks
// TLS, but what TLS itself has to say, such as session tickets.
func (s *stream) quiet() bool {
	var b [1]byte
	n, err := s.secure.Read(b[:])
	return n == 0 && err == errWouldBlock
}

// asLeft reports whether a connection is as its last exchange has left it, or its
// handshake: open, and nothing has come.
func (s *stream) asLeft() bool {
	if s.secure != nil {
		return s.quiet()
	}
	return s.peek() == peekOpen
}

// endTLS says that nothing follows, as far as the socket takes that at once:
// without it, a peer cannot tell an end from a cut.
func (s *stream) endTLS() {
	if s.secure != nil {
		s.farewell = true
		s.secure.CloseWrite()
	}
}

// netConn is a stream's socket for crypto/tls.
type netConn struct {
	stream   *stream
	head     []byte // read before TLS began
	blocking bool   // the handshake waits for what it needs

	// The closure given to the socket, made once, and what it works on. Whoever
	// reads holds a lock of crypto/tls.
	receive func(fd uintptr)
	p       []byte
	n       int
	errno   syscall.Errno
}

// errWouldBlock is the end of a read that found nothing. It is of the kind
// after which crypto/tls lets reading go on.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Read reads what has come.
func (c *netConn) Read(p []byte) (n int, err error) {
	if len(c.head) > 0 {
		n = copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	for {
		c.p = p
		err := c.stream.raw.Control(c.receive)
		c.p = nil
		switch {
		case err != nil:
			return 0, err
		case c.errno == syscall.EAGAIN && !c.blocking:
			return 0, errWouldBlock
		case c.errno == syscall.EAGAIN:
			if err := c.stream.wait(c.stream.readableFn); err != nil && !errors.Is(err, errInterrupted) {
				return 0, err
			}
		case c.errno != 0:
			return 0, c.errno
		case c.n == 0:
			return 0, io.EOF
		default:
			return c.n, nil
		}
	}
}

// Write sends all of p, or, as a farewell, what the socket takes.
func (c *netConn) Write(p []byte) (n int, err error) {
	if c.stream.farewell {
		c.stream.raw.Control(func(fd uintptr) { rawSend(fd, p) })
		return len(p), nil
	}
	if err := c.stream.writeRaw(p, now()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close does nothing: the stream closes its socket.
func (c *netConn) Close() error { return nil }

// LocalAddr and RemoteAddr are nobody's business here.
func (c *netConn) LocalAddr() net.Addr  { return noAddr{} }
func (c *netConn) RemoteAddr() net.Addr { return noAddr{} }

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "" }

// SetDeadline and the others are the stream's business.
func (c *netConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *netConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *netConn) SetWriteDeadline(time.Time) error { return nil }
