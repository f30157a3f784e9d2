package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// demoNode is one proxy.
type demoNode struct {
	name, cluster string
	labels        map[string]string
	sidecar       bool // it has applications beside it; else it is for callers
	alone         bool // it is on the machine outside of Kubernetes: no gossip, and little configuration

	outbound, inbound, gateway, admin, gossip int // ports on 127.0.0.1

	mu     sync.Mutex // guards cmd and exited
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	log    string        // file of its standard error
}

func (m *demoMesh) startNode(n *demoNode) error {
	n.log = filepath.Join(m.dir, n.cluster+"-"+n.name+".log")
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	config := filepath.Join(m.dir, n.cluster)
	if n.alone {
		config = filepath.Join(m.dir, "machine")
	}
	cmd := exec.Command(m.program, "run", "--bootstrap", m.bootstrapFile(n), "--config", config)
	// Whatever ISTHMUS_ variables this process has are not meant for the children.
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ISTHMUS_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for us alone
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { // ends with the process
		cmd.Wait()
		close(exited)
	}()
	n.mu.Lock()
	n.cmd, n.exited = cmd, exited
	n.mu.Unlock()
	return nil
}

func (n *demoNode) kill() {
	n.signal(syscall.SIGKILL)
}

// signal sends a signal and waits for the process to end.
func (n *demoNode) signal(s os.Signal) {
	n.mu.Lock()
	cmd, exited := n.cmd, n.exited
	n.cmd = nil
	n.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(s)
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		cmd.Process.Kill()
		<-exited
	}
}

// alive returns the last words of a proxy that has ended by itself.
func (n *demoNode) alive() error {
	n.mu.Lock()
	exited := n.exited
	running := n.cmd != nil
	n.mu.Unlock()
	if !running {
		return nil
	}
	select {
	case <-exited:
		return fmt.Errorf("the proxy %s in %s has ended: %s", n.name, n.cluster, lastLine(n.log))
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
	last := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		last = s.Text()
	}
	return last
}
