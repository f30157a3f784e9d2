package gossip

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/hashicorp/memberlist"
)

// Members may talk to each other directly, beside records: short messages by
// UDP, encrypted as all of gossip is, that may be lost. They have a queue and a
// goroutine of their own, so that records and they do not wait for each other.

// maxTalks is how many messages wait to be heard, and maxTalk how many bytes one has
// with its sender's name, which is more than anybody sends; others are dropped.
const (
	maxTalks = 4096
	maxTalk  = 4 << 10
)

// talk is a message on its way.
type talk struct {
	from    string
	message []byte
}

// Name returns the name of this member.
func (g *Gossip) Name() string { return g.name }

// Talkers returns the other members that are alive and listen to messages,
// sorted.
func (g *Gossip) Talkers() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for name, m := range g.members {
		if m.talks && name != g.name && g.stateOf(name) == stateAlive {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Talk sends a message of some 1000 bytes at most to a member, if it is known.
func (g *Gossip) Talk(to string, message []byte) {
	g.mu.Lock()
	m := g.members[to]
	var node memberlist.Node
	if m != nil {
		node = m.node
	}
	g.mu.Unlock()
	if m == nil {
		return
	}
	b := append(make([]byte, 0, 2+len(g.name)+len(message)), messageTalk)
	b = append(binary.AppendUvarint(b, uint64(len(g.name))), g.name...)
	if err := g.list.SendBestEffort(&node, append(b, message...)); err != nil {
		g.log.Debug("gossip message not sent", "to", to, "error", err)
	}
}

// parseTalk takes a message apart, which it keeps pieces of.
func parseTalk(b []byte) (t talk, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n == 0 || n > maxText || n > uint64(len(b)-size) {
		return t, false
	}
	b = b[size:]
	return talk{string(b[:n]), b[n:]}, true
}

// heardTalk queues a message, whose bytes are memberlist's.
func (g *Gossip) heardTalk(b []byte) {
	if len(b) > maxTalk {
		g.dropped.Add(1)
		return
	}
	t, ok := parseTalk(append([]byte(nil), b...))
	if !ok || g.options.OnTalk == nil {
		g.dropped.Add(1)
		return
	}
	select {
	case g.talks <- t:
	default:
		g.dropped.Add(1)
	}
}

// listen hands messages on, one after the other. Start starts it; it ends with
// ctx.
func (g *Gossip) listen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-g.talks:
			g.options.OnTalk(t.from, t.message)
		}
	}
}
