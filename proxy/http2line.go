package proxy

import (
	"errors"
	"slices"
)

// streamLine is where requests wait for a stream of an endpoint's connections while
// none has room: who comes first is served first, and nobody overtakes. One of them, the
// leader, sees to another connection, for all of them; the next one is when that is there.
type streamLine struct {
	// Guarded by the pool's mu.
	line   []*streamTurn // what was sent before in vain at the front
	leader *streamTurn   // in line, but while it opens a connection; nil: nobody waits
	looks  bool          // the leader waits for what a connection will say
}

// streamTurn is a request in line. What is below told is guarded by the pool's mu.
type streamTurn struct {
	told chan struct{} // of capacity 1: there is something new below

	conn  *upstreamConn // the stream that it gets
	err   *Error        // or why it gets none, which is the endpoint's fault
	leads bool
	again bool       // it has been sent before, in vain
	queue *connQueue // that counts it among those who follow; nil: none does
	stays *connQueue // likewise, among its waiters, perhaps, though it has a stream
}

// decided says what has become of the request, which from here on does not wait, whenever it
// hears of that.
func (t *streamTurn) decided() {
	t.uncount()
	t.tell()
}

func (t *streamTurn) uncount() {
	if t.queue != nil {
		t.queue.follow.Add(-1)
		t.queue = nil
	}
}

func (t *streamTurn) tell() {
	select {
	case t.told <- struct{}{}:
	default:
	}
}

// take leases a stream, or has the request stand in line for one: then leads says whether
// it is the leader.
func (p *sharedPool) take(u *upstream, t instant, again bool) (c *upstreamConn, turn *streamTurn, leads bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve(u)
	if len(p.line) == 0 {
		if c := p.room(u, t); c != nil {
			return c, nil, false
		}
	}
	turn = &streamTurn{told: make(chan struct{}, 1), again: again}
	at := len(p.line)
	for again && at > 0 && !p.line[at-1].again {
		at--
	}
	p.line = slices.Insert(p.line, at, turn)
	if p.leader == nil {
		p.leader, turn.leads = turn, true
	}
	return nil, turn, turn.leads
}

// serve gives those in line, the first one first, what room there is. The caller holds mu.
func (p *sharedPool) serve(u *upstream) {
	for len(p.line) > 0 {
		c := p.room(u, now())
		if c == nil {
			return
		}
		turn := p.line[0]
		p.line = slices.Delete(p.line, 0, 1)
		turn.conn, c.waited = c, true
		if turn.leads {
			turn.stays = &u.live.queue
			turn.stays.ending.Add(1)
		}
		turn.decided()
	}
}

// serveWaiting does so, where somebody is in line.
func (p *sharedPool) serveWaiting(u *upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.line) > 0 {
		p.serve(u)
	}
}

// lookAgain has a leader that waits for what a connection says think again. The caller
// holds mu.
func (p *sharedPool) lookAgain() {
	if p.looks {
		p.leader.tell()
	}
}

// settle returns what has become of a request in line: a stream, an error, or the lead. If
// it goes, it leaves the line when there is nothing of these.
func (p *sharedPool) settle(turn *streamTurn, goes bool) (*upstreamConn, *Error, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if goes && turn.conn == nil && turn.err == nil {
		p.leave(turn)
		turn.uncount()
	}
	return turn.conn, turn.err, turn.leads
}

// leave takes a request out of the line, if it is in there. The caller holds mu.
func (p *sharedPool) leave(turn *streamTurn) {
	if i := slices.Index(p.line, turn); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
	}
}

// pass ends a lead. If the endpoint is at fault, all in line hear so; else the first of them
// leads.
func (p *sharedPool) pass(turn *streamTurn, fault *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(turn)
	p.leader = nil
	if turn.stays != nil {
		turn.stays.ending.Add(-1)
	}
	if fault != nil {
		for _, t := range p.line {
			t.err = fault
			t.decided()
		}
		p.line = nil
	}
	if len(p.line) > 0 {
		p.leader, p.line[0].leads = p.line[0], true
		p.leader.decided()
	}
}

// leaseStream gets a stream to a member: of a connection that is open, or of a new one.
// again says that the request has been sent before, in vain: it need not wait for those
// that have not.
func (u *upstream) leaseStream(m *member, client *stream, t, deadline instant, again bool) (*upstreamConn, *Error) {
	c, turn, leads := m.shared.take(u, t, again)
	if c != nil {
		return c, nil
	}
	q := &u.live.queue
	if leads {
		return u.lead(m, turn, client, false, deadline)
	}
	kind := Overflow
	if q.follows(&m.shared, turn, u.limits.pending) {
		kind = awaitEither(turn.told, nil, deadline, client)
	}
	c, err, leads := m.shared.settle(turn, kind != NoError)
	if leads && c == nil && kind == NoError {
		return u.lead(m, turn, client, true, deadline)
	}
	if leads {
		m.shared.pass(turn, nil)
	}
	if c == nil && err == nil {
		err = &Error{Kind: kind, Upstream: u.key.String()}
	}
	return c, err
}

