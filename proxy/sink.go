package proxy

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// sink stands in the place of a connection to somebody who reads everything at
// once, and at whom nobody looks.
type sink struct{}

// sinkStream is a stream whose writes go nowhere. Nothing can be read from it.
func sinkStream() *stream {
	return &stream{raw: sink{}, conn: sink{}, stall: stallTimeout, writeFn: func(uintptr) bool { return true }}
}

// nowhere is where the kernel moves what a pipe holds.
var nowhere = sync.OnceValue(func() uintptr {
	fd, err := syscall.Open(os.DevNull, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ^uintptr(0) // no descriptor: such a write fails
	}
	return uintptr(fd)
})

// Control implements [syscall.RawConn]; there is no descriptor to look at.
func (sink) Control(func(fd uintptr)) error { return nil }

// Read implements [syscall.RawConn].
func (sink) Read(func(fd uintptr) bool) error { return net.ErrClosed }

// Write implements [syscall.RawConn].
func (sink) Write(fn func(fd uintptr) bool) error {
	fn(nowhere())
	return nil
}

// SyscallConn implements pollable, as do the rest.
func (s sink) SyscallConn() (syscall.RawConn, error) { return s, nil }

// SetReadDeadline does nothing.
func (sink) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (sink) SetWriteDeadline(time.Time) error { return nil }

// Close does nothing.
func (sink) Close() error { return nil }
