package ratelimit

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"isthmus/mesh"
)

// Peers are the other proxies, as gossip knows them. Its methods may be called
// by any goroutine, and must not block.
type Peers interface {
	// Self is this proxy's name, and Others those of the others that keep limits
	// too and are alive.
	Self() string
	Others() []string
	// Send sends a message of 1000 bytes at most, which may be lost.
	Send(to string, message []byte)
}

// Shared is limits that the proxies of all clusters keep together, without a
// service: tokens of a key are at home at one of them, and the others take
// leases of them over gossip, as their demand is. Its methods may be called by
// any goroutine. docs/adr/009 says what that comes to.
type Shared struct {
	rules  atomic.Pointer[Rules]
	peers  Peers
	ring   atomic.Pointer[ring]
	stale  atomic.Bool // the ring: peers have come or gone
	turn   sync.Mutex  // held by who makes the ring anew
	home   *home
	holder *holder
	clock  func() time.Duration
	idle   atomic.Bool   // no lease is active: rounds stand still until one is
	wake   chan struct{} // ends that
	stop   chan struct{} // closed by Close
	ended  sync.WaitGroup
}

// NewShared makes limits without a rule.
func NewShared(p Peers) *Shared {
	s := newShared(p, func() func() time.Duration {
		begin := time.Now()
		return func() time.Duration { return time.Since(begin) + 1 } // 0 is no moment
	}())
	s.ended.Go(s.run)
	return s
}

func newShared(p Peers, clock func() time.Duration) *Shared {
	s := &Shared{peers: p, home: newHome(), holder: newHolder(), clock: clock, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	s.rules.Store(NewRules(nil))
	s.ring.Store(newRing([]string{p.Self()}))
	s.stale.Store(true)
	return s
}

// SetRules replaces the limits. Of those that stay, tokens and counts stay as
// they are.
func (s *Shared) SetRules(r *Rules) {
	r.adopt(s.rules.Load())
	s.rules.Store(r)
}

// Rules returns the limits.
func (s *Shared) Rules() []*Rule { return s.rules.Load().all }

// Peers returns how many proxies keep the limits, this one included.
func (s *Shared) Peers() int { return len(s.ring.Load().names) }

// PeersChanged says that other proxies have come or gone.
func (s *Shared) PeersChanged() { s.stale.Store(true) }

// Close ends what NewShared has started. Whoever asks after that is answered by
// what this proxy has.
func (s *Shared) Close() {
	close(s.stop)
	s.ended.Wait()
}

// tick is how often it is looked which rounds are over.
const tick = 20 * time.Millisecond

// run keeps the time of rounds, as long as there are any. NewShared starts it,
// Close ends it.
func (s *Shared) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		if s.tick() {
			continue
		}
		t.Stop()
		s.idle.Store(true)
		if s.tick() { // before which nobody has seen that it has to be ended
			s.idle.Store(false)
			t.Reset(tick)
			continue
		}
		select {
		case <-s.stop:
			return
		case <-s.wake:
		}
		s.idle.Store(false)
		t.Reset(tick)
	}
}

// tick ends rounds that are over, and reports whether any are under way.
func (s *Shared) tick() (more bool) {
	r := s.current()
	var out batches
	more = s.holder.round(s.clock(), func(a leaseAsk) { s.ask(r, &a, &out) })
	out.send(s.peers)
	return more
}