// lead opens a connection, in its turn if the upstream's connections are limited, and leases
// a stream of it, or gets one of another connection before that.
func (u *upstream) lead(m *member, turn *streamTurn, client *stream, waited bool, deadline instant) (c *upstreamConn, err *Error) {
	p := &m.shared
	var fault *Error
	defer func() { p.pass(turn, fault) }()
	placed := false
	if err, fault = u.awaitOpen(m, turn, client, deadline); err == nil {
		placed, err = u.placeFor(m, turn, client, waited, deadline)
	}
	if err != nil {
		if c, _, _ = p.settle(turn, true); c != nil {
			fault = nil
			return c, nil // which came at the same moment
		}
		return nil, err
	}
	if c = p.depart(turn); c != nil {
		if placed {
			u.live.queue.leave()
		}
		return c, nil
	}
	start := now()
	if c, err = u.dial(m, u.connectTimeout, deadline, asHTTP2); err != nil {
		p.opening(-1)
		if hurried := deadline != 0 && deadline < start+u.connectTimeout; !hurried && answers[err.Kind].unsent {
			fault = err // else it says more of this request than of the endpoint
		}
		return nil, err
	}
	return u.share(c, true), nil
}

// awaitOpen waits, for as long as a dial may take, where the endpoint has said over its
// last connection that it takes no requests for now, or has yet to say how many: over
// another one it would hardly take more. If it stays so, the endpoint is as good as out of
// reach: fault.
func (u *upstream) awaitOpen(m *member, turn *streamTurn, client *stream, deadline instant) (err, fault *Error) {
	p := &m.shared
	if !p.look(turn, true) {
		return nil, nil
	}
	limit := now() + u.connectTimeout
	kind := NoError
	for kind == NoError && p.look(turn, true) {
		kind = awaitEither(turn.told, nil, sooner(deadline, limit), client)
	}
	p.look(turn, false)
	switch {
	case kind == NoError:
		return nil, nil
	case kind == Timeout && now() >= limit:
		p.giveUpShut()
		m.countDial(u, ConnectTimeout, false)
		u.tracker.ConnectFailed(m.record)
		fault = u.failure(m, ConnectTimeout, errNoStreams)
		return fault, fault
	}
	return &Error{Kind: kind, Upstream: u.key.String()}, nil
}

// errNoStreams is why an endpoint counts as out of reach that can be connected to.
var errNoStreams = errors.New("SETTINGS_MAX_CONCURRENT_STREAMS is 0, or unknown")

// look reports whether the leader has to wait for what an endpoint will say, and, unless on
// is false, has it told.
func (p *sharedPool) look(turn *streamTurn, on bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.conns)
	p.looks = on && turn.conn == nil && n > 0 && p.conns[n-1].h2.TakesNone()
	if !on && turn.conn == nil {
		select {
		case <-turn.told:
		default:
		}
	}
	return p.looks
}

// giveUpShut gives up the connections over which the endpoint takes no requests.
func (p *sharedPool) giveUpShut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range slices.Clone(p.conns) {
		if s.h2.TakesNone() {
			p.retire(s)
		}
	}
}

// placeFor takes the place of a connection, unless the leader gets a stream before that. A
// member that has none need not wait for one, whatever the limit is, since those of others
// may be in use for ever (as Envoy has it: arch_overview/upstream/circuit_breaking).
func (u *upstream) placeFor(m *member, turn *streamTurn, client *stream, waited bool, deadline instant) (placed bool, err *Error) {
	q := &u.live.queue
	for at := -1; ; waited = true {
		if c, _, _ := m.shared.settle(turn, false); c != nil { // what has told of it may be heard already
			if at == 0 {
				q.wake() // it needs no place
			}
			return false, nil
		}
		if u.limits.connections == 0 || m.shared.none() {
			q.open.Add(1)
			return true, nil
		}
		place, err := q.enter(u, at, waited)
		if place == nil {
			return err == nil, err
		}
		if kind := q.await(place, turn.told, deadline, client); kind != NoError {
			return false, &Error{Kind: kind, Upstream: u.key.String()}
		}
		select {
		case <-place:
			at = 0
		default:
			at = -1
		}
	}
}

// none reports whether the member has no connection.
func (p *sharedPool) none() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open == 0
}

// depart returns the stream that the leader has got, or takes it out of the line: from
// here on it waits for its own connection.
func (p *sharedPool) depart(turn *streamTurn) *upstreamConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn.conn == nil {
		p.leave(turn)
		p.count(1)
	}
	return turn.conn
}

// opening counts a connection that is being opened, or that has failed to.
func (p *sharedPool) opening(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(n)
}

// count counts connections. The caller holds mu.
func (p *sharedPool) count(n int) {
	if p.open += n; p.open == 0 && p.leader != nil {
		p.leader.tell() // it may open one, whoever else waits for a place
	}
}
