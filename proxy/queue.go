package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// connQueue holds an upstream to maxConnections. Who finds no connection to
// take and none allowed to open waits in line, at most http1MaxPendingRequests
// of them. Each connection that ends or falls idle is the turn of the first in
// line; nobody overtakes.
type connQueue struct {
	open    atomic.Int32 // connections open or being opened
	waiting atomic.Int32 // len(waiters), or one more for who may join them; to be read without mu
	follow  atomic.Int32 // requests that wait for a stream of another's connection; see streamLine
	retired atomic.Int32 // of those open, connections over HTTP/2 that end with the last of their requests

	// Requests whose reply is over for the client, and that have their connection still; and
	// those among waiters, perhaps, that have a stream.
	ending atomic.Int32

	mu      sync.Mutex      // guards what is below, and open and follow against their limits
	waiters []chan struct{} // each is closed when its turn comes
	most    int32           // how many connections there may be, by the table in force; 0: any number
}

// lease gets a connection to a member: a kept one, or a new one if the
// upstream's limits allow, waiting in line if they do not. fresh refuses kept
// ones; again says that the request has been sent before. t is about now. Nobody waits for
// a client who has gone.
func (u *upstream) lease(m *member, client *stream, t, deadline instant, fresh, again bool) (*upstreamConn, *Error) {
	if u.multiplexes(client) {
		return u.leaseStream(m, client, t, deadline, again)
	}
	return u.leaseWhole(m, client, t, deadline, fresh)
}

// leaseWhole does so over HTTP/1.1, whatever the upstream is spoken to by usually.
func (u *upstream) leaseWhole(m *member, client *stream, t, deadline instant, fresh bool) (*upstreamConn, *Error) {
	q := &u.live.queue
	limit := u.limits.connections
	if !fresh && (limit == 0 || q.waiting.Load() == 0) {
		if c := u.kept(m, t); c != nil {
			return c, nil
		}
	}
	if limit == 0 {
		q.open.Add(1)
		return u.dial(m, u.connectTimeout, deadline, asHTTP1)
	}
	for place := -1; ; place = 0 {
		turn, err := q.enter(u, place, place == 0)
		if err != nil {
			return nil, err
		}
		if turn == nil {
			return u.dial(m, u.connectTimeout, deadline, asHTTP1)
		}
		if kind := q.await(turn, nil, deadline, client); kind != NoError {
			return nil, &Error{Kind: kind, Upstream: u.key.String()}
		}
		if c := u.kept(m, now()); c != nil && !fresh {
			return c, nil
		} else if c != nil {
			c.discard()
		}
	}
}

// limit sets how many connections there may be. Those in line, the first ones first, may
// have what that is more than before.
func (q *connQueue) limit(most int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most = most
	for free := most - q.open.Load(); most == 0 || free > 0; free-- {
		if !q.turn() {
			return
		}
	}
}

// surplus is how many connections there are more than there may be, of those that a table before
// has let open. Those that are on their way out are not too many once more.
func (u *upstream) surplus() int {
	q := &u.live.queue
	if u.limits.connections == 0 {
		return 0
	}
	return int(q.open.Load() - q.retired.Load() - u.limits.connections)
}

// endSurplus ends connections that are too many: those that are idle now, and those that speak
// HTTP/2 with the last of their requests, but for one to each endpoint. Others end when they
// are given back.
func (u *upstream) endSurplus() {
	q := &u.live.queue
	q.mu.Lock()
	for u.surplus() > 0 && u.closeIdle() {
	}
	q.mu.Unlock()
	surplus := u.surplus()
	if surplus <= 0 {
		return
	}
	for _, m := range u.members {
		surplus -= m.shared.retireSome(surplus)
	}
}

// place takes the place of one new connection that no request waits for, if there is one
// that nobody in line waits for either.
func (q *connQueue) place(limit int32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if limit != 0 && (len(q.waiters) > 0 || q.open.Load() >= limit) {
		return false
	}
	q.open.Add(1)
	return true
}

