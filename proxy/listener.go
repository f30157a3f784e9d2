package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"isthmus/handover"
)

// listener accepts the connections of one port.
type listener struct {
	proxy   *Proxy
	name    string
	kind    listenerKind
	port    uint32   // a Gateway's
	file    *os.File // the socket; net.TCPListener would not let us accept by ourselves
	address net.Addr
	wanted  string // the address that was asked for

	accepting bool        // accept has been started; guarded by Proxy.mu
	silent    bool        // clients may wait for the other side to speak; likewise
	accepts   atomic.Bool // accept runs

	mu    sync.Mutex // guards what is below
	conns map[*conn]struct{}
	ended bool // see closeAll

	gone atomic.Bool // see part
}

func (p *Proxy) listen(name, address string, kind listenerKind, port uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listenLocked(name, address, kind, port)
}

// listenLocked opens a port. The caller holds mu.
func (p *Proxy) listenLocked(name, address string, kind listenerKind, port uint32) error {
	l, err := p.socket(name, address)
	if err != nil {
		return listenError(name, address, err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return listenError(name, address, err)
	}
	p.listeners[name] = &listener{proxy: p, name: name, kind: kind, port: port, file: file, address: l.Addr(), wanted: address, conns: map[*conn]struct{}{}}
	return nil
}

// socket listens at an address, or takes over the socket of a process before.
func (p *Proxy) socket(name, address string) (net.Listener, error) {
	if file := p.options.Predecessor.Socket(name, address); file != nil {
		defer file.Close()
		// It may have been a page's, or a Gateway's whose clients were silent.
		if raw, err := file.SyscallConn(); err == nil {
			inherited("", "", raw)
		}
		return net.FileListener(file)
	}
	// No keep-alive probes: a connection that stands still ends by its time-out.
	config := net.ListenConfig{KeepAlive: -1, Control: inherited}
	return config.Listen(context.Background(), "tcp", address)
}

// Sockets returns those that listen, by name and address as asked for, for a process that
// takes this one's place. Their descriptors are the caller's to close.
func (p *Proxy) Sockets() (list []handover.Socket, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, l := range p.listeners {
		s, err := handover.Duplicate(name, l.wanted, l.file)
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
	return list, nil
}

// takeOver makes a listener of another Gateway's port at the socket of one that is about
// to be closed, with the connections that wait there. The caller holds mu.
func (p *Proxy) takeOver(name string, port uint32, from *listener) error {
	s, err := handover.Duplicate(name, from.wanted, from.file)
	if err != nil {
		return listenError(name, from.wanted, err)
	}
	p.listeners[name] = &listener{
		proxy: p, name: name, kind: gateway, port: port, file: os.NewFile(uintptr(s.FD), name), address: from.address, wanted: from.wanted, silent: from.silent,
		conns: map[*conn]struct{}{},
	}
	return nil
}

// inherited sets what the connections of a listener take over from it.
func inherited(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		setDeferred(fd, acceptDelay)
	})
}

// acceptDelay is how long a new connection may be silent before it is handed
// to us; Linux counts in seconds, by the handshake's timer.
const acceptDelay = instant(time.Second)

// setDeferred has Linux hand over a connection with its first bytes, so that
// most requests can be read at once, or after the delay.
func setDeferred(fd uintptr, delay instant) {
	unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(delay/instant(time.Second)))
}

// expectSilence has connections handed over at once, though their clients may
// not be the first to speak, or as usual. The caller holds Proxy.mu.
func (l *listener) expectSilence(silent bool) {
	if l.silent != silent {
		l.silent = silent
		l.deferAccept(map[bool]instant{false: acceptDelay}[silent])
	}
}

// acceptPending has connections handed over that are open but silent, which
// takes up to acceptDelay from now.
func (l *listener) acceptPending() {
	l.deferAccept(0)
}

func (l *listener) deferAccept(delay instant) {
	if raw, err := l.file.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { setDeferred(fd, delay) })
	}
}

