package gossip

import "github.com/hashicorp/memberlist"

// send asks, or tells, a member over TCP. A failure is repaired by the next push/pull.
func (g *Gossip) send(to string, b []byte) {
	g.mu.Lock()
	n := g.members[to].living()
	g.mu.Unlock()
	if n != nil {
		g.sendBeside(n, b, 0)
	}
}

// maxSending bounds how many messages are being sent over TCP at a time, and maxDoubtful
// how many of them to addresses that may not answer: those of nobody that is known, and
// of members that could not be reached the last time.
const (
	maxSending  = 32
	maxDoubtful = 8
)

// outgoing is a message that is being sent beside.
type outgoing struct {
	doubtful bool   // to an address that may not answer
	version  uint64 // of the record that it is, or of the one that comes next
	next     []byte // a newer record, to be sent when this one has been; nil: there is none
}

// sendBeside sends a message on a goroutine of its own, since it takes memberlist ten
// seconds to find out that somebody cannot be reached, and there is one goroutine for
// all that comes. One message of a kind is sent to an address at a time, and behind it the
// newest record that it was asked for meanwhile; what is too much is dropped, and asked for
// again. version is a record's.
func (g *Gossip) sendBeside(n *memberlist.Node, b []byte, version uint64) {
	to := n.Address()
	key := string(b[:1]) + to
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.sending[key]; o != nil {
		if version > o.version {
			o.version, o.next = version, b
		}
		return
	}
	m := g.members[n.Name]
	o := &outgoing{doubtful: m == nil || m.Address != to || m.silent, version: version}
	most := maxSending
	if o.doubtful {
		most = maxDoubtful
	}
	for _, other := range g.sending {
		if other.doubtful == o.doubtful {
			most--
		}
	}
	if most <= 0 {
		return
	}
	g.sending[key] = o
	go g.sendOn(n, key, o, b)
}

// sendOn sends a message, and what is to come next. It ends with memberlist's TCPTimeout for
// each at the latest, and with the first that cannot be sent.
func (g *Gossip) sendOn(n *memberlist.Node, key string, o *outgoing, b []byte) {
	for b != nil {
		sent := g.sendTo(n, b)
		g.mu.Lock()
		if b, o.next = o.next, nil; !sent {
			b = nil
		}
		if b == nil {
			delete(g.sending, key)
		}
		if m := g.members[n.Name]; m != nil && m.Address == n.Address() {
			m.silent = !sent
		}
		g.mu.Unlock()
	}
}

// sendTo reports whether it could.
func (g *Gossip) sendTo(n *memberlist.Node, b []byte) bool {
	err := g.list.SendReliable(n, b)
	if err != nil {
		g.log.Debug("gossip message not sent", "to", n.Name, "error", err)
	}
	return err == nil
}