// enter takes the place of one new connection, or else a turn in line: at the
// end of it, or at its front for place 0, whose turn it was. Who has waited already may
// go on, however many have come since.
func (q *connQueue) enter(u *upstream, place int, waited bool) (turn chan struct{}, err *Error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// Who gives a place back from here on is to come for mu: what we find taken now
	// may be free before we stand in line.
	q.waiting.Store(int32(len(q.waiters) + 1))
	defer func() { q.waiting.Store(int32(len(q.waiters))) }()
	first := place == 0 || len(q.waiters) == 0
	if first && (q.most == 0 || q.open.Load() < q.most || u.closeIdle()) {
		q.open.Add(1)
		return nil, nil
	}
	if !waited && !q.mayWait(u.limits.pending) {
		return nil, &Error{Kind: Overflow, Upstream: u.key.String()}
	}
	if first {
		u.endIdle() // whose end is our turn
	}
	turn = make(chan struct{})
	if place < 0 {
		place = len(q.waiters)
	}
	q.waiters = slices.Insert(q.waiters, place, turn)
	return turn, nil
}

// mayWait reports whether one more request may wait. The caller holds mu.
func (q *connQueue) mayWait(most int32) bool {
	return most == 0 || int32(len(q.waiters))+q.follow.Load()-q.ending.Load() < most
}

// follows counts a request that waits for a stream of a connection that another request
// opens, or waits for in line, until its turn is decided. It is false if no more may.
func (q *connQueue) follows(p *sharedPool, turn *streamTurn, most int32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case turn.conn != nil || turn.err != nil || turn.leads:
	case !q.mayWait(most):
		return false
	default:
		q.follow.Add(1)
		turn.queue = q
	}
	return true
}

// await waits for a turn, or for what makes it needless, unless that is nil: then
// the place in line is given up; see awaitEither.
func (q *connQueue) await(turn chan struct{}, needless <-chan struct{}, deadline instant, client *stream) Kind {
	kind := awaitEither(turn, needless, deadline, client)
	select {
	case <-turn:
		if kind == NoError {
			return NoError
		}
	default:
	}
	q.mu.Lock()
	i := slices.Index(q.waiters, turn)
	if i >= 0 {
		q.waiters = slices.Delete(q.waiters, i, i+1)
		q.waiting.Store(int32(len(q.waiters)))
	}
	q.mu.Unlock()
	if i < 0 {
		q.wake() // our turn came at the same moment: pass it on
	}
	return kind
}

// awaitEither waits for one of two things, of which the second may be nil. Timeout: the
// deadline came first; ClientGone: the client for whom we wait, if there is one, has gone.
func awaitEither(one, other <-chan struct{}, deadline instant, client *stream) Kind {
	timer := time.NewTimer(time.Duration(sooner(deadline, now()+clientCheck) - now()))
	defer timer.Stop()
	for {
		select {
		case <-one:
			return NoError
		case <-other:
			return NoError
		case <-timer.C:
		}
		switch t := now(); {
		case deadline != 0 && t >= deadline:
			return Timeout
		case client != nil && client.lost():
			return ClientGone
		default:
			timer.Reset(time.Duration(sooner(deadline, t+clientCheck) - t))
		}
	}
}

// leave gives up the place of a connection that has ended.
func (q *connQueue) leave() {
	q.open.Add(-1)
	q.wake()
}

// wake gives the first in line its turn.
func (q *connQueue) wake() {
	if q.waiting.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turn()
}

// turn gives the first in line its turn; false: there is nobody. The caller holds mu.
func (q *connQueue) turn() bool {
	if len(q.waiters) == 0 {
		return false
	}
	close(q.waiters[0])
	q.waiters = slices.Delete(q.waiters, 0, 1)
	q.waiting.Store(int32(len(q.waiters)))
	return true
}

// serveWaiting has those who wait for a connection, or for a stream of one, have what the
// limits of this upstream let them, who may have come by those of a table before.
func (u *upstream) serveWaiting() {
	u.live.queue.limit(u.limits.connections)
	u.endSurplus()
	for _, m := range u.members {
		m.shared.serveWaiting(u)
	}
}

// endIdle has one connection over HTTP/2 end, of any member, on which nothing is
// under way. Its place is free once it has ended.
func (u *upstream) endIdle() {
	for _, m := range u.members {
		if m.shared.endIdle(u) {
			return
		}
	}
}

// closeIdle ends one idle connection of any member and reports whether there
// was one. Its place is free afterwards. The caller holds the queue's mu.
func (u *upstream) closeIdle() bool {
	for _, m := range u.members {
		if c := m.pool.take(0, 0); c != nil {
			c.close()
			u.live.queue.open.Add(-1)
			return true
		}
	}
	return false
}