// current returns the ring, made anew if peers have come or gone.
func (s *Shared) current() *ring {
	if !s.stale.Load() {
		return s.ring.Load()
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	before := s.ring.Load()
	if !s.stale.Swap(false) {
		return before
	}
	next := newRing(append(s.peers.Others(), s.peers.Self()))
	if next.same(before) {
		return before
	}
	s.ring.Store(next)
	s.home.peersMoved(s.clock())
	s.holder.moved(before, next)
	return next
}

// ask asks the home of a key: at once if that is here, else by a message.
func (s *Shared) ask(r *ring, a *leaseAsk, out *batches) {
	to := r.home(a.key)
	if to == s.peers.Self() {
		g := s.home.ask(s.clock(), a)
		s.holder.granted(s.clock(), &g)
		return
	}
	out.add(s.peers, to, leaseAsks, func(b []byte) []byte { return appendAsk(b, a) })
}

// Receive takes a message of another proxy in. It does not block.
func (s *Shared) Receive(from string, message []byte) error {
	asks, grants, err := parseLeases(message)
	if err != nil {
		return err
	}
	now := s.clock()
	for i := range grants {
		s.holder.granted(now, &grants[i])
	}
	var out batches
	for i := range asks {
		g := s.home.ask(now, &asks[i])
		out.add(s.peers, from, leaseGrants, func(b []byte) []byte { return appendGrant(b, &g) })
	}
	out.send(s.peers)
	return nil
}

// batches gathers messages to others, several keys in one.
type batches struct{ byPeer map[string][]byte }

func (o *batches) add(p Peers, to string, kind byte, write func([]byte) []byte) {
	if o.byPeer == nil {
		o.byPeer = map[string][]byte{}
	}
	before := o.byPeer[to]
	if before == nil {
		before = append(make([]byte, 0, 64), kind)
	}
	after := write(before)
	if len(after) > maxLeaseMessage {
		p.Send(to, before)
		after = write([]byte{kind})
	}
	o.byPeer[to] = after
}

func (o *batches) send(p Peers) {
	for to, b := range o.byPeer {
		p.Send(to, b)
	}
}

// Ask says whether a request with descriptors may pass; see [Service.Ask]. It
// waits for the home of a key only where this proxy has no token of it and has
// not heard that there is none. There is always an answer, whose statuses hold until
// the descriptors are made anew.
func (s *Shared) Ask(timeout time.Duration, domain string, d *Descriptors) (v Verdict, err error) {
	rules := s.rules.Load()
	v.Statuses = d.statuses[:0]
	var end time.Duration
	for i := range d.Len() {
		rule := rules.find(domain, d.entriesOf(i))
		if rule == nil {
			v.Statuses = append(v.Statuses, Status{})
			continue
		}
		st := Status{Limited: true, Limit: *rule.Limit}
		if !rule.Limit.Unlimited {
			if end == 0 {
				end = s.clock() + bounded(timeout)
			}
			t := taking{key: keyOf(domain, d.key(i)), requests: rule.Limit.Requests, unit: rule.Limit.Unit, hits: uint32(d.Hits(i)), first: true}
			st.Over, st.Remaining = s.take(&t, end)
			st.Reset = resetOf(rule.Limit, st.Remaining)
		}
		switch {
		case !st.Over:
			rule.Counts.Allowed.Add(1)
		case rule.Shadow:
			rule.Counts.Shadow.Add(1)
			st.Over = false
		default:
			rule.Counts.Limited.Add(1)
			v.Over = true
		}
		v.Statuses = append(v.Statuses, st)
	}
	d.statuses = v.Statuses
	return v, nil
}

// take takes tokens of one key, and waits for them until end.
func (s *Shared) take(t *taking, end time.Duration) (isOver bool, left uint32) {
	t.self = s.peers.Self()
	for {
		now := s.clock()
		t.ring, t.late = s.current(), now >= end
		got, left, wait := s.holder.take(now, t)
		t.first = false
		if s.idle.Load() { // now that the lease is active: see run
			select {
			case s.wake <- struct{}{}:
			default: // it is about to wake
			}
		}
		switch got {
		case allowed, over:
			return got == over, left
		case ask:
			var out batches
			s.ask(t.ring, &t.ask, &out)
			out.send(s.peers)
		}
		if wait != nil && !s.await(wait, end) {
			end = 0
		}
	}
}

// await waits for a grant until end, and reports whether there is one.
func (s *Shared) await(wait chan struct{}, end time.Duration) bool {
	timer := time.NewTimer(end - s.clock())
	defer timer.Stop()
	select {
	case <-wait:
		return true
	case <-timer.C:
	case <-s.stop:
	}
	return false
}

// keyOf makes a key of a domain and a descriptor.
func keyOf(domain string, descriptor []byte) leaseKey {
	var space [256]byte
	sum := sha256.Sum256(append(appendPart(space[:0], domain), descriptor...))
	return leaseKey(sum[:])
}

// resetOf is how long it takes until all of a limit is there again.
func resetOf(l *mesh.ServiceLimit, left uint32) time.Duration {
	if l.Requests == 0 {
		return l.Unit.Span()
	}
	return time.Duration(float64(l.Requests-min(left, l.Requests)) / float64(l.Requests) * float64(l.Unit.Span()))
}

// State says what is wrong; "": nothing.
func (s *Shared) State() string {
	if n := s.holder.lost(s.clock()); n > 0 {
		return fmt.Sprintf("%d keys whose home does not answer", n)
	}
	return ""
}
