package ratelimit

import (
	"math"
	"sync"
	"time"

	"isthmus/mesh"
)

// holder has what this proxy has been given of the tokens of keys, wherever
// their homes are. It knows no goroutines and no clock.
type holder struct {
	shards [16]shard
}

type shard struct {
	mu     sync.Mutex // guards leases
	leases *lru[leaseKey, lease]
}

// lease is what is known of one key.
type lease struct {
	requests uint32
	unit     mesh.LimitUnit
	tokens   uint32
	left     uint32        // one more than what was last said to be left at the home; 0: nothing
	heard    time.Duration // when that was
	moved    bool          // and it was another home that said so

	used    time.Duration // when a request came last
	active  bool          // it may have tokens or demand
	short   bool          // the home has less than is wanted: no use in asking before the next round
	next    time.Duration // when to ask next
	asked   time.Duration // since when an ask has had no answer; 0: there is none
	seen    float64       // requests since the last ask of a round
	since   time.Duration // when that was
	demand  float64       // requests a second, smoothed
	share   float64       // tokens that were given, a second, smoothed
	given   float64       // tokens since counted
	counted time.Duration // when share was reckoned last
	known   bool          // a home has ever answered
	debt    uint32        // tokens taken ahead of a grant that is under way

	wait chan struct{} // closed by the next grant; nil: nobody waits for it

	// Without an answer of the home, the lease is a small bucket of its own.
	alone   float64
	aloneAt time.Duration // 0: it is not
}

const (
	// lostAfter is how long a home may not answer before its holders go on alone:
	// a round trip between continents and two rounds.
	lostAfter = 400 * time.Millisecond

	// storeRounds is for how many rounds a holder keeps tokens in store: this one,
	// and the next, in which the grant may be under way.
	storeRounds = 2

	// smoothing is the time in seconds that demand and share are averaged over. Of
	// manyRequests in one round demand grows at once, since they are no accident.
	smoothing    = 0.3
	manyRequests = 5

	// leastDue is how many requests are due in a round for there to be a store.
	// With fewer, each asks for itself: that is exact, and costs no more messages.
	leastDue = 2
)

func newHolder() *holder {
	h := &holder{}
	for i := range h.shards {
		h.shards[i].leases = newLRU[leaseKey, lease](maxKeys / len(h.shards))
	}
	return h
}

func (h *holder) shard(k leaseKey) *shard { return &h.shards[k[0]%byte(len(h.shards))] }

// answer is what take says.
type answer uint8

const (
	over answer = iota
	allowed
	ask   // the home for what taking.ask says, and wait for the grant
	await // the grant: an ask is under way
)

// taking is a request for tokens of a key.
type taking struct {
	key      leaseKey
	requests uint32 // of the limit
	unit     mesh.LimitUnit
	hits     uint32 // that are taken
	first    bool   // it has not waited yet
	late     bool   // it must not wait any longer
	ring     *ring
	self     string // this proxy's name in it

	ask leaseAsk // what to ask, where take says so
}

// need is how many tokens there have to be: one for a request that takes none, and asks
// whether there is room.
func (t *taking) need() uint32 { return max(t.hits, 1) }

