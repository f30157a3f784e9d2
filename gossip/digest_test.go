package gossip

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// TestDigest_Travels: everybody hears of everybody, and of changes.
func TestDigest_Travels(t *testing.T) {
	telling := func(name string) func(*Options) {
		return func(o *Options) {
			n := 0.0
			o.Digest = func() Digest { // called by one goroutine
				n++
				return Digest{Ready: true, Snapshot: 7, Hash: name, Flows: []Flow{{Service: "s.ns", Cluster: "c", Requests: n}}}
			}
		}
	}
	a := start(t, "a", telling("a"))
	b := start(t, "b", func(o *Options) { telling("b")(o); joining(a)(o) })
	silent := start(t, "silent", joining(a)) // as an older version is
	for _, g := range []*Gossip{a, b, silent} {
		eventually(t, g.name+" has heard of both, and of news", func() bool {
			for name, of := range map[string]*Gossip{"a": a, "b": b} {
				d, ok := g.Digests()[of.name]
				if !ok || d.Hash != name || d.Flows[0].Requests < 2 || !d.Ready || d.Snapshot != 7 {
					return false
				}
			}
			return true
		})
		if _, ok := g.Digests()[silent.name]; ok {
			t.Errorf("%s has a digest of who tells none", g.name)
		}
	}
	b.Close()
	eventually(t, "the dead are forgotten", func() bool { _, ok := a.Digests()[b.name]; return !ok })
}

