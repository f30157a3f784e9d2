package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// How often seeds are looked for: soon at first, then with growing patience,
// and for ever, since a partition may have parted us from all of them.
const (
	firstJoin = time.Second
	lastJoin  = 30 * time.Second
)

// forgetAfter is how long a member that is gone is remembered, and with it its
// endpoints.
const forgetAfter = 24 * time.Hour

// join keeps this member in touch with its seeds. Start starts it; it ends
// with ctx.
func (g *Gossip) join(ctx context.Context) {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		missing := g.missingSeeds(ctx)
		joined := 0
		for _, addr := range missing {
			if ctx.Err() != nil {
				return
			}
			n, err := g.list.Join([]string{addr})
			joined += n
			if err != nil {
				g.log.Debug("gossip seed not reached", "address", addr, "error", err)
			}
		}
		g.forget()
		switch {
		case len(missing) == 0:
			wait = lastJoin
		case joined > 0 || wait == 0:
			wait = firstJoin
		default:
			wait = min(2*max(wait, firstJoin), lastJoin)
		}
		if g.options.Fast {
			wait = min(wait, 100*time.Millisecond)
		}
		wait += rand.N(wait/4 + 1)
	}
}

// missingSeeds resolves the names of the seeds anew and returns the addresses
// at which no living member is.
func (g *Gossip) missingSeeds(ctx context.Context) []string {
	alive := map[string]bool{}
	for _, n := range g.list.Members() {
		alive[n.Address()] = true
	}
	var out []string
	for _, seed := range g.options.Join {
		host, port, err := net.SplitHostPort(seed)
		if err != nil {
			continue
		}
		if _, err := strconv.Atoi(port); err != nil {
			continue
		}
		lookup, cancel := context.WithTimeout(ctx, 5*time.Second)
		addrs, err := net.DefaultResolver.LookupHost(lookup, host)
		cancel()
		if err != nil {
			g.log.Debug("gossip seed not resolved", "name", host, "error", err)
			continue
		}
		for _, a := range addrs {
			if addr := net.JoinHostPort(a, port); !alive[addr] {
				out = append(out, addr)
			}
		}
	}
	return out
}

// forget drops members that are long gone, with their records.
func (g *Gossip) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, m := range g.members {
		if m.State != stateAlive && time.Since(m.since) > forgetAfter {
			delete(g.members, name)
			delete(g.records, name)
			delete(g.asked, name)
		}
	}
}
