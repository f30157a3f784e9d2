package gossip

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
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

// Member states.
const (
	stateAlive = "alive"
	stateDead  = "dead"
	stateLeft  = "left"
)

// delegate is memberlist's way to call us. Its methods must not block, and
// must not keep the bytes they are given.
type delegate struct{ *Gossip }

func (d delegate) NodeMeta(limit int) []byte { return d.meta() }

func (d delegate) NotifyMsg(b []byte) {
	if len(b) == 0 || len(b) > maxRecord {
		d.dropped.Add(1)
		return
	}
	if b[0] == messageTalk {
		d.heardTalk(b[1:])
		return
	}
	if d.waiting.Add(int64(len(b))) <= maxWaiting {
		select {
		case d.inbox <- append([]byte(nil), b...):
			return
		default:
		}
	}
	d.waiting.Add(-int64(len(b)))
	d.dropped.Add(1) // push/pull will repair it
}

// maxWaiting bounds, in bytes, what waits to be worked on: enough for the largest
// records of some members at once.
const maxWaiting = 8 * maxRecord

// GetBroadcasts fills a packet with records, and what room they leave with
// digests.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	out := d.queue.GetBroadcasts(overhead, limit)
	for _, b := range out {
		limit -= overhead + len(b)
	}
	return append(out, d.digestQueue.GetBroadcasts(overhead, limit)...)
}

// maxState bounds, in bytes, what push/pull says of records. Of more than 20 MiB
// memberlist reads nothing, and gives the whole exchange up: nobody could join.
const maxState = 16 << 20

func (d delegate) LocalState(join bool) []byte {
	d.mu.Lock()
	now := time.Now()
	all := make([]handedOn, 0, len(d.records))
	for owner, r := range d.records {
		if gone := d.goneFor(owner, now); gone < forgetAfter {
			all = append(all, handedOn{r, gone.Milliseconds()})
		}
	}
	d.mu.Unlock()
	return encodeState(all, d.name, maxState)
}

// encodeState writes records in so many bytes at most. Who lives can be asked for what
// finds no room, so that of its owner and of who is gone comes first; of the others those
// that come first, by the map's order another time others.
func encodeState(all []handedOn, owner string, most int) []byte {
	rank := func(h *handedOn) int {
		if h.Owner == owner || h.Gone > 0 {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b handedOn) int { return cmp.Compare(rank(&a), rank(&b)) })
	out := []byte{'['}
	for i := range all {
		b, _ := json.Marshal(&all[i])
		if len(out)+len(b)+2 > most {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	return append(out, ']')
}

func (d delegate) MergeRemoteState(b []byte, join bool) {
	var all []json.RawMessage
	if json.Unmarshal(b, &all) != nil {
		d.dropped.Add(1)
		return
	}
	var fresh []*record // of those who live
	changed := false
	for _, raw := range all {
		r, gone, err := decodeHandedOn(raw)
		if err != nil {
			d.dropped.Add(1)
			continue
		}
		if d.merge(r, gone) {
			changed = true
			if gone == 0 {
				fresh = append(fresh, r)
			}
		}
	}
	if len(fresh) <= maxPassedOn {
		// Whoever hears of a newcomer first tells the others. Many at once are old
		// news to everybody but us, as is who has gone.
		d.mu.Lock()
		for _, r := range fresh {
			d.spread(r)
		}
		d.mu.Unlock()
	}
	if changed {
		d.options.OnChange()
	}
}

// maxPassedOn is how many records that push/pull brought are broadcast.
const maxPassedOn = 16

// NotifyAlive refuses members whose names would not be taken for names in a record.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	var m meta
	json.Unmarshal(n.Meta, &m) // without one there is nothing to refuse
	if !areNames(n.Name, m.Cluster, m.Locality, m.Version) {
		d.dropped.Add(1)
		return errors.New("control characters, or too long a name")
	}
	return nil
}

func (d delegate) NotifyJoin(n *memberlist.Node)   { d.noteMember(n, stateAlive) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.noteMember(n, stateAlive) }

func (d delegate) NotifyLeave(n *memberlist.Node) { d.noteMember(n, stateDead) }

// AckPayload answers a probe with the version of our record, so that whoever
// has missed its broadcast learns of it.
func (d delegate) AckPayload() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.records[d.name] == nil {
		return nil
	}
	return binary.BigEndian.AppendUint64(nil, d.own.Version)
}

func (d delegate) NotifyPingComplete(n *memberlist.Node, roundTrip time.Duration, payload []byte) {
	d.measured(n.Name, roundTrip)
	if len(payload) != 8 {
		return
	}
	b := append([]byte{messageNote}, payload...)
	d.NotifyMsg(append(b, n.Name...)) // asked for by the goroutine that works on messages
}

func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.log.Error("two proxies have one name; the one that was there first stays: give the other another node.name",
		"name", existing.Name, "first", existing.Address(), "second", other.Address())
}

func (g *Gossip) noteMember(n *memberlist.Node, state string) {
	var m meta
	if json.Unmarshal(n.Meta, &m) != nil {
		m = meta{}
	}
	g.mu.Lock()
	before, silent := "", false
	if old := g.members[n.Name]; old != nil {
		before, silent = old.State, old.silent && old.Address == n.Address()
	}
	g.members[n.Name] = &member{
		Member: Member{Name: n.Name, Cluster: m.Cluster, Locality: m.Locality, Address: n.Address(), State: state, Version: m.Version},
		since:  time.Now(),
		talks:  m.Talks, silent: silent, node: *n,
	}
	delete(g.strangers, n.Name)
	switch {
	case state == stateAlive && before != stateAlive:
		g.living.Add(1)
	case state != stateAlive && before == stateAlive:
		g.living.Add(-1)
	}
	shown := g.stateOf(n.Name)
	g.mu.Unlock()
	if before != state {
		g.log.Info("gossip member "+shown, "member", n.Name, "address", n.Address())
		g.options.OnChange()
	}
}

// merge takes in a record whose owner has been gone for so long, and reports
// whether it says anything new.
func (g *Gossip) merge(r *record, gone time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Owner == g.name {
		// Nobody else speaks for us. An echo of an earlier life with a faster
		// clock is outdone.
		if r.Version >= g.own.Version && newer(r, g.own) == r && !r.equal(g.own) && string(encode(r)) != string(encode(g.own)) {
			g.outdo(r.Version)
		}
		return false
	}
	if gone >= forgetAfter {
		return false
	}
	old := g.records[r.Owner]
	if newer(old, r) == old {
		g.meet(r.Owner, gone, true)
		return false
	}
	if old == nil && !g.hasRoom(r.Owner) {
		g.dropped.Add(1)
		return false
	}
	g.records[r.Owner] = r
	g.meet(r.Owner, gone, false)
	return true
}

// outdo announces again what this member does, by a version higher than one that is not
// its own. The caller holds mu.
func (g *Gossip) outdo(version uint64) {
	next := *g.own
	next.Version = version + 1
	g.own, g.records[g.name] = &next, &next
	g.spread(&next)
}

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

// note says which version of a record there is.
func note(r *record) []byte {
	b := binary.BigEndian.AppendUint64([]byte{messageNote}, r.Version)
	return append(b, r.Owner...)
}

// askAgain is how long an owner is given to send what it was asked for.
const askAgain = time.Second

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
