package gossip

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
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
