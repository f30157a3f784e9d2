package proxy

import (
	"golang.org/x/time/rate"

	"isthmus/auth"
)

// refuser is what refuses somebody, or cannot serve him.
type refuser int

const (
	byHandshake refuser = iota
	byMode              // of PeerAuthentication
	byToken
	byPolicy
	byService      // for authorization
	byCertificate  // which a Gateway's server does not have
	byLimitService // which does not answer
	refusers
)

func (r refuser) String() string {
	return [...]string{"handshake", "peer authentication", "token", "policy", "authorization service", "certificate", "rate limit service"}[r]
}

// refusalsTold bounds how many refusals of each kind are told in the log: whoever is
// refused decides how many there are. Anybody can come in plain text: that shall not drown
// whom a policy refuses.
const refusalsTold = 10 // a second

// tellRefusal says in the log who was refused, and why.
func (p *Proxy) tellRefusal(c *conn, by refuser, err error) {
	if !p.refusals[by].Allow() {
		return
	}
	p.log.Info("refused", "by", by, "listener", c.listener.name, "peer", c.peer, "identity", c.identity, "why", err)
}

// auditsTold bounds how many requests a second the log tells of for policies of
// action AUDIT: more than people read, less than fills a disk in a day. All of them
// are counted.
const auditsTold = 100

// tellAudit says in the log which request a policy of action AUDIT fits.
func (p *Proxy) tellAudit(c *conn, q *auth.Request, more ...any) {
	if !p.audits.Allow() {
		return
	}
	p.log.Info("audited", append([]any{"by", q.Audited.Meta, "listener", c.listener.name, "peer", c.peer, "identity", c.identity}, more...)...)
}

// tellLimiter bounds how many things of a kind are told a second.
func tellLimiter(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(n), n) }
