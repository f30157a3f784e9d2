package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The proxy has a CPU of its own; load and upstream share the other.
const (
	proxyCPU = "0"
	loadCPU  = "1"
)

// process is something started in a session of its own, by which its children
// are known.
type process struct {
	cmd  *exec.Cmd
	log  string // file with its output
	done chan struct{}
}

// wanted is how many descriptors each process gets: enough for 10,000
// connections with another behind some of them, and the same everywhere.
const wanted = 20_000

// limitDescriptors sets the limit, for what is started as well.
func limitDescriptors() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Max < wanted {
		return fmt.Errorf("at most %d open files are allowed (`ulimit -Hn`), %d are needed", l.Max, wanted)
	}
	l.Cur = wanted
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// start runs a command on one CPU, with its output in a file.
func start(cpu, log string, args []string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the command has its own copy
	cmd := pinned(context.Background(), cpu, args)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() { // ends with the process
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// pinned is a command on one CPU with one thread for Go code. It does not
// outlive this program.
func pinned(ctx context.Context, cpu string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", cpu}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// stop ends the process and its children.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		syscall.Kill(group, signal) // an error means that it has ended by itself
		select {
		case <-p.done:
			return
		case <-time.After(3 * time.Second):
		}
	}
}

// waitFor returns once the process listens.
func (p *process) waitFor(ctx context.Context, port int) error {
	for range 2000 {
		if c, err := net.Dial("tcp", localAddress(port)); err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return p.failed("it has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return p.failed("it does not listen on port %d", port)
}

// alive is an error if the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return p.failed("it has ended")
	default:
		return nil
	}
}

// failed is an error with the last that the process said.
func (p *process) failed(format string, args ...any) error {
	said, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s: %s; it said:\n%s", filepath.Base(p.cmd.Args[3]), fmt.Sprintf(format, args...), said[max(0, len(said)-2000):])
}

// session calls visit with every process of the session: its folder in /proc
// and the fields of its stat file after the name.
func (p *process) session(visit func(folder string, fields []string)) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // has just ended
		}
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) > 14 && fields[3] == strconv.Itoa(p.cmd.Process.Pid) {
			visit(filepath.Dir(file), fields)
		}
	}
}

// tick is the unit of times in /proc (USER_HZ), which is 100 on every Linux.
const tick = 100

// cpu is how many seconds all processes of the session have computed.
func (p *process) cpu() float64 {
	ticks := 0
	p.session(func(_ string, fields []string) {
		for _, field := range fields[11:15] { // utime stime cutime cstime
			n, _ := strconv.Atoi(field) // the kernel writes numbers
			ticks += n
		}
	})
	return float64(ticks) / tick
}

var pssLine = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB`)

// pss is how many MiB the session has in memory; what processes share counts
// once.
func (p *process) pss() (float64, error) {
	kib, err := 0, errors.New("no process is left")
	p.session(func(folder string, _ []string) {
		var b []byte
		if b, err = os.ReadFile(filepath.Join(folder, "smaps_rollup")); err != nil {
			return
		}
		if m := pssLine.FindSubmatch(b); m != nil {
			n, _ := strconv.Atoi(string(m[1])) // digits, by the pattern
			kib += n
		}
	})
	if err != nil {
		return 0, p.failed("its memory cannot be read: %v", err)
	}
	return float64(kib) / 1024, nil
}

// descriptors is how many files and connections the session has open.
func (p *process) descriptors() int {
	n := 0
	p.session(func(folder string, _ []string) {
		open, _ := os.ReadDir(filepath.Join(folder, "fd")) // has just ended, then
		n += len(open)
	})
	return n
}

// Ports are looked for below those that Linux takes for connections, of which
// thousands come and go here.
const (
	firstPort = 10_000
	lastPort  = 32_000
)

// freePorts are n ports that nobody uses at this moment.
func freePorts(n int) ([]int, error) {
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		port := firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		switch {
		case err == nil:
			defer l.Close() // only when all are chosen, so that they differ
			ports = append(ports, port)
		case tries == 100:
			return nil, err
		}
	}
	return ports, nil
}

func localAddress(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
