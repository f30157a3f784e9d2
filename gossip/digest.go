package gossip

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Digest is what a proxy tells the others of itself every few seconds, for
// people who look at the mesh. Nothing is decided by it. Its keys are short,
// since all of it goes in one packet together with others.
type Digest struct {
	Owner    string `json:"o"`
	Sequence uint64 `json:"q"` // grows: milliseconds of the owner's clock
	Every    int64  `json:"w"` // milliseconds until the next one

	Ready    bool   `json:"r,omitempty"`
	Snapshot uint64 `json:"n,omitempty"` // its number
	Hash     string `json:"h,omitempty"` // of the configuration
	Refused  bool   `json:"e,omitempty"` // the files have changed since, and are not used
	Shed     string `json:"s,omitempty"` // the worst of what it refuses or ends since clients take too much; "": nothing
	Ends     int64  `json:"x,omitempty"` // when the proxy's certificate does, in Unix seconds; 0: it has none

	Flows []Flow `json:"f,omitempty"` // those with most errors and requests, as many as there is room for
}

// Flow is how requests of late went that one proxy has sent, or taken in.
type Flow struct {
	Service  string  `json:"s,omitempty"` // "": all that go to the cluster
	Cluster  string  `json:"c"`           // where they went to; "": nowhere
	Inbound  bool    `json:"i,omitempty"` // to the application beside the proxy
	Requests float64 `json:"r"`           // a second
	Errors   float64 `json:"e,omitempty"` // of them
	P50      float64 `json:"m,omitempty"` // milliseconds
	P99      float64 `json:"t,omitempty"`
}

// Heard is a digest as it came.
type Heard struct {
	Digest
	Age time.Duration
}

type heard struct {
	Digest
	at time.Time
}

// stale is how many digests may fail to come before one is no longer believed.
const stale = 4

func (h *heard) stale(now time.Time) bool {
	return now.Sub(h.at) > stale*time.Duration(h.Every)*time.Millisecond
}

const (
	// maxDigest leaves room for a second one, or for a small record, in a packet.
	maxDigest = 700
	maxFlows  = 64

	// soonestDigest is how often digests are told in a small mesh. In a large
	// one it is so rarely that some digestRate of them come to each member a
	// second. Each is passed on four to eight times there, which is 20 KiB/s at
	// most: as much as memberlist sends, 15 packets a second.
	soonestDigest = 3 * time.Second
	digestRate    = 5

	// digestRetransmits is memberlist's RetransmitMult for digests, which is 4
	// for what must not be lost. The next digest makes a lost one good.
	digestRetransmits = 2
)

func (g *Gossip) digestInterval() time.Duration {
	d := max(soonestDigest, time.Duration(g.alive())*time.Second/digestRate)
	if g.options.Fast {
		d /= 30
	}
	return d
}

// tellDigests tells the others of this member. Start starts it; it ends with
// ctx.
func (g *Gossip) tellDigests(ctx context.Context) {
	for {
		every := g.digestInterval()
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		d := g.options.Digest()
		d.Owner, d.Sequence, d.Every = g.name, uint64(time.Now().UnixMilli()), every.Milliseconds()
		b := encodeDigest(&d)
		g.mu.Lock()
		g.digests[g.name] = &heard{d, time.Now()}
		g.mu.Unlock()
		g.digestQueue.QueueBroadcast(&broadcast{owner: g.name, message: append([]byte{messageDigest}, b...)})
	}
}

// encodeDigest leaves flows out that find no room: the totals of clusters
// stay longest, then what has most errors, then most requests.
func encodeDigest(d *Digest) []byte {
	short := *d
	short.Flows = slices.Clone(d.Flows)
	slices.SortStableFunc(short.Flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(min(len(a.Service), 1), min(len(b.Service), 1)), cmp.Compare(b.Errors, a.Errors), cmp.Compare(b.Requests, a.Requests))
	})
	for short.Flows = short.Flows[:min(len(short.Flows), maxFlows)]; ; short.Flows = short.Flows[:len(short.Flows)-1] {
		b, err := json.Marshal(&short)
		if err != nil {
			panic("a digest always encodes: " + err.Error())
		}
		if len(b) <= maxDigest || len(short.Flows) == 0 {
			return b
		}
	}
}

var errDigest = errors.New("malformed digest")

// decodeDigest reads a digest that somebody sent.
func decodeDigest(b []byte) (*Digest, error) {
	if len(b) > maxPacket {
		return nil, fmt.Errorf("%w: %d bytes", errDigest, len(b))
	}
	var d Digest
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("%w: %v", errDigest, err)
	}
	if dec.More() || d.Owner == "" || !areNames(d.Owner, d.Hash, d.Shed) || d.Every <= 0 || d.Every > maxInterval || len(d.Flows) > maxFlows {
		return nil, errDigest
	}
	for _, f := range d.Flows {
		if !areNames(f.Service, f.Cluster) {
			return nil, fmt.Errorf("%w: of %q in %q", errDigest, f.Service, f.Cluster)
		}
		for _, n := range [...]float64{f.Requests, f.Errors, f.P50, f.P99} {
			if n < 0 || n > maxNumber {
				return nil, fmt.Errorf("%w: %v of %q", errDigest, n, f.Service)
			}
		}
	}
	return &d, nil
}

// No proxy does more requests in a second, or takes more milliseconds for one,
// and none tells of itself less often than in an hour's milliseconds.
const maxNumber, maxInterval = 1e9, 3_600_000

// handleDigest keeps a digest that is news and passes it on.
func (g *Gossip) handleDigest(body, message []byte) {
	d, err := decodeDigest(body)
	if err != nil {
		g.dropped.Add(1)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if d.Owner == g.name || g.members[d.Owner] == nil {
		return
	}
	// A clock that was put back is believed once nothing newer comes.
	if old := g.digests[d.Owner]; old != nil && d.Sequence <= old.Sequence && !old.stale(time.Now()) {
		return
	}
	g.digests[d.Owner] = &heard{*d, time.Now()}
	g.digestQueue.QueueBroadcast(&broadcast{owner: d.Owner, message: message})
}

// Digests returns what living members have told of themselves lately, by
// member, this one included.
func (g *Gossip) Digests() map[string]Heard {
	g.mu.Lock()
	defer g.mu.Unlock()
	out, now := make(map[string]Heard, len(g.digests)), time.Now()
	for name, h := range g.digests {
		if g.stateOf(name) == stateAlive && !h.stale(now) {
			out[name] = Heard{h.Digest, now.Sub(h.at)}
		}
	}
	return out
}
