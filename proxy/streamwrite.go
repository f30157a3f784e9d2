package proxy

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// ask leaves a request to be sent by the next fill, which looks first whether
// the connection is as it was left: a kept one may have been closed meanwhile,
// or, worse, hold bytes that would be taken for the reply. Waiting for the reply
// takes one look at the socket before it comes anyway; this way that look is of
// use. p has to stay as it is until fill has returned.
func (s *stream) ask(p []byte) { s.rest, s.asking = p, askPending }

// asking is how far a request is that ask has left.
type asking uint8

const (
	askNothing asking = iota
	askPending
	askPartly // sent in part: the socket takes no more for now
	askSent   // or not to be sent any more: what comes now is a reply, or the reason
	askStale
)

// tryAsk sends a request over a connection on which nothing may have come, and
// goes on as tryRead.
func (s *stream) tryAsk(fd uintptr) bool {
	if s.asking == askSent {
		return s.tryRead(fd)
	}
	var b [1]byte
	if _, errno := rawPeek(fd, b[:]); errno != syscall.EAGAIN {
		s.asking = askStale
		return true
	}
	n, errno := rawSend(fd, s.rest)
	if s.rest = s.rest[n:]; len(s.rest) > 0 && (errno == 0 || errno == syscall.EAGAIN) {
		s.asking = askPartly
		return true
	}
	s.asking = askSent
	return false
}

// write sends all of p. t is about now. A peer that does not read for
// stall, or twice that, ends the write: like a read's, the runtime's
// deadline is moved once per time-out, not once per write.
func (s *stream) write(p []byte, t instant) error {
	if s.secure != nil {
		_, err := s.secure.Write(p)
		return err
	}
	return s.writeRaw(p, t)
}

// writeRaw sends all of p as it is.
func (s *stream) writeRaw(p []byte, t instant) error {
	if s.raw == nil {
		if s.dead.Load() {
			return net.ErrClosed
		}
		n, errno := rawSend(uintptr(s.fd), p)
		switch {
		case n == len(p) && errno == 0:
			return nil
		case errno != 0 && errno != syscall.EAGAIN:
			return errno
		}
		p = p[n:]
		if err := s.register(); err != nil {
			return err
		}
	}
	s.armWrite(t)
	s.out = p
	err := s.raw.Write(s.writeFn)
	s.out = nil
	if err == nil && s.writeErr != 0 {
		return s.writeErr
	}
	return err
}

// armWrite tells the runtime when writing has to end.
func (s *stream) armWrite(t instant) {
	if t+s.stall > s.writeArmed {
		s.writeArmed = t + 2*s.stall
		s.conn.SetWriteDeadline(s.writeArmed.time())
	}
}

func (s *stream) tryWrite(fd uintptr) bool {
	for len(s.out) > 0 {
		n, errno := rawSend(fd, s.out)
		switch errno {
		case 0:
			s.out = s.out[n:]
		case syscall.EAGAIN:
			if s.until != 0 && s.until < s.writeArmed {
				s.writeArmed = s.until
				s.conn.SetWriteDeadline(s.until.time())
			}
			return false
		default:
			s.writeErr = errno
			return true
		}
	}
	return true
}

// closeWrite ends our side in order.
func (s *stream) closeWrite() {
	if s.h2 != nil {
		s.h2.Write(nil, true, s.writeLimit(now()))
		return
	}
	s.endTLS()
	s.control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
}
