package gossip

import (
	"os"
	"path/filepath"
	"testing"
)

// handedOver is what a member hands on to who takes its place, after it has closed.
func handedOver(t *testing.T, g *Gossip) *os.File {
	t.Helper()
	g.Close()
	records, err := os.Create(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { records.Close() })
	if err := g.WriteRecords(records); err != nil {
		t.Fatal(err)
	}
	return records
}

// TestHandedOver: who takes another one's place knows who lives from the first moment on, and
// finds them though all seeds are down.
func TestHandedOver(t *testing.T) {
	seed := start(t, "seed", nil)
	x := start(t, "x", joining(seed))
	relayed := endpoints(1, "x.ns")
	relayed[0].Relayed = true
	x.Announce(relayed)
	b := start(t, "b", joining(seed))
	gone := start(t, "gone", joining(seed))
	gone.Announce(endpoints(1, "gone.ns"))
	eventually(t, "b knows all", func() bool {
		return len(of(b, x)) == 1 && len(of(b, gone)) == 1 && state(b, x) == stateAlive && state(b, seed) == stateAlive
	})
	gone.Close()
	eventually(t, "one has died", func() bool { return state(b, gone) == stateDead })
	records, address := handedOver(t, b), b.Address()
	seed.Close()

	next := start(t, "b", func(o *Options) { o.Bind, o.Records = address, records; joining(seed)(o) })
	if got := of(next, x); len(got) != 1 || got[0].OwnerDead || got[0].Unready != "" || state(next, x) != stateAlive {
		t.Errorf("of a member that lives, and is %q: %+v", state(next, x), got)
	}
	if got := of(next, gone); len(got) != 1 || !got[0].OwnerDead {
		t.Errorf("of one that has died: %+v", got)
	}
	eventually(t, "it is reached", func() bool {
		next.mu.Lock()
		defer next.mu.Unlock()
		m := next.members[x.name]
		return m != nil && !m.handed
	})
	next.mistrust()
	if state(next, x) != stateAlive {
		t.Error("whom it has reached is not believed to live")
	}
}

// TestHandedOver_Contacts: of those whom the process before knew, some are asked to let the
// new one in until anybody is reached, those of its cluster first; who is not heard of is
// taken for dead.
func TestHandedOver_Contacts(t *testing.T) {
	seed := start(t, "seed", nil)
	var others []*Gossip
	for _, name := range []string{"x", "y", "z"} {
		others = append(others, start(t, name, joining(seed)))
	}
	near := start(t, "near", func(o *Options) { o.Node.Cluster = "c-b"; joining(seed)(o) })
	b := start(t, "b", joining(seed))
	eventually(t, "b knows all", func() bool { return b.alive() == 6 })
	records := handedOver(t, b)
	for _, g := range append(others, near, seed) {
		g.Close()
	}

	next := start(t, "b", func(o *Options) { o.Records = records })
	if got := next.contacts(); len(got) != maxContacts || got[0] != near.Address() {
		t.Errorf("contacts %v, want %d, %s first", got, maxContacts, near.Address())
	}
	if next.alive() != 6 {
		t.Errorf("%d are alive, want 6", next.alive())
	}
	next.mistrust()
	for _, g := range others {
		if state(next, g) != stateDead {
			t.Errorf("%s is %s", g.name, state(next, g))
		}
	}
	if got := next.contacts(); len(got) > 0 || next.alive() != 1 {
		t.Errorf("contacts %v, %d alive", got, next.alive())
	}
}
