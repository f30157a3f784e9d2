package proxy

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The raw functions are system calls on non-blocking descriptors, made without
// telling the scheduler: they return at once. recvfrom and sendto are a little
// cheaper than read and write, which go through the file layer first.

// rawReceive is recvfrom(2). n is at least 0.
func rawReceive(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	return rawIO(syscall.SYS_RECVFROM, fd, p, 0)
}

// rawPeek is rawReceive that leaves the bytes where they are.
func rawPeek(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	return rawIO(syscall.SYS_RECVFROM, fd, p, unix.MSG_PEEK)
}

// rawSend is sendto(2). n is at least 0.
func rawSend(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	return rawIO(syscall.SYS_SENDTO, fd, p, unix.MSG_NOSIGNAL)
}

func rawIO(call, fd uintptr, p []byte, flags uintptr) (n int, errno syscall.Errno) {
	for {
		r, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// rawSplice moves up to n bytes between a pipe and a socket within the kernel.
func rawSplice(from, to uintptr, n int) (moved int, errno syscall.Errno) {
	for {
		r, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, from, 0, to, 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		switch errno {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// rawHangUp asks poll(2) whether the other end of a socket has ended its side
// (half) or the connection is over, by a reset or from both sides (whole).
// Bytes that have come before and are not read yet do not hide it.
func rawHangUp(fd uintptr) (half, whole bool) {
	is := rawPoll(fd, unix.POLLRDHUP)
	return is&unix.POLLRDHUP != 0, is&(unix.POLLHUP|unix.POLLERR) != 0
}

// rawPoll asks poll(2), without waiting, which of some events there are; POLLHUP and
// POLLERR are always among them.
func rawPoll(fd uintptr, events int16) int16 {
	poll := unix.PollFd{Fd: int32(fd), Events: events}
	var at unix.Timespec // now
	syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&at)), 0, 0, 0)
	return poll.Revents
}

// rawAccept is accept4(2): a connection's descriptor, non-blocking, and its
// other end.
func rawAccept(listener uintptr) (fd int, peer netip.AddrPort, errno syscall.Errno) {
	var sa unix.RawSockaddrAny
	for {
		size := uint32(unix.SizeofSockaddrAny)
		r, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, listener, uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int(r), address(&sa), 0
		case syscall.EINTR, syscall.ECONNABORTED:
		default:
			return -1, peer, errno
		}
	}
}

// rawClose is close(2) of a socket that does not linger, which does not block.
func rawClose(fd int) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// address reads what the kernel has written about a TCP socket's other end.
func address(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port(&in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), port(&in.Port))
	}
	return netip.AddrPort{}
}

// port reads a number in network byte order.
func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