// take takes tokens for a request, if there are any. Else it may say to wait for a
// grant: until wait is closed, or, where it is nil, since the home is here, until
// that has been asked.
func (h *holder) take(now time.Duration, t *taking) (got answer, left uint32, wait chan struct{}) {
	s := h.shard(t.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases.get(t.key)
	if l == nil {
		l = s.leases.put(t.key, lease{since: now, counted: now})
	}
	l.requests, l.unit = t.requests, t.unit
	if !l.active {
		l.active, l.since, l.next = true, now, now+leastRound
	}
	if t.first {
		l.seen += float64(t.hits)
		l.used = now
	}
	switch {
	case l.tokens >= t.need():
		l.tokens -= t.hits
		return allowed, l.remaining(), nil
	case t.need() > t.requests: // it can never pass
		return over, l.remaining(), nil
	case l.lost(now):
		return l.takeAlone(now, t), 0, nil
	case l.short:
		return over, l.remaining(), nil
	case t.late && l.known && uint64(l.left) > uint64(l.debt)+uint64(t.need()):
		// There was enough a moment ago: the grant that is under way pays.
		l.debt += t.hits
		return allowed, l.remaining(), nil
	case t.late:
		return l.takeAlone(now, t), 0, nil
	case l.wait != nil:
		return await, 0, l.wait
	}
	if t.ring.home(t.key) != t.self {
		l.wait = make(chan struct{})
	}
	t.ask = l.ask(now, t.key)
	t.ask.want = t.need() - l.tokens
	if l.asked == 0 {
		l.asked = now
	}
	return ask, 0, l.wait
}

func (l *lease) lost(now time.Duration) bool { return l.asked != 0 && now-l.asked > lostAfter }

// remaining is how much is left of the limit, as far as is known here.
func (l *lease) remaining() uint32 {
	left := l.tokens
	if l.left > 0 {
		left += l.left - 1
	}
	return min(left, l.requests)
}

// takeAlone takes from the lease's own bucket: half of what it was given lately
// and half of an even part. Of the proxies that are cut off from a home, both
// add up to the limit at most, and so does half of each.
func (l *lease) takeAlone(now time.Duration, t *taking) answer {
	perSecond := float64(t.requests) / t.unit.Span().Seconds()
	peers := float64(len(t.ring.names))
	even := perSecond / peers
	rate := (min(l.share, perSecond) + even) / 2
	if !l.known {
		rate = even
	}
	// It holds a second's tokens, or an even part of a unit's, and one at least.
	most := max(rate, rate*t.unit.Span().Seconds()/float64(10), 1)
	if l.aloneAt == 0 {
		l.aloneAt = now
		if !l.known {
			l.alone = float64(roundFairly(min(most, float64(t.requests)/peers)))
		}
	}
	l.alone = min(l.alone+rate*(now-l.aloneAt).Seconds(), most)
	l.aloneAt = now
	if l.alone < float64(t.need()) {
		return over
	}
	l.alone -= float64(t.hits)
	return allowed
}

// ask begins an ask.
func (l *lease) ask(now time.Duration, k leaseKey) leaseAsk {
	a := leaseAsk{key: k, requests: l.requests, unit: l.unit}
	if l.left > 0 && l.moved {
		filled := float64(l.requests) / l.unit.Span().Seconds() * (now - l.heard).Seconds()
		a.left = uint32(min(float64(l.left-1)+filled, float64(l.requests))) + 1
	}
	return a
}

// round calls say with what to ask of every key whose round is over, and reports
// whether any lease is active.
func (h *holder) round(now time.Duration, say func(leaseAsk)) (active bool) {
	var asks []leaseAsk
	for i := range h.shards {
		var more bool
		asks, more = h.shards[i].round(now, asks[:0])
		active = active || more
		for _, a := range asks {
			say(a)
		}
	}
	return active
}

// activeFor is how long a lease may stay active after its last request: until a
// round is over, and one more. Leases lie in the order of their use, so those
// that were used before need not be looked at.
const activeFor = 2*mostRound + time.Second

func (s *shard) round(now time.Duration, asks []leaseAsk) (_ []leaseAsk, active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases.each(func(k leaseKey, l *lease) bool {
		if now-l.used > activeFor {
			return false
		}
		if l.active && now >= l.next {
			if a := l.endRound(now, k); a.want+a.back > 0 {
				asks = append(asks, a)
			}
		}
		active = active || l.active
		return true
	})
	return asks, active
}

// endRound ends a round: what was asked for in it says what is wanted for the
// next ones.
func (l *lease) endRound(now time.Duration, k leaseKey) leaseAsk {
	a := l.ask(now, k)
	elapsed := max((now - l.since).Seconds(), leastRound.Seconds())
	length := max(l.next-l.since, leastRound)
	idle := l.seen == 0
	weight := 1 - math.Exp(-elapsed/smoothing)
	rate := l.seen / elapsed
	if l.demand += weight * (rate - l.demand); l.seen >= manyRequests {
		l.demand = max(l.demand, rate)
	}
	if l.asked == 0 { // else nobody knows what is given, and what was stays
		span := max((now - l.counted).Seconds(), leastRound.Seconds())
		l.share += (1 - math.Exp(-span/smoothing)) * (l.given/span - l.share)
		l.given, l.counted = 0, now
	}
	l.seen, l.since, l.next = 0, now, now+length

	store := uint32(0)
	if due := l.demand * length.Seconds(); due >= leastDue {
		store = uint32(min(math.Ceil(due*storeRounds), float64(l.requests)))
	}
	switch {
	case idle && store == 0:
		// Nobody has asked for a while: what is left goes back.
		a.back, l.tokens = l.tokens, 0
		l.active, l.short, l.asked, l.aloneAt, l.demand = false, false, 0, 0, 0
		l.wakeAll()
	case l.tokens > store:
		a.back, l.tokens = l.tokens-store, store
	case l.tokens < store:
		a.want = store - l.tokens
	case l.short && !idle, l.wait != nil && now-l.asked >= leastRound: // the ask or its answer is lost
		a.want = 1
	}
	if l.short && a.want == 0 {
		l.short = false // the next request may ask by itself
	}
	if l.asked == 0 && a.want > 0 {
		l.asked = now
	}
	return a
}

// granted takes a grant in.
func (h *holder) granted(now time.Duration, g *leaseGrant) {
	s := h.shard(g.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases.peek(g.key)
	if l == nil {
		return // its tokens are lost
	}
	// No home has more than the limit, whatever a message says.
	tokens, left := min(g.tokens, l.requests), min(g.left, l.requests)
	paid := min(l.debt, tokens)
	l.debt -= paid
	l.tokens = min(l.tokens+tokens-paid, max(l.tokens, l.requests))
	l.given += float64(tokens)
	l.left, l.heard, l.moved, l.short = left+1, now, false, g.short
	l.asked, l.known, l.aloneAt, l.alone = 0, true, 0, 0
	l.next = max(l.next, l.since+min(time.Duration(g.again)*time.Millisecond, mostRound))
	l.wakeAll()
}

// wakeAll has those who wait look again, and ask again if need be.
func (l *lease) wakeAll() {
	if l.wait != nil {
		close(l.wait)
		l.wait = nil
	}
}

// moved forgets what was asked of homes that are no longer those of their keys.
func (h *holder) moved(from, to *ring) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		s.leases.each(func(k leaseKey, l *lease) bool {
			if from.home(k) == to.home(k) {
				return true
			}
			l.asked, l.short, l.debt, l.moved = 0, false, 0, true
			l.wakeAll()
			return true
		})
		s.mu.Unlock()
	}
}

// lost counts the keys whose home does not answer.
func (h *holder) lost(now time.Duration) (n int) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		s.leases.each(func(_ leaseKey, l *lease) bool {
			if now-l.used > activeFor {
				return false
			}
			if l.lost(now) {
				n++
			}
			return true
		})
		s.mu.Unlock()
	}
	return n
}
