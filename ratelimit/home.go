package ratelimit

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"isthmus/mesh"
)

// home keeps the tokens of the keys that are at home at this proxy, and gives
// them out to those who ask. A token is given to one of them alone, so however
// many ask, together they get no more than the limit.
type home struct {
	mu    sync.Mutex // guards what is below
	pots  *lru[leaseKey, pot]
	moved time.Duration // when proxies have come or gone last
}

// pot is the bucket of one key. It is filled evenly with the limit's requests in
// its unit, and holds as many.
type pot struct {
	requests uint32
	most     uint32 // the greatest that requests have been
	unit     mesh.LimitUnit
	tokens   float64
	at       time.Duration // when tokens were counted
	made     time.Duration

	// What has been wanted, and by how many, in this round of asking and in the
	// one before: who wants more gets more when there is not enough for all.
	round                time.Duration // when it began
	wanted, wantedBefore float64
	askers, askersBefore uint32
}

const (
	// leastRound is how often a holder asks for the tokens of a key: at 10 rounds
	// a second, what holders have in store is a fifth of a second's requests.
	leastRound = 100 * time.Millisecond

	// askersPerSecond bounds how many asks a second a home gets for one key: with
	// more holders rounds take longer, up to mostRound. At 60 bytes each these are
	// a few tens of KiB/s.
	askersPerSecond = 1000
	mostRound       = 2 * time.Second

	// maxKeys is how many keys a proxy keeps tokens of, and how many it is the home
	// of: some 10 MiB each when all are in use. Beyond them, the key that was not
	// asked for the longest begins anew when it comes back; most are full by then.
	maxKeys = 1 << 16

	// settling is how long a home asks holders of what it cannot know: all of them
	// have asked within that time.
	settling = time.Second
)

func newHome() *home { return &home{pots: newLRU[leaseKey, pot](maxKeys)} }

// ask gives tokens out.
func (h *home) ask(now time.Duration, a *leaseAsk) leaseGrant {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pots.get(a.key)
	if p == nil {
		p = h.pots.put(a.key, pot{most: a.requests, tokens: float64(a.requests), at: now, made: now, round: now})
		if h.moved != 0 && now-h.moved < settling {
			p.inherit(a, a.requests) // somebody else may know it
		}
	}
	if a.left > 0 && (now-p.made < settling || h.moved != 0 && now-h.moved < settling) {
		p.inherit(a, a.left-1)
	}
	p.change(a)
	p.refill(now)
	p.tokens = min(p.tokens+float64(a.back), float64(p.requests))
	length := p.roundLength()
	if now-p.round >= length {
		p.wantedBefore, p.askersBefore = p.wanted, p.askers
		if now-p.round >= 2*length {
			p.wantedBefore, p.askersBefore = 0, 0
		}
		p.round, p.wanted, p.askers = now, 0, 0
	}
	// What was wanted in the round before, and has not come yet in this one, will,
	// this ask's own part of it included: everybody gets a part of what is there by
	// what it wants.
	grant := float64(a.want)
	if wanted := max(grant, p.wantedBefore-p.wanted); p.tokens < wanted {
		grant *= p.tokens / wanted
	}
	p.wanted += float64(a.want)
	p.askers++
	g := leaseGrant{key: a.key, tokens: min(uint32(p.tokens), roundFairly(grant))}
	p.tokens -= float64(g.tokens)
	g.short = g.tokens < a.want
	g.left = uint32(p.tokens)
	g.again = uint32(p.roundLength() / time.Millisecond)
	return g
}

// change takes the limit over as the holder has it, since files may change. Of one
// that is raised, what is added may be taken at once, as if it had been there
// before; but once, since while some files are still the old ones every other ask
// raises it again.
func (p *pot) change(a *leaseAsk) {
	if a.requests > p.most {
		p.tokens += float64(a.requests - p.most)
		p.most = a.requests
	}
	p.requests, p.unit = a.requests, a.unit
}

// inherit has a home that others have just come to go on from what the one before
// it had left, as they have heard, and not from a full bucket: less what is filled
// in a second, since on the other side of a partition that one may still give it
// out. When a partition heals, what the quiet side has saved is not for the other
// to spend.
func (p *pot) inherit(a *leaseAsk, left uint32) {
	filled := math.Floor(float64(a.requests) / a.unit.Span().Seconds())
	p.tokens = min(p.tokens, max(float64(left)-filled, 0))
}

// peersMoved notes that proxies have come or gone.
func (h *home) peersMoved(now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moved = now
}

func (p *pot) refill(now time.Duration) {
	if elapsed := now - p.at; elapsed > 0 {
		p.tokens = min(p.tokens+float64(p.requests)*elapsed.Seconds()/p.unit.Span().Seconds(), float64(p.requests))
		p.at = now
	}
}

func (p *pot) roundLength() time.Duration {
	askers := max(p.askers, p.askersBefore)
	return min(max(time.Duration(askers)*time.Second/askersPerSecond, leastRound), mostRound)
}

// roundFairly makes a whole number whose mean is f: many holders who are due half
// a token each get half of them.
func roundFairly(f float64) uint32 {
	n := uint32(f)
	if rand.Float64() < f-float64(n) {
		n++
	}
	return n
}