// TestDigest_Names: what a digest says is no row of its own in a table.
func TestDigest_Names(t *testing.T) {
	for text, taken := range map[string]bool{
		`{"o":"a","w":1,"h":"1f","f":[{"s":"s.n","c":"west"}]}`: true,
		`{"o":"a","w":1,"h":"1f\nx"}`:                           false,
		`{"o":"a","w":1,"s":"\u001b[2J"}`:                       false,
		`{"o":"a","w":1,"f":[{"s":"s.n\tx","c":"west"}]}`:       false,
		`{"o":"a","w":1,"f":[{"c":"west\n"}]}`:                  false,
	} {
		if _, err := decodeDigest([]byte(text)); (err == nil) != taken {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestDigest_Refuses: what no proxy says of itself is not taken, at each end of what one may.
func TestDigest_Refuses(t *testing.T) {
	flows := func(n int) string { return "[" + strings.Repeat(`{"c":"x"},`, n-1) + `{"c":"x"}]` }
	for text, taken := range map[string]bool{
		`{"o":"a","w":1}`:       true,
		`{"o":"a","w":3600000}`: true,
		`{"o":"a","w":1,"f":[{"c":"x","r":1e9,"e":0,"m":1e9,"t":1e9}]}`: true,
		`{"o":"a","w":1,"f":` + flows(maxFlows) + `}`:                   true,
		`{"o":"a","w":1,"f":` + flows(maxFlows+1) + `}`:                 false,
		`{"o":"","w":1}`:                                        false,
		`{"o":"a"}`:                                             false,
		`{"o":"a","w":-1}`:                                      false,
		`{"o":"a","w":3600001}`:                                 false,
		`{"o":"a","w":1}{}`:                                     false,
		`{"o":"a","w":1,"r":"yes"}`:                             false,
		`{"o":"a","w":1,"f":[{"c":"x","r":-1}]}`:                false,
		`{"o":"a","w":1,"f":[{"c":"x","e":2e9}]}`:               false,
		`{"o":"a","w":1,"f":[{"c":"x","m":-0.1}]}`:              false,
		`{"o":"a","w":1,"f":[{"c":"x"},{"c":"x","t":2e9}]}`:     false,
		`{"o":"` + strings.Repeat("a", maxText+1) + `","w":1}`:  false,
		`{"o":"a","w":1` + strings.Repeat(" ", maxPacket) + `}`: false,
	} {
		if _, err := decodeDigest([]byte(text)); (err == nil) != taken {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestDigest_LeavesRoom: records go first, and a digest takes only what they
// leave of a packet.
func TestDigest_LeavesRoom(t *testing.T) {
	g := start(t, "a", nil)
	record := append([]byte{messageRecord}, strings.Repeat("r", 900)...)
	digest := append([]byte{messageDigest}, strings.Repeat("d", 600)...)
	g.digestQueue.QueueBroadcast(&broadcast{owner: "x", message: digest})
	g.queue.QueueBroadcast(&broadcast{owner: "x", message: record})
	kinds := ""
	for {
		packet := delegate{g}.GetBroadcasts(2, 1300)
		if len(packet) == 0 {
			break
		}
		if len(packet) != 1 {
			t.Fatalf("%d messages in a packet that has room for one", len(packet))
		}
		kinds += string(packet[0][0])
	}
	// As often as memberlist repeats each among so few.
	if want := "RRRRDD"; kinds != want {
		t.Errorf("packets %s, want %s", kinds, want)
	}
}

// TestEncodeDigest_Bounded: however much there is to tell, it fits, and what
// matters most is told.
func TestEncodeDigest_Bounded(t *testing.T) {
	d := Digest{Owner: strings.Repeat("o", 100), Sequence: 1, Every: 3000}
	for i := range 500 {
		d.Flows = append(d.Flows, Flow{Service: fmt.Sprintf("service-%03d.production", i), Cluster: "us-central", Requests: float64(i)})
	}
	d.Flows[3].Errors = 0.5
	d.Flows = append(d.Flows, Flow{Cluster: "us-west", Requests: 1})
	b := encodeDigest(&d)
	if len(b) > maxDigest {
		t.Fatalf("%d bytes", len(b))
	}
	got, err := decodeDigest(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Flows) < 6 || got.Flows[0].Service != "" || got.Flows[1].Errors != 0.5 || got.Flows[2].Requests != 499 {
		t.Errorf("got %d flows %+v, want a cluster's total, the one with errors, the largest", len(got.Flows), got.Flows)
	}
	if len(d.Flows) != 501 || d.Flows[0].Requests != 0 {
		t.Error("the digest itself was changed")
	}
}

// TestHandleDigest takes what is news of a member, and nothing else.
func TestHandleDigest(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", joining(a))
	eventually(t, "b has joined", func() bool { return state(a, b) == "alive" })
	hear := func(owner string, sequence uint64, hash string) string {
		body := encodeDigest(&Digest{Owner: owner, Sequence: sequence, Every: 1000, Hash: hash})
		a.handleDigest(body, append([]byte{messageDigest}, body...))
		return a.Digests()[owner].Hash
	}
	for _, tt := range []struct {
		name, owner string
		sequence    uint64
		hash, want  string
	}{
		{"the first", b.name, 10, "one", "one"},
		{"an old one", b.name, 9, "zero", "one"},
		{"the same once more", b.name, 10, "other", "one"},
		{"a newer one", b.name, 11, "two", "two"},
		{"of a stranger", "nobody", 1, "x", ""},
		{"of myself", a.name, 1, "x", ""},
	} {
		if got := hear(tt.owner, tt.sequence, tt.hash); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	a.mu.Lock()
	a.digests[b.name].at = time.Now().Add(-time.Minute)
	a.mu.Unlock()
	if _, ok := a.Digests()[b.name]; ok {
		t.Error("a digest of a minute ago is still believed")
	}
	if got := hear(b.name, 5, "clock put back"); got != "clock put back" {
		t.Errorf("after silence: %q", got)
	}
}

func FuzzDigest(f *testing.F) {
	f.Add(encodeDigest(&Digest{Owner: "c/ns/n", Sequence: 1, Every: 3000, Flows: []Flow{{Cluster: "c", Requests: 1.5}}}))
	f.Add([]byte(`{"o":"x","q":18446744073709551615,"w":1,"f":[{"r":-1}]}`))
	f.Add([]byte(`{"o":"x","w":1}{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := decodeDigest(data)
		if err != nil {
			return
		}
		if d.Owner == "" || d.Every <= 0 || len(d.Flows) > maxFlows {
			t.Errorf("taken: %+v", d)
		}
		for _, flow := range d.Flows {
			if flow.Requests < 0 || math.IsInf(flow.Requests, 0) || math.IsNaN(flow.P99) {
				t.Errorf("taken: %+v", flow)
			}
		}
		if again, err := decodeDigest(encodeDigest(d)); err == nil && again.Owner != d.Owner && len(d.Owner) < 100 {
			t.Errorf("owner %q became %q", d.Owner, again.Owner)
		}
	})
}
