package proxy

import (
	stdtls "crypto/tls"

	"isthmus/tls"
)

// A connection whose peer has proved who it is stays one of that peer only as long
// as somebody vouches for it. When the roots have changed, or the revocation lists,
// the connections that are open are judged anew. One whose peer nobody vouches for
// any more ends as in a drain: where nothing is under way at once, else with the
// next reply. What carries no requests, or none any more, goes on to its end.

// voucher says whether a peer is still vouched for. Only the sweep asks it.
type voucher struct{ still func() bool }

// isVouched reports whether the peer is whoever it has proved to be.
func (s *stream) isVouched() bool {
	v := s.vouched.Load()
	return v == nil || v.still()
}

// vouch notes by what the peer has been judged. current returns what it would be
// judged by now; judge judges it as if it came now.
func vouch[T comparable](s *stream, by T, current func() T, judge func(T, stdtls.ConnectionState) error) {
	secure := s.secure
	s.vouched.Store(&voucher{func() bool {
		now := current()
		if now == by {
			return true
		}
		if judge(now, secure.ConnectionState()) != nil {
			return false
		}
		by = now
		return true
	}})
}

// vouchMesh notes that another proxy has been judged by an identity's roots.
func vouchMesh(s *stream, by *tls.Identity, own *tls.Own, judge func(*tls.Identity, stdtls.ConnectionState) error) {
	vouch(s, by, own.Identity, judge)
}

// judgeCaller judges another proxy that has called.
func judgeCaller(id *tls.Identity, state stdtls.ConnectionState) error {
	if id == nil {
		return errNoIdentity
	}
	return id.Server().VerifyConnection(state)
}

// review has the connections of clients end that nobody vouches for any more.
func (p *Proxy) review() {
	var open []*conn
	p.mu.Lock()
	for _, l := range p.everyListener() {
		l.mu.Lock()
		for c := range l.conns {
			if c.vouched.Load() != nil && !c.leaving.Load() {
				open = append(open, c)
			}
		}
		l.mu.Unlock()
	}
	p.mu.Unlock()
	ended := 0
	for _, c := range open {
		if c.isVouched() {
			continue
		}
		ended++
		c.leaving.Store(true)
		if c.waiting.Load() || c.shared.Load() {
			c.interrupt()
		}
	}
	if ended > 0 {
		p.log.Warn("connections end whose clients nobody vouches for any more", "connections", ended)
	}
}

// leave has the connection of a request end as in a drain.
func (c *conn) leave() {
	if c.leaving.CompareAndSwap(false, true) && c.under != nil {
		c.under.interrupt()
	}
}

// leaves reports whether the connection takes no more requests than those that are
// under way: the proxy drains, nobody vouches for the client any more, its place is
// needed, or another port has taken over the socket of its own.
func (c *client) leaves() bool {
	return c.proxy.draining.Load() || c.leaving.Load() || c.listener.parted()
}
