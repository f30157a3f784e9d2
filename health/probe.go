package health

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Probe reports whether something listens at an address: nil if a TCP
// connection can be made within the time-out.
func Probe(ctx context.Context, addr netip.AddrPort, timeout time.Duration) error {
	d := net.Dialer{Timeout: timeout, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// Prober looks at a set of addresses again and again.
type Prober struct {
	interval, timeout time.Duration
	report            func(addr netip.AddrPort, err error)
	cancel            context.CancelFunc
	done              chan struct{}

	mu    sync.Mutex // guards addrs
	addrs []netip.AddrPort
}

// probeWorkers bounds how many addresses are looked at at once.
const probeWorkers = 32

// NewProber starts a prober, whose goroutine Close ends. report is called for
// every probe, by several goroutines.
func NewProber(interval, timeout time.Duration, report func(addr netip.AddrPort, err error)) *Prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Prober{interval: interval, timeout: timeout, report: report, cancel: cancel, done: make(chan struct{})}
	go p.run(ctx)
	return p
}

// Watch replaces the addresses that are looked at.
func (p *Prober) Watch(addrs []netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addrs = addrs
}

// Close ends the prober and waits for what is under way.
func (p *Prober) Close() {
	p.cancel()
	<-p.done
}

func (p *Prober) run(ctx context.Context) {
	defer close(p.done)
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		addrs := p.addrs
		p.mu.Unlock()
		p.round(ctx, addrs)
	}
}

// round probes all addresses once.
func (p *Prober) round(ctx context.Context, addrs []netip.AddrPort) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, probeWorkers)
	for _, a := range addrs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := Probe(ctx, a, p.timeout); ctx.Err() == nil {
				p.report(a, err)
			}
		})
	}
	wg.Wait()
}
