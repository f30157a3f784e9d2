// Package handover has a process be replaced by a newer one, and no connection be refused
// meanwhile: the successor is started by its predecessor, with the sockets that listen,
// and both can accept from them. What cannot be had twice, a port of UDP say, is handed
// over between two messages:
//
//	predecessor                         successor
//	starts it, with the sockets   -->   reads its files, and finds nothing wrong
//	lets go of what there is once <--   "prepared"
//	                "go"          -->   takes that
//	accepts no more, and drains   <--   "ready": it accepts
//
// Until "ready" the predecessor accepts, and goes on if the successor ends. This is what
// nginx, HAProxy's master and Envoy's hot restart do, for one program that has no master.
package handover

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable tells the successor what it has got; its value is an estate in JSON.
const variable = "_ISTHMUS_HANDOVER"

// Socket is one that listens.
type Socket struct {
	Name    string `json:"name"`    // of the listener: "outbound", "gateway:80"
	Address string `json:"address"` // as it was asked for; port 0 is any
	FD      int    `json:"fd"`
}

// Duplicate returns another descriptor of a listener's socket, or of a file that is one. It
// is the caller's to close.
func Duplicate(name, address string, of syscall.Conn) (s Socket, err error) {
	raw, err := of.SyscallConn()
	if err == nil {
		s = Socket{Name: name, Address: address}
		if e := raw.Control(func(fd uintptr) { s.FD, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
			err = e
		}
	}
	if err != nil {
		return s, fmt.Errorf("socket of %s: %w", name, err)
	}
	return s, nil
}

// Close closes descriptors.
func Close(list []Socket) {
	for _, s := range list {
		unix.Close(s.FD)
	}
}

// estate is what a successor gets: descriptors, by their numbers there.
type estate struct {
	Conn    int      `json:"conn"`
	Records int      `json:"records"`
	Sockets []Socket `json:"sockets"`
	Held    string   `json:"held,omitempty"` // see Start
}

// The messages, a line each.
const (
	prepared = "prepared"
	proceed  = "go"
	ready    = "ready"
)

// Program is where the program of this process is found, or that of its predecessor: by the
// name that it was started by, since that may be a link which leads to a newer one later.
// It is to be asked for before Inherit.
func Program() string {
	self, _ := os.Executable()
	named, err := exec.LookPath(os.Args[0])
	if err == nil {
		named, err = filepath.Abs(named)
	}
	if err != nil {
		return self
	}
	if _, ok := os.LookupEnv(variable); ok {
		return named // another program may be there, which has failed
	}
	a, err := os.Stat(named)
	if err != nil {
		return self
	}
	if b, err := os.Stat("/proc/self/exe"); err != nil || !os.SameFile(a, b) {
		return self // the name is just a name
	}
	return named
}

// Successor is a process that is to take this one's place.
type Successor struct {
	PID int

	conn    *os.File
	records *os.File
	said    chan string   // what it says; closed when it says no more
	ended   chan struct{} // closed when the process has ended, before which state is set
	state   *os.ProcessState
}

// Start starts a program in this one's place, with its arguments and environment. The
// sockets' descriptors are the caller's still. held is the address of what there is once, and
// is let go of before Go; "": nothing. An error is the system's.
func Start(program string, sockets []Socket, held string) (*Successor, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket to the successor: %w", err)
	}
	defer unix.Close(pair[1])
	records, err := unix.MemfdCreate("records", unix.MFD_CLOEXEC)
	if err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("memory for the successor: %w", err)
	}
	s := &Successor{conn: os.NewFile(uintptr(pair[0]), "successor"), records: os.NewFile(uintptr(records), "records"), said: make(chan string), ended: make(chan struct{})}
	files := []uintptr{0, 1, 2, uintptr(pair[1]), uintptr(records)}
	has := estate{Conn: 3, Records: 4, Held: held}
	for _, socket := range sockets {
		files = append(files, uintptr(socket.FD))
		socket.FD = len(files) - 1
		has.Sockets = append(has.Sockets, socket)
	}
	value, err := json.Marshal(has)
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), variable+"="+string(value))
	// Not os.StartProcess: to ask a file for its descriptor has it, and all that share the
	// socket, wait in system calls.
	if s.PID, err = syscall.ForkExec(program, os.Args, &syscall.ProcAttr{Env: env, Files: files}); err != nil {
		s.conn.Close()
		s.records.Close()
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	go s.wait()   // ends with the process
	go s.listen() // ends with the process, or with Release
	return s, nil
}

func (s *Successor) wait() {
	if p, err := os.FindProcess(s.PID); err == nil {
		s.state, _ = p.Wait()
	}
	close(s.ended)
}

