package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// prefix begins the name of every network namespace that is made here; the
// number of the process that made it follows.
const prefix = "isthmus-"

// namespaceDir is where ip(8) keeps namespaces that have names.
const namespaceDir = "/run/netns"

// namespace is a network namespace with a name that ip(8) knows.
type namespace struct {
	name string
	file *os.File // keeps it and is the way into it
	home *os.File // the namespace that this program was started in
}

// newNamespace makes a namespace whose loopback interface is up.
func newNamespace(name string) (*namespace, error) {
	full := prefix + strconv.Itoa(os.Getpid()) + "-" + name
	if err := ip("netns", "add", full); err != nil {
		return nil, err
	}
	n := &namespace{name: full}
	var err error
	if n.file, err = os.Open(filepath.Join(namespaceDir, full)); err == nil {
		n.home, err = os.Open("/proc/thread-self/ns/net")
	}
	if err == nil {
		err = n.ip("link", "set", "lo", "up")
	}
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// close deletes the namespace with all interfaces in it.
func (n *namespace) close() error {
	for _, f := range []*os.File{n.file, n.home} {
		if f != nil {
			f.Close()
		}
	}
	return ip("netns", "del", n.name)
}

// ip runs ip(8) in the namespace.
func (n *namespace) ip(args ...string) error {
	return ip(append([]string{"-n", n.name}, args...)...)
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// do calls f on a thread that is in the namespace. What f opens or starts
// belongs to the namespace for ever.
func (n *namespace) do(f func() error) error {
	runtime.LockOSThread()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", n.name, err)
	}
	err := f()
	if back := unix.Setns(int(n.home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that it ends with its goroutine and nobody
		// else gets it.
		return errors.Join(err, fmt.Errorf("leave %s: %w", n.name, back))
	}
	runtime.UnlockOSThread()
	return err
}

// dial connects to an address from within the namespace.
func (n *namespace) dial(ctx context.Context, address string) (net.Conn, error) {
	var c net.Conn
	err := n.do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

// start starts a command in the namespace. It does not outlive this program,
// and signals of the terminal do not reach it.
func (n *namespace) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return n.do(cmd.Start)
}

// set writes a value under /proc/sys/net as the namespace has it.
func (n *namespace) set(name, value string) error {
	return n.do(func() error { return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644) })
}

// sweep deletes the namespaces of runs that could not clean up: those whose
// process has ended, or is the given one.
func sweep(dead int) error {
	entries, err := os.ReadDir(namespaceDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, ok := owner(e.Name())
		if !ok || pid != dead && syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := ip("netns", "del", e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// owner is the process that a namespace's name tells of.
func owner(name string) (pid int, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	number, _, ok := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return pid, ok && err == nil && pid > 0
}
