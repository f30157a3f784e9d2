package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// wishes are signals that do not end the process: from when they are made on, which is
// before the proxy has started. Who rotates logs does not know whether it has.
type wishes struct {
	reload chan os.Signal // SIGHUP
	reopen chan os.Signal // SIGUSR1
	hand   chan os.Signal // SIGUSR2
}

func newWishes() wishes {
	w := wishes{make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 1)}
	signal.Notify(w.reload, syscall.SIGHUP)
	signal.Notify(w.reopen, syscall.SIGUSR1)
	signal.Notify(w.hand, syscall.SIGUSR2)
	// Whoever reads what we write may go: that shall cost lines, not the proxy. To ignore
	// the signal would have the commands of probes ignore it, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return w
}

// wait serves until ctx is done or Quit is called, then drains: the others
// hear that this proxy goes, what is under way is finished, and that is it.
func (s *server) wait(ctx context.Context, told wishes) {
	for waiting := true; waiting; {
		select {
		case <-told.reload:
			s.Reload()
		case <-told.reopen:
			s.accessLog.Reopen()
		case <-told.hand:
			if s.handOver(ctx, told) {
				s.retire(told)
				return
			}
		case <-ctx.Done():
			waiting = false
		case <-s.quit:
			waiting = false
		}
	}
	s.log.Info("draining", "timeout", s.bootstrap.Drain.Timeout)
	began := time.Now()
	deadline, cancel := context.WithTimeout(context.Background(), s.bootstrap.Drain.Timeout)
	defer cancel()
	go s.rotate(deadline, told)
	s.control.Drain()
	s.leave()
	s.drained(began, s.proxy.Drain(deadline))
	s.close()
}

// rotate opens the access log anew when that is asked for amid a drain; it ends with ctx.
func (s *server) rotate(ctx context.Context, told wishes) {
	for {
		select {
		case <-told.reopen:
			s.accessLog.Reopen()
		case <-ctx.Done():
			return
		}
	}
}

// drained says how a drain that began then has ended, and ends what it has left.
func (s *server) drained(began time.Time, err error) {
	if err != nil {
		s.log.Warn("drained incompletely: what is under way ends now; drain.timeout of the bootstrap file gives it more time", "error", err)
		s.proxy.End(endTimeout)
	} else {
		s.log.Info("drained", "took", time.Since(began).Round(time.Millisecond))
	}
}

// endTimeout is how long what a drain has not brought to an end may take to be told of:
// whoever waits for an upstream looks every second whether its client is there.
const endTimeout = 1500 * time.Millisecond

func (s *server) leave() {
	if s.gossip == nil {
		return
	}
	if err := s.gossip.Leave(leaveTimeout); err != nil {
		s.log.Debug("gossip left incompletely", "error", err)
	}
}

// leaveTimeout is how long the others may take to hear that we go.
const leaveTimeout = 2 * time.Second

// stop ends what follows files and all other news.
func (s *server) stop() {
	if s.cancel != nil {
		s.cancel()
		s.control.Close()
		s.cancel = nil
	}
}

// close ends everything that was started.
func (s *server) close() {
	s.stop()
	for _, a := range s.admin {
		a.Close()
	}
	for _, p := range s.pages {
		p.listener.Close()
	}
	if s.gossip != nil {
		s.gossip.Close()
	}
	if s.proxy != nil {
		s.proxy.Close()
	}
	if s.limits != nil {
		s.limits.Close()
	}
	if s.keys != nil {
		s.keys.Close()
	}
	if s.accessLog != nil {
		s.accessLog.Close()
	}
}
