package gossip

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// heldBack is a log whose writer is held back where it says so, once.
type heldBack struct {
	slog.Handler
	at           string
	armed        atomic.Bool
	held, onward chan struct{}
}

func (h *heldBack) Enabled(context.Context, slog.Level) bool { return true }

func (h *heldBack) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.at && h.armed.Swap(false) {
		close(h.held)
		<-h.onward
	}
	return nil
}

// TestGossip_QueueWaitsForNobody: memberlist tells of a member under its lock, and then mu
// is taken, under which records are queued; so a packet is filled, under the queue's lock,
// without memberlist's. Else three that come together wait for each other for ever.
func TestGossip_QueueWaitsForNobody(t *testing.T) {
	log := &heldBack{Handler: slog.DiscardHandler, at: "gossip member alive", held: make(chan struct{}), onward: make(chan struct{})}
	a := start(t, "a", func(o *Options) { o.Logger = slog.New(log) })
	log.armed.Store(true) // not for the member itself
	defer close(log.onward)
	a.Announce(endpoints(1, "a.ns"))
	start(t, "b", joining(a))
	<-log.held // memberlist has its lock
	filled := make(chan struct{})
	go func() { // ends with the call
		defer close(filled)
		delegate{a}.GetBroadcasts(0, maxPacket)
	}()
	select {
	case <-filled:
	case <-time.After(10 * time.Second):
		t.Error("to fill a packet waits for whoever tells of members")
	}
}

// TestGossip_Alive: who is counted is who lives.
func TestGossip_Alive(t *testing.T) {
	a := start(t, "a", nil)
	if n := a.alive(); n != 1 {
		t.Errorf("%d alive, want itself", n)
	}
	b := start(t, "b", joining(a))
	eventually(t, "both know each other", func() bool { return a.alive() == 2 && b.alive() == 2 })
	b.Close()
	eventually(t, "one has died", func() bool { return a.alive() == 1 })
}

// TestNoteMember: however often memberlist tells of a member, it counts once while it lives, and what
// was found out of its address holds until it has another one.
func TestNoteMember(t *testing.T) {
	a := start(t, "a", nil)
	node := func(port uint16) *memberlist.Node {
		return &memberlist.Node{Name: "west/ns/x", Addr: net.IPv4(192, 0, 2, 1).To4(), Port: port, Meta: []byte(`{"c":"west","l":"r/z","v":"1.2","t":true}`)}
	}
	silent := func(is bool) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		was := a.members["west/ns/x"].silent
		a.members["west/ns/x"].silent = is
		return was
	}
	for _, step := range []struct {
		name   string
		do     func(*memberlist.Node)
		port   uint16
		alive  int
		silent bool
	}{
		{"it has left before it came", delegate{a}.NotifyLeave, 1, 1, false},
		{"it comes", delegate{a}.NotifyJoin, 1, 2, true},
		{"it says something new", delegate{a}.NotifyUpdate, 1, 2, true},
		{"it has moved", delegate{a}.NotifyUpdate, 2, 2, false},
		{"it dies", delegate{a}.NotifyLeave, 2, 1, true},
		{"it dies again", delegate{a}.NotifyLeave, 2, 1, true},
		{"it is back", delegate{a}.NotifyJoin, 3, 2, false},
	} {
		n := node(step.port)
		if step.do(n); a.alive() != step.alive {
			t.Errorf("%s: %d are alive, want %d", step.name, a.alive(), step.alive)
		}
		if was := silent(true); was != step.silent {
			t.Errorf("%s: that it cannot be reached is known: %v, want %v", step.name, was, step.silent)
		}
		want := Member{Name: n.Name, Cluster: "west", Locality: "r/z", Address: n.Address(), Version: "1.2", State: stateAlive}
		if step.alive == 1 {
			want.State = stateDead
		}
		if got := a.Members(); len(got) != 2 || got[1] != want {
			t.Errorf("%s: members %+v, want %+v", step.name, got, want)
		}
	}
}

// TestMerge_Own: what others would believe of us rather than what we say is outdone; what they would
// not is nothing to us.
func TestMerge_Own(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*record)
		outdo  bool
	}{
		{"an echo", func(r *record) {}, false},
		{"an older one", func(r *record) { r.Version--; r.Endpoints = nil }, false},
		{"a newer one", func(r *record) { r.Version += 1000; r.Endpoints = nil }, true},
		{"a newer one that says the same", func(r *record) { r.Version += 1000 }, true},
		{"a goodbye", func(r *record) { r.Version++; r.Left = true }, true},
		{"of the same version, more", func(r *record) { r.Cluster += " and more" }, true},
		{"of the same version, less", func(r *record) { r.Endpoints = nil }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := start(t, "a", nil)
			a.Announce(endpoints(1, "a.ns"))
			before := a.own.Version
			r := *a.own
			if tt.change(&r); a.merge(&r, 0) {
				t.Error("it is news of another one")
			}
			want := before
			if tt.outdo {
				want = r.Version + 1
			}
			if a.own.Version != want || a.records[a.name] != a.own {
				t.Errorf("version %d after %d of %d, want %d", a.own.Version, r.Version, before, want)
			}
			if got := of(a, a); len(got) != 1 || got[0].Cluster != "c-a" || a.own.Left {
				t.Errorf("own endpoints %+v", got)
			}
			if b := newer(a.own, &r); b != a.own {
				t.Errorf("others go by %+v", b)
			}
		})
	}
}
