package auth

import (
	"net/netip"
	"slices"

	"isthmus/mesh"
)

// blocks are the address blocks of one field and of its negation.
type blocks struct{ in, notIn blockTable[netip.Prefix] }

func newBlocks(b mesh.Blocks) (out blocks) {
	for _, p := range b.In {
		out.in.add(p, p)
	}
	for _, p := range b.NotIn {
		out.notIn.add(p, p)
	}
	return out
}

// match reports whether an address is in one of in, if there are any, and in none
// of notIn.
func (b *blocks) match(a netip.Addr) bool {
	return (len(b.in.entries) == 0 || b.in.contains(a)) && !b.notIn.contains(a)
}

// isZero reports whether nothing is asked for.
func (b *blocks) isZero() bool { return len(b.in.entries)+len(b.notIn.entries) == 0 }

// keys returns the blocks of which an address has to be in one.
func (b *blocks) keys() (out []entry) {
	for p := range b.in.entries {
		out = append(out, entry{block: p})
	}
	return out
}

// blockTable finds what is entered for the blocks that an address lies in, by one
// look for each length of a prefix that occurs.
type blockTable[T any] struct {
	entries map[netip.Prefix][]T
	lengths []int
}

func (t *blockTable[T]) add(p netip.Prefix, what T) {
	if t.entries == nil {
		t.entries = map[netip.Prefix][]T{}
	}
	p = p.Masked()
	t.entries[p] = append(t.entries[p], what)
	if !slices.Contains(t.lengths, p.Bits()) {
		t.lengths = append(t.lengths, p.Bits())
	}
}

// within returns what is entered for the block of a length that an address lies
// in.
func (t *blockTable[T]) within(a netip.Addr, length int) []T {
	p, err := a.Prefix(length) // an error: it is longer than the address
	if err != nil {
		return nil
	}
	return t.entries[p]
}

func (t *blockTable[T]) contains(a netip.Addr) bool {
	for _, l := range t.lengths {
		if t.within(a, l) != nil {
			return true
		}
	}
	return false
}
