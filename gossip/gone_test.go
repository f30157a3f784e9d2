package gossip

import (
	"fmt"
	"testing"
	"time"
)

func knows(g *Gossip, owner string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.records[owner] != nil
}

// TestForget_Strangers: a record whose owner never was a member here is forgotten
// like a member, counted from when the first who tells of it saw the owner go.
func TestForget_Strangers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		gone  []time.Duration // as told, one after the other
		after time.Duration
		want  bool
	}{
		{"of today", []time.Duration{0}, 23 * time.Hour, true},
		{"of yesterday", []time.Duration{0}, 25 * time.Hour, false},
		{"gone before it came", []time.Duration{20 * time.Hour}, 5 * time.Hour, false},
		{"who knows for longer", []time.Duration{time.Hour, 20 * time.Hour, 2 * time.Hour}, 5 * time.Hour, false},
		{"too late", []time.Duration{forgetAfter}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := start(t, "a", nil)
			for _, gone := range tt.gone {
				a.merge(&record{Owner: "x", Version: 1}, gone)
			}
			a.mu.Lock()
			a.strangers["x"] = a.strangers["x"].Add(-tt.after)
			a.mu.Unlock()
			a.forget()
			if got := knows(a, "x"); got != tt.want {
				t.Errorf("the record is known: %v, want %v", got, tt.want)
			}
		})
	}
}

// TestStats_Clusters: how long a cluster has been silent is told until its members
// are forgotten, and not of one whose members have said goodbye.
func TestStats_Clusters(t *testing.T) {
	const x = "west/ns/x"
	for _, tt := range []struct {
		name string
		gone time.Duration
		left bool
		want bool
	}{
		{"died", time.Hour, false, true},
		{"left", time.Hour, true, false},
		{"died yesterday", 25 * time.Hour, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := start(t, "a", nil)
			a.mu.Lock()
			a.members[x] = &member{Member: Member{Name: x, Cluster: "west", State: stateAlive}, since: time.Now()}
			a.mu.Unlock()
			a.measured(x, time.Millisecond)
			if _, ok := a.Stats().Clusters["west"]; !ok {
				t.Error("nothing is told of a cluster that lives")
			}
			a.mu.Lock()
			a.members[x].State, a.members[x].since = stateDead, time.Now().Add(-tt.gone)
			a.records[x] = &record{Owner: x, Version: 1, Left: tt.left}
			a.mu.Unlock()
			a.forget()
			if _, ok := a.Stats().Clusters["west"]; ok != tt.want {
				t.Errorf("told: %v, want %v", ok, tt.want)
			}
		})
	}
}

// TestForget_Everywhere: those who have seen an owner die and those who came
// later forget it together, and nobody brings it back.
func TestForget_Everywhere(t *testing.T) {
	a := start(t, "a", nil)
	b, x := start(t, "b", joining(a)), start(t, "x", joining(a))
	x.Announce(endpoints(1, "x.ns"))
	eventually(t, "x is known", func() bool { return len(of(a, x)) == 1 && len(of(b, x)) == 1 })
	x.Close()
	eventually(t, "x has died", func() bool { return state(a, x) == stateDead && state(b, x) == stateDead })
	const left = 3 * time.Second
	for _, g := range []*Gossip{a, b} {
		g.mu.Lock()
		g.members[x.name].since = time.Now().Add(left - forgetAfter)
		g.mu.Unlock()
	}
	c := start(t, "c", joining(a))
	eventually(t, "the newcomer has heard of x", func() bool { return len(of(c, x)) == 1 })
	if state(c, x) != "" {
		t.Fatal("x is a member to who came after its death")
	}
	if e := of(c, x); len(e) > 0 && (!e[0].OwnerDead || e[0].OwnerGone < forgetAfter-left) {
		t.Errorf("the newcomer takes x for gone since %v, dead %v", e[0].OwnerGone, e[0].OwnerDead)
	}
	all := []*Gossip{a, b, c}
	for _, g := range all {
		eventually(t, g.name+" forgets x", func() bool { return !knows(g, x.name) })
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, g := range all {
			if knows(g, x.name) {
				t.Fatalf("%s knows x again", g.name)
			}
		}
	}
}

// TestMerge_Room: however many are gone, who lives is heard.
func TestMerge_Room(t *testing.T) {
	a := start(t, "a", nil)
	for i := range maxOwners {
		a.merge(&record{Owner: fmt.Sprint("gone-", i), Version: 1}, time.Duration(i+1)*time.Second)
	}
	if a.merge(&record{Owner: "gone too", Version: 1}, time.Minute) || knows(a, "gone too") {
		t.Error("more records are taken than there is room for")
	}
	if !a.merge(&record{Owner: "gone-5", Version: 2}, 6*time.Second) || len(a.records) != maxOwners {
		t.Errorf("what is news of a known one is not, or takes room: %d records", len(a.records))
	}
	b := start(t, "b", joining(a))
	b.Announce(endpoints(1, "b.ns"))
	eventually(t, "the newcomer is heard", func() bool { return len(of(a, b)) == 1 })
	if oldest := fmt.Sprint("gone-", maxOwners-1); knows(a, oldest) || !knows(a, "gone-0") {
		t.Error("it is not those gone the longest that made room")
	}
}
