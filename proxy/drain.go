package proxy

import (
	"context"
	"fmt"
	"time"
)

// wakeEvery is how often connections that are idle, and may have another request, are woken
// so that they look whether they may still: what has been said to them once, they know.
// Twenty thousand of them cost two cores if each looks fifty times a second.
const wakeEvery = instant(500 * time.Millisecond)

// Drain tells each client with its next reply that its connection ends.
// Connections that are being made are still served, once; after two seconds, or
// half of the time until ctx's deadline, no more are accepted, those that are idle
// end, and the others are waited for. The application's own connections are accepted for as
// long as there are others: it may need the mesh to answer those. WebSockets are closed
// shortly before ctx's deadline, or at once if it has none. It returns ctx's error if that
// comes first.
func (p *Proxy) Drain(ctx context.Context) error { return p.drain(ctx, false) }

// HandOver is Drain where another process accepts from the same sockets: this one does
// so no more, at once. What waits there is the other's, and so is who comes; connections
// that are idle may have a request on its way, and get until shortly before the end.
func (p *Proxy) HandOver(ctx context.Context) error { return p.drain(ctx, true) }

func (p *Proxy) drain(ctx context.Context, handed bool) error {
	p.draining.Store(true)
	if !handed {
		p.mu.Lock()
		for _, l := range p.everyListener() {
			l.acceptPending()
		}
		p.mu.Unlock()
	}
	window := 2 * acceptDelay
	var parting <-chan time.Time // nil: the drain takes as long as it takes
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		if window = min(window, instant(left/2)); handed {
			window = instant(left - farewell(left))
		}
		timer := time.NewTimer(left - farewell(left))
		defer timer.Stop()
		parting = timer.C
	} else {
		p.websockets.leave()
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	woken := now() - wakeEvery
	for closed, end := handed, now()+window; ; {
		if now() >= end {
			closed = true
			p.shut.Store(true)
		}
		due := now() >= woken+wakeEvery
		if due {
			woken = now()
		}
		p.mu.Lock()
		listeners := p.everyListener() // a snapshot that is published meanwhile may bring one
		p.mu.Unlock()
		left, over := 0, closed
		see := func(l *listener, closed, ending bool) {
			if closed {
				l.file.Close() // again does nothing
			}
			over = over && !l.accepts.Load() // else a connection may not be among its conns yet
			left += l.interruptIdle(due || ending)
		}
		for _, l := range listeners {
			if l.kind != outbound {
				see(l, closed, p.shut.Load())
			}
		}
		within := handed || over && left == 0 // the application has nothing left to answer
		if within && p.shut.Load() {
			p.alone.Store(true)
		}
		for _, l := range listeners {
			if l.kind == outbound {
				see(l, within, p.alone.Load())
			}
		}
		if left == 0 {
			left = p.workers.underWay()
		}
		if over && left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d connections still under way: %w", left, ctx.Err())
		case <-parting:
			p.websockets.leave()
		case <-tick.C:
		}
	}
}

// End ends the exchanges that are under way, and waits for so long at most until the log
// and the traces have been told of them.
func (p *Proxy) End(within time.Duration) {
	p.ended.Store(true)
	p.mu.Lock()
	listeners := p.everyListener()
	p.mu.Unlock()
	for _, l := range listeners {
		l.closeAll()
	}
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		n := p.workers.underWay()
		for _, l := range listeners {
			l.mu.Lock()
			n += len(l.conns)
			l.mu.Unlock()
		}
		if n == 0 {
			return
		}
	}
}
