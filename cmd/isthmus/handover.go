package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"isthmus/gossip"
	"isthmus/handover"
)

// executable is where the program was when the process started: what is there now may be
// a newer one.
var executable = handover.Program()

// own is the program of this process, whatever has become of its file.
const own = "/proc/self/exe"

const (
	// prepareTimeout is how long a successor may take until it has read everything: ten
	// thousand resources take some seconds.
	prepareTimeout = time.Minute

	// readyTimeout is how long it may take from then on, while nobody hears gossip.
	readyTimeout = 10 * time.Second

	// settleTimeout is how long a successor waits for name servers and the application
	// beside it before it takes over.
	settleTimeout = 2 * time.Second

	// endsWithin is how long the port of gossip of a predecessor that was killed meanwhile
	// is waited for: the system closes one file of it after the other.
	endsWithin = 5 * time.Second
)

// prepare waits, where another process's place is taken, until that has let go of its port
// of gossip. An error is what would keep this one from having it, or another.
func (s *server) prepare(o gossip.Options) error {
	if s.before == nil {
		return nil
	}
	if o.Bind != "" {
		if err := gossip.Check(o, s.before.Held()); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	s.control.Settle(ctx)
	if !s.before.Prepare() && o.Bind != "" {
		for end := time.Now().Add(endsWithin); gossip.Check(o, "") != nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// handOver has the program that is on the disk now take this process's place, with the
// same arguments, and reports whether it has. If it has not, everything goes on as before;
// where it ended after gossip was handed over, this process's own program takes its place
// once more. ctx is over when the process is to end.
func (s *server) handOver(ctx context.Context, told wishes) bool {
	if os.Getpid() == 1 {
		s.log.Warn("not handed over: this is the first process of a container, which ends with it; replace the container")
		return false
	}
	ending, stop := context.WithCancel(ctx)
	defer stop()
	s.handing.begin(stop)
	go func() { // ends with ending
		select {
		case <-s.quit:
		case <-s.leaving:
		case <-ending.Done():
		}
		stop()
	}()
	sockets, err := s.sockets()
	defer handover.Close(sockets)
	if err != nil {
		s.log.Error("not handed over", "error", err)
		return false
	}
	pid, gone, err := s.handTo(ending, executable, sockets)
	if err != nil && gone && ending.Err() == nil {
		s.log.Error("the successor has failed; this process's own program takes its place", "error", err)
		pid, _, err = s.handTo(ending, own, sockets)
	}
	switch {
	case err == nil:
		s.log.Info("handed over", "successor", pid)
		if err := handover.Notify(fmt.Sprintf("MAINPID=%d", pid)); err != nil {
			s.log.Warn("the service manager is not told of the successor", "error", err)
		}
		s.passOn(ctx, told, pid)
	case gone:
		s.log.Error("not handed over, and gossip is over: other proxies take this one for dead, and it hears of no changes; mend what is wrong, and send SIGUSR2 once more, or start it again", "error", err)
	default:
		s.log.Error("not handed over: everything goes on as before", "error", err)
	}
	if err != nil {
		s.handing.begin(nil)
	}
	return err == nil
}

// handing says how far a hand-over is, for those who change by hand what is in force, or
// have this process drain or end.
type handing struct {
	mu   sync.Mutex
	stop context.CancelFunc // nil: none is under way
	late bool               // it cannot be stopped any more
	over bool               // the successor has been told what this process was told
}

// begin notes that one begins that stop ends, or, with nil, that none is under way.
func (h *handing) begin(stop context.CancelFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop, h.late = stop, false
}

// pass reports whether nothing has stopped it, and has nothing do so from then on.
func (h *handing) pass(ending context.Context) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.late = ending.Err() == nil
	return h.late
}

var errReplaced = errors.New("another process takes this one's place at this moment: ask that one")

// decide stops one, before something is decided that the successor would not know: it has
// read what was decided before. An error is that it is too late for that.
func (h *handing) decide() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late {
		return errReplaced
	}
	if h.stop != nil {
		h.stop()
	}
	return nil
}

// unlessOver does what a successor is told of, unless that is too late, which is the error.
func (h *handing) unlessOver(do func()) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return errReplaced
	}
	do()
	return nil
}

// errEnding is why a process that is to end, or to be left alone by new requests, has no
// successor, nor one whose operator decides what is in force meanwhile: that one would know
// nothing of it.
var errEnding = errors.New("this process was told to end, or to drain, or what is in force")

// passOn tells the successor what this process was asked for since it began to hand over.
func (s *server) passOn(ctx context.Context, told wishes, pid int) {
	select {
	case <-told.reload:
		syscall.Kill(pid, syscall.SIGHUP)
	default:
	}
	select {
	case <-told.reopen:
		s.accessLog.Reopen()
		syscall.Kill(pid, syscall.SIGUSR1)
	default:
	}
	select {
	case <-told.hand: // there may be a newer program since
		syscall.Kill(pid, syscall.SIGUSR2)
	default:
	}
	s.handing.mu.Lock()
	s.handing.over = true
	s.handing.mu.Unlock()
	select {
	case <-s.quit:
	case <-ctx.Done():
	default:
		return
	}
	syscall.Kill(pid, syscall.SIGTERM)
}

// sockets are all that listen.
func (s *server) sockets() ([]handover.Socket, error) {
	list, err := s.proxy.Sockets()
	for _, p := range s.pages {
		if err == nil {
			var one handover.Socket
			if one, err = handover.Duplicate(p.name, p.address, p.listener.(syscall.Conn)); err == nil {
				list = append(list, one)
			}
		}
	}
	return list, err
}

// handTo hands over to a program, unless ctx is over before gossip is let go of. gone says
// that it has been.
func (s *server) handTo(ctx context.Context, program string, sockets []handover.Socket) (pid int, gone bool, err error) {
	next, err := handover.Start(program, sockets, s.bootstrap.Gossip.Bind)
	if err != nil {
		return 0, false, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, process %d: %w", program, next.PID, err)
			next.Kill()
		} else {
			next.Release()
		}
	}()
	s.log.Info("handing over", "program", program, "successor", next.PID)
	soon, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	err = next.Prepared(soon.Done())
	if !s.handing.pass(ctx) {
		err = errEnding
	}
	if err != nil {
		return 0, false, err
	}
	if s.gossip != nil {
		gone = true
		s.gossip.Close()
		if err := s.gossip.WriteRecords(next.Records()); err != nil {
			s.log.Warn("the successor is not told what other proxies announce: it has to hear of it anew", "error", err)
		}
	}
	// What this process is told from now on is passed on: the successor can say goodbye.
	soon, cancel = context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	if err := next.Go(); err != nil {
		return 0, gone, err
	}
	return next.PID, gone, next.Ready(soon.Done())
}

// retire serves what is under way to its end. The successor accepts what comes.
func (s *server) retire(told wishes) {
	began := time.Now()
	deadline, cancel := context.WithTimeout(context.Background(), s.bootstrap.Drain.Timeout)
	defer cancel()
	go s.rotate(deadline, told)
	s.stop() // the successor follows the files, and writes what is kept of them
	var pages sync.WaitGroup
	for _, a := range s.admin {
		pages.Go(func() { // ends with deadline
			a.Shutdown(deadline)
		})
	}
	s.drained(began, s.proxy.HandOver(deadline))
	cancel()
	pages.Wait()
	s.close()
}
