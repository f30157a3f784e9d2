package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// generated is what the generator prints when it is done.
type generated struct {
	Requests int
	P50, P99 float64 // µs
}

// openLoopConnections is how many connections the generator uses.
const openLoopConnections = 16

// generateLoad sends rate requests a second on average, whether or not replies
// come, as independent users do, and prints how long replies took. Latency
// counts from the moment when a request was due, not from when a connection
// was free for it, so that a proxy that stalls is not spared.
func generateLoad(target string, rate, seconds int, fresh bool) error {
	length := time.Duration(seconds) * time.Second
	due := make(chan time.Time, 2*rate*seconds+1000) // never full: due moments do not wait for replies
	workers := make([]worker, openLoopConnections)
	var wg sync.WaitGroup
	for i := range workers {
		c, err := net.Dial("tcp", target)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(length + 10*time.Second)) // no error on a new connection
		w := &workers[i]
		w.conn, w.request, w.buf = c, requestFor(target, fresh), make([]byte, 64<<10)
		wg.Go(func() { w.run(due) })
	}
	err := schedule(due, rate, length)
	close(due)
	wg.Wait()
	if err != nil {
		return err
	}
	var took []time.Duration
	for _, w := range workers {
		if w.err != nil {
			return w.err
		}
		took = append(took, w.took...)
	}
	slices.Sort(took)
	return json.NewEncoder(os.Stdout).Encode(generated{len(took), quantile(took, 0.5), quantile(took, 0.99)})
}

// quantile returns µs; durations are sorted.
func quantile(took []time.Duration, q float64) float64 {
	if len(took) == 0 {
		return 0
	}
	return float64(took[min(len(took)-1, int(q*float64(len(took))))]) / 1e3
}

// schedule hands out the moments at which requests are due: the same in every
// run, with random gaps.
func schedule(due chan<- time.Time, rate int, length time.Duration) error {
	a, err := newAlarm()
	if err != nil {
		return err
	}
	defer a.file.Close()
	random := rand.New(rand.NewPCG(1, 2))
	start := time.Now()
	for next := start; ; {
		next = next.Add(time.Duration(random.ExpFloat64() / float64(rate) * 1e9))
		if next.Sub(start) >= length {
			return nil
		}
		if err := a.sleep(time.Until(next)); err != nil {
			return err
		}
		due <- next
	}
}

// alarm sleeps to the microsecond. The timers of Go's runtime wake up to a
// millisecond late when a process has nothing else to do, which is longer
// than what is measured.
type alarm struct {
	fd   uintptr
	file *os.File
}

func newAlarm() (*alarm, error) {
	const monotonic = 1 // CLOCK_MONOTONIC
	fd, _, e := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if e != 0 {
		return nil, os.NewSyscallError("timerfd_create", e)
	}
	return &alarm{fd, os.NewFile(fd, "timer")}, nil
}

func (a *alarm) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	when := [2]syscall.Timespec{1: syscall.NsecToTimespec(int64(d))} // no interval, then the moment
	if _, _, e := syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, a.fd, 0, uintptr(unsafe.Pointer(&when)), 0, 0, 0); e != 0 {
		return os.NewSyscallError("timerfd_settime", e)
	}
	var expirations [8]byte
	_, err := a.file.Read(expirations[:])
	return err
}

// worker is one connection: it takes the next request that is due, whenever it
// has no other under way.
type worker struct {
	conn         net.Conn
	request, buf []byte
	took         []time.Duration
	err          error
}

func (w *worker) run(due <-chan time.Time) {
	for moment := range due {
		if w.err = w.exchange(); w.err != nil {
			return
		}
		w.took = append(w.took, time.Since(moment))
	}
}

// exchange sends the request and reads the whole reply.
func (w *worker) exchange() error {
	if _, err := w.conn.Write(w.request); err != nil {
		return err
	}
	n, end := 0, -1
	for end < 0 {
		if n == len(w.buf) {
			return errors.New("the head of a reply has no end")
		}
		m, err := w.conn.Read(w.buf[n:])
		if err != nil {
			return err
		}
		n += m
		end = bytes.Index(w.buf[:n], []byte("\r\n\r\n"))
	}
	length, err := bodyLength(w.buf[:end+2])
	if err != nil {
		return err
	}
	for left := length - (n - end - 4); left > 0; {
		m, err := w.conn.Read(w.buf)
		if err != nil {
			return err
		}
		left -= m
	}
	return nil
}

// bodyLength is the Content-Length of a good reply's head.
func bodyLength(head []byte) (int, error) {
	first, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 2")) {
		return 0, fmt.Errorf("a bad reply: %q", first)
	}
	for line := range bytes.SplitSeq(rest, []byte("\r\n")) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			return strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	return 0, fmt.Errorf("a reply without Content-Length: %q", head)
}