// Accept has connections accepted that have waited for it, since there is a predecessor.
func (p *Proxy) Accept() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = false
	if p.table.Load() != nil {
		for _, l := range p.listeners {
			l.begin()
		}
	}
}

// begin starts to accept, once: there is a table that says what to do.
func (l *listener) begin() {
	if !l.accepting {
		l.accepting = true
		l.accepts.Store(true)
		go l.accept()
	}
}

// listenError is ListenError of a listener.
func listenError(name, address string, err error) error {
	setting := "listeners." + name
	if strings.HasPrefix(name, "gateway:") {
		setting = "listeners.gateway"
	}
	return ListenError(name, setting, address, err)
}

// ListenError says what to do about the usual reasons for which an address that a
// setting of the bootstrap file gives cannot be listened at.
func ListenError(name, setting, address string, err error) error {
	if cause := errors.Unwrap(err); cause != nil {
		err = cause // without the address, which net puts before it
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = ": another listener of this process, or another process, has the port; stop it or choose another one with " + setting + " in the bootstrap file"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = ": this machine has no such address; choose another one with " + setting + " in the bootstrap file"
	case errors.Is(err, syscall.EACCES):
		hint = ": ports below 1024 need CAP_NET_BIND_SERVICE; choose another one with " + setting + " in the bootstrap file"
	}
	return fmt.Errorf("listen %s %s: %w%s", name, address, err, hint)
}

// closeListener closes a port; connections that are open are served on. The
// caller holds mu.
func (p *Proxy) closeListener(name string) {
	if l := p.listeners[name]; l != nil {
		l.file.Close()
		delete(p.listeners, name)
		if l.accepting {
			p.shutting = append(p.shutting, l)
		}
	}
}

// everyListener returns the listeners, those too whose ports are closed and that have
// connections still. The caller holds mu.
func (p *Proxy) everyListener() []*listener {
	p.shutting = slices.DeleteFunc(p.shutting, (*listener).over)
	return slices.AppendSeq(slices.Clone(p.shutting), maps.Values(p.listeners))
}

// over reports whether there are no more connections, nor will be.
func (l *listener) over() bool {
	accepts := l.accepts.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	return !accepts && len(l.conns) == 0
}

// accept starts a goroutine for each connection, which ends with it.
// begin starts accept; it ends when the listener is closed.
func (l *listener) accept() {
	defer l.accepts.Store(false)
	raw, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		var fd int
		var peer netip.AddrPort
		var errno syscall.Errno
		err := raw.Read(func(s uintptr) bool {
			fd, peer, errno = rawAccept(s)
			return errno != syscall.EAGAIN
		})
		switch {
		case err != nil:
			return // closed
		case errno != 0:
			// Out of descriptors or memory: let connections end before the next try.
			if l.proxy.overload.warnings.Allow() {
				l.proxy.log.Warn("accept failed", "listener", l.name, "error", errno)
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if !l.proxy.takesConn(l) {
			unix.Close(fd)
			continue
		}
		c := newConn(l, fd, peer)
		l.mu.Lock()
		l.conns[c] = struct{}{}
		ended := l.ended
		l.mu.Unlock()
		if ended {
			c.kill(true) // it was accepted just before the port was closed
		}
		go c.serve()
	}
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	c.uncount()
}

// interruptIdle wakes every connection, if that is to be, so that those between two requests
// notice that the proxy drains; it returns how many there are.
func (l *listener) interruptIdle(wake bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wake {
		for c := range l.conns {
			if c.waiting.Load() || c.shared.Load() {
				c.interrupt()
			}
		}
	}
	return len(l.conns)
}

// part has its connections end with their next reply, those too that are just being accepted:
// over others, clients get to who has taken its place. Those that are idle are not ended, since
// the next request may be under way.
func (l *listener) part() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone.Store(true)
	for c := range l.conns {
		if c.shared.Load() {
			c.interrupt()
		}
	}
}

// parted reports whether it has been told to.
func (l *listener) parted() bool { return l != nil && l.gone.Load() }

// closeAll ends all connections, and those that are just being accepted.
func (l *listener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for c := range l.conns {
		c.kill(!c.waiting.Load())
	}
}
