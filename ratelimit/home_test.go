package ratelimit

import (
	"math"
	"testing"
	"time"

	"isthmus/mesh"
)

// askHome asks for tokens of one key of n a day.
func askHome(h *home, now time.Duration, n, want uint32) uint32 {
	g := h.ask(now, &leaseAsk{key: leaseKey{1}, requests: n, unit: mesh.UnitDay, want: want})
	return g.tokens
}

// TestHome_LoneAsker: who is the only one to ask gets what is there, and no part
// of it is kept back for what it asked for itself a round ago.
func TestHome_LoneAsker(t *testing.T) {
	h := newHome()
	for i, want := range []uint32{4, 4, 2} {
		if got := askHome(h, 1+time.Duration(i)*leastRound, 10, 4); got != want {
			t.Errorf("round %d: %d tokens, want %d", i, got, want)
		}
	}
}

// TestHome_LimitChanges: what a limit is raised by is there at once, but not again
// whenever somebody asks by the old file.
func TestHome_LimitChanges(t *testing.T) {
	h := newHome()
	for i, step := range []struct{ limit, want, got uint32 }{
		{10, 10, 10}, {10, 1, 0},
		{15, 9, 5}, {15, 1, 0}, // raised by 5
		{10, 1, 0}, {15, 1, 0}, {10, 1, 0}, {15, 1, 0}, // both files are there for a while
		{3, 1, 0}, {20, 9, 5},
	} {
		if got := askHome(h, 1, step.limit, step.want); got != step.got {
			t.Errorf("step %d, %d a day: %d tokens, want %d", i, step.limit, got, step.got)
		}
	}
	h = newHome()
	askHome(h, 1, 100, 20)
	if got := askHome(h, 1, 5, 50); got > 5 {
		t.Errorf("%d tokens of a limit that is 5 by now", got)
	}
}

// TestHolder_AheadOfGrant: what is taken ahead of a grant is no more than was left, of a limit
// and requests that are as large as they may be, too.
func TestHolder_AheadOfGrant(t *testing.T) {
	const requests, hits = 4_200_000_000, 1_000_000_000
	h, key := newHolder(), leaseKey{1}
	take := func(hits uint32, late bool) answer {
		got, _, _ := h.take(1, &taking{key: key, requests: requests, unit: mesh.UnitYear, hits: hits, first: true, late: late, ring: newRing([]string{"home"}), self: "me"})
		return got
	}
	take(1, false)
	h.granted(1, &leaseGrant{key: key, tokens: 1, left: requests - 1})
	take(1, false)
	n := 0
	for range 20 {
		if take(hits, true) == allowed {
			n++
		}
	}
	if n != requests/hits {
		t.Errorf("%d are let in, want %d", n, requests/hits)
	}
}

// TestHolder_Lies: whatever a grant says, a holder spends no more than the limit,
// and asks again soon.
func TestHolder_Lies(t *testing.T) {
	const lie = math.MaxUint32
	h, key := newHolder(), leaseKey{1}
	now, others := time.Duration(1), newRing([]string{"home"})
	take := func() answer {
		got, _, _ := h.take(now, &taking{key: key, requests: 3, unit: mesh.UnitDay, hits: 1, first: true, ring: others, self: "me"})
		return got
	}
	if take() != ask {
		t.Fatal("a token before there is one")
	}
	for range 3 {
		h.granted(now, &leaseGrant{key: key, tokens: lie, left: lie, again: lie})
	}
	n := 0
	for take() == allowed {
		n++
	}
	if n != 3 {
		t.Errorf("%d are let in, want 3", n)
	}
	h.granted(now, &leaseGrant{key: key, short: true, again: lie})
	if take() != over {
		t.Error("the home has none, and it is asked again at once")
	}
	asked := false
	for now += mostRound + leastRound; !asked && now < 10*mostRound; now += mostRound {
		take()
		h.round(now, func(leaseAsk) { asked = true })
	}
	if !asked {
		t.Error("the home is not asked again")
	}
}
