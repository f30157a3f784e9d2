package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// process is a program started in a namespace.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string // file with its output
	done chan struct{}
}

// startProcess starts a program with its output added to a file. Whatever
// ISTHMUS_ variables this program has are not meant for it.
func startProcess(n *namespace, name, log string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the command has its own copy
	cmd := exec.Command(args[0], args[1:]...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ISTHMUS_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := n.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() { // ends with the process
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// kill ends the process with SIGKILL and waits for it to be gone.
func (p *process) kill() {
	if p == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGKILL) // an error means that it has ended by itself
	<-p.done
}

// alive is an error with the last words of a process that has ended by itself.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %s", p.name, lastLine(p.log))
	default:
		return nil
	}
}

func lastLine(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	last := "it said nothing"
	for s := bufio.NewScanner(f); s.Scan(); {
		last = s.Text()
	}
	return last
}

// startGuard starts a process that cleans up after this one, should it be
// killed: namespaces and files would stay. It does so at the end of a pipe,
// which is when the file is closed or this process is gone.
func startGuard(dir string) (*os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(self, "-guard", dir)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// guard is what the guard does: wait, then clean up.
func guard(dir string) error {
	parent := os.Getppid()
	io.Copy(io.Discard, os.Stdin) // until the process that started this one is gone
	if strings.HasPrefix(filepath.Base(dir), prefix) {
		os.RemoveAll(dir)
	}
	return sweep(parent)
}
