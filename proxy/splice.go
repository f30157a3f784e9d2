package proxy

import (
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// spliceFrom is how much of a body must be left for it to be moved within the
// kernel: below that, two more system calls cost more than copying.
const spliceFrom = 4 * largeBufferSize

// pipe is what bytes are moved through between two sockets without a copy.
type pipe struct {
	r, w int
	held int // bytes in it
}

const (
	// pipeSize is what a pipe is asked to hold.
	pipeSize = 256 << 10

	// maxPipes bounds the pipes in use, of two descriptors each; bodies beyond
	// them are copied. At 256 KiB each they stay within the memory that Linux lets
	// an ordinary user's pipes have (fs.pipe-user-pages-soft, 64 MiB).
	maxPipes = 256

	// keptPipes is how many are kept for the next body.
	keptPipes = 32
)

var (
	freePipes = make(chan *pipe, keptPipes)
	pipeCount atomic.Int32
)

// takePipe returns an empty pipe, or nil if there is none to be had.
func takePipe() *pipe {
	if pipeCount.Add(1) > maxPipes {
		pipeCount.Add(-1)
		return nil
	}
	select {
	case p := <-freePipes:
		return p
	default:
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		pipeCount.Add(-1)
		return nil
	}
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // it works with what it has, too
	return &pipe{r: fds[0], w: fds[1]}
}

// release keeps an empty pipe for the next body and closes any other.
func (p *pipe) release() {
	pipeCount.Add(-1)
	if p.held == 0 {
		select {
		case freePipes <- p:
			return
		default:
		}
	}
	rawClose(p.r)
	rawClose(p.w)
}

// fillPipe is fill into an empty pipe, of n bytes at most.
func (s *stream) fillPipe(p *pipe, n int64) error {
	want := int(min(n, pipeSize))
	err := s.wait(func(fd uintptr) bool {
		var errno syscall.Errno
		p.held, errno = rawSplice(fd, uintptr(p.w), want)
		s.n, s.readErr = p.held, errno
		return errno != syscall.EAGAIN
	})
	if err != nil {
		return err
	}
	_, err = s.received()
	return err
}

// tryPipe moves what has come into an empty pipe without waiting, most bytes of it
// at the most; n is 0 if nothing has, or nothing will.
func (s *stream) tryPipe(p *pipe, most int) (n int, err error) {
	var errno syscall.Errno
	err = s.control(func(fd uintptr) { p.held, errno = rawSplice(fd, uintptr(p.w), most) })
	if err == nil && errno != 0 && errno != syscall.EAGAIN {
		err = errno
	}
	return p.held, err
}

// writePipe sends what a pipe holds; see write.
func (s *stream) writePipe(p *pipe, t instant) error {
	if s.raw == nil {
		if err := s.register(); err != nil {
			return err
		}
	}
	s.armWrite(t)
	err := s.raw.Write(func(fd uintptr) bool {
		for p.held > 0 {
			n, errno := rawSplice(uintptr(p.r), fd, p.held)
			switch errno {
			case 0:
				p.held -= n
			case syscall.EAGAIN:
				return false
			default:
				s.writeErr = errno
				return true
			}
		}
		return true
	})
	if err == nil && s.writeErr != 0 {
		return s.writeErr
	}
	return err
}
