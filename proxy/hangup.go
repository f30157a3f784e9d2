package proxy

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A client that has ended its side may have closed its connection, or have said
// all that it has to say and wait for the reply (RFC 9112 9.6 lets it); both
// look the same. The reply is due either way, so that only a reset, or silence
// of the whole host, is the end. So a client that waits for a reply is prodded.

// gone reports whether the peer of an exchange under way cannot read the reply
// any more. Whether one that has ended its side can is being found out from
// then on.
func (s *stream) gone() bool {
	if s.h2 != nil {
		return s.h2.Err() != nil
	}
	return s.dead.Load() || s.hasHungUp()
}

// hasHungUp asks the kernel. It allocates, which streams of HTTP/2 need not.
func (s *stream) hasHungUp() (gone bool) {
	err := s.control(func(fd uintptr) { gone = s.hungUp(fd) })
	return gone || err != nil
}

// lookOut waits until a moment. errTimeout: it has come. Any other error: the
// peer has gone before.
func (s *stream) lookOut(until instant) error {
	if s.h2 != nil {
		return streamError(s.h2.LookOut(until.time()))
	}
	if s.raw == nil {
		if err := s.register(); err != nil {
			return err
		}
	}
	s.limit = until
	for {
		// Bytes that come meanwhile wake this too; they stay where they are.
		err := s.wait(s.hungUp)
		switch err {
		case nil:
			return syscall.ECONNRESET
		case errInterrupted:
			continue
		}
		return err
	}
}

func (s *stream) hungUp(fd uintptr) bool {
	half, whole := rawHangUp(fd)
	if half && !whole && !s.doubted {
		s.doubted = true
		probeSoon(fd)
	}
	return whole
}

// lost is gone for a client that waits for a reply of which it has nothing yet. One that has
// ended its side is sent a 100 that it has not asked for: if it reads it may ignore that (RFC
// 9110 15.2.1), and if it has closed its host answers with a reset, which the next call sees.
func (s *stream) lost() bool {
	if s.gone() {
		return true
	}
	if s.doubted && s.prods && s.takesMore() {
		s.prods = false
		return s.write(unasked100, now()) != nil
	}
	return false
}

// watch looks at a client now and then, as lost does, and calls gone once it has gone. Whoever
// uses the stream lets it be until stop, which has to be called, returns.
func (s *stream) watch(gone func()) (stop func()) {
	var mu sync.Mutex // held while it is looked at
	over := false
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(time.Duration(clientCheck), func() {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case over:
		case s.lost():
			gone()
		default:
			timer.Reset(time.Duration(clientCheck))
		}
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		over = true
	}
}

// takesMore reports whether the socket takes what is no more than a few bytes at once. Where
// replies lie that the client does not read, a write would wait, and so would all that wait
// for whoever writes.
func (s *stream) takesMore() (ok bool) {
	s.control(func(fd uintptr) { ok = rawPoll(fd, unix.POLLOUT)&unix.POLLOUT != 0 })
	return ok
}

var unasked100 = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// probeSoon has the kernel ask a peer that has ended its side whether it is
// still there. The host of one that has closed answers with a reset as soon as
// it has forgotten the connection, on Linux after a minute (tcp_fin_timeout).
func probeSoon(fd uintptr) {
	const seconds = 5
	unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds)
	unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds)
	unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
	unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
