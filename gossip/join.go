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

// settlingRounds is how many rounds, a second apart, a newcomer takes to settle.
const settlingRounds = 5

// forgetAfter is how long a member that is gone is remembered, and with it its
// endpoints.
const forgetAfter = 24 * time.Hour

// join keeps this member in touch with its seeds. Start starts it; it ends
// with ctx.
func (g *Gossip) join(ctx context.Context) {
	wait := time.Duration(0)
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		// When all start at once, the news of a member may be over before some
		// have come. The first rounds exchange everything with the seeds, whether
		// they are there already or not.
		missing := g.missingSeeds(ctx, round < settlingRounds)
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
		case round < settlingRounds:
			wait = firstJoin
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
// at which no living member is, or, if all says so, every address but ours.
func (g *Gossip) missingSeeds(ctx context.Context, all bool) []string {
	alive := map[string]bool{}
	self := g.list.LocalNode().Address()
	for _, n := range g.list.Members() {
		alive[n.Address()] = !all || n.Address() == self
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
			delete(g.wanted, name)
			delete(g.digests, name)
		}
	}
}
