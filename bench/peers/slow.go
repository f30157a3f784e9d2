package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// holdSlow opens n connections, sends half of a request's head on each and
// then nothing: what slow clients, or an attack with few bytes, ask of a
// proxy. It says so by a line, waits for its input to end, and then says how
// many connections the proxy has left open.
func holdSlow(target string, n int) error {
	half := requestFor(target, false)
	half = half[:len(half)/2]
	conns := make([]*net.TCPConn, 0, n)
	for range n {
		c, err := net.DialTimeout("tcp", target, 10*time.Second)
		if err != nil {
			return fmt.Errorf("after %d connections: %w", len(conns), err)
		}
		conns = append(conns, c.(*net.TCPConn))
		if _, err := c.Write(half); err != nil {
			return fmt.Errorf("after %d connections: %w", len(conns), err)
		}
	}
	fmt.Println("open")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	open := 0
	for _, c := range conns {
		if isOpen(c) {
			open++
		}
	}
	_, err := fmt.Println(open)
	return err
}

// isOpen reports whether the other side has neither sent nor closed anything.
func isOpen(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		_, readErr = syscall.Read(int(fd), make([]byte, 1))
		return true // do not wait
	})
	return err == nil && readErr == syscall.EAGAIN
}

// heldMemory is what a proxy needs for n connections that are held open, in MiB.
// At the end left of them, or of what is on them, have to be there.
func (b *bench) heldMemory(t target, n, left int, more ...string) (mib float64, err error) {
	cmd := pinned(b.ctx, loadCPU, append([]string{b.self, "-slow", strconv.Itoa(n), "-target", localAddress(t.port)}, more...))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cmd.Process.Kill() // an error means that it has ended by itself
		cmd.Wait()
	}()
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		return 0, t.proc.failed("connections cannot be opened: %v", err)
	}
	if err := b.accepted(t, n); err != nil {
		return 0, err
	}
	if mib, err = t.proc.pss(); err != nil {
		return 0, err
	}
	in.Close() // the sign to count
	said, err := lines.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if open, err := strconv.Atoi(strings.TrimSpace(said)); err != nil || open < left {
		return 0, t.proc.failed("of %d it has left open %s", left, strings.TrimSpace(said))
	}
	return mib, nil
}

// accepted waits until a proxy has taken all connections from the kernel, and
// a little longer, in which it reads them.
func (b *bench) accepted(t target, n int) error {
	for range 100 {
		if t.proc.descriptors() >= n {
			return b.sleep(time.Second)
		}
		if err := b.sleep(100 * time.Millisecond); err != nil {
			return err
		}
	}
	return t.proc.failed("it accepts only %d of %d connections", t.proc.descriptors(), n)
}
