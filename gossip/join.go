package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How often seeds are looked for: soon at first, then with growing patience,
// and for ever, since a partition may have parted us from all of them. In
// between, those that are missing are knocked at, by one packet each, so that a
// link that is back is noticed soon, however long it was away.
const (
	firstJoin  = time.Second
	lastJoin   = 30 * time.Second
	knockEvery = 2 * time.Second
)

// settlingRounds is how many rounds, a second apart, a newcomer takes to settle.
const settlingRounds = 5

// triesAtOnce bounds how many seeds are tried at once: a name may have as many
// addresses as there are proxies.
const triesAtOnce = 8

// join keeps this member in touch with its seeds. Start starts it; it ends
// with ctx.
func (g *Gossip) join(ctx context.Context) {
	var seeds []string
	var away []string // seeds that answer, though no member says that it lives there
	var told bool     // that we are alone
	wait := time.Duration(0)
	for round := 0; ; round++ {
		back := g.rest(ctx, wait, without(seeds, away))
		if ctx.Err() != nil {
			return
		}
		if len(back) > 0 {
			g.tryAll(back)
			wait = firstJoin
			continue
		}
		// When all start at once, the news of a member may be over before some
		// have come. The first rounds exchange everything with the seeds, whether
		// they are there already or not.
		var failed []error
		seeds, failed = g.seeds(ctx)
		missing := seeds
		if round >= settlingRounds {
			missing = g.missing(seeds)
		}
		missing = slices.Concat(missing, without(g.contacts(), missing))
		reached, refused := g.tryAll(missing)
		told = g.tellAlone(round, append(failed, refused...), told)
		away = g.missing(reached)
		g.forget()
		wait = nextTry(round, wait, len(missing), len(reached))
		if g.options.Fast {
			wait = min(wait, 100*time.Millisecond)
		}
		wait += rand.N(wait/4 + 1)
	}
}

// loneRounds is how many rounds, of the first ones, may pass without anybody else: who
// starts first waits for the others.
const loneRounds = 3

// tellAlone logs that nobody else is reached, with what has failed, once, and that
// somebody is. It returns whether the former has been told.
func (g *Gossip) tellAlone(round int, failed []error, told bool) bool {
	others := 0
	for _, m := range g.Members() {
		if m.State == stateAlive && m.Name != g.name {
			others++
		}
	}
	switch {
	case others > 0 && told:
		g.log.Info("gossip: others are reached", "members", others)
		return false
	case others == 0 && !told && round+1 >= loneRounds && len(failed) > 0:
		g.log.Warn("gossip: nobody else is reached, so nothing is heard of other proxies' endpoints; gossip.join is tried for ever", "error", summary(failed))
		return true
	}
	return told
}

// summary is some errors, of which few say enough.
func summary(errs []error) string {
	const enough = 3
	var out []string
	for _, err := range errs[:min(len(errs), enough)] {
		out = append(out, err.Error())
	}
	if more := len(errs) - enough; more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, "; ")
}

// nextTry is how long to wait after a try in which some of the missing seeds were
// reached. One that is reached and is missing the next time is an address for
// several members, as a load balancer's is: there is no hurry.
func nextTry(round int, wait time.Duration, missing, reached int) time.Duration {
	switch {
	case round < settlingRounds:
		return firstJoin
	case reached == missing:
		return lastJoin
	case reached > 0 || wait == 0:
		return firstJoin
	}
	return min(2*max(wait, firstJoin), lastJoin)
}

func without(list, those []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(those, s) })
}

// rest waits, and returns which of the seeds that are missing answer in the
// meantime, as soon as any does.
func (g *Gossip) rest(ctx context.Context, wait time.Duration, seeds []string) (back []string) {
	every := knockEvery
	if g.options.Fast {
		every = 50 * time.Millisecond
	}
	for end := time.Now().Add(wait); ; {
		left := time.Until(end)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(left, every)):
		}
		if left <= every {
			return nil
		}
		for _, a := range g.missing(seeds) {
			if ctx.Err() != nil {
				return nil
			}
			if g.answers(a) { // or not, which takes memberlist half a second
				back = append(back, a)
			}
		}
		if len(back) > 0 {
			return back
		}
	}
}

// answers reports whether a member is at an address, as far as UDP can tell.
func (g *Gossip) answers(address string) bool {
	a, err := net.ResolveUDPAddr("udp", address) // of numbers
	if err != nil {
		return false
	}
	_, err = g.list.Ping("", a)
	return err == nil
}

// tryAll exchanges everything with some seeds, several at once since one that is
// gone takes its time, and returns those that it has reached, and why not the others.
// It does not wait for them when gossip is over.
func (g *Gossip) tryAll(addresses []string) (reached []string, failed []error) {
	g.joining <- struct{}{} // at once: Leave looks only
	defer func() { <-g.joining }()
	type outcome struct {
		address string
		err     error
	}
	outcomes := make(chan outcome, len(addresses))
	places := make(chan struct{}, triesAtOnce)
	for _, address := range addresses {
		go func() { // ends with memberlist's TCPTimeout at the latest, once it has a place
			select {
			case places <- struct{}{}:
			case <-g.stopped:
				return
			}
			defer func() { <-places }()
			_, err := g.list.Join([]string{address})
			outcomes <- outcome{address, err}
		}()
	}
	for range addresses {
		select {
		case <-g.stopped:
			return reached, failed
		case o := <-outcomes:
			if o.err == nil {
				reached = append(reached, o.address)
				continue
			}
			if one := errors.Unwrap(o.err); one != nil {
				o.err = one // of a list of one
			}
			g.log.Debug("gossip seed not reached", "address", o.address, "error", o.err)
			failed = append(failed, o.err)
		}
	}
	return reached, failed
}

// seeds resolves the names of the seeds anew and returns their addresses, without
// our own, and why there are none for some.
func (g *Gossip) seeds(ctx context.Context) (out []string, failed []error) {
	self := g.list.LocalNode().Address()
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
			failed = append(failed, err)
			continue
		}
		for _, a := range addrs {
			if addr := net.JoinHostPort(a, port); addr != self {
				out = append(out, addr)
			}
		}
	}
	return out, failed
}

// missing are the seeds at whose addresses no living member is.
func (g *Gossip) missing(seeds []string) []string {
	alive := map[string]bool{}
	g.mu.Lock()
	for _, m := range g.members {
		alive[m.Address] = alive[m.Address] || m.State == stateAlive
	}
	g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(seeds), func(a string) bool { return alive[a] })
}