func (s *Successor) listen() {
	defer close(s.said)
	for lines := bufio.NewScanner(s.conn); lines.Scan(); {
		s.said <- lines.Text()
	}
}

// await waits until it says something, or ends, or somebody has given up.
func (s *Successor) await(what string, over <-chan struct{}) error {
	select {
	case said, ok := <-s.said:
		if ok && said == what {
			return nil
		}
	case <-over:
		return errors.New("it takes too long")
	}
	select {
	case <-s.ended:
		return fmt.Errorf("it has ended (%v)", s.state)
	case <-over:
		return errors.New("it does not speak as a successor does")
	}
}

// Prepared waits until nothing is wrong with what the successor has read. over ends the
// wait.
func (s *Successor) Prepared(over <-chan struct{}) error { return s.await(prepared, over) }

// Records is a file for what this process knows and the successor is to begin with. It
// reads it after Go.
func (s *Successor) Records() io.Writer { return s.records }

// Go tells it that what there is once is let go of.
func (s *Successor) Go() error {
	_, err := io.WriteString(s.conn, proceed+"\n")
	return err
}

// Ready waits until it accepts. over ends the wait.
func (s *Successor) Ready(over <-chan struct{}) error { return s.await(ready, over) }

// Kill ends it: it has failed.
func (s *Successor) Kill() {
	syscall.Kill(s.PID, syscall.SIGKILL)
	s.Release()
	<-s.ended
}

// Release leaves it to itself.
func (s *Successor) Release() {
	s.conn.Close()
	s.records.Close()
	for range s.said { // listen ends
	}
}

// Inheritance is what this process has from its predecessor. Nil is none: its methods
// do nothing then.
type Inheritance struct {
	conn    net.Conn
	lines   *bufio.Scanner
	records *os.File
	held    string

	mu      sync.Mutex // guards sockets
	sockets []Socket   // that nobody has asked for
}

// Inherit returns what a predecessor has left to this process; nil if there is none. It
// is to be called once, before other processes are started.
func Inherit() (*Inheritance, error) {
	value, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(variable)
	var has estate
	if err := json.Unmarshal([]byte(value), &has); err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	for _, fd := range append([]int{has.Conn, has.Records}, fds(has.Sockets)...) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("%s: descriptor %d: %w", variable, fd, err)
		}
	}
	file := os.NewFile(uintptr(has.Conn), "predecessor")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	return &Inheritance{conn: conn, lines: bufio.NewScanner(conn), records: os.NewFile(uintptr(has.Records), "records"), sockets: has.Sockets, held: has.Held}, nil
}

func fds(list []Socket) (out []int) {
	for _, s := range list {
		out = append(out, s.FD)
	}
	return out
}

// Socket returns the one of a listener's name and address, or, since names may have
// changed, of its address; nil: there is none. It is the caller's.
func (i *Inheritance) Socket(name, address string) *os.File {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	at := -1
	for n, s := range i.sockets {
		switch {
		case s.Address != address:
		case s.Name == name:
			at = n
		case at < 0 && !strings.HasSuffix(address, ":0"):
			at = n
		}
	}
	if at < 0 {
		return nil
	}
	fd := i.sockets[at].FD
	i.sockets = append(i.sockets[:at:at], i.sockets[at+1:]...)
	return os.NewFile(uintptr(fd), name)
}

// Listen is net.Listen, by the socket of a listener if there is one.
func (i *Inheritance) Listen(name, address string) (net.Listener, error) {
	file := i.Socket(name, address)
	if file == nil {
		return net.Listen("tcp", address)
	}
	defer file.Close()
	return net.FileListener(file)
}

// Held is the address that the predecessor has until Prepare has returned; "": none.
func (i *Inheritance) Held() string {
	if i == nil {
		return ""
	}
	return i.held
}

// Prepare says that nothing is wrong, waits until the predecessor has let go of what there
// is once, and reports whether it has. Else it is ending: the system may be about to take
// that from it.
func (i *Inheritance) Prepare() bool {
	if i == nil {
		return true
	}
	io.WriteString(i.conn, prepared+"\n") // if nobody hears it, nobody has anything
	return i.lines.Scan()
}

// Records is what the predecessor has known; nil: nothing.
func (i *Inheritance) Records() *os.File {
	if i == nil {
		return nil
	}
	return i.records
}

// Ready says that connections are accepted, and closes what nobody has asked for.
func (i *Inheritance) Ready() {
	if i == nil {
		return
	}
	io.WriteString(i.conn, ready+"\n")
	i.conn.Close()
	i.records.Close()
	i.mu.Lock()
	defer i.mu.Unlock()
	Close(i.sockets)
	i.sockets = nil
}
