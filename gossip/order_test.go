package gossip

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
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
