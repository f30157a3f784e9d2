package gossip

import "github.com/hashicorp/memberlist"

// send sends a message to a member over TCP. A failure is repaired by the next
// push/pull.
func (g *Gossip) send(to string, b []byte) {
	for _, n := range g.list.Members() {
		if n.Name == to {
			g.sendBeside(n, b)
			return
		}
	}
}

// maxSending bounds how many messages are being sent over TCP at a time, and maxDoubtful
// how many of them to addresses that may not answer: those of nobody that is known, and
// of members that could not be reached the last time.
const (
	maxSending  = 32
	maxDoubtful = 8
)

// sendBeside sends a message on a goroutine of its own, since it takes memberlist ten
// seconds to find out that somebody cannot be reached, and there is one goroutine for
// all that comes. One message at a time is sent to an address; what is too much is
// dropped, and asked for again.
func (g *Gossip) sendBeside(n *memberlist.Node, b []byte) {
	to := n.Address()
	g.mu.Lock()
	m := g.members[n.Name]
	doubtful := m == nil || m.Address != to || m.silent
	most := maxSending
	if doubtful {
		most = maxDoubtful
	}
	_, busy := g.sending[to]
	for _, d := range g.sending {
		if d == doubtful {
			most--
		}
	}
	if busy = busy || most <= 0; !busy {
		g.sending[to] = doubtful
	}
	g.mu.Unlock()
	if busy {
		return
	}
	go func() { // ends with memberlist's TCPTimeout at the latest
		sent := g.sendTo(n, b)
		g.mu.Lock()
		delete(g.sending, to)
		if m := g.members[n.Name]; m != nil && m.Address == to {
			m.silent = !sent
		}
		g.mu.Unlock()
	}()
}

// sendTo reports whether it could.
func (g *Gossip) sendTo(n *memberlist.Node, b []byte) bool {
	err := g.list.SendReliable(n, b)
	if err != nil {
		g.log.Debug("gossip message not sent", "to", n.Name, "error", err)
	}
	return err == nil
}
