package gossip

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// The messages between members, by their first byte.
const (
	messageRecord = 'R' // a record
	messageNote   = 'N' // "owner has version n": a record too large for a packet
	messageAsk    = 'A' // "send me your record": the asker's name and address
	messageDigest = 'D' // a digest
	messageTalk   = 'T' // a message to this member alone: its sender's name, and what it says
)

// maxPacket is how large a message may be to go by UDP: memberlist's packets
// of 1400 bytes, less what it adds around a message with encryption and label.
const maxPacket = 1100

// receive works on messages, one after the other. Start starts it; it ends
// with ctx.
func (g *Gossip) receive(ctx context.Context) {
	repair := time.NewTicker(askAgain)
	defer repair.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-g.inbox:
			g.waiting.Add(-int64(len(b)))
			g.handle(b)
		case <-repair.C:
			g.askSilent()
		}
	}
}

func (g *Gossip) handle(b []byte) {
	switch body := b[1:]; b[0] {
	case messageRecord:
		r, err := decode(body)
		if err != nil {
			g.dropped.Add(1)
			return
		}
		if g.merge(r, 0) {
			g.mu.Lock()
			if len(b) <= maxPacket {
				// Passed on as it came: gossip spreads by everybody's doing so.
				g.queue.QueueBroadcast(&broadcast{owner: r.Owner, message: b})
			}
			g.mu.Unlock()
			g.options.OnChange()
		}
	case messageNote:
		g.handleNote(body, b)
	case messageAsk:
		g.reply(string(body))
	case messageDigest:
		g.handleDigest(body, b)
	default:
		g.dropped.Add(1)
	}
}

// handleNote passes a note on that is news.
func (g *Gossip) handleNote(body, message []byte) {
	if len(body) < 9 || len(body) > maxText {
		g.dropped.Add(1)
		return
	}
	owner, version := string(body[8:]), binary.BigEndian.Uint64(body)
	if !believable(version) {
		g.dropped.Add(1)
		return
	}
	if owner == g.name {
		// Whoever waits for a version that there is not asks for it every second.
		g.mu.Lock()
		if version > g.own.Version {
			g.outdo(version)
		}
		g.mu.Unlock()
		return
	}
	if g.heard(owner, version) {
		g.mu.Lock()
		g.queue.QueueBroadcast(&broadcast{owner: owner, message: message})
		g.mu.Unlock()
	}
}

// heard takes note of a version and reports whether it is news; whoever lacks
// the record asks for it.
func (g *Gossip) heard(owner string, version uint64) bool {
	g.mu.Lock()
	known := g.records[owner]
	news := owner != g.name && g.members[owner] != nil && version > g.wanted[owner] && (known == nil || known.Version < version)
	if news {
		g.wanted[owner] = version
		g.asked[owner] = time.Now()
	}
	g.mu.Unlock()
	if news {
		g.ask(owner)
	}
	return news
}

// note says which version of a record there is.
func note(r *record) []byte {
	b := binary.BigEndian.AppendUint64([]byte{messageNote}, r.Version)
	return append(b, r.Owner...)
}

// ask asks an owner for its record. It tells our address along, since the owner
// may not have heard of us yet.
func (g *Gossip) ask(owner string) {
	self := g.list.LocalNode()
	g.send(owner, append([]byte{messageAsk}, g.name+"\n"+self.Address()...))
}

// reply sends our record to who asked.
func (g *Gossip) reply(from string) {
	name, address, _ := strings.Cut(from, "\n")
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		g.dropped.Add(1)
		return
	}
	g.mu.Lock()
	announced := g.records[g.name] != nil
	b, version := append([]byte{messageRecord}, encode(g.own)...), g.own.Version
	g.mu.Unlock()
	if announced {
		g.sendBeside(&memberlist.Node{Name: name, Addr: addr.Addr().AsSlice(), Port: addr.Port()}, b, version)
	}
}

// askSilent asks for what is missing: the records of living members that we
// have none of, since their broadcast was over before we came, and those of
// which a newer version was heard of and has not come.
func (g *Gossip) askSilent() {
	var missing []string
	g.mu.Lock()
	for name, m := range g.members {
		known := g.records[name]
		behind := known == nil && time.Since(m.since) > askAgain || known != nil && known.Version < g.wanted[name]
		if behind && name != g.name && m.State == stateAlive && time.Since(g.asked[name]) > askAgain {
			g.asked[name] = time.Now()
			missing = append(missing, name)
		}
	}
	g.mu.Unlock()
	for _, name := range missing {
		g.ask(name)
	}
}

// askAgain is how long an owner is given to send what it was asked for.
const askAgain = time.Second

// broadcast is a message in memberlist's queue. A newer one of the same owner
// takes its place.
type broadcast struct {
	owner   string
	message []byte
}

func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*broadcast)
	return ok && o.owner == b.owner
}
func (b *broadcast) Message() []byte { return b.message }

// Name has memberlist find the older one without a look at all that wait.
func (b *broadcast) Name() string { return b.owner }
func (b *broadcast) Finished()    {}
