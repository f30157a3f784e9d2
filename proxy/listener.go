package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// listener accepts the connections of one port.
type listener struct {
	proxy    *Proxy
	name     string
	kind     listenerKind
	port     uint32 // a Gateway's
	listener *net.TCPListener

	accepting bool // guarded by Proxy.mu

	mu    sync.Mutex // guards conns
	conns map[*conn]struct{}
}

func (p *Proxy) listen(name, address string, kind listenerKind, port uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listenLocked(name, address, kind, port)
}

// listenLocked opens a port. The caller holds mu.
func (p *Proxy) listenLocked(name, address string, kind listenerKind, port uint32) error {
	// No keep-alive probes: a connection that stands still ends by its time-out.
	config := net.ListenConfig{KeepAlive: -1}
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return listenError(name, address, err)
	}
	ln := &listener{proxy: p, name: name, kind: kind, port: port, listener: l.(*net.TCPListener), conns: map[*conn]struct{}{}}
	p.listeners[name] = ln
	return nil
}

// begin starts to accept, once: there is a table that says what to do.
func (l *listener) begin() {
	if !l.accepting {
		l.accepting = true
		go l.accept()
	}
}

// listenError says what to do about the usual reasons.
func listenError(name, address string, err error) error {
	setting := "listeners." + name
	if strings.HasPrefix(name, "gateway:") {
		setting = "listeners.gateway.ports"
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = ": another process has the port; stop it or choose another one with " + setting + " in the bootstrap file"
	case errors.Is(err, syscall.EACCES):
		hint = ": ports below 1024 need CAP_NET_BIND_SERVICE; map the port with listeners.gateway.ports in the bootstrap file"
	}
	return fmt.Errorf("listen %s %s: %w%s", name, address, errors.Unwrap(err), hint)
}

// closeListener closes a port; connections that are open are served on. The
// caller holds mu.
func (p *Proxy) closeListener(name string) {
	if l := p.listeners[name]; l != nil {
		l.listener.Close()
		delete(p.listeners, name)
		if p.closed {
			l.closeAll()
		}
	}
}

// accept starts a goroutine for each connection, which ends with it.
// begin starts accept; it ends when the listener is closed.
func (l *listener) accept() {
	for {
		c, err := l.listener.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or memory: let connections end before the next try.
			l.proxy.log.Warn("accept failed", "listener", l.name, "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s, err := newStream(c)
		if err != nil {
			c.Close()
			continue
		}
		cn := newConn(l, s)
		l.mu.Lock()
		l.conns[cn] = struct{}{}
		l.mu.Unlock()
		go cn.serve()
	}
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// interruptIdle wakes every connection, so that those between two requests
// notice that the proxy drains; it returns how many there are.
func (l *listener) interruptIdle() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.waiting.Load() {
			c.interrupt()
		}
	}
	return len(l.conns)
}

func (l *listener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.stream.conn.Close()
	}
}
